package kernels

import (
	"fmt"

	"github.com/onmart/onmart/cuda"
)

// Launches of a measurement: some to warm up, then those between two events.
const (
	warmLaunches  = 5
	timedLaunches = 50
)

// time measures a launch and notes it as a result.
func (c *checker) time(kernel, shape string, cost Cost, launch func() error) {
	if !c.wants(kernel) {
		return
	}
	seconds := c.seconds(launch)
	if c.err != nil {
		return
	}
	r := CheckResult{Kernel: kernel, Case: "time of " + shape, OK: true, Seconds: seconds}
	if seconds > 0 {
		r.GFLOPs, r.GBs = float64(cost.FLOPs)/seconds/1e9, float64(cost.Bytes)/seconds/1e9
	}
	c.results = append(c.results, r)
}

// seconds is the mean time of a launch in a row of them.
func (c *checker) seconds(launch func() error) float64 {
	var from, to *cuda.Event
	for _, e := range []**cuda.Event{&from, &to} {
		made, err := c.d.NewEvent(true)
		if err != nil {
			c.note(err)
			return 0
		}
		defer func() { c.note(made.Close()) }()
		*e = made
	}
	for i := range warmLaunches + timedLaunches {
		if i == warmLaunches {
			c.note(from.Record(c.s))
		}
		c.note(launch())
	}
	c.note(to.Record(c.s))
	c.note(c.s.Sync())
	if c.err != nil {
		return 0
	}
	took, err := cuda.Elapsed(from, to)
	c.note(err)
	return took.Seconds() / timedLaunches
}

// timeOp measures an Op under a kernel's name.
func (c *checker) timeOp(kernel string, op Op) {
	if c.wants(kernel) {
		if t, ok := op.(Tabled); ok {
			c.note(t.FillTable(c.s))
		}
		c.time(kernel, op.Kernel(), op.Cost(c.k.tuning), func() error { return op.Launch(c.s, c.k) })
	}
	c.release()
}

// space is device memory of n zeros.
func (c *checker) space(n int) cuda.DevicePtr {
	p := c.alloc(4 * n)
	if c.err == nil {
		c.note(c.s.Fill32(p, 0, int64(n)))
	}
	return p
}

// timeAll measures every kernel at sizes of the models that are trained: batches of 8192 rows, widths up to 1024.
func (c *checker) timeAll() {
	c.timeMatMul()
	const rows, width, elements = 8192, 512, 8192 * 512
	for _, m := range []Map{{Kind: MapActivate, Act: Silu}, {Kind: MapActGrad, Act: Silu}, {Kind: MapAdd}, {Kind: MapScale}, {Kind: MapFill},
		{Kind: MapDropout, Drop: Drop{Rate: 0.2}}} {
		if kernel := "map_" + m.Kind.name(); c.wants(kernel) {
			m.N, m.A, m.B, m.Y, m.Drop.State = elements, c.space(elements), c.space(elements), c.space(elements), c.state(0, 0)
			c.timeOp(kernel, &m)
		}
	}
	for _, n := range []int{1, width} {
		o := &ColSum{M: rows, N: n, Slices: c.k.tuning.ColSumSlices(rows, n)}
		if kernel := o.plan().kernel; c.wants(kernel) {
			o.X, o.Y = c.space(rows*n), c.space(o.Slices*n)
			c.timeOp(kernel, o)
		}
	}
	if c.wants("sum_slices") {
		c.timeOp("sum_slices", &SumSlices{N: 128 * 128, Slices: 16, X: c.space(16 * 128 * 128), Y: c.space(128 * 128)})
	}
	if c.wants("columns") {
		c.timeOp("columns", &Columns{M: rows, N: width / 2, LdX: width, LdY: width, From: width / 2, X: c.space(elements), Y: c.space(elements)})
	}
	if c.wants("gather") {
		const n, w = 1 << 20, 32
		o := &Gather{State: c.state(0, 0), Rows: rows, Batch: rows, PerEpoch: n / rows, N: n,
			Columns: []GatherColumn{{c.space(n * w), c.space(rows * w), w}, {c.space(n), c.space(rows), 1}}}
		o.A, o.B = feistel(n)
		o.Table = c.alloc(int(o.TableBytes()))
		c.timeOp("gather", o)
	}
	for _, m := range []int{1024, rows} {
		if kernel := map[bool]string{true: "bce", false: "bce_terms, bce_sum"}[m <= bceWhole]; c.wants(kernel) {
			c.timeOp(kernel, &BCE{M: m, Z: c.space(m), T: c.space(m), W: c.space(m), Loss: c.space(1), Terms: c.space(m)})
		}
	}
	if c.wants("bce_grad") {
		c.timeOp("bce_grad", &BCEGrad{
			M: rows, Z: c.space(rows), T: c.space(rows), W: c.space(rows), DLoss: c.space(1), DZ: c.space(rows),
		})
	}
	if c.wants("adamw") {
		o := &AdamW{State: c.state(0, 0), Rates: c.space(1)}
		for _, n := range []int{width * width, width, width * width, width} {
			o.Tensors = append(o.Tensors, AdamWTensor{
				N: n, P: c.space(n), M: c.space(n), V: c.space(n), G: c.space(n), C1: c.space(1), C2: c.space(1),
				B1: 0.9, OB1: 0.1, B2: 0.999, OB2: 0.001, Eps: 1e-8,
			})
		}
		o.Table = c.alloc(int(o.TableBytes()))
		c.timeOp("adamw", o)
	}
	if c.wants("finish") {
		o := &Finish{State: c.state(0, 0), Slots: c.space(8), NSlots: 4}
		for i := range 4 {
			o.Accumulations = append(o.Accumulations, Accumulation{X: c.space(1), Scale: 1, Slot: i})
		}
		o.Table = c.alloc(int(o.TableBytes()))
		c.timeOp("finish", o)
	}
	if c.wants("standardize") {
		c.timeOp("standardize", &Standardize{
			M: rows, N: 32, X: c.space(2 * rows * 32), Mean: c.space(64), Scale: c.space(64), Log: c.space(64), Y: c.space(rows * 32),
		})
	}
	if c.wants("calibrate") {
		c.timeOp("calibrate", &Calibrate{M: rows, Z: c.space(rows), AB: c.space(4), P: c.space(2 * rows)})
	}
	if c.err != nil {
		c.err = fmt.Errorf("kernels: while measuring: %w", c.err)
	}
}
