package kernels

import (
	"fmt"

	"github.com/onmart/onmart/cuda"
)

const (
	lossBlock = 128
	bceBlock  = 512  // the one block that sums
	bceWhole  = 2048 // rows up to which one block does the terms too: a second launch costs more
)

// Kernel is such as "bce 256".
func (o *BCE) Kernel() string { return fmt.Sprintf("bce %d", o.M) }

func (o *BCE) check() error {
	var f faults
	f.size("M", o.M)
	f.ptr("Z", o.Z, 4)
	f.ptr("T", o.T, 4)
	f.ptr("W", o.W, 4)
	f.ptr("Loss", o.Loss, 4)
	f.ptr("Terms", o.Terms, 4)
	return f.of(o)
}

func (o *BCE) plan() []launch {
	one := cuda.Dim{X: 1, Y: 1, Z: 1}
	if o.M <= bceWhole {
		return []launch{{kernel: "bce", grid: one, block: bceBlock, args: func(a *cuda.Args) {
			a.Ptr(o.Z).Ptr(o.T).Ptr(o.W).Ptr(o.Loss).I32(int32(o.M))
		}}}
	}
	return []launch{
		{kernel: "bce_terms", grid: line(int64(o.M), lossBlock), block: lossBlock, args: func(a *cuda.Args) {
			a.Ptr(o.Z).Ptr(o.T).Ptr(o.W).Ptr(o.Terms).I32(int32(o.M))
		}},
		{kernel: "bce_sum", grid: one, block: bceBlock, args: func(a *cuda.Args) {
			a.Ptr(o.Terms).Ptr(o.Loss).I32(int32(o.M))
		}},
	}
}

// Launch computes the loss, in one launch for short batches, else in two.
func (o *BCE) Launch(s *cuda.Stream, k *Set) error {
	if err := o.check(); err != nil {
		return err
	}
	for _, l := range o.plan() {
		if err := k.put(s, o, l); err != nil {
			return err
		}
	}
	return nil
}

// Cost counts 40 operations a row.
func (o *BCE) Cost(*Tuning) Cost {
	plan := o.plan()
	c := Cost{Launches: len(plan), Blocks: plan[0].blocks(), Bytes: 12*int64(o.M) + 4, FLOPs: 40 * int64(o.M)}
	if len(plan) > 1 {
		c.Bytes += 8 * int64(o.M)
	}
	return c
}

// Kernel is such as "bce_grad 256".
func (o *BCEGrad) Kernel() string { return fmt.Sprintf("bce_grad %d", o.M) }

func (o *BCEGrad) check() error {
	var f faults
	f.size("M", o.M)
	f.ptr("Z", o.Z, 4)
	f.ptr("T", o.T, 4)
	f.ptr("W", o.W, 4)
	f.ptr("DLoss", o.DLoss, 4)
	f.ptr("DZ", o.DZ, 4)
	return f.of(o)
}

func (o *BCEGrad) plan() launch {
	return launch{kernel: "bce_grad", grid: line(int64(o.M), lossBlock), block: lossBlock, args: func(a *cuda.Args) {
		a.Ptr(o.Z).Ptr(o.T).Ptr(o.W).Ptr(o.DLoss).Ptr(o.DZ).I32(int32(o.M))
	}}
}

// Launch computes the gradient in one launch.
func (o *BCEGrad) Launch(s *cuda.Stream, k *Set) error {
	if err := o.check(); err != nil {
		return err
	}
	return k.put(s, o, o.plan())
}

// Cost counts 30 operations a row.
func (o *BCEGrad) Cost(*Tuning) Cost {
	return Cost{Launches: 1, Blocks: o.plan().blocks(), Bytes: 16 * int64(o.M), FLOPs: 30 * int64(o.M)}
}
