package cuda

import (
	"fmt"
	"unsafe"
)

// Mem is device memory.
type Mem struct {
	Ptr   DevicePtr // aligned to 256 bytes
	Bytes int64     // as they were asked for

	device *Device
	block  *block // nil once freed
}

// Alloc takes device memory; its content is undefined. Freed memory is kept and handed out again without a
// call to the driver. Past Options.MemoryLimit, or where the driver has no more, cached memory is given back
// and the driver asked once more; then the error is OutOfMemory and says what holds the memory.
func (d *Device) Alloc(bytes int64) (*Mem, error) {
	if bytes <= 0 {
		return nil, d.fail(fmt.Sprintf("Alloc of %d bytes", bytes), InvalidValue, "ask for at least one byte")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	b, code, limited := d.arena.get(bytes)
	if code != Success {
		return nil, d.fail("cuMemAlloc of "+size(bytes), code, d.shortage(code, limited))
	}
	d.open["memory"]++
	return &Mem{Ptr: b.ptr, Bytes: bytes, device: d, block: b}, nil
}

// shortage says what holds the memory; the lock is held.
func (d *Device) shortage(code Result, limited bool) string {
	if code != OutOfMemory {
		return ""
	}
	if limited {
		return fmt.Sprintf("%s are in use of %s taken, and the memory limit is %s",
			size(d.arena.used), size(d.arena.taken), size(d.arena.limit))
	}
	text := fmt.Sprintf("this process holds %s", size(d.arena.taken))
	if free, total, code := d.driver.MemInfo(); code == Success {
		text += fmt.Sprintf(", and %s of the device's %s are free", size(free), size(total))
	}
	return text + "; close other programs that use the GPU, or ask for less"
}

// Free gives the memory to the next Alloc. It does not wait for work that uses it: see the package comment.
func (m *Mem) Free() error {
	d := m.device
	d.mu.Lock()
	defer d.mu.Unlock()
	if m.block == nil {
		return d.fail("Free of "+size(m.Bytes), InvalidValue, "the memory was freed already")
	}
	b := m.block
	m.block, m.Ptr = nil, 0
	if d.closed.Load() {
		return nil // went with the device
	}
	d.open["memory"]--
	if code := d.arena.put(b); code != Success {
		return d.fail("cuMemFree of "+size(m.Bytes), code, "")
	}
	return nil
}

// Trim gives the cached memory back to the driver, for other processes. It waits for the device.
func (d *Device) Trim() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if code := d.arena.trim(); code != Success {
		return d.fail("cuMemFree", code, "")
	}
	return nil
}

// SetMemoryLimit changes Options.MemoryLimit; 0 is none. What is taken already stays, but no more is taken
// while it is past the limit. A negative limit panics.
func (d *Device) SetMemoryLimit(bytes int64) {
	if bytes < 0 {
		panic(fmt.Sprintf("cuda: a memory limit of %d bytes", bytes))
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.arena.limit = bytes
}

// Used is how many bytes this Device has taken from the driver and not given back, cached ones included.
func (d *Device) Used() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.arena.taken
}

// Host is memory of the host from which, and to which, the device copies by itself.
type Host struct {
	device  *Device
	address unsafe.Pointer // nil once freed
	bytes   int64
	pinned  bool
}

// AllocHost takes pinned host memory of so many bytes, not cleared. Where the driver's binding has none (the
// tag cu), it is ordinary memory: copies work, and wait where pinned ones would not. Pinned memory cannot be
// swapped out, so a machine has less of it than it has memory.
func (d *Device) AllocHost(bytes int64) (*Host, error) {
	if bytes <= 0 {
		return nil, d.fail(fmt.Sprintf("AllocHost of %d bytes", bytes), InvalidValue, "ask for at least one byte")
	}
	address, code := d.driver.HostAlloc(bytes)
	h := &Host{device: d, address: address, bytes: bytes, pinned: true}
	switch code {
	case Success:
	case NotSupported:
		words := make([]uint64, (bytes+7)/8) // words, so that it is aligned for every element type
		h.address, h.pinned = unsafe.Pointer(&words[0]), false
	case OutOfMemory:
		return nil, d.fail("cuMemAllocHost of "+size(bytes), code,
			"the system does not pin so much; ulimit -l shows what it allows")
	default:
		return nil, d.fail("cuMemAllocHost of "+size(bytes), code, "")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if h.pinned {
		d.hosts[h] = struct{}{}
	}
	d.open["pinned memory"]++
	return h, nil
}

// Pinned tells whether the device copies by itself; else the memory is ordinary.
func (h *Host) Pinned() bool { return h.pinned }

// Bytes is the memory, nil once freed. It must not be touched after Free.
func (h *Host) Bytes() []byte {
	if h.address == nil {
		return nil
	}
	return unsafe.Slice((*byte)(h.address), h.bytes)
}

// F32 is the memory as float32, as many as fit.
func (h *Host) F32() []float32 {
	if h.address == nil {
		return nil
	}
	return unsafe.Slice((*float32)(h.address), h.bytes/4)
}

// Free gives the memory back. Copies that use it must be done.
func (h *Host) Free() error {
	d := h.device
	d.mu.Lock()
	defer d.mu.Unlock()
	if h.address == nil {
		if d.closed.Load() {
			return nil // went with the device
		}
		return d.fail("Free of host memory", InvalidValue, "the memory was freed already")
	}
	address := h.address
	h.address, h.bytes = nil, 0
	d.open["pinned memory"]--
	if !h.pinned {
		return nil
	}
	delete(d.hosts, h)
	if code := d.driver.HostFree(address); code != Success {
		return d.fail("cuMemFreeHost", code, "")
	}
	return nil
}

// isPinned tells whether an address lies in a Host of ours.
func (d *Device) isPinned(p unsafe.Pointer) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	for h := range d.hosts {
		if at := uintptr(p) - uintptr(h.address); uintptr(p) >= uintptr(h.address) && at < uintptr(h.bytes) {
			return true
		}
	}
	return false
}
