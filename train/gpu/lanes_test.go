package gpu

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/onmart/onmart/cuda"
	"github.com/onmart/onmart/cuda/kernels"
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
	}, Instrs: []program.Instr{
		{Op: program.Gather, Outs: []int{0}, Attr: program.Attr{Column: "x"}},
		{Op: program.Dropout, Args: []int{0}, Outs: []int{1}, Attr: program.Attr{Rate: .5}},
		{Op: program.Dropout, Args: []int{1}, Outs: []int{2}, Attr: program.Attr{Rate: .5, Site: 1}},
	}}
	mem := newPaper()
	g := &ground{tuning: kernels.TuningFor(75, 30), take: mem.take, state: mem.take(kernels.StateBytes), slots: mem.take(8),
		columns: map[string]column{"x": {mem.take(32 * 4), 4}}, train: program.Range{To: 8}, batch: 8}
	plan := newPlan(g, p, 8)
	last := len(plan.works) - 1
	if _, ok := plan.works[last].op.(*kernels.Finish); !ok || last != 3 {
		t.Fatalf("%d works, the last is %s", last+1, plan.works[last].op.Kernel())
	}
	if deps := dependencies(plan.works, last); len(deps) != last {
		t.Errorf("the end of the step depends on %v of %d works", deps, last)
	}
}
