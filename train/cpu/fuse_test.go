package cpu

import (
	"fmt"
	"strings"
	"testing"

	"github.com/onmart/onmart/train/program"
)

// shape lists the phases of a machine: how many steps of rows and of sums a region has, the instructions of the others;
// a bar where there is a barrier before.
func shape(m *machine) string {
	var b strings.Builder
	for i := range m.phases {
		ph := &m.phases[i]
		if ph.barrier {
			b.WriteString("| ")
		}
		switch {
		case ph.rows != nil:
			fmt.Fprintf(&b, "region of %d and %d", len(ph.rows), len(ph.sums))
		case ph.instr >= 0:
			b.WriteString(string(m.p.Instrs[ph.instr].Op))
		case ph.instr == instrPack:
			b.WriteString("pack")
		default:
			fmt.Fprint(&b, "door ", ph.instr)
		}
		b.WriteString("; ")
	}
	return strings.TrimSuffix(b.String(), "; ")
}

// TestAStepIsOneRegion pins the plan of a training step: everything from Gather to the last gradient is one region,
// with the gradients of the weights as its sums; a barrier before the weights are updated, and one before they are
// packed.
func TestAStepIsOneRegion(t *testing.T) {
	e := newExec(&Backend{threads: 2, kernels: portableKernels()}, mlp{widths: []int{15, 128, 128}, batch: 1024, evalRows: 10}.set())
	defer e.Close()
	want := "accumulate; fill; region of 13 and 6; | bce_with_logits; accumulate; adamw; adamw; adamw; adamw; adamw; adamw; | pack; pack; pack"
	if got := shape(e.train); got != want {
		t.Errorf("a step is\n%s, want\n%s", got, want)
	}
	if got := shape(e.forward); got != "region of 5 and 0" || !e.forward.stream {
		t.Errorf("forward is %s", got)
	}
}

// TestBlocksOfAnySize: blocks much smaller than the batch, so that rings wrap, and any number of threads: the bits of
// one block.
func TestBlocksOfAnySize(t *testing.T) {
	for _, c := range []mlp{
		{widths: []int{5, 33, 16}, batch: 257, rest: 101, evalRows: 10, dropout: 0.25, detour: true},
		{widths: []int{4, 130, 9}, batch: 300, rest: 7, evalRows: 31, silu: true, dropout: 0.1},
	} {
		const steps = 5
		s, d := c.set(), planted(2*c.batch+c.rest, c.widths[0], steps, 0.01)
		var want program.Tensors
		var wantSlots []float64
		var wantOut []float32
		for _, block := range []int{0, 8, 16, 40, 1000} {
			for _, threads := range []int{1, 2, 3, 8} {
				for _, k := range paths() {
					if k.name == "cpu-portable" && block != 16 {
						continue
					}
					e := newExec(&Backend{threads: threads, kernels: k, always: true, block: block}, s)
					if err := e.Import(s.Initial(d.Seed)); err != nil {
						t.Fatal(err)
					}
					if err := e.Bind(d); err != nil {
						t.Fatal(err)
					}
					ts, slots := trained(t, e, 0, steps)
					out := make([]float32, d.Columns[0].Rows)
					if err := e.Eval(program.Range{From: 0, To: len(out)}, out); err != nil {
						t.Fatal(err)
					}
					e.Close()
					if want == nil {
						want, wantSlots, wantOut = ts, slots, out
					}
					what := fmt.Sprintf("%s, widths %v, blocks of %d, %d threads", k.name, c.widths, block, threads)
					if err := sameTensors(ts, want); err != nil {
						t.Errorf("%s: %v", what, err)
					}
					if err := same(out, wantOut); err != nil {
						t.Errorf("%s: outputs: %v", what, err)
					}
					for i := range slots {
						if slots[i] != wantSlots[i] {
							t.Errorf("%s: slot %d is %v, want %v", what, i, slots[i], wantSlots[i])
						}
					}
				}
			}
		}
	}
}
