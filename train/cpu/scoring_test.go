package cpu_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/graph"
	"github.com/onmart/onmart/train/program"
)

// small is a recommender in small: an odd width, rows without a positive or a user, candidates that are none, a table
// that is read in two ways.
type small struct {
	others    int
	bpr       bool
	drawn     bool // candidates are drawn in the step
	logq      bool
	bystander bool // somebody else reads the scores, so that there is no chain
}

const (
	smallUsers, smallItems, smallDim, smallBatch, smallRows = 300, 70, 19, 96, 500
)

func (s small) build(b *graph.Builder) (graph.Model, error) {
	users, items := b.Table("users", smallUsers, smallDim, .3), b.Table("items", smallItems, smallDim, .3)
	user := b.Lookup(users, b.Input("user", 1))
	item := b.Input("item", 1+s.others)
	idx := item
	if s.drawn {
		idx = b.Concat(b.Input("first", 1), b.SampleRows(b.Const("cdf", smallItems), s.others))
	}
	scores := b.LookupDot(items, idx, user)
	weight := b.Input("weight", 1)
	loss := b.CandidateBPR(scores, idx, weight)
	if !s.bpr {
		var logq *graph.Node
		if s.logq {
			logq = b.Const("logq", smallItems)
		}
		loss = b.CandidateSoftmax(scores, idx, logq, weight)
	}
	m := graph.Model{Loss: loss, Output: b.LookupDot(items, item, user)}
	if s.bystander {
		m.Metrics = map[string]*graph.Node{"other": b.CandidateBPR(scores, idx, nil)}
	}
	return m, nil
}

func (s small) columns() []program.Column {
	r := rand.New(rand.NewPCG(7, 7))
	column := func(name string, width, n int) program.Column {
		c := program.Column{Name: name, Rows: smallRows, Width: width, F32: make([]float32, smallRows*width)}
		for i := range c.F32 {
			if n == 0 {
				c.F32[i] = r.Float32() + .5
			} else if c.F32[i] = float32(r.IntN(n)); r.IntN(9) == 0 {
				c.F32[i] = -1
			} else if r.IntN(3) == 0 {
				c.F32[i] = float32(n / 3) // one that is often there
			}
		}
		return c
	}
	return []program.Column{column("user", 1, smallUsers), column("item", 1+s.others, smallItems), column("first", 1, smallItems),
		column("weight", 1, 0)}
}

// smallSteps are two epochs.
const smallSteps = 2 * (smallRows/smallBatch + 1)

// train compiles and does so many steps, and returns what is held then and the slots; with stop, it exports, closes and
// goes on in a new Exec after so many steps.
func (s small) train(t *testing.T, path string, threads, steps, stop int) (program.Tensors, []float64, *program.Set) {
	t.Helper()
	t.Setenv("ONMART_CPU", path)
	set, err := graph.Compile(s.build, graph.Options{Batch: smallBatch, Rows: smallRows, Tile: 16,
		Optimizer: graph.AdamW{Beta1: .9, Beta2: .99, Eps: 1e-8, Decay: .01}})
	if err != nil {
		t.Fatal(err)
	}
	weights := make([]float64, smallItems)
	for i := range weights {
		weights[i] = 1 / float64(i+1)
	}
	cdf, logq, err := program.SampleBy(weights)
	if err != nil {
		t.Fatal(err)
	}
	held := set.Initial(3)
	for _, c := range set.Consts {
		held = append(held, program.Tensor{Name: c.Name, DType: program.F32, Shape: c.Shape, F32: map[string][]float32{"cdf": cdf, "logq": logq}[c.Name]})
	}
	held.Sort()
	schedule := program.Schedule{Seed: 5, Train: program.Range{To: smallRows}, Rates: slices.Repeat([]float32{.02}, smallSteps)}
	backend, err := cpu.New(cpu.Options{Threads: threads, Always: true})
	if err != nil {
		t.Fatal(err)
	}
	slots := make([]float64, len(set.Slots))
	run := func(first, n int) {
		exec, err := backend.Compile(set)
		if err != nil {
			t.Fatal(err)
		}
		defer exec.Close()
		if err := exec.Import(held); err != nil {
			t.Fatal(err)
		}
		if err := exec.Bind(program.Data{Columns: s.columns(), Schedule: schedule}); err != nil {
			t.Fatal(err)
		}
		if err := exec.Run(first, n, slots); err != nil {
			t.Fatal(err)
		}
		if held, err = exec.Export(); err != nil {
			t.Fatal(err)
		}
	}
	if stop > 0 {
		run(0, stop)
	}
	run(stop, steps-stop)
	return held, slots, set
}

// alike compares to the bit.
func alike(t *testing.T, what string, got, want program.Tensors) {
	t.Helper()
	if err := cpu.SameTensors(got, want); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// TestCandidatesTrainAlike: one thread and many, both paths, after a resume, and with the chain of the loss taken
// apart, it is the same training; and it learns.
func TestCandidatesTrainAlike(t *testing.T) {
	for _, s := range []small{{others: 8}, {others: 8, bpr: true}, {others: 8, drawn: true}, {others: 15, logq: true},
		{others: 1}, {others: 40}, {others: 70, bpr: true}} {
		t.Run(fmt.Sprintf("%+v", s), func(t *testing.T) {
			want, slots, set := s.train(t, "", 1, smallSteps, 0)
			_, first, _ := s.train(t, "", 1, smallSteps/2, 0)
			if loss := slices.Index(set.Slots, "loss"); !(slots[loss]-first[loss] < first[loss]) {
				t.Errorf("the loss of the first epoch is %v, of both %v", first[loss], slots[loss])
			}
			for _, p := range []*program.Program{set.Train, set.Rest} {
				if chains, lookups := cpu.Chains(p); chains != 1 || lookups != 1 {
					t.Errorf("%s has %d chains, %d with a lookup: want one of each\n%s", p.Name, chains, lookups, p)
				}
			}
			for _, threads := range []int{2, 3, 8} {
				got, again, _ := s.train(t, "", threads, smallSteps, 0)
				alike(t, fmt.Sprint(threads, " threads"), got, want)
				if !slices.Equal(again, slots) {
					t.Errorf("%d threads: slots %v, want %v", threads, again, slots)
				}
			}
			got, again, _ := s.train(t, "portable", 2, smallSteps, 0)
			alike(t, "portable", got, want)
			if !slices.Equal(again, slots) {
				t.Errorf("portable: slots %v, want %v", again, slots)
			}
			got, _, _ = s.train(t, "", 2, smallSteps, 7)
			alike(t, "resumed", got, want)
			apart := s
			apart.bystander = true
			got, _, set = apart.train(t, "", 2, smallSteps, 0)
			alike(t, "apart", got, want)
			if chains, _ := cpu.Chains(set.Train); chains != 0 {
				t.Errorf("%d chains, though others read the scores", chains)
			}
		})
	}
}

// TestStepsAllocateNothing, whatever the candidates are.
func TestStepsAllocateNothing(t *testing.T) {
	for _, s := range []small{{others: 8}, {others: 8, bpr: true}, {others: 8, drawn: true, logq: true}, {others: 40, bpr: true},
		{others: 40, bystander: true}} {
		set, err := graph.Compile(s.build, graph.Options{Batch: smallBatch, Rows: smallRows, Tile: 16,
			Optimizer: graph.AdamW{Beta1: .9, Beta2: .99, Eps: 1e-8}})
		if err != nil {
			t.Fatal(err)
		}
		backend, err := cpu.New(cpu.Options{Threads: 2, Always: true})
		if err != nil {
			t.Fatal(err)
		}
		exec, err := backend.Compile(set)
		if err != nil {
			t.Fatal(err)
		}
		defer exec.Close()
		held := set.Initial(3)
		for _, c := range set.Consts {
			held = append(held, program.Tensor{Name: c.Name, DType: program.F32, Shape: c.Shape, F32: slices.Repeat([]float32{1}, c.Shape[0])})
		}
		if err := exec.Import(held); err != nil {
			t.Fatal(err)
		}
		if err := exec.Bind(program.Data{Columns: s.columns(), Schedule: program.Schedule{Train: program.Range{To: smallRows},
			Rates: make([]float32, 1000)}}); err != nil {
			t.Fatal(err)
		}
		slots, step := make([]float64, len(set.Slots)), 0
		if n := testing.AllocsPerRun(20, func() {
			if err := exec.Run(step, 6, slots); err != nil {
				t.Fatal(err)
			}
			step += 6
		}); n > 0 {
			t.Errorf("%+v: six steps allocate %v times", s, n)
		}
	}
}

// TestProfileOfChains: the line of a chain names what is done in its pass, and the costs are those of all of it.
func TestProfileOfChains(t *testing.T) {
	s := small{others: 8, logq: true}
	set, err := graph.Compile(s.build, graph.Options{Batch: smallBatch, Rows: smallRows, Tile: 16,
		Optimizer: graph.AdamW{Beta1: .9, Beta2: .99, Eps: 1e-8}})
	if err != nil {
		t.Fatal(err)
	}
	backend, err := cpu.New(cpu.Options{Threads: 2, Always: true})
	if err != nil {
		t.Fatal(err)
	}
	p, err := backend.Profile(set, program.Data{Columns: s.columns(), Schedule: program.Schedule{
		Train: program.Range{To: smallRows}, Rates: make([]float32, 5)}})
	if err != nil {
		t.Fatal(err)
	}
	const w = 9
	// Inner products and sums; exponentials and corrections, once for loss and gradient; the rows' terms and their sum.
	scored := int64(smallBatch * (2*2*w*smallDim + w*(30+1) + 33 + 1))
	updated := int64(smallBatch*w*2*smallDim + smallItems*17*smallDim)
	found := map[int64]string{}
	for _, l := range p.Lines {
		found[l.FLOPs] = l.What
	}
	if !strings.Contains(found[scored], "lookup_weighted") || !strings.Contains(found[scored], "in one pass with 3, 4, 5, 7") {
		t.Errorf("no chain of %d operations in %v\n%s", scored, found, set.Train)
	}
	if !strings.Contains(found[updated], "row_adam") {
		t.Errorf("no update of %d operations in %v", updated, found)
	}
}
