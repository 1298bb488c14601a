package cpu

import (
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"github.com/onmart/onmart/train/program"
)

// lineBytes is the alignment of every buffer: a cache line, which no two threads then share by accident.
const lineBytes = 64

// aligned takes zeroed memory that begins at a multiple of lineBytes. It is made of float64 so that both types
// may lie in it.
func aligned(bytes int) []float64 {
	raw := make([]float64, (bytes+7)/8+lineBytes/8)
	skip := (lineBytes - int(uintptr(unsafe.Pointer(&raw[0]))%lineBytes)) % lineBytes
	return raw[skip/8 : skip/8+(bytes+7)/8]
}

// alignedF32 takes n zeroed elements.
func alignedF32(n int) []float32 {
	if n == 0 {
		return nil
	}
	return unsafe.Slice((*float32)(unsafe.Pointer(&aligned(4 * n)[0])), n)
}

// tensor is the memory of one buffer: one of the two slices is set.
type tensor struct {
	f32 []float32
	f64 []float64
}

func newTensor(d program.DType, n int) tensor {
	if d == program.F64 {
		return tensor{f64: aligned(8 * n)[:n]}
	}
	return tensor{f32: alignedF32(n)}
}

// view is the tensor at a byte offset of an arena.
func view(arena []float64, d program.DType, offset, n int) tensor {
	if d == program.F64 {
		return tensor{f64: arena[offset/8 : offset/8+n : offset/8+n]}
	}
	return tensor{f32: unsafe.Slice((*float32)(unsafe.Pointer(&arena[offset/8])), n)}
}

// named is a tensor of the store: shared by name between the programs of a set.
type named struct {
	program.Held
	tensor
}

// store holds what outlives a step, and the panels of weights that do not change.
type store struct {
	tensors []*named
	frozen  bool
	filled  int // times, for what is made of constants
	packs   map[packKey][]float32
}

type packKey struct {
	name   string
	transB bool
}

// find is the tensor of that name, or nil.
func (s *store) find(name string) *named {
	i, ok := slices.BinarySearchFunc(s.tensors, name, func(t *named, name string) int { return strings.Compare(t.Name, name) })
	if !ok {
		return nil
	}
	return s.tensors[i]
}

// panels returns the packed right-hand side of a product with a weight that does not change.
func (s *store) panels(name string, mm *matmul, k *kernels) []float32 {
	key := packKey{name, mm.transB}
	if s.packs[key] == nil {
		s.packs[key] = mm.packAll(k)
	}
	return s.packs[key]
}

// panelSet is the packed form of a weight that is updated by the program: made when a run begins and after each update.
type panelSet struct {
	key    packKey
	mm     matmul
	packed []float32
	weight int    // its buffer
	place  access // of the packed form
}

// panelsOf is the packed form of weight b for a product whose output has the rows of the batch, or nil where the
// product packs it itself: for a few rows, or where the weight has been written before.
func (l lowering) panelsOf(b, out int, mm *matmul) *panelSet {
	few := 48 * tileRows // b as it lies is read nearly as fast: the copy must be for many rows
	if mm.transB {
		few = 3 * tileRows
	}
	if l.buf(b).Kind != program.Param || l.store.frozen || mm.transA || mm.n == 1 || mm.k == 1 ||
		!l.buf(out).PerRow || l.p.Rows < few {
		return nil
	}
	for i := range l.p.Instrs[:l.instr] {
		if slices.Contains(l.p.Instrs[i].Outs, b) {
			return nil
		}
	}
	key := packKey{l.buf(b).Name, mm.transB}
	for _, s := range l.packs {
		if s.key == key {
			return s
		}
	}
	s := &panelSet{key: key, mm: *mm, packed: l.store.room(key, mm), weight: b}
	s.place = access{space: l.spaces, hi: 4 * len(s.packed)}
	l.machine.spaces++
	l.machine.packs = append(l.packs, s)
	return s
}

// room is memory for the packed form of a weight, which the machines of a set share.
func (s *store) room(key packKey, mm *matmul) []float32 {
	if s.packs[key] == nil {
		s.packs[key] = alignedF32(mm.k * mm.panels() * tileCols)
	}
	return s.packs[key]
}

// pack makes panels lo..hi.
func (s *panelSet) pack(k *kernels, lo, hi int) {
	for k0 := 0; k0 < s.mm.k; k0 += kBlock {
		kc := min(kBlock, s.mm.k-k0)
		s.mm.pack(k, s.packed[(k0*s.mm.panels()+lo*kc)*tileCols:], k0, kc, lo, hi)
	}
}

// repack emits the steps that pack the weights that the program has updated, those too that only the machine reads with
// which it takes turns.
func (m *machine) repack() {
	l := lowering{machine: m}
	sets := slices.Clone(m.packs)
	if m.turns != nil {
		for _, s := range m.turns.packs {
			if !slices.ContainsFunc(sets, func(t *panelSet) bool { return t.key == s.key }) {
				other := *s
				other.weight = slices.IndexFunc(m.p.Buffers, func(b program.Buffer) bool { return b.Name == s.key.name })
				other.place.space = m.spaces
				m.spaces++
				sets = append(sets, &other)
			}
		}
	}
	for _, s := range sets {
		updated := slices.ContainsFunc(m.p.Instrs, func(in program.Instr) bool { return slices.Contains(in.Outs, s.weight) })
		if !updated {
			continue
		}
		made := s.place
		made.write, made.unitBytes = true, 4*s.mm.k*tileCols
		l.emit(partition{units: s.mm.panels(), quantum: 1}, func(w *worker, lo, hi int) { s.pack(w.kernels, lo, hi) },
			l.whole(s.weight, false), made)
	}
}

// prepare packs all weights, divided between the workers, before a run.
func (m *machine) prepare(w *worker) {
	for _, s := range m.packs {
		all := partition{units: s.mm.panels(), quantum: 1}
		if lo, hi := all.split(all.units, w.id, w.of); lo < hi {
			s.pack(w.kernels, lo, hi)
		}
	}
	w.wait()
}

// newStore takes memory for every tensor of the set.
func newStore(s *program.Set) *store {
	st := &store{packs: map[packKey][]float32{}}
	for _, h := range s.Holds() {
		st.tensors = append(st.tensors, &named{h, newTensor(h.DType, h.Len())})
	}
	return st
}

// held is the bytes of all tensors and panels.
func (s *store) held() (n int) {
	for _, t := range s.tensors {
		n += 4*len(t.f32) + 8*len(t.f64)
	}
	for _, p := range s.packs {
		n += 4 * len(p)
	}
	return n
}

// fill copies tensors in by name, all or, where one is missing or misshapen, none.
func (s *store) fill(ts program.Tensors, extra bool) error {
	held := make([]program.Held, len(s.tensors))
	for i, t := range s.tensors {
		held[i] = t.Held
	}
	if err := program.CheckTensors(held, ts, extra); err != nil {
		return fmt.Errorf("cpu: %w", err)
	}
	s.filled++
	for i := range ts {
		if t := s.find(ts[i].Name); t != nil {
			copy(t.f32, ts[i].F32)
			copy(t.f64, ts[i].F64)
		}
	}
	return nil
}

// export copies all tensors out, sorted by name.
func (s *store) export() program.Tensors {
	ts := make(program.Tensors, 0, len(s.tensors))
	for _, t := range s.tensors {
		ts = append(ts, program.Tensor{Name: t.Name, DType: t.DType, Shape: slices.Clone(t.Shape),
			F32: slices.Clone(t.f32), F64: slices.Clone(t.f64)})
	}
	ts.Sort()
	return ts
}
