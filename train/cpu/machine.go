package cpu

import (
	"github.com/onmart/onmart/train/program"
)

// partition says how a step's work is divided between workers: units, in runs whose length is a multiple of
// quantum, one run a worker. It decides who computes, never what.
type partition struct {
	units   int
	perRow  bool // as many units as the batch has rows, where that is fewer than the program's
	quantum int
}

// alone is the partition of work that worker 0 does.
var alone = partition{units: 1, quantum: 1}

// split is the run of units that worker id of n has; it may be empty.
func (p partition) split(units, id, n int) (lo, hi int) {
	per := ceilDiv(ceilDiv(units, n), p.quantum) * p.quantum
	return min(id*per, units), min((id+1)*per, units)
}

// access is what a step reads or writes: bytes of a space. With unitBytes, worker t touches only its own units'
// bytes; with 0, a worker may touch all of them.
type access struct {
	space, lo, hi int
	unitBytes     int
	write         bool
}

// spaceArena is the space of temps; every other buffer is a space of its own from 1 on.
const spaceArena = 0

// step is one instruction, or a part of one, made ready: operands resolved, work divided.
type step struct {
	partition
	run     func(w *worker, lo, hi int)
	touches []access
	barrier bool // wait for the other workers first
}

// machine is a program with its memory. Several workers run it at a time, all of them through all steps.
type machine struct {
	p       *program.Program
	varying bool // run with fewer rows than the program has: a forward program
	kernels *kernels
	store   *store
	slots   []float64
	mem     []tensor // by buffer
	place   []access // by buffer: where it lies
	spaces  int
	steps   []step
	order   []int32 // the rows of the batch, where the program gathers
	orderAt access  // its place
	macs    int     // multiply-adds of one run, or what takes as long, for the choice of how many workers
	pack    int     // elements that a worker needs for panels
}

// position is where in the training a worker is.
type position struct {
	rows  int // of this batch
	step  uint32
	first int // of this batch in the order of its epoch
	train program.Range
	order program.Permutation
	rate  float32 // learning rate
	data  *bound
}

// worker is one of the goroutines that run a machine, with memory of its own.
type worker struct {
	position
	id, of  int
	kernels *kernels
	barrier *barrier
	wake    chan struct{}
	pack    []float32
	tile    tile
	adam    adamCoef
	drop    dropCoef
}

func newWorker(k *kernels, id, of, pack int) *worker {
	return &worker{id: id, of: of, kernels: k, pack: alignedF32(pack)}
}

// wait is a barrier between the workers.
func (w *worker) wait() {
	if w.of > 1 {
		w.barrier.wait()
	}
}

// newMachine resolves a valid program of a set.
func newMachine(s *program.Set, p *program.Program, k *kernels, st *store, slots []float64) *machine {
	m := &machine{p: p, varying: p == s.Forward, kernels: k, store: st, slots: slots, spaces: 1}
	m.layout(s.Slots)
	for i := range p.Instrs {
		m.lower(&p.Instrs[i])
	}
	m.planBarriers()
	return m
}

// layout gives every buffer its memory and its place. Shared tensors are spaces by their position in the
// store, so that two programs' places need never be compared.
func (m *machine) layout(slotNames []string) {
	arena := aligned(m.p.Arena)
	for i := range m.p.Buffers {
		b := &m.p.Buffers[i]
		var t tensor
		place := access{space: m.spaces, hi: b.Len() * b.DType.Size()}
		m.spaces++
		switch b.Kind {
		case program.Param, program.State, program.Const:
			t = m.store.find(b.Name).tensor
		case program.Temp:
			t = view(arena, b.DType, b.Offset, b.Len())
			place = access{space: spaceArena, lo: b.Offset, hi: b.Offset + place.hi}
		case program.Slot:
			for s, n := range slotNames {
				if n == b.Name {
					t.f64 = m.slots[s : s+1]
				}
			}
		default:
			t = newTensor(b.DType, b.Len())
		}
		m.mem = append(m.mem, t)
		m.place = append(m.place, place)
	}
}

// scratch takes memory that no buffer has, for parts of one instruction.
func (m *machine) scratch(n int) ([]float32, access) {
	m.spaces++
	return alignedF32(n), access{space: m.spaces - 1, hi: 4 * n}
}

// planBarriers marks the steps that must wait: those that touch what an earlier step since the last barrier
// has touched in another division of the work, one of the two writing. Rows that stay with one worker from
// Gather to the loss need no barrier between.
func (m *machine) planBarriers() {
	since := 0
	for i := range m.steps {
		for j := since; j < i && !m.steps[i].barrier; j++ {
			m.steps[i].barrier = conflict(&m.steps[i], &m.steps[j])
		}
		if m.steps[i].barrier {
			since = i
		}
	}
}

func conflict(a, b *step) bool {
	same := a.partition == b.partition
	if same && a.partition == alone {
		return false
	}
	for _, x := range a.touches {
		for _, y := range b.touches {
			if x.space != y.space || x.lo >= y.hi || y.lo >= x.hi || !x.write && !y.write {
				continue
			}
			if !(same && x.unitBytes > 0 && x.unitBytes == y.unitBytes && x.lo == y.lo) {
				return true
			}
		}
	}
	return false
}

// run does all steps for a batch of w.rows rows. It ends without a barrier.
func (m *machine) run(w *worker) {
	for i := range m.steps {
		s := &m.steps[i]
		if s.barrier {
			w.wait()
		}
		units := s.units
		if s.perRow {
			units = w.rows
		}
		if lo, hi := s.split(units, w.id, w.of); lo < hi {
			s.run(w, lo, hi)
		}
	}
}

// result is the output of a forward program: its buffer and the elements of one row.
func (m *machine) result() (id int, b *program.Buffer, width int) {
	for i := range m.p.Buffers {
		if b := &m.p.Buffers[i]; b.Kind == program.Output {
			return i, b, b.Len() / b.Shape[0]
		}
	}
	panic("cpu: a forward program without an output") // Validate refuses it
}
