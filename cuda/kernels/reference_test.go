package kernels

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// fma32 against exact arithmetic, with operands of all sizes and sums that nearly cancel or tie.
func TestFMA32(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 200_000 {
		x, y := random32(r), random32(r)
		z := random32(r)
		switch i % 4 {
		case 1:
			z = -float32(float64(x) * float64(y))
		case 2: // half a unit of z beside it
			z = math.Float32frombits(r.Uint32()&0x007FFFFF | uint32(127+r.IntN(20))<<23)
			x, y = 0x1p-12, math.Float32frombits(math.Float32bits(z)&0x7F800000)*0x1p-12
		case 3: // less than half a unit, by what float64 cannot hold beside z
			z = math.Float32frombits(r.Uint32()&0x007FFFFF | uint32(127+r.IntN(20))<<23)
			x, y = 0x1p-12*(1+0x1p-23), math.Float32frombits(math.Float32bits(z)&0x7F800000)*0x1p-12*(1-0x1p-23)
		}
		want, _ := new(big.Float).SetPrec(600).Add(exactProduct(x, y), big.NewFloat(float64(z))).Float32()
		if got := fma32(x, y, z); got != want {
			t.Fatalf("fma32(%x, %x, %x) = %x, want %x", x, y, z, got, want)
		}
	}
	for _, c := range [][4]float32{
		{float32(math.Inf(1)), 1, 0, float32(math.Inf(1))},
		{3e38, 3e38, 0, float32(math.Inf(1))},
		{3e38, 2, float32(math.Inf(-1)), float32(math.Inf(-1))},
	} {
		if got := fma32(c[0], c[1], c[2]); got != c[3] {
			t.Errorf("fma32(%v, %v, %v) = %v, want %v", c[0], c[1], c[2], got, c[3])
		}
	}
	if got := fma32(float32(math.Inf(1)), 0, 1); got == got {
		t.Errorf("fma32(Inf, 0, 1) = %v, want NaN", got)
	}
}

func exactProduct(x, y float32) *big.Float {
	return new(big.Float).SetPrec(600).Mul(big.NewFloat(float64(x)), big.NewFloat(float64(y)))
}

// random32 is any finite float32 of exponents that keep a product finite.
func random32(r *rand.Rand) float32 {
	return math.Float32frombits(r.Uint32()&0x807FFFFF | uint32(70+r.IntN(110))<<23)
}

// The references that are polynomials against float64: what ops.go and train/program say of silu, and of the loss.
func TestReferencesAgainstFloat64(t *testing.T) {
	worst := map[string]float64{}
	note := func(name string, got float32, want, scale float64) {
		unit := math.Abs(scale) * 0x1p-23
		if unit == 0 {
			return
		}
		worst[name] = max(worst[name], math.Abs(float64(got)-want)/unit)
	}
	sigmoid := func(z float64) float64 { return 1 / (1 + math.Exp(-z)) }
	for z := float32(-87); z <= 87; z += 0x1p-8 + z*z*1e-7 {
		d := float64(z)
		s := sigmoid(d)
		note("silu", refSilu(z), d*s, d*s)
		note("silu gradient", refSiluGrad(1, z), s*(1+d*(1-s)), s*(1+math.Abs(d)*(1-s)))
		l := math.Log1p(math.Exp(-math.Abs(d)))
		for _, target := range []float32{0, 1, 0.25} {
			want := max(d, 0) - d*float64(target) + l
			note("loss", refBCETerm(z, target, 1), want, max(want, math.Abs(d*float64(target)))) // z t is rounded by itself
			rest := sigmoid(-d)
			g := (1-float64(target))*s - float64(target)*rest
			note("loss gradient", refBCEGrad(z, target, 1, 1, 1), g, max((1-float64(target))*s, float64(target)*rest))
		}
	}
	for s := float32(1); s < 1<<25; s += s * 0x1p-12 {
		want := math.Log(float64(s))
		note("logarithm", refLogOf(s), want, 1+want)
	}
	for z := float32(0); z <= 87; z += 0x1p-10 {
		want := math.Exp(-float64(z))
		note("exponential", refExpBelow(z), want, want)
	}
	for name, most := range map[string]float64{"silu": 4, "logarithm": 1, "exponential": 3, "silu gradient": 6, "loss": 4, "loss gradient": 5} {
		if got, ok := worst[name]; !ok || !(got <= most) {
			t.Errorf("%s is up to %.2f units of 2^-23 off, want at most %v", name, got, most)
		}
	}
	t.Logf("units of 2^-23: %v", worst)
}

func TestUlps(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, c := range []struct {
		a, b float32
		want float64
	}{
		{1, 1, 0}, {1, 1 + 0x1p-23, 1}, {0, float32(math.Copysign(0, -1)), 1}, {-1e-45, 1e-45, 2},
		{nan, nan, 0}, {nan, 1, math.MaxFloat64}, {1, nan, math.MaxFloat64},
		{inf, inf, 0}, {math.MaxFloat32, inf, 1}, {-inf, inf, 2 * 0x7F800000},
	} {
		if got := ulps32(c.a, c.b); got != c.want {
			t.Errorf("ulps32(%v, %v) = %v, want %v", c.a, c.b, got, c.want)
		}
		if c.a != c.a || c.b != c.b || c.a == c.b && c.want == 0 {
			if got := ulps64(float64(c.a), float64(c.b)); got != c.want {
				t.Errorf("ulps64(%v, %v) = %v, want %v", c.a, c.b, got, c.want)
			}
		}
	}
	if got := ulps64(1, 1+0x1p-52); got != 1 {
		t.Errorf("ulps64 of neighbours is %v", got)
	}
}
