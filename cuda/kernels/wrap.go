package kernels

import (
	"fmt"

	"github.com/onmart/onmart/cuda"
)

const wrapBlock = 128

// Kernel is such as "standardize 8192x32".
func (o *Standardize) Kernel() string { return fmt.Sprintf("standardize %dx%d", o.M, o.N) }

func (o *Standardize) check() error {
	var f faults
	f.size("M", o.M)
	f.size("N", o.N)
	f.ptr("X", o.X, 8)
	f.ptr("Mean", o.Mean, 8)
	f.ptr("Scale", o.Scale, 8)
	f.ptr("Log", o.Log, 8)
	f.ptr("Y", o.Y, 4)
	return f.of(o)
}

func (o *Standardize) plan() launch {
	return launch{kernel: "standardize", grid: line(int64(o.M)*int64(o.N), wrapBlock), block: wrapBlock, args: func(a *cuda.Args) {
		a.Ptr(o.X).Ptr(o.Mean).Ptr(o.Scale).Ptr(o.Log).Ptr(o.Y).I32(int32(o.M)).I32(int32(o.N))
	}}
}

// Launch does it in one launch.
func (o *Standardize) Launch(s *cuda.Stream, k *Set) error {
	if err := o.check(); err != nil {
		return err
	}
	return k.put(s, o, o.plan())
}

// Cost counts no operations: they are in float64, at 1/32 of the float32 rate or less on most cards.
func (o *Standardize) Cost(t *Tuning) Cost {
	bytes := 12*int64(o.M)*int64(o.N) + 24*int64(o.N)
	return Cost{Launches: 1, Blocks: o.plan().blocks(), Bytes: bytes, Seconds: t.chainSeconds(mapAccesses*memoryCycles, bytes)}
}

// Kernel is such as "calibrate 8192".
func (o *Calibrate) Kernel() string { return fmt.Sprintf("calibrate %d", o.M) }

func (o *Calibrate) check() error {
	var f faults
	f.size("M", o.M)
	f.ptr("Z", o.Z, 4)
	f.ptr("AB", o.AB, 8)
	f.ptr("P", o.P, 8)
	return f.of(o)
}

func (o *Calibrate) plan() launch {
	return launch{kernel: "calibrate", grid: line(int64(o.M), wrapBlock), block: wrapBlock, args: func(a *cuda.Args) {
		a.Ptr(o.Z).Ptr(o.AB).Ptr(o.P).I32(int32(o.M))
	}}
}

// Launch does it in one launch.
func (o *Calibrate) Launch(s *cuda.Stream, k *Set) error {
	if err := o.check(); err != nil {
		return err
	}
	return k.put(s, o, o.plan())
}

// Cost counts no operations, as Standardize.
func (o *Calibrate) Cost(t *Tuning) Cost {
	bytes := 12*int64(o.M) + 16
	return Cost{Launches: 1, Blocks: o.plan().blocks(), Bytes: bytes, Seconds: t.chainSeconds(mapAccesses*memoryCycles, bytes)}
}
