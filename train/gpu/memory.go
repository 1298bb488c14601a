package gpu

import (
	"errors"
	"fmt"

	"github.com/onmart/onmart/cuda"
)

// alignment of a buffer: what the driver gives an allocation, so that a buffer in a slab is as good as one of its own.
const alignment = 256

func aligned(bytes int64) int64 { return (bytes + alignment - 1) / alignment * alignment }

// paper hands out addresses that nothing lies at, to price a plan and to learn how much memory it takes.
type paper struct{ next cuda.DevicePtr }

func newPaper() *paper { return &paper{1 << 40} }

func (p *paper) take(bytes int64) cuda.DevicePtr {
	at := p.next
	p.next += cuda.DevicePtr(aligned(bytes))
	return at
}

func (p *paper) taken() int64 { return int64(p.next - 1<<40) }

// slab is device memory for many buffers that go together: one allocation, or with apart one for each buffer.
type slab struct {
	device    *cuda.Device
	apart     bool
	mem       []*cuda.Mem
	next, end cuda.DevicePtr
	err       error // of an allocation apart
}

// newSlab takes bytes for buffers whose aligned sizes sum to that.
func newSlab(d *cuda.Device, apart bool, bytes int64) (*slab, error) {
	s := &slab{device: d, apart: apart}
	if apart {
		return s, nil
	}
	m, err := d.Alloc(max(bytes, alignment))
	if err != nil {
		return nil, err
	}
	s.mem, s.next, s.end = []*cuda.Mem{m}, m.Ptr, m.Ptr+cuda.DevicePtr(m.Bytes)
	return s, nil
}

// take is the next buffer. Past the slab it panics: the slab was measured with the same requests.
func (s *slab) take(bytes int64) cuda.DevicePtr {
	if s.apart {
		if s.err != nil {
			return 0
		}
		m, err := s.device.Alloc(max(bytes, 1))
		if err != nil {
			s.err = err
			return 0
		}
		s.mem = append(s.mem, m)
		return m.Ptr
	}
	at := s.next
	if s.next += cuda.DevicePtr(aligned(bytes)); s.next > s.end {
		panic(fmt.Sprintf("gpu: a slab is %d bytes too small", s.next-s.end))
	}
	return at
}

// reset makes all of the slab free to take again.
func (s *slab) reset() error {
	if s.apart {
		err := s.free()
		s.err = nil
		return err
	}
	s.next = s.mem[0].Ptr
	return nil
}

// free gives the memory back; a nil slab has none.
func (s *slab) free() error {
	if s == nil {
		return nil
	}
	var errs []error
	for _, m := range s.mem {
		errs = append(errs, m.Free())
	}
	s.mem = nil
	return errors.Join(errs...)
}

// outOfMemory adds what to do where memory was short.
func outOfMemory(err error, what string) error {
	if !errors.Is(err, cuda.OutOfMemory) {
		return err
	}
	return fmt.Errorf("no memory for %s: %w; raise --gpu-memory, take a smaller batch, free the card for this, or train with --device cpu", what, err)
}

// size is a number of bytes for people.
func size(bytes int64) string {
	switch {
	case bytes >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
	case bytes >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
	}
	return fmt.Sprintf("%.1f KiB", float64(bytes)/(1<<10))
}
