// Package cpu runs programs on the processor: it is the program.Backend of training without a GPU, and the
// inference that score uses everywhere.
//
// What enters: a valid program.Set or one forward program with its weights, and float32 columns. What leaves:
// trained tensors, sums of losses, outputs. The order of every sum is fixed, so one row and a batch, one
// thread and eight, and any size of tile give the same bits; and so do the three paths, assembly for AVX-512 and
// for AVX2 and portable Go, because the portable one rounds each multiply-add once, as the processor's instruction
// does. What may not be assumed: that the functions of package math agree to the last bit of float64 on two
// architectures (SampledSoftmax takes Log, Standardize Log1p, Calibrate Exp, Map Sin, Cos, Log2 and Pow).
package cpu

import (
	"fmt"
	"os"
	"runtime"

	"github.com/onmart/onmart/train/program"
)

// Options of New. The zero value is good.
type Options struct {
	// Threads that share the work of a batch; 0 takes runtime.GOMAXPROCS(0). It never changes a bit of the
	// result.
	Threads int
	// Always takes all threads for the smallest batch too, which is slower: for tests that hold results of different
	// numbers of threads to each other.
	Always bool
}

// Backend compiles sets for this machine's processor.
type Backend struct {
	threads int
	always  bool
	kernels *kernels
	block   int // rows of a block, a multiple of rowQuantum, where a test wants other than what fits the cache; 0 elsewhere
}

// maxThreads bounds Options.Threads: far above the cores of a workstation, and a typing error is caught.
const maxThreads = 256

// New detects the processor. The environment variable ONMART_CPU forces a path, "avx512", "avx2" or "portable"; a value
// that is none of these, or that this processor cannot run, is an error.
func New(o Options) (*Backend, error) {
	if o.Threads < 0 || o.Threads > maxThreads {
		return nil, fmt.Errorf("cpu: %d threads: want 1 to %d, or 0 for one a core", o.Threads, maxThreads)
	}
	if o.Threads == 0 {
		o.Threads = min(runtime.GOMAXPROCS(0), maxThreads)
	}
	k, err := chooseKernels(os.Getenv("ONMART_CPU"))
	if err != nil {
		return nil, err
	}
	return &Backend{threads: o.Threads, always: o.Always, kernels: k}, nil
}

// chooseKernels returns the path of that name, or the fastest that this processor has for "".
func chooseKernels(force string) (*kernels, error) {
	switch {
	case (force == "" || force == "avx512") && hasAVX512():
		return avx512Kernels(), nil
	case (force == "" || force == "avx2") && hasAVX2():
		return avx2Kernels(), nil
	case force == "" || force == "portable":
		return portableKernels(), nil
	case force == "avx2":
		return nil, fmt.Errorf("cpu: ONMART_CPU=avx2, but this processor lacks AVX2 or FMA: unset it, or set portable")
	case force == "avx512":
		return nil, fmt.Errorf("cpu: ONMART_CPU=avx512, but this processor lacks AVX-512 (F, DQ, VL, BW): unset it, or set avx2")
	}
	return nil, fmt.Errorf("cpu: ONMART_CPU=%s is not known: unset it, or set avx512, avx2 or portable", force)
}

// Name is "cpu-avx512", "cpu-avx2" or "cpu-portable".
func (b *Backend) Name() string { return b.kernels.name }

// Compile validates the set and takes the memory it needs, and its threads. Close gives the threads back.
func (b *Backend) Compile(s *program.Set) (program.Exec, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	return newExec(b, s), nil
}

var _ program.Backend = (*Backend)(nil)
