package program

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// embedded is a set without a fault that uses every operation of embeddings and of quantiles.
func embedded() *Set {
	train := &Program{
		Name: "train", Rows: 8, Arena: 1536,
		Buffers: []Buffer{
			named(Input, "user", 8, 1), // 0
			named(Input, "item", 8, 2), // 1
			named(Param, "v", 5, 4),    // 2
			named(State, "m", 5, 4),    // 3
			named(State, "s", 5, 4),    // 4
			named(Const, "cdf", 5),     // 5
			named(Const, "logq", 5),    // 6
			tempAt(0, 8, 4),            // 7 looked up
			tempAt(128, 8, 4),          // 8 looked up
			tempAt(256, 8, 1),          // 9 pos
			tempAt(320, 3, 1),          // 10 sampled
			tempAt(384, 3, 4),          // 11 looked up
			tempAt(448, 8, 3),          // 12 neg
			tempAt(576, 1),             // 13 loss
			tempAt(640, 8, 1),          // 14 dpos
			tempAt(704, 8, 3),          // 15 dneg
			tempAt(832, 8, 4),          // 16 row scaled
			tempAt(960, 1),             // 17 pinball
			tempAt(1024, 8, 4),         // 18 its gradient
		},
		Instrs: []Instr{
			{Op: Gather, Outs: []int{0}, Attr: Attr{Column: "user"}},                                            // 0
			{Op: Gather, Outs: []int{1}, Attr: Attr{Column: "item"}},                                            // 1
			{Op: Lookup, Args: []int{2, 0}, Outs: []int{7}},                                                     // 2
			{Op: Lookup, Args: []int{2, 1}, Outs: []int{8}},                                                     // 3
			{Op: RowDot, Args: []int{7, 8}, Outs: []int{9}},                                                     // 4
			{Op: Sample, Args: []int{5}, Outs: []int{10}, Attr: Attr{Site: 4}},                                  // 5
			{Op: Lookup, Args: []int{2, 10}, Outs: []int{11}},                                                   // 6
			{Op: MatMul, Args: []int{7, 11}, Outs: []int{12}, Attr: Attr{TransB: true}},                         // 7
			{Op: SampledSoftmax, Args: []int{9, 12, 0, 10, 6, 9}, Outs: []int{13}},                              // 8
			{Op: SampledSoftmaxGrad, Args: []int{9, 12, 0, 10, 6, 9, 13}, Outs: []int{14, 15}},                  // 9
			{Op: RowScale, Args: []int{8, 14}, Outs: []int{16}},                                                 // 10
			{Op: Pinball, Args: []int{16, 1, 1}, Outs: []int{17}, Attr: Attr{Levels: Levels{0.1, 0.9}}},         // 11
			{Op: PinballGrad, Args: []int{16, 1, 1, 17}, Outs: []int{18}, Attr: Attr{Levels: Levels{0.1, 0.9}}}, // 12
			{Op: RowAdam, Args: []int{0, 16, 1, 18, 10, 11}, Outs: []int{2, 3, 4}, Attr: Attr{Beta2: 0.9, Eps: 1e-8}},
		},
	}
	forward := &Program{
		Name: "forward", Rows: 4, Arena: 128,
		Buffers: []Buffer{
			rowed(named(Input, "user", 4, 1)),
			rowed(named(Input, "item", 4, 2)),
			named(Param, "v", 5, 4),
			rowed(tempAt(0, 4, 4)), rowed(tempAt(64, 4, 4)),
			rowed(named(Output, "score", 4, 1)),
		},
		Instrs: []Instr{
			{Op: Lookup, Args: []int{2, 0}, Outs: []int{3}},
			{Op: Lookup, Args: []int{2, 1}, Outs: []int{4}},
			{Op: RowDot, Args: []int{3, 4}, Outs: []int{5}},
		},
	}
	return &Set{
		Params: []TensorSpec{{Name: "v", Shape: []int{5, 4}, Init: "normal", Scale: 0.1}},
		State:  []TensorSpec{{Name: "m", Shape: []int{5, 4}}, {Name: "s", Shape: []int{5, 4}}},
		Consts: []TensorSpec{{Name: "cdf", Shape: []int{5}}, {Name: "logq", Shape: []int{5}}},
		Train:  train, Forward: forward,
	}
}

func TestEmbeddedSet(t *testing.T) {
	if err := embedded().Validate(); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(embedded())
	if err != nil {
		t.Fatal(err)
	}
	var s Set
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(embedded(), &s); d != "" {
		t.Errorf("through JSON: %s", d)
	}
	if !strings.Contains(s.Train.String(), `{"levels":[0.1,0.9]}`) {
		t.Errorf("levels are not listed:\n%s", s.Train)
	}
}

// TestEmbeddingFaults plants one fault at a time.
func TestEmbeddingFaults(t *testing.T) {
	type set = *Set
	findFaults(t, embedded, []fault{
		{func(s set) { s.Params[0].Scale = 0 }, `set: param "v": normal needs a finite scale above 0, not 0`},
		{func(s set) { s.Train.Instrs[2].Args[0] = 16 }, "train: instruction 2 (lookup): temp 16 is used before it is written\ntrain: instruction 2 (lookup): argument 0, temp 16, is a [param const state]"},
		{func(s set) { s.Train.Instrs[3].Args[1] = 9 }, "train: instruction 3 (lookup): temp 9 is used before it is written\ntrain: instruction 3 (lookup): temp 9 is an index, but neither an input nor drawn by sample"},
		{func(s set) { s.Train.Instrs[6].Args[1] = 9 }, "train: instruction 6 (lookup): temp 9 is an index, but neither an input nor drawn by sample\ntrain: instruction 6 (lookup): output, temp 11, has shape [3 4], want [8 4]"},
		{func(s set) { s.Train.Instrs[5].Args[0] = 2 }, "train: instruction 5 (sample): argument 0, param \"v\", is a [const]\ntrain: instruction 5 (sample): the cdf, param \"v\", has shape [5 4], want a vector\n" +
			"train: instruction 6 (lookup): temp 10 was drawn from 20 rows and is an index of 5\ntrain: instruction 8 (sampled_softmax): temp 10 was drawn from 20 rows and is an index of 5\n" +
			"train: instruction 9 (sampled_softmax_grad): temp 10 was drawn from 20 rows and is an index of 5\ntrain: instruction 13 (row_adam): temp 10 was drawn from 20 rows and is an index of 5"},
		{func(s set) { s.Train.Instrs[5].Attr.Site = math.MaxUint32 }, "train: instruction 5 (sample): site 4294967295 is reserved"},
		{func(s set) { s.Train.Instrs[4].Args[1] = 10 }, "train: instruction 4 (row_dot): temp 10 is used before it is written\ntrain: instruction 4 (row_dot): argument 1, temp 10, has shape [3 1], want [8 4]"},
		{func(s set) { s.Train.Instrs[10].Args[1] = 15 }, "train: instruction 10 (row_scale): argument 1, temp 15, has shape [8 3], want [8 1]"},
		{func(s set) { s.Train.Instrs[8].Args[4] = 2 }, "train: instruction 8 (sampled_softmax): argument 4, param \"v\", is a [const]\ntrain: instruction 8 (sampled_softmax): argument 4, param \"v\", has shape [5 4], want a vector"},
		{func(s set) { s.Train.Instrs[9].Outs = []int{15, 14} }, "train: instruction 9 (sampled_softmax_grad): output 0, temp 15, has shape [8 3], want [8 1]\ntrain: instruction 9 (sampled_softmax_grad): output 1, temp 14, has shape [8 1], want [8 3]"},
		{func(s set) { s.Train.Instrs[11].Attr.Levels = Levels{} }, "train: instruction 11 (pinball): levels [], want 1 to 16 of them, ascending, above 0 and below 1\ntrain: instruction 11 (pinball): argument 0, temp 16, has shape [8 4], want [8 2]"},
		{func(s set) { s.Train.Instrs[12].Attr.Levels = Levels{0.5, 0.5} }, "train: instruction 12 (pinball_grad): levels [0.5 0.5], want 1 to 16 of them, ascending, above 0 and below 1\ntrain: instruction 12 (pinball_grad): argument 0, temp 16, has shape [8 4], want [8 2]\ntrain: instruction 12 (pinball_grad): output, temp 18, has shape [8 4], want [8 2]"},
		{func(s set) { s.Train.Instrs[7].Attr.Levels = Levels{0.5} }, "train: instruction 7 (matmul): attributes that it does not have: {\"levels\":[0.5]}"},
		{func(s set) { s.Train.Instrs[13].Args = s.Train.Instrs[13].Args[:5] }, "train: instruction 13 (row_adam): the factor, temp 10, has shape [3 1], want [1]"},
		{func(s set) { s.Train.Instrs[13].Args[3] = 11 }, "train: instruction 13 (row_adam): the gradient of use 1, temp 11, has shape [3 4], want [8 4]"},
		{func(s set) { s.Train.Instrs[13].Outs[0] = 16 }, "train: instruction 13 (row_adam): writes temp 16; output 0 is a [param]\ntrain: instruction 13 (row_adam): writes over its argument 1, temp 16\n" +
			"train: instruction 13 (row_adam): output 1, state \"m\", has shape [5 4], want [8 4]\ntrain: instruction 13 (row_adam): output 2, state \"s\", has shape [5 4], want [8 4]"},
		{func(s set) { s.Train.Instrs = append(s.Train.Instrs, s.Train.Instrs[13]) }, "train: instruction 14 (row_adam): param \"v\" is updated twice in one step\ntrain: instruction 14 (row_adam): state \"m\" is updated twice in one step\ntrain: instruction 14 (row_adam): state \"s\" is updated twice in one step"},
		{func(s set) { s.Forward.Buffers[0].PerRow = false }, "forward: buffer 0 (input \"user\"): an input of a forward program is per row"},
		{func(s set) { s.Forward.Buffers[3].PerRow = false }, "forward: instruction 0 (lookup): input \"user\" is per row and temp 3 is not\nforward: instruction 2 (row_dot): output \"score\" is per row and temp 3 is not"},
	})
}

// TestBadIndices: a column that becomes an index is looked at, every value of it, before a kernel does.
func TestBadIndices(t *testing.T) {
	s := embedded()
	data := func(item ...float32) *Data {
		n := len(item) / 2
		return &Data{Columns: []Column{{Name: "user", Rows: n, Width: 1, F32: make([]float32, n)}, {Name: "item", Rows: n, Width: 2, F32: item}},
			Schedule: Schedule{Train: Range{0, 8}, Rates: []float32{1}}}
	}
	good := slices.Repeat([]float32{4, -1}, 8)
	if _, err := s.CheckData(data(good...)); err != nil {
		t.Fatal(err)
	}
	for _, x := range []float32{5, -2, 0.5, -0.5, float32(math.NaN()), float32(math.Inf(1)), 1 << 30, -1 << 31} {
		bad := slices.Clone(good)
		bad[5] = x
		_, err := s.CheckData(data(bad...))
		if err == nil || !strings.Contains(err.Error(), `column "item": row 2, place 1 is `) || !strings.Contains(err.Error(), "no index of 5 rows") {
			t.Errorf("%v: %v", x, err)
		}
	}
	if n := s.Train.Indexed(1); n != 5 {
		t.Errorf("item is an index of %d rows, want 5", n)
	}
	if n := s.Train.Indexed(7); n != 0 {
		t.Errorf("a temp is an index of %d rows", n)
	}
}

func TestLevels(t *testing.T) {
	for _, bad := range [][]float64{nil, {0}, {1}, {0.5, 0.4}, {0.5, 0.5 + 1e-12}, {math.NaN()}, make([]float64, MaxLevels+1)} {
		if _, err := NewLevels(bad); err == nil {
			t.Errorf("levels %v were accepted", bad)
		}
	}
	l, err := NewLevels([]float64{0.05, 0.5, 0.975})
	if err != nil || l.Len() != 3 || l.String() != "[0.05 0.5 0.975]" {
		t.Errorf("%v, %d of them: %v", l, l.Len(), err)
	}
	if err := json.Unmarshal([]byte("[0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.81,0.82,0.83,0.84,0.85,0.86,0.87,0.88,0.89]"), &l); err == nil {
		t.Error("17 levels were read")
	}
}
