package program

import (
	"fmt"
	"slices"
)

// Names of the Const tensors that the wrappers read, all float64.
const (
	StandardizeMean  = "standardize.mean"  // [width]
	StandardizeScale = "standardize.scale" // [width]
	StandardizeLog   = "standardize.log"   // [width], 1 where the feature's logarithm is taken first
	CalibrateAB      = "calibrate.ab"      // [2], a and b of Calibrate
)

// probabilityName is the output of a calibrated program.
const probabilityName = "probability"

// WrapStandardize returns a forward program that takes raw features instead of standardised ones: its
// Input of that name and width is float64, and a Standardize stands in front. p is unchanged. An error
// says what p lacks.
func WrapStandardize(p *Program, input string, width int) (*Program, error) {
	at := p.Input(input)
	if at < 0 {
		return nil, fmt.Errorf("program: standardize %s: no input %q", p.Name, input)
	}
	if b := &p.Buffers[at]; b.DType != F32 || !slices.Equal(b.Shape, []int{p.Rows, width}) {
		return nil, fmt.Errorf("program: standardize %s: input %q is %s %v, want F32 [%d %d]", p.Name, input, b.DType, b.Shape, p.Rows, width)
	}
	q := p.clone()
	raw := q.Buffers[at]
	raw.DType = F64
	q.toTemp(at)
	in := standardize(q, raw, at, width)
	q.Instrs = slices.Insert(q.Instrs, 0, in)
	return q, nil
}

// StandardizeOnly is the program that prepares data for training exactly as a wrapped program will see
// it: Input "x" float64 [rows, width], Output "standardized" float32 of the same shape.
func StandardizeOnly(width, rows int) *Program {
	p := &Program{Name: "standardize", Rows: rows, Buffers: []Buffer{
		{Name: "standardized", Kind: Output, DType: F32, Shape: []int{rows, width}, PerRow: true}}}
	raw := Buffer{Name: "x", Kind: Input, DType: F64, Shape: []int{rows, width}, PerRow: true}
	p.Instrs = []Instr{standardize(p, raw, 0, width)}
	return p
}

// standardize adds the operands of a Standardize into buffer out.
func standardize(p *Program, raw Buffer, out, width int) Instr {
	args := []int{len(p.Buffers)}
	p.Buffers = append(p.Buffers, raw)
	for _, name := range []string{StandardizeMean, StandardizeScale, StandardizeLog} {
		args = append(args, len(p.Buffers))
		p.Buffers = append(p.Buffers, Buffer{Name: name, Kind: Const, DType: F64, Shape: []int{width}})
	}
	return Instr{Op: Standardize, Args: args, Outs: []int{out}, Node: "standardize"}
}

// WrapCalibrate returns a forward program whose Output is the probability "probability", float64
// [rows,1], that Calibrate makes of the logits that p leaves. p is unchanged.
func WrapCalibrate(p *Program) (*Program, error) {
	at := slices.IndexFunc(p.Buffers, func(b Buffer) bool { return b.Kind == Output })
	if at < 0 {
		return nil, fmt.Errorf("program: calibrate %s: it has no output", p.Name)
	}
	if b := &p.Buffers[at]; b.DType != F32 || !slices.Equal(b.Shape, []int{p.Rows, 1}) {
		return nil, fmt.Errorf("program: calibrate %s: output %q is %s %v, want logits F32 [%d 1]", p.Name, b.Name, b.DType, b.Shape, p.Rows)
	}
	q := p.clone()
	q.toTemp(at)
	n := len(q.Buffers)
	q.Buffers = append(q.Buffers,
		Buffer{Name: CalibrateAB, Kind: Const, DType: F64, Shape: []int{2}},
		Buffer{Name: probabilityName, Kind: Output, DType: F64, Shape: []int{q.Rows, 1}, PerRow: true})
	q.Instrs = append(q.Instrs, Instr{Op: Calibrate, Args: []int{at, n}, Outs: []int{n + 1}, Node: "calibrate"})
	return q, nil
}

// Consts lists the Const buffers, in the form in which a Set declares them.
func (p *Program) Consts() []TensorSpec {
	var specs []TensorSpec
	for _, b := range p.Buffers {
		if b.Kind == Const {
			specs = append(specs, TensorSpec{Name: b.Name, Shape: slices.Clone(b.Shape)})
		}
	}
	return specs
}

// toTemp makes an Input or Output a Temp with memory of its own behind all others: a tile of a few
// columns is not worth a new plan.
func (p *Program) toTemp(i int) {
	b := &p.Buffers[i]
	b.Kind, b.Offset = Temp, roundUp(p.Arena)
	p.Arena = roundUp(b.Offset + b.Len()*b.DType.Size())
}

func roundUp(n int) int { return (n + align - 1) / align * align }

// clone copies all that the wrappers change.
func (p *Program) clone() *Program {
	q := *p
	q.Buffers = slices.Clone(p.Buffers)
	q.Instrs = slices.Clone(p.Instrs)
	return &q
}
