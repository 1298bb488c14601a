// Package progress shows how far a long run has come.
//
// What enters: counts of work done, as often as the caller likes, and on a terminal a few lines of more. What leaves, on
// the writer (standard error): on a terminal one line, with what is to be below it, redrawn in place, a few times a
// second; elsewhere a plain line at most every two seconds; at the end one plain line in either case. Nothing may parse
// these lines.
package progress

import (
	"fmt"
	"io"
	"math"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

const (
	redrawEvery = 100 * time.Millisecond // smooth to the eye, free to the run
	lineEvery   = 2 * time.Second        // a log stays readable
	rateOver    = 20                     // samples of at least half a second: the rate is that of the last 10 s
	sampleEvery = 500 * time.Millisecond
	barCells    = 24
)

// Bar is the progress of one run. A nil Bar shows nothing. It may be used from several goroutines.
type Bar struct {
	mu       sync.Mutex
	w        io.Writer
	label    string
	unit     string
	total    int64
	terminal bool
	width    func() int
	now      func() time.Time

	start   time.Time
	from    int64 // what was done before it
	shown   time.Time
	samples []sample
	done    int64
	extra   string
	short   string   // in place of extra where there are lines below
	below   []string // lines below the bar, on a terminal
	drawn   int      // cells of the line on the terminal, to be overwritten
	under   int      // lines drawn below it
	ended   bool
}

type sample struct {
	at   time.Time
	done int64
}

// New starts a bar named label that counts to total units; total <= 0 means that the end is not known.
func New(w io.Writer, label string, total int64, unit string) *Bar {
	b := &Bar{w: w, label: label, unit: unit, total: total, now: time.Now, width: func() int { return 80 }}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		b.terminal = os.Getenv("TERM") != "dumb"
		b.width = func() int {
			if cols, _, err := term.GetSize(int(f.Fd())); err == nil && cols > 0 {
				return cols
			}
			return 80
		}
	}
	b.begin()
	return b
}

func (b *Bar) begin() {
	b.start = b.now()
	b.shown = b.start
	b.samples = []sample{{at: b.start}}
}

// Begin says since when it runs and how much was done before, which counts in no rate. The default is now and nothing.
func (b *Bar) Begin(at time.Time, done int64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.start, b.from, b.done = at, done, done
	b.samples = []sample{{at, done}}
}

// Set says how much is done by now; extra is shown at the end of the line as it is (a loss, say).
func (b *Bar) Set(done int64, extra string) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return
	}
	b.done, b.extra = done, extra
	now := b.now()
	if now.Sub(b.samples[len(b.samples)-1].at) >= sampleEvery {
		b.samples = append(b.samples, sample{now, done})
		if len(b.samples) > rateOver {
			b.samples = b.samples[1:]
		}
	}
	every := lineEvery
	if b.terminal {
		every = redrawEvery
	}
	if now.Sub(b.shown) < every {
		return
	}
	b.shown = now
	if b.terminal {
		b.redraw(b.line(now, true))
		return
	}
	fmt.Fprintln(b.w, b.line(now, false))
}

// Below sets the lines that a terminal shows below the bar from the next Set on, and what stands at the bar's end in place
// of extra: they are redrawn with it and gone when it is done. Elsewhere it does nothing.
func (b *Bar) Below(short string, lines ...string) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.terminal {
		b.short, b.below = short, lines
	}
}

// SetTotal corrects the total when it becomes known during the run.
func (b *Bar) SetTotal(total int64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.total = total
}

// Done ends the bar and leaves one line with the amount since its beginning, the time and the mean rate. Later calls do
// nothing.
func (b *Bar) Done() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ended {
		return
	}
	b.ended = true
	took := b.now().Sub(b.start)
	unit, done := b.unit, b.done-b.from
	if done == 1 {
		unit = strings.TrimSuffix(unit, "s")
	}
	text := fmt.Sprintf("%s: %s %s in %s", b.label, Count(done), unit, Duration(took))
	if rate := float64(done) / took.Seconds(); took > 0 && done > 0 {
		text += fmt.Sprintf(" (%s %s/s)", Short(rate), b.unit)
	}
	if b.extra != "" {
		text += ", " + b.extra
	}
	if b.terminal {
		b.below = nil
		b.redraw("")
		fmt.Fprint(b.w, "\r")
	}
	fmt.Fprintln(b.w, text)
}

// redraw overwrites the line on the terminal, and what is below it, and leaves the cursor at the end of the line. Only
// lines below need more of a terminal than a carriage return.
func (b *Bar) redraw(text string) {
	cells := b.cut(text)
	pad := max(b.drawn-len(cells), 0)
	b.drawn = len(cells)
	if len(b.below) == 0 && b.under == 0 {
		fmt.Fprintf(b.w, "\r%s%s", string(cells), strings.Repeat(" ", pad))
		return
	}
	var s strings.Builder
	fmt.Fprintf(&s, "\r%s%s", string(cells), eraseLine)
	lines := max(len(b.below), b.under)
	for i := range lines {
		s.WriteString("\n\r")
		if i < len(b.below) {
			s.WriteString(string(b.cut(b.below[i])))
		}
		s.WriteString(eraseLine)
	}
	b.under = len(b.below)
	fmt.Fprintf(&s, "\x1b[%dA\r", lines)
	if len(cells) > 0 {
		fmt.Fprintf(&s, "\x1b[%dC", len(cells))
	}
	io.WriteString(b.w, s.String())
}

// eraseLine clears a terminal's line behind the cursor.
const eraseLine = "\x1b[K"

// cut is a line as long as the terminal takes: a full one would wrap.
func (b *Bar) cut(text string) []rune {
	cells := []rune(text)
	return cells[:min(len(cells), max(b.width()-1, 1))]
}

// line is the state in words, with the bar itself where wanted.
func (b *Bar) line(now time.Time, bar bool) string {
	var s strings.Builder
	s.WriteString(b.label)
	if b.total > 0 {
		part := min(max(float64(b.done)/float64(b.total), 0), 1)
		if bar {
			full := int(part * barCells)
			fmt.Fprintf(&s, " [%s%s]", strings.Repeat("=", full), strings.Repeat(" ", barCells-full))
		}
		fmt.Fprintf(&s, " %3.0f%% %s/%s %s", 100*part, Count(b.done), Count(b.total), b.unit)
	} else {
		fmt.Fprintf(&s, " %s %s", Count(b.done), b.unit)
	}
	old := b.samples[0]
	if rate := float64(b.done-old.done) / now.Sub(old.at).Seconds(); rate > 0 {
		fmt.Fprintf(&s, ", %s/s", Short(rate))
		if left := float64(b.total-b.done) / rate; b.total > 0 && left >= 0 && left < 1e7 {
			fmt.Fprintf(&s, ", %s left", Duration(time.Duration(left*float64(time.Second))))
		}
	}
	extra := b.extra
	if bar && b.below != nil {
		extra = b.short
	}
	if extra != "" {
		s.WriteString(", " + extra)
	}
	return s.String()
}

// Count writes n with a comma between thousands: 1,754,155.
func Count(n int64) string {
	digits := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// Short writes x with three significant digits: 548k, 1.75M, 12.3.
func Short(x float64) string {
	for _, s := range []struct {
		above float64
		unit  string
	}{{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}} {
		if x >= s.above*0.9995 {
			return three(x/s.above) + s.unit
		}
	}
	return three(x)
}

func three(x float64) string {
	switch {
	case x >= 99.95:
		return strconv.FormatFloat(x, 'f', 0, 64)
	case x >= 9.995:
		return strconv.FormatFloat(x, 'f', 1, 64)
	}
	return strconv.FormatFloat(x, 'f', 2, 64)
}

// Bytes writes n in powers of 1000: 41.2 MB.
func Bytes(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	s := Short(float64(n))
	return s[:len(s)-1] + " " + strings.ToUpper(s[len(s)-1:]) + "B"
}

// Duration writes d as a person says it: 0.31 s, 12.3 s, 4m05s, 3h12m.
func Duration(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.2f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

// sparks are the eighths that Spark draws with.
var sparks = [...]rune{'▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'}

// Spark draws values as a line of small bars between their least and greatest; what is not finite is a gap.
func Spark(xs []float64) string {
	least, most := math.Inf(1), math.Inf(-1)
	finite := func(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
	for _, x := range xs {
		if finite(x) {
			least, most = min(least, x), max(most, x)
		}
	}
	out := make([]rune, len(xs))
	for i, x := range xs {
		switch {
		case !finite(x):
			out[i] = ' '
		case most > least:
			out[i] = sparks[min(int((x-least)/(most-least)*float64(len(sparks))), len(sparks)-1)]
		default:
			out[i] = sparks[0]
		}
	}
	return string(out)
}
