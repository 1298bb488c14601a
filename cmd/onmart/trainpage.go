package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/onmart/onmart/internal/report"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/tune"
)

// trainingPage is the report of a training: how it went, and its trials.
func trainingPage(title, intro string, facts []report.Fact, h *train.History) *report.Page {
	return &report.Page{Title: title, Intro: intro, Facts: facts, Sections: historySections(h),
		Footer: "onmart " + buildVersion() + "."}
}

// historyOf is the sections of an artifact's history, none where it has none.
func historyOf(a *model.Artifact) (report.Sections, error) {
	h, err := train.ReadHistory(a)
	if h == nil || err != nil {
		return nil, err
	}
	return historySections(h), nil
}

// historySections are the courses of the runs and the trials before them.
func historySections(h *train.History) report.Sections {
	var out report.Sections
	if len(h.Curves) > 0 {
		s := report.Section{Heading: "How it was trained", Text: []string{
			"A run is one pass of training: those that choose the epoch are judged on validation rows after each, and the others are trained for as many epochs."},
			Tables: []report.Table{runTable(h.Curves)}}
		s.Charts = append(append(lossCharts(h.Curves), figureCharts(h.Curves)...), rateChart(h.Curves))
		out = append(out, s)
	}
	if h.Tuning != nil {
		out = append(out, tuningSection(h.Tuning))
	}
	return out
}

// ended is why a run ended, in words.
func ended(c *train.Curve) string {
	switch c.Ended {
	case train.EndedPatience:
		return "patience"
	case train.EndedBudget:
		return "--max-time"
	}
	return "all epochs"
}

func runTable(curves []train.Curve) report.Table {
	t := report.Table{Columns: []report.Column{{Name: "run", Text: true}, {Name: "epochs"}, {Name: "kept"}, {Name: "loss"},
		{Name: "validation loss"}, {Name: "figure", Text: true}, {Name: "ended", Text: true}}}
	for i := range curves {
		c := &curves[i]
		if c.Best < 1 || c.Best > len(c.Epochs) {
			continue
		}
		e := c.Epochs[c.Best-1]
		valid, figure := "-", "-"
		if e.ValidLoss != nil {
			valid = fmt.Sprintf("%.4f", *e.ValidLoss)
		}
		if e.Figure != nil {
			figure = fmt.Sprintf("%s %.4f", c.Words, *e.Figure)
		}
		t.Rows = append(t.Rows, report.Row{Cells: []string{c.Label, strconv.Itoa(len(c.Epochs)), strconv.Itoa(c.Best),
			fmt.Sprintf("%.4f", e.Loss), valid, figure, ended(c)}})
	}
	return t
}

// epochPoints is a value of the epochs that have it.
func epochPoints(c *train.Curve, value func(train.Epoch) *float64) []report.Point {
	var out []report.Point
	for i, e := range c.Epochs {
		if v := value(e); v != nil {
			out = append(out, report.Point{X: float64(i + 1), Y: *v, Note: fmt.Sprintf("epoch %d: %.5g", i+1, *v)})
		}
	}
	return out
}

func epochAxis() report.Axis { return report.Axis{Label: "epoch", Unit: report.Count} }

// apart is how many runs have a chart of their losses each; more share one.
const apart = 4

func lossCharts(curves []train.Curve) []report.Chart {
	var out []report.Chart
	if len(curves) <= apart {
		for i := range curves {
			out = append(out, lossChart(&curves[i]))
		}
		return out
	}
	training := report.Line{Title: "Training loss", Caption: "Mean over an epoch's training rows, while the weights change.", X: epochAxis()}
	valid := report.Line{Title: "Validation loss", Caption: "After each epoch.", X: epochAxis()}
	for i := range curves {
		c := &curves[i]
		training.Series = append(training.Series, report.Series{Name: c.Label,
			Points: epochPoints(c, func(e train.Epoch) *float64 { return &e.Loss })})
		if ps := epochPoints(c, func(e train.Epoch) *float64 { return e.ValidLoss }); ps != nil {
			valid.Series = append(valid.Series, report.Series{Name: c.Label, Points: ps})
		}
	}
	out = append(out, training)
	if valid.Series != nil {
		out = append(out, valid)
	}
	return out
}

func lossChart(c *train.Curve) report.Chart {
	l := report.Line{Title: "Loss: " + c.Label, Caption: "Mean over an epoch's training rows, while the weights change.", X: epochAxis(),
		Series: []report.Series{{Name: "training", Points: epochPoints(c, func(e train.Epoch) *float64 { return &e.Loss })}}}
	if valid := epochPoints(c, func(e train.Epoch) *float64 { return e.ValidLoss }); valid != nil {
		l.Caption = "On training rows: mean over the epoch, with dropout, while the weights change. On validation rows: after it."
		l.Series = append(l.Series, report.Series{Name: "validation", Points: valid})
	}
	return l
}

// figureCharts has one chart for each figure that runs were judged by.
func figureCharts(curves []train.Curve) []report.Chart {
	var out []report.Chart
	var keys []string
	for _, c := range curves {
		if c.Figure != "" && !slices.Contains(keys, c.Figure) {
			keys = append(keys, c.Figure)
		}
	}
	for _, key := range keys {
		l := report.Line{X: epochAxis()}
		for i := range curves {
			c := &curves[i]
			if c.Figure != key {
				continue
			}
			l.Title, l.Caption = upper(c.Words)+" by epoch", "On validation rows; higher is better."
			if c.Smaller {
				l.Caption = "On validation rows; lower is better."
			}
			l.Series = append(l.Series, report.Series{Name: c.Label, Points: epochPoints(c, func(e train.Epoch) *float64 { return e.Figure })})
		}
		out = append(out, l)
	}
	return out
}

func rateChart(curves []train.Curve) report.Chart {
	l := report.Line{Title: "Learning rate", Caption: "Of the last step of each epoch.", X: epochAxis()}
	var drawn []*train.Curve
	for i := range curves {
		c := &curves[i]
		same := slices.ContainsFunc(drawn, func(d *train.Curve) bool { return sameRates(c, d) })
		if !same {
			drawn = append(drawn, c)
		}
	}
	for _, c := range drawn {
		name := c.Label
		if len(drawn) == 1 && len(curves) > 1 {
			name = "all runs"
		}
		l.Series = append(l.Series, report.Series{Name: name, Points: epochPoints(c, func(e train.Epoch) *float64 { return &e.Rate })})
	}
	return l
}

// sameRates tells whether two runs had the same learning rates, as near as one can see.
func sameRates(a, b *train.Curve) bool {
	most := 0.
	for _, e := range a.Epochs {
		most = max(most, e.Rate)
	}
	return slices.EqualFunc(a.Epochs, b.Epochs, func(x, y train.Epoch) bool { return math.Abs(x.Rate-y.Rate) <= .01*most })
}

// tuningSection is the trials as a table and as plots.
func tuningSection(r *tune.Result) report.Section {
	text := "Settings were tried and judged on validation rows alone. "
	if len(r.Rungs) > 1 {
		text += "After each rung the better third went on. "
	}
	text += fmt.Sprintf("Of %s, trial %d was the best, and the model was trained with its settings.",
		train.Plural(len(r.Trials), "trial"), r.Trials[0].ID)
	s := report.Section{Heading: "Trials", Text: []string{text}}
	names := settingNames(r)
	t := report.Table{}
	spread := slices.ContainsFunc(r.Trials, func(t tune.Trial) bool { return len(t.Folds) > 1 })
	head := []string{"trial", "figure"}
	if spread {
		head = append(head, "spread")
	}
	head = append(append(head, "epochs", "seconds"), names...)
	// An artifact has no times, so that equal trainings are equal.
	timed := slices.ContainsFunc(r.Trials, func(t tune.Trial) bool { return t.Seconds > 0 })
	seconds := slices.Index(head, "seconds")
	drop := func(cells []string) []string {
		if timed {
			return cells
		}
		return slices.Delete(slices.Clone(cells), seconds, seconds+1)
	}
	for i, name := range drop(head) {
		t.Columns = append(t.Columns, report.Column{Name: name, Text: i > 0 && slices.Contains(names, name) && !numericSetting(r, name)})
	}
	for i := range r.Trials {
		t.Rows = append(t.Rows, report.Row{Cells: drop(trialCells(&r.Trials[i], names, spread)), Lead: i == 0})
	}
	s.Tables = []report.Table{t}
	s.Charts = append(s.Charts, trialChart(r))
	for _, name := range names {
		s.Charts = append(s.Charts, settingChart(r, name))
	}
	return s
}

// numericSetting tells whether all values of a setting are numbers.
func numericSetting(r *tune.Result, name string) bool {
	for i := range r.Trials {
		if v, ok := settingOf(&r.Trials[i], name); ok {
			if _, err := strconv.ParseFloat(v, 64); err != nil {
				return false
			}
		}
	}
	return true
}

func settingOf(t *tune.Trial, name string) (string, bool) {
	at := slices.IndexFunc(t.Settings, func(c tune.Choice) bool { return c.Name == name })
	if at < 0 {
		return "", false
	}
	return t.Settings[at].Value, true
}

// trialChart is the figure of each trial, by how far it went.
func trialChart(r *tune.Result) report.Chart {
	l := report.Line{Title: "Figure by trial", Caption: "Each dot is a trial at the last rung that it came to.", Wide: true,
		X: report.Axis{Label: "trial", Unit: report.Count}}
	for k := len(r.Rungs); k >= 1; k-- {
		s := report.Series{Name: shareOfEpochs(r.Rungs[k-1].Share), Dots: true}
		for i := range r.Trials {
			if x := &r.Trials[i]; x.Rung == k && x.Failed == "" {
				s.Points = append(s.Points, report.Point{X: float64(x.ID), Y: x.Figure, Note: fmt.Sprintf("trial %d: %.4f; %s", x.ID, x.Figure, train.Words(x.Settings))})
			}
		}
		slices.SortFunc(s.Points, func(a, b report.Point) int { return cmp.Compare(a.X, b.X) })
		if len(s.Points) > 0 {
			l.Series = append(l.Series, s)
		}
	}
	return l
}

func shareOfEpochs(x float64) string {
	if x >= 1 {
		return "all epochs"
	}
	return fmt.Sprintf("1/%.0f of the epochs", 1/x)
}

// logSpan is the ratio of a setting's values from which its logarithm may be drawn.
const logSpan = 4

// spreadByLog tells whether values lie more evenly in their logarithms: the middle one is then nearer to the middle there.
func spreadByLog(xs []float64) bool {
	xs = slices.Clone(xs)
	slices.Sort(xs)
	least, most, middle := xs[0], xs[len(xs)-1], xs[len(xs)/2]
	if !(least > 0) || most/least < logSpan {
		return false
	}
	plain := math.Abs((middle-least)/(most-least) - .5)
	return math.Abs(math.Log(middle/least)/math.Log(most/least)-.5) < plain
}

// settingChart is the figure after the first rung, which all trials have, against a setting.
func settingChart(r *tune.Result, name string) report.Chart {
	caption := "Of all trials after the first rung"
	if len(r.Rungs) == 1 {
		caption = "Of all trials"
	}
	if !numericSetting(r, name) {
		return settingBars(r, name, caption)
	}
	value := func(t *tune.Trial) float64 {
		v, _ := settingOf(t, name)
		x, err := strconv.ParseFloat(v, 64)
		if err != nil {
			return math.NaN()
		}
		return x
	}
	var values []float64
	for i := range r.Trials {
		if v := value(&r.Trials[i]); !math.IsNaN(v) {
			values = append(values, v)
		}
	}
	l := report.Line{Title: "Figure and " + name, Caption: caption + ".", X: report.Axis{Label: name}}
	logs := len(values) > 0 && spreadByLog(values)
	if logs {
		l.X.Label = "log10 of " + name
	}
	further, rest := report.Series{Name: "went on", Dots: true}, report.Series{Name: "", Dots: true, Muted: true}
	for i := range r.Trials {
		x := &r.Trials[i]
		if len(x.Figures) == 0 {
			continue
		}
		p := report.Point{X: value(x), Y: x.Figures[0], Note: fmt.Sprintf("trial %d: %s %g, %.4f", x.ID, name, value(x), x.Figures[0])}
		if logs {
			p.X = math.Log10(p.X)
		}
		if x.Rung > 1 || len(r.Rungs) == 1 {
			further.Points = append(further.Points, p)
		} else {
			rest.Points = append(rest.Points, p)
		}
	}
	if len(r.Rungs) == 1 {
		further.Name = ""
	}
	for _, s := range []report.Series{further, rest} {
		if len(s.Points) > 0 {
			l.Series = append(l.Series, s)
		}
	}
	return l
}

// settingBars is the mean figure of each value of a setting that is no number.
func settingBars(r *tune.Result, name, caption string) report.Chart {
	b := report.Bars{Title: "Figure and " + name, Caption: caption + ", the mean of each value."}
	figures := map[string][]float64{}
	var values []string
	for i := range r.Trials {
		x := &r.Trials[i]
		if v, ok := settingOf(x, name); ok && len(x.Figures) > 0 {
			if figures[v] == nil {
				values = append(values, v)
			}
			figures[v] = append(figures[v], x.Figures[0])
		}
	}
	slices.SortFunc(values, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(strings.Split(a, ",")), len(strings.Split(b, ","))), strings.Compare(a, b))
	})
	best, _ := settingOf(&r.Trials[0], name)
	for _, v := range values {
		mean, _ := train.MeanSpread(figures[v])
		b.Bars = append(b.Bars, report.Bar{Label: v, Value: mean, Text: fmt.Sprintf("%.4f of %d", mean, len(figures[v])), Lead: v == best})
	}
	return b
}
