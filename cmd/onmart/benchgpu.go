package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/cuda"
	"github.com/onmart/onmart/cuda/kernels"
	"github.com/onmart/onmart/internal/atomicdir"
	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/gpu"
	"github.com/onmart/onmart/train/program"
)

// benchGPUFlags are the flags of bench gpu.
type benchGPUFlags struct {
	device deviceFlags
	out    string
	steps  int
	repeat int
	only   string
}

func newBenchGPUCmd() *cobra.Command {
	f := benchGPUFlags{device: deviceFlags{name: "cuda"}}
	cmd := &cobra.Command{
		Use:   "gpu",
		Short: "Parity and speed of every program on a GPU, beside the processor",
		Long: `bench gpu checks every kernel against its reference on the processor, trains every program for --steps steps on the
processor and on the GPU, and compares the losses; then it times both, as the median of --repeat runs. --out writes
everything, with the device's description, to one JSON file that can be sent to others.

Programs: the default networks of train fraud (batch 256), train recommend and train demand (batch 512); a softmax over
20,000 items and 1,024 negatives (batch 1,024); nine quantiles of 28 days (batch 512); and the networks 32-128-128-1 and
15-500-1 (batches of 1,024 and 8,192); all on generated rows. On the emulator the times say nothing about a GPU, and the file says so.`,
		Args: cobra.NoArgs,
	}
	fl := cmd.Flags()
	fl.StringVar(&f.device.name, "device", f.device.name, "cuda[:N]")
	fl.StringVar(&f.device.memory, "gpu-memory", "", "`size` that may be taken of the GPU's memory, such as 4GiB (default nine tenths of what is free)")
	fl.StringVar(&f.out, "out", "", "JSON `file` to write")
	fl.IntVar(&f.steps, "steps", 200, "steps that losses are compared over")
	fl.IntVar(&f.repeat, "repeat", 5, "timed runs of each program, half a second or longer each")
	fl.StringVar(&f.only, "program", "", "only the program of this `name`")
	force := addForce(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runBenchGPU(cmd, &f, *force) }
	return cmd
}

// benchGPUResult is the file.
type benchGPUResult struct {
	Onmart   string                `json:"onmart"`
	Time     string                `json:"time"`
	CPU      cpuReport             `json:"cpu"`
	CUDA     cuda.Report           `json:"cuda"`
	Backend  string                `json:"backend"`
	Tuning   string                `json:"tuning"`
	Emulated bool                  `json:"emulated"` // times say nothing about a GPU
	Kernels  []kernels.CheckResult `json:"kernels"`
	Programs []programResult       `json:"programs"`
	OK       bool                  `json:"ok"`              // every kernel and program is within its tolerance
	Error    string                `json:"error,omitempty"` // what ended the check of the kernels
}

// programResult is one program on both machines.
type programResult struct {
	Name  string `json:"name"`
	Batch int    `json:"batch"`
	Steps int    `json:"steps"`
	// LossError is the greatest difference between the mean losses of the two after any step, relative to the CPU's.
	LossError float64 `json:"loss_error"`
	Tolerance float64 `json:"tolerance"`
	OK        bool    `json:"ok"`
	// FinalLoss is the loss of the last step, on the CPU and on the GPU.
	FinalLoss [2]float64 `json:"final_loss"`
	// Repeats tells whether two trainings on the GPU gave the same bits.
	Repeats       bool    `json:"same_bits_twice"`
	CPURate       float64 `json:"cpu_rows_per_second"`
	GPURate       float64 `json:"gpu_rows_per_second"`
	Ratio         float64 `json:"gpu_to_cpu"`
	PredictedRate float64 `json:"predicted_rows_per_second"` // by the tuning's description of the card, not measured
	Error         string  `json:"error,omitempty"`           // what ended it; the rest is 0 then
}

// lossTolerance is how far the losses of a training on the GPU may be from the CPU's, relative: sums of gradients are cut
// differently, and a training carries a difference of 1e-7 on. On the CPU alone, a third of the first weights of
// mlp-32-128-128-1-b8192 moved by one unit in the last place made 8e-5 of it in 200 steps; an H100 was 9e-5 off.
const lossTolerance = 1e-3

func runBenchGPU(cmd *cobra.Command, f *benchGPUFlags, force bool) error {
	con, ctx := consoleOf(cmd), cmd.Context()
	faults := f.device.check()
	if f.device.name == "auto" || f.device.name == "cpu" || f.device.paper() {
		faults = append(faults, fmt.Errorf("--device %s: want cuda[:N]", f.device.name))
	}
	if f.steps < 1 || f.repeat < 1 {
		faults = append(faults, fmt.Errorf("--steps %d, --repeat %d: want 1 or more", f.steps, f.repeat))
	}
	if f.out != "" && !force {
		if _, err := os.Stat(f.out); err == nil {
			faults = append(faults, fmt.Errorf("--out %s exists: give --force to replace it", f.out))
		}
	}
	programs := benchPrograms()
	if f.only != "" {
		programs = slices.DeleteFunc(programs, func(p benchProgram) bool { return p.name != f.only })
		if len(programs) == 0 {
			faults = append(faults, fmt.Errorf("--program %s: there are %s", f.only, programNames()))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return usage(err)
	}
	r, err := f.measure(ctx, con, programs)
	if err != nil {
		return err
	}
	if f.out != "" {
		text, err := json.MarshalIndent(r, "", "  ")
		if err != nil {
			return err
		}
		if err := atomicdir.WriteFile(f.out, append(text, '\n'), force); err != nil {
			return err
		}
	}
	if err := con.result(r, r.print); err != nil {
		return err
	}
	if !r.OK {
		return errors.New("a kernel or a program is outside its tolerance: the lines that say NO")
	}
	return nil
}

func (f *benchGPUFlags) measure(ctx context.Context, con *console, programs []benchProgram) (*benchGPUResult, error) {
	backend, closeBackend, err := openBackend(con, f.device, nil)
	if err != nil {
		return nil, err
	}
	defer giveBack(con, closeBackend)
	g := backend.(*gpu.Backend) // --device names a GPU
	reference, err := cpu.New(cpu.Options{})
	if err != nil {
		return nil, err
	}
	r := &benchGPUResult{Onmart: buildVersion(), Time: time.Now().UTC().Format(time.RFC3339), CUDA: cuda.Probe(cuda.Options{}),
		Backend: g.Name(), Tuning: g.Kernels().Tuning().Name, Emulated: g.Device.Info().Emulated(), OK: true}
	if r.CPU, err = describeCPU(); err != nil {
		return nil, err
	}
	if r.Kernels, err = checkKernels(g, !r.Emulated); err != nil {
		r.OK, r.Error = false, err.Error()
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for _, k := range r.Kernels {
		r.OK = r.OK && k.OK
	}
	for _, p := range programs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		con.notef("%s, batch %d", p.name, p.batch)
		one, err := p.compare(ctx, reference, g, f.steps, f.repeat)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil { // a card that fails is worth a report
			one = &programResult{Name: p.name, Batch: p.batch, Steps: f.steps, Tolerance: lossTolerance, Error: err.Error()}
		}
		r.Programs = append(r.Programs, *one)
		r.OK = r.OK && one.OK
	}
	return r, nil
}

// checkKernels runs every kernel against its reference.
func checkKernels(b *gpu.Backend, timed bool) (out []kernels.CheckResult, err error) {
	err = b.Device.Do(func() error {
		out, err = kernels.Check(b.Device, b.Kernels(), kernels.CheckOptions{Oracle: gpu.Oracle(), Time: timed})
		return err
	})
	return out, err
}

// timedLeast is how long a timed run lasts at least: steps take some 50 us, and a clock needs some tenths of a second to settle.
const timedLeast = 500 * time.Millisecond

// compare trains the program on both backends.
func (p *benchProgram) compare(ctx context.Context, reference *cpu.Backend, g *gpu.Backend, steps, repeat int) (*programResult, error) {
	rows := max(4*p.batch, 1<<14)
	set, err := p.compile(rows)
	if err != nil {
		return nil, err
	}
	d := p.data(rows, 2*steps)
	r := &programResult{Name: p.name, Batch: p.batch, Steps: steps, Tolerance: lossTolerance}
	least := timedLeast
	if g.Device.Info().Emulated() {
		least = 0
	}
	onCPU, cpuRate, _, err := p.trainSteps(ctx, reference, set, d, steps, repeat, least)
	if err != nil {
		return nil, err
	}
	onGPU, gpuRate, weights, err := p.trainSteps(ctx, g, set, d, steps, repeat, least)
	if err != nil {
		return nil, err
	}
	_, _, again, err := p.trainSteps(ctx, g, set, d, steps, 0, 0)
	if err != nil {
		return nil, err
	}
	r.Repeats = slices.EqualFunc(weights, again, func(a, b program.Tensor) bool { return slices.Equal(a.F32, b.F32) })
	for i := range onCPU {
		e := math.Abs(onGPU[i]-onCPU[i]) / onCPU[i]
		if math.IsNaN(e) || math.IsInf(e, 0) {
			e = math.MaxFloat64 // which JSON can hold
		}
		r.LossError = max(r.LossError, e)
	}
	r.FinalLoss = [2]float64{onCPU[steps-1], onGPU[steps-1]}
	r.OK = r.LossError <= r.Tolerance && r.Repeats
	r.CPURate, r.GPURate, r.Ratio = cpuRate, gpuRate, gpuRate/cpuRate
	prediction, err := gpu.Predict(set, d, g.Kernels().Tuning())
	if err != nil {
		return nil, err
	}
	r.PredictedRate = prediction.RowsPerSecond
	return r, nil
}

// trainSteps trains from the same start: the mean loss of each of the first steps, the weights after them, and the median rate
// of further runs, each of as many steps as often as it takes to last least; one of them first, not counted, brings the
// clocks of an idle card up.
func (p *benchProgram) trainSteps(ctx context.Context, b program.Backend, set *program.Set, d program.Data, steps, repeat int, least time.Duration) (losses []float64, rate float64, weights program.Tensors, err error) {
	e, err := b.Compile(set)
	if err != nil {
		return nil, 0, nil, err
	}
	defer e.Close()
	if err := errors.Join(e.Bind(d), e.Import(p.initial(set, d.Seed))); err != nil {
		return nil, 0, nil, err
	}
	loss, rows := slices.Index(set.Slots, "loss"), slices.Index(set.Slots, "rows")
	for s := range steps {
		if err := ctx.Err(); err != nil {
			return nil, 0, nil, err
		}
		slots := make([]float64, len(set.Slots))
		if err := e.Run(s, 1, slots); err != nil {
			return nil, 0, nil, err
		}
		losses = append(losses, slots[loss]/slots[rows])
	}
	if weights, err = e.Export(); err != nil {
		return nil, 0, nil, err
	}
	var rates []float64
	for i := range repeat + 1 {
		if i == 0 && least == 0 || repeat == 0 {
			continue // nothing to warm up
		}
		slots := make([]float64, len(set.Slots))
		start := time.Now()
		for time.Since(start) < least || slots[rows] == 0 {
			if err := ctx.Err(); err != nil {
				return nil, 0, nil, err
			}
			if err := e.Run(steps, steps, slots); err != nil {
				return nil, 0, nil, err
			}
		}
		if i > 0 {
			rates = append(rates, slots[rows]/time.Since(start).Seconds())
		}
	}
	if len(rates) > 0 {
		rate = spreadOf(rates).Median
	}
	return losses, rate, weights, nil
}

func yes(ok bool) string {
	if ok {
		return "yes"
	}
	return "NO"
}

func (r *benchGPUResult) print(w io.Writer) error {
	fmt.Fprintf(w, "%s, kernels tuned for %s, beside %s on %d threads\n", r.Backend, r.Tuning, r.CPU.Path, runtime.GOMAXPROCS(0))
	if r.Emulated {
		fmt.Fprintln(w, "emulated on the processor: results are those of the kernels, times say nothing about a GPU")
	}
	fmt.Fprintln(w)
	if err := printKernels(w, r.Kernels); err != nil {
		return err
	}
	fmt.Fprintln(w)
	t := newTable("program", "within", "loss error", "same bits twice", "CPU rows/s", "GPU rows/s", "ratio", "predicted rows/s")
	if r.Error != "" {
		fmt.Fprintf(w, "the check of the kernels ended early: %s\n\n", r.Error)
	}
	for _, p := range r.Programs {
		if p.Error != "" {
			t.add(p.Name, "NO")
			continue
		}
		t.add(p.Name, yes(p.OK), fmt.Sprintf("%.1e", p.LossError), yes(p.Repeats), fmt.Sprintf("%.0f", p.CPURate), fmt.Sprintf("%.0f", p.GPURate),
			fmt.Sprintf("%.2f", p.Ratio), fmt.Sprintf("%.0f", p.PredictedRate))
	}
	err := t.write(w)
	for _, p := range r.Programs {
		if p.Error != "" {
			fmt.Fprintf(w, "%s: %s\n", p.Name, p.Error)
		}
	}
	return err
}

// printKernels is the table of kernels: one line a kernel with its worst case, one for each case that is outside, and the timings.
func printKernels(w io.Writer, results []kernels.CheckResult) error {
	t := newTable("kernel", "cases", "within", "error (ulp)", "tolerance")
	speeds := newTable("kernel", "at", "us", "GFLOP/s", "GB/s")
	lines := map[string]*kernels.CheckResult{}
	var order []*kernels.CheckResult
	for _, k := range results {
		if k.Seconds > 0 {
			speeds.add(k.Kernel, strings.TrimPrefix(k.Case, "time of "), fmt.Sprintf("%.1f", k.Seconds*1e6), fmt.Sprintf("%.0f", k.GFLOPs), fmt.Sprintf("%.0f", k.GBs))
			if k.Cases == 0 {
				continue
			}
		}
		name := k.Kernel
		if !k.OK {
			name += ": " + k.Case
		}
		line := lines[name]
		if line == nil {
			line = &kernels.CheckResult{Kernel: name, OK: true}
			lines[name], order = line, append(order, line)
		}
		line.Cases += k.Cases
		line.OK = line.OK && k.OK
		line.Error, line.Tolerance = max(line.Error, k.Error), max(line.Tolerance, k.Tolerance)
	}
	for _, k := range order {
		t.add(k.Kernel, fmt.Sprint(k.Cases), yes(k.OK), fmt.Sprintf("%g", k.Error), fmt.Sprintf("%g", k.Tolerance))
	}
	if err := t.write(w); err != nil || len(speeds.rows) == 1 {
		return err
	}
	fmt.Fprintln(w)
	return speeds.write(w)
}
