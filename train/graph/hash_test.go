package graph

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/train/program"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// What Gorgonia would merge stays apart: two dropouts, slices whose bounds agree in their low byte, the
// halves of a wide matrix, parameters of equal shape, scales that print alike.
func TestLookAlikesStayApart(t *testing.T) {
	b := newBuilder(4, true, tensor.Float64)
	x := b.Param("x", "zero", 4, 512)
	alike := map[string][]*Node{
		"dropouts":   {b.Dropout(x, .5), b.Dropout(x, .5)},
		"slices":     {b.Slice(x, 0, 10), b.Slice(x, 256, 266)},
		"halves":     {b.Slice(x, 0, 256), b.Slice(x, 256, 512)},
		"parameters": {b.Param("p", "zero", 4, 512), b.Param("q", "zero", 4, 512)},
		"scales":     {b.Scale(x, 1), b.Scale(x, 1+1e-7)},
		"denses":     {b.Dense("a", x, 3, program.Relu, "zero"), b.Dense("b", x, 3, program.Relu, "zero")},
	}
	if b.err != nil {
		t.Fatal(b.err)
	}
	at := leaves(b, rand.New(rand.NewPCG(1, 1)))
	for name, pair := range alike {
		if pair[0] == pair[1] {
			t.Errorf("%s are one node", name)
			continue
		}
		v := evaluate(t, at, pair...)
		if slices.Equal(numbers(v[pair[0]]), numbers(v[pair[1]])) {
			t.Errorf("%s have one value", name)
		}
	}
	ids := map[uint32]string{}
	for _, n := range b.g.AllNodes() {
		if o, ours := n.Op().(*op); ours {
			if ids[o.Hashcode()] != "" {
				t.Errorf("%s and %s hash alike", n.Name(), ids[o.Hashcode()])
			}
			ids[o.Hashcode()] = n.Name()
		}
	}
}

// TestHashesHaveEveryAttribute changes one attribute at a time, the id kept.
func TestHashesHaveEveryAttribute(t *testing.T) {
	base := op{id: 1, kind: program.Slice, attr: program.Attr{From: 0, To: 10}, width: 300, output: tensor.Shape{4, 10}}
	sum := func(o op) string {
		h := &recorder{}
		o.WriteHash(h)
		return string(h.b)
	}
	seen := map[string]int{}
	for i, change := range []func(*op){
		func(*op) {},
		func(o *op) { o.id = 257 },
		func(o *op) { o.attr.From, o.attr.To = 256, 266 },
		func(o *op) { o.attr.Site = 1 << 24 },
		func(o *op) { o.attr.Rate = .5 },
		func(o *op) { o.attr.Scale = 1 },
		func(o *op) { o.attr.Scale = 1.0000001 },
		func(o *op) { o.attr.TransA = true },
		func(o *op) { o.attr.TransB = true },
		func(o *op) { o.attr.Act = program.Relu },
		func(o *op) { o.width = 556 },
		func(o *op) { o.kind = program.SliceGrad },
		func(o *op) { o.output = tensor.Shape{260, 10} },
	} {
		o := base
		change(&o)
		h := sum(o)
		if j, dup := seen[h]; dup {
			t.Errorf("changes %d and %d write one hash: %q", i, j, h)
		}
		seen[h] = i
	}
}

type recorder struct{ b []byte }

func (r *recorder) Write(p []byte) (int, error) { r.b = append(r.b, p...); return len(p), nil }
func (r *recorder) Sum(b []byte) []byte         { return append(b, r.b...) }
func (r *recorder) Reset()                      { r.b = nil }
func (r *recorder) Size() int                   { return len(r.b) }
func (r *recorder) BlockSize() int              { return 1 }

// TestTowersAreIndependent holds each of eight towers to a lone tower with the same weights and the same
// dropout: nothing of one may leak into another.
func TestTowersAreIndependent(t *testing.T) {
	const rows = 16
	opts := Options{Batch: rows, Rows: rows, Tile: 4, Optimizer: adam}
	lone := func(b *Builder) (Model, error) {
		m, err := towers(1)(b)
		return m, err
	}
	for k := 2; k <= 8; k++ {
		set, err := Compile(towers(k), opts)
		if err != nil {
			t.Fatal(err)
		}
		many := newInterp(set, 1)
		many.cols, many.rate = data(rows), .01
		weights := map[string][]float64{}
		for n, x := range many.store {
			weights[n] = slices.Clone(x)
		}
		many.run(t, set.Train, nil)
		total := 0.0
		for i := range k {
			one, err := Compile(lone, opts)
			if err != nil {
				t.Fatal(err)
			}
			for j := range one.Train.Instrs { // the dropouts of tower i
				if in := &one.Train.Instrs[j]; in.Op == program.Dropout {
					in.Attr.Site += uint32(2 * i)
				}
			}
			it := newInterp(one, 1)
			it.cols, it.rate = many.cols, .01
			as := func(name string) string {
				return strings.Replace(name, "tower0/", fmt.Sprintf("tower%d/", i), 1)
			}
			for name := range it.store {
				it.store[name] = slices.Clone(weights[as(name)])
			}
			it.run(t, one.Train, nil)
			for name, x := range it.store {
				near(t, fmt.Sprintf("%d towers: %s", k, as(name)), many.store[as(name)], x, 1e-12)
			}
			total += it.slots["loss"]
		}
		near(t, "sum of losses", []float64{many.slots["loss"]}, []float64{total}, 1e-12)
	}
}

// TestVerifySeesAMergedGradient plants what a hash collision would do.
func TestVerifySeesAMergedGradient(t *testing.T) {
	b := newBuilder(4, true, tensor.Float32)
	m, err := everything(b)
	if err = errors.Join(b.err, err); err != nil {
		t.Fatal(err)
	}
	if _, err := b.gradients(m.Loss); err != nil {
		t.Fatal(err)
	}
	all, err := reachable([]*Node{m.Loss})
	if err != nil {
		t.Fatal(err)
	}
	planted := 0
	for _, n := range all {
		right := n.Deriv()
		if right == nil || n == m.Loss {
			continue
		}
		for _, wrong := range all {
			if wrong.Deriv() != nil && wrong.Deriv() != right {
				gorgonia.SetDerivOf(wrong.Deriv(), n)
				if err := b.verify(m.Loss, all); err == nil {
					t.Errorf("gradient of %s replaced by that of %s: not seen", n.Name(), wrong.Name())
				}
				gorgonia.SetDerivOf(right, n)
				planted++
				break
			}
		}
	}
	if planted < 10 {
		t.Errorf("only %d faults planted", planted)
	}
	if err := b.verify(m.Loss, all); err != nil {
		t.Errorf("restored: %v", err)
	}
}

// collide finds two parameter names for which Gorgonia's 32-bit hash agrees, by the birthday paradox.
func collide(t *testing.T, dims ...int) (p, q string) {
	t.Helper()
	b := newBuilder(4, true, tensor.Float32)
	n := b.Param("n", "zero", dims...)
	prefix := fmt.Sprintf("%v%v", n.Type(), n.Shape())
	seen := map[uint32]string{}
	for i := range 1 << 20 {
		name := fmt.Sprintf("p%d", i)
		h := fnv.New32a()
		fmt.Fprint(h, prefix, name, "\x00")
		other, dup := seen[h.Sum32()]
		if !dup {
			seen[h.Sum32()] = name
			continue
		}
		if b.Param(name, "zero", dims...).Hashcode() != b.Param(other, "zero", dims...).Hashcode() {
			t.Fatal("Gorgonia hashes in another way than this test")
		}
		return other, name
	}
	t.Fatal("no collision found")
	return "", ""
}

// TestCollisions: parameters whose hashes agree make Gorgonia merge what is computed from them. That is
// seen where a layer makes the node, and where Grad does; our own ops are not touched by it.
func TestCollisions(t *testing.T) {
	p, q := collide(t, 3, 3)
	end := func(b *Builder, h *Node) (Model, error) {
		z := b.Dense("out", h, 1, program.None, "he_uniform")
		return Model{Loss: b.BCEWithLogits(z, b.Input("y", 1), b.Input("w", 1)), Output: z}, nil
	}
	opts := Options{Batch: 4, Rows: 4, Tile: 2, Optimizer: adam}
	for name, c := range map[string]struct {
		build func(b *Builder) (Model, error)
		want  string
	}{
		"layer": {func(b *Builder) (Model, error) {
			x := b.Input("x", 3)
			return end(b, b.Add(b.MatMul(x, b.Param(p, "he_uniform", 3, 3)), b.MatMul(x, b.Param(q, "he_uniform", 3, 3))))
		}, "matmul of x and " + q},
		"gradient": {func(b *Builder) (Model, error) {
			x := b.Dense("l", b.Input("x", 3), 3, program.None, "he_uniform")
			left := b.MatMul(x, b.Param(p, "he_uniform", 3, 3))
			right := b.MatMul(b.Scale(x, 2), b.Param(q, "he_uniform", 3, 3))
			return end(b, b.Add(left, right))
		}, "gradient of "},
	} {
		_, err := Compile(c.build, opts)
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "rename a layer") {
			t.Errorf("%s: got %v, want %q and what to do", name, err, c.want)
		}
	}
	holdToGraph(t, func(b *Builder) (Model, error) {
		x := b.Input("x", 3)
		left := b.Scale(b.Param(p, "he_uniform", 3, 3), 2)
		right := b.Scale(b.Param(q, "he_uniform", 3, 3), 2)
		return end(b, b.Concat(b.MatMul(x, left), b.MatMul(x, right)))
	}, 4)
}
