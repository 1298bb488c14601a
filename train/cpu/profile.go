package cpu

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/onmart/onmart/train/program"
)

// Profile is where the time of a training step goes on this machine, measured.
type Profile struct {
	Backend string `json:"backend"`
	Rows    int    `json:"rows"` // of a step
	Threads int    `json:"threads"`
	Steps   int    `json:"steps"` // that were measured
	// StepSeconds is the time of a step, the sum of the medians of its parts: of Lines, of WaitSeconds, in which the
	// first thread waited for others, and of RestSeconds between two steps.
	StepSeconds float64 `json:"step_seconds"`
	WaitSeconds float64 `json:"wait_seconds"`
	RestSeconds float64 `json:"rest_seconds"`
	// PeakGFLOPS and PeakGBs are the Ceiling of one thread, measured just before and after: of multiply-adds, 0 on the
	// portable path, and of memory.
	PeakGFLOPS float64 `json:"peak_gflops"`
	PeakGBs    float64 `json:"peak_gb_s"`
	// HeldBytes is the memory that weights, optimizer state and a step take, without the data.
	HeldBytes int           `json:"held_bytes"`
	Lines     []ProfileLine `json:"lines"`
}

// ProfileLine is one step of the machine: an instruction or a part of one.
type ProfileLine struct {
	// Part is "block" for what is done a block of rows at a time, "sums" for sums over the rows of each block, "step"
	// for what is done once a step.
	Part        string `json:"part"`
	Instruction int    `json:"instruction"` // of the training program, -1 for packing and copying
	What        string `json:"what"`
	// FLOPs and Bytes are the instruction's over all rows: its arithmetic, a multiply-add being two, and what it reads and
	// writes of its operands, by the table of costs.go.
	FLOPs int64 `json:"flops"`
	Bytes int64 `json:"bytes"`
	// Seconds are the first thread's, Share their part of the step. GFLOPS and GBs are of the part of the work that it
	// did.
	Seconds float64 `json:"seconds"`
	Share   float64 `json:"share"`
	GFLOPS  float64 `json:"gflops"`
	GBs     float64 `json:"gb_s"`
}

// clock is the stopwatch of a machine: worker 0's time and its part of the work, by step of the machine, then waiting,
// then what is between two steps of the training.
type clock struct {
	last    time.Time
	spent   []time.Duration // in this step of the training
	part    []float64       // in all
	samples [][]time.Duration
	steps   int
}

// clockSamples is the steps of which a clock keeps the latest.
const clockSamples = 512

func newClock(ids int) *clock {
	c := &clock{spent: make([]time.Duration, ids+2), part: make([]float64, ids), samples: make([][]time.Duration, ids+2)}
	for i := range c.samples {
		c.samples[i] = make([]time.Duration, 0, clockSamples)
	}
	return c
}

// spend gives the time since the last lap to something.
func (c *clock) spend(i int) {
	now := time.Now()
	c.spent[i] += now.Sub(c.last)
	c.last = now
}

// lap gives it to a step, which did that part of its work.
func (c *clock) lap(s *step, part float64) {
	c.spend(s.id)
	c.part[s.id] += part
}

func (c *clock) waited() { c.spend(len(c.spent) - 2) }

// begin begins a step of the training, after another but for the first.
func (c *clock) begin() {
	c.spend(len(c.spent) - 1)
	if c.steps > 0 {
		for i, t := range c.spent {
			if len(c.samples[i]) < clockSamples {
				c.samples[i] = append(c.samples[i], t)
			} else {
				c.samples[i][c.steps%clockSamples] = t
			}
		}
	}
	clear(c.spent)
	c.steps++
}

// median is that of the times of a step of the machine, in seconds: an interruption does not count.
func (c *clock) median(i int) float64 {
	slices.Sort(c.samples[i])
	return c.samples[i][len(c.samples[i])/2].Seconds()
}

// Profile trains for about a third of a second from the initial weights, with a stopwatch behind each step of the
// machine, which slows it by a few per cent. What it trains is thrown away.
func (b *Backend) Profile(s *program.Set, d program.Data) (*Profile, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if s.Train == nil {
		return nil, fmt.Errorf("cpu: the set has no training program to measure")
	}
	e := newExec(b, s)
	defer e.Close()
	start := s.Initial(d.Seed)
	for _, h := range s.Holds() { // constants, of which no time depends on the values
		if start.Find(h.Name) == nil {
			c := program.Tensor{Name: h.Name, DType: h.DType, Shape: h.Shape}
			if h.DType == program.F64 {
				c.F64 = make([]float64, h.Len())
			} else {
				c.F32 = make([]float32, h.Len())
			}
			start = append(start, c)
		}
	}
	if err := e.Import(start); err != nil {
		return nil, err
	}
	if err := e.Bind(d); err != nil {
		return nil, err
	}
	steps := min(len(d.Rates), d.Train.Len()/s.Train.Rows)
	if steps == 0 {
		return nil, fmt.Errorf("cpu: no step of %d rows to measure: %d rows and %d steps", s.Train.Rows, d.Train.Len(),
			len(d.Rates))
	}
	p := &Profile{Backend: b.Name(), Rows: s.Train.Rows, HeldBytes: e.held()}
	c := b.Ceiling(1)
	if err := p.measure(e, steps); err != nil {
		return nil, err
	}
	c.raise(b.Ceiling(1))
	p.PeakGFLOPS, p.PeakGBs = c.FLOPs/1e9, c.Memory()/1e9
	return p, nil
}

// profileTime is how long steps are measured.
const profileTime = 300 * time.Millisecond

// measure runs steps, the first ones again where there are not enough, and sets the lines. Until half the time has passed
// it lets them find out on how many threads they are quickest, and measures them on so many.
func (p *Profile) measure(e *exec, steps int) error {
	slots := make([]float64, len(e.slots))
	steps = max(1, min(steps, 1<<16/p.Rows))
	for start, first := time.Now(), true; first || !e.always && time.Since(start) < profileTime/2; first = false {
		if err := e.Run(0, steps, slots); err != nil { // the first touches memory
			return err
		}
	}
	p.Threads = len(e.pool.workers)
	if !e.always {
		p.Threads = e.pace.counts[e.pace.at]
		e.pace = steady(p.Threads)
	}
	m := e.train
	c := newClock(m.ids)
	m.clock = c
	defer func() { m.clock = nil }()
	for start := time.Now(); time.Since(start) < profileTime || c.steps < 3; {
		if err := e.Run(0, steps, slots); err != nil {
			return err
		}
	}
	p.Steps = c.steps
	p.WaitSeconds, p.RestSeconds = c.median(m.ids), c.median(m.ids+1)
	p.StepSeconds = p.WaitSeconds + p.RestSeconds
	line := func(part string, s *step) {
		l := ProfileLine{Part: part, Instruction: max(s.instr, -1), Seconds: c.median(s.id)}
		l.What, l.FLOPs, l.Bytes = m.costOf(s)
		p.StepSeconds += l.Seconds
		if l.Seconds > 0 {
			done := c.part[s.id] / float64(c.steps)
			l.GFLOPS, l.GBs = float64(l.FLOPs)*done/l.Seconds/1e9, float64(l.Bytes)*done/l.Seconds/1e9
		}
		p.Lines = append(p.Lines, l)
	}
	for i := range m.phases {
		ph := &m.phases[i]
		if ph.rows == nil {
			line("step", &ph.step)
		}
		for k := range ph.rows {
			line("block", &ph.rows[k])
		}
		for k := range ph.sums {
			line("sums", &ph.sums[k])
		}
	}
	for i := range p.Lines {
		p.Lines[i].Share = p.Lines[i].Seconds / p.StepSeconds
	}
	return nil
}

// costOf says what a step does, and what its instruction costs. Only the first step of an instruction has the cost.
func (m *machine) costOf(s *step) (what string, flops, bytes int64) {
	switch s.instr {
	case instrPack:
		return "weights into panels", 0, 0
	case instrCopy:
		return "rows to or from the whole batch", 0, 0
	case instrLoad, instrUnload:
		return "input or output", 0, 0
	}
	in := &m.p.Instrs[s.instr]
	what = m.p.Line(s.instr)
	if s.piece > 0 {
		return fmt.Sprintf("%3d and then", s.instr), 0, 0
	}
	z := extents{m.p}
	c := cost{}
	if chain := m.scoringOf(in); chain != nil {
		what, c = chain.what(m, what), chain.costOf(z)
	} else {
		c = z.costOf(in)
	}
	return what, c.flops, c.bytes
}

// Print writes the profile for people, one step of the machine a line.
func (p *Profile) Print(w io.Writer) error {
	var s strings.Builder
	fmt.Fprintf(&s, "a step of %d rows on %s, %d threads, measured over %d steps: %.0f us, %.0fk rows/s\n",
		p.Rows, p.Backend, p.Threads, p.Steps, p.StepSeconds*1e6, float64(p.Rows)/p.StepSeconds/1e3)
	fmt.Fprintf(&s, "one thread reaches %.1f GFLOP/s and %.1f GB/s here; weights, optimizer state and a step take %.1f MB\n",
		p.PeakGFLOPS, p.PeakGBs, float64(p.HeldBytes)/1e6)
	fmt.Fprint(&s, "block: done by each thread a block of rows at a time; sums: over the rows of each block, divided by results;\n"+
		"step: once; wait: for other threads; rest: between two steps. Times are medians of the first thread's.\n\n")
	fmt.Fprintf(&s, "%-5s %6s %8s %9s %8s %6s %9s %7s  %s\n", "part", "share", "us", "MFLOP", "GFLOP/s", "peak", "KB",
		"GB/s", "instruction")
	for _, l := range p.Lines {
		of := "-"
		if p.PeakGFLOPS > 0 && l.FLOPs > 0 {
			of = fmt.Sprintf("%.0f%%", 100*l.GFLOPS/p.PeakGFLOPS)
		}
		fmt.Fprintf(&s, "%-5s %5.1f%% %8.2f %9.3f %8.1f %6s %9.1f %7.1f  %s\n", l.Part, 100*l.Share, l.Seconds*1e6, float64(l.FLOPs)/1e6,
			l.GFLOPS, of, float64(l.Bytes)/1e3, l.GBs, l.What)
	}
	for _, l := range []struct {
		part    string
		seconds float64
	}{{"wait", p.WaitSeconds}, {"rest", p.RestSeconds}} {
		fmt.Fprintf(&s, "%-5s %5.1f%% %8.2f\n", l.part, 100*l.seconds/p.StepSeconds, l.seconds*1e6)
	}
	_, err := io.WriteString(w, s.String())
	return err
}
