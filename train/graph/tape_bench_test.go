package graph

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// BenchmarkTapeMachine trains the networks of onmart bench train as a program that uses Gorgonia alone does: its own
// ops, TapeMachine with dual values, its AdamSolver. Its figure is rows a second.
func BenchmarkTapeMachine(b *testing.B) {
	for _, widths := range [][]int{{32, 128, 128, 1}, {15, 500, 1}} {
		for _, batch := range []int{64, 1024, 8192} {
			b.Run(fmt.Sprintf("%v/%d", widths, batch), func(b *testing.B) { benchTape(b, widths, batch) })
		}
	}
}

func benchTape(b *testing.B, widths []int, batch int) {
	g := gorgonia.NewGraph()
	matrix := func(name string, rows, cols int) *gorgonia.Node {
		return gorgonia.NewMatrix(g, gorgonia.Float32, gorgonia.WithShape(rows, cols), gorgonia.WithName(name),
			gorgonia.WithInit(gorgonia.GlorotU(1)))
	}
	x, y := matrix("x", batch, widths[0]), matrix("y", batch, 1)
	h, weights := x, gorgonia.Nodes{}
	for l := range len(widths) - 1 {
		w, c := matrix(fmt.Sprint("w", l), widths[l], widths[l+1]), matrix(fmt.Sprint("b", l), 1, widths[l+1])
		weights = append(weights, w, c)
		h = gorgonia.Must(gorgonia.BroadcastAdd(gorgonia.Must(gorgonia.Mul(h, w)), c, nil, []byte{0}))
		if l < len(widths)-2 {
			h = gorgonia.Must(gorgonia.Rectify(h))
		}
	}
	// The cross-entropy of a logit z: log(1 + e^z) - z y.
	loss := gorgonia.Must(gorgonia.Mean(gorgonia.Must(gorgonia.Sub(gorgonia.Must(gorgonia.Softplus(h)),
		gorgonia.Must(gorgonia.HadamardProd(h, y))))))
	if _, err := gorgonia.Grad(loss, weights...); err != nil {
		b.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 1))
	var xs, ys []*tensor.Dense
	for range 8 {
		u, v := make([]float32, batch*widths[0]), make([]float32, batch)
		for i := range u {
			u[i] = float32(r.NormFloat64())
		}
		for i := range v {
			v[i] = float32(r.IntN(2))
		}
		xs = append(xs, tensor.New(tensor.WithShape(batch, widths[0]), tensor.WithBacking(u)))
		ys = append(ys, tensor.New(tensor.WithShape(batch, 1), tensor.WithBacking(v)))
	}
	machine := gorgonia.NewTapeMachine(g, gorgonia.BindDualValues(weights...))
	defer machine.Close()
	solver := gorgonia.NewAdamSolver(gorgonia.WithLearnRate(1e-3))
	step := 0
	b.ReportAllocs()
	for b.Loop() {
		if err := gorgonia.Let(x, xs[step%8]); err != nil {
			b.Fatal(err)
		}
		if err := gorgonia.Let(y, ys[step%8]); err != nil {
			b.Fatal(err)
		}
		if err := machine.RunAll(); err != nil {
			b.Fatal(err)
		}
		if err := solver.Step(gorgonia.NodesToValueGrads(weights)); err != nil {
			b.Fatal(err)
		}
		machine.Reset()
		step++
	}
	b.ReportMetric(float64(b.N*batch)/b.Elapsed().Seconds(), "rows/s")
}
