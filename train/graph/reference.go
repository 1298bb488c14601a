package graph

import (
	"fmt"
	"math"
	"slices"

	"github.com/onmart/onmart/train/program"
	"gorgonia.org/gorgonia"
	"gorgonia.org/tensor"
)

// matrix is an operand of a reference: vectors are one row, scalars 1 x 1.
type matrix struct {
	rows, cols int
	x          []float64
}

func newMatrix(shape []int) matrix {
	m := matrix{rows: 1, cols: 1}
	if n := len(shape); n > 0 {
		m.cols = shape[n-1]
		if n > 1 {
			m.rows = shape[0]
		}
	}
	m.x = make([]float64, m.rows*m.cols)
	return m
}

func (m *matrix) at(i, j int) *float64 { return &m.x[i*m.cols+j] }

// transpose of m, or m itself.
func (m matrix) transpose(t bool) matrix {
	if !t {
		return m
	}
	y := newMatrix([]int{m.cols, m.rows})
	for i := range m.rows {
		for j := range m.cols {
			*y.at(j, i) = *m.at(i, j)
		}
	}
	return y
}

// reference computes an op in float64, in the plainest way: Gorgonia's TapeMachine runs it where tests
// hold programs to account. No product path comes here.
func (o *op) reference(args []gorgonia.Value) (gorgonia.Value, error) {
	in := make([]matrix, len(args))
	for i, a := range args {
		in[i] = newMatrix(a.Shape())
		switch x := a.Data().(type) {
		case []float32:
			for k := range in[i].x {
				in[i].x[k] = float64(x[k])
			}
		case []float64:
			copy(in[i].x, x)
		case float32:
			in[i].x[0] = float64(x)
		case float64:
			in[i].x[0] = x
		default:
			return nil, fmt.Errorf("graph: %s: operand %d is %T", o.kind, i, x)
		}
	}
	y := newMatrix(o.output)
	if err := o.compute(in, &y); err != nil {
		return nil, err
	}
	return o.value(y)
}

func (o *op) value(y matrix) (gorgonia.Value, error) {
	if o.b.dtype == tensor.Float64 {
		if len(o.output) == 0 {
			return gorgonia.NewF64(y.x[0]), nil
		}
		return tensor.New(tensor.WithShape(o.output...), tensor.WithBacking(y.x)), nil
	}
	f := make([]float32, len(y.x))
	for i, v := range y.x {
		f[i] = float32(v)
	}
	if len(o.output) == 0 {
		return gorgonia.NewF32(f[0]), nil
	}
	return tensor.New(tensor.WithShape(o.output...), tensor.WithBacking(f)), nil
}

func (o *op) compute(in []matrix, y *matrix) error {
	scale := float64(o.attr.Scale)
	switch o.kind {
	case program.MatMul:
		o.product(in, y)
	case program.Activate:
		for i := range y.x {
			y.x[i] = activated(o.attr.Act, in[0].x[i])
		}
	case program.ActGrad:
		for i := range y.x {
			y.x[i] = in[0].x[i] * slope(o.attr.Act, in[1].x[i])
		}
	case program.ColSum:
		for i := range in[0].rows {
			for j := range in[0].cols {
				y.x[j] += *in[0].at(i, j)
			}
		}
	case program.Scale:
		for i := range y.x {
			y.x[i] = scale * in[0].x[i]
		}
	case program.Fill:
		for i := range y.x {
			y.x[i] = scale
		}
	case program.Dropout:
		o.drop(in[0], y)
	case program.Concat:
		at := 0
		for _, m := range in {
			for i := range m.rows {
				for j := range m.cols {
					*y.at(i, at+j) = *m.at(i, j)
				}
			}
			at += m.cols
		}
	case program.Slice:
		for i := range y.rows {
			for j := range y.cols {
				*y.at(i, j) = *in[0].at(i, o.attr.From+j)
			}
		}
	case program.SliceGrad:
		for i := range in[0].rows {
			for j := range in[0].cols {
				*y.at(i, o.attr.From+j) = *in[0].at(i, j)
			}
		}
	case program.BCE:
		z, t, w := in[0].x, in[1].x, in[2].x
		for i := range z {
			l := math.Max(z[i], 0) - z[i]*t[i] + math.Log1p(math.Exp(-math.Abs(z[i])))
			y.x[0] += w[i] * l / float64(len(z))
		}
	case program.BCEGrad:
		z, t, w, d := in[0].x, in[1].x, in[2].x, in[3].x[0]
		for i := range z {
			y.x[i] = d * w[i] * (1/(1+math.Exp(-z[i])) - t[i]) / float64(len(z))
		}
	case program.Lookup:
		lookup(in[0], in[1], func(i, _, row, n int) {
			for c := range y.cols {
				*y.at(i, c) += *in[0].at(row, c) / float64(n)
			}
		})
	case program.LookupDot:
		lookup(in[0], in[1], func(i, j, row, _ int) {
			for c := range in[0].cols {
				*y.at(i, j) += *in[0].at(row, c) * *in[2].at(i, c)
			}
		})
	case program.LookupWeighted:
		lookup(in[0], in[1], func(i, j, row, _ int) {
			for c := range y.cols {
				*y.at(i, c) += *in[0].at(row, c) * *in[2].at(i, j)
			}
		})
	case tableGrad:
		if len(in) == 3 {
			lookup(*y, in[0], func(i, j, row, _ int) {
				for c := range y.cols {
					*y.at(row, c) += *in[1].at(i, j) * *in[2].at(i, c)
				}
			})
			return nil
		}
		lookup(*y, in[0], func(i, _, row, n int) {
			for c := range y.cols {
				*y.at(row, c) += *in[1].at(i, c) / float64(n)
			}
		})
	case program.Sample:
		for j := range y.x {
			u := float64(program.Uniforms4(o.b.clock.seed, o.b.clock.step, o.attr.Site, uint64(j/4))[j%4])
			i := slices.IndexFunc(in[0].x, func(c float64) bool { return float64(float32(c)) > u })
			if i < 0 {
				i = in[0].cols - 1
			}
			y.x[j] = float64(i)
		}
	case program.RowDot:
		for i := range y.x {
			for c := range in[0].cols {
				y.x[i] += *in[0].at(i, c) * *in[1].at(i, c)
			}
		}
	case program.RowScale:
		for i := range y.x {
			y.x[i] = in[0].x[i] * in[1].x[i/y.cols]
		}
	case program.SampledSoftmax:
		for i := range in[0].rows {
			if p := probabilities(in, i); p != nil {
				y.x[0] -= in[5].x[i] * math.Log(p[0]) / float64(in[0].rows)
			}
		}
	case program.SampledSoftmaxGrad:
		in = in[o.part:]
		for i := range in[0].rows {
			c := in[6].x[0] * in[5].x[i] / float64(in[0].rows)
			p := probabilities(in, i)
			switch {
			case p == nil:
			case o.part == 1:
				y.x[i] = c * (p[0] - 1)
			default:
				for j, q := range p[1:] {
					*y.at(i, j) = c * q
				}
			}
		}
	case program.Softmax, program.LogSoftmax, program.SoftmaxGrad, program.LogSoftmaxGrad:
		o.softmax(in, y)
	case program.LayerNorm, program.LayerNormGrad:
		o.layerNorm(in[o.part:], y)
	case program.Pinball, program.PinballGrad:
		o.pinball(in, y)
	case program.CandidateSoftmax, program.CandidateSoftmaxGrad, program.CandidateBPR, program.CandidateBPRGrad:
		o.candidates(in, y)
	default:
		return fmt.Errorf("graph: no reference for %s", o.kind)
	}
	return nil
}

// lookup calls f for each index, at place j of row i of idx, that names a row of the table; n is how many of its row
// do.
func lookup(table, idx matrix, f func(i, j, row, n int)) {
	for i := range idx.rows {
		n := 0
		for pass := range 2 {
			for j := range idx.cols {
				if x := *idx.at(i, j); x >= 0 && x < float64(table.rows) {
					if pass == 0 {
						n++
					} else {
						f(i, j, int(x), n)
					}
				}
			}
		}
	}
}

// probabilities are those of the positive of row i and of each negative, by the operands of SampledSoftmax, or nil without a
// positive.
func probabilities(in []matrix, i int) []float64 {
	neg, pi, ni, logq := in[1], in[2].x[i], in[3].x, in[4].x
	if pi < 0 {
		return nil
	}
	logits := []float64{in[0].x[i] - logq[int(pi)]}
	for j, x := range ni {
		if x == pi || x < 0 {
			logits = append(logits, math.Inf(-1))
		} else {
			logits = append(logits, *neg.at(i, j)-logq[int(x)])
		}
	}
	top, sum := slices.Max(logits), 0.0
	for j, l := range logits {
		logits[j] = math.Exp(l - top)
		sum += logits[j]
	}
	for j := range logits {
		logits[j] /= sum
	}
	return logits
}

// candidates are the losses of CandidateSoftmax and CandidateBPR and their gradients, by one formula each for a loss
// and its slopes.
func (o *op) candidates(in []matrix, y *matrix) {
	s, idx := in[0], in[1]
	gradient := o.kind == program.CandidateSoftmaxGrad || o.kind == program.CandidateBPRGrad
	softmax := o.kind == program.CandidateSoftmax || o.kind == program.CandidateSoftmaxGrad
	var logq []float64
	if last := in[len(in)-1]; softmax && last.rows == 1 && len(in) == 4+map[bool]int{true: 1}[gradient] {
		logq = last.x
	}
	for i := range s.rows {
		first := *idx.at(i, 0)
		if first < 0 {
			continue
		}
		scale := in[2].x[i] / float64(s.rows)
		if !softmax {
			scale /= float64(s.cols - 1)
		}
		if gradient {
			scale *= in[3].x[0]
		}
		var columns []int
		logits := []float64{*s.at(i, 0)}
		for j := 1; j < s.cols; j++ {
			if x := *idx.at(i, j); x >= 0 && x != first {
				columns, logits = append(columns, j), append(logits, *s.at(i, j))
			}
		}
		slopes := make([]float64, len(logits)) // of the loss of the row by its logits
		loss := 0.0
		if softmax {
			if logq != nil {
				logits[0] -= logq[int(first)]
				for k, j := range columns {
					logits[k+1] -= logq[int(*idx.at(i, j))]
				}
			}
			top, sum := slices.Max(logits), 0.0
			for _, l := range logits {
				sum += math.Exp(l - top)
			}
			loss = math.Log(sum) + top - logits[0]
			for k, l := range logits {
				slopes[k] = math.Exp(l-top) / sum
			}
			slopes[0]--
		} else {
			for k := range columns {
				z := logits[0] - logits[k+1]
				loss += math.Max(-z, 0) + math.Log1p(math.Exp(-math.Abs(z)))
				slopes[k+1] = 1 / (1 + math.Exp(z))
				slopes[0] -= slopes[k+1]
			}
		}
		if !gradient {
			y.x[0] += scale * loss
			continue
		}
		*y.at(i, 0) = scale * slopes[0]
		for k, j := range columns {
			*y.at(i, j) = scale * slopes[k+1]
		}
	}
}

func (o *op) pinball(in []matrix, y *matrix) {
	q := o.attr.Levels.Len()
	scale := 1 / float64(len(in[0].x))
	for i, f := range in[0].x {
		level, w := float64(o.attr.Levels[i%q]), in[2].x[i/q] // rows have q times as many columns, so i/q is row and step
		u := in[1].x[i/q] - f
		switch {
		case w == 0 || u == 0:
		case o.kind == program.Pinball:
			y.x[0] += scale * w * math.Max(level*u, (level-1)*u)
		case u > 0:
			y.x[i] = -scale * in[3].x[0] * w * level
		default:
			y.x[i] = scale * in[3].x[0] * w * (1 - level)
		}
	}
}

func (o *op) softmax(in []matrix, y *matrix) {
	for i := range y.rows {
		x, to := in[0].x[i*y.cols:][:y.cols], y.x[i*y.cols:][:y.cols]
		top, sum, dot, total := slices.Max(x), 0.0, 0.0, 0.0
		for j, v := range x {
			sum += math.Exp(v - top)
			total += v
			if len(in) == 2 {
				dot += v * *in[1].at(i, j)
			}
		}
		for j, v := range x {
			switch o.kind {
			case program.Softmax:
				to[j] = math.Exp(v-top) / sum
			case program.LogSoftmax:
				to[j] = v - top - math.Log(sum)
			case program.SoftmaxGrad:
				to[j] = (v - dot) * *in[1].at(i, j)
			default:
				to[j] = v - math.Exp(*in[1].at(i, j))*total
			}
		}
	}
}

// layerNorm is the result or, of (dy, x, gain), the gradient or the terms of the gain's.
func (o *op) layerNorm(in []matrix, y *matrix) {
	x, gain := in[0], in[1]
	if o.kind == program.LayerNormGrad {
		x, gain = in[1], in[2]
	}
	n := float64(x.cols)
	for i := range x.rows {
		row, h := x.x[i*x.cols:][:x.cols], make([]float64, x.cols)
		var mean, variance, a, c float64
		for _, v := range row {
			mean += v / n
		}
		for _, v := range row {
			variance += (v - mean) * (v - mean) / n
		}
		r := 1 / math.Sqrt(variance+o.attr.Eps)
		for j, v := range row {
			h[j] = (v - mean) * r
			if o.kind == program.LayerNormGrad {
				g := *in[0].at(i, j) * gain.x[j]
				a += g / n
				c += g * h[j] / n
			}
		}
		for j := range row {
			switch {
			case o.kind == program.LayerNorm:
				*y.at(i, j) = h[j]*gain.x[j] + in[2].x[j]
			case o.part == 1:
				*y.at(i, j) = *in[0].at(i, j) * h[j]
			default:
				*y.at(i, j) = r * (*in[0].at(i, j)*gain.x[j] - a - h[j]*c)
			}
		}
	}
}

func (o *op) product(in []matrix, y *matrix) {
	a, b := in[0].transpose(o.attr.TransA), in[1].transpose(!o.attr.TransB)
	for i := range y.rows {
		row := a.x[i*a.cols:][:a.cols]
		for j := range y.cols {
			column := b.x[j*b.cols:][:b.cols]
			s := 0.0
			for k, v := range row {
				s += v * column[k]
			}
			if len(in) == 3 {
				s += in[2].x[j]
			}
			*y.at(i, j) = activated(o.attr.Act, s)
		}
	}
}

// activated is act(z).
func activated(act program.Act, z float64) float64 {
	switch act {
	case program.Relu:
		return math.Max(z, 0)
	case program.Silu:
		return z / (1 + math.Exp(-z))
	}
	return z
}

// slope is act'(z) from what ActGrad is given: act(z) for Relu, z for Silu.
func slope(act program.Act, x float64) float64 {
	switch act {
	case program.Relu:
		if x > 0 {
			return 1
		}
		return 0
	case program.Silu:
		s := 1 / (1 + math.Exp(-x))
		return s * (1 + x*(1-s))
	}
	return 1
}

func (o *op) drop(x matrix, y *matrix) {
	for i := range y.x {
		u := program.Uniforms4(o.b.clock.seed, o.b.clock.step, o.attr.Site, uint64(i/4))[i%4]
		if u >= o.attr.Rate {
			y.x[i] = x.x[i] / float64(1-o.attr.Rate)
		}
	}
}
