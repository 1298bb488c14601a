// Package gpu runs programs on a CUDA device: it is the program.Backend of training on a GPU.
//
// What enters: a valid program.Set, float32 columns, an open cuda.Device. What leaves: trained tensors, sums of
// losses, outputs. Instructions become ops of cuda/kernels (plan.go), a step becomes one CUDA graph (lanes.go),
// and a Run replays it, with one wait at its end. Data that fits the memory bound stays on the device; what does not
// is streamed through two pinned buffers (stage.go), and that is said.
//
// Unsliced products, activations, dropout, shuffles and updates give the bits of train/cpu. Weight and bias gradients are
// summed in slices, whose number depends on the device, and the terms of a loss are computed in float32: so a
// training gives the same bits at every run on one kind of device, and on another, or on the CPU, losses that
// agree to about 1e-4. What may not be assumed: that an Exec goes on after an error; cuda.Lost says
// whether the process can open the device again.
package gpu

import (
	"errors"
	"fmt"
	"slices"

	"github.com/onmart/onmart/cuda"
	"github.com/onmart/onmart/cuda/kernels"
	"github.com/onmart/onmart/train/program"
)

// Options of New.
type Options struct {
	// Device is open, and stays the caller's to close. Its MemoryLimit bounds what all Execs on it take.
	Device *cuda.Device
	// Note takes lines for people: lowered residency, what the driver binding lacks. May be nil.
	Note func(format string, args ...any)
	// Stage is the bytes of the two staging buffers together where data is streamed; 0 takes 64 MiB.
	Stage int64
	// Apart gives every buffer an allocation of its own, so that an access past one is found (tests).
	Apart bool
}

// Backend compiles sets for one device.
type Backend struct {
	Options
	kernels *kernels.Set
}

// defaultStage: two buffers that a PCIe 3.0 x16 bus fills in 3 ms each, far longer than a copy takes to start.
const defaultStage = 64 << 20

// New loads the kernels into the device.
func New(o Options) (*Backend, error) {
	if o.Note == nil {
		o.Note = func(string, ...any) {}
	}
	if o.Stage == 0 {
		o.Stage = defaultStage
	}
	b := &Backend{Options: o}
	err := o.Device.Do(func() (err error) {
		b.kernels, err = kernels.Load(o.Device)
		return err
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

// Name tells the device, because bits depend on it: "cuda sm_75, 30 SMs, NVIDIA GeForce RTX 2060".
func (b *Backend) Name() string {
	i := b.Device.Info()
	return fmt.Sprintf("cuda sm_%d, %d SMs, %s", b.Device.Capability(), i.SMs, i.Name)
}

// ChunkRows is how many rows a Run should have: some hundredths of a second on a card, so that the wait at its end is a small
// part. The emulator is a thousand times slower.
func (b *Backend) ChunkRows() int {
	if b.Device.Info().Emulated() {
		return 1 << 12
	}
	return 1 << 18
}

// Kernels are the loaded kernels, for checks of them.
func (b *Backend) Kernels() *kernels.Set { return b.kernels }

// Close unloads the kernels.
func (b *Backend) Close() error { return b.Device.Do(b.kernels.Close) }

// Compile validates the set and takes memory for its tensors, which are zero until Import.
func (b *Backend) Compile(s *program.Set) (program.Exec, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if err := Lacks(s); err != nil {
		return nil, fmt.Errorf("gpu: %w: train with --device cpu", err)
	}
	e := &exec{Backend: b, set: s, tensors: map[string]span{}, held: s.Holds()}
	err := b.Device.Do(e.open)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("gpu: compile: %w", err), e.Close())
	}
	return e, nil
}

// Lacks names the first instruction of a set that has no kernel here, for which Compile refuses the set; nil where all
// have one.
func Lacks(s *program.Set) error {
	for _, p := range []*program.Program{s.Train, s.Rest, s.Forward} {
		for i := 0; p != nil && i < len(p.Instrs); i++ {
			in, with := &p.Instrs[i], ""
			switch {
			case slices.Contains(program.Pending(), in.Op):
			case in.Attr.Uses != "":
				with = " with scaled uses"
			case in.Factor() >= 0:
				with = " with a factor"
			default:
				continue
			}
			return fmt.Errorf("instruction %d of %s (%s%s, node %s) has no kernel for a GPU yet",
				i, p.Name, in.Op, with, in.Node)
		}
	}
	return nil
}

// Oracle is what kernels.Check compares random numbers and shuffles with.
func Oracle() kernels.Oracle {
	return kernels.Oracle{
		Philox: program.Philox,
		Permute: func(seed uint64, epoch uint32, n, i int) int {
			p := program.NewPermutation(seed, epoch, n)
			return p.At(i)
		},
	}
}

var _ program.Backend = (*Backend)(nil)
