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
	region  int // of a step of a region, whose rows are divided block by block; 0 elsewhere
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

// spaceArena is the space of what lies in the arena; every other buffer is a space of its own from 1 on.
const spaceArena = 0

// step is one instruction, or a part of one, made ready: operands resolved, work divided.
type step struct {
	partition
	// run does units lo..hi.
	run func(w *worker, lo, hi int)
	// over, in place of run, does units lo..hi of sums over the rows r0..r1 of the batch; first begins the sums, else
	// they go on.
	over    func(w *worker, lo, hi, r0, r1 int, first bool)
	rowwise bool // it may be run a block of rows at a time: see emitRows
	touches []access
	instr   int // of the program, or one of the numbers below 0
	piece   int // among the steps of the instruction
	id      int // among the steps of the machine, for the stopwatch
}

// What a step is of that is of no instruction.
const (
	instrLoad   = -1 - iota // an input of a forward program is filled
	instrUnload             // its output is handed out
	instrPack               // weights are packed that were updated
	instrCopy               // rows go from a buffer to its twin, or back
)

// machine is a program with its memory. Several workers run it at a time, all of them through all phases.
type machine struct {
	p       *program.Program
	varying bool // run with any number of rows: a forward program
	single  bool // one instruction after the other, each buffer at a place of its own: see find.go
	kernels *kernels
	store   *store
	slots   []float64
	workers int // at most
	most    int // rows of a block, where a test wants other than what fits the cache; 0 elsewhere

	mem     []tensor // by buffer
	place   []access // by buffer: where it lies
	spaces  int
	steps   []step
	instr   int      // under lowering
	order   []int32  // the rows of the batch, where the program gathers
	orderAt access   // its place
	macs    int      // multiply-adds of one run, or what takes as long, for the choice of how many workers
	pack    int      // elements that a worker needs for panels
	gathers []string // columns, in the order of the Gathers
	packs   []*panelSet
	turns   *machine // that this one takes turns with, so that it must keep its packed weights true; nil without
	own     int      // bytes of memory beside the arena

	plan                  layout
	whole, twinMem        []tensor // by buffer, and by twin
	wholePlace, twinPlace []access
	phases                []phase
	// stream: a forward program that is one region, and so takes any number of rows at once.
	stream bool
	ids    int    // steps
	clock  *clock // nil but under Profile
	in     []feed // of a forward program
	out    drain
	checks bool // that indices among its inputs are some
}

// position is where in the training a worker is.
type position struct {
	rows  int // of this batch
	base  int // what is added to the row of a buffer to have the row of the batch: see layout
	from  int // the first row of this batch among those that a forward program is given
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
	start   *gate
	pack    []float32
	tile    tile
	product matmul   // the part of a product that is under way
	adam    adamCoef // by adamCoef alone
	adamOf  adamKey
	drop    dropCoef
	columns [][]float32 // of data, by gather of the machine
	whose   columnsKey
	fault   error // the first of a forward program's inputs
	outcome outcome
}

func newWorker(k *kernels, id, of, pack int) *worker {
	return &worker{id: id, of: of, kernels: k, pack: alignedF32(pack), start: newGate()}
}

// wait is a barrier between the workers.
func (w *worker) wait() {
	if w.of > 1 {
		w.barrier.wait()
	}
}

// outline plans the machine of a valid program: it says what memory it needs, and runs after build.
func (m *machine) outline() *machine {
	m.dry()
	m.lowerAll()
	m.plan = m.planLayout()
	return m
}

// build gives the machine its memory and makes its steps. The arena has plan.bytes at least; several machines of which
// one runs at a time may share it.
func (m *machine) build(arena []float64, slotNames []string) {
	m.allocate(arena, slotNames)
	m.lowerAll()
	m.assemble()
}

// scratch takes memory that no buffer has, for parts of one instruction, with what it is to who reads it whole and to
// who writes it by units, or with 0 unitBytes as it comes. It is never cut into blocks: a step of a region finds row i
// of the batch's block at i + w.base.
func (m *machine) scratch(n, unitBytes int) (x []float32, whole, written access) {
	m.spaces++
	m.own += 4 * n
	whole = access{space: m.spaces - 1, hi: 4 * n}
	written = whole
	written.write, written.unitBytes = true, unitBytes
	return alignedF32(n), whole, written
}

// lowerAll makes the steps of all instructions.
func (m *machine) lowerAll() {
	m.steps, m.order, m.macs, m.pack, m.gathers, m.own = nil, nil, 0, 0, nil, 0
	m.spaces = len(m.p.Buffers) + 1
	m.packs = nil
	for i := range m.in {
		m.instr = instrLoad
		m.load(i)
	}
	for i := range m.p.Instrs {
		m.instr = i
		m.enter(i)
		m.lower(&m.p.Instrs[i])
		m.leave(i)
	}
	if m.varying {
		m.instr = instrUnload
		m.unload()
	}
	m.instr = instrPack
	m.repack()
}

func conflict(a, b *step) bool {
	same := a.partition == b.partition
	if same && a.partition == alone {
		return false
	}
	for _, x := range a.touches {
		for _, y := range b.touches {
			if !x.meets(y) {
				continue
			}
			if !(same && x.unitBytes > 0 && x.unitBytes == y.unitBytes && x.lo == y.lo) {
				return true
			}
		}
	}
	return false
}

// meets tells whether the order of two accesses matters.
func (a access) meets(b access) bool {
	return a.space == b.space && a.lo < b.hi && b.lo < a.hi && (a.write || b.write)
}

// run does all phases for a batch of w.rows rows. It ends without a barrier.
func (m *machine) run(w *worker) {
	for i := range m.phases {
		ph := &m.phases[i]
		clock := m.clock
		if clock != nil && w.id > 0 {
			clock = nil
		}
		if clock != nil && i == 0 {
			clock.begin()
		}
		if ph.barrier {
			w.wait()
			if clock != nil {
				clock.waited()
			}
		}
		switch {
		case ph.rows == nil:
			m.plain(w, &ph.step, clock)
		case ph.sums == nil:
			m.eachRow(w, ph, clock)
		default:
			m.eachBlock(w, ph, clock)
		}
	}
}

// plain does a worker's share of a step outside the regions.
func (m *machine) plain(w *worker, s *step, c *clock) {
	units := s.units
	if s.perRow {
		units = w.rows
	}
	lo, hi := s.split(units, w.id, w.of)
	if lo >= hi {
		return
	}
	if s.over != nil {
		s.over(w, lo, hi, 0, m.p.Rows, true)
	} else {
		s.run(w, lo, hi)
	}
	if c != nil {
		c.lap(s, float64(hi-lo)/float64(units))
	}
}
