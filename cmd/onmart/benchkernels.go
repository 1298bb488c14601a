package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/internal/atomicdir"
	"github.com/onmart/onmart/internal/progress"
	"github.com/onmart/onmart/internal/report"
	"github.com/onmart/onmart/train/cpu"
)

// benchKernelsFlags are the flags of bench kernels.
type benchKernelsFlags struct {
	only    []string
	seconds float64
	svg     string
	steps   bool
}

func newBenchKernelsCmd() *cobra.Command {
	var f benchKernelsFlags
	cmd := &cobra.Command{
		Use:   "kernels",
		Short: "What each kernel of the processor reaches, against what the processor could",
		Long: `bench kernels times the kernels that programs run with on the processor, on one thread: matrix products at the
sizes of networks, the others on operands that lie in the first cache, in the second, in the third, and in memory.
Beside each rate stands its share of the ceiling: the multiply-adds on registers, or the bandwidth of that working set,
whichever binds at the kernel's operations a byte. A kernel that reads rows of a table at random has, from memory, the
bandwidth of such rows for its roof. A ceiling is the best of many short spells, so that what else runs lowers it
little; a kernel's rate is a median. --svg draws them as a roofline.

--instructions also profiles training steps of the networks of bench train and bench gpu on one thread, and prints for each
operation of a program what it reaches where it takes the greatest share of a step. Operations that are done while their
operands are in a cache may pass the bandwidth of memory.`,
		Args: cobra.NoArgs,
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&f.only, "kernel", nil, "only the kernel of this `name`, such as matmul or adamw; may be repeated")
	fl.Float64Var(&f.seconds, "seconds", .004, "length of a timed run, of which a rate is the median of five")
	fl.StringVar(&f.svg, "svg", "", "SVG `file` to draw")
	fl.BoolVar(&f.steps, "instructions", false, "profile the instructions of whole steps too")
	force := addForce(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runBenchKernels(cmd, &f, *force) }
	return cmd
}

// benchKernelsResult is what it prints.
type benchKernelsResult struct {
	Backend string      `json:"backend"`
	CPU     cpuReport   `json:"cpu"`
	All     cpu.Ceiling `json:"all_threads"`
	cpu.Measurement
	Instructions []instructionRate `json:"instructions,omitempty"`
}

func runBenchKernels(cmd *cobra.Command, f *benchKernelsFlags, force bool) error {
	con := consoleOf(cmd)
	if !(f.seconds > 0) {
		return usagef("--seconds %g: want more than 0", f.seconds)
	}
	if f.svg != "" && !force {
		if _, err := os.Stat(f.svg); err == nil {
			return usagef("--svg %s exists: give --force to replace it", f.svg)
		}
	}
	backend, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		return err
	}
	r := &benchKernelsResult{Backend: backend.Name()}
	if r.CPU, err = describeCPU(); err != nil {
		return err
	}
	r.All = backend.Ceiling(r.CPU.Threads)
	m := backend.Measure(time.Duration(f.seconds*1e9), f.only)
	for _, name := range f.only {
		if !slices.ContainsFunc(m.Rates, func(r cpu.Rate) bool { return r.Kernel == name }) {
			return usagef("--kernel %s: there is none of that name, or it has no measurement of its own", name)
		}
	}
	r.Measurement = *m
	if f.steps {
		if r.Instructions, err = instructionRates(backend); err != nil {
			return err
		}
	}
	if f.svg != "" {
		var b bytes.Buffer
		if err := report.WriteRoofline(&b, r.roofline()); err != nil {
			return err
		}
		if err := atomicdir.WriteFile(f.svg, b.Bytes(), force); err != nil {
			return err
		}
	}
	return con.result(r, r.print)
}

// bandwidth is the roof of a rate's bytes: that of its level, or of rows at random where it reads such from memory.
func bandwidth(c *cpu.Ceiling, r *cpu.Rate) (bytes float64, of string) {
	i := slices.IndexFunc(c.Bandwidths, func(b cpu.Bandwidth) bool { return b.Level == r.Level })
	if r.Random && i == len(c.Bandwidths)-1 {
		return c.Random, "rows at random"
	}
	return c.Bandwidths[i].Bytes, "bandwidth"
}

// share is the rate against the ceiling: the greater of its shares of the multiply-adds and of the bandwidth.
func share(c *cpu.Ceiling, r *cpu.Rate) (share float64, of string) {
	roof, of := bandwidth(c, r)
	share = r.Bytes / r.Seconds / roof
	if c.FLOPs > 0 {
		if s := r.FLOPs / r.Seconds / c.FLOPs; s > share {
			return s, "arithmetic"
		}
	}
	return share, of
}

// roofline is the drawing of the kernels that calculate.
func (r *benchKernelsResult) roofline() report.Roofline {
	d := report.Roofline{Title: fmt.Sprintf("Kernels of %s on one thread, %s", r.Backend, r.CPU.Name), Peak: r.Ceiling.FLOPs}
	for _, b := range r.Ceiling.Bandwidths {
		d.Roofs = append(d.Roofs, report.Roof{Name: b.Level, Bytes: b.Bytes})
	}
	for i := range r.Rates {
		rate := &r.Rates[i]
		p := report.RoofPoint{Group: rate.Level, PerByte: rate.FLOPs / rate.Bytes, Second: rate.FLOPs / rate.Seconds}
		switch {
		case rate.Kernel == "matmul":
			p.Group = "matrix products"
			if p.PerByte > 1 && (strings.Contains(rate.Case, "1024x") || strings.Contains(rate.Case, "2048")) {
				p.Name = rate.Case // those of other batches and the vectors would hide each other
			}
		case rate.Level == r.Ceiling.Bandwidths[0].Level:
			p.Name = rate.Kernel
		}
		d.Points = append(d.Points, p)
	}
	return d
}

func (r *benchKernelsResult) print(w io.Writer) error {
	fmt.Fprintf(w, "%s on %s\n\n", r.Backend, r.CPU.Name)
	head := []string{"threads", "multiply-adds GFLOP/s"}
	for _, b := range r.Ceiling.Bandwidths {
		head = append(head, fmt.Sprintf("%s (%s) GB/s", b.Level, progress.Bytes(int64(b.Working))))
	}
	t := newTable(append(head, "rows at random GB/s", "round trip ns")...)
	for _, c := range []*cpu.Ceiling{&r.Ceiling, &r.All} {
		cells := []string{fmt.Sprint(c.Threads), fmt.Sprintf("%.1f", c.FLOPs/1e9)}
		for _, b := range c.Bandwidths {
			cells = append(cells, fmt.Sprintf("%.1f", b.Bytes/1e9))
		}
		cells = append(cells, fmt.Sprintf("%.1f", c.Random/1e9))
		if c.RoundTrip > 0 {
			cells = append(cells, fmt.Sprintf("%.0f", c.RoundTrip*1e9))
		}
		t.add(cells...)
	}
	if err := t.write(w); err != nil {
		return err
	}
	fmt.Fprintln(w)
	t = newTable("kernel", "case", "in", "us", "GFLOP/s", "GB/s", "share", "of")
	for i := range r.Rates {
		rate := &r.Rates[i]
		s, of := share(&r.Ceiling, rate)
		flops := "-"
		if rate.FLOPs > 0 {
			flops = fmt.Sprintf("%.1f", rate.FLOPs/rate.Seconds/1e9)
		}
		t.add(rate.Kernel, rate.Case, rate.Level, fmt.Sprintf("%.2f", rate.Seconds*1e6), flops,
			fmt.Sprintf("%.1f", rate.Bytes/rate.Seconds/1e9), fmt.Sprintf("%.0f%%", 100*s), of)
	}
	if err := t.write(w); err != nil {
		return err
	}
	if len(r.Missing) > 0 {
		fmt.Fprintf(w, "\nnot measured: %s\n", strings.Join(r.Missing, ", "))
	}
	if len(r.Instructions) > 0 {
		fmt.Fprintln(w)
		return printInstructions(w, r.Instructions)
	}
	return nil
}
