package graph

import (
	"fmt"
	"slices"
	"strings"

	"github.com/onmart/onmart/train/program"
)

// Passes over a program that the lowering has written: each temp is still written once, by the instruction that makes
// it, and only updates write parameters. None changes a bit of a result, but that relu(x), which Gorgonia writes as
// x (x >= 0), gives 0 below 0: not -0, and not the NaN of -Inf. What they bring is in docs/BENCHMARKS.md, "Passes".

// passes says which run; all but in tests.
type passes struct {
	merge      bool // common subexpressions
	transposes bool // into products
	bias       bool // into products
	fuse       bool // elementwise chains, and broadcasts into what reads them
	inPlace    bool // results over operands that nobody reads any more
}

var allPasses = passes{true, true, true, true, true}

func (ps passes) optimise(p *program.Program) {
	if ps.merge {
		merge(p)
	}
	if ps.transposes {
		absorbTransposes(p)
	}
	if ps.bias {
		for fuse(p, true) {
		}
		absorbBias(p)
	}
	if ps.fuse {
		for fuse(p, false) {
		}
		foldRelu(p)
	}
	dead(p)
}

// writers are the instructions that make each temp, -1 for other buffers.
func writers(p *program.Program) []int {
	w := make([]int, len(p.Buffers))
	for b := range w {
		w[b] = -1
	}
	for i, in := range p.Instrs {
		for _, o := range in.Outs {
			if p.Buffers[o].Kind == program.Temp {
				w[o] = i
			}
		}
	}
	return w
}

// uses is how many instructions read each buffer.
func uses(p *program.Program) []int {
	n := make([]int, len(p.Buffers))
	for _, in := range p.Instrs {
		for k, a := range in.Args {
			if !slices.Contains(in.Args[:k], a) {
				n[a]++
			}
		}
	}
	return n
}

// changed says whether one of the buffers, if it is no temp, is written after instruction from and before to.
func changed(p *program.Program, bufs []int, from, to int) bool {
	for _, in := range p.Instrs[from+1 : to] {
		for _, o := range in.Outs {
			if p.Buffers[o].Kind != program.Temp && slices.Contains(bufs, o) {
				return true
			}
		}
	}
	return false
}

// pure says whether an instruction does nothing but make temps, from its operands alone.
func pure(p *program.Program, in *program.Instr) bool {
	switch in.Op {
	case program.Gather, program.Accumulate:
		return false
	}
	return !slices.ContainsFunc(in.Outs, func(o int) bool { return p.Buffers[o].Kind != program.Temp })
}

// merge makes one instruction of two that compute the same (common subexpressions).
func merge(p *program.Program) {
	first := map[string]int{}
	for i := 0; i < len(p.Instrs); i++ {
		in := &p.Instrs[i]
		if !pure(p, in) {
			continue
		}
		var shapes strings.Builder
		for _, o := range in.Outs {
			fmt.Fprint(&shapes, p.Buffers[o].Shape)
		}
		key := fmt.Sprintf("%s %v %+v %s", in.Op, in.Args, in.Attr, shapes.String())
		j, seen := first[key]
		if !seen || changed(p, in.Args, j, i) {
			first[key] = i
			continue
		}
		for k, o := range in.Outs {
			for n := range p.Instrs {
				rename(p.Instrs[n].Args, o, p.Instrs[j].Outs[k])
			}
		}
		p.Instrs = slices.Delete(p.Instrs, i, i+1)
		i--
	}
}

// dead drops what nobody reads.
func dead(p *program.Program) {
	read := make([]bool, len(p.Buffers))
	for i := len(p.Instrs) - 1; i >= 0; i-- {
		in := &p.Instrs[i]
		if pure(p, in) && !slices.ContainsFunc(in.Outs, func(o int) bool { return read[o] }) {
			p.Instrs = slices.Delete(p.Instrs, i, i+1)
			continue
		}
		for _, a := range in.Args {
			read[a] = true
		}
	}
}

// absorbTransposes lets products read their operands transposed. Where there is one column, whether the first side is
// transposed says how its elements are summed (program.MatMul), so that one stays as it is.
func absorbTransposes(p *program.Program) {
	w := writers(p)
	for i := range p.Instrs {
		in := &p.Instrs[i]
		if in.Op != program.MatMul {
			continue
		}
		column := p.Buffers[in.Outs[0]].Shape[1] == 1
		for k, flag := range []*bool{&in.Attr.TransA, &in.Attr.TransB} {
			if k == 0 && column {
				continue
			}
			for j := w[in.Args[k]]; j >= 0 && p.Instrs[j].Op == program.Transpose; j = w[in.Args[k]] {
				if changed(p, p.Instrs[j].Args, j, i) {
					break
				}
				in.Args[k], *flag = p.Instrs[j].Args[0], !*flag
			}
		}
	}
}

// expression is an elementwise instruction in words.
func expression(in *program.Instr) []string {
	switch in.Op {
	case program.Map:
		return strings.Split(in.Attr.Expr, " ")
	case program.Add:
		if in.Args[0] == in.Args[1] {
			return []string{"x0", "x0", "add"}
		}
		return []string{"x0", "x1", "add"}
	case program.Scale:
		return []string{"x0", program.FormatConst(in.Attr.Scale), "mul"}
	case program.Activate:
		if in.Attr.Act != program.None {
			return []string{"x0", string(in.Attr.Act)}
		}
	}
	return nil
}

// fuse puts one elementwise instruction into the one that reads it, and says whether it found any. At least one of the
// two is a Map: Add, Scale and Activate among themselves stay what backends know to fuse. With broadcasts, only what
// broadcasts or reshapes is taken in.
func fuse(p *program.Program, broadcasts bool) bool {
	w, n := writers(p), uses(p)
	for i := range p.Instrs {
		in := &p.Instrs[i]
		words := expression(in)
		if words == nil || p.Buffers[in.Outs[0]].Kind != program.Temp {
			continue
		}
		for _, a := range in.Args {
			j := w[a]
			if j < 0 || j >= i {
				continue
			}
			from := &p.Instrs[j]
			inner := expression(from)
			if from.Op == program.Copy && leading(p.Buffers[from.Args[0]].Shape, p.Buffers[a].Shape) {
				inner = []string{"x0"}
			}
			if inner == nil || in.Op != program.Map && from.Op != program.Map || changed(p, from.Args, j, i) {
				continue
			}
			same := slices.Equal(p.Buffers[a].Shape, p.Buffers[in.Outs[0]].Shape)
			once := n[a] == 1 && count(words, fmt.Sprintf("x%d", slices.Index(in.Args, a))) == 1
			if len(inner) > 1 && (broadcasts || !same || !once && !cheap(inner)) {
				continue
			}
			if fused, ok := substitute(in, words, a, from, inner); ok {
				fused.Node = in.Node
				p.Instrs[i] = fused
				dead(p)
				return true
			}
		}
	}
	return false
}

// leading says whether two shapes differ only in ones before the first dimension.
func leading(a, b []int) bool {
	for len(a) > len(b) && a[0] == 1 {
		a = a[1:]
	}
	for len(b) > len(a) && b[0] == 1 {
		b = b[1:]
	}
	return slices.Equal(a, b)
}

func count(words []string, w string) int {
	n := 0
	for _, x := range words {
		if x == w {
			n++
		}
	}
	return n
}

// cheap expressions are computed again rather than kept: a comparison with a constant, a change of sign.
func cheap(words []string) bool {
	switch program.Fn(words[len(words)-1]) {
	case program.FnLt, program.FnGt, program.FnLe, program.FnGe, program.FnEq, program.FnNe, program.FnNeg:
		return len(words) <= 3 && count(words, "x0") == 1 && count(words, "x1") == 0
	}
	return false
}

// substitute is the instruction with the expression of operand a in its place.
func substitute(in *program.Instr, words []string, a int, from *program.Instr, inner []string) (program.Instr, bool) {
	var args []int
	name := func(buf int) string {
		k := slices.Index(args, buf)
		if k < 0 {
			k = len(args)
			args = append(args, buf)
		}
		return fmt.Sprintf("x%d", k)
	}
	var out []string
	operand := func(of *program.Instr, word string) int { return of.Args[word[1]-'0'] } // at most 8 of them
	for _, word := range words {
		switch {
		case !strings.HasPrefix(word, "x"):
			out = append(out, word)
		case operand(in, word) != a:
			out = append(out, name(operand(in, word)))
		default:
			for _, q := range inner {
				if strings.HasPrefix(q, "x") {
					q = name(operand(from, q))
				}
				out = append(out, q)
			}
		}
	}
	attr := program.Attr{Expr: strings.Join(out, " "), Sized: in.Attr.Sized || from.Attr.Sized}
	if len(args) > program.MaxMapArgs {
		return program.Instr{}, false
	}
	if _, err := program.ParseExpr(attr.Expr, len(args)); err != nil {
		return program.Instr{}, false // too long or too deep
	}
	return program.Instr{Op: program.Map, Args: args, Outs: in.Outs, Attr: attr}, true
}

// foldRelu makes Gorgonia's Rectify, x (x >= 0), what it stands for.
func foldRelu(p *program.Program) {
	for i := range p.Instrs {
		in := &p.Instrs[i]
		switch {
		case in.Op != program.Map || len(in.Args) != 1:
		case in.Attr.Expr == "x0 x0 0 ge mul", in.Attr.Expr == "x0 0 ge x0 mul":
			*in = program.Instr{Op: program.Activate, Args: in.Args, Outs: in.Outs, Attr: program.Attr{Act: program.Relu},
				Node: in.Node}
		}
	}
}

// absorbBias adds a vector to a product where the product is made.
func absorbBias(p *program.Program) {
	w, n := writers(p), uses(p)
	for i := range p.Instrs {
		in := &p.Instrs[i]
		if in.Op != program.Map || in.Attr.Expr != "x0 x1 add" && in.Attr.Expr != "x1 x0 add" {
			continue
		}
		for k := range 2 {
			y, bias := in.Args[k], in.Args[1-k]
			j := w[y]
			if j < 0 || p.Instrs[j].Op != program.MatMul || len(p.Instrs[j].Args) != 2 || p.Instrs[j].Attr.Act != program.None ||
				n[y] != 1 || !slices.Equal(p.Buffers[y].Shape, p.Buffers[in.Outs[0]].Shape) {
				continue
			}
			width := p.Buffers[y].Shape[1]
			if !leading(p.Buffers[bias].Shape, []int{width}) || w[bias] >= j || changed(p, p.Instrs[j].Args, j, i) {
				continue
			}
			from := p.Instrs[j]
			*in = program.Instr{Op: program.MatMul, Args: append(slices.Clone(from.Args), bias), Outs: in.Outs,
				Attr: from.Attr, Node: from.Node}
			break
		}
	}
}
