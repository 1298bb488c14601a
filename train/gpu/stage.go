package gpu

import (
	"errors"

	"github.com/onmart/onmart/cuda"
	"github.com/onmart/onmart/train/program"
)

// stage streams columns that do not fit the device: while the steps of one half of the buffers run, the rows of the next
// steps are gathered into the other half's pinned memory, in the order of the epoch, and copied.
type stage struct {
	rows    int // of one half: whole batches
	columns []staged
	mem     *slab
	host    [2]*cuda.Host
	copies  *cuda.Stream
	copied  [2]*cuda.Event // the pinned half has been read
	used    [2]*cuda.Event // the device's half has been used
	busy    [2]bool
	next    int // the half to fill
}

// staged is one column: its halves lie one after the other on the device, at; in a pinned half, from element from on.
type staged struct {
	*program.Column
	at   cuda.DevicePtr
	from int
}

// newStage takes two halves of as many batches as Options.Stage has room for, fewer where memory is short, one at
// least.
func newStage(b *bound) (*stage, error) {
	s := &stage{}
	width := 0
	for i := range b.Columns {
		if c := &b.Columns[i]; gathered(b.set, c.Name) {
			s.columns = append(s.columns, staged{Column: c})
			width += c.Width
		}
	}
	batches := max(1, int(b.Stage/2)/(4*width*b.ground.batch))
	batches = min(batches, b.StepsPerEpoch(b.ground.batch))
	for ; ; batches = (batches + 1) / 2 {
		s.rows = batches * b.ground.batch
		err := s.take(b, width)
		if err == nil {
			break
		}
		if !errors.Is(err, cuda.OutOfMemory) || batches == 1 {
			return nil, errors.Join(err, s.free())
		}
		if err := s.free(); err != nil {
			return nil, err
		}
	}
	for i := range s.columns {
		b.ground.columns[s.columns[i].Name] = column{s.columns[i].at, s.columns[i].Width}
	}
	return s, nil
}

// gathered tells whether a training program reads the column.
func gathered(s *program.Set, column string) bool {
	for _, p := range []*program.Program{s.Train, s.Rest} {
		for i := 0; p != nil && i < len(p.Instrs); i++ {
			if in := &p.Instrs[i]; in.Op == program.Gather && in.Attr.Column == column {
				return true
			}
		}
	}
	return false
}

// take allocates both halves of all columns, on the device and pinned.
func (s *stage) take(b *bound, width int) error {
	var bytes int64
	for i := range s.columns {
		bytes += aligned(int64(8 * s.rows * s.columns[i].Width))
	}
	var err error
	if s.mem, err = newSlab(b.Device, b.Apart, bytes); err != nil {
		return err
	}
	from := 0
	for i := range s.columns {
		c := &s.columns[i]
		c.at, c.from = s.mem.take(int64(8*s.rows*c.Width)), from
		from += s.rows * c.Width
	}
	if s.mem.err != nil {
		return s.mem.err
	}
	for h := range s.host {
		if s.host[h], err = b.Device.AllocHost(int64(4 * s.rows * width)); err != nil {
			return err
		}
		if s.copied[h], err = b.Device.NewEvent(false); err != nil {
			return err
		}
		if s.used[h], err = b.Device.NewEvent(false); err != nil {
			return err
		}
	}
	s.copies, err = b.Device.NewStream()
	return err
}

// loads is how many pieces a Run is cut into at least: all but the first are gathered and copied while steps run.
const loads = 8

// steps queues n steps, a half at a time. It waits for nothing but a pinned half to be read before it is filled
// again.
func (s *stage) steps(b *bound, first, n int) error {
	batch := b.ground.batch
	perEpoch := b.StepsPerEpoch(batch)
	for end := first + n; first < end; {
		at := first % perEpoch
		steps := min(end-first, perEpoch-at, s.rows/batch, max(1, n/loads))
		rows := min(steps*batch, b.Train.Len()-at*batch)
		if err := s.load(b, first/perEpoch, at*batch, rows); err != nil {
			return err
		}
		if err := b.launch(first, steps); err != nil {
			return err
		}
		if err := s.used[s.next].Record(b.lanes[0]); err != nil {
			return err
		}
		s.busy[s.next] = true
		s.next = 1 - s.next
		first += steps
	}
	return nil
}

// load brings the rows of an epoch's places from .. from+rows to the next half.
func (s *stage) load(b *bound, epoch, from, rows int) error {
	h, main := s.next, b.lanes[0]
	if s.busy[h] {
		if err := errors.Join(s.copied[h].Sync(), s.copies.Wait(s.used[h])); err != nil {
			return err
		}
	}
	host := s.host[h].F32()
	order := program.NewPermutation(b.Seed, uint32(epoch), b.Train.Len())
	for i := range rows {
		at := b.Train.From + order.At(from+i)
		for k := range s.columns {
			c := &s.columns[k]
			copy(host[c.from+i*c.Width:c.from+(i+1)*c.Width], c.F32[at*c.Width:])
		}
	}
	for k := range s.columns {
		c := &s.columns[k]
		to := c.at + cuda.DevicePtr(4*h*s.rows*c.Width)
		if err := cuda.ToDevice(s.copies, to, host[c.from:c.from+rows*c.Width]); err != nil {
			return err
		}
	}
	if err := errors.Join(s.copied[h].Record(s.copies), main.Wait(s.copied[h])); err != nil {
		return err
	}
	return main.Fill32(b.state+8, uint32(int32(h*s.rows-from)), 1)
}

// free gives everything back.
func (s *stage) free() error {
	if s.copies != nil { // after a Run that failed, copies may still be under way
		_ = s.copies.Sync()
	}
	errs := []error{s.mem.free()}
	for h := range s.host {
		if s.host[h] != nil {
			errs = append(errs, s.host[h].Free())
		}
		for _, ev := range []*cuda.Event{s.copied[h], s.used[h]} {
			if ev != nil {
				errs = append(errs, ev.Close())
			}
		}
		s.host[h], s.copied[h], s.used[h], s.busy[h] = nil, nil, nil, false
	}
	if s.copies != nil {
		errs = append(errs, s.copies.Close())
		s.copies = nil
	}
	return errors.Join(errs...)
}
