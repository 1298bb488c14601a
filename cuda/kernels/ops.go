package kernels

import "github.com/onmart/onmart/cuda"

// Op is one piece of work, ready to be launched: a struct of addresses and sizes. It holds no device, so
// that a plan can be priced without one.
type Op interface {
	// Kernel names the kernel and the shape, for errors and listings: "matmul 256x64x64 tn".
	Kernel() string
	// Launch puts the work on a stream, with one launch or several; errors name the kernel.
	Launch(s *cuda.Stream, k *Set) error
	// Cost is what a device of that tuning has to do for it.
	Cost(t *Tuning) Cost
}

// Cost of an Op, for rates and predictions.
type Cost struct {
	Launches int
	Blocks   int   // of the largest launch
	Bytes    int64 // read and written in device memory, each operand once
	FLOPs    int64 // float32 operations, a multiply-add being two
	// Seconds is what the kernels take alone by the tuning's model, starts of launches not counted. The model is counted
	// from published figures, not measured.
	Seconds float64
}

// Act is an activation.
type Act int32

const (
	None Act = iota
	Relu
	Silu
)

// State is the 16 bytes in device memory by which kernels know where a training is:
//
//	uint32 step   // optimizer step, counted from 0 over the whole training; Finish counts it up
//	uint32 bad    // 1 + the first step after which a slot was not finite, 0 while all are
//	int32  shift  // Gather from a staging buffer: its row shift+first+i holds row i of the batch
//	uint32 unused
type State = cuda.DevicePtr

const StateBytes = 16

// Drop is dropout inside another kernel: element i of the output (row*N+column) is kept, divided by 1-Rate, where the
// uniform (24 bits of word i%4 of Philox(Seed, {i/4 low, i/4 high, step, Site}), as program.Uniforms4 has it) is at least
// Rate, else 0. Rate 0 leaves it out.
type Drop struct {
	Rate  float32
	Site  uint32
	Seed  uint64
	State State
}

// MatMul is y [M,N] = epilogue(a' b' [+ bias]); a' [M,K] is a or, with TransA, the transpose of a [K,M]; b' [K,N] likewise.
// Each product is one chain of fused multiply-adds over k, ascending, from 0; where N is 1 and a is not transposed there
// are 16 of them, of k = l, l+16, ..., folded as program.LaneSum folds its lanes. The epilogue, in this order:
// the bias [N] is added (if Bias), the sum is stored to Pre [M,N] (if Pre), the activation Act is applied, then Drop, then
// ActGrad (if Of: y = v * GradAct'(Of[i,j]) with the second operand's meaning of ActGrad below).
//
// No dimension is over 2^30, no operand has more than 2^32 elements, and CUDA's grid bounds N (at some 2 million
// columns). The bits are those of the definition whatever tile the Tuning chooses.
//
// With Slices > 1 (no epilogue then) k is cut into so many runs of ceil(K/Slices) rounded up to a multiple of 16, and slice s is
// written to Y + s*M*N: who reads it sums the slices in ascending order (AdamW, SumSlices). A slice without k is 0.
type MatMul struct {
	A, B, Bias, Y, Pre, Of cuda.DevicePtr
	M, N, K                int
	TransA, TransB         bool
	Act, GradAct           Act
	Drop                   Drop
	Slices                 int // 0 and 1: whole
}

// ColSum is s [Slices, N]: rows of x [M,N] in runs of ceil(M/Slices), each a chain in ascending order.
type ColSum struct {
	X, Y   cuda.DevicePtr
	M, N   int
	Slices int
}

// SumSlices is y [N] = x[0] + x[1] + ... over x [Slices, N], ascending.
type SumSlices struct {
	X, Y      cuda.DevicePtr
	N, Slices int
}

// Map is the elementwise operations on N elements; Y may be A.
type Map struct {
	Kind    MapKind
	A, B, Y cuda.DevicePtr
	N       int
	Act     Act     // MapActivate, MapActGrad
	Scale   float32 // MapScale, MapFill
	Drop    Drop    // MapDropout
}

type MapKind int

const (
	MapActivate MapKind = iota // y = act(a), the bits of train/cpu (siluPortable)
	MapActGrad                 // y = a * act'(b): b is act(z) for Relu, z for Silu (siluGradPortable); None copies a
	MapAdd                     // y = a + b
	MapScale                   // y = scale * a
	MapFill                    // y = scale
	MapDropout
)

// Columns copies columns: y[r, To..To+N) = x[r, From..From+N) for M rows; LdX, LdY are the widths of x and y. With Zero the other
// columns of y become 0.
type Columns struct {
	X, Y      cuda.DevicePtr
	M, N      int
	LdX, From int
	LdY, To   int
	Zero      bool
}

// GatherColumn is one column that Gather fills.
type GatherColumn struct {
	Src, Dst cuda.DevicePtr
	Width    int
}

// Gather fills one batch of every column: row i of Dst is row Base + perm(first+i) of Src, where first = (step % PerEpoch) *
// Batch and perm is the Feistel permutation of epoch step / PerEpoch (program.Feistel). With Staged it is row shift + first + i of
// Src instead. Table is device memory of len(Columns)*24 bytes that FillTable has filled.
type Gather struct {
	State           State
	Columns         []GatherColumn
	Table           cuda.DevicePtr
	Rows            int // of this batch
	Batch, PerEpoch int
	Base            int
	N, A, B, Site   uint32
	Key             [2]uint32
	Staged          bool
}

// BCE is loss [1] = sum_i w_i l_i / M, l = max(z,0) - z t + log1p(exp(-|z|)) in float32, summed in the order of
// program.LaneSum over 16 lanes. Terms is scratch of M floats.
type BCE struct {
	Z, T, W, Loss, Terms cuda.DevicePtr
	M                    int
}

// BCEGrad is dz_i = dloss w_i ((1-t_i) sigmoid(z_i) - t_i sigmoid(-z_i)) / M.
type BCEGrad struct {
	Z, T, W, DLoss, DZ cuda.DevicePtr
	M                  int
}

// Lookup is y [M,D]: row i is the mean of the rows of Table [N,D] that row i of Idx [M,W] names, added in the order of its
// columns from the first there is and divided by their number where that is above 1; 0 where there is none. Idx holds
// whole numbers as float32; what is not from 0 to N-1 is none.
type Lookup struct {
	Table, Idx, Y cuda.DevicePtr
	M, W, N, D    int
}

// Sample is idx [K]: the least i with CDF[i] > u, or N-1; u is 24 bits of word j%4 of Philox(Seed, {j/4, 0, step, Site}).
type Sample struct {
	State    State
	CDF, Idx cuda.DevicePtr
	K, N     int
	Site     uint32
	Seed     uint64
}

// RowDot is s [M]: s_i = sum_c a[i,c] b[i,c], one chain of fused multiply-adds over c, ascending, from 0.
type RowDot struct {
	A, B, S cuda.DevicePtr
	M, D    int
}

// RowScale is y [M,D] = x[i,c] s[i].
type RowScale struct {
	X, S, Y cuda.DevicePtr
	M, D    int
}

// SampledSoftmax is loss [1] = sum_i w_i l_i / M in the order of program.LaneSum. With the logits a_i = pos_i - logq[pi_i] and
// b_ij = neg_ij - logq[ni_j], -Inf where ni_j is pi_i or none, their greatest M_i, N_i = LaneSum_j exp(b_ij - M_i) and S_i = N_i
// + exp(a_i - M_i): l_i = log(S_i) + M_i - a_i, 0 where pi_i is none. An exponential below exp(-87) is 0; it and the
// logarithm are our own, in float32. Terms is scratch of M floats.
type SampledSoftmax struct {
	Pos, Neg, PI, NI, LogQ, W cuda.DevicePtr // [M], [M,K], [M], [K], [N], [M]
	Loss, Terms               cuda.DevicePtr
	M, K, N                   int
}

// SampledSoftmaxGrad is dneg_ij = g_i exp(b_ij - M_i) and dpos_i = -(g_i N_i), g_i = (dloss/M w_i) / S_i; both 0 where pi_i is
// none. Loss and Terms are not used.
type SampledSoftmaxGrad struct {
	SampledSoftmax
	DLoss, DPos, DNeg cuda.DevicePtr
}

// Pinball is loss [1]: column s*q+l of y [M,H*q] forecasts level l of t [M,H] at step s. A term is w max(v u, (v-1) u) with
// u = t - y and the level v, or 0 where w is 0; rows are summed in the order of program.LaneSum, then the M sums, and the
// sum is divided by M*H*q. Sums is scratch of M floats. Table is device memory of 4*q bytes that FillTable has filled.
type Pinball struct {
	Y, T, W, Loss, Sums, Table cuda.DevicePtr
	M, H                       int
	Levels                     []float32
}

// PinballGrad is dy = (c w) (-v) where u > 0, (c w) (1-v) where u < 0, else 0, and 0 where w is 0; c = dloss / (M*H*q). Loss and
// Sums are not used.
type PinballGrad struct {
	Pinball
	DLoss, DY cuda.DevicePtr
}

// TableUse is one Lookup of a table in a step: its Idx [Rows,W] and the gradient of its y.
type TableUse struct {
	Idx, DY cuda.DevicePtr
	Rows, W int
}

// RowSort lists every index of every use as two uint32, the row of the table, N for none, and the row of the gradients of all
// uses one below the other, and sorts them by the first, keeping their order. Both Pairs are scratch of PairBytes for
// each index, and Counts of CountBytes; Sorted is the one of Pairs that holds the result. Share has, for each row of the gradients, the number of its
// indices as a float, at least 1. Table is device memory of TableBytes that FillTable has filled; DY is not looked at.
type RowSort struct {
	Uses                 []TableUse
	Table, Counts, Share cuda.DevicePtr
	Pairs                [2]cuda.DevicePtr
	N                    int
}

// RowAdam is one step of AdamW for each row of P [N,D] that Pairs, sorted by RowSort, names. Its gradient is the sum, in the order
// of the pairs from the first, of the rows of DY divided by their Share. The arithmetic is AdamWTensor's. Table is as in
// RowSort.
type RowAdam struct {
	State, Rates, C1, C2 cuda.DevicePtr
	Uses                 []TableUse
	Table, Pairs, Share  cuda.DevicePtr
	P, M, V              cuda.DevicePtr
	N, D                 int
	B1, OB1, B2, OB2     float32
	Eps, Decay           float32
}

// AdamWTensor is one parameter that AdamW updates, with the arithmetic of train/cpu's adamwPortable, roundings included. G is
// [Slices, N] and is summed first, ascending. C1 and C2 are tables by step of 1/(1-b1^t) and 1/(1-b2^t) in float32.
type AdamWTensor struct {
	P, M, V, G       cuda.DevicePtr
	C1, C2           cuda.DevicePtr
	N, Slices        int
	B1, OB1, B2, OB2 float32 // b1, 1-b1, b2, 1-b2
	Eps, Decay       float32
}

// AdamW updates all parameters in one launch. Rates is the table of learning rates by step. Table is device memory of
// AdamWTableBytes(Tensors) bytes that FillTable has filled.
type AdamW struct {
	State, Rates, Table cuda.DevicePtr
	Tensors             []AdamWTensor
}

// Accumulation is slot Slot += float64(X[0]) * Scale, or += Scale where X is 0.
type Accumulation struct {
	X     cuda.DevicePtr
	Scale float64
	Slot  int
}

// Finish ends a step: the accumulations in order, then State.bad is set to step+1 if it is 0 and any of the NSlots slots
// (float64) is not finite, then State.step is counted up. Table is device memory of len(Accumulations)*24 bytes that FillTable
// has filled.
type Finish struct {
	State, Slots, Table cuda.DevicePtr
	NSlots              int
	Accumulations       []Accumulation
}

// Standardize is y [M,N] = float32((u - mean) scale) in float64; u = log1p(max(x,0)) where log is 1, else x.
type Standardize struct {
	X, Mean, Scale, Log, Y cuda.DevicePtr // Y float32, the others float64
	M, N                   int
}

// Calibrate is p = 1 / (1 + exp(-(a z + b))) in float64; AB holds a and b.
type Calibrate struct {
	Z, AB, P cuda.DevicePtr // Z float32
	M        int
}

// Tabled is an Op whose table must be filled once before it is launched or captured.
type Tabled interface {
	Op
	TableBytes() int64
	// FillTable puts the table on the stream; the Op's Table must be set.
	FillTable(s *cuda.Stream) error
}
