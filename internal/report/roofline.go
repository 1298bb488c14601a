package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// Roofline is a drawing of its own (Williams, Waterman & Patterson 2009): operations a second over operations a byte, both
// on logarithmic scales, below what a processor reaches.
type Roofline struct {
	Title string
	// Peak is the greatest rate, in operations a second.
	Peak float64
	// Roofs are bandwidths in bytes a second, each a slope up to Peak.
	Roofs []Roof
	// Points are what was reached. Those of one group have one colour.
	Points []RoofPoint
}

// Roof is a bandwidth and its name.
type Roof struct {
	Name  string
	Bytes float64
}

// RoofPoint is a rate: operations a second at so many operations a byte. Without a Name it has no label.
type RoofPoint struct {
	Name, Group     string
	PerByte, Second float64
}

// Sizes of the drawing, and the ends of its horizontal axis in powers of two.
const (
	roofWidth, roofHeight    = 1000., 680.
	roofLeft, roofRight      = 60., 70.
	roofTop, roofBottom      = 56., 50.
	roofFirst, roofLast      = -4., 9.
	roofLabel, roofLabelStep = 11., 12.
)

// roofColours are those of groups in the order in which they come.
var roofColours = [...]string{"#1f6f8b", "#c8553d", "#6a994e", "#7b5ea7", "#b08900"}

// WriteRoofline writes the drawing as an SVG file that needs nothing else. An error is of w, or says that there is
// nothing to draw.
func WriteRoofline(w io.Writer, r Roofline) error {
	least := math.Inf(1)
	for _, p := range r.Points {
		if p.PerByte > 0 && p.Second > 0 {
			least = min(least, p.Second)
		}
	}
	if !(r.Peak > 0) || math.IsInf(least, 1) {
		return fmt.Errorf("report: roofline %q: it needs a peak and a point above 0", r.Title)
	}
	lo, hi := math.Floor(math.Log10(least)), math.Log10(r.Peak)+.4
	x := func(perByte float64) float64 {
		return roofLeft + (math.Log2(perByte)-roofFirst)/(roofLast-roofFirst)*(roofWidth-roofLeft-roofRight)
	}
	y := func(second float64) float64 {
		return roofHeight - roofBottom - (math.Log10(second)-lo)/(hi-lo)*(roofHeight-roofTop-roofBottom)
	}
	s := newSVG(roofWidth, roofHeight, r.Title)
	s.f(`<style>text{font:12px sans-serif;fill:#333}.g{stroke:#ddd}.r{fill:none;stroke:#555;stroke-width:1.5}.l{font-size:%gpx}</style>`, roofLabel)
	s.f(`<rect width="%s" height="%s" fill="#fff"/>`, n(roofWidth), n(roofHeight))
	s.text(roofLeft, 20, "start", ` font-weight="bold"`, r.Title)
	for e := roofFirst; e <= roofLast; e++ {
		v := math.Exp2(e)
		s.line("g", x(v), roofTop, x(v), roofHeight-roofBottom)
		label := fmt.Sprint(v)
		if e < 0 {
			label = fmt.Sprintf("1/%g", 1/v)
		}
		s.text(x(v), roofHeight-roofBottom+16, "middle", "", label)
	}
	for e := lo; e <= hi; e++ {
		v := math.Pow(10, e)
		s.line("g", roofLeft, y(v), roofWidth-roofRight, y(v))
		s.text(roofLeft-6, y(v)+4, "end", "", fmt.Sprintf("%g", v/1e9))
	}
	s.text(roofWidth/2, roofHeight-12, "middle", "", "operations a byte")
	s.text(roofLeft-50, roofTop-4, "start", "", "GFLOP/s")
	for _, roof := range r.Roofs {
		left, knee := math.Exp2(roofFirst), r.Peak/roof.Bytes
		from := pixel{x(left), y(roof.Bytes * left)}
		s.f(`<path class="r" d="%s"/>`, path([]pixel{from, {x(knee), y(r.Peak)}, {roofWidth - roofRight, y(r.Peak)}}))
		s.text(from.x+4, from.y-6, "start", ` class="l" font-style="italic"`, fmt.Sprintf("%s %.0f GB/s", roof.Name, roof.Bytes/1e9))
	}
	s.text(roofWidth-roofRight, y(r.Peak)-6, "end", ` class="l" font-style="italic"`, fmt.Sprintf("multiply-adds %.0f GFLOP/s", r.Peak/1e9))
	var groups []string
	var taken []box
	for _, p := range r.Points {
		if !(p.PerByte > 0 && p.Second > 0) {
			continue
		}
		if !slices.Contains(groups, p.Group) {
			groups = append(groups, p.Group)
		}
		colour := roofColours[slices.Index(groups, p.Group)%len(roofColours)]
		at := pixel{x(p.PerByte), y(p.Second)}
		s.f(`<circle cx="%s" cy="%s" r="3.2" fill="%s"><title>%s</title></circle>`, n(at.x), n(at.y), colour,
			esc(fmt.Sprintf("%s %s: %.1f GFLOP/s", p.Name, p.Group, p.Second/1e9)))
		if p.Name != "" {
			b := roofPlace(at, textWidth(p.Name)*roofLabel/12, taken)
			taken = append(taken, b)
			s.text(b.x0, b.y1-2, "start", ` class="l"`, p.Name)
		}
	}
	for i, g := range groups {
		at := roofLeft + float64(i)*150
		s.f(`<circle cx="%s" cy="32" r="4" fill="%s"/>`, n(at+4), roofColours[i%len(roofColours)])
		s.text(at+14, 36, "start", "", g)
	}
	_, err := io.WriteString(w, strings.TrimSpace(string(s.done()))+"\n")
	return err
}

// roofPlace is where a label of that width goes: beside its point, or as little above or below as keeps it off the others.
func roofPlace(at pixel, width float64, taken []box) box {
	for i := 0; ; i++ {
		shift := float64((i+1)/2) * roofLabelStep / 2 * float64(1-2*(i%2))
		b := box{at.x + 6, at.y - roofLabelStep/2 + shift, at.x + 6 + width, at.y + roofLabelStep/2 + shift}
		if !slices.ContainsFunc(taken, b.overlaps) || i > 60 {
			return b
		}
	}
}
