package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/internal/atomicdir"
	"github.com/onmart/onmart/internal/progress"
	"github.com/onmart/onmart/internal/report"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/train/fraud"
)

type evaluateFlags struct {
	model, data, test, delay, report, rules string
	allCards, requireBeat                   bool
	threads                                 int
	force                                   *bool
}

func newEvaluateCmd() *cobra.Command {
	var f evaluateFlags
	cmd := &cobra.Command{
		Use:   "evaluate --model DIR --data DIR",
		Short: "Measure a model on data it has not seen",
		Long: `evaluate scores the transactions of a range and reports AUC, average precision, card precision@100, log loss,
Brier score and calibration, and what the model's threshold would have raised: alerts a day, precision, recall.
Card precision@100 is the fraud handbook's: each day the 100 cards with the highest scores are checked, and a
card that was found leaves the days after. As there, transactions of cards that were known to be compromised
when their day began are left out of every figure; --all-cards keeps them.

The baselines that were trained beside the model are shown where they were measured on the same rows, that is,
for the range of --test at training. --require-beat then fails where one of them has a higher average precision.

Of a forecaster (onmart train demand) it reports RMSSE, WRMSSE, MASE, pinball losses and coverage over the steps after its
training, or of --test, a horizon at a time, beside each method alone; --require-beat fails where one of those is better.

--data takes features, or transactions, of which the model's features are computed first and kept in
DIR.features-<fingerprint>.`,
		Args: cobra.NoArgs,
	}
	fl := cmd.Flags()
	fl.StringVar(&f.model, "model", "", "artifact `directory` of onmart train")
	fl.StringVar(&f.data, "data", "", "features or transactions `directory`")
	fl.StringVar(&f.test, "test", "", "`range` FROM..TO to evaluate (default: that of training's --test, else all after training and delay)")
	fl.StringVar(&f.delay, "delay", "", "how long after a fraud it is known, such as 7d (default: as in training)")
	fl.StringVar(&f.rules, "rules", "", "YAML `file` of rules to back-test, as onmart score takes them")
	fl.StringVar(&f.report, "report", "", "HTML `file` to write, with curves")
	fl.BoolVar(&f.allCards, "all-cards", false, "keep cards that were known to be compromised")
	fl.BoolVar(&f.requireBeat, "require-beat", false, "fail where a baseline has a higher average precision")
	fl.IntVar(&f.threads, "threads", 0, "threads (default one a core)")
	f.force = addForce(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runEvaluate(cmd, &f) }
	return cmd
}

// evaluated is what evaluate prints with --json: these keys and those of fraud.Evaluation, in one object.
type evaluated struct {
	Model     string           `json:"model"`
	Task      string           `json:"task"`
	Data      string           `json:"data"`
	Range     model.Span       `json:"range"`
	Delay     model.Duration   `json:"delay"`
	AllCards  bool             `json:"all_cards"`
	Baselines []model.Baseline `json:"baselines"`
	// Beaten by a baseline in average precision; null where there is none to compare with.
	Beaten *bool `json:"beaten_by_baseline"`
	// LosesTo lists each baseline that ranks better, by any of AUC, average precision and card precision.
	LosesTo       []fraud.Loss `json:"loses_to"`
	Rules         *backTest    `json:"rules,omitempty"`
	Seconds       float64      `json:"seconds"`
	RowsPerSecond float64      `json:"rows_per_second"`

	ev        fraud.Evaluation
	artifact  *model.Artifact
	why       string // why there are no baselines
	histogram [2][]float64
	history   report.Sections // how it was trained
}

// MarshalJSON joins both parts' keys.
func (e *evaluated) MarshalJSON() ([]byte, error) {
	type plain evaluated
	own, err := json.Marshal((*plain)(e))
	if err != nil {
		return nil, err
	}
	figures, err := json.Marshal(e.ev)
	if err != nil {
		return nil, err
	}
	own[len(own)-1] = ','
	return append(own, figures[1:]...), nil
}

func runEvaluate(cmd *cobra.Command, f *evaluateFlags) error {
	ctx, con := cmd.Context(), consoleOf(cmd)
	if f.model == "" {
		return usagef("--model is missing: name the directory that onmart train wrote")
	}
	var err error
	if f.threads, err = threadCount(f.threads); err != nil {
		return err
	}
	a, err := model.Open(f.model)
	if err != nil {
		return err
	}
	switch a.Manifest().Task {
	case model.Recommend, model.Demand:
		if f.rules != "" {
			return usagef("--rules: rules decide on transactions, and %s is a model of task %s", f.model, a.Manifest().Task)
		}
	}
	switch a.Manifest().Task {
	case model.Recommend:
		return evaluateRecommend(ctx, con, f, a)
	case model.Demand:
		return evaluateDemand(ctx, con, f, a)
	}
	e := &evaluated{AllCards: f.allCards}
	given, err := f.parse(e)
	if err != nil {
		return err
	}
	var page *atomicdir.File
	if f.report != "" {
		// Now, so that an existing file is found before the work.
		if page, err = atomicdir.CreateFile(f.report, *f.force); err != nil {
			return err
		}
		defer page.Abort()
	}
	if e.artifact, err = openFraud(f.model); err != nil {
		return err
	}
	d, err := openModelFeatures(ctx, con, e.artifact, f.data, f.threads)
	if err != nil {
		return err
	}
	if err := e.place(con, d, given); err != nil {
		return err
	}
	if err := e.measure(ctx, con, d, f, f.threads); err != nil {
		return err
	}
	e.compare()
	if page != nil {
		if e.history, err = historyOf(e.artifact); err != nil {
			return err
		}
		if err := report.Write(page, e.page()); err != nil {
			return page.Err(err)
		}
		if err := page.Commit(); err != nil {
			return err
		}
		con.notef("report: %s", f.report)
	}
	if err := con.result(e, e.text); err != nil {
		return err
	}
	switch {
	case f.requireBeat && e.Beaten == nil:
		return fmt.Errorf("--require-beat: %s", e.why)
	case f.requireBeat && *e.Beaten:
		b := e.best("average_precision")
		return fmt.Errorf("--require-beat: the baseline %s has average precision %.4f and the model %.4f", b.Name, b.Metrics["average_precision"], e.ev.AveragePrecision)
	}
	return nil
}

// threadCount is --threads with its default of one a core.
func threadCount(n int) (int, error) {
	if n < 0 {
		return 0, usagef("--threads %d: want 1 or more, or 0 for one a core", n)
	}
	if n == 0 {
		n = runtime.GOMAXPROCS(0)
	}
	return n, nil
}

// given says which of range and delay were given.
type given struct{ test, delay bool }

func (f *evaluateFlags) parse(e *evaluated) (given, error) {
	var errs []error
	if f.test != "" {
		r, err := datasets.ParseRange(f.test)
		if err != nil {
			errs = append(errs, fmt.Errorf("--test: %w", err))
		}
		e.Range = model.Span{Range: r}
	}
	if f.delay != "" {
		us, err := datasets.ParseDuration(f.delay)
		if err != nil {
			errs = append(errs, fmt.Errorf("--delay: %w", err))
		}
		e.Delay = model.Duration(us)
	}
	return given{f.test != "", f.delay != ""}, usage(errors.Join(errs...))
}

// openFraud opens an artifact of the fraud task.
func openFraud(dir string) (*model.Artifact, error) {
	a, err := model.Open(dir)
	if err != nil {
		return nil, err
	}
	if task := a.Manifest().Task; task != "fraud" {
		return nil, notFraud(dir, task)
	}
	return a, nil
}

// notFraud says what answers from a model of another task.
func notFraud(dir, task string) error {
	switch task {
	case model.Demand:
		return fmt.Errorf("model %s is of the task demand: onmart forecast answers from it", dir)
	case model.Recommend:
		return fmt.Errorf("model %s is of the task recommend: onmart recommend answers from it", dir)
	}
	return fmt.Errorf("model %s is of the task %.40q, which this onmart does not know", dir, task)
}

// openModelFeatures opens --data and checks that it has the features the model was trained on.
func openModelFeatures(ctx context.Context, con *console, a *model.Artifact, dir string, threads int) (*datasets.Dataset, error) {
	d, err := openFeatures(ctx, con, dir, a.Spec(), threads)
	if err != nil {
		return nil, err
	}
	made, err := features.MadeFrom(d)
	if err != nil {
		return nil, err
	}
	if err := a.CheckNodes(made.Nodes); err != nil {
		return nil, fmt.Errorf("%s: %w", d.Dir(), err)
	}
	return d, nil
}

// place fills in the range and the delay that were not given.
func (e *evaluated) place(con *console, d *datasets.Dataset, g given) error {
	m := e.artifact.Manifest()
	e.Model, e.Task, e.Data = m.Version, m.Task, d.ID()
	if !g.delay {
		e.Delay = m.Lineage.Delay
	}
	_, trained := m.Lineage.Train.Bounds()
	free := trained
	if trained != math.MaxInt64 {
		free += int64(e.Delay)
	}
	from, to := d.Manifest().From, d.Manifest().To+1
	switch {
	case g.test:
	case m.Test != nil && m.Test.Data == d.ID():
		e.Range = m.Test.Range
	case free < to:
		e.Range = model.Span{Range: datasets.Range{From: max(free, from), To: to}}
	default:
		return usagef("the model was trained on %s and %s ends at %s: nothing is left to evaluate on; give --test R to evaluate on a range all the same",
			m.Lineage.Train, d.Dir(), datasets.FormatTime(d.Manifest().To))
	}
	start, end := e.Range.Bounds()
	trainedFrom, _ := m.Lineage.Train.Bounds()
	switch {
	case start < trained && end > trainedFrom:
		con.notef("warning: %s overlaps the training range %s: the figures flatter the model", e.Range, m.Lineage.Train)
	case start < free && end > free:
		con.notef("warning: %s begins before the delay of %s after training has passed: a model in use would not have had its last labels yet", e.Range, text(e.Delay))
	}
	return nil
}

// scoreBins is how many bins the report's histogram has.
const scoreBins = 25

// measure scores the range and judges the scores.
func (e *evaluated) measure(ctx context.Context, con *console, d *datasets.Dataset, f *evaluateFlags, threads int) error {
	m := e.artifact.Manifest()
	start := time.Now()
	rows, err := fraud.Load(ctx, d, e.Range.Range, m.Features, threads)
	if err != nil {
		return err
	}
	if rows.Len() == 0 {
		return fmt.Errorf("%s has no transactions in %s: it reaches from %s to %s", d.Dir(), e.Range, datasets.FormatTime(d.Manifest().From), datasets.FormatTime(d.Manifest().To))
	}
	p, err := e.artifact.NewPredictor(threads)
	if err != nil {
		return err
	}
	scores := make([]float64, rows.Len())
	if err := p.Predict(rows.Values, rows.Len(), scores); err != nil {
		return err
	}
	protocol := fraud.Protocol{Delay: int64(e.Delay), AlertsPerDay: m.AlertsPerDay, Threshold: m.Threshold}
	if !e.AllCards {
		from, _ := m.Lineage.Train.Bounds()
		_, to := e.Range.Bounds()
		if protocol.Known, err = fraud.LoadKnown(ctx, d, datasets.Range{From: from, To: to}, threads); err != nil {
			return err
		}
	}
	e.ev = fraud.Evaluate(rows, scores, protocol)
	if e.ev.Rows == 0 {
		return fmt.Errorf("all %d transactions of %s in %s are of cards known to be compromised: nothing is left to judge on; give --all-cards, or a longer --test",
			rows.Len(), d.Dir(), e.Range)
	}
	if f != nil && f.rules != "" {
		events, err := rulesData(f.data, d)
		if err != nil {
			return err
		}
		if e.Rules, err = backTestRules(ctx, f.rules, events, rows, scores, e.Range.Range, protocol); err != nil {
			return err
		}
	}
	e.clip()
	for k := range e.histogram {
		e.histogram[k] = make([]float64, scoreBins)
	}
	for _, i := range protocol.Keep(rows) {
		kind := 0
		if rows.Y[i] {
			kind = 1
		}
		e.histogram[kind][min(int(scores[i]*scoreBins), scoreBins-1)]++
	}
	if e.ev.Unlabelled > 0 {
		con.notef("warning: %s of %s transactions have no label and count as good", progress.Count(int64(e.ev.Unlabelled)), progress.Count(int64(e.ev.Rows)))
	}
	e.Seconds = time.Since(start).Seconds()
	e.RowsPerSecond = float64(rows.Len()) / e.Seconds
	return nil
}

// clip narrows the range to the days that have rows, as training does with its --test.
func (e *evaluated) clip() {
	if len(e.ev.Days) == 0 {
		return
	}
	from, to := e.Range.Bounds()
	first, err := time.Parse(time.DateOnly, e.ev.Days[0].Day)
	last, err2 := time.Parse(time.DateOnly, e.ev.Days[len(e.ev.Days)-1].Day)
	if err == nil && err2 == nil {
		e.Range.Range = datasets.Range{From: max(from, first.UnixMicro()), To: min(to, last.UnixMicro()+datasets.Day)}
	}
}

// compare takes the baselines' figures from the artifact, where they are of the same rows.
func (e *evaluated) compare() {
	e.Baselines, e.LosesTo = []model.Baseline{}, []fraud.Loss{}
	t := e.artifact.Manifest().Test
	switch {
	case t == nil || len(t.Baselines) == 0:
		e.why = "the model was trained without --test, so that there are no baselines to compare with"
	case t.Data != e.Data:
		e.why = fmt.Sprintf("the baselines were measured on other data (%.12s, this is %.12s)", t.Data, e.Data)
	case t.Range != e.Range || t.Delay != e.Delay || e.AllCards:
		e.why = fmt.Sprintf("the baselines were measured on %s with a delay of %s, without compromised cards: only for that can they be compared", t.Range, text(t.Delay))
	default:
		e.Baselines = t.Baselines
		b := e.best("average_precision")
		beaten := b != nil && !(e.ev.AveragePrecision >= b.Metrics["average_precision"])
		e.Beaten = &beaten
		for _, f := range figures[:rankings] {
			for _, b := range e.Baselines {
				if v, ok := b.Metrics[f.key]; ok && v > e.value(f.key) {
					e.LosesTo = append(e.LosesTo, fraud.Loss{Name: b.Name, Metric: f.key, Model: e.value(f.key), Baseline: v})
				}
			}
		}
	}
}

// figure is one metric of the comparison.
type figure struct {
	key, name string
	lower     bool // is better
}

var figures = []figure{
	{"auc", "AUC", false}, {"average_precision", "average precision", false}, {"card_precision_at_100", "card precision@100", false},
	{"log_loss", "log loss", true}, {"brier", "Brier score", true}, {"ece", "calibration error", true},
}

func nameOf(key string) string {
	for _, f := range figures {
		if f.key == key {
			return f.name
		}
	}
	return key
}

// rankings is how many of the figures judge the order of scores alone: every baseline has those.
const rankings = 3

func (e *evaluated) value(key string) float64 {
	return map[string]float64{"auc": e.ev.AUC, "average_precision": e.ev.AveragePrecision, "card_precision_at_100": e.ev.CardPrecision100,
		"log_loss": e.ev.LogLoss, "brier": e.ev.Brier, "ece": e.ev.ECE}[key]
}

// best is the baseline with the best figure, nil if none has it.
func (e *evaluated) best(key string) *model.Baseline {
	var best *model.Baseline
	for i := range e.Baselines {
		b := &e.Baselines[i]
		v, ok := b.Metrics[key]
		if !ok {
			continue
		}
		lower := false
		for _, f := range figures {
			lower = lower || f.key == key && f.lower
		}
		if best == nil || v > best.Metrics[key] != lower && v != best.Metrics[key] {
			best = b
		}
	}
	return best
}

// cell writes a figure, - where there is none.
func cell(v float64, ok bool) string {
	if !ok || math.IsNaN(v) || math.IsInf(v, 0) {
		return "-"
	}
	return fmt.Sprintf("%.4f", v)
}

// lines are the comparison: the model, then each baseline.
func (e *evaluated) lines() [][]string {
	rows := [][]string{{"onmart " + e.Task}}
	for _, f := range figures {
		rows[0] = append(rows[0], cell(e.value(f.key), true))
	}
	for _, b := range e.Baselines {
		row := []string{b.Name}
		for _, f := range figures {
			v, ok := b.Metrics[f.key]
			row = append(row, cell(v, ok))
		}
		rows = append(rows, row)
	}
	return rows
}

func (e *evaluated) head() []string {
	head := []string{"model"}
	for _, f := range figures {
		head = append(head, f.name)
	}
	return head
}

// verdict says how the model stands beside the baselines.
func (e *evaluated) verdict() string {
	if e.Beaten == nil {
		return "No comparison: " + e.why + "."
	}
	b := e.best("average_precision")
	switch {
	case b == nil:
		return "The baselines have no average precision here."
	case *e.Beaten:
		return fmt.Sprintf("The model loses to the baseline %s: average precision %.4f against %.4f.", b.Name, e.ev.AveragePrecision, b.Metrics["average_precision"])
	}
	said := fmt.Sprintf("The model beats every baseline in average precision; the best of them is %s with %.4f.", b.Name, b.Metrics["average_precision"])
	for _, l := range e.LosesTo {
		said += fmt.Sprintf(" In %s it loses to %s: %.4f against %.4f.", nameOf(l.Metric), l.Name, l.Model, l.Baseline)
	}
	return said
}

func (e *evaluated) text(w io.Writer) error {
	fmt.Fprintf(w, "model %s on %s: %s transactions, %s frauds", e.Model, e.Range, progress.Count(int64(e.ev.Rows)), progress.Count(int64(e.ev.Positives)))
	if e.ev.ExcludedKnown > 0 {
		fmt.Fprintf(w, " (%s of cards known to be compromised left out)", progress.Count(int64(e.ev.ExcludedKnown)))
	}
	fmt.Fprint(w, "\n\n")
	t := newTable(e.head()...)
	for _, row := range e.lines() {
		t.add(row...)
	}
	if err := t.write(w); err != nil {
		return err
	}
	a := e.ev.Alerts
	if _, err := fmt.Fprintf(w, "\nalerts from %s: %.1f a day (budget %g), precision %s, recall %s\n%s\n",
		cell(a.Threshold, true), a.PerDay, a.Budget, cell(a.Precision, true), cell(a.Recall, true), e.verdict()); err != nil || e.Rules == nil {
		return err
	}
	return e.Rules.text(w)
}

func text(d model.Duration) string { return datasets.FormatDuration(int64(d)) }
