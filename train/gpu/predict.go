package gpu

import (
	"fmt"
	"io"
	"strings"

	"github.com/onmart/onmart/cuda"
	"github.com/onmart/onmart/cuda/kernels"
	"github.com/onmart/onmart/train/program"
)

// Prediction is what a training would ask of a device that is not there: counted from the plan of a step, not measured.
// Seconds come from a simple model: an op takes what kernels.Cost says that it takes alone, plus the start of its launches; ops
// on several lanes overlap as far as the device has bandwidth and arithmetic for them.
type Prediction struct {
	Device         string        `json:"device"`
	Rows           int           `json:"rows"` // of a step
	Launches       int           `json:"launches"`
	Bytes          int64         `json:"bytes"`
	FLOPs          int64         `json:"flops"`
	StepSeconds    float64       `json:"predicted_step_seconds"`
	RowsPerSecond  float64       `json:"predicted_rows_per_second"`
	LaunchSeconds  float64       `json:"predicted_launch_seconds"` // of the step: what starting kernels takes on the longest way through
	MemoryBytes    int64         `json:"memory_bytes"`             // tensors, schedule, a step's temps and resident columns
	InstructionsIn int           `json:"instructions"`
	Works          []PredictedOp `json:"works"`
}

// PredictedOp is one op of a step.
type PredictedOp struct {
	Kernel       string  `json:"kernel"`
	Instructions []int   `json:"instructions"`
	Lane         int     `json:"lane"`
	Launches     int     `json:"launches"`
	Blocks       int     `json:"blocks"`
	Bytes        int64   `json:"bytes"`
	FLOPs        int64   `json:"flops"`
	Seconds      float64 `json:"predicted_seconds"`
}

// reached is the share of the peak of float32 that all ops together are taken to reach at most. It is a guess from published
// kernels of this kind, not a measurement.
const reached = 0.6

// Predict plans a step of the set on paper for a device of that tuning. Of the data, the columns' widths and rows and the
// schedule are looked at, not the values.
func Predict(s *program.Set, d program.Data, t *kernels.Tuning) (*Prediction, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if s.Train == nil {
		return nil, fmt.Errorf("gpu: predict: the set has no training program")
	}
	if err := Lacks(s); err != nil {
		return nil, fmt.Errorf("gpu: predict: %w", err)
	}
	mem := newPaper()
	g := &ground{tuning: t, take: mem.take, tensor: map[string]span{}, names: s.Slots, powers: map[float64]cuda.DevicePtr{},
		columns: map[string]column{}, seed: d.Seed, train: d.Train, batch: s.Train.Rows}
	held := s.Holds()
	for i := range held {
		n := tensorBytes(&held[i])
		at := mem.take(n)
		g.tensor[held[i].Name] = span{at, at + cuda.DevicePtr(n)}
	}
	g.slots, g.state = mem.take(int64(8*len(s.Slots))), mem.take(kernels.StateBytes)
	g.rates = mem.take(int64(4 * len(d.Rates)))
	for _, beta := range powersOf(s) {
		g.powers[beta] = mem.take(int64(4 * len(d.Rates)))
	}
	for _, c := range d.Columns {
		g.columns[c.Name] = column{mem.take(int64(4 * c.Rows * c.Width)), c.Width}
	}
	p := newPlan(g, s.Train, s.Train.Rows)
	out := &Prediction{Device: t.Name, Rows: s.Train.Rows, InstructionsIn: len(s.Train.Instrs)}
	out.price(p, t)
	out.MemoryBytes = mem.taken()
	return out, nil
}

// price fills in the works and their times.
func (r *Prediction) price(p *plan, t *kernels.Tuning) {
	seats := seats(p.works, laneCount)
	ends, launching := make([]float64, len(p.works)), make([]float64, len(p.works))
	var free [laneCount]int // by lane: 1 + its latest work
	var longest, starting float64
	for i, w := range p.works {
		c := w.op.Cost(t)
		e := PredictedOp{Kernel: w.op.Kernel(), Instructions: w.instrs, Lane: seats[i].lane, Launches: c.Launches, Blocks: c.Blocks, Bytes: c.Bytes, FLOPs: c.FLOPs}
		start := t.LaunchSeconds * float64(c.Launches)
		e.Seconds = start + c.Seconds
		var begin, began float64
		after := func(j int) {
			if ends[j] > begin {
				begin, began = ends[j], launching[j]
			}
		}
		if l := free[seats[i].lane]; l > 0 {
			after(l - 1)
		}
		for _, d := range seats[i].waits {
			after(d)
		}
		free[seats[i].lane] = i + 1
		ends[i], launching[i] = begin+e.Seconds, began+start
		if ends[i] > longest {
			longest, starting = ends[i], launching[i]
		}
		r.Launches, r.Bytes, r.FLOPs = r.Launches+c.Launches, r.Bytes+c.Bytes, r.FLOPs+c.FLOPs
		r.Works = append(r.Works, e)
	}
	r.LaunchSeconds = starting
	r.StepSeconds = max(longest, float64(r.Bytes)/t.Bandwidth, float64(r.FLOPs)/(t.FLOPs*reached))
	r.RowsPerSecond = float64(r.Rows) / r.StepSeconds
}

// Print writes the prediction for people, one op a line.
func (r *Prediction) Print(w io.Writer) error {
	var s strings.Builder
	fmt.Fprintf(&s, "a step of %d rows on %s, predicted from its plan and not measured:\n", r.Rows, r.Device)
	fmt.Fprintf(&s, "  %d instructions become %d ops in %d launches, %s of memory traffic, %.1f MFLOP; weights, a step and the data take %s, evaluation as much as 64 MiB more\n",
		r.InstructionsIn, len(r.Works), r.Launches, size(r.Bytes), float64(r.FLOPs)/1e6, size(r.MemoryBytes))
	fmt.Fprintf(&s, "  predicted: %.0f us a step, of which %.0f us start kernels, so %.2fM rows/s\n\n", r.StepSeconds*1e6, r.LaunchSeconds*1e6, r.RowsPerSecond/1e6)
	fmt.Fprintf(&s, "%4s  %6s  %8s  %8s  %9s  %-34s %s\n", "lane", "blocks", "KB", "MFLOP", "us (pred)", "kernel", "instructions")
	for _, e := range r.Works {
		fmt.Fprintf(&s, "%4d  %6d  %8.1f  %8.3f  %9.1f  %-34s %s\n", e.Lane, e.Blocks, float64(e.Bytes)/1e3, float64(e.FLOPs)/1e6, e.Seconds*1e6, e.Kernel, ids(e.Instructions))
	}
	_, err := io.WriteString(w, s.String())
	return err
}

// ids are instruction numbers, the first few of many.
func ids(in []int) string {
	const most = 6
	text := strings.Trim(fmt.Sprint(in[:min(len(in), most)]), "[]")
	if len(in) > most {
		text += fmt.Sprintf(" and %d more", len(in)-most)
	}
	return text
}
