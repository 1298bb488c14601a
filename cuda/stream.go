package cuda

import (
	"fmt"
	"slices"
	"time"
	"unsafe"
)

// Stream is a queue of work on the device, done in order. It does not wait for the legacy default stream.
// One goroutine uses it at a time.
type Stream struct {
	device    *Device
	id        StreamID // 0 once closed
	capturing bool
	// held are ordinary Go memory that copies in flight may still read or write: alive until the next Sync.
	held []unsafe.Pointer
}

// NewStream makes a stream.
func (d *Device) NewStream() (*Stream, error) {
	id, code := d.driver.StreamCreate()
	if code != Success {
		return nil, d.fail("cuStreamCreate", code, "")
	}
	d.count("stream", 1)
	return &Stream{device: d, id: id}, nil
}

// Device is the device of the stream.
func (s *Stream) Device() *Device { return s.device }

// Close waits for the stream's work and ends it. Closing twice does nothing. Faults of work that was not
// synchronised before show here at the latest.
func (s *Stream) Close() error {
	if s.id == 0 {
		return nil
	}
	synced := s.Sync()
	id := s.id
	s.id = 0
	s.device.count("stream", -1)
	if code := s.device.driver.StreamDestroy(id); code != Success && synced == nil {
		return s.device.fail("cuStreamDestroy", code, "")
	}
	return synced
}

// Sync waits until all work of the stream is done. Its error may be the fault of any work before.
func (s *Stream) Sync() error {
	if err := s.usable("cuStreamSynchronize"); err != nil {
		return err
	}
	code := s.device.driver.StreamSync(s.id)
	if code != Success {
		return s.device.fail("cuStreamSynchronize", code, "")
	}
	clear(s.held)
	s.held = s.held[:0]
	return nil
}

// Wait makes work that is put on the stream from now on wait for the event.
func (s *Stream) Wait(e *Event) error {
	if err := s.usable("cuStreamWaitEvent"); err != nil {
		return err
	}
	if code := s.device.driver.StreamWait(s.id, e.id); code != Success {
		return s.device.fail("cuStreamWaitEvent", code, "")
	}
	return nil
}

// ToDevice puts a copy of src to the device on the stream. T has a fixed size and holds no pointers. src must
// not change until the copy is done; it is kept alive until the next Sync. Only memory of AllocHost is read by
// the device itself, while the call returns at once; and only such may be copied in a capture, because the
// graph reads it again whenever it is launched.
func ToDevice[T any](s *Stream, dst DevicePtr, src []T) error {
	if len(src) == 0 {
		return nil
	}
	bytes := int64(len(src)) * int64(unsafe.Sizeof(src[0]))
	p := unsafe.Pointer(unsafe.SliceData(src))
	if err := s.hold(p, bytes); err != nil {
		return err
	}
	if code := s.device.driver.CopyToDevice(dst, p, bytes, s.id); code != Success {
		return s.device.fail(fmt.Sprintf("cuMemcpyHtoDAsync of %s to %#x", size(bytes), uint64(dst)), code, "")
	}
	return nil
}

// ToHost puts a copy from the device to dst on the stream, with ToDevice's conditions; dst holds it after the
// next Sync.
func ToHost[T any](s *Stream, dst []T, src DevicePtr) error {
	if len(dst) == 0 {
		return nil
	}
	bytes := int64(len(dst)) * int64(unsafe.Sizeof(dst[0]))
	p := unsafe.Pointer(unsafe.SliceData(dst))
	if err := s.hold(p, bytes); err != nil {
		return err
	}
	if code := s.device.driver.CopyToHost(p, src, bytes, s.id); code != Success {
		return s.device.fail(fmt.Sprintf("cuMemcpyDtoHAsync of %s from %#x", size(bytes), uint64(src)), code, "")
	}
	return nil
}

// hold keeps host memory that is not pinned until the next Sync, and refuses it in a capture.
func (s *Stream) hold(p unsafe.Pointer, bytes int64) error {
	if s.id == 0 {
		return s.usable("a copy of " + size(bytes))
	}
	if s.device.isPinned(p) {
		return nil
	}
	if s.capturing {
		return s.device.fail("capture of a copy of "+size(bytes)+" of ordinary memory", CaptureUnsupported,
			"every launch of the graph would use it again: take it from AllocHost")
	}
	if !slices.Contains(s.held, p) { // a stream that is never synchronised may copy the same buffers for ever
		s.held = append(s.held, p)
	}
	return nil
}

// usable refuses a closed stream: its number is that of the driver's legacy stream by then.
func (s *Stream) usable(call string) error {
	if s.id == 0 {
		return s.device.fail(call, InvalidHandle, "the stream was closed")
	}
	return nil
}

// CopyOnDevice puts a copy of so many bytes between device addresses on the stream; they must not overlap.
func (s *Stream) CopyOnDevice(dst, src DevicePtr, bytes int64) error {
	if bytes == 0 {
		return nil
	}
	if err := s.usable("cuMemcpyDtoDAsync"); err != nil {
		return err
	}
	if code := s.device.driver.CopyOnDevice(dst, src, bytes, s.id); code != Success {
		call := fmt.Sprintf("cuMemcpyDtoDAsync of %s from %#x to %#x", size(bytes), uint64(src), uint64(dst))
		return s.device.fail(call, code, "")
	}
	return nil
}

// Fill32 sets count words of 32 bits to value.
func (s *Stream) Fill32(dst DevicePtr, value uint32, count int64) error {
	if count == 0 {
		return nil
	}
	if err := s.usable("cuMemsetD32Async"); err != nil {
		return err
	}
	if code := s.device.driver.Fill32(dst, value, count, s.id); code != Success {
		return s.device.fail(fmt.Sprintf("cuMemsetD32Async of %s at %#x", size(4*count), uint64(dst)), code, "")
	}
	return nil
}

// Event is a point in a stream's work.
type Event struct {
	device *Device
	id     EventID // 0 once closed
}

// NewEvent makes an event; only with timing can Elapsed ask it, and without it costs less.
func (d *Device) NewEvent(timing bool) (*Event, error) {
	id, code := d.driver.EventCreate(timing)
	if code != Success {
		return nil, d.fail("cuEventCreate", code, "")
	}
	d.count("event", 1)
	return &Event{device: d, id: id}, nil
}

// Record moves the event behind the work that the stream has now.
func (e *Event) Record(s *Stream) error {
	if err := s.usable("cuEventRecord"); err != nil {
		return err
	}
	if code := e.device.driver.EventRecord(e.id, s.id); code != Success {
		return e.device.fail("cuEventRecord", code, "")
	}
	return nil
}

// Sync waits until the work before the event is done.
func (e *Event) Sync() error {
	if code := e.device.driver.EventSync(e.id); code != Success {
		return e.device.fail("cuEventSynchronize", code, "")
	}
	return nil
}

// Close ends the event. Closing twice does nothing.
func (e *Event) Close() error {
	if e.id == 0 {
		return nil
	}
	id := e.id
	e.id = 0
	e.device.count("event", -1)
	if code := e.device.driver.EventDestroy(id); code != Success {
		return e.device.fail("cuEventDestroy", code, "")
	}
	return nil
}

// Elapsed is the time on the device from event a to event b, to about half a microsecond. Both were made with
// timing, recorded, and are done: else the error is InvalidHandle or NotReady.
func Elapsed(a, b *Event) (time.Duration, error) {
	ms, code := a.device.driver.EventElapsed(a.id, b.id)
	if code != Success {
		return 0, a.device.fail("cuEventElapsedTime", code, "both events need timing, must be recorded and synchronised")
	}
	return time.Duration(float64(ms) * float64(time.Millisecond)), nil
}
