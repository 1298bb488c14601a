// Package kernels is the arithmetic of a training on a CUDA device: the .cu sources, the PTX made from them, and
// one Go type for each piece of work (ops.go) that launches it.
//
// What enters: addresses in device memory and sizes. What leaves: launches on a stream. In the order of a step:
// rows.go gathers the batch; matmul.go multiplies, with bias, activation, dropout and their gradients in the same
// launch; map.go and reduce.go do what stands alone; table.go is what embeddings need; loss.go, softmax.go and
// pinball.go are the losses; step.go updates the parameters and ends the step; wrap.go is what stands around a model. tuning.go knows the devices and chooses shapes for them.
// check.go holds every kernel against plain Go.
//
// What may not be assumed:
//   - An Op does not own what it points to, and does not look at it: a wrong size is an error, a wrong address is
//     a fault of the device, reported later by the stream.
//   - Everything on a Set is called inside Device.Do, as everything on a device.
//   - Results do not depend on the device, on the tile that was chosen or on how often it is run: no kernel adds
//     with atomics, every sum has one order. Only the number of slices of a product or a sum, which the caller
//     takes from a Tuning, changes an order, and with it the last bits.
//
// The package knows nothing of models and imports nothing of ours but cuda.
package kernels

import (
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strings"

	"github.com/onmart/onmart/cuda"
)

//go:embed *.cu *.cuh
var sources embed.FS

// Sources holds the .cu and .cuh files, for the host emulation and for the check that the PTX was made of them.
func Sources() fs.FS { return sources }

// modules lists the kernels of each source file.
var modules = []struct {
	name    string // of the source and of its PTX
	kernels []string
}{
	{"loss", []string{"bce", "bce_terms", "lane_sum", "bce_grad"}},
	{"map", []string{"map_activate", "map_act_grad", "map_add", "map_scale", "map_fill", "map_dropout"}},
	{"matmul", []string{
		"matmul_128x64_nn", "matmul_128x64_nt", "matmul_128x64_tn",
		"matmul_64x64_nn", "matmul_64x64_nt", "matmul_64x64_tn",
		"matmul_64x32_nn", "matmul_64x32_nt", "matmul_64x32_tn", "matmul_64x32_tt",
		"matmul_32x32_nn", "matmul_32x32_nt", "matmul_32x32_tn",
		"matmul_16x64_nn", "matmul_16x64_nt", "matmul_16x64_tn",
		"matvec_n", "matvec_t", "matvec_lanes", "outer",
	}},
	{"pinball", []string{"pinball_rows", "pinball_grad"}},
	{"reduce", []string{"col_sum", "col_sum_narrow", "sum_slices"}},
	{"rows", []string{"columns", "gather"}},
	{"softmax", []string{"softmax_terms", "softmax_grad"}},
	{"step", []string{"adamw", "finish"}},
	{"table", []string{"lookup", "sample", "row_dot", "row_scale", "row_sort_count", "row_sort_place", "row_share", "row_adam"}},
	{"wrap", []string{"standardize", "calibrate"}},
}

// Set is the kernels loaded on a device. Several goroutines may launch from one Set, each on a stream of its own.
type Set struct {
	tuning    *Tuning
	modules   []*cuda.LoadedModule
	functions map[string]cuda.Function
}

// Load loads all kernels on a device and takes the Tuning that fits it best. The driver compiles the PTX for its
// device the first time; an error says which module it refused and why. It is called inside Device.Do.
func Load(d *cuda.Device) (*Set, error) {
	k := &Set{tuning: tuningOf(d.Capability(), d.Info()), functions: map[string]cuda.Function{}}
	for _, m := range modules {
		if err := k.load(d, m.name, m.kernels); err != nil {
			return nil, errors.Join(err, k.Close())
		}
	}
	return k, nil
}

func (k *Set) load(d *cuda.Device, name string, kernels []string) error {
	text, err := ptx(name)
	if err != nil {
		return err
	}
	m, err := d.LoadModule(name, text)
	if err != nil {
		return fmt.Errorf("kernels: load %s.ptx: %w", name, err)
	}
	k.modules = append(k.modules, m)
	for _, f := range kernels {
		if k.functions[f], err = m.Function(f); err != nil {
			return fmt.Errorf("kernels: %s in %s.ptx: %w", f, name, err)
		}
	}
	return nil
}

// Close unloads the kernels. No work that uses them may be on the device, and no graph that holds them is launched
// again. A second Close does nothing.
func (k *Set) Close() error {
	var errs []error
	for _, m := range k.modules {
		errs = append(errs, m.Close())
	}
	k.modules, k.functions = nil, nil
	return errors.Join(errs...)
}

// Tuning is what Load took for the device. Slices given to an Op should come from it.
func (k *Set) Tuning() *Tuning { return k.tuning }

// launch is one launch of an Op: a kernel of the list above with its grid, its block and its arguments.
type launch struct {
	kernel string
	grid   cuda.Dim
	block  int
	args   func(a *cuda.Args)
}

// put launches on a stream; every error names the Op.
func (k *Set) put(s *cuda.Stream, op Op, l launch) error {
	f, ok := k.functions[l.kernel]
	if !ok {
		return fmt.Errorf("kernels: %s: %s is not loaded: the Set was closed", op.Kernel(), l.kernel)
	}
	// CUDA's bounds of a grid, since compute capability 3.0.
	if l.grid.X > math.MaxInt32 || l.grid.Y > math.MaxUint16 || l.grid.Z > math.MaxUint16 {
		return fmt.Errorf("kernels: %s: %s needs a grid of %d x %d x %d blocks, over 2147483647 x 65535 x 65535: make it smaller",
			op.Kernel(), l.kernel, l.grid.X, l.grid.Y, l.grid.Z)
	}
	var args cuda.Args
	l.args(&args)
	if err := s.Launch(l.kernel, f, l.grid, cuda.Dim{X: uint32(l.block), Y: 1, Z: 1}, 0, &args); err != nil {
		return fmt.Errorf("kernels: %s: %w", op.Kernel(), err)
	}
	return nil
}

// putAll puts launches one after the other.
func (k *Set) putAll(s *cuda.Stream, op Op, launches []launch) error {
	for _, l := range launches {
		if err := k.put(s, op, l); err != nil {
			return err
		}
	}
	return nil
}

// blocks is the number of blocks of a grid.
func (l launch) blocks() int { return int(l.grid.X) * int(l.grid.Y) * int(l.grid.Z) }

// line is a grid of one dimension with a thread for each of n things.
func line(n int64, block int) cuda.Dim {
	return cuda.Dim{X: clampU32(ceilDiv(n, int64(block))), Y: 1, Z: 1}
}

// clampU32 keeps a size that no grid has from wrapping around into one that it has.
func clampU32(n int64) uint32 { return uint32(min(n, math.MaxUint32)) }

func ceilDiv[T int | int64](a, b T) T { return (a + b - 1) / b }

// maxSize bounds each dimension, so that no index within a kernel leaves int32.
const maxSize = 1 << 30

// faults collects what is wrong with the fields of an Op.
type faults []string

func (f *faults) addf(format string, args ...any) { *f = append(*f, fmt.Sprintf(format, args...)) }

// size demands 1 <= n <= maxSize.
func (f *faults) size(name string, n int) { f.between(name, n, 1, maxSize) }

func (f *faults) between(name string, n, least, most int) {
	if n < least || n > most {
		f.addf("%s is %d, want %d to %d", name, n, least, most)
	}
}

// ptr demands an address of elements of so many bytes.
func (f *faults) ptr(name string, p cuda.DevicePtr, bytes int) {
	if p == 0 {
		f.addf("%s is missing", name)
		return
	}
	f.optional(name, p, bytes)
}

// optional is ptr where 0 leaves the operand out.
func (f *faults) optional(name string, p cuda.DevicePtr, bytes int) {
	if p%cuda.DevicePtr(bytes) != 0 {
		f.addf("%s, at %#x, is not a multiple of %d bytes", name, uint64(p), bytes)
	}
}

func (f *faults) act(name string, a Act) {
	if a < None || a > Silu {
		f.addf("%s is %d, want None, Relu or Silu", name, a)
	}
}

func (f *faults) drop(d Drop) {
	if !(d.Rate >= 0 && d.Rate < 1) {
		f.addf("Drop.Rate is %v, want at least 0 and below 1", d.Rate)
	}
	if d.Rate != 0 {
		f.ptr("Drop.State", d.State, 4)
	}
}

// of is the error of an Op, nil where nothing is wrong.
func (f faults) of(op Op) error {
	if len(f) == 0 {
		return nil
	}
	return fmt.Errorf("kernels: %s: %s", op.Kernel(), strings.Join(f, "; "))
}

// aligned says whether all addresses are multiples of 16 bytes; 0, which is none, is.
func aligned(ps ...cuda.DevicePtr) bool {
	for _, p := range ps {
		if p%16 != 0 {
			return false
		}
	}
	return true
}

// flag is a bool as a kernel takes it.
func flag(b bool) int32 {
	if b {
		return 1
	}
	return 0
}

// dropArgs appends dropout as the kernels take it: seed, site, rate.
func (d Drop) args(a *cuda.Args) {
	a.I64(int64(d.Seed)).U32(d.Site).F32(d.Rate)
}

// name of an activation, for listings.
func (a Act) name() string {
	switch a {
	case Relu:
		return "relu"
	case Silu:
		return "silu"
	}
	return "none"
}
