//go:build linux && !nocuda && !cu

package emulator

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"unsafe"

	"github.com/onmart/onmart/cuda"
)

// orders in which tests run what must not depend on them.
var orders = []uint32{0, 1, 2, 3, 1234567}

// signatures are the entries of a PTX that stands for testdata: the emulator runs the .cu files and takes from
// the PTX its names, parameters and launch bounds. Letters are parameters: p address, b 1 byte, h 2, w 4, l 8,
// f float, d double.
var signatures = map[string]string{
	"tiled": "pppwww 256", "block_sums": "ppw", "warp_words": "p", "votes": "pp", "histogram": "ppw", "reversed": "pp", "plain_shared": "pp",
	"parameters": "pbhwlfdM", "nothing": "", "increment": "pw 256", "twice": "pw 256", "barriers": "pw", "shuffles": "pw",
	"missing_barrier": "pp", "missing_second_barrier": "ppw", "block_race": "p", "read_at": "ppl", "write_at": "pl",
	"read_byte_address": "ppl", "read_vector": "ppw", "shared_write_at": "pw", "shared_read_at": "pw", "shared_too_large": "p",
	"mask_without_caller": "p", "lane_outside_mask": "p", "lane_returned": "pw", "lanes_apart": "p", "bad_width": "p",
	"two_barriers": "p", "returns_early": "pw", "barrier_in_warp": "p", "divides": "pw", "traps": "p", "too_much_stack": "pw",
	"undefined_shared": "p", "shared_index": "pw", "local_index": "pw", "overflows": "pw", "shifts": "pw",
}

var ptxTypes = map[rune]string{'p': ".u64 %s", 'b': ".u8 %s", 'h': ".u16 %s", 'w': ".u32 %s", 'l': ".u64 %s", 'f': ".f32 %s", 'd': ".f64 %s",
	'M': ".align 8 .b8 %s[16]"}

// ptx is the text of a module with some of the signatures, or all.
func ptx(names ...string) string {
	if len(names) == 0 {
		for name := range signatures {
			names = append(names, name)
		}
	}
	var s strings.Builder
	s.WriteString("// made by hand\n.version 7.8\n.target sm_75\n.address_size 64\n\n")
	for _, name := range names {
		letters, bounds, bounded := strings.Cut(signatures[name], " ")
		var parameters []string
		for i, c := range letters {
			parameters = append(parameters, "\t.param "+fmt.Sprintf(ptxTypes[c], fmt.Sprintf("%s_param_%d", name, i)))
		}
		fmt.Fprintf(&s, ".visible .entry %s(\n%s\n)\n", name, strings.Join(parameters, ",\n"))
		if bounded {
			fmt.Fprintf(&s, ".maxntid %s, 1, 1\n", bounds)
		}
		s.WriteString("{\n\t.reg .pred %p<2>;\n$L_end:\n\t@%p1 bra $L_end;\n\tret;\n}\n\n")
	}
	return s.String()
}

// device is the emulated device of one test, on its OS thread.
type device struct {
	testing.TB
	cuda.Driver
	stream cuda.StreamID
	module cuda.Module
}

// open builds the library with the kernels of testdata and retains its context until the test ends.
func open(t testing.TB) *device {
	t.Helper()
	d := &device{TB: t, Driver: driver(t)}
	d.ok(d.Init())
	d.order(0)
	t.Cleanup(d.here())
	d.stream = d.newStream()
	var (
		log string
		r   cuda.Result
	)
	d.module, log, r = d.ModuleLoad([]byte(ptx() + "\x00"))
	if r != cuda.Success {
		t.Fatalf("the module is refused: %v %s", r, log)
	}
	return d
}

// here makes the context current on the calling goroutine, which keeps its OS thread until the function
// returned is called.
func (d *device) here() (done func()) {
	d.Helper()
	runtime.LockOSThread()
	ctx, r := d.ContextRetain(0)
	d.ok(r)
	d.ok(d.ContextSet(ctx))
	return func() {
		d.ok(d.ContextRelease(0))
		d.ok(d.ContextSet(0))
		runtime.UnlockOSThread()
	}
}

// testLibrary has the kernels of testdata.
var testLibrary = sync.OnceValues(func() (string, error) { return BuildFrom(os.DirFS("testdata")) })

func driver(t testing.TB) cuda.Driver {
	t.Helper()
	path, err := testLibrary()
	if errors.Is(err, ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	d, err := cuda.OpenDriver(path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func (d *device) ok(r cuda.Result) {
	d.Helper()
	if r != cuda.Success {
		d.Fatalf("CUDA error %d: %v", r, r)
	}
}

func (d *device) want(want, got cuda.Result) {
	d.Helper()
	if got != want {
		d.Fatalf("CUDA result %d (%v), want %d (%v)", got, got, want, want)
	}
}

func (d *device) order(o uint32) {
	d.Helper()
	if _, err := SetOrder(d.Driver, o); err != nil {
		d.Fatal(err)
	}
}

func (d *device) newStream() cuda.StreamID {
	d.Helper()
	s, r := d.StreamCreate()
	d.ok(r)
	return s
}

func (d *device) newEvent() cuda.EventID {
	d.Helper()
	e, r := d.EventCreate(false)
	d.ok(r)
	return e
}

func (d *device) alloc(bytes int) cuda.DevicePtr {
	d.Helper()
	p, r := d.MemAlloc(int64(bytes))
	d.ok(r)
	return p
}

// put returns device memory with these values.
func put[T any](d *device, v []T) cuda.DevicePtr {
	d.Helper()
	bytes := len(v) * int(unsafe.Sizeof(v[0]))
	p := d.alloc(bytes)
	d.ok(d.CopyToDevice(p, unsafe.Pointer(&v[0]), int64(bytes), d.stream))
	return p
}

// get returns n values of device memory.
func get[T any](d *device, p cuda.DevicePtr, n int) []T {
	d.Helper()
	v := make([]T, n)
	d.ok(d.CopyToHost(unsafe.Pointer(&v[0]), p, int64(n)*int64(unsafe.Sizeof(v[0])), d.stream))
	d.ok(d.StreamSync(d.stream))
	return v
}

func (d *device) function(name string) cuda.Function {
	d.Helper()
	f, r := d.ModuleFunction(d.module, name)
	if r != cuda.Success {
		d.Fatalf("function %s: %v", name, r)
	}
	return f
}

// launch puts a kernel on a stream; arguments have the kernel's types.
func (d *device) launch(s cuda.StreamID, name string, grid, block cuda.Dim, arguments ...any) cuda.Result {
	d.Helper()
	return d.Launch(d.function(name), grid, block, 0, s, pointers(d.TB, arguments))
}

func pointers(t testing.TB, arguments []any) []unsafe.Pointer {
	var p []unsafe.Pointer
	for _, a := range arguments {
		switch v := a.(type) {
		case cuda.DevicePtr:
			p = append(p, unsafe.Pointer(&v))
		case int8:
			p = append(p, unsafe.Pointer(&v))
		case int16:
			p = append(p, unsafe.Pointer(&v))
		case int32:
			p = append(p, unsafe.Pointer(&v))
		case int64:
			p = append(p, unsafe.Pointer(&v))
		case float32:
			p = append(p, unsafe.Pointer(&v))
		case float64:
			p = append(p, unsafe.Pointer(&v))
		case *mixed:
			p = append(p, unsafe.Pointer(v))
		default:
			t.Fatalf("an argument of type %T", a)
		}
	}
	return p
}

// mixed is Mixed of right.cu.
type mixed struct {
	c [3]int8
	d float64
}

func dim(x, y, z uint32) cuda.Dim { return cuda.Dim{X: x, Y: y, Z: z} }
func line(x uint32) cuda.Dim      { return dim(x, 1, 1) }

// stderr returns what f, the library included, writes to the process's standard error.
func stderr(t testing.TB, f func()) string {
	t.Helper()
	file, err := os.CreateTemp(t.TempDir(), "stderr")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	saved, err := syscall.Dup(2)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(saved)
	if err := syscall.Dup3(int(file.Fd()), 2, 0); err != nil {
		t.Fatal(err)
	}
	func() {
		defer func() {
			if err := syscall.Dup3(saved, 2, 0); err != nil {
				t.Fatal(err)
			}
		}()
		f()
	}()
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
