package gpu

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/onmart/onmart/cuda"
	"github.com/onmart/onmart/cuda/kernels"
	"github.com/onmart/onmart/train/graph"
	"github.com/onmart/onmart/train/program"
)

// Whatever the works touch, each must come after all that it depends on, by lanes and waits alone.
func TestSeatsKeepEveryDependency(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		some := rapid.Custom(func(t *rapid.T) span {
			lo := cuda.DevicePtr(rapid.IntRange(1, 12).Draw(t, "lo"))
			return span{lo, lo + cuda.DevicePtr(rapid.IntRange(1, 3).Draw(t, "n"))}
		})
		works := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) work {
			return work{reads: rapid.SliceOfN(some, 0, 3).Draw(t, "reads"), writes: rapid.SliceOfN(some, 1, 2).Draw(t, "writes")}
		}), 1, 25).Draw(t, "works")
		lanes := rapid.IntRange(1, 5).Draw(t, "lanes")
		seats := seats(works, lanes)
		// before[i][j]: the graph makes j end before i starts.
		before := make([]map[int]bool, len(works))
		last := map[int]int{}
		for i, s := range seats {
			before[i] = map[int]bool{}
			prior := append([]int(nil), s.waits...)
			if l, ok := last[s.lane]; ok {
				prior = append(prior, l)
			}
			for _, j := range prior {
				if j >= i {
					t.Fatalf("work %d waits for %d", i, j)
				}
				before[i][j] = true
				for k := range before[j] {
					before[i][k] = true
				}
			}
			for _, j := range s.waits {
				if !seats[j].marked {
					t.Fatalf("work %d waits for %d, which is not marked", i, j)
				}
			}
			last[s.lane] = i
			for _, j := range dependencies(works, i) {
				if !before[i][j] {
					t.Fatalf("work %d may run before %d, which it depends on", i, j)
				}
			}
		}
	})
}

// Independent chains run side by side.
func TestSeatsSpreadChains(t *testing.T) {
	chain := func(base cuda.DevicePtr) []work {
		a, b, c := span{base, base + 1}, span{base + 1, base + 2}, span{base + 2, base + 3}
		return []work{{writes: []span{a}}, {reads: []span{a}, writes: []span{b}}, {reads: []span{b}, writes: []span{c}}}
	}
	var works []work
	for tower := range 3 {
		works = append(works, chain(cuda.DevicePtr(100*(tower+1)))...)
	}
	lanes := map[int]bool{}
	for i, s := range seats(works, laneCount) {
		if i%3 > 0 && len(s.waits) > 0 {
			t.Errorf("work %d waits for %v within its chain", i, s.waits)
		}
		lanes[s.lane] = true
	}
	if len(lanes) != 3 {
		t.Errorf("three chains on %d lanes", len(lanes))
	}
}

// Every op that asks for the step comes before the one that counts it up, even where nothing else ties them.
func TestTheStepIsCountedLast(t *testing.T) {
	p := &program.Program{Rows: 8, Arena: 1024, Buffers: []program.Buffer{
		{Name: "x", Kind: program.Input, DType: program.F32, Shape: []int{8, 4}, PerRow: true},
		{Kind: program.Temp, DType: program.F32, Shape: []int{8, 4}},
		{Kind: program.Temp, DType: program.F32, Shape: []int{8, 4}, Offset: 512},
		{Name: "cdf", Kind: program.Const, DType: program.F32, Shape: []int{9}},
		{Kind: program.Temp, DType: program.F32, Shape: []int{8, 1}, Offset: 768},
		{Name: "table", Kind: program.Param, DType: program.F32, Shape: []int{9, 4}},
		{Name: "m", Kind: program.State, DType: program.F32, Shape: []int{9, 4}},
		{Name: "v", Kind: program.State, DType: program.F32, Shape: []int{9, 4}},
	}, Instrs: []program.Instr{
		{Op: program.Gather, Outs: []int{0}, Attr: program.Attr{Column: "x"}},
		{Op: program.Dropout, Args: []int{0}, Outs: []int{1}, Attr: program.Attr{Rate: .5}},
		{Op: program.Dropout, Args: []int{1}, Outs: []int{2}, Attr: program.Attr{Rate: .5, Site: 1}},
		{Op: program.Sample, Args: []int{3}, Outs: []int{4}, Attr: program.Attr{Site: 2}},
		{Op: program.RowAdam, Args: []int{4, 2}, Outs: []int{5, 6, 7}},
	}}
	mem := newPaper()
	g := &ground{tuning: kernels.TuningFor(75, 30), take: mem.take, state: mem.take(kernels.StateBytes), slots: mem.take(8),
		columns: map[string]column{"x": {mem.take(32 * 4), 4}}, train: program.Range{To: 8}, batch: 8,
		tensor: map[string]span{}}
	for _, name := range []string{"cdf", "table", "m", "v"} {
		at := mem.take(9 * 4 * 4)
		g.tensor[name] = span{at, at + 9*4*4}
	}
	plan := newPlan(g, p, 8)
	last := len(plan.works) - 1
	if _, ok := plan.works[last].op.(*kernels.Finish); !ok || last != 6 {
		t.Fatalf("%d works, the last is %s", last+1, plan.works[last].op.Kernel())
	}
	const sort = 4 // which asks for the indices alone
	if deps := dependencies(plan.works, last); len(deps) != last-1 || slices.Contains(deps, sort) {
		t.Errorf("the end of the step depends on %v of %d works", deps, last)
	}
	if deps := dependencies(plan.works, sort); !slices.Equal(deps, []int{3}) {
		t.Errorf("the sort depends on %v, want the draw alone", deps)
	}
}

// What the lanes go by is what ops say that they touch: each operand must be among it.
func TestProductsSayWhatTheyTouch(t *testing.T) {
	set, err := graph.Compile(func(b *graph.Builder) (graph.Model, error) {
		h := b.Input("x", 5)
		for l := range 3 {
			h = b.Dropout(b.Dense(fmt.Sprint("l", l), h, 16, program.Silu, "he_uniform"), .2)
		}
		z := b.Dense("out", h, 1, program.None, "he_uniform")
		return graph.Model{Loss: b.BCEWithLogits(z, b.Input("y", 1), nil), Output: z}, nil
	}, graph.Options{Batch: 256, Rows: 256, Tile: 64, Optimizer: graph.AdamW{Beta1: .9, Beta2: .999, Eps: 1e-8}})
	if err != nil {
		t.Fatal(err)
	}
	mem := newPaper()
	g := &ground{tuning: kernels.TuningFor(75, 30), take: mem.take, tensor: map[string]span{}, names: set.Slots, slots: mem.take(64), state: mem.take(kernels.StateBytes),
		rates: mem.take(4), powers: map[float64]cuda.DevicePtr{.9: mem.take(4), .999: mem.take(4)}, train: program.Range{To: 256}, batch: 256,
		columns: map[string]column{"x": {mem.take(256 * 20), 5}, "y": {mem.take(256 * 4), 1}}}
	held := set.Holds()
	for i := range held {
		at := mem.take(tensorBytes(&held[i]))
		g.tensor[held[i].Name] = span{at, at + cuda.DevicePtr(tensorBytes(&held[i]))}
	}
	kinds := map[string]bool{}
	for _, w := range newPlan(g, set.Train, 256).works {
		m, ok := w.op.(*kernels.MatMul)
		if !ok {
			continue
		}
		state := cuda.DevicePtr(0)
		if m.Drop.Rate > 0 {
			state = m.Drop.State
		}
		for name, at := range map[string]cuda.DevicePtr{"A": m.A, "B": m.B, "Bias": m.Bias, "Of": m.Of, "State": state} {
			if at != 0 && !meet([]span{{at, at + 4}}, w.reads) {
				t.Errorf("%s does not say that it reads %s", m.Kernel(), name)
			}
			kinds[name] = kinds[name] || at != 0
		}
		for name, at := range map[string]cuda.DevicePtr{"Y": m.Y, "Pre": m.Pre} {
			if at != 0 && !meet([]span{{at, at + 4}}, w.writes) {
				t.Errorf("%s does not say that it writes %s", m.Kernel(), name)
			}
			kinds[name] = kinds[name] || at != 0
		}
	}
	if len(kinds) != 7 || !kinds["Of"] || !kinds["Pre"] || !kinds["State"] {
		t.Errorf("products of the program have %v", kinds)
	}
}
