package program

import (
	"math"
	"slices"
	"strings"
	"testing"
)

// optimized is the sound set with the gradient of w clipped, w updated by momentum and averaged, and a forward program
// that reads the average.
func optimized() *Set {
	s := sound()
	s.State = append(s.State, TensorSpec{Name: "w.average", Shape: []int{4, 1}})
	p := s.Train
	p.Buffers = append(p.Buffers,
		Buffer{Name: "w.average", Kind: State, DType: F32, Shape: []int{4, 1}},
		Buffer{Kind: Temp, DType: F32, Shape: []int{1}, Offset: 384},
		Buffer{Kind: Temp, DType: F32, Shape: []int{1}, Offset: 448})
	p.Arena = 512
	p.Instrs = append(p.Instrs[:9],
		Instr{Op: SumSquares, Args: []int{12}, Outs: []int{15}},
		Instr{Op: ClipFactor, Args: []int{15}, Outs: []int{16}, Attr: Attr{Limit: 1}},
		Instr{Op: Momentum, Args: []int{12, 16}, Outs: []int{2, 4}, Attr: Attr{Momentum: .9, Nesterov: true, Decay: .1}},
		Instr{Op: MovingAverage, Args: []int{2}, Outs: []int{14}, Attr: Attr{Decay: .99}})
	s.Forward.Buffers[5].Kind, s.Forward.Buffers[5].Name = State, "w.average"
	return s
}

func TestOptimizerFaults(t *testing.T) {
	at := func(s *Set, k int) *Instr { return &s.Train.Instrs[k] }
	findFaults(t, optimized, []fault{
		{func(*Set) {}, ""},
		{func(s *Set) { *at(s, 11) = Instr{Op: SGD, Args: []int{12}, Outs: []int{2}} }, ""},
		{func(s *Set) {
			*at(s, 11) = Instr{Op: Adam, Args: []int{12}, Outs: []int{2, 4, 5}, Attr: Attr{Beta1: .5, Eps: 1e-8}}
		}, ""},
		{func(s *Set) {
			*at(s, 11) = Instr{Op: Adagrad, Args: []int{12, 16}, Outs: []int{2, 4}, Attr: Attr{Eps: 1e-8}}
		}, ""},
		{func(s *Set) { at(s, 9).Outs[0] = 12; at(s, 9).Args[0] = 8 },
			"train: instruction 9 (sum_squares): output, temp 12, has shape [4 1], want [1]\n" +
				"train: instruction 10 (clip_factor): temp 15 is used before it is written"},
		{func(s *Set) { at(s, 10).Attr.Limit = 0 }, "train: instruction 10 (clip_factor): limit is 0, want above 0"},
		{func(s *Set) { at(s, 10).Args[0] = 12 },
			"train: instruction 10 (clip_factor): argument 0, temp 12, has shape [4 1], want [1]"},
		{func(s *Set) { at(s, 11).Attr = Attr{Momentum: 1, Decay: math.NaN()} },
			"train: instruction 11 (momentum): decay is NaN, want 0 or more\n" +
				"train: instruction 11 (momentum): momentum is 1, want 0 or more and below 1"},
		{func(s *Set) { at(s, 11).Args[1] = 12 },
			"train: instruction 11 (momentum): the factor, temp 12, has shape [4 1], want [1]"},
		{func(s *Set) { at(s, 11).Outs = []int{4, 2} },
			"train: instruction 11 (momentum): writes state \"m.w\"; output 0 is a [param]\n" +
				"train: instruction 11 (momentum): writes param \"w\"; output 1 is a [state]"},
		{func(s *Set) { at(s, 12).Args[0] = 3 },
			"train: instruction 12 (moving_average): output, state \"w.average\", has shape [4 1], want [1]"},
		{func(s *Set) { at(s, 12).Args[0] = 12 }, "train: instruction 12 (moving_average): argument 0, temp 12, is a [param]"},
		{func(s *Set) { at(s, 12).Attr.Decay = 1 },
			"train: instruction 12 (moving_average): decay is 1, want 0 or more and below 1"},
		{func(s *Set) { s.Train.Instrs = append(s.Train.Instrs, *at(s, 12)) },
			"train: instruction 13 (moving_average): state \"w.average\" is updated twice in one step"},
		{func(s *Set) { s.Forward.Buffers[5].Name = "m.w" },
			"forward: buffer 5 (state \"m.w\"): optimizer state in a forward program"},
	})
}

func TestRowSumSquares(t *testing.T) {
	with := func(args ...int) error {
		s := embedded()
		s.Train.Buffers = append(s.Train.Buffers,
			Buffer{Kind: Temp, DType: F32, Shape: []int{1}, Offset: align * (s.Train.Arena / align)})
		s.Train.Arena = align * (s.Train.Arena/align + 1)
		out := len(s.Train.Buffers) - 1
		s.Train.Instrs = append(s.Train.Instrs, Instr{Op: RowSumSquares, Args: args, Outs: []int{out}})
		return s.Validate()
	}
	for _, c := range []struct {
		args []int
		want string
	}{
		{[]int{2, 0, 16}, ""},
		{[]int{2, 0, 16, 1}, "3 arguments, want pairs of an index and a gradient"},
		{[]int{2, 0, 14}, "the gradient of use 0, temp 14, has shape [8 1], want [8 4]"},
		{[]int{16, 0, 16}, "argument 0, temp 16, is a [param]"},
		{[]int{2, 14, 16}, "temp 14 is an index, but neither an input nor drawn by sample"},
	} {
		err := with(c.args...)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v: %v, want %q", c.args, err, c.want)
		}
	}
}

// TestServed: what an artifact holds has the averages under the names of the parameters.
func TestServed(t *testing.T) {
	s := optimized()
	if sound().averaged() || !s.averaged() {
		t.Error("only the second reads averages")
	}
	p := s.Served()
	if b := p.Buffers[5]; b.Kind != Param || b.Name != "w" || s.Forward.Buffers[5].Kind != State {
		t.Errorf("served %+v, the set has %+v", b, s.Forward.Buffers[5])
	}
	served := &Set{Params: s.Params, Consts: s.Consts, Forward: p}
	if err := served.Validate(); err != nil {
		t.Error(err)
	}
	export := Tensors{
		{Name: "b", DType: F32, Shape: []int{1}, F32: []float32{1}},
		{Name: "b.average", DType: F32, Shape: []int{1}, F32: []float32{2}},
		{Name: "w", DType: F32, Shape: []int{4, 1}, F32: []float32{3, 3, 3, 3}},
		{Name: "w.average", DType: F32, Shape: []int{4, 1}, F32: []float32{4, 4, 4, 4}},
	}
	for set, want := range map[*Set][]float32{s: {2, 4}, sound(): {1, 3}} {
		ts := set.Trained(export)
		if len(ts) != 2 || ts[0].Name != "b" || ts[1].Name != "w" || ts[0].F32[0] != want[0] || ts[1].F32[0] != want[1] {
			t.Errorf("trained %+v, want %v", ts, want)
		}
	}
}

// TestAverageRate: the weights that the averages of all steps give to step i come to decay^(t-i), scaled to a mean.
func TestAverageRate(t *testing.T) {
	const decay, steps = .9, 40
	shares := make([]float64, steps)
	for s := range steps {
		a := float64(AverageRate(decay, s+1))
		for i := range s {
			shares[i] *= 1 - a
		}
		shares[s] = a
	}
	sum := 0.0
	for i, x := range shares {
		sum += x
		want := math.Pow(decay, float64(steps-1-i)) * (1 - decay) / (1 - math.Pow(decay, steps))
		if !(math.Abs(x-want) <= 1e-6) {
			t.Errorf("step %d of %d counts %v, want %v", i+1, steps, x, want)
		}
	}
	if !(math.Abs(sum-1) <= 1e-6) {
		t.Errorf("they come to %v", sum)
	}
}

func TestCheckRates(t *testing.T) {
	s, d := sound(), &Data{Schedule: Schedule{Rates: []float32{1, 2}}}
	for _, c := range []struct {
		d     *Data
		rates []float32
		want  string
	}{
		{nil, nil, "Bind comes first"}, {d, []float32{1}, "1 of them for 2 steps"},
		{d, []float32{1, float32(math.NaN())}, "step 1 is NaN"}, {d, []float32{0, 3}, ""},
	} {
		err := s.CheckRates(c.d, c.rates)
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%v: %v, want %q", c.rates, err, c.want)
		}
	}
	if !slices.Equal(d.Rates, []float32{1, 2}) {
		t.Error("checking changed them")
	}
}
