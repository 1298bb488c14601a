package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/cpu"

	"github.com/onmart/onmart/cuda"
	traincpu "github.com/onmart/onmart/train/cpu"
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

func newDevicesCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "devices",
		Short: "Show what can run programs, and why not the rest",
		Long: `devices looks for everything that can run a program: the processor with the kernels that fit it, and CUDA
devices through NVIDIA's driver. Where CUDA is missing it says why and what to do.

ONMART_CPU=avx2|portable forces the kernels of the processor, ONMART_LIBCUDA=PATH the driver library.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			processor, err := describeCPU()
			if err != nil {
				return usage(err)
			}
			report := struct {
				CPU  cpuReport   `json:"cpu"`
				CUDA cuda.Report `json:"cuda"`
			}{processor, cuda.Probe(cuda.Options{})}
			return consoleOf(cmd).result(report, func(w io.Writer) error {
				_, err := io.WriteString(w, report.CPU.String()+report.CUDA.String())
				return err
			})
		},
	}
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
