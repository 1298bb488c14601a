// Package program is the instruction set between models and machines.
//
// What enters: a lowered graph (train/graph builds it). What leaves: a Set of Programs that a Backend
// compiles and runs; train/cpu is one. A Program is a flat list of instructions over buffers whose
// places were planned ahead, serialisable as JSON. It imports nothing of onmart, and it may not be
// assumed that a Program was made in this process: Validate is called on everything that is read.
//
// Numbers are float32 but where an operand says float64. Matrices are row-major and dense.
package program

import (
	"encoding/json"
	"fmt"
	"strings"
)

// DType is the type of one element of a buffer or tensor, by the name that safetensors uses.
type DType string

const (
	F32 DType = "F32"
	F64 DType = "F64"
)

// Size of one element in bytes.
func (d DType) Size() int {
	if d == F64 {
		return 8
	}
	return 4
}

// Kind says where a buffer lives and for how long.
type Kind string

const (
	// Input is one batch of a bound column (training: filled by Gather) or the rows handed to a
	// forward program. Not written by any other instruction.
	Input Kind = "input"
	// Param is a weight, shared by name between the programs of a Set; trained by the optimizer.
	Param Kind = "param"
	// State is optimizer state, shared by name like a Param, exported and imported with it. A forward program may read
	// averages of weights (AverageName) and no other.
	State Kind = "state"
	// Const is a fixed tensor that belongs to the program (standardisation, calibration), stored with
	// the weights under its name.
	Const Kind = "const"
	// Temp lives within one step, in the arena at Offset.
	Temp Kind = "temp"
	// Slot is one float64 that instructions add to; cleared when a Run begins, read when it ends.
	Slot Kind = "slot"
	// Output is what a forward program leaves, one row for each input row.
	Output Kind = "output"
)

// Buffer is one operand. Buffers are named by their index in Program.Buffers.
type Buffer struct {
	Name  string `json:"name"`
	Kind  Kind   `json:"kind"`
	DType DType  `json:"dtype"`
	Shape []int  `json:"shape"`
	// PerRow: the leading dimension is the batch, Shape[0] == Program.Rows, and a forward program may
	// be run with fewer rows.
	PerRow bool `json:"per_row,omitempty"`
	// Offset of a Temp in the arena, in bytes, a multiple of 64.
	Offset int `json:"offset,omitempty"`
}

// Len is the number of elements.
func (b *Buffer) Len() int {
	n := 1
	for _, d := range b.Shape {
		n *= d
	}
	return n
}

// Op is an instruction's operation. The operands of each are listed with it: args -> outs.
type Op string

const (
	// Gather: () -> (x [B,w]). Row i of x is row perm(epoch, first+i) of bound column Attr.Column, where
	// perm is Permutation over Schedule.Train.
	Gather Op = "gather"
	// MatMul: (a, b[, bias [n] or [1,n]]) -> (y [m,n]). y = act(a' b' + bias); a' is a or, with TransA, its
	// transpose. Each y[i,j] is one chain of fused multiply-adds over k in ascending order starting
	// from 0. Only where n is 1 and a is not transposed, so that there is one column for no lanes, lane l of Lanes is
	// the chain over k = l, l+16, l+32 ..., and the lanes are folded as LaneSum folds them. The bias is added after
	// that, then the activation.
	MatMul Op = "matmul"
	// Activate: (z) -> (y) = act(z), elementwise, the same shape: to the bit what MatMul fuses. Training
	// takes it where the gradient needs z.
	Activate Op = "activate"
	// ActGrad: (dy, y or z) -> (dz), all the same shape. dz = dy * act'(z). For Relu the second argument is
	// y = act(z): dz is dy where y > 0, else 0. For Silu it is z: with s = 1 / (1 + exp(-z)),
	// dz = dy * s * (1 + z (1-s)). For None dz is dy and the second argument is not looked at.
	ActGrad Op = "act_grad"
	// ColSum: (x [m,n]) -> (s [n]). Rows are added in ascending order, one chain a column.
	ColSum Op = "col_sum"
	// Add: (a, b) -> (y), elementwise, all the same shape.
	Add Op = "add"
	// Scale: (x) -> (y) = Attr.Scale * x.
	Scale Op = "scale"
	// Fill: () -> (y), every element Attr.Scale.
	Fill Op = "fill"
	// Dropout: (x) -> (y). y[i] = x[i] / (1-Rate) where u >= Rate, else 0; u is element i%4 of
	// Uniforms4(seed, step, Site, i/4), step counts from 0 over the whole training and i over the elements of
	// the whole batch. The gradient is the same instruction on dy.
	Dropout Op = "dropout"
	// Concat: (a [m,p], b [m,q], ...) -> (y [m,p+q+...]) along the columns.
	Concat Op = "concat"
	// Slice: (x [m,n]) -> (y [m,To-From]), columns From..To.
	Slice Op = "slice"
	// SliceGrad: (dy [m,To-From]) -> (dx [m,n]): dy at columns From..To, 0 elsewhere.
	SliceGrad Op = "slice_grad"
	// BCE: (z [m,1], t [m,1], w [m,1]) -> (loss [1]). loss = sum_i w_i l_i / m with
	// l = max(z,0) - z t + log(1 + exp(-|z|)). Each w_i l_i is within 4 units in the last place of float32 of
	// w_i (1 + |z_i|), then they are summed in LaneSum's order in float32.
	BCE Op = "bce_with_logits"
	// BCEGrad: (z, t, w, dloss [1]) -> (dz [m,1]). dz_i = dloss w_i (sigmoid(z_i) - t_i) / m. Where t_i is 0 or 1 and
	// |z_i| at most 87 it is within 8 units of its own last place; past 87 it may be anything of that sign up to its value
	// at 87, if that is smaller than 1e-35, so that exp need not leave the normal range.
	BCEGrad Op = "bce_with_logits_grad"
	// Accumulate: (x [1]) -> (slot). slot += float64(x) * Attr.Scale. Without args: slot += Attr.Scale.
	Accumulate Op = "accumulate"
	// AdamW: (grad[, factor [1]]) -> (param, m, v). One pass of Kingma & Ba 2015 with the decoupled decay of
	// Loshchilov & Hutter 2019: g is grad or, with a factor, grad * factor; step t counts from 1 over the whole
	// training, lr = Schedule.Rates[t-1],
	// m = b1 m + (1-b1) g, v = b2 v + (1-b2) g g,
	// p = p - lr (m / (1-b1^t) / (sqrt(v / (1-b2^t)) + eps) + decay p). The other optimizers stand in optim.go.
	AdamW Op = "adamw"
	// Standardize: (x [m,n] float64, mean [n] float64, scale [n] float64, log [n] float64)
	// -> (y [m,n] float32). u = log1p(max(x, 0)) where log is 1, x where it is 0;
	// y = float32((u - mean) * scale), all in float64 but the last cast.
	Standardize Op = "standardize"
	// Calibrate: (z [m,1], ab [2] float64) -> (p [m,1] float64). p = 1 / (1 + exp(-(a z + b))) in
	// float64 (Platt 1999). A monotone map for a > 0: it never changes an order.
	Calibrate Op = "calibrate"

	// The operations of embeddings. An index is a whole number in a float32 (exact below 2^24): a row of a table, or
	// -1 for none. Index operands are Inputs, what Sample wrote, or a Concat of such. CheckData refuses a column with
	// another value, so that a kernel may take x for an index where 0 <= x < n and for none everywhere else, NaN included.

	// Lookup: (table [n,d] Param, Const or State, idx [m,w]) -> (y [m,d]). y_i is the mean of the rows of the table that
	// row i of idx names: added in ascending order of the column of idx, one chain a column of the table that begins with
	// the first row there is, then divided by their number where that is above 1; 0 where there is none. A row that is
	// named twice counts twice. Every result is rounded to float32: the same bits everywhere.
	Lookup Op = "lookup"
	// Sample: (cdf [n] Const, ascending, its last 1) -> (idx [k,w]). Element j of idx, counted row by row, is the least i
	// with cdf[i] > u, or n-1 where there is none; u is element j%4 of Uniforms4(seed, step, Site, j/4). The same bits
	// everywhere.
	Sample Op = "sample"
	// RowDot: (a [m,d], b [m,d]) -> (s [m,1]). s_i = sum_c a_ic b_ic: one chain of fused multiply-adds over c in
	// ascending order from 0. The same bits everywhere.
	RowDot Op = "row_dot"
	// RowScale: (x [m,d], s [m,1]) -> (y [m,d]). y_ic = x_ic s_i. The gradient of RowDot by one side is RowScale of
	// the other; that of RowScale by s is RowDot.
	RowScale Op = "row_scale"
	// SampledSoftmax: (pos [m,1], neg [m,k], pi [m,1] index, ni [k,1] index, logq [n] Const, w [m,1]) -> (loss [1]). The
	// softmax cross-entropy of the item pi_i, whose logit is pos_i, among itself and the k items ni, whose logits
	// are neg_i and which all rows share, corrected for how often each was drawn (Bengio & Senecal 2008; with
	// shared negatives in kind as in Yi et al. 2019):
	//	a_i = pos_i - logq[pi_i], b_ij = neg_ij - logq[ni_j], rounded to float32
	//	M_i = max(a_i, b_ij over the j that count), where j counts unless ni_j == pi_i or ni_j is none
	//	e_ij = exp(b_ij - M_i) where j counts, else 0; x_i = exp(a_i - M_i); the differences rounded to float32
	//	N_i = LaneSum(e_i), over all k places; S_i = N_i + x_i
	//	l_i = log(S_i) + (M_i - a_i), 0 where pi_i is none
	//	loss = LaneSum(w_i l_i) / m
	// An exponential is within 3 units in the last place of float32 of that of its rounded argument, and anything
	// from 0 to 2^-125 where that is below -87; exp(0) is 1. w_i l_i is within 4 units in the last place of
	// w_i (1 + log(S_i) + M_i - a_i), of the S_i that came out (the CPU computes it in float64 and rounds it).
	SampledSoftmax Op = "sampled_softmax"
	// SampledSoftmaxGrad: (pos, neg, pi, ni, logq, w, dloss [1]) -> (dpos [m,1], dneg [m,k]). With e, N and S as above,
	// c = dloss / m and g_i = (c w_i) / S_i: dneg_ij = g_i e_ij and dpos_i = -(g_i N_i), each step rounded to
	// float32; both are 0 in a row whose pi_i is none.
	SampledSoftmaxGrad Op = "sampled_softmax_grad"
	// Pinball: (y [m,h*q], t [m,h], w [m,h]) -> (loss [1]). The pinball loss of q quantiles at h steps (Koenker & Bassett
	// 1978): column s*q+l of y is the forecast for level Attr.Levels[l] at step s. With u = t_is - y_isl and the level v
	// in float32 a term is w_is max(v u, (v-1) u), or 0 where w_is is 0 whatever y and t are: so w masks. Each
	// difference and product is rounded to float32. loss = LaneSum over rows of the LaneSum of a row's terms, in the
	// order of y's columns, / (m h q). The same bits everywhere.
	Pinball Op = "pinball"
	// PinballGrad: (y, t, w, dloss [1]) -> (dy [m,h*q]). With c = dloss / (m h q): dy_isl = (c w_is) (-v) where u > 0,
	// (c w_is) (1-v) where u < 0, and 0 where u is 0 or w_is is 0; each step rounded to float32.
	PinballGrad Op = "pinball_grad"
	// RowAdam: (uses ...[, factor [1]]) -> (param [n,d], m [n,d], v [n,d]). The optimizer of a table that is read by rows,
	// given what each reading of it in the step, a use, contributes to its gradient. The operands of a use are, by its
	// letter in Attr.Uses:
	//	l, a Lookup: idx [m,w] and dy [m,d], the gradient of its y. The contribution of idx_ij is dy_i, divided by the
	//	   number of indices in row i of idx where that is above 1
	//	s, a LookupDot or LookupWeighted: idx [m,w], s [m,w] and a [m,d]. The contribution of idx_ij is s_ij a_i; so s is
	//	   the gradient of LookupDot's s and a its a, or s is LookupWeighted's s and a the gradient of its y
	// Empty Uses are an l for each pair of operands. A factor, behind the uses and without a letter, is what the gradient
	// is multiplied by, as in AdamW. Every index of every idx is one entry (row, use, place in idx), the
	// places counted row by row; the entries are sorted by row, then use, then place. The gradient g of a row of the
	// table is one chain a column in that order: the first contribution, rounded to float32, then each next one added, of
	// an s by a fused multiply-add. Then each row that has an entry gets one step of AdamW, with t counted over the whole
	// training; the other rows, and their moments, stay as they are. So it is AdamW done lazily, as in PyTorch's
	// SparseAdam.
	RowAdam Op = "row_adam"

	// The operations that Gorgonia's own are lowered to.

	// Map: (x0, x1, ...) -> (y). An elementwise expression, Attr.Expr (see ParseExpr), of 1 to MaxMapArgs operands, each
	// of which is broadcast to the shape of y (see Broadcasts). Every function of it is rounded to float32.
	Map Op = "map"
	// Reduce: (x) -> (y). Attr.Fold along dimension Attr.Axis of x; y has the shape of x without that dimension, or with 1
	// in its place, or [1] where nothing is left. With the (outer, n, inner) of Split, a sum along the last dimension
	// (inner is 1) is a LaneSum, another one chain in ascending order from 0.
	Reduce Op = "reduce"
	// Softmax: (x [m,n]) -> (y [m,n]), by row: with M the greatest x_j (as Reduce's Max), e_j = exp(x_j - M) by FnExp and
	// S = LaneSum(e), y_j = e_j / S; each step rounded to float32.
	Softmax Op = "softmax"
	// LogSoftmax: (x [m,n]) -> (y [m,n]), by row: y_j = (x_j - M) - log(S), of M and S as in Softmax, the logarithm by
	// FnLog.
	LogSoftmax Op = "log_softmax"
	// SoftmaxGrad: (dy [m,n], y [m,n]) -> (dx [m,n]), y being what Softmax left: with d = LaneSum(dy_j y_j),
	// dx_j = (dy_j - d) y_j; each step rounded to float32.
	SoftmaxGrad Op = "softmax_grad"
	// LogSoftmaxGrad: (dy [m,n], y [m,n]) -> (dx [m,n]), y being what LogSoftmax left: with d = LaneSum(dy),
	// dx_j = dy_j - exp(y_j) d; each step rounded to float32.
	LogSoftmaxGrad Op = "log_softmax_grad"
	// LayerNorm: (x [m,n], gain [n], bias [n]) -> (y [m,n]), by row (Ba, Kiros & Hinton 2016): u = LaneSum(x) / n,
	// c_j = x_j - u, r = 1 / sqrt(LaneSum(c_j c_j) / n + eps), h_j = c_j r, y_j = h_j gain_j + bias_j; each step rounded
	// to float32, none fused.
	LayerNorm Op = "layer_norm"
	// LayerNormGrad: (dy [m,n], x [m,n], gain [n]) -> (dx [m,n], t [m,n]). With c, r and h as above and g_j = dy_j gain_j:
	// a = LaneSum(g) / n, b = LaneSum(g_j h_j) / n, dx_j = ((g_j - a) - h_j b) r, and t_j = dy_j h_j, whose ColSum is the
	// gradient of the gain, as that of dy is of the bias.
	LayerNormGrad Op = "layer_norm_grad"
	// Transpose: (x [m,n]) -> (y [n,m]).
	Transpose Op = "transpose"
	// Copy: (x) -> (y), as many elements in another shape.
	Copy Op = "copy"
)

// Ops lists every operation: a backend is complete when it runs all of them.
func Ops() []Op {
	return append(tableOps(), Gather, MatMul, Activate, ActGrad, ColSum, Add, Scale, Fill, Dropout, Concat, Slice,
		SliceGrad, BCE, BCEGrad, Accumulate, AdamW, Standardize, Calibrate, Lookup, Sample, RowDot, RowScale, SampledSoftmax,
		SampledSoftmaxGrad, Pinball, PinballGrad, RowAdam, Map, Reduce, Softmax, LogSoftmax, SoftmaxGrad, LogSoftmaxGrad,
		LayerNorm, LayerNormGrad, Transpose, Copy,
		SGD, Momentum, Adam, Adagrad, SumSquares, RowSumSquares, ClipFactor, MovingAverage)
}

// Pending are operations that the GPU backend does not run yet: it refuses them by name.
func Pending() []Op {
	return append(tableOps(), Map, Reduce, Softmax, LogSoftmax, SoftmaxGrad, LogSoftmaxGrad, LayerNorm, LayerNormGrad,
		Transpose, Copy, SGD, Momentum, Adam, Adagrad, SumSquares, RowSumSquares, ClipFactor, MovingAverage)
}

// Act is the activation of MatMul, Activate and ActGrad.
type Act string

const (
	None Act = ""
	// Relu is max(z, 0); NaN stays NaN.
	Relu Act = "relu"
	// Silu is z / (1 + exp(-z)) (Hendrycks & Gimpel 2016, Elfwing et al. 2018). It is computed in float32
	// with z clamped from below, at -87, and exp(-z) held to exp of -87..87: so no step overflows or
	// leaves the normal range, silu(-Inf) is -87 exp(-87), below 2e-36 in size, silu(+Inf) is +Inf and NaN
	// stays NaN. A backend is within 3 units in the last place of the exact value of the clamped z; the
	// gradient within 6 units in the last place of s (1 + |z| (1-s)), its two terms without their
	// cancellation near z = -1.28. Each backend writes its arithmetic down: it gives an element the same
	// bits wherever it stands, in MatMul and in Activate.
	Silu Act = "silu"
)

// known says whether it is one of the above.
func (a Act) known() bool { return a == None || a == Relu || a == Silu }

// Attr holds the attributes an operation names; the others stay zero.
type Attr struct {
	Column string  `json:"column,omitempty"`
	TransA bool    `json:"trans_a,omitempty"`
	TransB bool    `json:"trans_b,omitempty"`
	Act    Act     `json:"act,omitempty"`
	Rate   float32 `json:"rate,omitempty"`
	Scale  float32 `json:"scale,omitempty"`
	From   int     `json:"from,omitempty"`
	To     int     `json:"to,omitempty"`
	Beta1  float64 `json:"beta1,omitempty"`
	Beta2  float64 `json:"beta2,omitempty"`
	Eps    float64 `json:"eps,omitempty"`
	Decay  float64 `json:"decay,omitempty"`
	Site   uint32  `json:"site,omitempty"`
	Levels Levels  `json:"levels,omitzero"`
	Expr   string  `json:"expr,omitempty"`
	Fold   Fold    `json:"fold,omitempty"`
	Axis   int     `json:"axis,omitempty"`
	// Sized: a constant of Map, Scale or Fill is made of the number of rows, so that the programs of a set differ in it.
	Sized bool   `json:"sized,omitempty"`
	Uses  string `json:"uses,omitempty"`
	// Of Momentum and ClipFactor.
	Momentum float64 `json:"momentum,omitempty"`
	Nesterov bool    `json:"nesterov,omitempty"`
	Limit    float64 `json:"limit,omitempty"`
}

// MaxLevels is how many quantiles Pinball takes at most.
const MaxLevels = 16

// Levels are the quantiles of Pinball, ascending within (0,1); the places behind the last are 0. As an array they
// leave Attr comparable. In JSON they are a list without those places.
type Levels [MaxLevels]float32

// NewLevels rounds levels to float32 and checks them.
func NewLevels(levels []float64) (Levels, error) {
	var l Levels
	if len(levels) == 0 || len(levels) > MaxLevels {
		return l, fmt.Errorf("program: %d levels, want 1 to %d", len(levels), MaxLevels)
	}
	for i, x := range levels {
		l[i] = float32(x)
	}
	if l.Len() != len(levels) {
		return l, fmt.Errorf("program: levels %v: want them ascending, above 0 and below 1 in float32", levels)
	}
	return l, nil
}

// Len is the number of levels, or 0 where they are not ascending within (0,1) with zeros behind.
func (l Levels) Len() int {
	n := 0
	for n < MaxLevels && l[n] > 0 && l[n] < 1 && (n == 0 || l[n-1] < l[n]) {
		n++
	}
	for _, x := range l[n:] {
		if x != 0 {
			return 0
		}
	}
	return n
}

// list is the places up to the last that is not 0.
func (l Levels) list() []float32 {
	n := MaxLevels
	for n > 0 && l[n-1] == 0 {
		n--
	}
	return l[:n]
}

// String lists them.
func (l Levels) String() string { return fmt.Sprint(l.list()) }

// MarshalJSON writes the list without the zeros behind it.
func (l Levels) MarshalJSON() ([]byte, error) { return json.Marshal(l.list()) }

// UnmarshalJSON reads a list of at most MaxLevels.
func (l *Levels) UnmarshalJSON(b []byte) error {
	var list []float32
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	if len(list) > MaxLevels {
		return fmt.Errorf("program: %d levels, at most %d", len(list), MaxLevels)
	}
	*l = Levels{}
	copy(l[:], list)
	return nil
}

// Instr is one instruction; Args and Outs index Program.Buffers. Outs may not overlap Args, except that
// Add, Scale, Activate, ActGrad, Dropout, Map, Softmax, LogSoftmax and Copy may write in place over Args[0], of a Map
// if that has the shape of the result.
type Instr struct {
	Op   Op    `json:"op"`
	Args []int `json:"args,omitempty"`
	Outs []int `json:"outs"`
	Attr Attr  `json:"attr"`
	// Node names the graph node it was lowered from, for errors and listings.
	Node string `json:"node,omitempty"`
}

// Program is a straight line of instructions for batches of Rows rows.
type Program struct {
	Name    string   `json:"name"`
	Rows    int      `json:"rows"`
	Buffers []Buffer `json:"buffers"`
	Instrs  []Instr  `json:"instrs"`
	Arena   int      `json:"arena"` // bytes that the Temps need
}

// TensorSpec names a parameter, a piece of optimizer state or a constant of a Set.
type TensorSpec struct {
	Name  string `json:"name"`
	Shape []int  `json:"shape"`
	// Init of a Param: "zero", "one", "he_uniform" (He et al. 2015: U(-sqrt(6/fan_in), +)), "glorot_uniform"
	// (Glorot & Bengio 2010), "fan_in_uniform" (U(-1/sqrt(fan_in), +), which PyTorch gives linear
	// layers, biases included; the fan_in of a bias is that of its layer), "uniform" (U(-scale, +)) or "normal" (mean 0,
	// deviation scale), which embeddings take. State starts at zero.
	Init   string  `json:"init,omitempty"`
	FanIn  int     `json:"fan_in,omitempty"`
	FanOut int     `json:"fan_out,omitempty"`
	Scale  float64 `json:"scale,omitempty"`
	Site   uint32  `json:"site,omitempty"`
}

// Set is what a model lowers to. Params and State are shared by its programs by name.
type Set struct {
	Params []TensorSpec `json:"params"`
	State  []TensorSpec `json:"state,omitempty"`
	Consts []TensorSpec `json:"consts,omitempty"`
	Slots  []string     `json:"slots,omitempty"`
	// Train runs one optimizer step on Rows rows; Rest the last, shorter batch of an epoch (nil when
	// the batch divides the data). Both are nil in an artifact.
	Train *Program `json:"train,omitempty"`
	Rest  *Program `json:"rest,omitempty"`
	// Forward maps at most Rows input rows to Output rows. It has no dropout and no loss.
	Forward *Program `json:"forward"`
}

// Range is the half-open range of rows [From, To).
type Range struct{ From, To int }

// Len is the number of rows.
func (r Range) Len() int { return r.To - r.From }

// Column is one bound input: Rows x Width, row-major.
type Column struct {
	Name  string
	Rows  int
	Width int
	F32   []float32
}

// Data is what Bind puts where it is used. The slices may not change until Close.
type Data struct {
	Columns []Column
	Schedule
}

// Schedule fixes everything that a step does but the data: so a step can be repeated after a resume
// and on another device.
type Schedule struct {
	Seed  uint64
	Train Range     // the rows that are trained on
	Rates []float32 // learning rate of each step; its length is the number of steps there are
}

// StepsPerEpoch is ceil(Train.Len()/batch).
func (s *Schedule) StepsPerEpoch(batch int) int { return (s.Train.Len() + batch - 1) / batch }

// Backend runs programs on a machine.
type Backend interface {
	// Name is what the artifact's manifest records, such as "cpu-avx2".
	Name() string
	// Compile checks the set and allocates what it needs. Params, State and Consts are zero until Import.
	Compile(*Set) (Exec, error)
}

// Exec is a compiled Set with its weights and optimizer state. It is for one goroutine at a time.
type Exec interface {
	// Bind gives the data and the schedule. Programs whose Gather names a missing column or another
	// width are refused.
	Bind(Data) error
	// Run does the optimizer steps first .. first+n-1 and adds what they accumulated to slots (in the
	// order of Set.Slots). Epoch and place within it follow from the step number alone. A slot that is
	// no longer finite ends the run with an error that names the step; the weights are then of no use.
	Run(first, n int, slots []float64) error
	// SetRates puts other learning rates, as many, in place of those that Bind gave: between Runs, for a schedule that
	// depends on how the training goes. The slice is copied.
	SetRates(rates []float32) error
	// Eval runs Forward over bound rows r in order and writes its output to out, r.Len() x width.
	Eval(r Range, out []float32) error
	// Export copies Params, State and Consts out; Import copies them in and refuses a missing, extra or
	// misshapen tensor by name.
	Export() (Tensors, error)
	Import(Tensors) error
	Close() error
}

// Input returns the index of the Input buffer of that name, or -1.
func (p *Program) Input(name string) int {
	for i := range p.Buffers {
		if p.Buffers[i].Kind == Input && p.Buffers[i].Name == name {
			return i
		}
	}
	return -1
}

// String lists a valid program, one instruction a line.
func (p *Program) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d rows, %d instructions, arena %d bytes\n", p.Name, p.Rows, len(p.Instrs), p.Arena)
	for i := range p.Instrs {
		b.WriteString(p.Line(i))
		b.WriteByte('\n')
	}
	return b.String()
}

// Line is instruction i of a valid program as String lists it, its number first.
func (p *Program) Line(i int) string {
	var b strings.Builder
	name := p.Operand
	in := &p.Instrs[i]
	fmt.Fprintf(&b, "%3d ", i)
	for k, o := range in.Outs {
		if k > 0 {
			b.WriteString(", ")
		}
		b.WriteString(name(o))
	}
	fmt.Fprintf(&b, " = %s", in.Op)
	for _, a := range in.Args {
		b.WriteString(" " + name(a))
	}
	if at, err := json.Marshal(in.Attr); err == nil && string(at) != "{}" {
		fmt.Fprintf(&b, " %s", at)
	}
	if in.Node != "" {
		fmt.Fprintf(&b, "  # %s", in.Node)
	}
	return b.String()
}

// Operand is buffer id of a valid program as Line lists it, with its shape.
func (p *Program) Operand(id int) string {
	f := p.Buffers[id]
	if f.Kind == Temp {
		return fmt.Sprintf("t%d%v", id, f.Shape)
	}
	return fmt.Sprintf("%s%v", f.Name, f.Shape)
}
