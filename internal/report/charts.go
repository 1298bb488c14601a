package report

import (
	"fmt"
	"html/template"
	"math"
)

// Point is one point of a series.
type Point struct {
	X, Y float64
	// Low and High bound a band around the series where Series.Band is set.
	Low, High float64
	// Note is shown when the pointer rests on the point's marker.
	Note string
}

// Series is one curve. Curves take the page's colours in turn; a Muted one is grey and dashed.
type Series struct {
	Name    string // written beside the curve
	Points  []Point
	Markers bool // a dot at each point
	Dots    bool // dots only, with no curve through them
	Steps   bool // level until the next point
	Band    bool
	Muted   bool
}

// Rule is a horizontal line across a chart, such as a mean.
type Rule struct {
	Y     float64
	Label string
}

// Line draws curves over common axes.
type Line struct {
	Title   string
	Caption string
	X, Y    Axis
	Series  []Series
	Rules   []Rule
	Wide    bool // the whole width of the page
}

// Bars draws one horizontal bar a row, each with its value at its end.
type Bars struct {
	Title   string
	Caption string
	Axis    Axis
	Bars    []Bar
	Wide    bool
}

// Bar is one row of Bars.
type Bar struct {
	Label string
	Value float64
	Text  string // shown at the end
	Lead  bool   // the one the chart is about
}

// Histogram draws counts over the bins that Edges bound: Counts has one value less than Edges. Several
// series share the bins, side by side.
type Histogram struct {
	Title   string
	Caption string
	X, Y    Axis
	Edges   []float64
	Series  []Counts
	Wide    bool
}

// Counts is one series of a Histogram.
type Counts struct {
	Name   string
	Counts []float64
}

const (
	// A phone's page is 330 units wide, so that text keeps its size there.
	narrowWidth, normalWidth, wideWidth = 330.0, 460.0, 960.0
	plotHeight                          = 300.0
	textHeight                          = 12.0
	colours                             = 6
)

// plot is the frame that Line and Histogram share.
type plot struct {
	*svg
	x, y   *scale
	taken  []box // labels placed so far
	drawn  []pixel
	bounds box
}

type box struct{ x0, y0, x1, y1 float64 }

func (b box) overlaps(c box) bool { return b.x0 < c.x1 && c.x0 < b.x1 && b.y0 < c.y1 && c.y0 < b.y1 }

func (b box) holds(p pixel) bool { return p.x > b.x0 && p.x < b.x1 && p.y > b.y0 && p.y < b.y1 }

func newPlot(title string, w float64, xa, ya Axis, xs, ys []float64) *plot {
	const h = plotHeight
	ticks := 4
	if w >= normalWidth {
		ticks = int(w / 92)
	}
	const top, bottom, right = 26.0, 44.0, 16.0
	y := ya.fit(ys, h-bottom, top, 5)
	left := 0.0
	for _, t := range y.ticks {
		left = max(left, textWidth(y.label(t)))
	}
	left += 12
	x := xa.fit(xs, left, w-right, ticks)
	p := &plot{svg: newSVG(w, h, title), x: x, y: y, bounds: box{left, top - 4, w - right, h - bottom}}
	for _, t := range y.ticks {
		v := y.at(t)
		p.line("grid", left, v, w-right, v)
		p.text(left-7, v+4, "end", "", y.label(t))
	}
	p.line("axis", left, h-bottom, w-right, h-bottom)
	last := math.Inf(-1)
	for _, t := range x.ticks {
		v, label := x.at(t), x.label(t)
		p.line("axis", v, h-bottom, v, h-bottom+4)
		half := textWidth(label) / 2
		if at := min(max(v, half), w-half); at-half > last {
			p.text(at, h-bottom+18, "middle", "", label)
			last = at + half + 6
		}
	}
	p.text(0, 12, "start", "", ya.Label)
	p.text(w-right, h-5, "end", "", xa.Label)
	return p
}

func (l Line) figure() figure { return figureOf(l.Title, l.Caption, l.Wide, l.draw) }

func (l Line) draw(width float64) template.HTML {
	var xs, ys []float64
	for _, s := range l.Series {
		for _, p := range s.Points {
			xs, ys = append(xs, p.X), append(ys, p.Y)
			if s.Band {
				ys = append(ys, p.Low, p.High)
			}
		}
	}
	for _, r := range l.Rules {
		ys = append(ys, r.Y)
	}
	p := newPlot(l.Title, width, l.X, l.Y, xs, ys)
	curves := make([][]pixel, len(l.Series))
	colour := make([]string, len(l.Series))
	next := 0
	for i, s := range l.Series {
		colour[i] = "var(--muted)"
		if !s.Muted {
			colour[i] = fmt.Sprintf("var(--c%d)", next%colours)
			next++
		}
		curves[i] = p.curve(s)
		if s.Dots {
			p.drawn = append(p.drawn, curves[i]...)
		} else {
			p.drawn = append(p.drawn, dense(curves[i])...)
		}
	}
	for _, r := range l.Rules {
		v := p.y.at(r.Y)
		p.line("rule", p.bounds.x0, v, p.bounds.x1, v)
		p.drawn = append(p.drawn, dense([]pixel{{p.bounds.x0, v}, {p.bounds.x1, v}})...)
	}
	// Grey first, the leading series last and so on top.
	for _, muted := range []bool{true, false} {
		for i := len(l.Series) - 1; i >= 0; i-- {
			if l.Series[i].Muted == muted {
				p.draw(l.Series[i], curves[i], colour[i])
			}
		}
	}
	for i, s := range l.Series {
		p.name(s.Name, colour[i], curves[i])
	}
	for _, r := range l.Rules {
		v := p.y.at(r.Y)
		p.name(r.Label, "var(--soft)", []pixel{{p.bounds.x1, v}, {p.bounds.x0, v}})
	}
	return p.done()
}

// curve is a series in pixels.
func (p *plot) curve(s Series) []pixel {
	var ps []pixel
	for _, q := range s.Points {
		if !finite(q.X) || !finite(q.Y) {
			continue
		}
		at := pixel{p.x.at(q.X), p.y.at(q.Y)}
		if s.Steps && !s.Dots && len(ps) > 0 {
			ps = append(ps, pixel{at.x, ps[len(ps)-1].y})
		}
		ps = append(ps, at)
	}
	return ps
}

func (p *plot) draw(s Series, ps []pixel, colour string) {
	if s.Band {
		var edge []pixel
		for _, q := range s.Points {
			if q.banded() {
				edge = append(edge, pixel{p.x.at(q.X), p.y.at(q.High)})
			}
		}
		for i := len(s.Points) - 1; i >= 0; i-- {
			if q := s.Points[i]; q.banded() {
				edge = append(edge, pixel{p.x.at(q.X), p.y.at(q.Low)})
			}
		}
		if len(edge) > 2 {
			p.f(`<path d="%sZ" style="fill:%s;opacity:.16"/>`, path(edge), colour)
		}
	}
	if len(ps) > 1 && !s.Dots {
		class := "curve"
		if s.Muted {
			class += " dash"
		}
		p.f(`<path class="%s" d="%s" style="stroke:%s"/>`, class, path(ps), colour)
	}
	if !s.Markers && !s.Dots && len(ps) > 1 {
		return
	}
	for _, q := range s.Points {
		if finite(q.X) && finite(q.Y) {
			p.f(`<circle cx="%s" cy="%s" r="3.5" style="fill:%s"><title>%s</title></circle>`, n(p.x.at(q.X)), n(p.y.at(q.Y)), colour, esc(q.Note))
		}
	}
}

func (p Point) banded() bool { return finite(p.X) && finite(p.Low) && finite(p.High) }

// dense is points along a curve, three units apart.
func dense(ps []pixel) []pixel {
	var out []pixel
	for i := 1; i < len(ps); i++ {
		a, b := ps[i-1], ps[i]
		k := math.Ceil(math.Hypot(b.x-a.x, b.y-a.y)/3) + 1
		for j := 0.0; j < k; j++ {
			out = append(out, pixel{a.x + (b.x-a.x)*j/k, a.y + (b.y-a.y)*j/k})
		}
	}
	return append(out, ps[max(len(ps)-1, 0):]...)
}

// name writes a label beside a curve, where it covers no other label, least of the curves, and is nearer to
// its own curve than to others. Of equally good places it takes the one nearest to the curve's end.
func (p *plot) name(label, colour string, ps []pixel) {
	if label == "" || len(ps) == 0 {
		return
	}
	along := dense(ps)
	w := boldWidth(label)
	own := map[pixel]bool{}
	for _, q := range along {
		own[q] = true
	}
	best, cost := box{}, math.Inf(1)
	for i := len(along) - 1; i >= 0; i -= 2 {
		a := along[i]
		for _, d := range [...]pixel{{6, -6}, {-w - 6, -6}, {6, textHeight + 6}, {-w - 6, textHeight + 6}, {-w / 2, -8}, {-w / 2, textHeight + 8}, {8, 4}} {
			b := box{a.x + d.x, a.y + d.y - textHeight, a.x + d.x + w, a.y + d.y + 2}
			c := p.cost(b, own) + 3*float64(len(along)-1-i)/float64(len(along))
			if c < cost {
				best, cost = b, c
			}
		}
	}
	p.taken = append(p.taken, best)
	p.text(best.x0, best.y1-3, "start", fmt.Sprintf(` class="name" style="fill:%s"`, colour), label)
}

// cost of a label's place: leaving the plot and covering labels weigh most, then covering curves.
func (p *plot) cost(b box, own map[pixel]bool) float64 {
	c := 0.0
	c += 20 * (max(0, p.bounds.x0+4-b.x0) + max(0, b.x1-p.bounds.x1) + max(0, p.bounds.y0-b.y0) + max(0, b.y1-p.bounds.y1+2))
	for _, t := range p.taken {
		if b.overlaps(t) {
			c += 500
		}
	}
	const near = 15
	around := box{b.x0 - near, b.y0 - near, b.x1 + near, b.y1 + near}
	for _, q := range p.drawn {
		switch {
		case b.holds(q):
			c += 4
		case around.holds(q) && !own[q]:
			c++
		}
	}
	return c
}

func (h Histogram) figure() figure { return figureOf(h.Title, h.Caption, h.Wide, h.draw) }

func (h Histogram) draw(width float64) template.HTML {
	ys := []float64{0}
	for _, s := range h.Series {
		ys = append(ys, s.Counts...)
	}
	p := newPlot(h.Title, width, h.X, h.Y, h.Edges, ys)
	base := p.y.from
	for k, s := range h.Series {
		for i, c := range s.Counts {
			if i+1 >= len(h.Edges) || !(c > 0) {
				continue
			}
			x0, x1 := p.x.at(h.Edges[i]), p.x.at(h.Edges[i+1])
			gap := min(1, (x1-x0)/8)
			each := (x1 - x0 - 2*gap) / float64(len(h.Series))
			x := x0 + gap + each*float64(k)
			y := min(p.y.at(c), base-1.5) // a bin that holds anything is seen, also on a log axis
			p.f(`<rect x="%s" y="%s" width="%s" height="%s" style="fill:var(--c%d);opacity:.85"><title>%s</title></rect>`,
				n(x), n(y), n(max(each, .5)), n(base-y), k%colours,
				esc(fmt.Sprintf("%s %s to %s: %s", s.Name, p.x.label(h.Edges[i]), p.x.label(h.Edges[i+1]), short(c))))
		}
	}
	// Bars fill the plot, so their names stand above it.
	at := p.bounds.x1
	for k := len(h.Series) - 1; k >= 0; k-- {
		p.text(at, 12, "end", fmt.Sprintf(` class="name" style="fill:var(--c%d)"`, k%colours), h.Series[k].Name)
		at -= boldWidth(h.Series[k].Name) + 14
	}
	return p.done()
}

func (b Bars) figure() figure { return figureOf(b.Title, b.Caption, b.Wide, b.draw) }

func (b Bars) draw(w float64) template.HTML {
	const thick = 18.0
	left, right := 0.0, 0.0
	values := []float64{0}
	for _, r := range b.Bars {
		width := textWidth
		if r.Lead {
			width = boldWidth
		}
		left, right = max(left, width(r.Label)+12), max(right, width(r.Text))
		values = append(values, r.Value)
	}
	// Long labels stand above their bars, so that bars keep most of the width.
	row, above := 30.0, left > w*0.45
	if above {
		row, left = 46, 2
	}
	h := row*float64(len(b.Bars)) + 10
	if b.Axis.Label != "" {
		h += 18
	}
	s := newSVG(w, h, b.Title)
	x := b.Axis.fit(values, left, w-right-14, 4)
	zero := x.at(min(max(0, x.lo), x.hi))
	for i, r := range b.Bars {
		mid := row*float64(i) + row/2 + 4
		if above {
			mid = row*float64(i) + 34
			s.text(left+4, mid-thick/2-6, "start", ` class="val"`+bold(r.Lead), r.Label)
		} else {
			s.text(left-8, mid+4, "end", ` class="val"`+bold(r.Lead), r.Label)
		}
		colour := "var(--muted)"
		if r.Lead {
			colour = "var(--c0)"
		}
		end := zero
		if finite(r.Value) {
			end = x.at(r.Value)
		}
		s.f(`<rect x="%s" y="%s" width="%s" height="%s" rx="2" style="fill:%s"><title>%s</title></rect>`,
			n(min(zero, end)), n(mid-thick/2), n(max(math.Abs(end-zero), 1)), n(thick), colour, esc(r.Label+": "+r.Text))
		s.text(max(end, zero)+6, mid+4, "start", ` class="val"`+bold(r.Lead), r.Text)
	}
	s.line("axis", zero, 4, zero, row*float64(len(b.Bars))+6)
	if b.Axis.Label != "" {
		s.text(zero, h-4, "start", "", b.Axis.Label)
	}
	return s.done()
}

// figureOf draws a chart for a page and for a phone; the style shows the one that fits.
func figureOf(title, caption string, wide bool, draw func(width float64) template.HTML) figure {
	w := normalWidth
	if wide {
		w = wideWidth
	}
	return figure{title, caption, wide, draw(w), draw(narrowWidth)}
}

func bold(b bool) string {
	if b {
		return ` font-weight="650"`
	}
	return ""
}
