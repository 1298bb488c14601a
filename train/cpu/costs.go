package cpu

import (
	"fmt"
	"slices"
	"strings"

	"github.com/onmart/onmart/train/program"
)

// What kernels and instructions cost. This is the one place where it is said: the profile of a step (train --explain)
// and the rooflines of kernels (bench kernels) are both made of it.
//
// Operations are additions, multiplications, divisions, roots, roundings to whole numbers and comparisons of
// floating-point numbers as the portable path writes them, both sides of a branch on an element, since vectors compute
// both; a multiply-add is two. Integers (Philox, indices), signs, what is done once a row or once a step, and the
// functions that are computed in float64 by the standard library count nothing.
//
// Bytes are those of operands, once where they are read and once where they are written, so twice where they are
// updated. Rows of a table that an index names count as often as they are named: what would move without a cache. What
// an instruction holds between its kernels for itself does not count.

// work is what a kernel does for an element.
type work struct {
	flops         int
	reads, writes int // operands of float32
}

func (w work) bytes() int { return 4 * (w.reads + w.writes) }

// Operations of the functions that others are made of.
const (
	boundExpFLOPs = 22 // siluExp: two bounds, eight multiply-adds and what joins them
	expFLOPs      = 23 // exp32: the same, but multiplied by a power in two halves
	logFLOPs      = 31 // log32: three comparisons, eleven multiply-adds and what joins them
)

// kernelWorks are the kernels that pass over operands, by their field of kernels; those of a part of it and those of
// Map behind its name. Not in it are products, whose cost is in productCost.
var kernelWorks = map[string]work{
	"actGrad": {1, 2, 1}, "silu": {boundExpFLOPs + 2, 1, 1}, "siluGrad": {boundExpFLOPs + 7, 2, 1}, "colSum": {1, 1, 0},
	"adamw": {17, 4, 3}, "adam": {17, 4, 3}, "sgd": {5, 2, 1}, "momentum": {7, 3, 2}, "nesterov": {9, 3, 2},
	"adagrad": {10, 3, 2}, "sumSquares": {2, 1, 0}, "average": {3, 2, 1},
	"dropout": {2, 1, 1}, "permute": {0, 0, 1}, "gatherRows": {0, 1, 1}, "add": {1, 2, 1}, "addTo": {1, 1, 1}, "scale": {1, 1, 1}, "div": {1, 1, 1},
	"rowDot":        {2, 2, 0},
	"softmaxLogits": {3, 3, 1}, "softmaxExp": {boundExpFLOPs + 3, 1, 1},
	"bce": {boundExpFLOPs + 18, 3, 1}, "bceGrad": {boundExpFLOPs + 10, 3, 1},
	"pinball": {8, 4, 0}, "pinballGrad": {8, 4, 1}, "laneSum": {1, 1, 0}, "extreme": {2, 1, 0},
	"transpose": {0, 1, 1}, "gatherTiles": {0, 1, 1}, "columnDot": {2, 1, 0}, "dotRows": {2, 1, 0}, "addRows": {2, 1, 0},

	// Of tables: an element of a row that is named, as dot, weighted, sums and ask read it and adam updates it; of
	// candidates, one of them and one row; of uniforms, a number.
	"embed.dot": {2, 1, 0}, "embed.weighted": {2, 1, 0}, "embed.sums": {2, 1, 0}, "embed.ask": {0, 1, 0},
	"embed.adam": {17, 4, 3}, "embed.shrink": {5, 2, 1}, "embed.adagrad": {9, 3, 2},
	"embed.candidates": {boundExpFLOPs + 8, 2, 1}, kernelBPR: {boundExpFLOPs + 18, 2, 1},
	"embed.terms": {logFLOPs + 2, 3, 1}, "embed.uniforms": {1, 0, 1},

	"fns.neg": {0, 1, 1}, "fns.abs": {0, 1, 1}, "fns.sign": {2, 1, 1}, "fns.square": {1, 1, 1}, "fns.cube": {2, 1, 1},
	"fns.sqrt": {1, 1, 1}, "fns.inv": {1, 1, 1}, "fns.rsqrt": {2, 1, 1}, "fns.floor": {1, 1, 1}, "fns.ceil": {1, 1, 1},
	"fns.exp": {expFLOPs, 1, 1}, "fns.log": {logFLOPs, 1, 1}, "fns.log1p": {logFLOPs + 6, 1, 1},
	"fns.expm1": {expFLOPs + logFLOPs + 6, 1, 1}, "fns.tanh": {expFLOPs + 17, 1, 1}, "fns.sigmoid": {expFLOPs + 2, 1, 1},
	"fns.softplus": {expFLOPs + logFLOPs + 8, 1, 1}, "fns.relu": {1, 1, 1}, "fns.silu": {boundExpFLOPs + 2, 1, 1},
	"fns.sin": {0, 1, 1}, "fns.cos": {0, 1, 1}, "fns.log2": {0, 1, 1}, "fns.pow": {0, 2, 1},
	"fns.add": {1, 2, 1}, "fns.sub": {1, 2, 1}, "fns.mul": {1, 2, 1}, "fns.div": {1, 2, 1}, "fns.max": {1, 2, 1},
	"fns.min": {1, 2, 1}, "fns.lt": {1, 2, 1}, "fns.gt": {1, 2, 1}, "fns.le": {1, 2, 1}, "fns.ge": {1, 2, 1},
	"fns.eq": {1, 2, 1}, "fns.ne": {1, 2, 1},
}

// kernelBPR is embed.candidates for CandidateBPR.
const kernelBPR = "embed.candidates.bpr"

// workOf is what a kernel does for an element.
func workOf(kernel string) work {
	w, ok := kernelWorks[kernel]
	if !ok {
		panic("cpu: nothing is said of what " + kernel + " costs")
	}
	return w
}

// flopsOf are the operations of several kernels on an element.
func flopsOf(kernels ...string) (n int64) {
	for _, k := range kernels {
		n += int64(workOf(k).flops)
	}
	return n
}

// cost is what one run of a kernel or an instruction takes.
type cost struct{ flops, bytes int64 }

func (c cost) and(d cost) cost { return cost{c.flops + d.flops, c.bytes + d.bytes} }

// streamed is the cost of a kernel over n elements.
func streamed(kernel string, n int64) cost {
	w := workOf(kernel)
	return cost{n * int64(w.flops), n * int64(w.bytes())}
}

// productCost is that of a product of [m,k] and [k,n], with what each result gets behind its chain.
func productCost(m, k, n, behind int64) cost {
	return cost{m * n * (2*k + behind), 4 * (m*k + k*n + m*n)}
}

// readCost is that of LookupDot and LookupWeighted: of w named rows of d for each of m rows of d that are compared or
// made, with the indices and the scores.
func readCost(kernel string, m, w, d int64) cost {
	return streamed(kernel, m*w*d).and(cost{0, 4 * (m*d + 2*m*w)})
}

// entryBytes are an entry and a span as the sums of a table's gradient read them.
const entryBytes, spanBytes = 16, 8

// sumsCost is that of adding up the entries of a table's gradient to so many rows of d.
func sumsCost(entries, rows, d int64) cost {
	return streamed("embed.sums", entries*d).and(cost{0, entryBytes*entries + spanBytes*rows + 4*rows*d})
}

// rowsCost is that of updating so many rows of d by a kernel, which reads their spans.
func rowsCost(kernel string, rows, d int64) cost {
	return streamed(kernel, rows*d).and(cost{0, spanBytes * rows})
}

// candidatesCost is that of the gradients of m rows of w candidates, with the rows' weights.
func candidatesCost(kernel string, m, w int64) cost { return streamed(kernel, m*w).and(cost{0, 4 * m}) }

// extents are the sizes of a program's buffers.
type extents struct{ p *program.Program }

func (z extents) len(id int) int64 { return int64(z.p.Buffers[id].Len()) }

// rows and columns are those of a matrix.
func (z extents) rows(id int) int64    { return int64(z.p.Buffers[id].Shape[0]) }
func (z extents) columns(id int) int64 { return int64(z.p.Buffers[id].Shape[1]) }

// bytes of buffers.
func (z extents) bytes(ids ...int) (n int64) {
	for _, id := range ids {
		n += z.len(id) * int64(z.p.Buffers[id].DType.Size())
	}
	return n
}

// operands are the bytes of all arguments and outputs.
func (z extents) operands(in *program.Instr) int64 { return z.bytes(in.Args...) + z.bytes(in.Outs...) }

// costOf is that of an instruction.
func (z extents) costOf(in *program.Instr) cost {
	of, ok := instrCosts[in.Op]
	if !ok {
		panic("cpu: nothing is said of what " + string(in.Op) + " costs")
	}
	return of(z, in)
}

// costing is how an instruction's cost follows from the sizes of its operands.
type costing func(z extents, in *program.Instr) cost

// moves is the costing of what computes nothing.
func moves(z extents, in *program.Instr) cost { return cost{0, z.operands(in)} }

// results is the costing of kernels that each pass over all elements of the first output.
func results(kernels ...string) costing {
	return func(z extents, in *program.Instr) cost {
		return cost{z.len(in.Outs[0]) * flopsOf(kernels...), z.operands(in)}
	}
}

// argument is the same of kernels that pass over the first argument.
func argument(kernels ...string) costing {
	return func(z extents, in *program.Instr) cost {
		return cost{z.len(in.Args[0]) * flopsOf(kernels...), z.operands(in)}
	}
}

// updating is the same of a kernel whose outputs are read too.
func updating(kernel string) costing {
	return func(z extents, in *program.Instr) cost {
		return results(kernel)(z, in).and(cost{0, z.bytes(in.Outs...)})
	}
}

// instrCosts are the costs of all instructions.
var instrCosts = map[program.Op]costing{
	program.Gather: func(z extents, in *program.Instr) cost { // rows of the column and their places in the order
		return cost{0, 2*z.bytes(in.Outs...) + 4*z.rows(in.Outs[0])}
	},
	program.MatMul: matmulCost,
	program.Activate: func(z extents, in *program.Instr) cost {
		return cost{z.len(in.Outs[0]) * actFLOPs(in.Attr.Act), z.operands(in)}
	},
	program.ActGrad: func(z extents, in *program.Instr) cost {
		switch in.Attr.Act {
		case program.Relu:
			return results("actGrad")(z, in)
		case program.Silu:
			return results("siluGrad")(z, in)
		}
		return cost{0, z.bytes(in.Args[0]) + z.bytes(in.Outs...)}
	},
	program.ColSum:  argument("colSum"),
	program.Add:     results("add"),
	program.Scale:   results("scale"),
	program.Fill:    moves,
	program.Dropout: results("dropout"),
	program.Concat:  moves,
	program.Slice:   func(z extents, in *program.Instr) cost { return cost{0, 2 * z.bytes(in.Outs...)} },
	// SliceGrad writes zeros beside what it copies.
	program.SliceGrad: moves,
	program.BCE:       argument("bce", "laneSum"),
	program.BCEGrad:   results("bceGrad"),
	program.Accumulate: func(z extents, in *program.Instr) cost {
		return cost{int64(1 + len(in.Args)), z.operands(in) + z.bytes(in.Outs...)}
	},
	program.AdamW: updating("adamw"),
	// Standardize and Calibrate are in float64; their logarithms and exponentials are those of the library.
	program.Standardize: results("fns.sub", "fns.mul"),
	program.Calibrate:   results("fns.mul", "fns.add", "fns.add", "fns.div"),

	program.Lookup: func(z extents, in *program.Instr) cost {
		d, w := z.columns(in.Args[0]), z.columns(in.Args[1])
		named := z.len(in.Args[1]) * d
		c := cost{0, 4*named + z.bytes(in.Args[1]) + z.bytes(in.Outs...)}
		if w > 1 { // a mean: w-1 sums and the quotient
			c.flops = named * flopsOf("add")
		}
		return c
	},
	program.Sample: func(z extents, in *program.Instr) cost { // a place of the guide, and of the cdf
		n := z.len(in.Outs[0])
		return streamed("embed.uniforms", n).and(cost{2 * n, 8 * n})
	},
	program.RowDot:             argument("rowDot"),
	program.RowScale:           results("scale"),
	program.SampledSoftmax:     sampledCost("softmaxLogits", "softmaxExp"),
	program.SampledSoftmaxGrad: sampledCost("softmaxLogits", "softmaxExp", "scale"),
	program.Pinball:            argument("pinball"),
	program.PinballGrad:        results("pinballGrad"),
	program.RowAdam:            rowUpdateCost,
	program.LookupDot: func(z extents, in *program.Instr) cost {
		return readCost("embed.dot", z.rows(in.Args[1]), z.columns(in.Args[1]), z.columns(in.Args[0]))
	},
	program.LookupWeighted: func(z extents, in *program.Instr) cost {
		return readCost("embed.weighted", z.rows(in.Args[1]), z.columns(in.Args[1]), z.columns(in.Args[0]))
	},
	program.CandidateSoftmax:     candidateLossCost,
	program.CandidateSoftmaxGrad: candidateGradCost,
	program.CandidateBPR:         candidateLossCost,
	program.CandidateBPRGrad:     candidateGradCost,
	program.RowAdagrad:           rowUpdateCost,
	program.RowSGD:               rowUpdateCost,

	program.Map: func(z extents, in *program.Instr) cost {
		steps, err := program.ParseExpr(in.Attr.Expr, len(in.Args))
		if err != nil {
			panic("cpu: " + err.Error()) // Validate refuses it
		}
		c := cost{0, z.operands(in)}
		for _, s := range steps {
			if s.Fn != "" {
				c.flops += z.len(in.Outs[0]) * flopsOf("fns."+string(s.Fn))
			}
		}
		return c
	},
	program.Reduce: func(z extents, in *program.Instr) cost {
		switch in.Attr.Fold {
		case program.Sum:
			return argument("laneSum")(z, in)
		case program.Mean:
			return argument("laneSum")(z, in).and(cost{z.len(in.Outs[0]) * flopsOf("div"), 0})
		}
		return argument("extreme")(z, in)
	},
	program.Softmax:        results("extreme", "addTo", "fns.exp", "laneSum", "div"),
	program.LogSoftmax:     results("extreme", "addTo", "fns.exp", "laneSum", "addTo"),
	program.SoftmaxGrad:    results("fns.mul", "laneSum", "addTo", "fns.mul"),
	program.LogSoftmaxGrad: results("fns.exp", "laneSum", "scale", "fns.sub"),
	program.LayerNorm:      results("laneSum", "addTo", "fns.mul", "laneSum", "scale", "fns.mul", "add"),
	program.LayerNormGrad: results("laneSum", "addTo", "fns.mul", "laneSum", "scale", // what it was normalised to
		"fns.mul", "fns.mul", "fns.mul", "laneSum", "laneSum", "addTo", "scale", "fns.sub", "scale"),
	program.Transpose: moves,
	program.Copy:      moves,

	program.SGD: updating("sgd"),
	program.Momentum: func(z extents, in *program.Instr) cost {
		if in.Attr.Nesterov {
			return updating("nesterov")(z, in)
		}
		return updating("momentum")(z, in)
	},
	program.Adam:          updating("adam"),
	program.Adagrad:       updating("adagrad"),
	program.SumSquares:    argument("sumSquares"),
	program.RowSumSquares: rowUpdateCost,
	program.ClipFactor: func(z extents, in *program.Instr) cost { // sums, a root, a comparison and a quotient
		return cost{int64(len(in.Args)) + 3, z.operands(in)}
	},
	program.MovingAverage: updating("average"),
}

// actFLOPs are the operations of an activation on an element.
func actFLOPs(a program.Act) int64 {
	switch a {
	case program.Relu:
		return flopsOf("fns.relu")
	case program.Silu:
		return flopsOf("silu")
	}
	return 0
}

func matmulCost(z extents, in *program.Instr) cost {
	a, y := z.p.Buffers[in.Args[0]].Shape, z.p.Buffers[in.Outs[0]].Shape
	k := a[1]
	if in.Attr.TransA {
		k = a[0]
	}
	behind := int64(len(in.Args)-2) + actFLOPs(in.Attr.Act) // the bias
	return productCost(int64(y[0]), int64(k), int64(y[1]), behind).and(cost{0, z.bytes(in.Args[2:]...)})
}

// sampledCost is that of the kernels on the negatives of each row; of logq the elements that are looked up are read.
func sampledCost(kernels ...string) costing {
	return func(z extents, in *program.Instr) cost {
		looked := z.bytes(in.Args[2], in.Args[3])
		return cost{z.len(in.Args[1]) * flopsOf(kernels...), z.operands(in) - z.bytes(in.Args[4]) + looked}
	}
}

// candidateKernel is what computes a loss of candidates and its gradient.
func candidateKernel(in *program.Instr) string {
	if in.Op == program.CandidateBPR || in.Op == program.CandidateBPRGrad {
		return kernelBPR
	}
	return "embed.candidates"
}

// correction is that of the candidates' scores where there is a logq: an element looked up and subtracted from each.
func correction(z extents, in *program.Instr) cost {
	withLogQ := map[program.Op]int{program.CandidateSoftmax: 4, program.CandidateSoftmaxGrad: 5}
	if n := len(in.Args); n != withLogQ[in.Op] {
		return cost{}
	}
	return cost{z.len(in.Args[0]), z.bytes(in.Args[0])}
}

// candidateGradCost reads scores, indices and weights and writes the gradients of the scores.
func candidateGradCost(z extents, in *program.Instr) cost {
	m, w := z.len(in.Args[2]), z.columns(in.Args[0])
	return candidatesCost(candidateKernel(in), m, w).and(correction(z, in)).and(cost{0, z.bytes(in.Args[3])})
}

// candidateLossCost does what the gradient does, and writes the terms of the rows instead, which it keeps.
func candidateLossCost(z extents, in *program.Instr) cost {
	m, w := z.len(in.Args[2]), z.columns(in.Args[0])
	c := candidatesCost(candidateKernel(in), m, w).and(correction(z, in)).and(termsCost(z, in))
	c.bytes -= 4 * m * w
	return c
}

// termsCost makes the terms of a loss of candidates and adds them up.
func termsCost(z extents, in *program.Instr) cost {
	return cost{z.len(in.Args[2]) * flopsOf("embed.terms", "laneSum"), z.bytes(in.Outs...)}
}

// rowUpdateCost is that of what takes the gradient of a table: it adds up the entries of each row and then updates it,
// or sums up the squares.
func rowUpdateCost(z extents, in *program.Instr) cost {
	table := in.Outs[0]
	if in.Op == program.RowSumSquares {
		table = in.Args[0]
	}
	d, entries := z.columns(table), int64(0)
	var c cost
	for _, u := range in.TableUses() {
		n := z.len(u.Idx)
		entries += n
		c.flops += n * d * flopsOf("embed.sums")
		c.bytes += z.bytes(u.Idx) + 4*n*d
		if u.S >= 0 {
			c.bytes += z.bytes(u.S)
		}
	}
	rows := min(entries, z.rows(table)) // the most that so many entries can name
	switch in.Op {
	case program.RowSumSquares:
		return c.and(cost{rows * d * flopsOf("sumSquares"), z.bytes(in.Outs...)})
	case program.RowAdam:
		c.flops += rows * d * flopsOf("embed.adam")
	case program.RowSGD:
		c.flops += rows * d * flopsOf("embed.shrink")
	case program.RowAdagrad:
		if z.columns(in.Outs[1]) == d {
			c.flops += rows * d * flopsOf("embed.adagrad")
		} else {
			c.flops += rows * d * flopsOf("embed.dot", "embed.shrink")
		}
	}
	if in.Factor() >= 0 {
		c.flops += rows * d * flopsOf("scale")
	}
	for _, o := range in.Outs {
		c.bytes += 2 * 4 * z.columns(o) * rows
	}
	return c
}

// costOf is that of a chain that is done in one pass: what one instruction leaves for the next of it does not move, the
// candidates' rows are read once, and the loss takes the exponentials of its gradient.
func (s *scoring) costOf(z extents) cost {
	c := z.costOf(s.dot).and(z.costOf(s.grad)).and(termsCost(z, s.loss))
	scores, idx := z.bytes(s.dot.Outs...), z.bytes(s.dot.Args[1])
	c.bytes -= 2*scores + idx // written and read; read for the dot and for the loss
	if s.lookup != nil {
		c = c.and(z.costOf(s.lookup))
		c.bytes -= z.bytes(s.dot.Args[2]) // what is compared was looked up just before
	}
	if s.weighted != nil {
		w := z.costOf(s.weighted)
		c = c.and(cost{w.flops, z.bytes(s.weighted.Outs...)})
	}
	return c
}

// parts are the instructions of a chain in order.
func (s *scoring) parts() []*program.Instr {
	return slices.DeleteFunc([]*program.Instr{s.lookup, s.dot, s.loss, s.grad, s.weighted},
		func(in *program.Instr) bool { return in == nil })
}

// what names the instructions of a chain by their numbers, with the line of the last.
func (s *scoring) what(m *machine, last string) string {
	var numbers []string
	for i := range m.p.Instrs {
		if in := &m.p.Instrs[i]; in != s.last() && slices.Contains(s.parts(), in) {
			numbers = append(numbers, fmt.Sprint(i))
		}
	}
	return fmt.Sprintf("%s, in one pass with %s", last, strings.Join(numbers, ", "))
}
