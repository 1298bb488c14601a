package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/program"
)

// benchInferFlags are the flags of bench infer.
type benchInferFlags struct {
	threads int
	rounds  int
	seconds float64
	single  int
	only    string
}

func newBenchInferCmd() *cobra.Command {
	var f benchInferFlags
	cmd := &cobra.Command{
		Use:   "infer",
		Short: "Latency of one row and rate of batches on the processor",
		Long: `bench infer runs the forward passes of 32-128-128-1 and 15-500-1 with a sigmoid behind them, as a scorer does:
float32 in, a probability out. It prints the median and the 99th percentile of a call with one row, both with the two
readings of the clock around it, and the median of --rounds timed runs of calls with 1,024 rows, on one thread and on
--threads.

docs/bench/infer_peers.py runs it beside other systems.`,
		Args: cobra.NoArgs,
	}
	fl := cmd.Flags()
	fl.IntVar(&f.threads, "threads", 0, "threads of the batches (default one a core)")
	fl.IntVar(&f.rounds, "rounds", 7, "timed runs")
	fl.Float64Var(&f.seconds, "seconds", .1, "length of a timed run")
	fl.IntVar(&f.single, "single", 20_000, "calls with one row")
	fl.StringVar(&f.only, "case", "", "only the network of this `name`, 32-128-128-1 or 15-500-1")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runBenchInfer(cmd, &f) }
	return cmd
}

// benchInferResult is what it prints.
type benchInferResult struct {
	Backend string      `json:"backend"`
	Threads int         `json:"threads"`
	Cases   []inferCase `json:"cases"`
}

// inferCase is one network.
type inferCase struct {
	Name   string  `json:"name"`
	P50    float64 `json:"single_p50_us"`
	P99    float64 `json:"single_p99_us"`
	One    spread  `json:"batch1024_rows_per_second"`          // on one thread
	Many   spread  `json:"batch1024_parallel_rows_per_second"` // on --threads
	Allocs float64 `json:"allocs_a_call"`                      // of one row
}

// inferBatch is the rows of a batch.
const inferBatch = 1024

func runBenchInfer(cmd *cobra.Command, f *benchInferFlags) error {
	con, ctx := consoleOf(cmd), cmd.Context()
	threads, err := threadCount(f.threads)
	if err != nil {
		return err
	}
	f.threads = threads
	if f.rounds < 1 || !(f.seconds > 0) || f.single < 100 {
		return usagef("--rounds %d, --seconds %g, --single %d: want 1 or more, above 0, 100 or more", f.rounds, f.seconds, f.single)
	}
	backend, err := cpu.New(cpu.Options{})
	if err != nil {
		return err
	}
	r := &benchInferResult{Backend: backend.Name(), Threads: threads}
	var names []string
	for _, widths := range mlpWidths() {
		p := mlpProgram(widths, inferBatch)
		name := p.name[len("mlp-") : len(p.name)-len("-b1024")]
		names = append(names, name)
		if f.only != "" && f.only != name {
			continue
		}
		c, err := f.measure(ctx, &p)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		c.Name = name
		r.Cases = append(r.Cases, *c)
	}
	if len(r.Cases) == 0 {
		return usagef("--case %s: there are %v", f.only, names)
	}
	return con.result(r, r.print)
}

// measure runs one network.
func (f *benchInferFlags) measure(ctx context.Context, p *benchProgram) (*inferCase, error) {
	set, err := p.compile(inferBatch)
	if err != nil {
		return nil, err
	}
	calibrated, err := program.WrapCalibrate(set.Forward)
	if err != nil {
		return nil, err
	}
	weights := append(set.Initial(1), program.Tensor{Name: program.CalibrateAB, DType: program.F64, Shape: []int{2}, F64: []float64{1, 0}})
	weights.Sort()
	forward, err := cpu.NewForward(calibrated, weights)
	if err != nil {
		return nil, err
	}
	d := p.data(inferBatch, 1)
	x := d.Columns[0].F32
	c := &inferCase{}
	if err := f.one(c, forward, x, d.Columns[0].Width); err != nil {
		return nil, err
	}
	if c.One, err = f.batch(ctx, forward, x, 1); err != nil {
		return nil, err
	}
	if c.Many, err = f.batch(ctx, forward, x, f.threads); err != nil {
		return nil, err
	}
	return c, nil
}

// one times calls with one row.
func (f *benchInferFlags) one(c *inferCase, forward *cpu.Forward, x []float32, width int) error {
	var out [1]float32
	in := make([][]float32, 1)
	call := func(i int) error {
		at := i % inferBatch * width
		in[0] = x[at : at+width]
		return forward.RunAllF32(in, 1, out[:])
	}
	for i := range 300 {
		if err := call(i); err != nil {
			return err
		}
	}
	times := make([]time.Duration, f.single)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range times {
		start := time.Now()
		if err := call(i); err != nil {
			return err
		}
		times[i] = time.Since(start)
	}
	runtime.ReadMemStats(&after)
	slices.Sort(times)
	at := func(q float64) float64 { return float64(times[int(q*float64(len(times)-1))].Nanoseconds()) / 1e3 }
	c.P50, c.P99 = at(.5), at(.99)
	c.Allocs = float64(after.Mallocs-before.Mallocs) / float64(f.single)
	return nil
}

// batch is rows a second of calls with all of x, on so many threads.
func (f *benchInferFlags) batch(ctx context.Context, forward *cpu.Forward, x []float32, threads int) (spread, error) {
	in, out := [][]float32{x}, make([]float32, inferBatch)
	if threads > 1 {
		forward = forward.Parallel(threads)
		defer forward.Close()
	}
	var rates []float64
	for round := range f.rounds + 1 {
		if err := ctx.Err(); err != nil {
			return spread{}, err
		}
		calls, start := 0, time.Now()
		for time.Since(start).Seconds() < f.seconds {
			if err := forward.RunAllF32(in, inferBatch, out); err != nil {
				return spread{}, err
			}
			calls++
		}
		if round > 0 { // the first warms up
			rates = append(rates, float64(calls*inferBatch)/time.Since(start).Seconds())
		}
	}
	return spreadOf(rates), nil
}

func (r *benchInferResult) print(w io.Writer) error {
	fmt.Fprintf(w, "%s, %d threads\n\n", r.Backend, r.Threads)
	t := newTable("network", "one row p50 us", "p99 us", "allocs a call", "1024 rows, 1 thread, rows/s",
		fmt.Sprintf("%d threads, rows/s", r.Threads))
	for _, c := range r.Cases {
		t.add(c.Name, fmt.Sprintf("%.2f", c.P50), fmt.Sprintf("%.2f", c.P99), fmt.Sprintf("%.2f", c.Allocs),
			fmt.Sprintf("%.0f", c.One.Median), fmt.Sprintf("%.0f", c.Many.Median))
	}
	return t.write(w)
}
