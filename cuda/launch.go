package cuda

import (
	"fmt"
	"unsafe"
)

// maxArgs is the most parameters that a kernel of ours may take. One with more takes a table in memory.
const maxArgs = 32

// Args are a kernel's parameters in the order of its declaration, each in 8 bytes of its own: the driver takes
// as many of them as the parameter has. The zero value is no parameters; one Args may be used for many
// launches, because a launch reads them before it returns.
type Args struct {
	n      int
	values [maxArgs]uint64
	params [maxArgs]unsafe.Pointer
}

// Reset empties the list, to be filled again without allocating.
func (a *Args) Reset() *Args {
	a.n = 0
	return a
}

// Ptr adds an address, a T* of the kernel.
func (a *Args) Ptr(p DevicePtr) *Args { return a.add(uint64(p)) }

// I32 adds an int.
func (a *Args) I32(v int32) *Args { return a.add(uint64(uint32(v))) }

// U32 adds an unsigned int.
func (a *Args) U32(v uint32) *Args { return a.add(uint64(v)) }

// I64 adds a long long.
func (a *Args) I64(v int64) *Args { return a.add(uint64(v)) }

// F32 adds a float.
func (a *Args) F32(v float32) *Args { return a.add(uint64(*(*uint32)(unsafe.Pointer(&v)))) }

// F64 adds a double.
func (a *Args) F64(v float64) *Args { return a.add(*(*uint64)(unsafe.Pointer(&v))) }

// add puts a value into the low bytes of its place: both processors that CUDA runs on are little-endian.
func (a *Args) add(v uint64) *Args {
	if a.n == maxArgs {
		panic(fmt.Sprintf("cuda: more than %d kernel parameters", maxArgs))
	}
	a.values[a.n] = v
	a.n++
	return a
}

// list is the parameters' addresses. They are taken here, so that a copy of an Args is as good as the first.
func (a *Args) list() []unsafe.Pointer {
	for i := range a.n {
		a.params[i] = unsafe.Pointer(&a.values[i])
	}
	return a.params[:a.n]
}

// Launch puts a kernel on the stream: grid blocks of block threads, with so many bytes of dynamic shared memory.
// name is for errors. What the kernel does wrong shows at a later call, mostly Sync. nil args are none.
func (s *Stream) Launch(name string, f Function, grid, block Dim, sharedBytes int, args *Args) error {
	if s.id == 0 {
		return s.usable("cuLaunchKernel of " + name)
	}
	var params []unsafe.Pointer
	if args != nil {
		params = args.list()
	}
	if code := s.device.driver.Launch(f, grid, block, uint32(sharedBytes), s.id, params); code != Success {
		return s.device.fail("cuLaunchKernel of "+name, code, fmt.Sprintf("grid %dx%dx%d, block %dx%dx%d, %d bytes of shared memory",
			grid.X, grid.Y, grid.Z, block.X, block.Y, block.Z, sharedBytes))
	}
	return nil
}
