package kernels

import (
	"fmt"
	"unsafe"

	"github.com/onmart/onmart/cuda"
)

const (
	adamwBlock = 128
	// The chains of accesses: adamw reads which tensor a block has, the tensor, the step, then what depends on them, and
	// writes; finish reads an item, what it points to and the slot, and writes.
	adamwAccesses  = 5
	finishAccesses = 4
)

// adamwEntry is Tensor of step.cu. The table holds one for each tensor, then the tensor of each block as int32.
type adamwEntry struct {
	p, m, v, g, c1, c2           cuda.DevicePtr
	n                            int64
	slices, first                int32
	b1, ob1, b2, ob2, eps, decay float32
}

// AdamWTableBytes is the size of the table of AdamW for these tensors; only N is looked at.
func AdamWTableBytes(tensors []AdamWTensor) int64 {
	return int64(len(tensors))*int64(unsafe.Sizeof(adamwEntry{})) + 4*int64(adamwBlocks(tensors))
}

func adamwBlocks(tensors []AdamWTensor) (blocks int) {
	for i := range tensors {
		blocks += ceilDiv(tensors[i].N, adamwBlock)
	}
	return blocks
}

// Kernel is such as "adamw 17089 of 8 tensors".
func (o *AdamW) Kernel() string {
	return fmt.Sprintf("adamw %d of %d tensors", o.elements(), len(o.Tensors))
}

func (o *AdamW) elements() (n int) {
	for i := range o.Tensors {
		n += o.Tensors[i].N
	}
	return n
}

func (o *AdamW) check() error {
	var f faults
	f.ptr("State", o.State, 4)
	f.ptr("Rates", o.Rates, 4)
	f.ptr("Table", o.Table, 8)
	f.tensors(o.Tensors)
	return f.of(o)
}

func (f *faults) tensors(tensors []AdamWTensor) {
	if len(tensors) == 0 {
		f.addf("Tensors is empty")
	}
	for i, t := range tensors {
		name := fmt.Sprintf("Tensors[%d].", i)
		for _, p := range []struct {
			name string
			p    cuda.DevicePtr
		}{{"P", t.P}, {"M", t.M}, {"V", t.V}, {"G", t.G}, {"C1", t.C1}, {"C2", t.C2}} {
			f.ptr(name+p.name, p.p, 4)
		}
		f.between(name+"N", t.N, 1, 1<<37)
		f.between(name+"Slices", t.Slices, 0, 65535)
	}
}

// TableBytes is the size of Table.
func (o *AdamW) TableBytes() int64 { return AdamWTableBytes(o.Tensors) }

// FillTable puts the tensors in Table.
func (o *AdamW) FillTable(s *cuda.Stream) error {
	var f faults
	f.tensors(o.Tensors)
	f.ptr("Table", o.Table, 8)
	if err := f.of(o); err != nil {
		return err
	}
	table := make([]adamwEntry, len(o.Tensors))
	blocks := make([]int32, 0, adamwBlocks(o.Tensors))
	for i, t := range o.Tensors {
		table[i] = adamwEntry{
			p: t.P, m: t.M, v: t.V, g: t.G, c1: t.C1, c2: t.C2, n: int64(t.N), slices: int32(max(t.Slices, 1)), first: int32(len(blocks)),
			b1: t.B1, ob1: t.OB1, b2: t.B2, ob2: t.OB2, eps: t.Eps, decay: t.Decay,
		}
		for range ceilDiv(t.N, adamwBlock) {
			blocks = append(blocks, int32(i))
		}
	}
	if err := fill(s, o, o.Table, table); err != nil {
		return err
	}
	return fill(s, o, o.blockTable(), blocks)
}

func (o *AdamW) blockTable() cuda.DevicePtr {
	return o.Table + cuda.DevicePtr(len(o.Tensors))*cuda.DevicePtr(unsafe.Sizeof(adamwEntry{}))
}

func (o *AdamW) plan() launch {
	return launch{kernel: "adamw", grid: cuda.Dim{X: clampU32(int64(adamwBlocks(o.Tensors))), Y: 1, Z: 1}, block: adamwBlock,
		args: func(a *cuda.Args) { a.Ptr(o.State).Ptr(o.Rates).Ptr(o.Table).Ptr(o.blockTable()) }}
}

// Launch updates all tensors in one launch.
func (o *AdamW) Launch(s *cuda.Stream, k *Set) error {
	if err := o.check(); err != nil {
		return err
	}
	return k.put(s, o, o.plan())
}

// Cost counts 16 operations an element and one for each further slice of its gradient.
func (o *AdamW) Cost(t *Tuning) Cost {
	c := Cost{Launches: 1, Blocks: o.plan().blocks()}
	most := 1
	for i := range o.Tensors {
		n, s := int64(o.Tensors[i].N), int64(max(o.Tensors[i].Slices, 1))
		c.Bytes += 4 * n * (6 + s) // p, m, v read and written
		c.FLOPs += n * (15 + s)
		most = max(most, int(s))
	}
	c.Seconds = t.chainSeconds(adamwAccesses*memoryCycles+sliceCycles(most), c.Bytes)
	return c
}

// accumulationEntry is Item of step.cu.
type accumulationEntry struct {
	x     cuda.DevicePtr
	scale float64
	slot  int32
	_     int32
}

// Kernel is such as "finish 3 accumulations into 2 slots".
func (o *Finish) Kernel() string {
	return fmt.Sprintf("finish %d accumulations into %d slots", len(o.Accumulations), o.NSlots)
}

func (o *Finish) check() error {
	var f faults
	f.ptr("State", o.State, 4)
	f.between("NSlots", o.NSlots, 0, maxSize)
	if o.NSlots > 0 {
		f.ptr("Slots", o.Slots, 8)
	}
	f.accumulations(o)
	return f.of(o)
}

// accumulations may be none; then Table is not looked at.
func (f *faults) accumulations(o *Finish) {
	if len(o.Accumulations) > 0 {
		f.ptr("Table", o.Table, 8)
	}
	for i, a := range o.Accumulations {
		f.optional(fmt.Sprintf("Accumulations[%d].X", i), a.X, 4)
		if a.Slot < 0 || a.Slot >= o.NSlots {
			f.addf("Accumulations[%d].Slot is %d of %d", i, a.Slot, o.NSlots)
		}
	}
}

// TableBytes is the size of Table, 0 without accumulations.
func (o *Finish) TableBytes() int64 {
	return int64(len(o.Accumulations)) * int64(unsafe.Sizeof(accumulationEntry{}))
}

// FillTable puts the accumulations in Table.
func (o *Finish) FillTable(s *cuda.Stream) error {
	var f faults
	f.accumulations(o)
	if err := f.of(o); err != nil || len(o.Accumulations) == 0 {
		return err
	}
	table := make([]accumulationEntry, len(o.Accumulations))
	for i, a := range o.Accumulations {
		table[i] = accumulationEntry{x: a.X, scale: a.Scale, slot: int32(a.Slot)}
	}
	return fill(s, o, o.Table, table)
}

func (o *Finish) plan() launch {
	return launch{kernel: "finish", grid: cuda.Dim{X: 1, Y: 1, Z: 1}, block: 32, args: func(a *cuda.Args) {
		a.Ptr(o.State).Ptr(o.Slots).I32(int32(o.NSlots)).Ptr(o.Table).I32(int32(len(o.Accumulations)))
	}}
}

// Launch ends the step in one launch.
func (o *Finish) Launch(s *cuda.Stream, k *Set) error {
	if err := o.check(); err != nil {
		return err
	}
	return k.put(s, o, o.plan())
}

// Cost is that of the table and the slots.
func (o *Finish) Cost(t *Tuning) Cost {
	n := int64(len(o.Accumulations))
	bytes := 2*StateBytes + 28*n + 16*int64(o.NSlots)
	return Cost{Launches: 1, Blocks: 1, Bytes: bytes, FLOPs: 2 * n, Seconds: t.chainSeconds(finishAccesses*memoryCycles, bytes)}
}
