package kernels

import (
	"fmt"
	"math"

	"github.com/onmart/onmart/cuda"
)

const (
	pinballBlock     = 128
	pinballRows      = 8 // of a block in pinball_rows, sixteen lanes each
	pinballGradBlock = 128
	// pinballCycles is what a lane takes for one element, counted from the instructions.
	pinballCycles = 30
)

func (f *faults) pinball(o *Pinball) {
	f.size("M", o.M)
	f.size("H", o.H)
	f.indexable("Y", o.M, o.H, max(len(o.Levels), 1))
	if len(o.Levels) == 0 || len(o.Levels) > 1<<10 {
		f.addf("there are %d Levels, want 1 to 1024", len(o.Levels))
	}
	f.ptr("Y", o.Y, 4)
	f.ptr("T", o.T, 4)
	f.ptr("W", o.W, 4)
	f.ptr("Table", o.Table, 4)
}

// elements of y.
func (o *Pinball) elements() int64 { return int64(o.M) * int64(o.H) * int64(len(o.Levels)) }

// TableBytes is the size of Table.
func (o *Pinball) TableBytes() int64 { return 4 * int64(len(o.Levels)) }

// fill puts the levels in Table.
func (o *Pinball) fill(s *cuda.Stream, op Op) error {
	var f faults
	if len(o.Levels) == 0 {
		f.addf("there are 0 Levels")
	}
	f.ptr("Table", o.Table, 4)
	if err := f.of(op); err != nil {
		return err
	}
	return fill(s, op, o.Table, o.Levels)
}

// Kernel is such as "pinball 256x28 at 9 levels".
func (o *Pinball) Kernel() string {
	return fmt.Sprintf("pinball %dx%d at %d levels", o.M, o.H, len(o.Levels))
}

func (o *Pinball) check() error {
	var f faults
	f.pinball(o)
	f.ptr("Loss", o.Loss, 4)
	f.ptr("Sums", o.Sums, 4)
	return f.of(o)
}

// FillTable puts the levels in Table.
func (o *Pinball) FillTable(s *cuda.Stream) error { return o.fill(s, o) }

func (o *Pinball) plan() []launch {
	return []launch{
		{kernel: "pinball_rows", grid: line(int64(o.M), pinballRows), block: pinballBlock, args: func(a *cuda.Args) {
			a.Ptr(o.Y).Ptr(o.T).Ptr(o.W).Ptr(o.Table).Ptr(o.Sums).I32(int32(o.M)).I32(int32(o.H)).I32(int32(len(o.Levels)))
		}},
		laneSum(o.Sums, o.Loss, o.M, int(o.elements())),
	}
}

// Launch computes the loss in two launches.
func (o *Pinball) Launch(s *cuda.Stream, k *Set) error {
	if err := o.check(); err != nil {
		return err
	}
	return k.putAll(s, o, o.plan())
}

// Cost is that of reading the forecasts, and the sum.
func (o *Pinball) Cost(t *Tuning) Cost {
	bytes := 4*o.elements() + 8*int64(o.M)*int64(o.H) + 4*int64(o.M)
	blocks := ceilDiv(o.M, pinballRows)
	chain := 3*memoryCycles + float64(ceilDiv(blocks, t.SMs)*ceilDiv(o.H*len(o.Levels), 16))*pinballCycles
	return Cost{
		Launches: 1,
		Blocks:   blocks,
		Bytes:    bytes,
		FLOPs:    5 * o.elements(),
		Seconds:  t.chainSeconds(chain, bytes),
	}.then(
		laneSumCost(t, o.M),
	)
}

// Kernel is such as "pinball_grad 256x28 at 9 levels".
func (o *PinballGrad) Kernel() string {
	return fmt.Sprintf("pinball_grad %dx%d at %d levels", o.M, o.H, len(o.Levels))
}

func (o *PinballGrad) check() error {
	var f faults
	f.pinball(&o.Pinball)
	f.ptr("DLoss", o.DLoss, 4)
	f.ptr("DY", o.DY, 4)
	return f.of(o)
}

// FillTable puts the levels in Table.
func (o *PinballGrad) FillTable(s *cuda.Stream) error { return o.fill(s, o) }

func (o *PinballGrad) plan() launch {
	return launch{
		kernel: "pinball_grad",
		grid:   line(o.elements(), pinballGradBlock),
		block:  pinballGradBlock,
		args: func(a *cuda.Args) {
			a.Ptr(o.Y).Ptr(o.T).Ptr(o.W).Ptr(o.Table).Ptr(o.DLoss).Ptr(o.DY)
			a.I32(int32(o.M)).I32(int32(o.H)).I32(int32(len(o.Levels))).F32(float32(o.elements()))
		},
	}
}

// Launch computes the gradient in one launch.
func (o *PinballGrad) Launch(s *cuda.Stream, k *Set) error {
	if err := o.check(); err != nil {
		return err
	}
	return k.put(s, o, o.plan())
}

// Cost is that of reading the forecasts and writing their gradients.
func (o *PinballGrad) Cost(t *Tuning) Cost {
	bytes := 8*o.elements() + 8*int64(o.M)*int64(o.H)
	return Cost{
		Launches: 1, Blocks: o.plan().blocks(), Bytes: bytes, FLOPs: 4 * o.elements(),
		Seconds: t.chainSeconds(lossAccesses*memoryCycles, bytes),
	}
}

// laneSum is the launch that adds terms in the order of program.LaneSum and divides by a number.
func laneSum(terms, loss cuda.DevicePtr, n, by int) launch {
	return launch{kernel: "lane_sum", grid: cuda.Dim{X: 1, Y: 1, Z: 1}, block: bceBlock, args: func(a *cuda.Args) {
		a.Ptr(terms).Ptr(loss).I32(int32(n)).F32(float32(by))
	}}
}

// laneSumCost is one block's: a piece of the terms after the other, and one of 16 lanes adds up its own.
func laneSumCost(t *Tuning, n int) Cost {
	bytes := 4 * (int64(n) + 1)
	chain := float64(mapAccesses+ceilDiv(n, bceTile)-1)*memoryCycles + math.Ceil(float64(n)/16)*addCycles
	return Cost{Launches: 1, Blocks: 1, Bytes: bytes, FLOPs: int64(n), Seconds: t.chainSeconds(chain, bytes)}
}

// then is the cost of one after the other.
func (c Cost) then(d Cost) Cost {
	return Cost{
		Launches: c.Launches + d.Launches,
		Blocks:   max(c.Blocks, d.Blocks),
		Bytes:    c.Bytes + d.Bytes,
		FLOPs:    c.FLOPs + d.FLOPs,
		Seconds:  c.Seconds + d.Seconds,
	}
}
