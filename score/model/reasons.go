package model

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
)

// DefaultReasons is how many reasons are given where no number is asked for.
const DefaultReasons = 3

// Reason is what one feature did to a score.
type Reason struct {
	Feature string
	Value   float64 // of this row
	Typical float64 // median of the training rows
	// Contribution is log-odds(row) - log-odds(row with this feature at its typical value): exact in this
	// sense, with every other feature left as it is. Contributions do not add up to the score where
	// features act together.
	Contribution float64
	Words        string // the spec's words with both values filled in
}

// Reasons are the k features of a row that speak most for its score: first those that raise it, the greatest
// first, then those that lower it, the greatest first. Features that change nothing are left out; k < 1 means
// DefaultReasons. The row must be one that Predict accepts. All of it is one batch of F+1 rows.
func (p *Predictor) Reasons(values [][]float64, row int, k int) []Reason {
	if k < 1 {
		k = DefaultReasons
	}
	width := len(p.features)
	x, out := p.reasons.x, p.reasons.out
	for r := range width + 1 {
		for j := range width {
			x[r*width+j] = values[j][row]
		}
		if r > 0 {
			x[r*width+r-1] = p.typical[r-1]
		}
	}
	for from := 0; from < len(out); from += p.tile {
		n := min(p.tile, len(out)-from)
		if err := p.workers[0].forward.Run(x[from*width:(from+n)*width], n, out[from:from+n]); err != nil {
			panic(fmt.Sprintf("model: reasons: %v", err)) // the sizes are ours
		}
	}
	score := logOdds(out[0])
	rs := make([]Reason, 0, width)
	for j := range width {
		c := score - logOdds(out[j+1])
		if !(c != 0) {
			continue
		}
		rs = append(rs, Reason{Feature: p.features[j].Name, Value: values[j][row], Typical: p.typical[j], Contribution: c})
	}
	slices.SortStableFunc(rs, func(a, b Reason) int {
		if (a.Contribution > 0) != (b.Contribution > 0) {
			return cmp.Compare(b.Contribution, a.Contribution)
		}
		return cmp.Compare(math.Abs(b.Contribution), math.Abs(a.Contribution))
	})
	rs = rs[:min(k, len(rs))]
	for i := range rs {
		j := slices.IndexFunc(p.features, func(f features.Feature) bool { return f.Name == rs[i].Feature })
		rs[i].Words = words(&p.features[j], rs[i].Value, rs[i].Typical)
	}
	return rs
}

// logOdds of a probability; certainty counts as the probability next to it, about 36.7 or -745.
func logOdds(p float64) float64 {
	p = min(max(p, math.SmallestNonzeroFloat64), 1-0x1p-53)
	return math.Log(p) - math.Log1p(-p)
}

// words fills "{value}" and "{typical}"; a feature without words speaks by its name, a flag that is down says
// so, and one of a unit is singular ("1 purchase").
func words(f *features.Feature, value, typical float64) string {
	text := f.Words
	if text == "" {
		text = f.Name + " {value} (typical {typical})"
	} else if f.Kind == features.Calendar && value == 0 {
		text = "not " + text
	}
	if one := strings.TrimSuffix(f.Unit, "s"); value == 1 && one != f.Unit {
		text = strings.Replace(text, "{value} "+f.Unit, "{value} "+one, 1)
	}
	return strings.NewReplacer("{value}", format(f.Unit, value), "{typical}", format(f.Unit, typical)).Replace(text)
}

// format writes a number for people by its feature's unit: money with two decimals, a share as percent; any
// other number whole where it is whole, else with three significant digits.
func format(unit string, v float64) string {
	switch unit {
	case "money", datasets.Amount, datasets.UnitPrice:
		return group(strconv.FormatFloat(v, 'f', 2, 64))
	case "percent", "share":
		return plain(v*100) + "%"
	}
	return plain(v)
}

func plain(v float64) string {
	digits := 0
	if a := math.Abs(v); a != math.Trunc(a) && a < 100 {
		digits = 2 - int(math.Floor(math.Log10(a)))
		digits = min(digits, 9)
	}
	s := strconv.FormatFloat(v, 'f', digits, 64)
	if digits > 0 {
		s = strings.TrimRight(strings.TrimRight(s, "0"), ".")
	}
	return group(s)
}

// group puts commas between thousands.
func group(s string) string {
	whole, rest, point := strings.Cut(s, ".")
	sign := ""
	if strings.HasPrefix(whole, "-") {
		sign, whole = "-", whole[1:]
	}
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + "," + whole[i:]
	}
	if point {
		whole += "." + rest
	}
	return sign + whole
}
