package gpu

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/onmart/onmart/cuda"
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
