package program

import (
	"strings"
	"testing"
)

func TestParseExpr(t *testing.T) {
	for _, c := range []struct {
		expr  string
		args  int
		steps int
		err   string
	}{
		{"x0", 1, 1, ""},
		{"x0 x1 mul tanh 1 add", 2, 6, ""},
		{"x0 -1e-08 mul", 1, 3, ""},
		{"x0 Inf min", 1, 3, ""},
		{"", 0, 0, `"" is no operand, number or function`},
		{"x1", 1, 0, "x1 is none of its 1 operands"},
		{"x01", 2, 0, "x01 is none of its 2 operands"},
		{"x0 x0", 1, 0, "leaves 2 values, want 1"},
		{"x0 mul", 1, 0, "mul finds 1 values, it takes 2"},
		{"x0 x0 mul", 2, 0, "does not use operand x1"},
		{"x0  neg", 1, 0, `"" is no operand`},
		{"x0 nego", 1, 0, `"nego" is no operand, number or function`},
		{"x0 x0 x0 x0 x0 x0 x0 x0 x0", 1, 0, "holds more than 8 values at a time"},
		{strings.Repeat("x0 ", 64) + "x0", 1, 0, "65 words, at most 64 are allowed"},
	} {
		steps, err := ParseExpr(c.expr, c.args)
		switch {
		case c.err == "" && (err != nil || len(steps) != c.steps):
			t.Errorf("%q: %d steps, %v", c.expr, len(steps), err)
		case c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err)):
			t.Errorf("%q: %v, want %s", c.expr, err, c.err)
		}
	}
}

func FuzzParseExpr(f *testing.F) {
	f.Add("x0 x1 mul tanh 1 add", 2)
	f.Fuzz(func(t *testing.T, expr string, args int) {
		if args < 0 || args > MaxMapArgs {
			return
		}
		steps, err := ParseExpr(expr, args)
		if err == nil && (len(steps) == 0 || len(steps) > MaxMapSteps) {
			t.Errorf("%q: %d steps", expr, len(steps))
		}
	})
}

func TestFormatConst(t *testing.T) {
	for _, c := range []float32{0, 1, -0.1, 1e-30, 16777217, 0x1.fffffep127} {
		steps, err := ParseExpr("x0 "+FormatConst(c)+" add", 1)
		if err != nil || steps[1].Value != c {
			t.Errorf("%v: %v, %v", c, steps, err)
		}
	}
}

func TestBroadcasts(t *testing.T) {
	for _, c := range []struct {
		arg, out []int
		ok       bool
	}{
		{[]int{1}, []int{3, 4}, true}, {[]int{4}, []int{3, 4}, true}, {[]int{3}, []int{3, 4}, false}, {[]int{3, 1}, []int{3, 4}, true},
		{[]int{3, 4}, []int{4}, false}, {[]int{2, 1, 4}, []int{2, 3, 4}, true}, {[]int{1, 4}, []int{3, 4}, true},
	} {
		if Broadcasts(c.arg, c.out) != c.ok {
			t.Errorf("%v to %v: %v", c.arg, c.out, !c.ok)
		}
	}
}
