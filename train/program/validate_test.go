package program

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// sound is a set without a fault: logistic regression on four features with dropout, and its artifact with
// standardisation and calibration. Buffers and instructions are numbered in comments, for the tests below.
func sound() *Set {
	train := &Program{
		Name: "train", Rows: 8, Arena: 448,
		Buffers: []Buffer{
			{Name: "x", Kind: Input, DType: F32, Shape: []int{8, 4}, PerRow: true},   // 0
			{Name: "t", Kind: Input, DType: F32, Shape: []int{8, 1}, PerRow: true},   // 1
			{Name: "w", Kind: Param, DType: F32, Shape: []int{4, 1}},                 // 2
			{Name: "b", Kind: Param, DType: F32, Shape: []int{1}},                    // 3
			{Name: "m.w", Kind: State, DType: F32, Shape: []int{4, 1}},               // 4
			{Name: "v.w", Kind: State, DType: F32, Shape: []int{4, 1}},               // 5
			{Name: "loss", Kind: Slot, DType: F64, Shape: []int{1}},                  // 6
			{Kind: Temp, DType: F32, Shape: []int{8, 4}, PerRow: true, Offset: 0},    // 7 dropped
			{Kind: Temp, DType: F32, Shape: []int{8, 1}, PerRow: true, Offset: 128},  // 8 z
			{Kind: Temp, DType: F32, Shape: []int{1}, Offset: 192},                   // 9 loss
			{Kind: Temp, DType: F32, Shape: []int{1}, Offset: 256},                   // 10 one
			{Kind: Temp, DType: F32, Shape: []int{8, 1}, PerRow: true, Offset: 320},  // 11 dz
			{Kind: Temp, DType: F32, Shape: []int{4, 1}, Offset: 192},                // 12 dw, over 9
			{Kind: Temp, DType: F32, Shape: []int{8, 10}, PerRow: true, Offset: 128}, // 13 wide, over 8 to 12
		},
		Instrs: []Instr{
			{Op: Gather, Outs: []int{0}, Attr: Attr{Column: "x"}},                                                                       // 0
			{Op: Gather, Outs: []int{1}, Attr: Attr{Column: "t"}},                                                                       // 1
			{Op: Dropout, Args: []int{0}, Outs: []int{7}, Attr: Attr{Rate: 0.5, Site: 3}},                                               // 2
			{Op: MatMul, Args: []int{7, 2, 3}, Outs: []int{8}, Node: "dense"},                                                           // 3
			{Op: BCE, Args: []int{8, 1, 1}, Outs: []int{9}},                                                                             // 4
			{Op: Accumulate, Args: []int{9}, Outs: []int{6}, Attr: Attr{Scale: 1}},                                                      // 5
			{Op: Fill, Outs: []int{10}, Attr: Attr{Scale: 1}},                                                                           // 6
			{Op: BCEGrad, Args: []int{8, 1, 1, 10}, Outs: []int{11}},                                                                    // 7
			{Op: MatMul, Args: []int{7, 11}, Outs: []int{12}, Attr: Attr{TransA: true}},                                                 // 8
			{Op: AdamW, Args: []int{12}, Outs: []int{2, 4, 5}, Attr: Attr{Beta1: 0.9, Beta2: 0.999, Eps: 1e-8, Decay: 0.01}, Node: "w"}, // 9
		},
	}
	forward := &Program{
		Name: "forward", Rows: 16, Arena: 576,
		Buffers: []Buffer{
			{Name: "features", Kind: Input, DType: F64, Shape: []int{16, 4}, PerRow: true}, // 0
			{Name: "mean", Kind: Const, DType: F64, Shape: []int{4}},                       // 1
			{Name: "scale", Kind: Const, DType: F64, Shape: []int{4}},                      // 2
			{Name: "log", Kind: Const, DType: F64, Shape: []int{4}},                        // 3
			{Name: "ab", Kind: Const, DType: F64, Shape: []int{2}},                         // 4
			{Name: "w", Kind: Param, DType: F32, Shape: []int{4, 1}},                       // 5
			{Kind: Temp, DType: F32, Shape: []int{16, 4}, PerRow: true},                    // 6
			{Kind: Temp, DType: F32, Shape: []int{16, 1}, PerRow: true, Offset: 256},       // 7
			{Name: "p", Kind: Output, DType: F64, Shape: []int{16, 1}, PerRow: true},       // 8
		},
		Instrs: []Instr{
			{Op: Standardize, Args: []int{0, 1, 2, 3}, Outs: []int{6}},
			{Op: MatMul, Args: []int{6, 5}, Outs: []int{7}},
			{Op: Scale, Args: []int{7}, Outs: []int{7}, Attr: Attr{Scale: 2}},
			{Op: Calibrate, Args: []int{7, 4}, Outs: []int{8}},
		},
	}
	return &Set{
		Params: []TensorSpec{{Name: "w", Shape: []int{4, 1}, Init: "he_uniform", FanIn: 4}, {Name: "b", Shape: []int{1}, Init: "zero"}},
		State:  []TensorSpec{{Name: "m.w", Shape: []int{4, 1}}, {Name: "v.w", Shape: []int{4, 1}}},
		Consts: []TensorSpec{{Name: "mean", Shape: []int{4}}, {Name: "scale", Shape: []int{4}}, {Name: "log", Shape: []int{4}}, {Name: "ab", Shape: []int{2}}},
		Slots:  []string{"loss"},
		Train:  train, Forward: forward,
	}
}

func TestSoundSet(t *testing.T) {
	if err := sound().Validate(); err != nil {
		t.Fatal(err)
	}
}

// TestEveryOpHasAnArity: an operation that Validate does not know could never be run.
func TestEveryOpHasAnArity(t *testing.T) {
	for _, op := range Ops() {
		if _, ok := arities[op]; !ok {
			t.Errorf("Validate does not know %s", op)
		}
	}
	if len(arities) != len(Ops()) {
		t.Errorf("Validate knows %d operations, Ops lists %d", len(arities), len(Ops()))
	}
}

// TestFaults has those of sets, programs and instructions in general.
func TestFaults(t *testing.T) {
	type set = *Set
	findFaults(t, sound, []fault{
		// The set.
		{func(s set) { s.Forward = nil }, "set: no forward program"},
		{func(s set) { s.Train = nil; s.Rest = &Program{Rows: 1} }, "set: a rest program without a train program"},
		{func(s set) { s.Rest = s.Train }, "set: rest has 8 rows, train 8: the rest of an epoch is shorter than a batch"},
		{func(s set) {
			s.Params[1].Name = "w"
			s.Train.Buffers[3].Name = "w"
			s.Train.Buffers[3].Shape = []int{1}
		},
			"set: param \"w\": the name is used twice\ntrain: buffer 2 (param \"w\"): shape [4 1], the set has [1]\ntrain: buffer 3 (param \"w\"): the name is used twice in the program\nforward: buffer 5 (param \"w\"): shape [4 1], the set has [1]"},
		{func(s set) { s.Params = append(s.Params, TensorSpec{Shape: []int{1}}) }, "set: a param without a name"},
		{func(s set) { s.Params[0].Init = "orthogonal" }, `set: param "w": init "orthogonal" is not known (zero, one, he_uniform, fan_in_uniform, glorot_uniform, uniform, normal)`},
		{func(s set) { s.Params[0].Init, s.Params[0].FanIn = "fan_in_uniform", 0 }, `set: param "w": fan_in_uniform needs fan_in of 1 or more, not 0`},
		{func(s set) { s.Params[0].FanIn = 0 }, `set: param "w": he_uniform needs fan_in of 1 or more, not 0`},
		{func(s set) { s.Params[0].Init = "glorot_uniform" }, `set: param "w": glorot_uniform needs fan_in and fan_out of 1 or more, not 4 and 0`},
		{func(s set) { s.State[0].Init = "he_uniform" }, `set: state "m.w": init "he_uniform": only a param is initialised`},
		{func(s set) { s.Params[0].Site = math.MaxUint32 }, `set: param "w": site 4294967295 is reserved`},
		{func(s set) { s.Params = append(s.Params, TensorSpec{Name: "big", Shape: []int{1 << 31, 1 << 31, 4}}) },
			`set: param "big": shape [2147483648 2147483648 4]: dimensions must be 1 or more, at most 8 of them and 2147483647 elements`},
		{func(s set) { s.Slots = nil }, `train: buffer 6 (slot "loss"): the set has no slot of this name`},
		{func(s set) {
			s.Train.Buffers = append(s.Train.Buffers, Buffer{Name: "ab", Kind: Const, DType: F32, Shape: []int{2}})
		}, `set: const "ab" is F32 in one program and F64 in another`},

		// Programs and buffers.
		{func(s set) { s.Train.Rows = 0 }, "train: 0 rows, want 1 to 16777216\n" + perRow(0, 0, 1, 7, 8, 11, 13)},
		{func(s set) { s.Forward.Arena = -1 }, "forward: arena of -1 bytes, want 0 to 17179869184\nforward: buffer 6 (temp \"\"): 256 bytes at 0 do not fit the arena of -1\nforward: buffer 7 (temp \"\"): 64 bytes at 256 do not fit the arena of -1"},
		{func(s set) { s.Forward.Arena = 319 }, `forward: buffer 7 (temp ""): 64 bytes at 256 do not fit the arena of 319`},
		{func(s set) { s.Forward.Buffers[7].Offset = 255 }, `forward: buffer 7 (temp ""): offset 255, want a multiple of 64`},
		{func(s set) { s.Forward.Buffers[7].Offset = math.MaxInt - 63 }, `forward: buffer 7 (temp ""): 64 bytes at 9223372036854775744 do not fit the arena of 576`},
		{func(s set) { s.Forward.Buffers[7].Offset = math.MinInt }, `forward: buffer 7 (temp ""): offset -9223372036854775808, want a multiple of 64`},
		{func(s set) { s.Forward.Buffers[5].Offset = 64 }, `forward: buffer 5 (param "w"): offset 64: only a temp has one`},
		{func(s set) { s.Forward.Buffers[5].Name = "q" }, `forward: buffer 5 (param "q"): the set has no param of this name`},
		{func(s set) { s.Forward.Buffers[5].Shape = []int{1, 4} }, `forward: buffer 5 (param "w"): shape [1 4], the set has [4 1]`},
		{func(s set) { s.Forward.Buffers[5].DType = F64 }, `forward: buffer 5 (param "w"): type F64, want F32`},
		{func(s set) { s.Forward.Buffers[6].DType = "F16" }, `forward: buffer 6 (temp ""): type "F16", want F32 or F64`},
		{func(s set) { s.Forward.Buffers[6].Kind = "stack" }, "forward: buffer 6 (stack \"\"): no name\nforward: buffer 6 (stack \"\"): kind \"stack\" is not known"},
		{func(s set) { s.Forward.Buffers[6].Shape = []int{0, 4}; s.Forward.Buffers[6].PerRow = false }, `forward: buffer 6 (temp ""): shape [0 4]: dimensions must be 1 or more, at most 8 of them and 2147483647 elements`},
		{func(s set) { s.Forward.Buffers[7].Shape = nil }, `forward: buffer 7 (temp ""): shape []: dimensions must be 1 or more, at most 8 of them and 2147483647 elements`},
		{func(s set) { s.Forward.Buffers[0].PerRow = false }, `forward: buffer 0 (input "features"): an input of a forward program is per row`},
		{func(s set) { s.Forward.Buffers[8].PerRow = false }, `forward: buffer 8 (output "p"): an output is per row`},
		{func(s set) { s.Forward.Buffers[8].Kind = Temp; s.Forward.Buffers[8].Offset = 320 }, "forward: 0 outputs, a forward program has one"},
		{func(s set) { s.Train.Buffers[6].DType = F32 }, `train: buffer 6 (slot "loss"): a slot is F64 of shape [1], not F32 of [1]`},
		{func(s set) {
			s.Train.Buffers[13].Kind = Output
			s.Train.Buffers[13].Offset = 0
			s.Train.Buffers[13].Name = "o"
		},
			"train: buffer 13 (output \"o\"): an output in a training program\ntrain: output \"o\" is never written"},
		{func(s set) {
			s.Forward.Buffers = append(s.Forward.Buffers, Buffer{Name: "loss", Kind: Slot, DType: F64, Shape: []int{1}}, Buffer{Name: "m.w", Kind: State, DType: F32, Shape: []int{4, 1}})
		}, "forward: buffer 9 (slot \"loss\"): a slot in a forward program\nforward: buffer 10 (state \"m.w\"): optimizer state in a forward program"},

		// Instructions.
		{func(s set) { s.Train.Instrs[3].Args[1] = 99 }, `train: instruction 3 (matmul "dense"): argument 99: the program has 14 buffers`},
		{func(s set) { s.Train.Instrs[3].Outs[0] = -1 }, "train: instruction 3 (matmul \"dense\"): output -1: the program has 14 buffers\n" + unwritten("train", 8, "4 (bce_with_logits)", "7 (bce_with_logits_grad)")},
		{func(s set) { s.Train.Instrs[3].Args = nil }, `train: instruction 3 (matmul "dense"): 0 arguments, want 2 to 3`},
		{func(s set) { s.Train.Instrs[3].Outs = []int{8, 9} }, `train: instruction 3 (matmul "dense"): 2 outputs, want 1`},
		{func(s set) { s.Train.Instrs[3].Op = "conv" }, `train: instruction 3 (conv "dense"): the operation is not known`},
		{func(s set) { s.Train.Instrs[3].Attr.Act = "gelu" }, `train: instruction 3 (matmul "dense"): activation "gelu" is not known`},
		{func(s set) { s.Train.Instrs[3].Attr.Rate = 0.1 }, `train: instruction 3 (matmul "dense"): attributes that it does not have: {"rate":0.1}`},
		{func(s set) { s.Train.Instrs[3].Attr.TransB = true }, `train: instruction 3 (matmul "dense"): a has 4 columns (transposed if so), b 1 rows` + "\n" + `train: instruction 3 (matmul "dense"): output, temp 8, has shape [8 1], want [8 4]` + "\n" + `train: instruction 3 (matmul "dense"): bias, param "b", has shape [1], want [4]`},
		{func(s set) { s.Train.Instrs[0].Attr.Column = "" }, "train: instruction 0 (gather): no column"},
		{func(s set) { s.Train.Instrs[0].Outs[0] = 7 }, "train: instruction 0 (gather): writes temp 7; output 0 is a [input]\ntrain: instruction 2 (dropout): input \"x\" is used before it is written"},
		{func(s set) { s.Train.Instrs[2].Attr.Rate = 1 }, "train: instruction 2 (dropout): rate is 1, want 0 or more and below 1"},
		{func(s set) { s.Train.Instrs[2].Attr.Site = 0xFFFFFFFE }, "train: instruction 2 (dropout): site 4294967294 is reserved"},
		{func(s set) { s.Train.Instrs[6].Attr.Scale = float32(math.NaN()) }, "train: instruction 6 (fill): scale is NaN"},
		{func(s set) { s.Train.Instrs[6].Outs[0] = 2 }, "train: instruction 6 (fill): writes param \"w\"; output 0 is a [temp output]\ntrain: instruction 7 (bce_with_logits_grad): temp 10 is used before it is written"},
		{func(s set) { s.Train.Instrs[4].Args[0] = 6 }, "train: instruction 4 (bce_with_logits): slot \"loss\" is an argument; slots are only added to\ntrain: instruction 4 (bce_with_logits): argument 0, slot \"loss\", is F64, want F32\ntrain: instruction 4 (bce_with_logits): argument 0, slot \"loss\", has shape [1], want a matrix"},
		{func(s set) { s.Train.Instrs[4].Args[0] = 11 }, "train: instruction 4 (bce_with_logits): temp 11 is used before it is written"},
		{func(s set) { s.Train.Instrs[9].Attr.Beta2, s.Train.Instrs[9].Attr.Eps = math.NaN(), 0 }, "train: instruction 9 (adamw \"w\"): beta2 is NaN, want 0 or more and below 1\ntrain: instruction 9 (adamw \"w\"): eps 0 and decay 0.01, want above 0 and 0 or more"},
		{func(s set) { s.Train.Instrs[9].Outs = []int{2, 4, 4} }, `train: instruction 9 (adamw "w"): writes state "m.w" twice` + "\n" + `train: instruction 9 (adamw "w"): state "m.w" is updated twice in one step`},
		{func(s set) { s.Train.Instrs = append(s.Train.Instrs, s.Train.Instrs[9]) }, `train: instruction 10 (adamw "w"): param "w" is updated twice in one step` + "\n" + `train: instruction 10 (adamw "w"): state "m.w" is updated twice in one step` + "\n" + `train: instruction 10 (adamw "w"): state "v.w" is updated twice in one step`},
		{func(s set) { s.Forward.Instrs[2].Op, s.Forward.Instrs[2].Attr = Dropout, Attr{Rate: 0.5} }, "forward: instruction 2 (dropout): not allowed in a forward program"},
		{func(s set) { s.Forward.Instrs = s.Forward.Instrs[:3] }, `forward: output "p" is never written`},
		{func(s set) { s.Forward.Instrs[1].Outs[0] = 6 }, "forward: instruction 1 (matmul): writes over its argument 0, temp 6\nforward: instruction 1 (matmul): output, temp 6, has shape [16 4], want [16 1]\n" + unwritten("forward", 7, "2 (scale)")},
		{func(s set) { s.Forward.Instrs[0].Args = []int{0, 1, 2, 4} }, `forward: instruction 0 (standardize): argument 3, const "ab", has shape [2], want [4]`},
		{func(s set) { s.Forward.Buffers[7].PerRow = false }, "forward: instruction 1 (matmul): temp 6 is per row and temp 7 is not\nforward: instruction 3 (calibrate): output \"p\" is per row and temp 7 is not"},

		// The arena.
		{func(s set) { s.Forward.Buffers[7].Offset = 192 }, "forward: instruction 1 (matmul): its output temp 7 overlaps its argument 0, temp 6, in the arena"},
		{func(s set) { s.Train.Buffers[10].Offset = 128 }, "train: instruction 6 (fill): writes temp 10 over temp 8, which is read later"},
		{func(s set) {
			s.Train.Instrs = slices.Insert(s.Train.Instrs, 3, Instr{Op: Fill, Outs: []int{13}}, Instr{Op: Fill, Outs: []int{13}})
		}, ""},
		{func(s set) { s.Train.Instrs = slices.Insert(s.Train.Instrs, 7, Instr{Op: Fill, Outs: []int{13}}) }, "train: instruction 7 (fill): writes temp 13 over temp 8, which is read later\ntrain: instruction 7 (fill): writes temp 13 over temp 10, which is read later"},
		{func(s set) { s.Train.Instrs = append(s.Train.Instrs, Instr{Op: Fill, Outs: []int{13}}) }, ""},
	})
}

// perRow is what is said of buffers of the train program whose rows are not the program's.
func perRow(rows int, ids ...int) string {
	var lines []string
	for _, id := range ids {
		b := sound().Train.Buffers[id]
		lines = append(lines, fmt.Sprintf("train: buffer %d (%s %q): per row, but its leading dimension is %d and the program has %d rows", id, b.Kind, b.Name, b.Shape[0], rows))
	}
	return strings.Join(lines, "\n")
}

// unwritten is what is said of instructions that read a temp which nothing wrote.
func unwritten(where string, temp int, instrs ...string) string {
	var lines []string
	for _, in := range instrs {
		lines = append(lines, fmt.Sprintf("%s: instruction %s: temp %d is used before it is written", where, in, temp))
	}
	return strings.Join(lines, "\n")
}

// TestInPlaceOverAnotherTemp: an output may lie exactly over argument 0 where the operation allows it and the
// argument is not read again.
func TestInPlaceOverAnotherTemp(t *testing.T) {
	s := sound()
	f := s.Forward
	f.Buffers = append(f.Buffers, Buffer{Kind: Temp, DType: F32, Shape: []int{16, 1}, PerRow: true, Offset: 256})
	f.Instrs[2].Outs[0], f.Instrs[3].Args[0] = 9, 9
	if err := s.Validate(); err != nil {
		t.Errorf("exactly over argument 0: %v", err)
	}
	f.Instrs[3].Args[0] = 7
	if err := s.Validate(); err == nil || !strings.Contains(err.Error(), "instruction 2 (scale): writes temp 9 over temp 7, which is read later") {
		t.Errorf("argument 0 is read again: %v", err)
	}
}

// TestAllFaultsAtOnce: one run tells them all.
func TestAllFaultsAtOnce(t *testing.T) {
	s := sound()
	s.Params[0].FanIn = 0
	s.Train.Instrs[0].Attr.Column = ""
	s.Train.Instrs[2].Attr.Rate = 2
	s.Forward.Instrs[3].Args[1] = 77
	err := s.Validate()
	if err == nil {
		t.Fatal("no fault found")
	}
	if n := len(strings.Split(err.Error(), "\n")); n != 4 {
		t.Errorf("%d faults, want 4:\n%v", n, err)
	}
}

func TestProgramListing(t *testing.T) {
	want := `forward: 16 rows, 4 instructions, arena 576 bytes
  0 t6[16 4] = standardize features[16 4] mean[4] scale[4] log[4]
  1 t7[16 1] = matmul t6[16 4] w[4 1]
  2 t7[16 1] = scale t7[16 1] {"scale":2}
  3 p[16 1] = calibrate t7[16 1] ab[2]
`
	if d := cmp.Diff(want, sound().Forward.String()); d != "" {
		t.Error(d)
	}
}

func TestSetJSONRoundTrip(t *testing.T) {
	b, err := json.Marshal(sound())
	if err != nil {
		t.Fatal(err)
	}
	var s Set
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(sound(), &s); d != "" {
		t.Error(d)
	}
}

// FuzzSet: whatever JSON says, Validate answers, and what it lets through can be listed and measured.
func FuzzSet(f *testing.F) {
	b, err := json.Marshal(sound())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	if b, err = json.Marshal(embedded()); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"forward":{"rows":1,"buffers":[{"kind":"output","dtype":"F32","shape":[1],"per_row":true,"name":"o"}],"instrs":[{"op":"fill","outs":[0]}]}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var s Set
		if json.Unmarshal(in, &s) != nil || s.Validate() != nil {
			return
		}
		for _, p := range []*Program{s.Train, s.Rest, s.Forward} {
			if p == nil {
				continue
			}
			for i := range p.Buffers {
				p.Indexed(i)
			}
			if p.String() == "" {
				t.Error("nothing to list")
			}
			for i := range p.Buffers {
				b := &p.Buffers[i]
				if b.Len() < 1 || b.Kind == Temp && b.Offset+b.Len()*b.DType.Size() > p.Arena {
					t.Errorf("buffer %d has %d elements at %d of %d", i, b.Len(), b.Offset, p.Arena)
				}
			}
		}
	})
}
