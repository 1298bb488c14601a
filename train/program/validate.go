package program

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
)

// Bounds on what a set may ask for. A set is read from disk, so nothing may be allocated or looped over
// on its word alone; each is far above what a machine of the size that onmart is for can run.
const (
	maxItems = 1 << 14       // buffers or instructions of a program, tensors of a set
	maxRank  = 8             // dimensions of a tensor
	maxElems = math.MaxInt32 // elements of one tensor
	maxBytes = 16 << 30      // of one program's temps, inputs and outputs together
	maxRows  = 1 << 24       // rows of one batch
	maxIndex = 1 << 24       // rows of a table: whole numbers up to here are exact in float32
	align    = 64            // bytes: one cache line, and any vector register
)

// Validate reports every fault of the set, joined: names, shapes, operand counts, kinds and types,
// attributes, use before definition, and temps that overlap in the arena while both are live. A set
// without a fault can be compiled; one that was read from a file must be validated before any other use.
func (s *Set) Validate() error {
	c := &checker{where: "set"}
	c.specs(s)
	for _, named := range []struct {
		role string
		p    *Program
	}{{"train", s.Train}, {"rest", s.Rest}, {"forward", s.Forward}} {
		if named.p != nil {
			pc := &programChecker{checker: checker{where: named.role}, p: named.p, set: s, forward: named.p == s.Forward}
			pc.program()
			c.errs = append(c.errs, pc.errs...)
		}
	}
	c.between(s)
	return errors.Join(c.errs...)
}

// checker collects faults, each with the place it was found at.
type checker struct {
	where string
	errs  []error
}

func (c *checker) fault(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf("program: %s: %s", c.where, fmt.Sprintf(format, args...)))
}

// elements is the size of a shape, or false where a dimension is below 1 or the shape is too large.
func elements(shape []int) (int, bool) {
	if len(shape) == 0 || len(shape) > maxRank {
		return 0, false
	}
	n := 1
	for _, d := range shape {
		if d < 1 || d > maxElems/n {
			return 0, false
		}
		n *= d
	}
	return n, true
}

// inits are what a param may begin with.
var inits = []string{"zero", "one", "he_uniform", "fan_in_uniform", "glorot_uniform", "uniform", "normal"}

// specs checks the tensors and slots of the set itself.
func (c *checker) specs(s *Set) {
	if s.Forward == nil {
		c.fault("no forward program")
	}
	if s.Train == nil && s.Rest != nil {
		c.fault("a rest program without a train program")
	}
	if n := len(s.Params) + len(s.State) + len(s.Consts) + len(s.Slots); n > maxItems {
		c.fault("%d tensors and slots, at most %d are allowed", n, maxItems)
		return
	}
	seen := map[string]bool{}
	name := func(kind, n string) {
		if n == "" {
			c.fault("a %s without a name", kind)
		} else if seen[n] {
			c.fault("%s %q: the name is used twice", kind, n)
		}
		seen[n] = true
	}
	for kind, specs := range map[Kind][]TensorSpec{Param: s.Params, State: s.State, Const: s.Consts} {
		for _, t := range specs {
			name(string(kind), t.Name)
			if _, ok := elements(t.Shape); !ok {
				c.fault("%s %q: shape %v: dimensions must be 1 or more, at most %d of them and %d elements", kind, t.Name, t.Shape, maxRank, maxElems)
			}
			switch {
			case t.Init == "" || t.Init == "zero":
			case kind != Param:
				c.fault("%s %q: init %q: only a param is initialised", kind, t.Name, t.Init)
			case t.Init == "he_uniform" && t.FanIn < 1:
				c.fault("param %q: he_uniform needs fan_in of 1 or more, not %d", t.Name, t.FanIn)
			case t.Init == "fan_in_uniform" && t.FanIn < 1:
				c.fault("param %q: fan_in_uniform needs fan_in of 1 or more, not %d", t.Name, t.FanIn)
			case t.Init == "glorot_uniform" && (t.FanIn < 1 || t.FanOut < 1):
				c.fault("param %q: glorot_uniform needs fan_in and fan_out of 1 or more, not %d and %d", t.Name, t.FanIn, t.FanOut)
			case (t.Init == "uniform" || t.Init == "normal") && !(t.Scale > 0 && t.Scale <= math.MaxFloat32):
				c.fault("param %q: %s needs a finite scale above 0, not %v", t.Name, t.Init, t.Scale)
			case !slices.Contains(inits, t.Init):
				c.fault("param %q: init %q is not known (%s)", t.Name, t.Init, strings.Join(inits, ", "))
			}
			if t.Site >= siteInit {
				c.fault("%s %q: site %d is reserved", kind, t.Name, t.Site)
			}
		}
	}
	for _, n := range s.Slots {
		name("slot", n)
	}
	slices.SortFunc(c.errs, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
}

// between checks what the programs of the set must agree on.
func (c *checker) between(s *Set) {
	if s.Train != nil && s.Rest != nil && s.Rest.Rows >= s.Train.Rows {
		c.fault("rest has %d rows, train %d: the rest of an epoch is shorter than a batch", s.Rest.Rows, s.Train.Rows)
	}
	dtypes := map[string]DType{}
	for _, p := range []*Program{s.Train, s.Rest, s.Forward} {
		if p == nil || len(p.Buffers) > maxItems {
			continue
		}
		for i := range p.Buffers {
			b := &p.Buffers[i]
			if b.Kind != Const {
				continue
			}
			if d, ok := dtypes[b.Name]; ok && d != b.DType {
				c.fault("const %q is %s in one program and %s in another", b.Name, d, b.DType)
			}
			dtypes[b.Name] = b.DType
		}
	}
}

// programChecker checks one program. Buffers that are sound on their own are marked in ok; an
// instruction is checked for what its sound operands allow.
type programChecker struct {
	checker
	p       *Program
	set     *Set
	forward bool
	ok      []bool
	defined []bool
	sampled map[int]int // by buffer: what Sample wrote there last, as the length of its cdf; see concatenated
	instr   int         // the instruction under check, for messages
}

func (c *programChecker) program() {
	p := c.p
	if p.Rows < 1 || p.Rows > maxRows {
		c.fault("%d rows, want 1 to %d", p.Rows, maxRows)
	}
	if p.Arena < 0 || p.Arena > maxBytes {
		c.fault("arena of %d bytes, want 0 to %d", p.Arena, maxBytes)
	}
	if len(p.Buffers) > maxItems || len(p.Instrs) > maxItems {
		c.fault("%d buffers and %d instructions, at most %d of each are allowed", len(p.Buffers), len(p.Instrs), maxItems)
		return
	}
	c.buffers()
	c.instructions()
	c.results()
	if len(c.errs) == 0 {
		c.arena()
	}
}

// buffers checks every buffer on its own and against the set.
func (c *programChecker) buffers() {
	specs := map[Kind]map[string][]int{Param: {}, State: {}, Const: {}}
	for kind, list := range map[Kind][]TensorSpec{Param: c.set.Params, State: c.set.State, Const: c.set.Consts} {
		for _, t := range list {
			specs[kind][t.Name] = t.Shape
		}
	}
	total := c.p.Arena
	names := map[string]bool{}
	c.ok = make([]bool, len(c.p.Buffers))
	c.defined = make([]bool, len(c.p.Buffers))
	c.sampled = map[int]int{}
	for i := range c.p.Buffers {
		b := &c.p.Buffers[i]
		before := len(c.errs)
		bad := func(format string, args ...any) {
			c.fault("buffer %d (%s %q): %s", i, b.Kind, b.Name, fmt.Sprintf(format, args...))
		}
		elems, shaped := elements(b.Shape)
		if !shaped {
			bad("shape %v: dimensions must be 1 or more, at most %d of them and %d elements", b.Shape, maxRank, maxElems)
		}
		if b.DType != F32 && b.DType != F64 {
			bad("type %q, want F32 or F64", b.DType)
		}
		if b.PerRow && shaped && b.Shape[0] != c.p.Rows {
			bad("per row, but its leading dimension is %d and the program has %d rows", b.Shape[0], c.p.Rows)
		}
		if b.Kind != Temp {
			if b.Offset != 0 {
				bad("offset %d: only a temp has one", b.Offset)
			}
			if b.Name == "" {
				bad("no name")
			} else if names[b.Name] {
				bad("the name is used twice in the program")
			}
			names[b.Name] = true
		}
		switch b.Kind {
		case Param, State, Const:
			want, found := specs[b.Kind][b.Name]
			if !found {
				bad("the set has no %s of this name", b.Kind)
			} else if !slices.Equal(want, b.Shape) {
				bad("shape %v, the set has %v", b.Shape, want)
			}
			if b.Kind != Const && b.DType == F64 {
				bad("type F64, want F32")
			}
			if b.PerRow {
				bad("per row, but it is shared between batches")
			}
			if b.Kind == State && c.forward && c.set.paramOf(b.Name) == "" {
				bad("optimizer state in a forward program")
			}
			c.defined[i] = true
		case Input:
			if c.forward && !b.PerRow {
				bad("an input of a forward program is per row")
			}
			c.defined[i] = c.forward
		case Output:
			if !c.forward {
				bad("an output in a training program")
			} else if !b.PerRow {
				bad("an output is per row")
			}
		case Slot:
			if c.forward {
				bad("a slot in a forward program")
			}
			if b.DType != F64 || !slices.Equal(b.Shape, []int{1}) {
				bad("a slot is F64 of shape [1], not %s of %v", b.DType, b.Shape)
			}
			if b.PerRow {
				bad("a slot is not per row")
			}
			if !slices.Contains(c.set.Slots, b.Name) {
				bad("the set has no slot of this name")
			}
		case Temp:
			if b.Offset < 0 || b.Offset%align != 0 {
				bad("offset %d, want a multiple of %d", b.Offset, align)
			} else if shaped && (b.Offset > c.p.Arena || elems*b.DType.Size() > c.p.Arena-b.Offset) {
				bad("%d bytes at %d do not fit the arena of %d", elems*b.DType.Size(), b.Offset, c.p.Arena)
			}
		default:
			bad("kind %q is not known", b.Kind)
		}
		if b.Kind == Input || b.Kind == Output {
			if total += elems * b.DType.Size(); total > maxBytes {
				bad("inputs, outputs and temps up to here take %d bytes, at most %d are allowed", total, maxBytes)
			}
		}
		c.ok[i] = len(c.errs) == before
	}
}

// arity is how many operands an operation takes; the shape and type rules stand in check.
type arity struct{ minArgs, maxArgs, outs int }

var arities = map[Op]arity{
	Gather: {0, 0, 1}, MatMul: {2, 3, 1}, Activate: {1, 1, 1}, ActGrad: {2, 2, 1}, ColSum: {1, 1, 1}, Add: {2, 2, 1}, Scale: {1, 1, 1},
	Fill: {0, 0, 1}, Dropout: {1, 1, 1}, Concat: {1, maxItems, 1}, Slice: {1, 1, 1}, SliceGrad: {1, 1, 1},
	BCE: {3, 3, 1}, BCEGrad: {4, 4, 1}, Accumulate: {0, 1, 1}, AdamW: {1, 2, 3}, Standardize: {4, 4, 1},
	Calibrate: {2, 2, 1},
	Lookup:    {2, 2, 1}, Sample: {1, 1, 1}, RowDot: {2, 2, 1}, RowScale: {2, 2, 1}, SampledSoftmax: {6, 6, 1},
	SampledSoftmaxGrad: {7, 7, 2}, Pinball: {3, 3, 1}, PinballGrad: {4, 4, 1}, RowAdam: {2, maxItems, 3},
	Map: {1, MaxMapArgs, 1}, Reduce: {1, 1, 1}, Softmax: {1, 1, 1}, LogSoftmax: {1, 1, 1}, SoftmaxGrad: {2, 2, 1},
	LogSoftmaxGrad: {2, 2, 1}, LayerNorm: {3, 3, 1}, LayerNormGrad: {3, 3, 2}, Transpose: {1, 1, 1}, Copy: {1, 1, 1},
	LookupDot: {3, 3, 1}, LookupWeighted: {3, 3, 1}, CandidateSoftmax: {3, 4, 1}, CandidateSoftmaxGrad: {4, 5, 1},
	CandidateBPR: {3, 3, 1}, CandidateBPRGrad: {4, 4, 1}, RowAdagrad: {2, maxItems, 2}, RowSGD: {2, maxItems, 1},
	SGD: {1, 2, 1}, Momentum: {1, 2, 2}, Adam: {1, 2, 3}, Adagrad: {1, 2, 2}, SumSquares: {1, 1, 1},
	RowSumSquares: {3, maxItems, 1},
	ClipFactor:    {1, maxItems, 1}, MovingAverage: {1, 1, 1},
}

// trainOnly are the operations that a forward program may not hold: they need a schedule or a loss.
var trainOnly = map[Op]bool{Gather: true, Dropout: true, BCE: true, BCEGrad: true, Accumulate: true, AdamW: true,
	Sample: true, SampledSoftmax: true, SampledSoftmaxGrad: true, Pinball: true, PinballGrad: true, RowAdam: true,
	CandidateSoftmax: true, CandidateSoftmaxGrad: true, CandidateBPR: true, CandidateBPRGrad: true, RowAdagrad: true,
	RowSGD: true,
	SGD:    true, Momentum: true, Adam: true, Adagrad: true, SumSquares: true, RowSumSquares: true, ClipFactor: true,
	MovingAverage: true}

// inPlace are the operations whose output may lie exactly over Args[0].
var inPlace = map[Op]bool{Add: true, Scale: true, Activate: true, ActGrad: true, Dropout: true,
	Map: true, Softmax: true, LogSoftmax: true, Copy: true}

// updates are the operations that write Params and State.
var updates = map[Op]bool{AdamW: true, RowAdam: true, RowAdagrad: true, RowSGD: true,
	SGD: true, Momentum: true, Adam: true, Adagrad: true, MovingAverage: true}

func (c *programChecker) bad(format string, args ...any) {
	in := &c.p.Instrs[c.instr]
	node := ""
	if in.Node != "" {
		node = fmt.Sprintf(" %q", in.Node)
	}
	c.fault("instruction %d (%s%s): %s", c.instr, in.Op, node, fmt.Sprintf(format, args...))
}

func (c *programChecker) instructions() {
	updated := map[int]bool{}
	for i := range c.p.Instrs {
		c.instr = i
		in := &c.p.Instrs[i]
		a, known := arities[in.Op]
		if !known {
			c.bad("the operation is not known")
			c.define(in)
			continue
		}
		if c.forward && trainOnly[in.Op] {
			c.bad("not allowed in a forward program")
		}
		c.attributes(in)
		sound := true
		for k, ids := range [][]int{in.Args, in.Outs} {
			for _, id := range ids {
				if id < 0 || id >= len(c.p.Buffers) {
					c.bad("%s %d: the program has %d buffers", [2]string{"argument", "output"}[k], id, len(c.p.Buffers))
					sound = false
				} else if !c.ok[id] {
					sound = false
				}
			}
		}
		if len(in.Args) < a.minArgs || len(in.Args) > a.maxArgs {
			c.bad("%d arguments, want %s", len(in.Args), span(a.minArgs, a.maxArgs))
			sound = false
		}
		if len(in.Outs) != a.outs {
			c.bad("%d outputs, want %d", len(in.Outs), a.outs)
			sound = false
		}
		if sound {
			c.kinds(in)
			c.types(in)
			c.shapes(in)
			if updates[in.Op] {
				for _, o := range in.Outs {
					if updated[o] {
						c.bad("%s is updated twice in one step", c.label(o))
					}
					updated[o] = true
				}
			}
		}
		c.define(in)
	}
}

func span(lo, hi int) string {
	switch {
	case lo == hi:
		return fmt.Sprint(lo)
	case hi == maxItems:
		return fmt.Sprintf("%d or more", lo)
	}
	return fmt.Sprintf("%d to %d", lo, hi)
}

// define marks what the instruction writes, faulty or not, so that one fault is not reported again at
// every later use.
func (c *programChecker) define(in *Instr) {
	for _, o := range in.Outs {
		if o < 0 || o >= len(c.defined) {
			continue
		}
		c.defined[o] = true
		delete(c.sampled, o)
		if n := c.concatenated(in); n > 0 {
			c.sampled[o] = n
		}
		if in.Op == Sample && len(in.Args) == 1 && in.Args[0] >= 0 && in.Args[0] < len(c.defined) {
			c.sampled[o] = c.buf(in.Args[0]).Len()
		}
	}
}

// concatenated is, of a Concat of indices alone, the greatest length of a cdf that one of them was drawn from, or 1
// where all are inputs; else 0.
func (c *programChecker) concatenated(in *Instr) int {
	if in.Op != Concat {
		return 0
	}
	most := 1
	for _, a := range in.Args {
		if a < 0 || a >= len(c.defined) {
			return 0
		}
		if n, known := c.sampled[a]; known {
			most = max(most, n)
		} else if c.buf(a).Kind != Input {
			return 0
		}
	}
	return most
}

func (c *programChecker) buf(i int) *Buffer { return &c.p.Buffers[i] }

func (c *programChecker) label(i int) string {
	b := c.buf(i)
	if b.Name != "" {
		return fmt.Sprintf("%s %q", b.Kind, b.Name)
	}
	return fmt.Sprintf("%s %d", b.Kind, i)
}

// attributes checks those that the operation names and that the others are zero.
func (c *programChecker) attributes(in *Instr) {
	at := in.Attr
	finite := func(name string, x float64) {
		if math.IsNaN(x) || math.IsInf(x, 0) {
			c.bad("%s is %v", name, x)
		}
	}
	within := func(name string, x float64) {
		if !(x >= 0 && x < 1) {
			c.bad("%s is %v, want 0 or more and below 1", name, x)
		}
	}
	switch in.Op {
	case Gather:
		if at.Column == "" {
			c.bad("no column")
		}
		at.Column = ""
	case MatMul, Activate, ActGrad:
		if !at.Act.known() {
			c.bad("activation %q is not known", at.Act)
		}
		at.Act = None
		if in.Op == MatMul {
			at.TransA, at.TransB = false, false
		}
	case Scale, Fill, Accumulate:
		finite("scale", float64(at.Scale))
		at.Scale, at.Sized = 0, at.Sized && in.Op == Accumulate
	case Dropout:
		within("rate", float64(at.Rate))
		if at.Site >= siteInit {
			c.bad("site %d is reserved", at.Site)
		}
		at.Rate, at.Site = 0, 0
	case Sample:
		if at.Site >= siteInit {
			c.bad("site %d is reserved", at.Site)
		}
		at.Site = 0
	case Pinball, PinballGrad:
		if at.Levels.Len() == 0 {
			c.bad("levels %v, want 1 to %d of them, ascending, above 0 and below 1", at.Levels, MaxLevels)
		}
		at.Levels = Levels{}
	case Slice, SliceGrad:
		if at.From < 0 || at.To <= at.From {
			c.bad("columns %d..%d are none", at.From, at.To)
		}
		at.From, at.To = 0, 0
	case Map:
		if len(in.Args) > 0 && len(in.Args) <= MaxMapArgs {
			if _, err := ParseExpr(at.Expr, len(in.Args)); err != nil {
				c.bad("%v", err)
			}
		}
		at.Expr, at.Sized = "", false
	case Reduce:
		if !at.Fold.known() {
			c.bad("fold %q is not known", at.Fold)
		}
		if at.Axis < 0 || at.Axis >= maxRank {
			c.bad("axis %d", at.Axis)
		}
		at.Fold, at.Axis = "", 0
	case LayerNorm, LayerNormGrad:
		if finite("eps", at.Eps); !(at.Eps > 0) {
			c.bad("eps %v, want above 0", at.Eps)
		}
		at.Eps = 0
	case RowSGD:
		finite("decay", at.Decay)
		if !(at.Decay >= 0) {
			c.bad("decay %v, want 0 or more", at.Decay)
		}
		at.Decay, at.Uses = 0, ""
	case AdamW, RowAdam, RowAdagrad:
		if in.Op != RowAdagrad {
			within("beta1", at.Beta1)
			within("beta2", at.Beta2)
			at.Beta1, at.Beta2 = 0, 0
		}
		if in.Op != AdamW {
			at.Uses = ""
		}
		finite("eps", at.Eps)
		finite("decay", at.Decay)
		if !(at.Eps > 0) || !(at.Decay >= 0) {
			c.bad("eps %v and decay %v, want above 0 and 0 or more", at.Eps, at.Decay)
		}
		at.Eps, at.Decay = 0, 0
	default:
		c.optimAttributes(in, &at)
	}
	if at != (Attr{}) {
		left, _ := json.Marshal(at) // of numbers that may be infinite nothing is left: finite has named them
		c.bad("attributes that it does not have: %s", left)
	}
}

// fixedArgs are the arguments that live in one kind of place.
var fixedArgs = map[Op][]struct {
	arg   int
	kinds []Kind
}{
	Lookup: {{0, []Kind{Param, Const, State}}}, Sample: {{0, []Kind{Const}}},
	SampledSoftmax: {{4, []Kind{Const}}}, SampledSoftmaxGrad: {{4, []Kind{Const}}},
	LookupDot: {{0, []Kind{Param, Const, State}}}, LookupWeighted: {{0, []Kind{Param, Const, State}}},
	RowSumSquares: {{0, []Kind{Param}}}, MovingAverage: {{0, []Kind{Param}}},
}

// kinds checks where operands may live, that arguments are defined, and that outputs are not arguments.
func (c *programChecker) kinds(in *Instr) {
	for _, a := range in.Args {
		if c.buf(a).Kind == Slot {
			c.bad("%s is an argument; slots are only added to", c.label(a))
		} else if !c.defined[a] {
			c.bad("%s is used before it is written", c.label(a))
		}
	}
	for _, f := range fixedArgs[in.Op] {
		if b := c.buf(in.Args[f.arg]); !slices.Contains(f.kinds, b.Kind) {
			c.bad("argument %d, %s, is a %v", f.arg, c.label(in.Args[f.arg]), f.kinds)
		}
	}
	if q := in.logQ(); q >= 0 && c.buf(in.Args[q]).Kind != Const {
		c.bad("argument %d, %s, is a %v", q, c.label(in.Args[q]), []Kind{Const})
	}
	for _, ix := range c.p.indices(in) {
		if n, sampled := c.sampled[ix.buf]; sampled && n > ix.rows {
			c.bad("%s was drawn from %d rows and is an index of %d", c.label(ix.buf), n, ix.rows)
		} else if !sampled && c.buf(ix.buf).Kind != Input {
			c.bad("%s is an index, but neither an input nor drawn by sample", c.label(ix.buf))
		}
	}
	for k, o := range in.Outs {
		want := []Kind{Temp, Output}
		switch in.Op {
		case Gather:
			want = []Kind{Input}
		case Accumulate:
			want = []Kind{Slot}
		case AdamW, RowAdam, RowAdagrad, RowSGD:
			want = []Kind{State}
			if k == 0 {
				want = []Kind{Param}
			}
		default:
			if kinds := optimOuts(in.Op, k); kinds != nil {
				want = kinds
			}
		}
		if !slices.Contains(want, c.buf(o).Kind) {
			c.bad("writes %s; output %d is a %v", c.label(o), k, want)
		}
		if slices.Contains(in.Outs[:k], o) {
			c.bad("writes %s twice", c.label(o))
		}
		for j, a := range in.Args {
			if a == o && !(inPlace[in.Op] && in.Args[0] == o) {
				c.bad("writes over its argument %d, %s", j, c.label(a))
			}
		}
	}
}

// types checks that operands are F32 but where the operation says F64.
func (c *programChecker) types(in *Instr) {
	check := func(side string, k, id int, want DType) {
		if got := c.buf(id).DType; got != want {
			c.bad("%s %d, %s, is %s, want %s", side, k, c.label(id), got, want)
		}
	}
	for k, a := range in.Args {
		want := F32
		if in.Op == Standardize || in.Op == Calibrate && k == 1 {
			want = F64
		}
		check("argument", k, a, want)
	}
	for k, o := range in.Outs {
		want := F32
		if in.Op == Accumulate || in.Op == Calibrate {
			want = F64
		}
		check("output", k, o, want)
	}
}

// shapes checks the shapes of operands against each other and, in a forward program, that rows of the
// output depend on the same rows of the arguments and on no others.
func (c *programChecker) shapes(in *Instr) {
	shape := func(i int) []int { return c.buf(i).Shape }
	want := func(what string, id int, dims ...int) {
		if !slices.Equal(shape(id), dims) {
			c.bad("%s, %s, has shape %v, want %v", what, c.label(id), shape(id), dims)
		}
	}
	matrix := func(what string, id int) (m, n int, ok bool) {
		if s := shape(id); len(s) == 2 {
			return s[0], s[1], true
		}
		c.bad("%s, %s, has shape %v, want a matrix", what, c.label(id), shape(id))
		return 0, 0, false
	}
	// rowwise: these operands are all per row, or none is.
	rowwise := func(ids ...int) {
		for _, id := range ids {
			if is, isNot := id, ids[0]; c.forward && c.buf(is).PerRow != c.buf(isNot).PerRow {
				if !c.buf(is).PerRow {
					is, isNot = isNot, is
				}
				c.bad("%s is per row and %s is not", c.label(is), c.label(isNot))
			}
		}
	}
	// whole: the operand is needed whole by each row.
	whole := func(id int) {
		if c.forward && c.buf(id).PerRow {
			c.bad("%s is per row, but each row needs all of it", c.label(id))
		}
	}
	arg := func(k int) int { return in.Args[k] }
	out := in.Outs[0]
	switch in.Op {
	case Gather:
		if m, _, ok := matrix("output", out); ok && m != c.p.Rows {
			c.bad("output has %d rows, the program %d", m, c.p.Rows)
		}
	case MatMul:
		c.matmulShapes(in, matrix, want)
		whole(arg(1))
		if len(in.Args) == 3 {
			whole(arg(2))
		}
		if in.Attr.TransA {
			whole(arg(0))
			whole(out)
		} else {
			rowwise(arg(0), out)
		}
	case Activate, ActGrad, Add, Scale, Dropout:
		for k, a := range in.Args {
			want(fmt.Sprintf("argument %d", k), a, shape(out)...)
			rowwise(out, a)
		}
	case Map, Reduce, Softmax, LogSoftmax, SoftmaxGrad, LogSoftmaxGrad, LayerNorm, LayerNormGrad, Transpose, Copy:
		c.generalShapes(in, matrix, want, rowwise, whole)
	case Fill:
	case ColSum:
		if _, n, ok := matrix("argument 0", arg(0)); ok {
			want("output", out, n)
		}
		whole(arg(0))
		whole(out)
	case Concat:
		m, n, ok := matrix("output", out)
		total := 0
		for k, a := range in.Args {
			p, q, good := matrix(fmt.Sprintf("argument %d", k), a)
			if good && ok && p != m {
				c.bad("argument %d has %d rows, the output %d", k, p, m)
			}
			total += q
			ok = ok && good
			rowwise(out, a)
		}
		if ok && total != n {
			c.bad("arguments have %d columns together, the output %d", total, n)
		}
	case Slice, SliceGrad:
		wide, narrow := arg(0), out
		if in.Op == SliceGrad {
			wide, narrow = out, arg(0)
		}
		if m, n, ok := matrix("the whole", wide); ok && in.Attr.From >= 0 && in.Attr.To > in.Attr.From {
			if in.Attr.To > n {
				c.bad("columns %d..%d of %d", in.Attr.From, in.Attr.To, n)
			}
			want("the slice", narrow, m, in.Attr.To-in.Attr.From)
		}
		rowwise(out, arg(0))
	case BCE, BCEGrad:
		if m, _, ok := matrix("argument 0", arg(0)); ok {
			for k := range 3 {
				want(fmt.Sprintf("argument %d", k), arg(k), m, 1)
			}
			if in.Op == BCE {
				want("output", out, 1)
			} else {
				want("argument 3", arg(3), 1)
				want("output", out, m, 1)
			}
		}
	case Accumulate:
		for _, a := range in.Args {
			want("argument 0", a, 1)
		}
	case AdamW, SGD, Momentum, Adam, Adagrad, SumSquares, RowSumSquares, ClipFactor, MovingAverage:
		c.optimShapes(in, matrix, want)
	case Standardize:
		if m, n, ok := matrix("argument 0", arg(0)); ok {
			for k := 1; k < 4; k++ {
				want(fmt.Sprintf("argument %d", k), arg(k), n)
				whole(arg(k))
			}
			want("output", out, m, n)
		}
		rowwise(out, arg(0))
	case Lookup:
		n, d, ok := matrix("the table", arg(0))
		if m, _, good := matrix("the index", arg(1)); ok && good {
			want("output", out, m, d)
			c.countable(n)
		}
		whole(arg(0))
		rowwise(out, arg(1))
	case Sample:
		if s := shape(arg(0)); len(s) != 1 {
			c.bad("the cdf, %s, has shape %v, want a vector", c.label(arg(0)), s)
		} else {
			c.countable(s[0])
		}
		matrix("output", out)
	case LookupDot, LookupWeighted:
		n, d, ok := matrix("the table", arg(0))
		if m, w, good := matrix("the index", arg(1)); ok && good {
			rows, of := []int{m, d}, []int{m, w}
			if in.Op == LookupWeighted {
				rows, of = of, rows
			}
			want("argument 2", arg(2), rows...)
			want("output", out, of...)
			c.countable(n)
		}
		whole(arg(0))
		rowwise(out, arg(1), arg(2))
	case CandidateSoftmax, CandidateSoftmaxGrad, CandidateBPR, CandidateBPRGrad:
		c.candidateShapes(in, matrix, want)
	case RowDot:
		if m, d, ok := matrix("argument 0", arg(0)); ok {
			want("argument 1", arg(1), m, d)
			want("output", out, m, 1)
		}
		rowwise(out, arg(0), arg(1))
	case RowScale:
		if m, d, ok := matrix("argument 0", arg(0)); ok {
			want("argument 1", arg(1), m, 1)
			want("output", out, m, d)
		}
		rowwise(out, arg(0), arg(1))
	case SampledSoftmax, SampledSoftmaxGrad:
		c.softmaxShapes(in, matrix, want)
	case Pinball, PinballGrad:
		c.pinballShapes(in, matrix, want)
	case RowAdam, RowAdagrad, RowSGD:
		c.tableShapes(in, matrix, want)
	case Calibrate:
		if m, _, ok := matrix("argument 0", arg(0)); ok {
			want("argument 0", arg(0), m, 1)
			want("output", out, m, 1)
		}
		want("argument 1", arg(1), 2)
		whole(arg(1))
		rowwise(out, arg(0))
	}
}

// countable checks that float32 holds every index of a table.
func (c *programChecker) countable(rows int) {
	if rows > maxIndex {
		c.bad("%d rows: an index is a whole number in a float32, which is exact below %d", rows, maxIndex)
	}
}

func (c *programChecker) softmaxShapes(in *Instr, matrix func(string, int) (int, int, bool), want func(string, int, ...int)) {
	m, k, ok := matrix("argument 1", in.Args[1])
	if !ok {
		return
	}
	want("argument 0", in.Args[0], m, 1)
	want("argument 2", in.Args[2], m, 1)
	want("argument 3", in.Args[3], k, 1)
	if s := c.buf(in.Args[4]).Shape; len(s) != 1 {
		c.bad("argument 4, %s, has shape %v, want a vector", c.label(in.Args[4]), s)
	} else {
		c.countable(s[0])
	}
	want("argument 5", in.Args[5], m, 1)
	if in.Op == SampledSoftmax {
		want("output", in.Outs[0], 1)
		return
	}
	want("argument 6", in.Args[6], 1)
	want("output 0", in.Outs[0], m, 1)
	want("output 1", in.Outs[1], m, k)
}

func (c *programChecker) pinballShapes(in *Instr, matrix func(string, int) (int, int, bool), want func(string, int, ...int)) {
	m, h, ok := matrix("argument 1", in.Args[1])
	if !ok {
		return
	}
	q := max(in.Attr.Levels.Len(), 1)
	want("argument 0", in.Args[0], m, h*q)
	want("argument 2", in.Args[2], m, h)
	if in.Op == Pinball {
		want("output", in.Outs[0], 1)
		return
	}
	want("argument 3", in.Args[3], 1)
	want("output", in.Outs[0], m, h*q)
}

func (c *programChecker) candidateShapes(in *Instr, matrix func(string, int) (int, int, bool),
	want func(string, int, ...int)) {
	m, w, ok := matrix("argument 0", in.Args[0])
	if !ok {
		return
	}
	if w < 2 {
		c.bad("%d columns, want a positive and at least one other", w)
	}
	want("argument 1", in.Args[1], m, w)
	want("argument 2", in.Args[2], m, 1)
	if in.Op == CandidateSoftmax || in.Op == CandidateBPR {
		want("output", in.Outs[0], 1)
	} else {
		want("argument 3", in.Args[3], 1)
		want("output", in.Outs[0], m, w)
	}
	if q := in.logQ(); q >= 0 {
		if s := c.buf(in.Args[q]).Shape; len(s) != 1 {
			c.bad("argument %d, %s, has shape %v, want a vector", q, c.label(in.Args[q]), s)
		} else {
			c.countable(s[0])
		}
	}
}

// tableShapes checks an optimizer of a table.
func (c *programChecker) tableShapes(in *Instr, matrix func(string, int) (int, int, bool),
	want func(string, int, ...int)) {
	n, d, ok := matrix("output 0", in.Outs[0])
	if !ok {
		return
	}
	switch in.Op {
	case RowAdam:
		want("output 1", in.Outs[1], n, d)
		want("output 2", in.Outs[2], n, d)
	case RowAdagrad:
		if s := c.buf(in.Outs[1]).Shape; !slices.Equal(s, []int{n, 1}) {
			want("output 1", in.Outs[1], n, d)
		}
	}
	if f := in.Factor(); f >= 0 {
		want("the factor", f, 1)
	}
	c.tableGradient(in, n, d, matrix, want)
}

func (c *programChecker) matmulShapes(in *Instr, matrix func(string, int) (int, int, bool), want func(string, int, ...int)) {
	m, k, okA := matrix("a", in.Args[0])
	k2, n, okB := matrix("b", in.Args[1])
	if !okA || !okB {
		return
	}
	if in.Attr.TransA {
		m, k = k, m
	}
	if in.Attr.TransB {
		k2, n = n, k2
	}
	if k != k2 {
		c.bad("a has %d columns (transposed if so), b %d rows", k, k2)
	}
	want("output", in.Outs[0], m, n)
	if len(in.Args) == 3 && !slices.Equal(c.buf(in.Args[2]).Shape, []int{1, n}) {
		want("bias", in.Args[2], n)
	}
}

// generalShapes are the rules of the operations that Gorgonia's own are lowered to.
func (c *programChecker) generalShapes(in *Instr, matrix func(string, int) (int, int, bool),
	want func(string, int, ...int), rowwise func(...int), whole func(int)) {
	x, out := in.Args[0], in.Outs[0]
	shape := func(id int) []int { return c.buf(id).Shape }
	switch in.Op {
	case Map:
		for k, a := range in.Args {
			if !Broadcasts(shape(a), shape(out)) {
				c.bad("argument %d, %s, has shape %v, which cannot be broadcast to %v", k, c.label(a), shape(a), shape(out))
			} else if len(shape(a)) == len(shape(out)) && (shape(a)[0] != 1 || c.buf(a).PerRow) {
				rowwise(out, a)
			} else {
				whole(a)
			}
		}
	case Reduce:
		c.reduceShapes(in, rowwise, whole)
	case Softmax, LogSoftmax, SoftmaxGrad, LogSoftmaxGrad:
		if m, n, ok := matrix("output", out); ok {
			for k, a := range in.Args {
				want(fmt.Sprintf("argument %d", k), a, m, n)
				rowwise(out, a)
			}
		}
	case LayerNorm, LayerNormGrad:
		m, n, ok := matrix("argument 0", x)
		if !ok {
			return
		}
		vectors, outs := in.Args[1:], in.Outs
		if in.Op == LayerNormGrad {
			want("argument 1", in.Args[1], m, n)
			rowwise(out, in.Args[1])
			vectors = in.Args[2:]
		}
		for _, v := range vectors {
			want("a vector", v, n)
			whole(v)
		}
		for k, o := range outs {
			want(fmt.Sprintf("output %d", k), o, m, n)
			rowwise(x, o)
		}
	case Transpose:
		if m, n, ok := matrix("argument 0", x); ok {
			want("output", out, n, m)
		}
		whole(x)
		whole(out)
	case Copy:
		if c.buf(x).Len() != c.buf(out).Len() {
			c.bad("%v elements are copied to %v", shape(x), shape(out))
		}
		rowwise(out, x)
	}
}

// reduceShapes checks a Reduce: rows may not be added together in a forward program.
func (c *programChecker) reduceShapes(in *Instr, rowwise func(...int), whole func(int)) {
	x, out, axis := c.buf(in.Args[0]), c.buf(in.Outs[0]), in.Attr.Axis
	if axis < 0 || axis >= len(x.Shape) {
		c.bad("axis %d of %s, which has shape %v", axis, c.label(in.Args[0]), x.Shape)
		return
	}
	kept := slices.Clone(x.Shape)
	kept[axis] = 1
	without := slices.Delete(slices.Clone(x.Shape), axis, axis+1)
	if len(without) == 0 {
		without = []int{1}
	}
	if !slices.Equal(out.Shape, kept) && !slices.Equal(out.Shape, without) {
		c.bad("output, %s, has shape %v, want %v or %v", c.label(in.Outs[0]), out.Shape, without, kept)
	}
	if axis == 0 {
		whole(in.Args[0])
		whole(in.Outs[0])
		return
	}
	rowwise(in.Outs[0], in.Args[0])
}

// results checks that a forward program leaves something and writes all that it says it leaves.
func (c *programChecker) results() {
	outputs := 0
	for i := range c.p.Buffers {
		b := c.buf(i)
		if b.Kind == Output {
			outputs++
		}
		if b.Kind == Output && !c.defined[i] {
			c.fault("%s is never written", c.label(i))
		}
	}
	if c.forward && outputs != 1 {
		c.fault("%d outputs, a forward program has one", outputs)
	}
}

// arena checks that nothing is written over a temp that will still be read. It runs on programs that are
// sound otherwise, backwards, with the set of temps whose next access is a read.
func (c *programChecker) arena() {
	live := map[int]bool{}
	overlap := func(a, b *Buffer) bool {
		return a.Offset < b.Offset+b.Len()*b.DType.Size() && b.Offset < a.Offset+a.Len()*a.DType.Size()
	}
	for i := len(c.p.Instrs) - 1; i >= 0; i-- {
		c.instr = i
		in := &c.p.Instrs[i]
		for k, o := range in.Outs {
			out := c.buf(o)
			if out.Kind != Temp {
				continue
			}
			for _, other := range in.Outs[:k] {
				if b := c.buf(other); b.Kind == Temp && overlap(b, out) {
					c.bad("its outputs %s and %s overlap in the arena", c.label(other), c.label(o))
				}
			}
			var clobbered []int
			for t := range live {
				if t != o && overlap(c.buf(t), out) {
					clobbered = append(clobbered, t)
				}
			}
			slices.Sort(clobbered)
			for _, t := range clobbered {
				c.bad("writes %s over %s, which is read later", c.label(o), c.label(t))
			}
			for k, a := range in.Args {
				b := c.buf(a)
				if a == o || b.Kind != Temp || live[a] || !overlap(b, out) {
					continue // live: reported above; the same buffer: kinds reports it
				}
				if !(inPlace[in.Op] && a == in.Args[0] && b.Offset == out.Offset) {
					c.bad("its output %s overlaps its argument %d, %s, in the arena", c.label(o), k, c.label(a))
				}
			}
		}
		for _, o := range in.Outs {
			delete(live, o)
		}
		for _, a := range in.Args {
			if c.buf(a).Kind == Temp {
				live[a] = true
			}
		}
	}
}
