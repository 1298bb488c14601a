package kernels

import (
	"fmt"

	"github.com/onmart/onmart/cuda"
)

const (
	softmaxBlock = 128
	softmaxRows  = 4  // of a block, a warp each
	softmaxHeld  = 32 // negatives of a lane that are in its registers at once

	// softmaxCycles is what a lane takes for one negative in one of the rounds, counted from the instructions: a maximum,
	// or an exponential and its place in the sum.
	softmaxCycles = 40
)

func (f *faults) softmax(o *SampledSoftmax) {
	f.size("M", o.M)
	f.size("K", o.K)
	f.between("N", o.N, 1, maxIndex)
	f.ptr("Pos", o.Pos, 4)
	f.ptr("Neg", o.Neg, 4)
	f.ptr("PI", o.PI, 4)
	f.ptr("NI", o.NI, 4)
	f.ptr("LogQ", o.LogQ, 4)
	f.ptr("W", o.W, 4)
}

// args appends what both kernels take first.
func (o *SampledSoftmax) args(a *cuda.Args) *cuda.Args {
	return a.Ptr(o.Pos).Ptr(o.Neg).Ptr(o.PI).Ptr(o.NI).Ptr(o.LogQ).Ptr(o.W)
}

func (o *SampledSoftmax) sizes(a *cuda.Args) { a.I32(int32(o.M)).I32(int32(o.K)).I32(int32(o.N)) }

// cost of so many rounds over the negatives, each reading them all, and bytes that are written.
func (o *SampledSoftmax) cost(t *Tuning, rounds, written int64) Cost {
	elements := int64(o.M) * int64(o.K)
	bytes := 4*(elements+4*int64(o.M)+2*int64(o.K)) + written
	waves, held := ceilDiv(ceilDiv(o.M, softmaxRows), 4*t.SMs), ceilDiv(o.K, 32*softmaxHeld)
	chain := 4*memoryCycles + float64(waves*held)*float64(rounds)*(memoryCycles+softmaxHeld*softmaxCycles)
	return Cost{
		Launches: 1,
		Blocks:   ceilDiv(o.M, softmaxRows),
		Bytes:    bytes,
		FLOPs:    16 * elements * (rounds - 1),
		Seconds:  t.chainSeconds(chain, bytes),
	}
}

// Kernel is such as "sampled_softmax 1024x512".
func (o *SampledSoftmax) Kernel() string { return fmt.Sprintf("sampled_softmax %dx%d", o.M, o.K) }

func (o *SampledSoftmax) check() error {
	var f faults
	f.softmax(o)
	f.ptr("Loss", o.Loss, 4)
	f.ptr("Terms", o.Terms, 4)
	return f.of(o)
}

func (o *SampledSoftmax) plan() []launch {
	return []launch{
		{kernel: "softmax_terms", grid: line(int64(o.M), softmaxRows), block: softmaxBlock, args: func(a *cuda.Args) {
			o.sizes(o.args(a).Ptr(o.Terms))
		}},
		laneSum(o.Terms, o.Loss, o.M, o.M),
	}
}

// Launch computes the loss in two launches.
func (o *SampledSoftmax) Launch(s *cuda.Stream, k *Set) error {
	if err := o.check(); err != nil {
		return err
	}
	return k.putAll(s, o, o.plan())
}

// Cost is two rounds over the negatives and the sum.
func (o *SampledSoftmax) Cost(t *Tuning) Cost {
	return o.cost(t, 2, 4*int64(o.M)).then(laneSumCost(t, o.M))
}

// Kernel is such as "sampled_softmax_grad 1024x512".
func (o *SampledSoftmaxGrad) Kernel() string {
	return fmt.Sprintf("sampled_softmax_grad %dx%d", o.M, o.K)
}

func (o *SampledSoftmaxGrad) check() error {
	var f faults
	f.softmax(&o.SampledSoftmax)
	f.ptr("DLoss", o.DLoss, 4)
	f.ptr("DPos", o.DPos, 4)
	f.ptr("DNeg", o.DNeg, 4)
	return f.of(o)
}

func (o *SampledSoftmaxGrad) plan() launch {
	return launch{
		kernel: "softmax_grad",
		grid:   line(int64(o.M), softmaxRows),
		block:  softmaxBlock,
		args: func(a *cuda.Args) {
			o.sizes(o.args(a).Ptr(o.DLoss).Ptr(o.DPos).Ptr(o.DNeg))
		},
	}
}

// Launch computes the gradient in one launch.
func (o *SampledSoftmaxGrad) Launch(s *cuda.Stream, k *Set) error {
	if err := o.check(); err != nil {
		return err
	}
	return k.put(s, o, o.plan())
}

// Cost is three rounds over the negatives, of which the last writes.
func (o *SampledSoftmaxGrad) Cost(t *Tuning) Cost {
	return o.cost(t, 3, 4*int64(o.M)*int64(o.K+1))
}
