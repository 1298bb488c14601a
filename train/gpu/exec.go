package gpu

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/onmart/onmart/cuda"
	"github.com/onmart/onmart/cuda/kernels"
	"github.com/onmart/onmart/train/program"
)

// exec is a compiled set: program.Exec.
type exec struct {
	*Backend
	set     *program.Set
	held    []program.Held
	core    *slab // tensors, slots and state
	tensors map[string]span
	slots   cuda.DevicePtr
	state   kernels.State
	lanes   []*cuda.Stream // the first is where everything meets
	data    *bound
	closed  bool
}

var errClosed = errors.New("gpu: the Exec is closed")

// open takes what lives as long as the Exec.
func (e *exec) open() error {
	var bytes int64
	for i := range e.held {
		bytes += aligned(tensorBytes(&e.held[i]))
	}
	slots := int64(8 * len(e.set.Slots))
	core, err := newSlab(e.Device, e.Apart, bytes+aligned(max(slots, 1))+aligned(kernels.StateBytes))
	if err != nil {
		return outOfMemory(err, "the weights and the state of the optimizer")
	}
	e.core = core
	for range laneCount {
		s, err := e.Device.NewStream()
		if err != nil {
			return err
		}
		e.lanes = append(e.lanes, s)
	}
	for i := range e.held {
		h := &e.held[i]
		at, n := core.take(tensorBytes(h)), tensorBytes(h)
		if core.err == nil {
			core.err = e.lanes[0].Fill32(at, 0, n/4)
		}
		e.tensors[h.Name] = span{at, at + cuda.DevicePtr(n)}
	}
	e.slots, e.state = core.take(max(slots, 1)), core.take(kernels.StateBytes)
	if core.err != nil {
		return outOfMemory(core.err, "the weights and the state of the optimizer")
	}
	return e.lanes[0].Sync()
}

func tensorBytes(h *program.Held) int64 { return int64(h.Len() * h.DType.Size()) }

// do runs f with the device current, its errors under the name of the call.
func (e *exec) do(call string, f func() error) error {
	if e.closed {
		return errClosed
	}
	if err := e.Device.Do(f); err != nil {
		return fmt.Errorf("gpu: %s: %w", call, err)
	}
	return nil
}

// Bind puts data and schedule on the device, plans the programs and captures the steps.
func (e *exec) Bind(d program.Data) error {
	if e.closed {
		return errClosed
	}
	rows, err := e.set.CheckData(&d)
	if err != nil {
		return fmt.Errorf("gpu: %w", err)
	}
	return e.do("bind", func() error {
		if err := e.unbind(); err != nil {
			return err
		}
		b := &bound{exec: e, Data: d, rows: rows}
		if err := b.bind(); err != nil {
			return errors.Join(err, b.free())
		}
		e.data = b
		return nil
	})
}

func (e *exec) unbind() error {
	b := e.data
	e.data = nil
	if b == nil {
		return nil
	}
	for _, s := range e.lanes { // after a Run that failed, steps may still be under way; what Sync says has been said then
		_ = s.Sync()
	}
	return b.free()
}

// SetRates writes over the learning rates of Bind, where the captured steps read them.
func (e *exec) SetRates(rates []float32) error {
	if e.closed {
		return errClosed
	}
	if err := e.set.CheckRates(e.schedule(), rates); err != nil {
		return fmt.Errorf("gpu: %w", err)
	}
	return e.do("learning rates", func() error {
		e.data.Rates = slices.Clone(rates)
		if len(rates) == 0 {
			return nil
		}
		return errors.Join(cuda.ToDevice(e.lanes[0], e.data.ground.rates, e.data.Rates), e.lanes[0].Sync())
	})
}

// schedule is what Bind was given, nil before.
func (e *exec) schedule() *program.Data {
	if e.data == nil {
		return nil
	}
	return &e.data.Data
}

// Run queues the steps and waits once, for the sums of the slots.
func (e *exec) Run(first, n int, slots []float64) error {
	if e.closed {
		return errClosed
	}
	if err := e.set.CheckRun(e.schedule(), first, n, len(slots)); err != nil {
		return fmt.Errorf("gpu: %w", err)
	}
	sums, state := make([]float64, len(slots)), make([]uint32, kernels.StateBytes/4)
	err := e.do("run", func() error {
		main := e.lanes[0]
		if err := errors.Join(main.Fill32(e.slots, 0, int64(2*len(slots))), main.Fill32(e.state, uint32(first), 1), main.Fill32(e.state+4, 0, 3)); err != nil {
			return err
		}
		if err := e.data.steps(first, n); err != nil {
			return err
		}
		if err := errors.Join(cuda.ToHost(main, sums, e.slots), cuda.ToHost(main, state, e.state)); err != nil {
			return err
		}
		return main.Sync()
	})
	if err != nil {
		return err
	}
	if bad := state[1]; bad != 0 {
		if err := e.set.CheckFinite(int(bad)-1, sums); err != nil {
			return fmt.Errorf("gpu: %w", err)
		}
	}
	for i, v := range sums {
		slots[i] += v
	}
	return nil
}

// Eval runs the forward program over tiles of the bound rows. A float64 output is rounded.
func (e *exec) Eval(r program.Range, out []float32) error {
	if e.closed {
		return errClosed
	}
	if err := e.set.CheckEval(e.schedule(), r, len(out)); err != nil {
		return fmt.Errorf("gpu: %w", err)
	}
	return e.do("eval", func() error { return e.data.eval(r, out) })
}

// Export copies the tensors of the set out.
func (e *exec) Export() (program.Tensors, error) {
	ts := make(program.Tensors, 0, len(e.held))
	err := e.do("export", func() error {
		main := e.lanes[0]
		for i := range e.held {
			h := &e.held[i]
			t := program.Tensor{Name: h.Name, DType: h.DType, Shape: h.Shape}
			var err error
			if h.DType == program.F64 {
				t.F64 = make([]float64, h.Len())
				err = cuda.ToHost(main, t.F64, e.tensors[h.Name].lo)
			} else {
				t.F32 = make([]float32, h.Len())
				err = cuda.ToHost(main, t.F32, e.tensors[h.Name].lo)
			}
			if err != nil {
				return err
			}
			ts = append(ts, t)
		}
		return main.Sync()
	})
	if err != nil {
		return nil, err
	}
	ts.Sort()
	return ts, nil
}

// Import copies the tensors of the set in.
func (e *exec) Import(ts program.Tensors) error {
	if e.closed {
		return errClosed
	}
	if err := program.CheckTensors(e.held, ts, false); err != nil {
		return fmt.Errorf("gpu: %w", err)
	}
	return e.do("import", func() error {
		main := e.lanes[0]
		for i := range ts {
			t := &ts[i]
			at := e.tensors[t.Name].lo
			if err := errors.Join(cuda.ToDevice(main, at, t.F32), cuda.ToDevice(main, at, t.F64)); err != nil {
				return err
			}
		}
		return main.Sync()
	})
}

// Close gives everything back. It may be called twice.
func (e *exec) Close() error {
	if e.closed {
		return nil
	}
	err := e.Device.Do(func() error {
		errs := []error{e.unbind()}
		for _, s := range e.lanes {
			errs = append(errs, s.Close())
		}
		return errors.Join(append(errs, e.core.free())...)
	})
	e.closed = true
	if err != nil {
		return fmt.Errorf("gpu: close: %w", err)
	}
	return nil
}

// bound is the data of a Bind and all that follows from it.
type bound struct {
	*exec
	program.Data
	rows   int
	ground ground
	tables *slab // learning rates and powers
	work   *slab // temps and tables of the training programs
	tiles  *slab // temps of one tile of the forward program
	tile   int   // its rows
	whole  *slab // the columns, where they are resident
	stage  *stage

	train, rest           *plan
	trainGraph, restGraph *cuda.Graph
	eager                 bool // the driver binding has no graphs: steps are launched op by op
}

// bind takes memory in the order of need: what a step and the smallest tile of Eval cannot do without, then the data, then
// a larger tile. So more memory never means less of the data on the device.
func (b *bound) bind() error {
	b.ground = ground{tuning: b.kernels.Tuning(), tensor: b.tensors, slots: b.slots, names: b.set.Slots, state: b.state,
		powers: map[float64]cuda.DevicePtr{}, columns: map[string]column{}, seed: b.Seed, train: b.Train}
	if b.set.Train != nil {
		b.ground.batch = b.set.Train.Rows
		if err := b.putTables(); err != nil {
			return outOfMemory(err, fmt.Sprintf("the learning rates of %d steps", len(b.Rates)))
		}
		var err error
		if b.work, err = newSlab(b.Device, b.Apart, b.workBytes()); err != nil {
			return outOfMemory(err, fmt.Sprintf("a step of %d rows, which takes %s", b.set.Train.Rows, size(b.workBytes())))
		}
	}
	if err := b.setTile(max(1, min(b.rows, b.set.Forward.Rows))); err != nil {
		return outOfMemory(err, "a tile of the forward program")
	}
	if err := b.putData(); err != nil {
		return err
	}
	return b.growTile()
}

// putData brings the data to the device and captures the steps on it; where that is too much for the device's memory, which
// graphs take too, the data is streamed.
func (b *bound) putData() error {
	if err := b.putColumns(); err != nil {
		return err
	}
	if b.set.Train == nil {
		return nil
	}
	err := b.prepare()
	if !errors.Is(err, cuda.OutOfMemory) || b.whole == nil {
		return outOfMemory(err, "the graph of a step")
	}
	if err := errors.Join(b.closeGraphs(), b.whole.free(), b.work.reset(), b.Device.Trim()); err != nil {
		return err
	}
	b.whole = nil
	if err := b.stream(); err != nil {
		return err
	}
	return outOfMemory(b.prepare(), "the graph of a step")
}

// workBytes measures the plans of a step on paper.
func (b *bound) workBytes() int64 {
	p := newPaper()
	g := b.ground
	g.take = p.take
	for _, q := range []*program.Program{b.set.Train, b.set.Rest} {
		if q != nil {
			newPlan(&g, q, q.Rows)
		}
	}
	return p.taken()
}

// putTables uploads the learning rates and the bias corrections of AdamW, rounded as train/cpu rounds them.
func (b *bound) putTables() error {
	betas := powersOf(b.set)
	steps := len(b.Rates)
	bytes := int64(4 * max(steps, 1))
	var err error
	if b.tables, err = newSlab(b.Device, b.Apart, int64(1+len(betas))*aligned(bytes)); err != nil {
		return err
	}
	put := func(x []float32) cuda.DevicePtr {
		at := b.tables.take(bytes)
		if b.tables.err == nil {
			b.tables.err = cuda.ToDevice(b.lanes[0], at, x)
		}
		return at
	}
	b.ground.rates = put(b.Rates)
	for _, beta := range betas {
		x := make([]float32, steps)
		for t := range x {
			x[t] = float32(1 / (1 - math.Pow(beta, float64(t)+1)))
		}
		b.ground.powers[beta] = put(x)
	}
	if b.tables.err != nil {
		return b.tables.err
	}
	return b.lanes[0].Sync()
}

// putColumns makes the columns resident or, where they do not fit, prepares to stream them.
func (b *bound) putColumns() error {
	whole, err := b.resident(b.dataBytes())
	if err == nil {
		b.whole = whole
		return nil
	}
	if !errors.Is(err, cuda.OutOfMemory) {
		return err
	}
	return b.stream()
}

// dataBytes is what all columns take on the device.
func (b *bound) dataBytes() (bytes int64) {
	for i := range b.Columns {
		bytes += aligned(int64(4 * len(b.Columns[i].F32)))
	}
	return bytes
}

// stream leaves the data in main memory: steps get it through the stage, Eval copies its tiles.
func (b *bound) stream() error {
	how := "copied a tile at a time"
	if b.gathers() {
		var err error
		if b.stage, err = newStage(b); err != nil {
			return outOfMemory(err, fmt.Sprintf("the data of %s, nor for two batches of it", size(b.dataBytes())))
		}
		b.ground.staged = true
		how = fmt.Sprintf("streamed, %d rows at a time", b.stage.rows)
	}
	b.Note("the data of %s does not fit in the GPU memory that is left: it stays in main memory and is %s", size(b.dataBytes()), how)
	return nil
}

// gathers tells whether a training program reads any column.
func (b *bound) gathers() bool {
	for i := range b.Columns {
		if gathered(b.set, b.Columns[i].Name) {
			return true
		}
	}
	return false
}

// resident copies all columns to the device. On an error nothing is kept.
func (b *bound) resident(bytes int64) (s *slab, err error) {
	if s, err = newSlab(b.Device, b.Apart, bytes); err != nil {
		return nil, err
	}
	for i := range b.Columns {
		c := &b.Columns[i]
		at := s.take(int64(4 * len(c.F32)))
		if err = s.err; err == nil {
			err = cuda.ToDevice(b.lanes[0], at, c.F32)
		}
		if err != nil {
			return nil, errors.Join(err, s.free())
		}
		b.ground.columns[c.Name] = column{at, c.Width}
	}
	if err := b.lanes[0].Sync(); err != nil {
		return nil, errors.Join(err, s.free())
	}
	return s, nil
}

// prepare plans and captures the steps.
func (b *bound) prepare() error {
	b.ground.take = b.work.take
	for _, q := range []struct {
		p     *program.Program
		plan  **plan
		graph **cuda.Graph
	}{{b.set.Train, &b.train, &b.trainGraph}, {b.set.Rest, &b.rest, &b.restGraph}} {
		if q.p == nil {
			continue
		}
		p := newPlan(&b.ground, q.p, q.p.Rows)
		if b.work.err != nil {
			return outOfMemory(b.work.err, "a step")
		}
		if err := b.ready(p); err != nil {
			return err
		}
		*q.plan = p
		if b.eager {
			continue
		}
		g, err := b.capture(p)
		if errors.Is(err, cuda.NotSupported) {
			b.eager = true
			b.Note("steps are launched one operation at a time: %v", err)
			continue
		}
		if err != nil {
			return err
		}
		*q.graph = g
	}
	return nil
}

// ready does what a plan needs once.
func (b *bound) ready(p *plan) error {
	main := b.lanes[0]
	for _, t := range p.tabled() {
		if err := t.FillTable(main); err != nil {
			return err
		}
	}
	for _, op := range p.setup {
		if err := op.Launch(main, b.kernels); err != nil {
			return err
		}
	}
	return main.Sync()
}

// steps queues n steps.
func (b *bound) steps(first, n int) error {
	if b.stage != nil {
		return b.stage.steps(b, first, n)
	}
	return b.launch(first, n)
}

// launch queues n steps whose data is on the device.
func (b *bound) launch(first, n int) error {
	perEpoch := b.StepsPerEpoch(b.set.Train.Rows)
	for s := first; s < first+n; s++ {
		p, g := b.train, b.trainGraph
		if s%perEpoch == perEpoch-1 && b.rest != nil && b.Train.Len()%b.set.Train.Rows != 0 {
			p, g = b.rest, b.restGraph
		}
		if !b.eager {
			if err := g.Launch(b.lanes[0]); err != nil {
				return err
			}
			continue
		}
		if err := b.inOrder(p); err != nil {
			return err
		}
	}
	return nil
}

// inOrder queues the works of a plan one after the other.
func (b *bound) inOrder(p *plan) error {
	for _, w := range p.works {
		if err := w.op.Launch(b.lanes[0], b.kernels); err != nil {
			return err
		}
	}
	return nil
}

// maxTile bounds the temps, in bytes, of one tile of Eval: enough rows to fill a large card.
const maxTile = 64 << 20

// setTile takes memory for tiles of so many rows, in place of what there was.
func (b *bound) setTile(rows int) error {
	s, err := newSlab(b.Device, b.Apart, b.tileBytes(rows))
	if err != nil {
		return err
	}
	old := b.tiles
	b.tiles, b.tile = s, rows
	return old.free()
}

// tileBytes measures a tile on paper.
func (b *bound) tileBytes(rows int) int64 {
	p := newPaper()
	b.forward(p.take, rows)
	return p.taken()
}

// growTile takes the largest tile that fits in what is left.
func (b *bound) growTile() error {
	for rows := max(1, min(b.rows, 1<<16)); rows > b.tile; rows = (rows + 1) / 2 {
		if b.tileBytes(rows) > maxTile {
			continue
		}
		if err := b.setTile(rows); !errors.Is(err, cuda.OutOfMemory) {
			return err
		}
	}
	return nil
}

// forward plans a tile.
func (b *bound) forward(take func(int64) cuda.DevicePtr, rows int) *plan {
	return newPlan(&ground{tuning: b.ground.tuning, take: take, tensor: b.tensors, names: b.set.Slots}, b.set.Forward, rows)
}

func (b *bound) eval(r program.Range, out []float32) error {
	main := b.lanes[0]
	var p *plan
	planned := 0
	defer func() { b.tiles.reset() }()
	for at := r.From; at < r.To; at += b.tile {
		rows := min(b.tile, r.To-at)
		if rows != planned {
			if err := b.tiles.reset(); err != nil {
				return err
			}
			p, planned = b.forward(b.tiles.take, rows), rows
			if b.tiles.err != nil {
				return outOfMemory(b.tiles.err, "a tile of the forward program")
			}
			if err := b.ready(p); err != nil {
				return err
			}
		}
		for name, to := range p.input {
			c := b.Column(name)
			from := at * c.Width
			var err error
			if b.whole != nil {
				err = main.CopyOnDevice(to.lo, b.ground.columns[name].at+cuda.DevicePtr(4*from), int64(4*rows*c.Width))
			} else {
				err = cuda.ToDevice(main, to.lo, c.F32[from:from+rows*c.Width])
			}
			if err != nil {
				return err
			}
		}
		if err := b.inOrder(p); err != nil {
			return err
		}
		width := len(out) / r.Len()
		if err := b.fetch(p, out[(at-r.From)*width:(at-r.From+rows)*width]); err != nil {
			return err
		}
	}
	return nil
}

// fetch copies the output of a tile out.
func (b *bound) fetch(p *plan, out []float32) error {
	main := b.lanes[0]
	if int(p.out.hi-p.out.lo) == 4*len(out) {
		return errors.Join(cuda.ToHost(main, out, p.out.lo), main.Sync())
	}
	wide := make([]float64, len(out))
	if err := errors.Join(cuda.ToHost(main, wide, p.out.lo), main.Sync()); err != nil {
		return err
	}
	for i, v := range wide {
		out[i] = float32(v)
	}
	return nil
}

// free gives back what the data took. Nothing may be queued that uses it.
func (b *bound) free() error {
	errs := []error{b.closeGraphs()}
	if b.stage != nil {
		errs = append(errs, b.stage.free())
	}
	for _, s := range []*slab{b.tables, b.work, b.tiles, b.whole} {
		errs = append(errs, s.free())
	}
	return errors.Join(errs...)
}

func (b *bound) closeGraphs() error {
	var errs []error
	for _, g := range []**cuda.Graph{&b.trainGraph, &b.restGraph} {
		if *g != nil {
			errs = append(errs, (*g).Close())
			*g = nil
		}
	}
	return errors.Join(errs...)
}
