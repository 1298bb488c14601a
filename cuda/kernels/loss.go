package kernels

import (
	"fmt"

	"github.com/onmart/onmart/cuda"
)

const (
	lossBlock = 128
	bceBlock  = 512  // the one block that sums
	bceTile   = 2048 // terms that pass through its shared memory at once
	bceWhole  = 2048 // rows up to which one block does the terms too: a second launch costs more

	// lossAccesses is the chain of a loss or its gradient: operands, of which some wait for others, and the output.
	lossAccesses = 4
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
		laneSum(o.Terms, o.Loss, o.M, o.M),
	}
}

// Launch computes the loss, in one launch for short batches, else in two.
func (o *BCE) Launch(s *cuda.Stream, k *Set) error {
	if err := o.check(); err != nil {
		return err
	}
	return k.putAll(s, o, o.plan())
}

// Cost counts 40 operations a row.
func (o *BCE) Cost(t *Tuning) Cost {
	plan := o.plan()
	c := Cost{Launches: len(plan), Blocks: plan[0].blocks(), Bytes: 12*int64(o.M) + 4, FLOPs: 40 * int64(o.M)}
	accesses := lossAccesses
	if len(plan) > 1 {
		c.Bytes += 8 * int64(o.M)
		// The terms are read and written, then read again, a piece of them after the other.
		accesses += mapAccesses + ceilDiv(o.M, bceTile) - 1
	}
	// One of 16 lanes adds up its terms.
	c.Seconds = t.chainSeconds(float64(accesses)*memoryCycles+float64(ceilDiv(o.M, 16))*addCycles, c.Bytes)
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
func (o *BCEGrad) Cost(t *Tuning) Cost {
	bytes := 16 * int64(o.M)
	return Cost{
		Launches: 1, Blocks: o.plan().blocks(), Bytes: bytes, FLOPs: 30 * int64(o.M),
		Seconds: t.chainSeconds(lossAccesses*memoryCycles, bytes),
	}
}
