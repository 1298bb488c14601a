package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/internal/progress"
	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/program"
)

// benchTrainFlags are the flags of bench train.
type benchTrainFlags struct {
	cases         []string
	rows, threads int
	rounds        int
	seconds       float64
}

func newBenchTrainCmd() *cobra.Command {
	var f benchTrainFlags
	cmd := &cobra.Command{
		Use:   "train",
		Short: "Rows a second that networks train at on the processor",
		Long: `bench train builds networks as Gorgonia graphs, compiles them and trains them on the processor, on generated
rows in memory: 32-128-128-1 and 15-500-1 with ReLU, Adam and the cross-entropy of a logit, in batches of 64, 1,024
and 8,192. It prints for each the median of --rounds timed runs of --seconds, the multiply-adds that makes, what a step
allocates, the seconds from data in memory to the end of the first step, and the memory of the process at its largest
beside what was planned: data, parameters, optimizer state and activations.

docs/bench/train_peers.py runs it beside other systems.`,
		Args: cobra.NoArgs,
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&f.cases, "case", nil, "only the network of this `name`, such as mlp-32-128-128-1-b64 or a program "+
		"of bench gpu; may be repeated")
	fl.IntVar(&f.rows, "rows", 1<<16, "rows of data")
	fl.IntVar(&f.threads, "threads", 0, "threads (default one a core)")
	fl.IntVar(&f.rounds, "rounds", 7, "timed runs")
	fl.Float64Var(&f.seconds, "seconds", .15, "length of a timed run")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runBenchTrain(cmd, &f) }
	return cmd
}

// benchTrainResult is what it prints.
type benchTrainResult struct {
	Backend string `json:"backend"`
	Threads int    `json:"threads"`
	Rows    int    `json:"rows"`
	// RoundTrip is the nanoseconds from one core to another and back, before and after: see cpu.Ceiling.
	RoundTrip [2]float64  `json:"round_trip_ns"`
	Cases     []trainCase `json:"cases"`
}

// trainCase is one network.
type trainCase struct {
	Name   string  `json:"name"`
	Batch  int     `json:"batch"`
	Rate   spread  `json:"rows_per_second"`
	Step   float64 `json:"step_ms"`       // the median
	GFLOPs float64 `json:"gflops"`        // of the matrix products of a step, at the median
	Allocs float64 `json:"allocs_a_step"` // in all timed runs
	First  float64 `json:"first_step_seconds"`
	Loss   float64 `json:"loss"` // mean of the last timed run
	memoryUse
}

// memoryUse is memory as planned and as taken, in bytes.
type memoryUse struct {
	Data        int64 `json:"data_bytes"`
	Params      int64 `json:"parameters_bytes"`
	State       int64 `json:"state_bytes"` // of the optimizer
	Activations int64 `json:"activations_bytes"`
	// Own is the resident memory of the process before there was any data, 0 where the system does not say.
	Own int64 `json:"own_rss_bytes"`
	// Peak is the largest resident memory from then on, after the first step and the timed runs, 0 where unknown.
	Peak int64 `json:"peak_rss_bytes"`
	// Ratio is (Peak - Own) to the sum of the first four.
	Ratio float64 `json:"memory_ratio"`
}

func (m *memoryUse) planned() int64 { return m.Data + m.Params + m.State + m.Activations }

// mlpPrograms are the six networks of bench train and bench infer.
func mlpPrograms() []benchProgram {
	var out []benchProgram
	for _, widths := range mlpWidths() {
		for _, batch := range []int{64, 1024, 8192} {
			out = append(out, mlpProgram(widths, batch))
		}
	}
	return out
}

// chosen are the programs of those names, or the six.
func (f *benchTrainFlags) chosen() ([]benchProgram, error) {
	six := mlpPrograms()
	if len(f.cases) == 0 {
		return six, nil
	}
	all := append(six, benchPrograms()...)
	var out []benchProgram
	for _, name := range f.cases {
		i := slices.IndexFunc(all, func(p benchProgram) bool { return p.name == name })
		if i < 0 {
			var names []string
			for _, p := range all {
				names = append(names, p.name)
			}
			slices.Sort(names)
			return nil, usagef("--case %s: there are %v", name, slices.Compact(names))
		}
		out = append(out, all[i])
	}
	return out, nil
}

func runBenchTrain(cmd *cobra.Command, f *benchTrainFlags) error {
	con, ctx := consoleOf(cmd), cmd.Context()
	threads, err := threadCount(f.threads)
	if err != nil {
		return err
	}
	programs, err := f.chosen()
	if err != nil {
		return err
	}
	if f.rounds < 1 || !(f.seconds > 0) || f.rows < 2 {
		return usagef("--rounds %d, --seconds %g, --rows %d: want 1 or more, above 0, 2 or more", f.rounds, f.seconds, f.rows)
	}
	backend, err := cpu.New(cpu.Options{Threads: threads})
	if err != nil {
		return err
	}
	r := &benchTrainResult{Backend: backend.Name(), Threads: threads, Rows: f.rows}
	r.RoundTrip[0] = cpu.RoundTrip() * 1e9
	for i := range programs {
		p := &programs[i]
		if p.batch > f.rows {
			return usagef("--rows %d: %s has batches of %d", f.rows, p.name, p.batch)
		}
		c, err := f.measure(ctx, backend, p)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		r.Cases = append(r.Cases, *c)
	}
	r.RoundTrip[1] = cpu.RoundTrip() * 1e9
	return con.result(r, r.print)
}

// measure trains one network.
func (f *benchTrainFlags) measure(ctx context.Context, backend *cpu.Backend, p *benchProgram) (*trainCase, error) {
	debug.FreeOSMemory() // what the case before has left
	c := &trainCase{Name: p.name, Batch: p.batch}
	c.Own, _ = residentMemory()
	d := p.data(f.rows, 1)
	for i := range d.Columns {
		c.Data += int64(4 * len(d.Columns[i].F32))
	}
	resetPeak()

	start := time.Now()
	set, err := p.compile(f.rows)
	if err != nil {
		return nil, err
	}
	e, err := backend.Compile(set)
	if err != nil {
		return nil, err
	}
	defer e.Close()
	if err := errors.Join(e.Bind(d), e.Import(p.initial(set, d.Seed))); err != nil {
		return nil, err
	}
	slots := make([]float64, len(set.Slots))
	if err := e.Run(0, 1, slots); err != nil {
		return nil, err
	}
	c.First = time.Since(start).Seconds()

	c.plan(set)
	d.Rates = slices.Repeat(d.Rates, max(1, min(1<<16, d.StepsPerEpoch(p.batch)))) // one epoch, again and again
	if err := e.Bind(d); err != nil {
		return nil, err
	}
	if err := f.time(ctx, c, e, set, len(d.Rates)); err != nil {
		return nil, err
	}
	if _, c.Peak = residentMemory(); c.Peak > 0 {
		c.Ratio = float64(c.Peak-c.Own) / float64(c.planned())
	}
	return c, nil
}

// time runs steps for f.seconds, f.rounds times, after one run that is not counted.
func (f *benchTrainFlags) time(ctx context.Context, c *trainCase, e program.Exec, set *program.Set, epoch int) error {
	loss, rows := slices.Index(set.Slots, "loss"), slices.Index(set.Slots, "rows")
	slots := make([]float64, len(set.Slots))
	at := 0
	// run does n steps in runs that end with the epoch.
	run := func(n int) error {
		for n > 0 {
			k := min(n, epoch-at)
			if err := e.Run(at, k, slots); err != nil {
				return err
			}
			at, n = (at+k)%epoch, n-k
		}
		return nil
	}
	// As many steps as take about a fiftieth of a timed run, at least one.
	chunk := 1
	for start := time.Now(); ; chunk *= 2 {
		t := time.Now()
		if err := run(chunk); err != nil {
			return err
		}
		if time.Since(t).Seconds() > f.seconds/50 && time.Since(start).Seconds() > f.seconds/2 {
			break
		}
	}
	var rates []float64
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	steps := 0
	for range f.rounds {
		if err := ctx.Err(); err != nil {
			return err
		}
		clear(slots)
		start := time.Now()
		for time.Since(start).Seconds() < f.seconds {
			if err := run(chunk); err != nil {
				return err
			}
			steps += chunk
		}
		rates = append(rates, slots[rows]/time.Since(start).Seconds())
	}
	runtime.ReadMemStats(&after)
	c.Allocs = float64(after.Mallocs-before.Mallocs) / float64(steps)
	c.Rate, c.Loss = spreadOf(rates), slots[loss]/slots[rows]
	c.Step = 1e3 * float64(c.Batch) / c.Rate.Median
	c.GFLOPs = 2 * float64(productMACs(set.Train)) / float64(c.Batch) * c.Rate.Median / 1e9
	return nil
}

// productMACs is the multiply-adds of the matrix products of a program.
func productMACs(p *program.Program) int64 {
	var n int64
	for _, in := range p.Instrs {
		if in.Op != program.MatMul {
			continue
		}
		a, y := &p.Buffers[in.Args[0]], &p.Buffers[in.Outs[0]]
		k := a.Shape[1]
		if in.Attr.TransA {
			k = a.Shape[0]
		}
		n += int64(y.Len()) * int64(k)
	}
	return n
}

// plan adds up what the set says it needs: tensors, and for each program its arena, its inputs and its output.
func (m *memoryUse) plan(set *program.Set) {
	size := func(specs []program.TensorSpec) (n int64) {
		for _, s := range specs {
			b := program.Buffer{Shape: s.Shape}
			n += int64(4 * b.Len())
		}
		return n
	}
	m.Params, m.State = size(set.Params), size(set.State)
	for _, p := range []*program.Program{set.Train, set.Rest, set.Forward} {
		if p == nil {
			continue
		}
		m.Activations += int64(p.Arena)
		for i := range p.Buffers {
			if b := &p.Buffers[i]; b.Kind == program.Input || b.Kind == program.Output {
				m.Activations += int64(b.Len() * b.DType.Size())
			}
		}
	}
}

// residentMemory is the memory of this process that is in use and the most that was since resetPeak, in bytes; 0 where
// the system has no /proc.
func residentMemory() (now, peak int64) {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, 0
	}
	field := func(name string) int64 {
		_, rest, _ := bytes.Cut(text, []byte("\n"+name+":"))
		number, _, _ := bytes.Cut(bytes.TrimSpace(rest), []byte(" "))
		kib, _ := strconv.ParseInt(string(number), 10, 64)
		return kib << 10
	}
	return field("VmRSS"), field("VmHWM")
}

// resetPeak begins the measurement of the peak anew, on Linux. Where it is refused the peak is that of the whole process,
// which is no less.
func resetPeak() { _ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0o200) }

func (r *benchTrainResult) print(w io.Writer) error {
	fmt.Fprintf(w, "%s, %d threads, %s rows; %.0f and %.0f ns between two cores and back\n\n", r.Backend, r.Threads,
		progress.Count(int64(r.Rows)), r.RoundTrip[0], r.RoundTrip[1])
	t := newTable("network", "batch", "rows/s", "least", "greatest", "ms a step", "GFLOP/s", "allocs a step", "first step s",
		"peak MiB", "planned MiB", "ratio")
	mib := func(b int64) string { return fmt.Sprintf("%.1f", float64(b)/(1<<20)) }
	for _, c := range r.Cases {
		t.add(c.Name, fmt.Sprint(c.Batch), fmt.Sprintf("%.0f", c.Rate.Median), fmt.Sprintf("%.0f", c.Rate.Min),
			fmt.Sprintf("%.0f", c.Rate.Max), fmt.Sprintf("%.4f", c.Step), fmt.Sprintf("%.1f", c.GFLOPs),
			fmt.Sprintf("%.2f", c.Allocs), fmt.Sprintf("%.3f", c.First), mib(c.Peak), mib(c.planned()),
			fmt.Sprintf("%.2f", c.Ratio))
	}
	return t.write(w)
}
