package traintest

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/train/program"
)

// gradientLimit is how far a derivative by differences may be from the gradient's, in units of the gradient's length:
// losses are float32, and a loss with kinks has no second derivative to be small.
const gradientLimit = 0.02

// Gradients holds the gradient of every parameter in the first step to differences of the loss, along the gradient
// and along random directions of signs. Both come from the compiled program alone: with a rate of 0 a step leaves the
// parameters as they are, its loss is in the slot and its gradient in the optimizer's first moment.
func Gradients(t testing.TB, c Case) {
	t.Helper()
	c.Data.Rates = []float32{0}
	start := c.start()
	e := open(t, Processor(t, 1), c, start)
	base := losses(&c, run(t, &c, e, 0, 1))[0]
	moments := export(t, e)
	beta1 := firstDecay(t, &c)
	r := rand.New(rand.NewPCG(11, 12))
	for _, p := range c.Set.Params {
		m := moments.Find(p.Name + ".adam_m")
		if m == nil {
			t.Errorf("parameter %s is not trained", p.Name)
			continue
		}
		g := make([]float64, len(m.F32))
		length := 0.0
		for i, x := range m.F32 {
			g[i] = float64(x) / (1 - beta1)
			length += g[i] * g[i]
		}
		length = math.Sqrt(length)
		if !(length > 0) {
			t.Errorf("%s: the gradient is 0", p.Name)
			continue
		}
		directions := [][]float64{slices.Clone(g)}
		for i := range directions[0] {
			directions[0][i] /= length
		}
		for range 3 {
			signs := make([]float64, len(g))
			for i := range signs {
				signs[i] = float64(2*r.IntN(2) - 1)
			}
			directions = append(directions, signs)
		}
		for k, d := range directions {
			dot, size := 0.0, 0.0
			for i := range d {
				dot += g[i] * d[i]
				size = max(size, math.Abs(d[i]))
			}
			// Steps that move the loss by so much of itself: far above its rounding, yet so little that few rows go
			// over a kink. The smaller one is for where they do all the same. No parameter moves by more than a
			// hundredth.
			var eps, got, noise float64
			for _, move := range []float64{3e-5, 8e-6} {
				eps = min(move*math.Abs(base)/max(math.Abs(dot), length), 1e-2/size)
				got = (c.lossAt(t, e, start, p.Name, d, eps) - c.lossAt(t, e, start, p.Name, d, -eps)) / (2 * eps)
				noise = 1e-7 * math.Abs(base) / eps
				if math.Abs(got-dot) <= gradientLimit*length+noise {
					break
				}
			}
			if !(math.Abs(got-dot) <= gradientLimit*length+noise) {
				t.Errorf("%s, direction %d: the gradient gives %v, differences of the loss %v (the gradient's length is %v)",
					p.Name, k, dot, got, length)
			}
			if noise > length {
				t.Errorf("%s: the gradient, of length %v, is lost in the rounding of the loss %v: take another seed",
					p.Name, length, base)
			}
		}
	}
}

// lossAt is the loss of step 0 with one parameter moved along a direction.
func (c *Case) lossAt(t testing.TB, e program.Exec, start program.Tensors, name string, direction []float64,
	by float64) float64 {
	t.Helper()
	ts := slices.Clone(start)
	p := ts.Find(name)
	p.F32 = slices.Clone(p.F32)
	for i := range p.F32 {
		p.F32[i] += float32(by * direction[i])
	}
	if err := e.Import(ts); err != nil {
		t.Fatal(err)
	}
	return losses(c, run(t, c, e, 0, 1))[0]
}

// firstDecay is beta1 of the optimizer.
func firstDecay(t testing.TB, c *Case) float64 {
	t.Helper()
	for _, in := range c.Set.Train.Instrs {
		if in.Op == program.AdamW || in.Op == program.RowAdam {
			if in.Attr.Beta1 >= 1 || !strings.HasSuffix(c.Set.Train.Buffers[in.Outs[1]].Name, ".adam_m") {
				t.Fatalf("optimizer %+v", in)
			}
			return in.Attr.Beta1
		}
	}
	t.Fatal("nothing is trained")
	return 0
}
