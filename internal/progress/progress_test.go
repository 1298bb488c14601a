package progress

import (
	"bytes"
	"math"
	"strings"
	"testing"
	"time"
)

// clocked is a bar whose clock the test moves.
func clocked(w *bytes.Buffer, total int64, terminal bool, width int) (*Bar, *time.Time) {
	now := time.Date(2018, 7, 25, 0, 0, 0, 0, time.UTC)
	b := &Bar{w: w, label: "import", unit: "rows", total: total, terminal: terminal,
		now: func() time.Time { return now }, width: func() int { return width }}
	b.begin()
	return b, &now
}

func TestPlainLinesAreFew(t *testing.T) {
	var out bytes.Buffer
	b, now := clocked(&out, 10_000, false, 80)
	for i := range 100 {
		*now = now.Add(100 * time.Millisecond)
		b.Set(int64(i+1)*100, "loss 0.5")
	}
	b.Done()
	b.Done()
	b.Set(1, "late")
	want := `import  20% 2,000/10,000 rows, 1.00k/s, 8.00 s left, loss 0.5
import  40% 4,000/10,000 rows, 1.00k/s, 6.00 s left, loss 0.5
import  60% 6,000/10,000 rows, 1.00k/s, 4.00 s left, loss 0.5
import  80% 8,000/10,000 rows, 1.00k/s, 2.00 s left, loss 0.5
import 100% 10,000/10,000 rows, 1.00k/s, 0.00 s left, loss 0.5
import: 10,000 rows in 10.0 s (1.00k rows/s), loss 0.5
`
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
}

func TestOne(t *testing.T) {
	var out bytes.Buffer
	b, now := clocked(&out, 1, false, 0)
	*now = now.Add(time.Second)
	b.Set(1, "")
	b.Done()
	if want := "import: 1 row in 1.00 s (1.00 rows/s)\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

func TestTerminalRedrawsOneLine(t *testing.T) {
	var out bytes.Buffer
	b, now := clocked(&out, 200, true, 60)
	*now = now.Add(time.Second)
	b.Set(100, "a long text that does not fit on this narrow terminal")
	*now = now.Add(time.Second)
	b.Set(150, "")
	b.Done()
	frames := strings.Split(out.String(), "\r")
	if n := strings.Count(out.String(), "\n"); n != 1 || !strings.HasSuffix(out.String(), "\n") {
		t.Errorf("%d line ends in %q", n, out.String())
	}
	for _, f := range frames[:len(frames)-1] {
		if len(f) > 59 {
			t.Errorf("wraps: %q", f)
		}
	}
	if want := "import [============            ]  50% 100/200 rows, 100/s"; !strings.HasPrefix(frames[1], want) {
		t.Errorf("got %q, want %q", frames[1], want)
	}
	if len(frames[3]) < len(strings.TrimRight(frames[2], " ")) || strings.TrimSpace(frames[3]) != "" {
		t.Errorf("the last frame is not erased: %q", frames[3])
	}
}

func TestUnknownTotalAndNil(t *testing.T) {
	var out bytes.Buffer
	b, now := clocked(&out, 0, false, 80)
	*now = now.Add(3 * time.Second)
	b.Set(3, "")
	if got := out.String(); got != "import 3 rows, 1.00/s\n" {
		t.Errorf("got %q", got)
	}
	var none *Bar
	none.Set(1, "")
	none.SetTotal(2)
	none.Done()
}

func TestNumbers(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{Count(0), "0"}, {Count(999), "999"}, {Count(1000), "1,000"}, {Count(1754155), "1,754,155"}, {Count(-1234567), "-1,234,567"}, {Count(-100), "-100"},
		{Short(0.5), "0.50"}, {Short(9.994), "9.99"}, {Short(9.996), "10.0"}, {Short(999.4), "999"}, {Short(999.6), "1.00k"}, {Short(548123), "548k"}, {Short(1.754e6), "1.75M"}, {Short(12.9e6), "12.9M"},
		{Bytes(999), "999 B"}, {Bytes(1500), "1.50 KB"}, {Bytes(41_200_000), "41.2 MB"},
		{Duration(310 * time.Millisecond), "0.31 s"}, {Duration(12340 * time.Millisecond), "12.3 s"}, {Duration(245 * time.Second), "4m05s"}, {Duration(192 * time.Minute), "3h12m"},
	} {
		if c.got != c.want {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
}

// screen is what a terminal shows after some text: it knows what Bar writes, carriage returns, line ends, moves up and right and
// erasing to the end of a line.
func screen(text string) []string {
	lines, row, col := [][]rune{nil}, 0, 0
	for i := 0; i < len(text); {
		switch r := []rune(text[i:])[0]; {
		case r == '\r':
			col = 0
			i++
		case r == '\n':
			if row++; row == len(lines) {
				lines = append(lines, nil)
			}
			i++
		case r == 0x1b:
			end := i + strings.IndexAny(text[i:], "ACK")
			n := 0
			for _, d := range text[i+2 : end] {
				n = 10*n + int(d-'0')
			}
			switch text[end] {
			case 'A':
				row -= n
			case 'C':
				col += n
			case 'K':
				lines[row] = lines[row][:min(col, len(lines[row]))]
			}
			i = end + 1
		default:
			for len(lines[row]) <= col {
				lines[row] = append(lines[row], ' ')
			}
			lines[row][col] = r
			col++
			i += len(string(r))
		}
	}
	var out []string
	for _, l := range lines {
		out = append(out, strings.TrimRight(string(l), " "))
	}
	return out
}

// Lines below the bar are redrawn with it, cut to the terminal, and gone at the end.
func TestLinesBelow(t *testing.T) {
	var out bytes.Buffer
	b, now := clocked(&out, 200, true, 50)
	b.Below("epoch 1/3", "  loss 0.5 "+Spark([]float64{3, 2, 1}), strings.Repeat("long ", 20))
	*now = now.Add(time.Second)
	b.Set(100, "epoch 1/3, loss 0.5")
	want := []string{"import [============            ]  50% 100/200 rows", "  loss 0.5 █▅▁", strings.Repeat("long ", 20)[:49]}
	for i, line := range screen(out.String()) {
		if line != strings.TrimRight(want[i][:min(len(want[i]), len(line))], " ") || len(line) == 0 {
			t.Errorf("line %d is %q, want %q", i, line, want[i])
		}
	}
	b.Below("epoch 2/3", "  loss 0.4")
	*now = now.Add(time.Second)
	b.Set(150, "")
	if got := screen(out.String()); got[1] != "  loss 0.4" || got[2] != "" {
		t.Errorf("got %q", got)
	}
	b.Done()
	got := screen(out.String())
	if got[0] != "import: 150 rows in 2.00 s (75.0 rows/s)" || strings.Join(got[1:], "") != "" {
		t.Errorf("at the end %q", got)
	}
	// Elsewhere there are none.
	out.Reset()
	b, now = clocked(&out, 200, false, 50)
	b.Below("short", "below")
	*now = now.Add(3 * time.Second)
	b.Set(100, "in full")
	if got := out.String(); strings.Contains(got, "below") || !strings.HasSuffix(got, ", in full\n") {
		t.Errorf("got %q", got)
	}
	var none *Bar
	none.Below("x", "y")
}

func TestSpark(t *testing.T) {
	for want, xs := range map[string][]float64{"": nil, "▁": {5}, "▁▁": {5, 5}, "▁█": {0, 1}, "█▅▁": {3, 2, 1}, "▁ █": {1, math.NaN(), 2}} {
		if got := Spark(xs); got != want {
			t.Errorf("%v: %q, want %q", xs, got, want)
		}
	}
}

// TestBegin: what was done before counts in no rate, and the time counts from when the work began.
func TestBegin(t *testing.T) {
	var out strings.Builder
	now := time.Unix(100, 0)
	b := &Bar{w: &out, label: "train", unit: "rows", total: 3000, width: func() int { return 80 }, now: func() time.Time { return now }}
	b.begin()
	b.Begin(now.Add(-time.Second), 1000)
	now = now.Add(time.Second)
	b.Set(2000, "")
	if got := b.line(now, false); !strings.Contains(got, "2,000/3,000 rows, 500/s, 2.00 s left") {
		t.Error(got)
	}
	b.Done()
	if want := "train: 1,000 rows in 2.00 s (500 rows/s)\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
