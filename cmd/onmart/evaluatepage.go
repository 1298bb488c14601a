package main

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/onmart/onmart/internal/progress"
	"github.com/onmart/onmart/internal/report"
	"github.com/onmart/onmart/train"
)

// page is the report of an evaluation.
func (e *evaluated) page() *report.Page {
	m := e.artifact.Manifest()
	return &report.Page{
		Title: "Fraud model " + e.Model,
		Intro: "How well the model finds frauds among the transactions of " + strings.Replace(e.Range.String(), "..", " to ", 1) + ".",
		Facts: []report.Fact{
			{Name: "Transactions", Value: progress.Count(int64(e.ev.Rows))},
			{Name: "Frauds", Value: fmt.Sprintf("%s (%.2f%%)", progress.Count(int64(e.ev.Positives)), 100*float64(e.ev.Positives)/float64(max(e.ev.Rows, 1)))},
			{Name: "Left out: cards known to be compromised", Value: progress.Count(int64(e.ev.ExcludedKnown))},
			{Name: "Trained on", Value: m.Lineage.Train.String()},
			{Name: "A fraud is known after", Value: text(e.Delay)},
			{Name: "Features", Value: strconv.Itoa(len(m.Features))},
			{Name: "Seed", Value: strconv.FormatUint(m.Seed, 10)},
		},
		Cards:    e.cards(),
		Sections: append(e.sections(), e.history...),
		Footer: fmt.Sprintf("onmart %s. Model %s, trained by onmart %s on %s at %s, data %s. Evaluated data %s.",
			buildVersion(), e.Model, m.Created.Onmart, m.Created.Backend, m.Created.Time, m.Lineage.Data, e.Data),
	}
}

// cards are the figures that matter most, each beside the best baseline.
func (e *evaluated) cards() []report.Card {
	var cards []report.Card
	for _, f := range figures[:rankings] {
		v := e.value(f.key)
		c := report.Card{Label: upper(f.name), Value: cell(v, true)}
		if b := e.best(f.key); b != nil {
			c.Note = "best baseline " + cell(b.Metrics[f.key], true)
			switch rival := b.Metrics[f.key]; {
			case v > rival:
				c.Tone = report.Good
			case !(v >= rival):
				c.Tone, c.Note = report.Bad, "less than "+b.Name+", "+cell(rival, true)
			}
		}
		if f.key == "card_precision_at_100" {
			c.Note = strings.TrimPrefix(c.Note+"; ", "; ") + "at most " + cell(e.ceiling(), true) + " possible"
		}
		cards = append(cards, c)
	}
	a := e.ev.Alerts
	return append(cards,
		report.Card{Label: "Alerts a day", Value: fmt.Sprintf("%.1f", a.PerDay), Note: fmt.Sprintf("budget %g", a.Budget)},
		report.Card{Label: "Frauds among alerts", Value: percent(a.Precision), Note: "precision"},
		report.Card{Label: "Frauds found", Value: percent(a.Recall), Note: "recall, by transaction"})
}

// ceiling is the card precision@100 of a ranking that had put each day's compromised cards, as they were left by
// the days before, among its 100: small where few cards are compromised a day.
func (e *evaluated) ceiling() float64 {
	sum := 0.0
	for _, d := range e.ev.Days {
		sum += math.Min(1, float64(d.Cards)/100)
	}
	return sum / float64(len(e.ev.Days))
}

// cardWords says what card precision@100 is and how much of it there was to reach.
func (e *evaluated) cardWords() string {
	cards := 0
	for _, d := range e.ev.Days {
		cards += d.Cards
	}
	most := e.ceiling()
	s := fmt.Sprintf("Card precision@100: each day the 100 cards with the highest scores are checked, and it is the share of them that were compromised. On these days %.1f compromised cards a day were there to be found, so that a perfect ranking would reach %s", float64(cards)/float64(len(e.ev.Days)), cell(most, true))
	if most > 0 {
		s += fmt.Sprintf("; the model's %s is %.0f%% of that", cell(e.ev.CardPrecision100, true), 100*e.ev.CardPrecision100/most)
	}
	return s + "."
}

// lossWords says what it means where a baseline has the better figure, by the figure's key.
var lossWords = map[string]string{
	"auc":                   "What a lower AUC means: AUC counts every pair of a fraud and a good transaction alike, also pairs far below any alert, so that it judges the whole list. Average precision and card precision judge the top of the list, where alerts come from.",
	"average_precision":     "What a lower average precision means: for the same number of frauds found, the model raises more false alerts than that baseline. Prefer the baseline until the model is better.",
	"card_precision_at_100": "What a lower card precision means: a team that checks 100 cards a day would find fewer compromised cards with the model than with that baseline.",
}

// lossMeanings are the words for the figures in which a baseline is better, each once.
func (e *evaluated) lossMeanings() []string {
	var out []string
	for _, l := range e.LosesTo {
		if w := lossWords[l.Metric]; !slices.Contains(out, w) {
			out = append(out, w)
		}
	}
	return out
}

// sections are comparison, curves and days; a larger report may take them as they are.
func (e *evaluated) sections() report.Sections {
	return report.Sections{
		e.comparison(),
		{Heading: "Ranking", Text: []string{"How well the scores put frauds above good transactions, whatever the threshold."},
			Charts: []report.Chart{e.rocChart(), e.prChart()}},
		{Heading: "Probabilities", Text: []string{fmt.Sprintf("A score is meant as a probability. Expected calibration error %s, Brier score %s, log loss %s.", cell(e.ev.ECE, true), cell(e.ev.Brier, true), cell(e.ev.LogLoss, true))},
			Charts: []report.Chart{e.reliabilityChart(), e.scoreChart()}},
		e.dailyChart(), e.dailyTable(),
	}
}

func (e *evaluated) comparison() report.Section {
	t := report.Table{}
	for i, name := range e.head() {
		t.Columns = append(t.Columns, report.Column{Name: name, Text: i == 0})
	}
	bars := report.Bars{Title: "Average precision", Caption: "Higher is better."}
	for i, row := range e.lines() {
		t.Rows = append(t.Rows, report.Row{Cells: row, Lead: i == 0})
		v := e.ev.AveragePrecision
		if i > 0 {
			v = math.NaN()
			if b, ok := e.Baselines[i-1].Metrics["average_precision"]; ok {
				v = b
			}
		}
		bars.Bars = append(bars.Bars, report.Bar{Label: row[0], Value: v, Text: cell(v, true), Lead: i == 0})
	}
	s := report.Section{Heading: "Beside the baselines", Text: append([]string{e.verdict()}, e.lossMeanings()...), Tables: []report.Table{t}}
	s.Text = append(s.Text, e.cardWords())
	if len(e.Baselines) > 0 {
		cards := bars
		cards.Title, cards.Bars = "Card precision@100", nil
		cards.Caption = "Higher is better; the last bar is what a perfect ranking would reach."
		for i, row := range e.lines() {
			v := e.ev.CardPrecision100
			if i > 0 {
				v = math.NaN()
				if b, ok := e.Baselines[i-1].Metrics["card_precision_at_100"]; ok {
					v = b
				}
			}
			cards.Bars = append(cards.Bars, report.Bar{Label: row[0], Value: v, Text: cell(v, true), Lead: i == 0})
		}
		cards.Bars = append(cards.Bars, report.Bar{Label: "a perfect ranking", Value: e.ceiling(), Text: cell(e.ceiling(), true)})
		s.Charts = []report.Chart{bars, cards}
	}
	return s
}

func unitAxis(label string) report.Axis { return report.Axis{Label: label, Max: 1} }

func (e *evaluated) rocChart() report.Chart {
	return report.Line{
		Title: "ROC", Caption: "Share of frauds found, against share of good transactions flagged.",
		X: unitAxis("false positive rate"), Y: unitAxis("true positive rate"),
		Series: []report.Series{{Name: "AUC " + cell(e.ev.AUC, true), Points: curve(e.ev.ROC)},
			{Name: "guessing", Points: []report.Point{{}, {X: 1, Y: 1}}, Muted: true}},
	}
}

func (e *evaluated) prChart() report.Chart {
	base := float64(e.ev.Positives) / float64(max(e.ev.Rows, 1))
	return report.Line{
		Title: "Precision and recall", Caption: "Share of frauds among the flagged, against share of frauds found.",
		X: unitAxis("recall"), Y: unitAxis("precision"),
		Series: []report.Series{{Name: "average precision " + cell(e.ev.AveragePrecision, true), Points: curve(e.ev.PR)},
			{Name: "guessing", Points: []report.Point{{X: 0, Y: base}, {X: 1, Y: base}}, Muted: true}},
	}
}

func curve(ps []train.Point) []report.Point {
	out := make([]report.Point, len(ps))
	for i, p := range ps {
		out[i] = report.Point{X: p.X, Y: p.Y}
	}
	return out
}

func (e *evaluated) reliabilityChart() report.Chart {
	s := report.Series{Name: "observed", Markers: true, Band: true}
	for _, b := range e.ev.Reliability {
		if b.Count > 0 {
			low, high := wilson(b.Rate, float64(b.Count))
			s.Points = append(s.Points, report.Point{X: b.MeanPredicted, Y: b.Rate, Low: low, High: high,
				Note: fmt.Sprintf("%s transactions with scores %.1f to %.1f: mean score %.3f, %s frauds", progress.Count(int64(b.Count)), b.From, b.To, b.MeanPredicted, percent(b.Rate))})
		}
	}
	return report.Line{
		Title: "Reliability", Caption: "Share of frauds among transactions of about the same score, with its 95% interval.",
		X: unitAxis("score"), Y: unitAxis("share of frauds"),
		Series: []report.Series{s, {Name: "perfect", Points: []report.Point{{}, {X: 1, Y: 1}}, Muted: true}},
	}
}

// wilson is the 95 % score interval of a share p seen in n trials (Wilson 1927).
func wilson(p, n float64) (low, high float64) {
	const z = 1.96
	mid := (p + z*z/(2*n)) / (1 + z*z/n)
	half := z / (1 + z*z/n) * math.Sqrt(p*(1-p)/n+z*z/(4*n*n))
	return max(mid-half, 0), min(mid+half, 1)
}

func (e *evaluated) scoreChart() report.Chart {
	h := report.Histogram{
		Title: "Scores", Caption: "Transactions by score, on a logarithmic scale.",
		X: unitAxis("score"), Y: report.Axis{Label: "transactions", Unit: report.Count, Log: true},
		Series: []report.Counts{{Name: "good", Counts: e.histogram[0]}, {Name: "fraud", Counts: e.histogram[1]}},
	}
	for i := range scoreBins + 1 {
		h.Edges = append(h.Edges, float64(i)/scoreBins)
	}
	return h
}

func (e *evaluated) dailyChart() report.Section {
	found := report.Series{Name: "onmart " + e.Task, Markers: true}
	most := report.Series{Name: "a perfect ranking", Muted: true}
	for _, d := range e.ev.Days {
		day, err := time.Parse(time.DateOnly, d.Day)
		if err != nil {
			continue // Evaluate writes days in this form
		}
		x := float64(day.UnixMicro())
		found.Points = append(found.Points, report.Point{X: x, Y: d.CardPrecision, Note: fmt.Sprintf("%s: %d of 100", d.Day, d.CardsFound)})
		most.Points = append(most.Points, report.Point{X: x, Y: math.Min(1, float64(d.Cards)/100)})
	}
	return report.Section{
		Heading: "Day by day",
		Text:    []string{"Each day the 100 cards with the highest scores are checked; a card that was found leaves the days after."},
		Charts: []report.Chart{report.Line{
			Title: "Card precision@100", Caption: "Share of the 100 checked cards that were compromised.", Wide: true,
			X: report.Axis{Unit: report.Date}, Y: report.Axis{Unit: report.Percent},
			Series: []report.Series{found, most}, Rules: []report.Rule{{Y: e.ev.CardPrecision100, Label: "mean " + cell(e.ev.CardPrecision100, true)}},
		}},
	}
}

func (e *evaluated) dailyTable() report.Section {
	t := report.Table{}
	for i, name := range []string{"day", "transactions", "frauds", "alerts", "of them frauds", "compromised cards", "found in 100", "card precision@100"} {
		t.Columns = append(t.Columns, report.Column{Name: name, Text: i == 0})
	}
	count := func(n int) string { return progress.Count(int64(n)) }
	for _, d := range e.ev.Days {
		t.Rows = append(t.Rows, report.Row{Cells: []string{d.Day, count(d.Rows), count(d.Positives), count(d.Alerts), count(d.AlertsPositives),
			count(d.Cards), count(d.CardsFound), fmt.Sprintf("%.2f", d.CardPrecision)}})
	}
	return report.Section{Tables: []report.Table{t}}
}

func percent(v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	return fmt.Sprintf("%.1f%%", 100*v)
}

func upper(s string) string {
	if s == "" || s[0] < 'a' || s[0] > 'z' {
		return s
	}
	return string(s[0]-'a'+'A') + s[1:]
}
