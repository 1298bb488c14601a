package cpu

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// TestBCEIsWithin holds both paths to float64 over all sizes of z, and to each other to the bit, odd lengths and NaN
// included.
func TestBCEIsWithin(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	var worstLoss, worstGrad float64
	unit := func(x float64) float64 { return math.Max(math.Ldexp(1, math.Ilogb(x)-23), 0x1p-149) }
	for _, n := range []int{1, 3, 17, 1023, 4096} {
		for round := range 40 {
			z, target, w := make([]float32, n), make([]float32, n), make([]float32, n)
			for i := range z {
				z[i] = float32(r.NormFloat64() * math.Ldexp(1, r.IntN(24)-16))
				target[i] = float32(r.IntN(2))
				if round%4 == 3 {
					target[i] = r.Float32()
				}
				w[i] = float32(r.ExpFloat64())
			}
			terms, dz := make([]float32, n), make([]float32, n)
			const c = 0x1.3p-7
			bcePortable(terms, z, target, w)
			bceGradPortable(dz, z, target, w, c)
			for i := range z {
				x, y, weight := float64(z[i]), float64(target[i]), float64(w[i])
				loss := weight * (math.Max(x, 0) - x*y + math.Log1p(math.Exp(-math.Abs(x))))
				worstLoss = math.Max(worstLoss, math.Abs(float64(terms[i])-loss)/unit(weight*(1+math.Abs(x))))
				if round%4 == 3 || math.Abs(x) > siluBound {
					continue
				}
				grad := c * weight / (1 + math.Exp(-x))
				if y == 1 {
					grad = -c * weight / (1 + math.Exp(x))
				}
				worstGrad = math.Max(worstGrad, math.Abs(float64(dz[i])-grad)/unit(grad))
			}
			for _, k := range paths() {
				got := make([]float32, n)
				k.bce(got, z, target, w)
				if err := same(got, terms); err != nil {
					t.Fatalf("%s, %d elements: loss: %v", k.name, n, err)
				}
				k.bceGrad(got, z, target, w, c)
				if err := same(got, dz); err != nil {
					t.Fatalf("%s, %d elements: gradient: %v", k.name, n, err)
				}
			}
		}
	}
	if !(worstLoss <= 3 && worstGrad <= 6) {
		t.Errorf("loss off by %.2f units, want 3; gradient by %.2f, want 6", worstLoss, worstGrad)
	}
	t.Logf("loss off by %.2f units, gradient by %.2f", worstLoss, worstGrad)
	for _, k := range paths() {
		for _, z := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
			for _, target := range []float32{0, 1} {
				out := make([]float32, 9)
				fill := func(x float32) (s []float32) {
					for range out {
						s = append(s, x)
					}
					return s
				}
				k.bce(out, fill(z), fill(target), fill(1))
				for i := range out {
					if !math.IsNaN(float64(out[i])) && !math.IsInf(float64(out[i]), 0) {
						t.Errorf("%s: the loss of %v is %v", k.name, z, out[i])
					}
				}
				if k.bceGrad(out, fill(z), fill(target), fill(1), 1); z != z && out[0] == out[0] {
					t.Errorf("%s: the gradient of NaN is %v", k.name, out[0])
				}
			}
		}
	}
}

func BenchmarkBCE(b *testing.B) {
	for _, k := range paths() {
		z, t, w, out := make([]float32, 1024), make([]float32, 1024), make([]float32, 1024), make([]float32, 1024)
		for name, run := range map[string]func(){"loss": func() { k.bce(out, z, t, w) }, "gradient": func() { k.bceGrad(out, z, t, w, 1) }} {
			b.Run(fmt.Sprintf("%s/%s", k.name, name), func(b *testing.B) {
				for b.Loop() {
					run()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(z)), "ns/element")
			})
		}
	}
}
