// Package emulator runs the kernels of package kernels without a GPU: it compiles the same .cu sources for the host
// and puts a whole libcuda around them, which package cuda opens like NVIDIA's.
//
// What enters: the .cu sources and a C++ compiler (g++, or what CXX names), on Linux on x86-64. What leaves:
// the path of a library, for cuda.Options.Library, cuda.OpenDriver or the variable ONMART_LIBCUDA. The sources
// of the library itself are in native: emu.h gives the .cu files their words, executor.cpp runs their threads,
// checks.cpp says what the compiler's checks found; memory.cpp, work.cpp, ptx.cpp and driver.cpp are the
// device, its streams and graphs, its loader, and the entry points.
//
// It is strict where hardware is forgiving, so that a fault shows in the first test and not on the first GPU:
//   - device and shared memory hold NaN (0xff) at first and end at inaccessible pages: an access outside of an
//     allocation or of an array is ILLEGAL_ADDRESS, with the kernel, block, thread and allocation on stderr.
//     The context is lost then, as on hardware, until it is released;
//   - a barrier that not all threads reach, a shuffle from a lane outside the mask or gone, a misaligned
//     address, an index outside of a declared array, an overflow of a signed integer, a shift past its width
//     and a division of integers by zero end the kernel with an error;
//   - copies stay within one allocation, contexts belong to their thread, handles are alive, a stream under
//     capture is not waited for, blocks keep to __launch_bounds__ and 48 KiB of shared memory, the PTX that is
//     loaded has the kernels and parameters of the sources;
//   - SetOrder chooses the order in which threads, blocks, streams and nodes of a graph run, within what
//     barriers, events and edges leave open: a missing one changes results in some order. Pinned memory is
//     read when the copy is done.
//
// What may not be assumed: that it tells anything of time; that its libm has the last bits of a GPU's; that it
// finds what needs a memory model weaker than the host's, or faults of registers and occupancy. Memory is
// 16-byte aligned where a device gives 256. Addresses of the host that a kernel dereferences are not refused.
// Shared memory is checked where it is declared by SHARED_ARRAY.
//
// Environment, read when the library is initialised: ONMART_EMU_ORDER (0), ONMART_EMU_MEMORY (bytes, 6 GiB),
// ONMART_EMU_CUDA (the driver's version, 11080), ONMART_EMU_LEAKS (1: say what a context still holds when it is
// released).
package emulator

import (
	"fmt"
	"math"

	"github.com/onmart/onmart/cuda"
)

// Attributes by which the library answers questions of its own; native/driver.cpp has the same list.
const (
	attrAllocations     cuda.Attribute = 9001
	attrMebibytes       cuda.Attribute = 9002
	attrBytesRest       cuda.Attribute = 9003
	attrHostAllocations cuda.Attribute = 9004
	attrStreams         cuda.Attribute = 9005
	attrEvents          cuda.Attribute = 9006
	attrModules         cuda.Attribute = 9007
	attrGraphs          cuda.Attribute = 9008
	attrLaunches        cuda.Attribute = 9009
	attrOrder           cuda.Attribute = 9010
	attrSetOrder        cuda.Attribute = 1000000 // + order: sets it and gives the old one
)

// MaxOrder is the largest order that SetOrder takes.
const MaxOrder = math.MaxInt32 - uint32(attrSetOrder)

// SetOrder chooses the order of threads, blocks, streams and graph nodes: 0 as written, 1 the reverse, else a
// seed. It first finishes what waits in the streams, holds for the whole process, and returns the order that
// was. The driver must be the emulator's and initialised, else the error says so.
func SetOrder(d cuda.Driver, order uint32) (old uint32, err error) {
	if order > MaxOrder {
		return 0, fmt.Errorf("emulator: order %d is over %d", order, MaxOrder)
	}
	v, err := ask(d, attrSetOrder+cuda.Attribute(order))
	return uint32(v), err
}

// Order is the order that SetOrder or ONMART_EMU_ORDER has chosen.
func Order(d cuda.Driver) (uint32, error) {
	v, err := ask(d, attrOrder)
	return uint32(v), err
}

// Held is what the context of the emulated device holds now.
type Held struct {
	Allocations     int   // of device memory
	Bytes           int64 // of device memory
	HostAllocations int   // of pinned memory
	Streams         int
	Events          int
	Modules         int
	Graphs          int // captured and instantiated ones
	Launches        int // kernels run since the library was opened; not something that is held
}

// Live says what is held, to find leaks; the driver is as for SetOrder.
func Live(d cuda.Driver) (Held, error) {
	var values [9]int
	for i := range values {
		v, err := ask(d, attrAllocations+cuda.Attribute(i))
		if err != nil {
			return Held{}, err
		}
		values[i] = v
	}
	return Held{
		Allocations: values[0], Bytes: int64(values[1])<<20 + int64(values[2]), HostAllocations: values[3],
		Streams: values[4], Events: values[5], Modules: values[6], Graphs: values[7], Launches: values[8],
	}, nil
}

func ask(d cuda.Driver, a cuda.Attribute) (int, error) {
	v, r := d.DeviceAttribute(0, a)
	if r != cuda.Success {
		return 0, fmt.Errorf("emulator: %s does not answer attribute %d: it is not the emulator, or not initialised: %w",
			d.Name(), a, r)
	}
	return v, nil
}
