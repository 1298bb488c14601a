package program

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// candidateSet is a set without a fault that scores candidates of each row: one of the data and three that are drawn.
func candidateSet() *Set {
	train := &Program{
		Name: "train", Rows: 8, Arena: 1280,
		Buffers: []Buffer{
			named(Input, "user", 8, 1),   // 0
			named(Input, "item", 8, 1),   // 1
			named(Input, "weight", 8, 1), // 2
			named(Param, "v", 5, 4),      // 3
			named(State, "acc", 5, 1),    // 4
			named(Param, "u", 6, 4),      // 5
			named(Const, "cdf", 5),       // 6
			named(Const, "logq", 5),      // 7
			tempAt(0, 8, 4),              // 8 user
			tempAt(128, 8, 3),            // 9 drawn
			tempAt(256, 8, 4),            // 10 candidates
			tempAt(384, 8, 4),            // 11 scores
			tempAt(512, 1),               // 12 loss
			tempAt(576, 8, 4),            // 13 ds
			tempAt(704, 8, 4),            // 14 da
			tempAt(832, 1),               // 15 bpr
			tempAt(896, 8, 4),            // 16 its gradient
		},
		Instrs: []Instr{
			{Op: Gather, Outs: []int{0}, Attr: Attr{Column: "user"}},                                           // 0
			{Op: Gather, Outs: []int{1}, Attr: Attr{Column: "item"}},                                           // 1
			{Op: Gather, Outs: []int{2}, Attr: Attr{Column: "weight"}},                                         // 2
			{Op: Lookup, Args: []int{5, 0}, Outs: []int{8}},                                                    // 3
			{Op: Sample, Args: []int{6}, Outs: []int{9}},                                                       // 4
			{Op: Concat, Args: []int{1, 9}, Outs: []int{10}},                                                   // 5
			{Op: LookupDot, Args: []int{3, 10, 8}, Outs: []int{11}},                                            // 6
			{Op: CandidateSoftmax, Args: []int{11, 10, 2, 7}, Outs: []int{12}},                                 // 7
			{Op: CandidateSoftmaxGrad, Args: []int{11, 10, 2, 12, 7}, Outs: []int{13}},                         // 8
			{Op: CandidateBPR, Args: []int{11, 10, 2}, Outs: []int{15}},                                        // 9
			{Op: CandidateBPRGrad, Args: []int{11, 10, 2, 15}, Outs: []int{16}},                                // 10
			{Op: LookupWeighted, Args: []int{3, 10, 13}, Outs: []int{14}},                                      // 11
			{Op: RowAdagrad, Args: []int{10, 13, 8, 1, 14}, Outs: []int{3, 4}, Attr: Attr{Uses: "sl", Eps: 1}}, // 12
			{Op: RowSGD, Args: []int{0, 14}, Outs: []int{5}, Attr: Attr{Decay: 1}},                             // 13
		},
	}
	forward := &Program{
		Name: "forward", Rows: 4, Arena: 64,
		Buffers: []Buffer{rowed(named(Input, "user", 4, 1)), rowed(named(Input, "item", 4, 1)), named(Param, "v", 5, 4),
			named(Param, "u", 6, 4), rowed(tempAt(0, 4, 4)), rowed(named(Output, "score", 4, 1))},
		Instrs: []Instr{
			{Op: Lookup, Args: []int{3, 0}, Outs: []int{4}},
			{Op: LookupDot, Args: []int{2, 1, 4}, Outs: []int{5}},
		},
	}
	return &Set{
		Params: []TensorSpec{{Name: "v", Shape: []int{5, 4}}, {Name: "u", Shape: []int{6, 4}}},
		State:  []TensorSpec{{Name: "acc", Shape: []int{5, 1}}},
		Consts: []TensorSpec{{Name: "cdf", Shape: []int{5}}, {Name: "logq", Shape: []int{5}}},
		Train:  train, Forward: forward,
	}
}

// TestCandidateFaults plants one fault at a time.
func TestCandidateFaults(t *testing.T) {
	if err := candidateSet().Validate(); err != nil {
		t.Fatal(err)
	}
	type set = *Set
	findFaults(t, candidateSet, []fault{
		{func(s set) { s.Train.Instrs[6].Args[0] = 8 },
			"train: instruction 6 (lookup_dot): argument 0, temp 8, is a [param const state]"},
		{func(s set) { s.Train.Instrs[6].Args[2] = 2 },
			`train: instruction 6 (lookup_dot): argument 2, input "weight", has shape [8 1], want [8 4]`},
		{func(s set) { s.Train.Instrs[6].Args[1] = 8 },
			"train: instruction 6 (lookup_dot): temp 8 is an index, but neither an input nor drawn by sample"},
		{func(s set) { s.Train.Instrs[5].Args[0] = 8 },
			"train: instruction 5 (concat): arguments have 7 columns together, the output 4\n" +
				"train: instruction 6 (lookup_dot): temp 10 is an index, but neither an input nor drawn by sample\n" +
				"train: instruction 7 (candidate_softmax): temp 10 is an index, but neither an input nor drawn by sample\n" +
				"train: instruction 8 (candidate_softmax_grad): temp 10 is an index, but neither an input nor drawn by sample\n" +
				"train: instruction 9 (candidate_bpr): temp 10 is an index, but neither an input nor drawn by sample\n" +
				"train: instruction 10 (candidate_bpr_grad): temp 10 is an index, but neither an input nor drawn by sample\n" +
				"train: instruction 11 (lookup_weighted): temp 10 is an index, but neither an input nor drawn by sample\n" +
				"train: instruction 12 (row_adagrad): temp 10 is an index, but neither an input nor drawn by sample"},
		{func(s set) { s.Train.Buffers[6].Shape[0], s.Consts[0].Shape[0] = 9, 9 },
			"train: instruction 6 (lookup_dot): temp 10 was drawn from 9 rows and is an index of 5\n" +
				"train: instruction 7 (candidate_softmax): temp 10 was drawn from 9 rows and is an index of 5\n" +
				"train: instruction 8 (candidate_softmax_grad): temp 10 was drawn from 9 rows and is an index of 5\n" +
				"train: instruction 11 (lookup_weighted): temp 10 was drawn from 9 rows and is an index of 5\n" +
				"train: instruction 12 (row_adagrad): temp 10 was drawn from 9 rows and is an index of 5"},
		{func(s set) { s.Train.Instrs[11].Args[2] = 2 },
			`train: instruction 11 (lookup_weighted): argument 2, input "weight", has shape [8 1], want [8 4]`},
		{func(s set) { s.Train.Instrs[7].Args[2] = 10 },
			"train: instruction 7 (candidate_softmax): argument 2, temp 10, has shape [8 4], want [8 1]"},
		{func(s set) { s.Train.Instrs[7].Args[3] = 2 },
			"train: instruction 7 (candidate_softmax): argument 3, input \"weight\", is a [const]\n" +
				"train: instruction 7 (candidate_softmax): argument 3, input \"weight\", has shape [8 1], want a vector"},
		{func(s set) { s.Train.Instrs[7].Args[0], s.Train.Instrs[7].Args[1] = 2, 1 },
			"train: instruction 7 (candidate_softmax): 1 columns, want a positive and at least one other"},
		{func(s set) { s.Train.Instrs[8].Args[3] = 2 },
			`train: instruction 8 (candidate_softmax_grad): argument 3, input "weight", has shape [8 1], want [1]`},
		{func(s set) { s.Train.Instrs[9].Args = s.Train.Instrs[7].Args },
			"train: instruction 9 (candidate_bpr): 4 arguments, want 3"},
		{func(s set) { s.Train.Instrs[12].Attr.Uses = "" },
			"train: instruction 12 (row_adagrad): temp 8 is an index, but neither an input nor drawn by sample\n" +
				"train: instruction 12 (row_adagrad): the factor, temp 14, has shape [8 4], want [1]\n" +
				"train: instruction 12 (row_adagrad): the gradient of use 1, input \"item\", has shape [8 1], want [8 4]"},
		{func(s set) { s.Train.Instrs[12].Attr.Uses = "ls" },
			"train: instruction 12 (row_adagrad): temp 8 is an index, but neither an input nor drawn by sample\n" +
				"train: instruction 12 (row_adagrad): the factors of use 1, input \"item\", has shape [8 1], want [8 4]"},
		{func(s set) { s.Train.Instrs[12].Attr.Uses = "ss" },
			`train: instruction 12 (row_adagrad): 5 arguments, uses "ss" take 6`},
		{func(s set) { s.Train.Instrs[12].Attr.Uses = "sx" },
			`train: instruction 12 (row_adagrad): uses "sx": letter 1 is neither l nor s`},
		{func(s set) { s.Train.Instrs[12].Args[1] = 9 },
			"train: instruction 12 (row_adagrad): the factors of use 0, temp 9, has shape [8 3], want [8 4]"},
		{func(s set) { s.Train.Instrs[12].Attr.Eps = 0 },
			"train: instruction 12 (row_adagrad): eps 0 and decay 0, want above 0 and 0 or more"},
		{func(s set) { s.Train.Instrs[12].Attr.Beta1 = .5 },
			"train: instruction 12 (row_adagrad): attributes that it does not have: {\"beta1\":0.5}"},
		{func(s set) { s.Train.Instrs[13].Attr.Decay = -1 },
			"train: instruction 13 (row_sgd): decay -1, want 0 or more"},
		{func(s set) { s.Train.Instrs[6].Attr.Uses = "l" },
			"train: instruction 6 (lookup_dot): attributes that it does not have: {\"uses\":\"l\"}"},
		{func(s set) { s.Train.Buffers[4].Shape[1], s.State[0].Shape[1] = 2, 2 },
			`train: instruction 12 (row_adagrad): output 1, state "acc", has shape [5 2], want [5 4]`},
		{func(s set) {
			s.Forward.Instrs = append(s.Forward.Instrs, Instr{Op: CandidateBPR, Args: []int{4, 1, 1}, Outs: []int{4}})
		}, "forward: instruction 2 (candidate_bpr): not allowed in a forward program\n" +
			"forward: instruction 2 (candidate_bpr): writes over its argument 0, temp 4\n" +
			"forward: instruction 2 (candidate_bpr): argument 1, input \"item\", has shape [4 1], want [4 4]\n" +
			"forward: instruction 2 (candidate_bpr): output, temp 4, has shape [4 4], want [1]"},
	})
}

// TestConcatenatedIndices: a column that is part of an index is looked at like one that is an index.
func TestConcatenatedIndices(t *testing.T) {
	s := candidateSet()
	if n := s.Train.Indexed(1); n != 5 {
		t.Errorf("item is an index of %d rows, want 5", n)
	}
	if n := s.Train.Indexed(2); n != 0 {
		t.Errorf("weight is an index of %d rows", n)
	}
	column := func(name string, x ...float32) Column { return Column{Name: name, Rows: 8, Width: 1, F32: x} }
	data := func(item ...float32) *Data {
		return &Data{Columns: []Column{column("user", make([]float32, 8)...), column("weight", make([]float32, 8)...), column("item", item...)},
			Schedule: Schedule{Train: Range{0, 8}, Rates: []float32{1}}}
	}
	good := []float32{0, 1, 2, 3, 4, -1, 0, 0}
	if _, err := s.CheckData(data(good...)); err != nil {
		t.Fatal(err)
	}
	bad := slices.Clone(good)
	bad[3] = 5
	if _, err := s.CheckData(data(bad...)); err == nil || !strings.Contains(err.Error(), `column "item": row 3, place 0 is 5`) {
		t.Errorf("an index of no row: %v", err)
	}
}

func TestTableUses(t *testing.T) {
	in := candidateSet().Train.Instrs[12]
	if d := cmp.Diff([]TableUse{{'s', 10, 13, 8}, {'l', 1, -1, 14}}, in.TableUses()); d != "" {
		t.Error(d)
	}
	in = Instr{Op: RowSGD, Args: []int{1, 2, 3, 4}}
	if d := cmp.Diff([]TableUse{{'l', 1, -1, 2}, {'l', 3, -1, 4}}, in.TableUses()); d != "" {
		t.Error(d)
	}
}
