package cpu

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/train/program"
)

// TestProfile: the lines name each instruction once and the time they have together is at most the step's; the
// arithmetic is that of the products by hand; nothing is measured in normal runs.
func TestProfile(t *testing.T) {
	c := mlp{widths: []int{7, 64}, batch: 96, rest: 10, evalRows: 16}
	s, d := c.set(), planted(2*96+10, 7, 20, 0.01)
	for _, k := range paths() {
		for _, threads := range []int{1, 2} {
			b := &Backend{threads: threads, always: true, kernels: k}
			p, err := b.Profile(s, d)
			if err != nil {
				t.Fatal(err)
			}
			seen := make([]int, len(s.Train.Instrs))
			var flops, inProducts int64
			sum, seconds := 0.0, p.WaitSeconds+p.RestSeconds
			for _, l := range p.Lines {
				seconds += l.Seconds
				sum += l.Share
				if l.Instruction >= 0 && l.FLOPs+l.Bytes > 0 {
					seen[l.Instruction]++
				}
				flops += l.FLOPs
				if l.Instruction >= 0 && s.Train.Instrs[l.Instruction].Op == program.MatMul {
					inProducts += l.FLOPs
				}
			}
			for i, n := range seen {
				if n != 1 {
					t.Errorf("instruction %d has %d lines with a cost", i, n)
				}
			}
			// Forward, gradients of weights and that of the hidden layer; a bias is an addition more, relu a comparison.
			if want := int64(2*96*(7*64+64)*2 + 2*96*64 + 96*(64+1) + 96*64); inProducts != want {
				t.Errorf("%d operations in products, want %d", inProducts, want)
			}
			if flops <= inProducts || sum <= 0 || sum > 1 || seconds > p.StepSeconds*1.0001 || p.Steps < 1 || p.Threads != threads {
				t.Errorf("%d operations, shares of %v, %v s of %v s in %d steps of %d threads", flops, sum, seconds, p.StepSeconds, p.Steps, p.Threads)
			}
			var text strings.Builder
			if err := p.Print(&text); err != nil {
				t.Fatal(err)
			}
			for _, want := range []string{"a step of 96 rows on " + k.name, "matmul x[96 7] w0[7 64] b0[64]", "block", "sums", "rest"} {
				if !strings.Contains(text.String(), want) {
					t.Errorf("no %q in\n%s", want, text.String())
				}
			}
		}
	}
	b := &Backend{threads: 1, kernels: portableKernels()}
	d.Rates = nil
	if _, err := b.Profile(s, d); err == nil || !strings.Contains(err.Error(), "no step of 96 rows") {
		t.Errorf("no steps: %v", err)
	}
	if _, err := b.Profile(&program.Set{Forward: s.Forward, Params: s.Params, State: s.State, Slots: s.Slots}, d); err == nil {
		t.Error("a set without training was measured")
	}
}

// allocated is the bytes that f allocates.
func allocated(f func()) int {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return int(after.TotalAlloc - before.TotalAlloc)
}

// looks is the address space that the first passes over the programs of a set need: their largest buffers. Nobody
// writes there.
func looks(s *program.Set) (n int) {
	for _, p := range []*program.Program{s.Train, s.Rest, s.Forward} {
		most := 0
		if p == nil {
			continue
		}
		for i := range p.Buffers {
			most = max(most, 4*p.Buffers[i].Len())
		}
		n += most
	}
	return n
}

// TestMemoryIsAccountedFor: what an Exec takes, over all that it allocates, is at most a fifth more than data,
// parameters, optimizer state and the activations of the program's own plan, for the perceptrons that are measured and
// a million rows; and without the data its step takes less than the plan's arena, since activations are never held for
// the whole batch.
func TestMemoryIsAccountedFor(t *testing.T) {
	for _, widths := range [][]int{{32, 128, 128}, {15, 500}} {
		for _, batch := range []int{64, 1024, 8192} {
			for _, threads := range []int{1, 2, 8} {
				const rows = 1_000_000
				s := mlp{widths: widths, batch: batch, rest: rows % batch, evalRows: 1024}.set()
				var e *exec
				got := allocated(func() { e = newExec(&Backend{threads: threads, kernels: portableKernels()}, s) })
				held := e.held()
				arena := e.arena
				e.Close()
				weights := 0
				for _, spec := range append(append([]program.TensorSpec(nil), s.Params...), s.State...) {
					n := 1
					for _, d := range spec.Shape {
						n *= d
					}
					weights += 4 * n
				}
				plan := s.Train.Arena + 4*batch*(widths[0]+2) // temps, and the batch itself
				data := 4 * rows * (widths[0] + 2)
				if allowed := (data + weights + plan) / 5; held-weights-plan > allowed {
					t.Errorf("%v, batch %d, %d threads: %d bytes are held, %d of them beyond the plan; allowed are %d", widths, batch, threads, held, held-weights-plan, allowed)
				}
				if batch == 8192 && arena > plan {
					t.Errorf("%v, batch %d, %d threads: an arena of %d bytes, the plan has %d", widths, batch, threads, arena, plan)
				}
				// The account is what was allocated, but for the lists of steps, and for what the first pass over a
				// program looks at.
				if slack := 2<<20 + looks(s); got < held || got > held+slack {
					t.Errorf("%v, batch %d, %d threads: %d bytes were allocated, %d are accounted for", widths, batch, threads, got, held)
				}
			}
		}
	}
}

// TestProfileKeepsToItsThreads: the steps that are measured all run on the number of threads that is named.
func TestProfileKeepsToItsThreads(t *testing.T) {
	c := mlp{widths: []int{7, 64}, batch: 96, evalRows: 16}
	s, d := c.set(), planted(8*96, 7, 8, 0.01)
	e := compile(t, paths()[0], 3, s, d)
	e.pace.piece = time.Nanosecond // a step, so that it tries often
	type piece struct{ threads, steps int }
	var ran []piece
	job := e.trainJob
	e.trainJob = func(w *worker) {
		if w.id == 0 {
			ran = append(ran, piece{w.of, e.lastStep - e.firstStep})
		}
		job(w)
	}
	p := &Profile{Rows: 96}
	if err := p.measure(e, 8); err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, r := range ran {
		seen[r.threads] = true
	}
	measured := 0
	for i := len(ran) - 1; measured < p.Steps; i-- {
		if ran[i].threads != p.Threads {
			t.Fatalf("a measured step ran on %d threads, the profile says %d", ran[i].threads, p.Threads)
		}
		measured += ran[i].steps
	}
	if len(seen) < 2 {
		t.Errorf("no other number than %v was tried before", seen)
	}
}
