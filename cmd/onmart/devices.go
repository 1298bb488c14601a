package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/cpu"

	"github.com/onmart/onmart/cuda"
	"github.com/onmart/onmart/cuda/kernels"
	traincpu "github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/gpu"
)

// cpuReport is the processor as the CPU backend sees it.
type cpuReport struct {
	Name    string `json:"name"`
	Arch    string `json:"arch"`
	Cores   int    `json:"cores"`   // logical, those this process may use
	Threads int    `json:"threads"` // that a run takes by default
	AVX2    bool   `json:"avx2"`
	FMA     bool   `json:"fma"`
	AVX512  bool   `json:"avx512"`
	Path    string `json:"path"` // the kernels that programs run with
	Forced  string `json:"forced,omitempty"`
}

// devicesReport is what can run programs.
type devicesReport struct {
	CPU    cpuReport     `json:"cpu"`
	CUDA   cuda.Report   `json:"cuda"`
	Checks []deviceCheck `json:"checks,omitempty"`
}

// deviceCheck is the kernels of one device against their references.
type deviceCheck struct {
	Device  int                   `json:"device"`
	Backend string                `json:"backend"`
	OK      bool                  `json:"ok"`
	Kernels []kernels.CheckResult `json:"kernels"`
	Error   string                `json:"error,omitempty"` // what ended the check
}

func newDevicesCmd() *cobra.Command {
	var check bool
	f := deviceFlags{}
	cmd := &cobra.Command{
		Use:   "devices",
		Short: "Show what can run programs, and why not the rest",
		Long: `devices looks for everything that can run a program: the processor with the kernels that fit it, and CUDA
devices through NVIDIA's driver. Where CUDA is missing it says why and what to do.

--check runs every kernel on every usable CUDA device against its reference on the processor, over odd sizes, and
prints the greatest error beside the tolerance, and the rate at sizes of use. It exits with 1 where a kernel is
outside, and where there is no device to check.

ONMART_CPU=avx512|avx2|portable forces the kernels of the processor, ONMART_LIBCUDA=PATH the driver library.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&check, "check", false, "run every kernel against its reference, and time it")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		con := consoleOf(cmd)
		processor, err := describeCPU()
		if err != nil {
			return usage(err)
		}
		report := &devicesReport{CPU: processor, CUDA: cuda.Probe(cuda.Options{})}
		if check {
			report.check(con, f)
		}
		if err := con.result(report, report.print); err != nil {
			return err
		}
		return report.verdict(check)
	}
	return cmd
}

// check runs the kernels of every usable device.
func (r *devicesReport) check(con *console, f deviceFlags) {
	for _, d := range r.CUDA.Devices {
		if !d.Usable {
			continue
		}
		f.name = fmt.Sprintf("cuda:%d", d.Index)
		c := deviceCheck{Device: d.Index, OK: true}
		backend, closeBackend, err := openBackend(con, f, nil)
		if err == nil {
			c.Backend = backend.Name()
			c.Kernels, err = checkKernels(backend.(*gpu.Backend), !d.Emulated()) // cuda:N is a GPU
			err = errors.Join(err, closeBackend())
		}
		if err != nil { // the others are worth a report
			c.OK, c.Error = false, err.Error()
		}
		for _, k := range c.Kernels {
			c.OK = c.OK && k.OK
		}
		r.Checks = append(r.Checks, c)
	}
}

// print is the report for people.
func (r *devicesReport) print(w io.Writer) error {
	if _, err := io.WriteString(w, r.CPU.String()+r.CUDA.String()); err != nil {
		return err
	}
	for _, c := range r.Checks {
		if c.Error != "" {
			fmt.Fprintf(w, "\ncuda:%d: the check ended early: %s\n", c.Device, c.Error)
			continue
		}
		fmt.Fprintf(w, "\n%s:\n\n", c.Backend)
		if err := printKernels(w, c.Kernels); err != nil {
			return err
		}
	}
	return nil
}

// verdict is the error of a check that did not pass.
func (r *devicesReport) verdict(check bool) error {
	if check && len(r.Checks) == 0 {
		return errors.New("--check: there is no CUDA device to check: " + r.CUDA.Reason + "; " + r.CUDA.Remedy)
	}
	for _, c := range r.Checks {
		if !c.OK {
			return fmt.Errorf("--check: kernels of cuda:%d fail or are outside their tolerance", c.Device)
		}
	}
	return nil
}

// describeCPU asks the processor, and the CPU backend for the path it takes.
func describeCPU() (cpuReport, error) {
	backend, err := traincpu.New(traincpu.Options{})
	if err != nil {
		return cpuReport{}, err
	}
	return cpuReport{
		Name:    cpuName(),
		Arch:    runtime.GOARCH,
		Cores:   runtime.NumCPU(),
		Threads: runtime.GOMAXPROCS(0),
		AVX2:    cpu.X86.HasAVX2,
		FMA:     cpu.X86.HasFMA,
		AVX512:  cpu.X86.HasAVX512F && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512BW,
		Path:    backend.Name(),
		Forced:  os.Getenv("ONMART_CPU"),
	}, nil
}

// cpuName is the processor's own name where the system tells it, "" elsewhere.
func cpuName() string {
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// String is the report for people.
func (c cpuReport) String() string {
	name := c.Name
	if name == "" {
		name = c.Arch
	}
	has := func(name string, on bool) string {
		if on {
			return name
		}
		return "no " + name
	}
	text := fmt.Sprintf("CPU: ready, %s\n  cpu     %d cores, %s, %s, %s; programs run with the kernels %s", name, c.Cores,
		has("AVX2", c.AVX2), has("FMA", c.FMA), has("AVX-512", c.AVX512), c.Path)
	if c.Forced != "" {
		text += fmt.Sprintf(" (forced by ONMART_CPU=%s)", c.Forced)
	}
	return text + "\n"
}
