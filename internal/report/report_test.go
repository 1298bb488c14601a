package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/onmart/onmart/internal/testkit"
)

// sample has every part a page can have.
func sample() *Page {
	roc := func(a float64) (ps []Point) {
		for i := 0; i <= 40; i++ {
			x := math.Pow(float64(i)/40, 2)
			ps = append(ps, Point{X: x, Y: math.Pow(x, a)})
		}
		return ps
	}
	pr := func(a float64) (ps []Point) {
		for i := 1; i <= 40; i++ {
			x := float64(i) / 40
			ps = append(ps, Point{X: x, Y: 1 - math.Pow(x, a)*0.98})
		}
		return ps
	}
	var days, reliability []Point
	for i := range 7 {
		v := []float64{.31, .27, .3, .24, .33, .29, .28}[i]
		days = append(days, Point{X: 1533686400e6 + float64(i)*day, Y: v, Note: fmt.Sprintf("%.2f", v)})
	}
	for i := range 10 {
		x := (float64(i) + .5) / 10
		y := x*.9 + .03*math.Sin(float64(7*i))
		reliability = append(reliability, Point{X: x, Y: y, Low: y - .02*float64(1+i%4), High: y + .02*float64(1+i%5), Note: fmt.Sprintf("%d rows", 1000>>i)})
	}
	var edges, pass, fraud []float64
	for i := range 21 {
		edges = append(edges, float64(i)/20)
	}
	for i := range 20 {
		pass = append(pass, math.Round(60000*math.Exp(-float64(i)*.8)))
		fraud = append(fraud, float64(20+(i*37)%60))
	}
	diagonal := Series{Name: "perfect", Points: []Point{{X: 0, Y: 0}, {X: 1, Y: 1}}, Muted: true}
	unit := Axis{Max: 1}
	x := func(label string) Axis { a := unit; a.Label = label; return a }
	return &Page{
		Title: "Fraud model 3f2a91bc07de", Intro: "How well the model ranks and prices the risk of transactions it has not seen.",
		Facts: []Fact{{"Test range", "2018-08-08..2018-08-14"}, {"Transactions", "58,264"}, {"Frauds", "385"}, {"Trained on", "2018-07-25..2018-07-31, delay 7d"}},
		Cards: []Card{{"Average precision", "0.679", "best baseline 0.612", Good}, {"AUC", "0.876", "best baseline 0.871", Plain},
			{"Card precision@100", "0.291", "best baseline 0.293", Bad}, {"Alerts a day", "98.3", "budget 100", Plain}},
		Sections: Sections{
			{Heading: "Beside the baselines", Text: []string{"All were trained on the same rows. <script>alert(1)</script>"},
				Tables: []Table{{Caption: "Test range", Columns: []Column{{Name: "model", Text: true}, {Name: "AUC"}, {Name: "average precision"}, {Name: "card precision@100"}, {Name: "log loss"}},
					Rows: []Row{{[]string{"onmart MLP", "0.8762", "0.6790", "0.2910", "0.0213"}, true}, {[]string{"logistic regression", "0.8710", "0.6120", "0.2930", "0.0251"}, false},
						{[]string{"decision tree", "0.8010", "0.5120", "0.2530", "0.0351"}, false}}}},
				Charts: []Chart{Bars{Title: "Average precision", Caption: "Higher is better.", Axis: Axis{Max: 1},
					Bars: []Bar{{"onmart MLP", .679, "0.679", true}, {"logistic regression", .612, "0.612", false}, {"decision tree of the golearn library", .512, "0.512", false}}}}},
			{Heading: "Curves", Charts: []Chart{
				Line{Title: "ROC", Caption: "Share of frauds found against share of good transactions flagged.", X: x("false positive rate"), Y: x("true positive rate"),
					Series: []Series{{Name: "onmart MLP, AUC 0.876", Points: roc(.15)}, {Name: "logistic regression", Points: roc(.2)}, {Name: "guessing", Points: diagonal.Points, Muted: true}}},
				Line{Title: "Precision and recall", Caption: "Of the alerts, how many are frauds.", X: x("recall"), Y: x("precision"),
					Series: []Series{{Name: "onmart MLP", Points: pr(3)}}},
				Line{Title: "Reliability", Caption: "The band is a 95% interval.", X: x("predicted probability"), Y: x("observed share"),
					Series: []Series{{Name: "onmart MLP", Points: reliability, Markers: true, Band: true}, diagonal}},
				Histogram{Title: "Scores", Caption: "Logarithmic counts.", X: x("score"), Y: Axis{Label: "transactions", Unit: Count, Log: true}, Edges: edges,
					Series: []Counts{{"good", pass}, {"fraud", fraud}}},
				Line{Title: "Card precision by day", Caption: "Of the 100 cards with the highest scores, how many were compromised.", X: Axis{Unit: Date}, Y: Axis{Label: "card precision@100", Unit: Percent}, Wide: true,
					Series: []Series{{Name: "onmart MLP", Points: days, Markers: true}}, Rules: []Rule{{.289, "mean 0.289"}}},
			}, Notes: []string{"Known compromised cards are left out."}},
			{Heading: "Alerts", Tables: []Table{{Caption: "The highest.", Columns: []Column{{Name: "card"}, {Name: "why", Text: true, Prose: true}, {Name: "truth", Text: true}},
				Rows: []Row{{[]string{"1093", "amount 623.88 (typical 20.00)\nat night <b>", "stolen card"}, false}}}}},
		},
		Footer: "Made by onmart.",
	}
}

func render(t testing.TB, p *Page) string {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, p); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestGolden(t *testing.T) {
	got := render(t, sample())
	if got != render(t, sample()) {
		t.Error("equal pages give other bytes")
	}
	testkit.Golden(t, "report.html", []byte(got))
}

// TestSelfContained: no scripts, nothing fetched, and text cannot become markup.
func TestSelfContained(t *testing.T) {
	p := sample()
	evil := `<img src=x onerror=alert(1)>"'&`
	p.Title, p.Sections[0].Heading = evil, evil
	p.Sections[1].Charts = append(p.Sections[1].Charts,
		Line{Title: evil, Caption: evil, X: Axis{Label: evil}, Y: Axis{Label: evil}, Series: []Series{{Name: evil, Points: []Point{{X: 1, Y: 2, Note: evil}}}}, Rules: []Rule{{1, evil}}},
		Bars{Title: evil, Bars: []Bar{{evil, 1, evil, true}}},
		Histogram{Title: evil, Edges: []float64{0, 1}, Series: []Counts{{evil, []float64{3}}}})
	got := render(t, p)
	for _, bad := range []string{"<script", "<img", "src=x onerror", "http:", "https:", "url(", "@import"} {
		if s := strings.ReplaceAll(got, `http://www.w3.org/2000/svg`, ""); strings.Contains(s, bad) && bad != "src=x onerror" {
			t.Errorf("the page contains %q", bad)
		}
	}
	for _, svg := range drawings(got) {
		if err := wellFormed(svg); err != nil {
			t.Errorf("%v in %.200s", err, svg)
		}
	}
}

// TestProse: a column of prose makes its table stack, and each line of its cells is an element of its own, escaped.
func TestProse(t *testing.T) {
	got := render(t, sample())
	for _, want := range []string{`<table class="stack">`, `<td class="text prose" data-name="why"><div>amount 623.88 (typical 20.00)</div><div>at night &lt;b&gt;</div></td>`, `<td data-name="card">1093</td>`} {
		if !strings.Contains(got, want) {
			t.Errorf("the page has no %s", want)
		}
	}
	if n := strings.Count(got, `<table class="stack">`); n != 1 {
		t.Errorf("%d tables stack, want the one with prose", n)
	}
}

// TestBarLabelsFit: labels of bars lie within the drawing, measured with the widths of bold DejaVu Sans, which is
// among the widest of the fonts that pages are shown in.
func TestBarLabelsFit(t *testing.T) {
	// Widths in thousandths of an em, from the font's own table.
	wide := map[rune]float64{'c': 593, 'o': 687, 'm': 1042, 'p': 716, 'r': 493, 'i': 343, 's': 595, 'e': 678, 'd': 716, ' ': 348, 't': 478}
	for _, label := range []string{"compromised store", "mmmmmm", "timid misters"} {
		width := 0.0
		for _, r := range label {
			width += wide[r] * 12 / 1000
		}
		if got := boldWidth(label); got < width {
			t.Errorf("%q is taken to be %.0f wide and is %.0f", label, got, width)
		}
	}
}

func drawings(page string) (out []string) {
	for {
		i := strings.Index(page, "<svg")
		if i < 0 {
			return out
		}
		j := strings.Index(page, "</svg>") + len("</svg>")
		out, page = append(out, page[i:j]), page[j:]
	}
}

func wellFormed(s string) error {
	d := xml.NewDecoder(strings.NewReader(s))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// TestOddData: charts of nothing, of one point, of equal and of non-finite values are drawn without NaN.
func TestOddData(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	for name, points := range map[string][]Point{
		"none": nil, "one": {{X: 3, Y: 4}}, "equal": {{X: 1, Y: 1}, {X: 1, Y: 1}}, "zero": {{}, {}},
		"not finite": {{X: nan, Y: 1}, {X: 1, Y: inf}, {X: 2, Y: 2, Low: nan, High: inf}, {X: 3, Y: 1}}, "undefined": {{X: nan, Y: nan}},
		"huge": {{X: -1e300, Y: 1e-300}, {X: 1e300, Y: 1e300}}, "negative": {{X: -5, Y: -7}, {X: -4, Y: -6.5}},
	} {
		for _, u := range []Unit{Number, Percent, Count, Date} {
			if u == Date && name == "huge" {
				continue // no time is that far
			}
			for _, log := range []bool{false, true} {
				l := Line{Title: name, X: Axis{Unit: u}, Y: Axis{Unit: u, Log: log}, Series: []Series{{Name: "a", Points: points, Markers: true, Band: true, Steps: log}}}
				s := string(l.figure().SVG + l.figure().Narrow)
				if strings.Contains(s, "NaN") || strings.Contains(s, "Inf") {
					t.Errorf("%s, unit %d: %s", name, u, s)
				}
				if err := wellFormed("<p>" + s + "</p>"); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
	}
	for _, c := range []Chart{Bars{}, Bars{Bars: []Bar{{"a", nan, "none", false}, {"b", -2, "-2", true}}}, Histogram{}, Histogram{Edges: []float64{0, 1, 2}, Series: []Counts{{"x", []float64{nan, -1}}}}} {
		if s := string(c.figure().SVG); strings.Contains(s, "NaN") {
			t.Errorf("%T: %s", c, s)
		}
	}
}

func TestTicks(t *testing.T) {
	for _, c := range []struct {
		axis   Axis
		values []float64
		want   string
	}{
		{Axis{Max: 1}, nil, "0.0 0.2 0.4 0.6 0.8 1.0"},
		{Axis{Unit: Percent}, []float64{.24, .33}, "24% 26% 28% 30% 32% 34%"},
		{Axis{Unit: Percent}, []float64{.1, .33}, "0% 10% 20% 30% 40%"},
		{Axis{Unit: Count}, []float64{0, 3}, "0 1 2 3"},
		{Axis{Unit: Count}, []float64{0, 123456}, "0 25k 50k 75k 100k 125k"},
		{Axis{Unit: Count, Log: true}, []float64{0, 45000}, "1 10 100 1k 10k 100k"},
		{Axis{Unit: Date}, []float64{1533686400e6, 1533686400e6 + 6*day}, "Aug 8 Aug 10 Aug 12 Aug 14"},
		{Axis{Unit: Date}, []float64{1533686400e6, 1533686400e6 + day}, "Aug 8 06:00 12:00 18:00 Aug 9"},
		{Axis{}, []float64{-3.2, 4.1}, "-4 -2 0 2 4 6"},
		{Axis{}, []float64{0.00012, 0.00044}, "0.0000 0.0001 0.0002 0.0003 0.0004 0.0005"},
	} {
		s := c.axis.fit(c.values, 0, 100, 5)
		var got []string
		for _, v := range s.ticks {
			got = append(got, s.label(v))
		}
		if g := strings.Join(got, " "); g != c.want {
			t.Errorf("%+v of %v: %s, want %s", c.axis, c.values, g, c.want)
		}
	}
}

// TestNamesKeepApart: labels of curves that end together lie inside the plot and on no other label.
func TestNamesKeepApart(t *testing.T) {
	p := newPlot("t", normalWidth, Axis{Max: 1}, Axis{Max: 1}, nil, nil)
	for i := range 5 {
		c := p.curve(Series{Points: []Point{{X: 0, Y: 0}, {X: .2 + .1*float64(i), Y: .8}, {X: 1, Y: 1}}})
		p.drawn = append(p.drawn, dense(c)...)
		p.name("a curve's name", "red", c)
	}
	for i, a := range p.taken {
		if a.x0 < p.bounds.x0 || a.x1 > p.bounds.x1+1 || a.y0 < p.bounds.y0-1 || a.y1 > p.bounds.y1 {
			t.Errorf("label %d leaves the plot: %+v of %+v", i, a, p.bounds)
		}
		for _, b := range p.taken[:i] {
			if a.overlaps(b) {
				t.Errorf("labels %+v and %+v overlap", a, b)
			}
		}
	}
}
