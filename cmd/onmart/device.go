package main

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/onmart/onmart/cuda"
	"github.com/onmart/onmart/cuda/kernels"
	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/gpu"
	"github.com/onmart/onmart/train/program"
)

// deviceFlags are the flags of whatever trains.
type deviceFlags struct {
	name    string // auto, cpu, cuda[:N] or model:NAME
	memory  string // of the GPU, such as 4GiB
	threads int
}

var devicePattern = regexp.MustCompile(`^(auto|cpu|cuda(:[0-9]{1,3})?|model:.+)$`)

// leastMemory catches a size without its unit.
const leastMemory = 1 << 20

// modelPrefix begins a --device that is a description of a card, for predictions.
const modelPrefix = "model:"

// check reports the faults of the flags.
func (f *deviceFlags) check() []error {
	var faults []error
	if !devicePattern.MatchString(f.name) {
		faults = append(faults, fmt.Errorf("--device %s: want auto, cpu, cuda[:N] or model:NAME", f.name))
	}
	if f.paper() {
		if _, err := f.tuning(); err != nil {
			faults = append(faults, err)
		}
	}
	if bytes, err := parseBytes(f.memory); err != nil {
		faults = append(faults, fmt.Errorf("--gpu-memory %s: %w", f.memory, err))
	} else if f.memory != "" && bytes < leastMemory {
		faults = append(faults, fmt.Errorf("--gpu-memory %s: nothing can be trained in %d bytes; want 1MiB or more, such as 4GiB", f.memory, bytes))
	}
	return faults
}

// paper tells whether the device is a description of one.
func (f *deviceFlags) paper() bool { return strings.HasPrefix(f.name, modelPrefix) }

// tuning is the description that --device model:NAME names.
func (f *deviceFlags) tuning() (*kernels.Tuning, error) {
	t, err := kernels.TuningNamed(strings.TrimPrefix(f.name, modelPrefix))
	if err != nil {
		return nil, fmt.Errorf("--device %s: %w", f.name, err)
	}
	return t, nil
}

// parseBytes reads a size such as 4GiB, 512MiB or 6000000000; "" is 0.
func parseBytes(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	number, unit := text, int64(1)
	for _, u := range []struct {
		suffix string
		bytes  int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3}, {"B", 1}} {
		if rest, ok := strings.CutSuffix(text, u.suffix); ok {
			number, unit = strings.TrimSpace(rest), u.bytes
			break
		}
	}
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || !(v > 0) || v*float64(unit) >= 1<<62 {
		return 0, fmt.Errorf("want a size above 0, such as 4GiB or 512MiB")
	}
	return int64(v * float64(unit)), nil
}

// openBackend takes the device that was asked for, and says which and why: auto takes no GPU that lacks a kernel for
// what is trained. lacks may be nil where the device is named. close gives it back.
func openBackend(con *console, f deviceFlags, lacks lacking) (b program.Backend, close func() error, err error) {
	none := func() error { return nil }
	why, ordinal := "", f.ordinal()
	if f.name == "auto" {
		r := cuda.Probe(cuda.Options{})
		if r.State != cuda.Ready {
			why = "; no CUDA: " + string(r.State) + " (onmart devices says more)"
		} else if lack := lacks(); lack != nil {
			why = fmt.Sprintf("; a GPU is there and is not taken: %v", lack)
		}
		if usable := slices.IndexFunc(r.Devices, func(d cuda.DeviceInfo) bool { return d.Usable }); usable > 0 {
			ordinal = usable
		}
	}
	if f.name != "cpu" && why == "" {
		b, close, err := openGPU(con, f, ordinal)
		if err == nil {
			con.notef("device: %s%s", b.Name(), f.reason())
			return b, close, nil
		}
		if f.name != "auto" {
			return nil, none, fmt.Errorf("--device %s: %w; or give --device cpu", f.name, err)
		}
		why = fmt.Sprintf("; a GPU is there and cannot be used: %v", err)
	}
	c, err := cpu.New(cpu.Options{Threads: f.threads})
	if err != nil {
		return nil, none, err
	}
	con.notef("device: %s, %d threads%s", c.Name(), f.threads, why)
	return c, none, nil
}

// giveBack closes what openBackend opened. What was made on it stands by then: a fault is said and changes no result.
func giveBack(con *console, close func() error) {
	if err := close(); err != nil {
		con.notef("the device could not be given back: %v", err)
	}
}

// reason says why a GPU was taken.
func (f *deviceFlags) reason() string {
	if f.name == "auto" {
		return "; it was found (--device cpu trains on the processor)"
	}
	return ""
}

// ordinal is the N of cuda:N.
func (f *deviceFlags) ordinal() int {
	n, _ := strconv.Atoi(strings.TrimPrefix(strings.TrimPrefix(f.name, "cuda"), ":")) // the pattern has seen to it; auto is 0
	return n
}

// memoryShare is how much of the free memory of a card is taken at most where --gpu-memory does not say: it is shared with
// a desktop, whose windows come and go.
const memoryShare = .9

// openGPU opens a device and loads the kernels.
func openGPU(con *console, f deviceFlags, ordinal int) (program.Backend, func() error, error) {
	limit, err := parseBytes(f.memory)
	if err != nil {
		return nil, nil, err
	}
	d, err := cuda.Open(cuda.Options{Ordinal: ordinal, MemoryLimit: limit})
	if err != nil {
		return nil, nil, err
	}
	if limit == 0 {
		err = d.Do(func() error {
			free, _, err := d.MemInfo()
			d.SetMemoryLimit(max(1, int64(memoryShare*float64(free)))) // 0 would be no limit
			return err
		})
	}
	var b *gpu.Backend
	if err == nil {
		b, err = gpu.New(gpu.Options{Device: d, Note: con.notef})
	}
	if err != nil {
		d.Close()
		return nil, nil, err
	}
	return b, func() error {
		if err := b.Close(); err != nil {
			d.Close()
			return err
		}
		return d.Close()
	}, nil
}
