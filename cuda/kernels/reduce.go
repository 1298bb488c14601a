package kernels

import (
	"fmt"

	"github.com/onmart/onmart/cuda"
)

const (
	colSumBlock = 64
	narrow      = 16 // columns up to which col_sum_narrow is quicker, which goes through shared memory
	narrowBlock = 256
	sumBlock    = 128
)

// Kernel is such as "col_sum 256x64".
func (o *ColSum) Kernel() string {
	s := fmt.Sprintf("col_sum %dx%d", o.M, o.N)
	if o.slices() > 1 {
		s += fmt.Sprintf(" in %d slices", o.Slices)
	}
	return s
}

func (o *ColSum) slices() int { return max(o.Slices, 1) }

func (o *ColSum) check() error {
	var f faults
	f.size("M", o.M)
	f.size("N", o.N)
	f.between("Slices", o.Slices, 0, 65535)
	f.ptr("X", o.X, 4)
	f.ptr("Y", o.Y, 4)
	return f.of(o)
}

func (o *ColSum) plan() launch {
	grid := cuda.Dim{X: uint32(ceilDiv(o.N, colSumBlock)), Y: uint32(o.slices()), Z: 1}
	l := launch{kernel: "col_sum", block: colSumBlock, grid: grid}
	if o.N <= narrow {
		l.kernel, l.block, l.grid.X = "col_sum_narrow", narrowBlock, 1
	}
	l.args = func(a *cuda.Args) {
		a.Ptr(o.X).Ptr(o.Y).I32(int32(o.M)).I32(int32(o.N)).I32(int32(ceilDiv(o.M, o.slices())))
	}
	return l
}

// Launch does the sum in one launch.
func (o *ColSum) Launch(s *cuda.Stream, k *Set) error {
	if err := o.check(); err != nil {
		return err
	}
	return k.put(s, o, o.plan())
}

// Cost is that of reading x.
func (o *ColSum) Cost(t *Tuning) Cost {
	elements, outs := int64(o.M)*int64(o.N), int64(o.slices())*int64(o.N)
	bytes := 4 * (elements + outs)
	return Cost{
		Launches: 1, Blocks: o.plan().blocks(), Bytes: bytes, FLOPs: elements,
		Seconds: t.chainSeconds(columnCycles(ceilDiv(o.M, o.slices()), o.N)+memoryCycles, bytes), // the store at the end
	}
}

// Kernel is such as "sum_slices 8x4096".
func (o *SumSlices) Kernel() string { return fmt.Sprintf("sum_slices %dx%d", o.Slices, o.N) }

func (o *SumSlices) check() error {
	var f faults
	f.between("N", o.N, 1, 1<<38)
	f.between("Slices", o.Slices, 1, 65535)
	f.ptr("X", o.X, 4)
	f.ptr("Y", o.Y, 4)
	return f.of(o)
}

func (o *SumSlices) plan() launch {
	return launch{kernel: "sum_slices", grid: line(int64(o.N), sumBlock), block: sumBlock,
		args: func(a *cuda.Args) { a.Ptr(o.X).Ptr(o.Y).I64(int64(o.N)).I32(int32(o.Slices)) }}
}

// Launch does the sum in one launch. Y may be X.
func (o *SumSlices) Launch(s *cuda.Stream, k *Set) error {
	if err := o.check(); err != nil {
		return err
	}
	return k.put(s, o, o.plan())
}

// Cost is that of reading all slices.
func (o *SumSlices) Cost(t *Tuning) Cost {
	n, s := int64(o.N), int64(o.Slices)
	bytes := 4 * n * (s + 1)
	return Cost{
		Launches: 1, Blocks: o.plan().blocks(), Bytes: bytes, FLOPs: n * (s - 1),
		Seconds: t.chainSeconds(2*memoryCycles+sliceCycles(o.Slices), bytes), // the first slice, the others, the store
	}
}
