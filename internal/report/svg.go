package report

import (
	"fmt"
	"html"
	"html/template"
	"math"
	"strconv"
	"strings"
	"time"
)

// svg collects one drawing. Lengths are SVG units; a chart of normal width is shown at about one to one.
type svg struct {
	strings.Builder
}

func newSVG(width, height float64, label string) *svg {
	s := &svg{}
	s.f(`<svg viewBox="0 0 %s %s" role="img" aria-label="%s" xmlns="http://www.w3.org/2000/svg">`, n(width), n(height), esc(label))
	return s
}

func (s *svg) f(format string, args ...any) { fmt.Fprintf(&s.Builder, format+"\n", args...) }

func (s *svg) done() template.HTML {
	s.WriteString("</svg>")
	return template.HTML(s.String())
}

func (s *svg) line(class string, x1, y1, x2, y2 float64) {
	s.f(`<line class="%s" x1="%s" y1="%s" x2="%s" y2="%s"/>`, class, n(x1), n(y1), n(x2), n(y2))
}

// text at a baseline; anchor is start, middle or end.
func (s *svg) text(x, y float64, anchor, attrs, text string) {
	s.f(`<text x="%s" y="%s" text-anchor="%s"%s>%s</text>`, n(x), n(y), anchor, attrs, esc(text))
}

func esc(s string) string { return html.EscapeString(s) }

// n is a coordinate to a tenth.
func n(x float64) string {
	return strconv.FormatFloat(math.Round(x*10)/10+0, 'f', -1, 64)
}

func path(ps []pixel) string {
	var b strings.Builder
	for i, p := range ps {
		b.WriteByte("ML"[min(i, 1)])
		b.WriteString(n(p.x) + " " + n(p.y))
	}
	return b.String()
}

type pixel struct{ x, y float64 }

// Unit says how an axis writes its numbers.
type Unit uint8

const (
	Number  Unit = iota
	Percent      // 0.25 is 25 %
	Count        // whole numbers, 1.5k from a thousand on
	Date         // microseconds since 1970 UTC
)

// Axis describes one direction of a chart.
type Axis struct {
	Label string
	Unit  Unit
	// Min and Max fix the ends; where both are zero the data does, and zero belongs to an axis that is no
	// date if the data comes near it.
	Min, Max float64
	Log      bool // decades; values below 1 lie on the axis
}

const day = 24 * 3600e6 // microseconds

// scale maps values to pixels.
type scale struct {
	Axis
	lo, hi   float64 // values at the ends
	from, to float64 // pixels at the ends
	ticks    []float64
	step     float64
}

// fit makes a scale over the values with about want ticks.
func (a Axis) fit(values []float64, from, to float64, want int) *scale {
	s := &scale{Axis: a, from: from, to: to}
	lo, hi := math.Inf(1), math.Inf(-1)
	for _, v := range values {
		if finite(v) {
			lo, hi = min(lo, v), max(hi, v)
		}
	}
	if lo > hi {
		lo, hi = 0, 1
	}
	fixed := a.Min != 0 || a.Max != 0
	switch {
	case a.Log:
		s.lo, s.hi = 0, max(1, math.Ceil(math.Log10(max(hi, 1))))
		step := math.Ceil((s.hi + 1) / float64(want+2))
		for v := 0.0; v <= s.hi; v += step {
			s.ticks = append(s.ticks, math.Pow(10, v))
		}
		return s
	case fixed:
		lo, hi = a.Min, a.Max
	case a.Unit != Date:
		if lo > 0 && lo < hi*0.6 {
			lo = 0
		}
		if hi < 0 && hi > lo*0.6 {
			hi = 0
		}
	}
	if lo == hi {
		pad := max(math.Abs(lo)*0.05, 0.5)
		if a.Unit == Date {
			pad = day / 2
		}
		if lo, hi = lo-pad, hi+pad; a.Unit == Count {
			lo = max(lo, 0)
		}
	}
	s.step = a.nice((hi - lo) / float64(want))
	if !fixed && a.Unit != Date {
		lo, hi = math.Floor(lo/s.step+1e-9)*s.step, math.Ceil(hi/s.step-1e-9)*s.step
	}
	s.lo, s.hi = lo, hi
	first := math.Ceil(lo/s.step-1e-9) * s.step
	if a.Unit == Date && s.step > day {
		first = math.Ceil(lo/day-1e-9) * day // a step of two days has no phase of its own
	}
	for k := 0.0; first+k*s.step <= hi+s.step*1e-9; k++ {
		s.ticks = append(s.ticks, first+k*s.step+0)
	}
	return s
}

// nice is the smallest round step of at least x.
func (a Axis) nice(x float64) float64 {
	if a.Unit == Date {
		const hour = day / 24
		for _, h := range []float64{1, 3, 6, 12, 24, 48, 24 * 7, 24 * 14, 24 * 28} {
			if h*hour >= x {
				return h * hour
			}
		}
		return math.Ceil(x/(24*28*hour)) * 24 * 28 * hour
	}
	p := math.Pow(10, math.Floor(math.Log10(x)))
	for _, m := range []float64{1, 2, 2.5, 5, 10} {
		if m == 2.5 && a.Unit == Count && p < 10 {
			continue
		}
		if m*p >= x*(1-1e-9) {
			x = m * p
			break
		}
	}
	if a.Unit == Count {
		x = max(x, 1)
	}
	return x
}

// at is the pixel of a value; values beyond the ends lie on them.
func (s *scale) at(v float64) float64 {
	if s.Log {
		v = math.Log10(max(v, 1))
	}
	v = min(max(v, s.lo), s.hi)
	return s.from + (v-s.lo)/(s.hi-s.lo)*(s.to-s.from)
}

// label writes a tick.
func (s *scale) label(v float64) string {
	switch s.Unit {
	case Percent:
		return trim(v*100, s.step*100) + "%"
	case Count:
		return short(v)
	case Date:
		t := time.UnixMicro(int64(v)).UTC()
		if s.step < day && (t.Hour() != 0 || t.Minute() != 0) {
			return t.Format("15:04")
		}
		return t.Format("Jan 2")
	}
	if s.Log {
		return short(v)
	}
	return trim(v, s.step)
}

// trim writes v with the digits that a step needs.
func trim(v, step float64) string {
	digits := 0
	for d := step; digits < 9 && math.Abs(d-math.Round(d)) > 1e-6*d; d *= 10 {
		digits++
	}
	t := strconv.FormatFloat(v, 'f', digits, 64)
	if strings.Trim(t, "-0.") == "" {
		t = strings.TrimPrefix(t, "-")
	}
	return t
}

// short writes 1500 as 1.5k.
func short(v float64) string {
	a := math.Abs(v)
	switch {
	case a >= 1e9:
		return strconv.FormatFloat(v/1e9, 'g', 3, 64) + "G"
	case a >= 1e6:
		return strconv.FormatFloat(v/1e6, 'g', 3, 64) + "M"
	case a >= 1e3:
		return strconv.FormatFloat(v/1e3, 'f', -1, 64) + "k"
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

func finite(v float64) bool { return v-v == 0 }

// textWidth estimates the width of 12 px text: browsers' fonts differ, so it is on the wide side.
func textWidth(s string) float64 {
	w := 0.0
	for _, r := range s {
		switch {
		case strings.ContainsRune("iljtfr.,:;'|!() ", r):
			w += 4.4
		case strings.ContainsRune("mwMW@%", r):
			w += 11.7
		case r >= 'A' && r <= 'Z':
			w += 8.3
		default:
			w += 7.2
		}
	}
	return w
}

// boldWidth is textWidth of bold text.
func boldWidth(s string) float64 { return 1.15 * textWidth(s) }
