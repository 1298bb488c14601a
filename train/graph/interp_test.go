package graph

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/train/program"
)

// interp runs programs in float64, the plainest way. It keeps temporaries as slices of one arena at
// their offsets, so that a fault of the plan shows as wrong numbers.
type interp struct {
	set   *program.Set
	store map[string][]float64 // params and state
	slots map[string]float64
	cols  map[string][]float64
	seed  uint64
	first int // row of the columns where the batch begins; no shuffle
	step  int // counts from 0
	rate  float64
	exact bool // hold temps in memory of their own, without the arena
}

func newInterp(set *program.Set, seed uint64) *interp {
	it := &interp{set: set, store: map[string][]float64{}, slots: map[string]float64{}, cols: map[string][]float64{}, seed: seed}
	for _, t := range set.Initial(seed) {
		it.store[t.Name] = widen(t.F32)
	}
	for _, t := range set.Consts {
		it.store[t.Name] = constants(t.Name, t.Shape[0])
	}
	return it
}

// constants are the values of the vectors "cdf" and "logq".
func constants(name string, n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = float64(float32(float64(i+1) * float64(i+2) / float64(n*(n+1))))
		if name == "logq" {
			x[i] = float64(float32(math.Log(2 * float64(i+1) / float64(n*(n+1)))))
		}
	}
	return x
}

func widen(x []float32) []float64 {
	y := make([]float64, len(x))
	for i, v := range x {
		y[i] = float64(v)
	}
	return y
}

// run executes a program and returns what its Input and Output buffers hold at the end.
func (it *interp) run(t testing.TB, p *program.Program, inputs map[string][]float64) map[string][]float64 {
	t.Helper()
	arena := make([]float64, p.Arena/4+1)
	for i := range arena {
		arena[i] = math.NaN() // what is read before it is written poisons the result
	}
	named := map[string][]float64{}
	bufs := make([][]float64, len(p.Buffers))
	for i := range p.Buffers {
		b := &p.Buffers[i]
		switch b.Kind {
		case program.Temp:
			bufs[i] = arena[b.Offset/4:][:b.Len()]
			if it.exact {
				bufs[i] = make([]float64, b.Len())
			}
		case program.Param, program.State, program.Const:
			if len(it.store[b.Name]) != b.Len() {
				t.Fatalf("%s: %s has %d elements, want %d", p.Name, b.Name, len(it.store[b.Name]), b.Len())
			}
			bufs[i] = it.store[b.Name]
		case program.Input:
			bufs[i] = make([]float64, b.Len())
			if x, ok := inputs[b.Name]; ok {
				copy(bufs[i], x)
			}
			named[b.Name] = bufs[i]
		case program.Output:
			bufs[i] = make([]float64, b.Len())
			named[b.Name] = bufs[i]
		case program.Slot:
			bufs[i] = make([]float64, 1)
		}
	}
	for _, in := range p.Instrs {
		args := make([]operand, len(in.Args))
		for k, a := range in.Args {
			args[k] = operand{bufs[a], p.Buffers[a].Shape}
		}
		outs := make([]operand, len(in.Outs))
		for k, o := range in.Outs {
			outs[k] = operand{bufs[o], p.Buffers[o].Shape}
		}
		if err := it.instr(in, args, outs); err != nil {
			t.Fatalf("%s: %s %s: %v", p.Name, in.Op, in.Node, err)
		}
	}
	for i := range p.Buffers {
		if p.Buffers[i].Kind == program.Slot {
			it.slots[p.Buffers[i].Name] += bufs[i][0]
		}
	}
	return named
}

type operand struct {
	x     []float64
	shape []int
}

func (o operand) at(i, j int) float64 { return o.x[i*o.shape[1]+j] }

func (it *interp) instr(in program.Instr, a, y []operand) error {
	at := in.Attr
	out := y[0].x
	switch in.Op {
	case program.Gather:
		copy(out, it.cols[at.Column][it.first*y[0].shape[1]:])
	case program.MatMul:
		n, inner := y[0].shape[1], a[0].shape[1]
		if at.TransA {
			inner = a[0].shape[0]
		}
		for i := range y[0].shape[0] {
			for j := range n {
				s := 0.0
				for k := range inner {
					u, v := 0.0, 0.0
					if at.TransA {
						u = a[0].at(k, i)
					} else {
						u = a[0].at(i, k)
					}
					if at.TransB {
						v = a[1].at(j, k)
					} else {
						v = a[1].at(k, j)
					}
					s += u * v
				}
				if len(a) == 3 {
					s += a[2].x[j]
				}
				if at.Act == program.Relu && s < 0 {
					s = 0
				}
				if at.Act == program.Silu {
					s *= .5 + .5*math.Tanh(s/2)
				}
				out[i*n+j] = s
			}
		}
	case program.Activate:
		if at.Act != program.Silu {
			return fmt.Errorf("no layer makes activation %q", at.Act)
		}
		for i, z := range a[0].x {
			out[i] = z * (.5 + .5*math.Tanh(z/2))
		}
	case program.ActGrad:
		for i := range out {
			d, x := a[0].x[i], a[1].x[i]
			switch {
			case at.Act == program.Silu: // y' = s + y (1-s), s by another formula than the kernels'
				s := .5 + .5*math.Tanh(x/2)
				d *= s + x*s*(1-s)
			case !(x > 0):
				d = 0
			}
			out[i] = d
		}
	case program.ColSum:
		clear(out)
		for i := range a[0].shape[0] {
			for j := range out {
				out[j] += a[0].at(i, j)
			}
		}
	case program.Add:
		for i := range out {
			out[i] = a[0].x[i] + a[1].x[i]
		}
	case program.Scale:
		for i := range out {
			out[i] = float64(at.Scale) * a[0].x[i]
		}
	case program.Fill:
		for i := range out {
			out[i] = float64(at.Scale)
		}
	case program.Dropout:
		for i := range out {
			u := program.Uniforms4(it.seed, uint32(it.step), at.Site, uint64(i/4))[i%4]
			if u >= at.Rate {
				out[i] = a[0].x[i] / float64(1-at.Rate)
			} else {
				out[i] = 0
			}
		}
	case program.Concat:
		n, from := y[0].shape[1], 0
		for _, x := range a {
			for i := range x.shape[0] {
				copy(out[i*n+from:], x.x[i*x.shape[1]:(i+1)*x.shape[1]])
			}
			from += x.shape[1]
		}
	case program.Slice:
		for i := range y[0].shape[0] {
			copy(out[i*(at.To-at.From):], a[0].x[i*a[0].shape[1]+at.From:i*a[0].shape[1]+at.To])
		}
	case program.SliceGrad:
		clear(out)
		for i := range y[0].shape[0] {
			copy(out[i*y[0].shape[1]+at.From:], a[0].x[i*a[0].shape[1]:(i+1)*a[0].shape[1]])
		}
	case program.BCE:
		s := 0.0
		for i, z := range a[0].x {
			l := math.Max(z, 0) - z*a[1].x[i] + math.Log1p(math.Exp(-math.Abs(z)))
			s += a[2].x[i] * l
		}
		out[0] = s / float64(len(a[0].x))
	case program.BCEGrad:
		for i, z := range a[0].x {
			out[i] = a[3].x[0] * a[2].x[i] * (1/(1+math.Exp(-z)) - a[1].x[i]) / float64(len(a[0].x))
		}
	case program.Accumulate:
		x := 1.0
		if len(a) > 0 {
			x = a[0].x[0]
		}
		out[0] += x * float64(at.Scale)
	case program.Lookup:
		clear(out)
		for i := range y[0].shape[0] {
			rows := picked(a[1], i)
			for _, r := range rows {
				for c := range y[0].shape[1] {
					out[i*y[0].shape[1]+c] += a[0].at(r, c) / float64(len(rows))
				}
			}
		}
	case program.Sample:
		for j := range out {
			u := float64(program.Uniforms4(it.seed, uint32(it.step), at.Site, uint64(j/4))[j%4])
			out[j] = 0
			for _, c := range a[0].x {
				if c <= u {
					out[j]++
				}
			}
		}
	case program.RowDot:
		for i := range out {
			out[i] = 0
			for c := range a[0].shape[1] {
				out[i] += a[0].at(i, c) * a[1].at(i, c)
			}
		}
	case program.RowScale:
		for i := range out {
			out[i] = a[0].x[i] * a[1].x[i/a[0].shape[1]]
		}
	case program.SampledSoftmax:
		out[0] = 0
		for i := range a[0].x {
			out[0] += softmaxTerm(a, i, a[0].x[i], a[1].x[i*a[1].shape[1]:]) / float64(len(a[0].x))
		}
	case program.SampledSoftmaxGrad: // by differences: softmaxTerm is smooth
		k := a[1].shape[1]
		for i, pos := range a[0].x {
			neg := slices.Clone(a[1].x[i*k : (i+1)*k])
			slope := func(at *float64, term func() float64) float64 {
				const eps = 1e-3
				x := *at
				f := func(d float64) float64 { *at = x + d*eps; return term() }
				g := (8*(f(1)-f(-1)) - f(2) + f(-2)) / (12 * eps)
				*at = x
				return a[6].x[0] * g / float64(len(a[0].x))
			}
			term := func() float64 { return softmaxTerm(a, i, pos, neg) }
			out[i] = slope(&pos, term)
			for j := range neg {
				y[1].x[i*k+j] = slope(&neg[j], term)
			}
		}
	case program.LookupDot, program.LookupWeighted:
		clear(out)
		for i := range a[1].shape[0] {
			for j := range a[1].shape[1] {
				r := int(a[1].at(i, j))
				for c := 0; r >= 0 && c < a[0].shape[1]; c++ {
					if in.Op == program.LookupDot {
						out[i*a[1].shape[1]+j] += a[0].at(r, c) * a[2].at(i, c)
					} else {
						out[i*a[0].shape[1]+c] += a[0].at(r, c) * a[2].at(i, j)
					}
				}
			}
		}
	case program.CandidateSoftmax, program.CandidateBPR:
		out[0] = 0
		for i := range a[0].shape[0] {
			out[0] += candidateTerm(in.Op, a, i, a[0].x[i*a[0].shape[1]:]) / float64(a[0].shape[0])
		}
	case program.CandidateSoftmaxGrad, program.CandidateBPRGrad: // by differences
		loss := program.CandidateSoftmax
		if in.Op == program.CandidateBPRGrad {
			loss = program.CandidateBPR
		}
		operands := append(slices.Clone(a[:3]), a[4:]...)
		m, w := a[0].shape[0], a[0].shape[1]
		for i := range m {
			s := slices.Clone(a[0].x[i*w : (i+1)*w])
			for j := range s {
				const eps = 1e-3
				x := s[j]
				f := func(d float64) float64 { s[j] = x + d*eps; return candidateTerm(loss, operands, i, s) }
				out[i*w+j] = a[3].x[0] * (8*(f(1)-f(-1)) - f(2) + f(-2)) / (12 * eps) / float64(m)
				s[j] = x
			}
		}
	case program.Pinball:
		out[0] = 0
		for i, f := range a[0].x {
			q := at.Levels.Len()
			l, s := i%q, i/q
			if d := a[1].x[s] - f; d > 0 {
				out[0] += a[2].x[s] * d * float64(at.Levels[l]) / float64(len(a[0].x))
			} else {
				out[0] -= a[2].x[s] * d * (1 - float64(at.Levels[l])) / float64(len(a[0].x))
			}
		}
	case program.PinballGrad:
		for i, f := range a[0].x {
			q := at.Levels.Len()
			below := 0.0
			if f > a[1].x[i/q] {
				below = 1
			}
			out[i] = a[3].x[0] * a[2].x[i/q] * (below - float64(at.Levels[i%q])) / float64(len(a[0].x))
		}
	case program.RowAdam:
		d := y[0].shape[1]
		dense, touched := make([]float64, len(out)), map[int]bool{}
		uses := at.Uses
		if uses == "" {
			uses = strings.Repeat("l", len(a)/2)
		}
		for _, letter := range uses {
			idx, last := a[0], a[1]
			if letter == 's' {
				last = a[2]
			}
			for i := range idx.shape[0] {
				rows := picked(idx, i)
				for k, r := range rows {
					touched[r] = true
					factor := 1 / float64(len(rows))
					if letter == 's' {
						factor = a[1].at(i, places(idx, i)[k])
					}
					for c := range d {
						dense[r*d+c] += last.at(i, c) * factor
					}
				}
			}
			if a = a[2:]; letter == 's' {
				a = a[1:]
			}
		}
		for r := range touched {
			lo, hi := r*d, (r+1)*d
			adamw(at, it.rate, it.step+1, dense[lo:hi], out[lo:hi], y[1].x[lo:hi], y[2].x[lo:hi])
		}
	case program.AdamW:
		adamw(at, it.rate, it.step+1, a[0].x, out, y[1].x, y[2].x)
	default:
		return fmt.Errorf("the interpreter lacks it")
	}
	return nil
}

func adamw(at program.Attr, lr float64, t int, g, p, m, v []float64) {
	c1, c2 := 1-math.Pow(at.Beta1, float64(t)), 1-math.Pow(at.Beta2, float64(t))
	for i := range p {
		m[i] = at.Beta1*m[i] + (1-at.Beta1)*g[i]
		v[i] = at.Beta2*v[i] + (1-at.Beta2)*g[i]*g[i]
		p[i] -= lr * (m[i]/c1/(math.Sqrt(v[i]/c2)+at.Eps) + at.Decay*p[i])
	}
}

// picked are the rows of a table that row i of an index names.
func picked(idx operand, i int) []int {
	var rows []int
	for j := range idx.shape[1] {
		if r := int(idx.at(i, j)); r >= 0 {
			rows = append(rows, r)
		}
	}
	return rows
}

// places are those in row i of an index that name a row of a table.
func places(idx operand, i int) []int {
	var js []int
	for j := range idx.shape[1] {
		if idx.at(i, j) >= 0 {
			js = append(js, j)
		}
	}
	return js
}

// candidateTerm is the weighted loss of row i with its scores as given.
func candidateTerm(kind program.Op, a []operand, i int, s []float64) float64 {
	first := a[1].at(i, 0)
	if first < 0 {
		return 0
	}
	sum, pairs := 1.0, 0.0
	for j := 1; j < a[1].shape[1]; j++ {
		x := a[1].at(i, j)
		if x < 0 || x == first {
			continue
		}
		d := s[j] - s[0]
		if len(a) > 3 {
			d += a[3].x[int(first)] - a[3].x[int(x)]
		}
		sum += math.Exp(d)
		pairs += math.Log1p(math.Exp(d))
	}
	if kind == program.CandidateBPR {
		return a[2].x[i] * pairs / float64(a[1].shape[1]-1)
	}
	return a[2].x[i] * math.Log(sum)
}

// softmaxTerm is the weighted loss of row i with its logits as given.
func softmaxTerm(a []operand, i int, pos float64, neg []float64) float64 {
	item := a[2].x[i]
	if item < 0 {
		return 0
	}
	sum := 1.0
	for j, other := range a[3].x {
		if other != item && other >= 0 {
			sum += math.Exp(neg[j] - a[4].x[int(other)] - pos + a[4].x[int(item)])
		}
	}
	return a[5].x[i] * math.Log(sum)
}
