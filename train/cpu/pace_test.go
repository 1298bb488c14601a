package cpu

import (
	"testing"
	"time"
)

// drive runs steps whose time depends on the number of threads, and returns how long they took and on how many the
// last ones ran.
func drive(p *pace, steps int, perStep func(threads int) time.Duration) (total time.Duration, threads int) {
	for steps > 0 {
		n, s := p.next(steps)
		d := time.Duration(s) * perStep(n)
		p.took(d)
		if !p.trying {
			threads = p.counts[p.at]
		}
		total, steps = total+d, steps-s
	}
	return total, threads
}

// TestPaceFindsTheQuickest: from whatever it begins with, and again when another number becomes the quickest.
func TestPaceFindsTheQuickest(t *testing.T) {
	by := func(us map[int]int) func(int) time.Duration {
		return func(threads int) time.Duration { return time.Duration(us[threads]) * time.Microsecond }
	}
	worlds := []struct {
		us   map[int]int
		best int
	}{
		{map[int]int{1: 40, 2: 60, 4: 90, 6: 120}, 1},
		{map[int]int{1: 40, 2: 22, 4: 30, 6: 50}, 2},
		{map[int]int{1: 400, 2: 210, 4: 120, 6: 90}, 6},
		{map[int]int{1: 400, 2: 210, 4: 120, 6: 125}, 4},
		{map[int]int{1: 20_000, 2: 11_000, 4: 6_000, 6: 4_000}, 6}, // a step is longer than a piece
	}
	for _, start := range []int{1, 2, 5, 6} {
		p := newPace(6, start)
		for _, w := range worlds {
			step := by(w.us)
			drive(p, int(5*time.Second/step(w.best)), step)
			steps := int(20 * time.Second / step(w.best))
			took, threads := drive(p, steps, step)
			if threads != w.best {
				t.Errorf("from %d threads: %d where %d are quickest of %v", start, threads, w.best, w.us)
			}
			if most := time.Duration(steps) * step(w.best) * 102 / 100; took > most {
				t.Errorf("from %d threads: %v for steps that take %v, with trials at most %v", start, took, time.Duration(steps)*step(w.best), most)
			}
		}
	}
}

// TestPaceNeedsMoreThanChance: two numbers that are as quick as each other are not changed for each other.
func TestPaceNeedsMoreThanChance(t *testing.T) {
	p := newPace(2, 1)
	if _, threads := drive(p, 1_000_000, func(int) time.Duration { return 50 * time.Microsecond }); threads != 1 {
		t.Errorf("on %d threads, which are no quicker than 1", threads)
	}
	if p := newPace(1, 1); len(p.counts) != 1 {
		t.Errorf("of one thread it tries %v", p.counts)
	}
}

// TestThreadsChangeUnderWay: a training whose number of threads changes every few steps gives the bits of one on one.
func TestThreadsChangeUnderWay(t *testing.T) {
	const rows, steps = 8 * 1024, 60
	for _, k := range paths() {
		c := mlp{widths: []int{15, 64, 32}, batch: 256, evalRows: 64}
		s, d := c.set(), planted(rows, 15, steps, 1e-3)
		run := func(threads int, prepare func(e *exec)) [][]float32 {
			e := compile(t, k, threads, s, d)
			prepare(e)
			slots := make([]float64, 2)
			for first := 0; first < steps; first += steps / 2 {
				if err := e.Run(first, steps/2, slots); err != nil {
					t.Fatal(err)
				}
			}
			ts, err := e.Export()
			if err != nil {
				t.Fatal(err)
			}
			var all [][]float32
			for _, x := range ts {
				all = append(all, x.F32)
			}
			return all
		}
		want := run(1, func(*exec) {})
		seen := map[int]bool{}
		got := run(5, func(e *exec) {
			e.always = false
			e.pace.piece = time.Nanosecond // a step
			job := e.trainJob
			e.trainJob = func(w *worker) {
				if w.id == 0 {
					seen[w.of] = true
					e.pace.until, e.pace.pause = 1, 1
				}
				job(w)
			}
		})
		if len(seen) < 2 {
			t.Errorf("%s: all on %v threads", k.name, seen)
		}
		for i := range want {
			if err := same(got[i], want[i]); err != nil {
				t.Errorf("%s: tensor %d: %v", k.name, i, err)
			}
		}
	}
}
