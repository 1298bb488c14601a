package kernels

import (
	"errors"
	"fmt"
	"time"

	"github.com/onmart/onmart/cuda"
)

// timedLaunches is how many launches stand between the two events of a measurement. warmSeconds is how long a GPU is kept
// busy with them before, so that its clocks have risen.
const (
	timedLaunches = 50
	warmSeconds   = 0.3
)

// time measures a launch and notes it as a result.
func (c *checker) time(kernel, shape string, cost Cost, launch func() error) {
	if !c.wants(kernel) {
		return
	}
	seconds, captured := c.seconds(launch)
	if c.err != nil {
		return
	}
	r := CheckResult{Kernel: kernel, Case: "time of " + shape, OK: true, Seconds: seconds}
	if !captured {
		r.Case += ", launched one by one (the driver has no graphs): the host's time is in it"
	}
	if seconds > 0 {
		r.GFLOPs, r.GBs = float64(cost.FLOPs)/seconds/1e9, float64(cost.Bytes)/seconds/1e9
	}
	c.results = append(c.results, r)
}

// seconds is the mean time of a launch in a row of them. They are captured as one graph, without which a kernel that takes
// less than the host takes to launch it could not be measured; false is that the driver has no graphs.
func (c *checker) seconds(launch func() error) (seconds float64, captured bool) {
	run, end, captured := c.row(launch)
	defer func() { c.note(end()) }()
	c.warm(run)
	return c.between(run).Seconds() / timedLaunches, captured
}

// row is a function that puts timedLaunches launches on the stream, and one that ends it.
func (c *checker) row(launch func() error) (run, end func() error, captured bool) {
	each := func() error {
		for range timedLaunches {
			if err := launch(); err != nil {
				return err
			}
		}
		return nil
	}
	end = func() error { return nil }
	if c.err != nil {
		return each, end, false
	}
	c.note(c.s.Sync()) // what a capture may not hold: the fills and the tables of the operands
	g, err := c.s.Capture(each)
	if errors.Is(err, cuda.NotSupported) {
		return each, end, false
	}
	if err != nil {
		c.note(err)
		return each, end, false
	}
	return func() error { return g.Launch(c.s) }, g.Close, true
}

// warm repeats a row for warmSeconds, and at least once. An emulation has no clocks to raise.
func (c *checker) warm(run func() error) {
	if c.d.Info().Emulated() {
		return
	}
	for from := time.Now(); c.err == nil; {
		c.note(run())
		c.note(c.s.Sync())
		if time.Since(from).Seconds() >= warmSeconds {
			return
		}
	}
}

// between is the time that the device takes for what run puts on the stream, 0 after an error.
func (c *checker) between(run func() error) time.Duration {
	var from, to *cuda.Event
	for _, e := range []**cuda.Event{&from, &to} {
		if c.err != nil {
			return 0
		}
		made, err := c.d.NewEvent(true)
		if err != nil {
			c.note(err)
			return 0
		}
		defer func() { c.note(made.Close()) }()
		*e = made
	}
	record := func(e *cuda.Event) func() error { return func() error { return e.Record(c.s) } }
	for _, f := range []func() error{record(from), run, record(to), c.s.Sync} {
		if c.err == nil {
			c.note(f())
		}
	}
	if c.err != nil {
		return 0
	}
	took, err := cuda.Elapsed(from, to)
	c.note(err)
	return took
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

// beyondCache is how many float32 an elementwise kernel is measured at: least, or what is more than twice a second-level
// cache of so many bytes, so that GB/s is the memory's and not the cache's. It is a multiple of 4096.
func beyondCache(least, cacheBytes int) int {
	const step = 4096
	return max(least, (2*cacheBytes/4/step+1)*step)
}

// timeAll measures every kernel at sizes of the models that are trained: batches of 8192 rows, widths up to 1024.
// Elementwise kernels get as many rows as the second-level cache does not hold.
func (c *checker) timeAll() {
	c.timeMatMul()
	const rows, width = 8192, 512
	elements := beyondCache(rows*width, c.d.Info().L2Bytes)
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
		c.timeOp("columns", &Columns{M: elements / width, N: width / 2, LdX: width, LdY: width, From: width / 2, X: c.space(elements), Y: c.space(elements)})
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
		if kernel := map[bool]string{true: "bce", false: "bce_terms, lane_sum"}[m <= bceWhole]; c.wants(kernel) {
			c.timeOp(kernel, &BCE{M: m, Z: c.space(m), T: c.space(m), W: c.space(m), Loss: c.space(1), Terms: c.space(m)})
		}
	}
	if c.wants("bce_grad") {
		c.timeOp("bce_grad", &BCEGrad{
			M: rows, Z: c.space(rows), T: c.space(rows), W: c.space(rows), DLoss: c.space(1), DZ: c.space(rows),
		})
	}
	c.timeLosses()
	c.timeTable()
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
