package cudatest

import (
	"bytes"
	"regexp"
	"slices"
	"sync"
	"time"
	"unsafe"

	"github.com/onmart/onmart/cuda"
)

// FakeOptions of a Fake.
type FakeOptions struct {
	Devices int   // 0 is one
	Memory  int64 // bytes of each; 0 is 6 GiB
	Version int   // of CUDA; 0 is 11.8
	// Kernels are what functions do, by the names in the PTX's .entry lines. A kernel without one does nothing.
	// Params point to 8 bytes each.
	Kernels map[string]func(grid, block cuda.Dim, params []unsafe.Pointer) cuda.Result
}

// Fake is a driver in Go: it copies, fills and keeps time in host memory, captures and replays, and checks
// what a driver checks (the context of the calling OS thread, live handles, the bounds of copies, what a
// capture forbids). Work is done when it is put on a stream; a kernel's fault shows at the next call that
// uses the device, and then at every one. Memory is not cleared but filled with 0xff, NaN as float32.
type Fake struct {
	options FakeOptions

	mu       sync.Mutex
	ready    bool
	retained map[int]int
	current  map[int]cuda.Context // by OS thread
	next     uintptr              // the last handle that was given
	memory   map[cuda.DevicePtr][]byte
	used     int64
	host     map[unsafe.Pointer][]byte
	streams  map[cuda.StreamID]*fakeStream
	events   map[cuda.EventID]*fakeEvent
	modules  map[cuda.Module][]byte
	funcs    map[cuda.Function]string
	graphs   map[cuda.GraphID][]work
	execs    map[cuda.GraphExec][]work
	fault    cuda.Result // of a kernel
}

type work func() cuda.Result

type fakeStream struct {
	capture *capture
	open    bool // in a capture: has work that the first stream does not wait for
	count   int  // of work put on it in the capture
}

type capture struct {
	origin  cuda.StreamID
	thread  int
	members []cuda.StreamID
	work    []work
	spoilt  bool
}

type fakeEvent struct {
	timing  bool
	at      time.Time
	capture *capture      // it was recorded in
	stream  cuda.StreamID // there
	count   int           // of that stream's work before it
}

// NewFake returns a fake driver.
func NewFake(o FakeOptions) *Fake {
	if o.Devices == 0 {
		o.Devices = 1
	}
	if o.Memory == 0 {
		o.Memory = 6 << 30
	}
	if o.Version == 0 {
		o.Version = 11080
	}
	return &Fake{options: o, retained: map[int]int{}, current: map[int]cuda.Context{}, next: 0x1000,
		memory: map[cuda.DevicePtr][]byte{}, host: map[unsafe.Pointer][]byte{}, streams: map[cuda.StreamID]*fakeStream{},
		events: map[cuda.EventID]*fakeEvent{}, modules: map[cuda.Module][]byte{}, funcs: map[cuda.Function]string{},
		graphs: map[cuda.GraphID][]work{}, execs: map[cuda.GraphExec][]work{}}
}

// with runs f under the lock if the calling thread has a context and nothing is lost.
func (k *Fake) with(f func() cuda.Result) cuda.Result {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case !k.ready:
		return cuda.NotInitialized
	case k.current[thread()] == 0:
		return cuda.InvalidContext
	case k.fault != cuda.Success:
		return k.fault
	}
	return f()
}

// unsafeInCapture is with for calls that a capture begun on this thread forbids, and is spoilt by.
func (k *Fake) unsafeInCapture(f func() cuda.Result) cuda.Result {
	return k.with(func() cuda.Result {
		for _, s := range k.streams {
			if s.capture != nil && s.capture.thread == thread() {
				s.capture.spoilt = true
				return cuda.CaptureUnsupported
			}
		}
		return f()
	})
}

func (k *Fake) handle() uintptr {
	k.next += 16
	return k.next
}

// put does work on a stream, or keeps it where the stream is captured.
func (k *Fake) put(id cuda.StreamID, w work) cuda.Result {
	s, ok := k.streams[id]
	if !ok {
		return cuda.InvalidHandle
	}
	if c := s.capture; c != nil {
		if c.spoilt {
			return cuda.CaptureInvalidated
		}
		c.work = append(c.work, w)
		s.open = id != c.origin
		s.count++
		return cuda.Success
	}
	return w()
}

// at is n bytes of device memory, nil where they are not within one allocation.
func (k *Fake) at(p cuda.DevicePtr, n int64) []byte {
	for start, m := range k.memory {
		if p >= start && int64(p-start)+n <= int64(len(m)) {
			return m[p-start:][:n]
		}
	}
	return nil
}

func (k *Fake) Name() string { return "cudatest.Fake" }

func (k *Fake) Init() cuda.Result {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ready = true
	return cuda.Success
}

func (k *Fake) Version() (int, cuda.Result) { return k.options.Version, cuda.Success }

func (k *Fake) DeviceCount() (int, cuda.Result) { return k.options.Devices, k.exists(0) }

// exists checks a device's number.
func (k *Fake) exists(ordinal int) cuda.Result {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case !k.ready:
		return cuda.NotInitialized
	case ordinal < 0 || ordinal >= k.options.Devices:
		return cuda.InvalidDevice
	}
	return cuda.Success
}

func (k *Fake) DeviceName(ordinal int) (string, cuda.Result) { return "Fake GPU", k.exists(ordinal) }

func (k *Fake) DeviceMemory(ordinal int) (int64, cuda.Result) {
	return k.options.Memory, k.exists(ordinal)
}

// DeviceAttribute has an RTX 2060's.
func (k *Fake) DeviceAttribute(ordinal int, a cuda.Attribute) (int, cuda.Result) {
	if code := k.exists(ordinal); code != cuda.Success {
		return 0, code
	}
	v, ok := map[cuda.Attribute]int{
		cuda.AttrMaxThreadsPerBlock: 1024, cuda.AttrSharedPerBlock: 48 << 10, cuda.AttrWarpSize: 32, cuda.AttrClockKHz: 1_680_000,
		cuda.AttrMultiprocessors: 30, cuda.AttrMemoryClockKHz: 7_001_000, cuda.AttrMemoryBusBits: 192, cuda.AttrL2Bytes: 3 << 20,
		cuda.AttrMajor: 7, cuda.AttrMinor: 5, cuda.AttrSharedPerSM: 64 << 10, cuda.AttrRegistersPerSM: 64 << 10,
	}[a]
	if !ok {
		return 0, cuda.InvalidValue
	}
	return v, cuda.Success
}

func (k *Fake) ContextRetain(ordinal int) (cuda.Context, cuda.Result) {
	if code := k.exists(ordinal); code != cuda.Success {
		return 0, code
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.retained[ordinal]++
	return cuda.Context(0x100 + ordinal), cuda.Success
}

func (k *Fake) ContextRelease(ordinal int) cuda.Result {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.retained[ordinal] == 0 {
		return cuda.InvalidContext
	}
	k.retained[ordinal]--
	return cuda.Success
}

func (k *Fake) ContextSet(c cuda.Context) cuda.Result {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c != 0 && k.retained[int(c)-0x100] == 0 {
		return cuda.InvalidContext
	}
	k.current[thread()] = c
	return cuda.Success
}

func (k *Fake) ContextCurrent() (cuda.Context, cuda.Result) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.current[thread()], cuda.Success
}

func (k *Fake) MemInfo() (free, total int64, r cuda.Result) {
	r = k.with(func() cuda.Result {
		free, total = k.options.Memory-k.used, k.options.Memory
		return cuda.Success
	})
	return free, total, r
}

func (k *Fake) MemAlloc(bytes int64) (p cuda.DevicePtr, r cuda.Result) {
	r = k.unsafeInCapture(func() cuda.Result {
		if bytes <= 0 {
			return cuda.InvalidValue
		}
		if k.used+bytes > k.options.Memory {
			return cuda.OutOfMemory
		}
		// Addresses are made up, so that one that is used as the host's is noticed.
		const base, align = 0x7f00_0000_0000, 512
		for p = base; ; { // the first gap
			clash := false
			for start, m := range k.memory {
				if p < start+cuda.DevicePtr(len(m)) && start < p+cuda.DevicePtr(bytes) {
					clash = true
					p = (start + cuda.DevicePtr(len(m)) + align - 1) / align * align
				}
			}
			if !clash {
				break
			}
		}
		k.memory[p] = slices.Repeat([]byte{0xff}, int(bytes))
		k.used += bytes
		return cuda.Success
	})
	return p, r
}

func (k *Fake) MemFree(p cuda.DevicePtr) cuda.Result {
	return k.unsafeInCapture(func() cuda.Result {
		m, ok := k.memory[p]
		if !ok {
			return cuda.InvalidValue
		}
		k.used -= int64(len(m))
		delete(k.memory, p)
		return cuda.Success
	})
}

func (k *Fake) HostAlloc(bytes int64) (p unsafe.Pointer, r cuda.Result) {
	r = k.unsafeInCapture(func() cuda.Result {
		if bytes <= 0 {
			return cuda.InvalidValue
		}
		m := make([]byte, bytes)
		p = unsafe.Pointer(&m[0])
		k.host[p] = m
		return cuda.Success
	})
	return p, r
}

func (k *Fake) HostFree(p unsafe.Pointer) cuda.Result {
	return k.unsafeInCapture(func() cuda.Result {
		if _, ok := k.host[p]; !ok {
			return cuda.InvalidValue
		}
		delete(k.host, p)
		return cuda.Success
	})
}

// copy puts a copy on a stream. Device memory is looked up when it is asked for and again when it is done,
// because a graph may be launched after it was freed.
func (k *Fake) copy(s cuda.StreamID, n int64, dst, src func() []byte) cuda.Result {
	return k.with(func() cuda.Result {
		if dst() == nil || src() == nil {
			return cuda.InvalidValue
		}
		return k.put(s, func() cuda.Result {
			to, from := dst(), src()
			if to == nil || from == nil {
				k.fault = cuda.IllegalAddress
				return cuda.Success
			}
			copy(to, from)
			return cuda.Success
		})
	})
}

func (k *Fake) device(p cuda.DevicePtr, n int64) func() []byte {
	return func() []byte { return k.at(p, n) }
}

func onHost(p unsafe.Pointer, n int64) func() []byte {
	return func() []byte { return unsafe.Slice((*byte)(p), n) }
}

func (k *Fake) CopyToDevice(dst cuda.DevicePtr, src unsafe.Pointer, bytes int64, s cuda.StreamID) cuda.Result {
	return k.copy(s, bytes, k.device(dst, bytes), onHost(src, bytes))
}

func (k *Fake) CopyToHost(dst unsafe.Pointer, src cuda.DevicePtr, bytes int64, s cuda.StreamID) cuda.Result {
	return k.copy(s, bytes, onHost(dst, bytes), k.device(src, bytes))
}

func (k *Fake) CopyOnDevice(dst, src cuda.DevicePtr, bytes int64, s cuda.StreamID) cuda.Result {
	return k.copy(s, bytes, k.device(dst, bytes), k.device(src, bytes))
}

func (k *Fake) Fill32(dst cuda.DevicePtr, value uint32, count int64, s cuda.StreamID) cuda.Result {
	word := unsafe.Slice((*byte)(unsafe.Pointer(&value)), 4)
	return k.copy(s, 4*count, k.device(dst, 4*count), func() []byte { return slices.Repeat(word, int(count)) })
}

func (k *Fake) StreamCreate() (id cuda.StreamID, r cuda.Result) {
	r = k.with(func() cuda.Result {
		id = cuda.StreamID(k.handle())
		k.streams[id] = &fakeStream{}
		return cuda.Success
	})
	return id, r
}

func (k *Fake) StreamDestroy(id cuda.StreamID) cuda.Result {
	return k.with(func() cuda.Result {
		if k.streams[id] == nil {
			return cuda.InvalidHandle
		}
		delete(k.streams, id)
		return cuda.Success
	})
}

func (k *Fake) StreamSync(id cuda.StreamID) cuda.Result {
	return k.with(func() cuda.Result {
		s := k.streams[id]
		if s == nil {
			return cuda.InvalidHandle
		}
		if s.capture != nil {
			s.capture.spoilt = true
			return cuda.CaptureUnsupported
		}
		return cuda.Success
	})
}

// StreamWait joins the stream to the capture that the event was recorded in.
func (k *Fake) StreamWait(id cuda.StreamID, e cuda.EventID) cuda.Result {
	return k.with(func() cuda.Result {
		s, ev := k.streams[id], k.events[e]
		if s == nil || ev == nil {
			return cuda.InvalidHandle
		}
		c := ev.capture
		switch {
		case c == nil:
			if s.capture != nil {
				s.capture.spoilt = true
				return 905 // CUDA_ERROR_STREAM_CAPTURE_ISOLATION
			}
		case s.capture == nil:
			s.capture, s.open = c, true
			c.members = append(c.members, id)
		case s.capture != c:
			return 902 // CUDA_ERROR_STREAM_CAPTURE_MERGE
		default:
			if other := k.streams[ev.stream]; other != nil && other.count == ev.count {
				other.open = false
			}
		}
		return cuda.Success
	})
}

func (k *Fake) EventCreate(timing bool) (id cuda.EventID, r cuda.Result) {
	r = k.with(func() cuda.Result {
		id = cuda.EventID(k.handle())
		k.events[id] = &fakeEvent{timing: timing}
		return cuda.Success
	})
	return id, r
}

func (k *Fake) EventDestroy(id cuda.EventID) cuda.Result {
	return k.with(func() cuda.Result {
		if k.events[id] == nil {
			return cuda.InvalidHandle
		}
		delete(k.events, id)
		return cuda.Success
	})
}

func (k *Fake) EventRecord(id cuda.EventID, s cuda.StreamID) cuda.Result {
	return k.with(func() cuda.Result {
		e, on := k.events[id], k.streams[s]
		if e == nil || on == nil {
			return cuda.InvalidHandle
		}
		e.capture, e.stream, e.count = on.capture, s, on.count
		if on.capture == nil {
			e.at = time.Now()
		}
		return cuda.Success
	})
}

func (k *Fake) EventSync(id cuda.EventID) cuda.Result {
	return k.with(func() cuda.Result {
		switch e := k.events[id]; {
		case e == nil:
			return cuda.InvalidHandle
		case e.capture != nil:
			return 907 // CUDA_ERROR_CAPTURED_EVENT
		}
		return cuda.Success
	})
}

func (k *Fake) EventElapsed(from, to cuda.EventID) (ms float32, r cuda.Result) {
	r = k.with(func() cuda.Result {
		a, b := k.events[from], k.events[to]
		if a == nil || b == nil || !a.timing || !b.timing || a.at.IsZero() || b.at.IsZero() {
			return cuda.InvalidHandle
		}
		ms = float32(b.at.Sub(a.at).Seconds() * 1e3)
		return cuda.Success
	})
	return ms, r
}

// ModuleLoad takes text with a .version and without bytes that PTX has not.
func (k *Fake) ModuleLoad(image []byte) (m cuda.Module, log string, r cuda.Result) {
	r = k.unsafeInCapture(func() cuda.Result {
		text, _, ended := bytes.Cut(image, []byte{0})
		if !ended {
			return cuda.InvalidValue
		}
		if i := bytes.IndexFunc(text, func(r rune) bool { return r >= 0x80 }); i >= 0 {
			log = "ptxas application ptx input, line 1; fatal   : Parsing error near ''\n" +
				"ptxas fatal   : Ptx assembly aborted due to errors\n"
			return cuda.InvalidPTX
		}
		isa, ok := ptxVersion(text)
		if !ok {
			log = "ptxas fatal   : Missing .version directive at start of file\n"
			return cuda.InvalidPTX
		}
		if isa > newestPTX(k.options.Version) {
			return cuda.UnsupportedPTX
		}
		m = cuda.Module(k.handle())
		k.modules[m] = slices.Clone(text)
		return cuda.Success
	})
	return m, log, r
}

func (k *Fake) ModuleUnload(m cuda.Module) cuda.Result {
	return k.unsafeInCapture(func() cuda.Result {
		if k.modules[m] == nil {
			return cuda.InvalidHandle
		}
		delete(k.modules, m)
		return cuda.Success
	})
}

func (k *Fake) ModuleFunction(m cuda.Module, name string) (f cuda.Function, r cuda.Result) {
	r = k.with(func() cuda.Result {
		text := k.modules[m]
		if text == nil {
			return cuda.InvalidHandle
		}
		if !regexp.MustCompile(`\.entry\s+` + regexp.QuoteMeta(name) + `\b`).Match(text) {
			return cuda.NotFound
		}
		f = cuda.Function(k.handle())
		k.funcs[f] = name
		return cuda.Success
	})
	return f, r
}

func (k *Fake) Launch(f cuda.Function, grid, block cuda.Dim, _ uint32, s cuda.StreamID, params []unsafe.Pointer) cuda.Result {
	return k.with(func() cuda.Result {
		name, ok := k.funcs[f]
		if !ok {
			return cuda.InvalidHandle
		}
		if grid.X*grid.Y*grid.Z == 0 || block.X*block.Y*block.Z == 0 || block.X*block.Y*block.Z > 1024 {
			return cuda.InvalidValue
		}
		kernel := k.options.Kernels[name]
		if kernel == nil {
			return k.put(s, func() cuda.Result { return cuda.Success })
		}
		values := make([]uint64, len(params)) // read now: the caller may change them
		own := make([]unsafe.Pointer, len(params))
		for i, p := range params {
			values[i] = *(*uint64)(p)
			own[i] = unsafe.Pointer(&values[i])
		}
		return k.put(s, func() cuda.Result {
			if code := kernel(grid, block, own); code != cuda.Success {
				k.fault = code
			}
			return cuda.Success
		})
	})
}

// Memory is n bytes of device memory, for Kernels; nil where they are not within one allocation. It is not
// locked: only a kernel may ask.
func (k *Fake) Memory(p cuda.DevicePtr, n int64) []byte { return k.at(p, n) }

func (k *Fake) CaptureBegin(id cuda.StreamID) cuda.Result {
	return k.with(func() cuda.Result {
		s := k.streams[id]
		if s == nil {
			return cuda.InvalidHandle
		}
		if s.capture != nil {
			return 401 // CUDA_ERROR_ILLEGAL_STATE
		}
		s.capture = &capture{origin: id, thread: thread(), members: []cuda.StreamID{id}}
		return cuda.Success
	})
}

func (k *Fake) CaptureEnd(id cuda.StreamID) (g cuda.GraphID, r cuda.Result) {
	r = k.with(func() cuda.Result {
		s := k.streams[id]
		switch {
		case s == nil:
			return cuda.InvalidHandle
		case s.capture == nil:
			return 401 // CUDA_ERROR_ILLEGAL_STATE
		case s.capture.origin != id:
			return 903 // CUDA_ERROR_STREAM_CAPTURE_UNMATCHED
		case s.capture.thread != thread():
			return 908 // CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD
		}
		c := s.capture
		unjoined := false
		for _, id := range c.members {
			if m := k.streams[id]; m != nil {
				unjoined = unjoined || m.open
				m.capture, m.open = nil, false
			}
		}
		if c.spoilt {
			return cuda.CaptureInvalidated
		}
		if unjoined {
			return cuda.CaptureUnjoined
		}
		g = cuda.GraphID(k.handle())
		k.graphs[g] = c.work
		return cuda.Success
	})
	return g, r
}

func (k *Fake) GraphInstantiate(g cuda.GraphID) (x cuda.GraphExec, r cuda.Result) {
	r = k.with(func() cuda.Result {
		w, ok := k.graphs[g]
		if !ok {
			return cuda.InvalidHandle
		}
		x = cuda.GraphExec(k.handle())
		k.execs[x] = w
		return cuda.Success
	})
	return x, r
}

func (k *Fake) GraphDestroy(g cuda.GraphID) cuda.Result {
	return k.with(func() cuda.Result {
		if _, ok := k.graphs[g]; !ok {
			return cuda.InvalidHandle
		}
		delete(k.graphs, g)
		return cuda.Success
	})
}

func (k *Fake) GraphLaunch(x cuda.GraphExec, s cuda.StreamID) cuda.Result {
	return k.with(func() cuda.Result {
		w, ok := k.execs[x]
		if !ok {
			return cuda.InvalidHandle
		}
		return k.put(s, func() cuda.Result {
			for _, do := range w {
				if do(); k.fault != cuda.Success {
					break
				}
			}
			return cuda.Success
		})
	})
}

func (k *Fake) GraphExecDestroy(x cuda.GraphExec) cuda.Result {
	return k.with(func() cuda.Result {
		if _, ok := k.execs[x]; !ok {
			return cuda.InvalidHandle
		}
		delete(k.execs, x)
		return cuda.Success
	})
}
