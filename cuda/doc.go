// Package cuda is a CUDA device from Go: memory, streams, events, modules, launches and captured graphs,
// without a toolkit and, in the default build, without cgo.
//
// What enters: PTX text, Go slices and the machine's driver. What leaves: a Report of what there is
// (Probe), a Device that works (Open), and errors that name the call, the driver's code with its meaning,
// and what to do. Files in the order of the work: probe.go finds devices, device.go opens one, arena.go
// and memory.go give memory, module.go loads code, stream.go and launch.go put work on the device,
// graph.go captures a sequence of it to be replayed in one call.
//
// What may not be assumed:
//   - The current context belongs to the OS thread, not to the goroutine. Everything on a Device but Info,
//     Do and Close, and everything on what it made, is called inside Device.Do; outside it the driver
//     answers InvalidContext.
//   - Work on a stream is asynchronous, and so are its faults: an illegal address in a kernel is reported by
//     a later call, mostly Stream.Sync. A sticky fault (Lost) ends the use of the device in this process.
//   - Mem.Free does not wait for work that still uses the memory. Who frees it synchronises first, or hands
//     it on only to work of the same stream, which runs in order.
//   - A Stream, with its graphs, is used by one goroutine at a time. A Device may be used by several.
//
// Three builds: the default opens the driver's libcuda at run time (a host emulation of it is such a library
// too: Options.Library or $ONMART_LIBCUDA names it); the tag nocuda leaves CUDA out, and the binary is
// static; the tag cu goes through gorgonia.org/cu, which needs cgo and cuda.h and ends the process at start
// where there is no device. That package has no stream capture, graphs and pinned memory: here they are
// refused with its name, and AllocHost gives ordinary memory.
//
// The package knows nothing of what it computes and imports nothing of ours.
package cuda
