package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/datasets/mock"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/internal/atomicdir"
	"github.com/onmart/onmart/internal/progress"
	"github.com/onmart/onmart/internal/report"
	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/sink"
	"github.com/onmart/onmart/score/source"
	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/demand"
	"github.com/onmart/onmart/train/fraud"
	"github.com/onmart/onmart/train/recommend"
)

// The demo's calendar, in days of the shop: a year and a half, of which the last four weeks are lived through. All
// three models learn from what was known before them: the classifier from half a year that ends a label's delay
// earlier, the other two from all of it.
const (
	demoDays      = 548
	demoTrainFrom = 330
	demoTrainTo   = 512 // inclusive
	demoLive      = 520
	demoAlerts    = 10 // a day
)

func newDemoCmd() *cobra.Command {
	d := &demo{threads: runtime.GOMAXPROCS(0)}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "All of it on generated data, with a report to look at",
		Long: `demo generates a shop with everything planted in it: seasons, promotions, tastes, rhythms, frauds. It computes
features, trains a classifier of fraud, a forecaster of demand and a recommender on what was known four weeks before
the end, judges them on those four weeks, and lives through them: every event goes through the scorer, which keeps all
three models up to date and whose features and scores are compared with the backfill, bit by bit. In the end it says
what to order tomorrow and what to offer to whom. It writes everything to --out, with report.html to look at. A
directory that a demo made is replaced.`,
		Args: cobra.NoArgs,
	}
	fl := cmd.Flags()
	fl.StringVar(&d.out, "out", "onmart-demo", "`directory` for data, features, model, scores and report")
	fl.IntVar(&d.mock.Rows, "rows", 350_000, "purchase lines to generate, about")
	fl.Uint64Var(&d.mock.Seed, "seed", 1, "seed of the shop and of the trainings")
	d.mock.Days = demoDays
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		d.con = consoleOf(cmd)
		return d.run(cmd.Context())
	}
	return cmd
}

// demo is one run of the demonstration, and what its steps found.
type demo struct {
	out     string
	mock    mock.Options
	threads int
	con     *console

	start    time.Time
	stream   *mock.Stream
	lines    int64
	features *datasets.Dataset
	trained  *fraud.Summary
	test     *evaluated
	kinds    []kindFound
	demand   demandShown
	offers   offersShown
	replay   replayed
	took     time.Duration
}

// kindFound counts the test's purchases of one planted kind, and those that would have been alerts.
type kindFound struct {
	Kind  string `json:"kind"`
	Found int    `json:"found"`
	All   int    `json:"all"`
}

// replayed is what the live scorer did with the last weeks.
type replayed struct {
	Events    int     `json:"events"`
	Differ    int     `json:"differ"` // features or scores that are not those of the backfill, to the bit
	Seconds   float64 `json:"seconds"`
	PerSecond float64 `json:"events_per_second"`
	Median    float64 `json:"median_microseconds"` // one event at a time: decode, features, score, write
	Alerts    int     `json:"alerts"`
	alerts    []*scoreLine
}

// demoParts is what a demo writes into its directory; anything else there is somebody's own.
var demoParts = []string{"shop", "features", "state", "fraud", "fraud.checkpoint", "panel", "demand", "demand.checkpoint", "baskets", "recommend", "recommend.checkpoint", "events.jsonl", "scores.jsonl", "report.html"}

func (d *demo) path(part string) string { return filepath.Join(d.out, part) }

func (d *demo) run(ctx context.Context) error {
	d.start = time.Now()
	if err := d.checkOut(); err != nil {
		return err
	}
	steps := []struct {
		name string
		do   func(context.Context) error
	}{
		{"a shop with everything planted in it", d.generate},
		{"features, as they were at each moment", d.backfill},
		{"fraud: a classifier, with baselines beside it", d.train},
		{"demand: a forecaster, with classical methods beside it", d.trainDemand},
		{"recommendations: what goes with whom, with baselines beside it", d.trainOffers},
		{"judging the classifier on weeks that it has not seen", d.judge},
		{"living through the last four weeks", d.live},
		{"what to order tomorrow, and what to offer to whom", d.advise},
		{"the report", d.write},
	}
	for i, step := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		d.con.notef("[%d/%d] %s", i+1, len(steps), step.name)
		if err := step.do(ctx); err != nil {
			return err
		}
	}
	return d.con.result(d.result(), d.print)
}

func (d *demo) checkOut() error {
	entries, err := os.ReadDir(d.out)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	for _, e := range entries {
		if !slices.Contains(demoParts, e.Name()) && e.Name()[0] != '.' {
			return usagef("--out %s: holds %s, which a demo did not make: name another directory", d.out, e.Name())
		}
	}
	return nil
}

func (d *demo) day(n int) int64 { return d.stream.Start() + int64(n)*datasets.Day }

// days is the range from day a to day b, both included.
func (d *demo) days(a, b int) datasets.Range { return datasets.Range{From: d.day(a), To: d.day(b + 1)} }

func (d *demo) created() datasets.Created {
	return datasets.Created{Command: "demo", Version: buildVersion(), Args: os.Args[1:]}
}

func (d *demo) generate(ctx context.Context) (err error) {
	d.mock.Users, d.mock.Stores = max(d.mock.Rows/120, 100), max(d.mock.Rows/1700, 30)
	if d.stream, err = mock.New(d.mock); err != nil {
		return usage(err)
	}
	bar := d.con.bar("generate", demoDays, "days")
	m, err := d.stream.Write(ctx, d.path("shop"), true, d.created(), func(done, _ int) { bar.Set(int64(done), "") })
	if err != nil {
		return err
	}
	bar.Done()
	d.lines = m.Rows
	return nil
}

func (d *demo) backfill(ctx context.Context) error {
	in, err := datasets.Open(d.path("shop"))
	if err != nil {
		return err
	}
	spec, err := features.Builtin(defaultFraudSpec)
	if err != nil {
		return err
	}
	bar := d.con.bar("features", in.Manifest().Rows, "rows")
	o := features.RunOptions{Spec: spec, In: in, Out: d.path("features"), Force: true, Threads: d.threads,
		Created: d.created(), Progress: func(done, _ int64) { bar.Set(done, "") }}
	if _, err := features.Run(ctx, o); err != nil {
		return err
	}
	bar.Done()
	// The state from which the replay starts: everything before its first day.
	o.Out, o.StateOut, o.Progress = "", d.path("state"), nil
	o.Range = datasets.Range{From: math.MinInt64, To: d.day(demoLive)}
	if _, err := features.Run(ctx, o); err != nil {
		return err
	}
	d.features, err = datasets.Open(d.path("features"))
	return err
}

func (d *demo) train(ctx context.Context) error {
	config := fraud.DefaultConfig()
	backend, closeBackend, err := openBackend(d.con, deviceFlags{name: "auto", threads: d.threads}, fraudLacks(config, nil))
	if err != nil {
		return err
	}
	defer giveBack(d.con, closeBackend)
	src, err := fraud.OpenSource(d.features)
	if err != nil {
		return err
	}
	test := d.days(demoLive, demoDays-1)
	// A demo that was stopped begins anew.
	defer os.RemoveAll(train.CheckpointDir(d.path("fraud")))
	d.trained, err = fraud.Train(ctx, fraud.Options{
		Source: src, Out: d.path("fraud"), Force: true, Train: d.days(demoTrainFrom, demoTrainTo), Test: &test,
		AlertsPerDay: demoAlerts, Config: config, Seed: d.mock.Seed, Threads: d.threads, Backend: backend,
		Note: d.con.notef, Bar: d.con.bar,
		Created: trainCreated("demo"),
	})
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

func (d *demo) judge(ctx context.Context) (err error) {
	d.test = &evaluated{}
	if d.test.artifact, err = openFraud(d.path("fraud")); err != nil {
		return err
	}
	if err := d.test.place(d.con, d.features, given{}); err != nil {
		return err
	}
	if err := d.test.measure(ctx, d.con, d.features, nil, d.threads); err != nil {
		return err
	}
	d.test.compare()
	return d.findKinds(ctx)
}

// findKinds counts, for each planted kind, the purchases in the test range with at least one alert.
func (d *demo) findKinds(ctx context.Context) error {
	names := d.test.artifact.Manifest().Features
	p, err := d.test.artifact.NewPredictor(d.threads)
	if err != nil {
		return err
	}
	alerted := map[int64]bool{}
	planted := d.stream.Frauds()
	o := datasets.ReadOptions{Columns: append([]string{datasets.TransID}, names...), Range: d.days(demoLive, demoDays-1)}
	err = d.features.Read(ctx, o, func(b *datasets.Batch) error {
		scores, err := predictBatch(p, b, names)
		if err != nil {
			return err
		}
		for i, id := range b.Column(datasets.TransID).Ints {
			if _, fraud := planted[id]; fraud {
				alerted[id] = alerted[id] || scores[i] >= d.test.artifact.Manifest().Threshold
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, k := range []mock.Kind{mock.LargeAmount, mock.BadStore, mock.StolenCard} {
		f := kindFound{Kind: k.String()}
		for id, found := range alerted {
			if planted[id] == k {
				f.All++
				f.Found += btoi(found)
			}
		}
		d.kinds = append(d.kinds, f)
	}
	return nil
}

// live writes the last weeks as events without labels and puts them through the scorer one at a time, which brings all
// three models up to date, and compares its features and scores with the backfill.
func (d *demo) live(ctx context.Context) error {
	if err := d.writeEvents(ctx); err != nil {
		return err
	}
	models, err := openScored([]string{d.path("fraud"), d.path("demand"), d.path("recommend")}, d.threads)
	if err != nil {
		return err
	}
	d.demand.forecaster, d.offers.recommender = models.answering.Forecaster, models.answering.Recommender
	if err := d.foresee(); err != nil {
		return err
	}
	schema, err := models.input()
	if err != nil {
		return err
	}
	mapping, err := datasets.MappingFor(schema)
	if err != nil {
		return err
	}
	s, err := score.New(score.Options{Artifact: models.classifier, Followers: models.followers, Schema: mapping.LogSchema(), Job: "demo",
		Explain: score.ExplainAlerts, Reasons: model.DefaultReasons, Features: true})
	if err != nil {
		return err
	}
	if _, err := s.Warm(d.path("state")); err != nil {
		return err
	}
	src, err := source.Open(d.path("events.jsonl"), "", mapping, s.Position)
	if err != nil {
		return err
	}
	defer src.Close()
	out, err := sink.File(d.path("scores.jsonl"), true)
	if err != nil {
		return err
	}
	defer out.Abort()
	if err := d.scoreOneByOne(ctx, s, src, out); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return d.compareReplay(ctx)
}

func (d *demo) scoreOneByOne(ctx context.Context, s *score.Scorer, src *source.File, out io.Writer) error {
	bar := d.con.bar("replay", int64(d.replay.Events), "events")
	var took []time.Duration
	var line []byte
	start := time.Now()
	for {
		begin := time.Now()
		ev, err := src.Next(ctx, 1)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		if line, _, err = s.Process(ev, line[:0]); err != nil {
			return err
		}
		if _, err := out.Write(line); err != nil {
			return err
		}
		took = append(took, time.Since(begin))
		bar.Set(int64(len(took)), "")
	}
	bar.Done()
	if len(took) == 0 {
		return fmt.Errorf("%s has no events: ask for more --rows", d.path("events.jsonl"))
	}
	d.replay.Seconds = time.Since(start).Seconds()
	d.replay.PerSecond = float64(len(took)) / d.replay.Seconds
	slices.Sort(took)
	d.replay.Median = float64(took[len(took)/2].Nanoseconds()) / 1e3
	return nil
}

func (d *demo) writeEvents(ctx context.Context) error {
	in, err := datasets.Open(d.path("shop"))
	if err != nil {
		return err
	}
	f, err := atomicdir.CreateFile(d.path("events.jsonl"), true)
	if err != nil {
		return err
	}
	defer f.Abort()
	spec, err := features.Builtin(defaultFraudSpec)
	if err != nil {
		return err
	}
	// A fraud is known a while after the purchase: its label is an event of its own, before the purchases of that
	// instant.
	type label struct {
		at   int64
		text string
	}
	var labels []label
	err = in.Read(ctx, datasets.ReadOptions{Range: d.days(demoLive, demoDays-1)}, func(b *datasets.Batch) error {
		var text bytes.Buffer
		times, fraud := b.Column(datasets.TransDatetime), b.Column(datasets.IsFraud)
		for i := range b.N {
			for len(labels) > 0 && labels[0].at <= times.Ints[i] {
				text.WriteString(labels[0].text)
				labels = labels[1:]
			}
			writeEvent(&text, b, i)
			if fraud.Ints[i] == 1 {
				at := times.Ints[i] + spec.Delay()
				labels = append(labels, label{at, fmt.Sprintf(`{"event":"label","trans_id":%d,"line":%d,"is_fraud":1,"known_at":%q}`+"\n",
					b.Column(datasets.TransID).Ints[i], b.Column(datasets.Line).Ints[i], datasets.FormatTime(at))})
			}
		}
		d.replay.Events += b.N
		_, err := f.Write(text.Bytes())
		return err
	})
	if err != nil {
		return f.Err(err)
	}
	return f.Commit()
}

// writeEvent writes a transaction as a shop's till sends it: without the label.
func writeEvent(w *bytes.Buffer, b *datasets.Batch, row int) {
	sep := byte('{')
	for c := range b.Columns {
		f, column := &b.Schema.Fields[c], &b.Columns[c]
		if f.Name == datasets.IsFraud || column.IsNull(row) {
			continue
		}
		w.WriteByte(sep)
		sep = ','
		text := datasets.FormatValue(f, column, row)
		if f.Type == datasets.String || f.Type == datasets.Time {
			text = strconv.Quote(text)
		}
		fmt.Fprintf(w, "%q:%s", f.Name, text)
	}
	w.WriteString("}\n")
}

// compareReplay holds the scorer's lines against the backfill and keeps the alerts, highest scores first.
func (d *demo) compareReplay(ctx context.Context) error {
	f, err := os.Open(d.path("scores.jsonl"))
	if err != nil {
		return err
	}
	defer f.Close()
	p, err := compareWithBackfill(ctx, f, d.features, d.test.artifact, d.days(demoLive, demoDays-1), d.threads, func(l *scoreLine) {
		if l.Decision == "alert" {
			d.replay.alerts = append(d.replay.alerts, l)
		}
	})
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	d.replay.Differ, d.replay.Alerts = p.Differ, len(d.replay.alerts)
	slices.SortStableFunc(d.replay.alerts, func(a, b *scoreLine) int { return cmp.Compare(b.Scores.Fraud, a.Scores.Fraud) })
	return nil
}

func (d *demo) write(context.Context) error {
	f, err := atomicdir.CreateFile(d.path("report.html"), true)
	if err != nil {
		return err
	}
	defer f.Abort()
	d.took = time.Since(d.start)
	if err := report.Write(f, d.page()); err != nil {
		return f.Err(err)
	}
	return f.Commit()
}

// page is the report: what a shop owner wants to know first, then how good it was, then how it was made.
func (d *demo) page() *report.Page {
	e := d.test
	alerts, made := d.alertSection(), e.sections()
	made[0].Cards = append(e.cards(), made[0].Cards...)
	return &report.Page{
		Title: "The shop, when the last day has ended",
		Intro: d.summary(),
		Facts: []report.Fact{
			{Name: "The shop", Value: d.between(0, demoDays-1)},
			{Name: "Lines of purchases", Value: progress.Count(d.lines)},
			{Name: "Customers", Value: progress.Count(int64(d.mock.Users))},
			{Name: "Products", Value: progress.Count(int64(d.demand.trained.Series))},
			{Name: "Learned until", Value: d.between(demoLive-1, demoLive-1)},
			{Name: "Lived through", Value: d.between(demoLive, demoDays-1)},
			{Name: "Seed", Value: strconv.FormatUint(d.mock.Seed, 10)},
			{Name: "All of it took", Value: progress.Duration(d.took)},
		},
		Cards: d.cards(),
		Sections: slices.Concat(report.Sections{d.orderSection(), d.salesSection()}, d.offerSections(), report.Sections{alerts},
			report.Sections{d.forecastSection(), d.plantedSection(), d.liveSection()}, made),
		Footer: fmt.Sprintf("onmart %s, models %s (fraud), %s (demand), %s (recommend). The data are generated: the figures say nothing about real shops or cards.",
			buildVersion(), e.Model, d.demand.trained.Version, d.offers.trained.Version),
	}
}

// summary says what this is.
func (d *demo) summary() string {
	return fmt.Sprintf("A generated shop of a year and a half. Three models learned from what was known on %s: which purchases are fraud, what will be sold, what each customer wants next. Then the last %d days were lived through, event by event. This is what they say now, and how right they were.",
		d.between(demoLive-1, demoLive-1), demoDays-demoLive)
}

// cards are the figures for the owner.
func (d *demo) cards() []report.Card {
	needed := 0
	for _, o := range d.demand.orders {
		needed += btoi(o.Quantity > 0)
	}
	before, ahead := d.sold()
	a := d.test.ev.Alerts
	cards := []report.Card{
		{Label: "Products to order", Value: strconv.Itoa(needed), Note: fmt.Sprintf("of %d for sale", len(d.demand.orders))},
		{Label: "Units, next four weeks", Value: progress.Count(int64(ahead)), Note: fmt.Sprintf("%s in the last four", progress.Count(int64(before)))},
	}
	if test := d.demand.trained.Test; test != nil {
		c := report.Card{Label: "Error of the forecast", Value: strconv.FormatFloat(test.Model["rmsse"], 'f', 3, 64)}
		for _, b := range test.Baselines {
			if b.Name == "seasonal-naive" {
				c.Note = fmt.Sprintf("%.3f if each week were like the last", b.Metrics["rmsse"])
			}
		}
		cards = append(cards, c)
	}
	if test := d.offers.trained.Test; test != nil {
		cards = append(cards, report.Card{Label: "Lists that hit", Value: percent(test.Model["hit_rate_at_10"]), Note: "bought one of ten offered"})
	}
	return append(cards,
		report.Card{Label: "Alerts a day", Value: fmt.Sprintf("%.1f", a.PerDay), Note: percent(a.Precision) + " of them fraud"},
		report.Card{Label: "Frauds found", Value: percent(a.Recall), Note: "of the last four weeks"})
}

// between writes the days a to b, both included, for people.
func (d *demo) between(a, b int) string {
	const short, long = "Jan 2", "Jan 2, 2006"
	from, to := time.UnixMicro(d.day(a)).UTC(), time.UnixMicro(d.day(b)).UTC()
	switch {
	case a == b:
		return to.Format(long)
	case from.Year() != to.Year():
		return from.Format(long) + " to " + to.Format(long)
	}
	return from.Format(short) + " to " + to.Format(long)
}

func (d *demo) plantedSection() report.Section {
	truth := d.stream.Truth()
	kinds := report.Bars{Title: "Planted frauds found, by kind", Caption: "Share of all fraudulent purchases of the judged days that raised an alert, also on cards already known to be compromised.",
		Axis: report.Axis{Unit: report.Percent, Max: 1}, Wide: true}
	for _, k := range d.kinds {
		share := float64(k.Found) / float64(max(k.All, 1))
		kinds.Bars = append(kinds.Bars, report.Bar{Label: plantedWords[k.Kind], Value: share, Text: fmt.Sprintf("%d of %d", k.Found, k.All), Lead: true})
	}
	var lines []string
	for _, k := range d.kinds {
		lines = append(lines, fmt.Sprintf("%s %s", progress.Count(truth.FraudLines[k.Kind]), plantedHow[k.Kind]))
	}
	return report.Section{Heading: "What was planted", Text: []string{
		fmt.Sprintf("%s lines of %s purchases over %d days. Fraudulent lines: %s.", progress.Count(truth.Lines), progress.Count(truth.Purchases), demoDays, strings.Join(lines, ", ")),
		"A large amount gives itself away. A compromised store or a stolen card shows only in the history of the store or the card, which the features have to carry; the first frauds at a store cannot be told from good purchases until their labels are known."},
		Charts: []report.Chart{kinds}}
}

func (d *demo) liveSection() report.Section {
	differ := "every feature and every score is that of the backfill, to the bit"
	if d.replay.Differ > 0 {
		differ = fmt.Sprintf("%s of them differ from the backfill in a feature or in the score", progress.Count(int64(d.replay.Differ)))
	}
	return report.Section{Heading: "Live and backfill, bit by bit", Text: []string{
		fmt.Sprintf("The last %d days were written as %s events, with the labels of frauds as they became known, and put one at a time through the live scorer, which started from the state of the backfill: %s. Each event brought the forecaster and the recommender up to date too.", demoDays-demoLive, progress.Count(int64(d.replay.Events)), differ),
		fmt.Sprintf("Half of the events took less than %.0f microseconds on this machine: read, features, score, reasons for alerts, written.", d.replay.Median),
	}}
}

func (d *demo) alertSection() report.Section {
	return report.Section{Heading: "What is odd", Text: []string{
		fmt.Sprintf("How to read the reasons: the first one raised the score most. Typical is the middle value of all lines that were learned from. A fraud is known %s after the purchase, so that a store's latest 7 days with labels ended %[1]s before.", span(int64(d.test.Delay))),
	}, Tables: []report.Table{d.alertTable()}}
}

// span writes a time of whole days in words.
func span(us int64) string {
	if n := us / datasets.Day; n > 1 && us%datasets.Day == 0 {
		return fmt.Sprintf("%d days", n)
	}
	return datasets.FormatDuration(us)
}

// alertTable shows the purchases of the replay with the highest scores, each by its highest line.
func (d *demo) alertTable() report.Table {
	const most = 12
	t := report.Table{Columns: []report.Column{{Name: "time", Text: true}, {Name: "card"}, {Name: "store"}, {Name: "score"},
		{Name: "why", Text: true, Prose: true}, {Name: "what it was", Text: true}}}
	planted, purchases := d.stream.Frauds(), map[string]bool{}
	for _, a := range d.replay.alerts {
		seen := purchases[string(a.TransID)]
		purchases[string(a.TransID)] = true
		if seen || len(t.Rows) == most {
			continue
		}
		var why []string
		for _, r := range a.Reasons {
			why = append(why, r.Text)
		}
		truth := "genuine"
		if id, err := strconv.ParseInt(string(a.TransID), 10, 64); err == nil && planted[id] != mock.Genuine {
			truth = plantedWords[planted[id].String()]
		}
		when, _ := time.Parse(time.RFC3339, a.Datetime) // ours
		t.Rows = append(t.Rows, report.Row{Cells: []string{when.Format("Jan 2 15:04"), string(a.User),
			string(a.Store), fmt.Sprintf("%.3f", a.Scores.Fraud), strings.Join(why, "\n"), truth}})
	}
	t.Caption = fmt.Sprintf("The %d purchases with the highest scores, of %d that raised an alert in the replay.", len(t.Rows), len(purchases))
	return t
}

// What the kinds are called, and what a fraud of the kind was.
var (
	plantedWords = map[string]string{"large_amount": "large amount", "bad_store": "compromised store", "stolen_card": "stolen card"}
	plantedHow   = map[string]string{"large_amount": "of a large amount", "bad_store": "at a compromised store", "stolen_card": "with a stolen card"}
)

func (d *demo) result() any {
	return struct {
		Out       string             `json:"out"`
		Report    string             `json:"report"`
		Rows      int64              `json:"rows"`
		Test      *evaluated         `json:"test"`
		Kinds     []kindFound        `json:"kinds"`
		Replay    replayed           `json:"replay"`
		Orders    []itemOrder        `json:"orders"`
		Offers    []userOffers       `json:"offers"`
		Together  []basketOffers     `json:"together"`
		Seconds   float64            `json:"seconds"`
		Train     *fraud.Summary     `json:"train"`
		Demand    *demand.Summary    `json:"demand"`
		Recommend *recommend.Summary `json:"recommend"`
	}{d.out, d.path("report.html"), d.lines, d.test, d.kinds, d.replay, d.demand.orders, d.offers.users, d.offers.baskets,
		time.Since(d.start).Seconds(), d.trained, d.demand.trained, d.offers.trained}
}

func (d *demo) print(w io.Writer) error {
	fmt.Fprintf(w, "onmart demo: %s purchase lines generated, three models trained, judged and lived with for four weeks, in %s\n\nWhat to order tomorrow:\n",
		progress.Count(d.lines), progress.Duration(time.Since(d.start)))
	if err := d.printOrders(w); err != nil {
		return err
	}
	fmt.Fprintln(w, "\nWhat to offer to the customers who bought last:")
	if err := d.printOffers(w); err != nil {
		return err
	}
	fmt.Fprintf(w, "\n%s\n%s\n\nFraud:\n", wrapped(d.demandWords(), 110), wrapped(d.offerWords(), 110))
	if err := d.test.text(w); err != nil {
		return err
	}
	for _, s := range append(d.test.lossMeanings(), d.test.cardWords()) {
		fmt.Fprintln(w, wrapped(s, 110))
	}
	fmt.Fprintln(w)
	kinds := newTable("planted fraud", "purchases", "found", "share")
	for _, k := range d.kinds {
		kinds.add(plantedWords[k.Kind], strconv.Itoa(k.All), strconv.Itoa(k.Found), percent(float64(k.Found)/float64(k.All)))
	}
	if err := kinds.write(w); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nlive replay: %s events scored one at a time, %d differ from the backfill, half took less than %.0f us\n",
		progress.Count(int64(d.replay.Events)), d.replay.Differ, d.replay.Median)
	event, err := d.sample()
	if err != nil {
		return err
	}
	open := map[string]string{"darwin": "open", "windows": "explorer"}[runtime.GOOS]
	onmart := "onmart"
	if strings.Contains(os.Args[0], "go-build") { // go run has no binary to name
		onmart = "go run ./cmd/onmart"
	}
	_, err = fmt.Fprintf(w, "\nThe report is %s. To look at it, and to score one event by hand:\n  %s %[1]s\n  echo '%[3]s' | %[6]s score --model %[4]s --warm-from %[5]s --explain all\n",
		shellWord(d.path("report.html")), cmp.Or(open, "xdg-open"), event, shellWord(d.path("fraud")), shellWord(d.path("state")), onmart)
	return err
}

// sample is the event of the replay with the highest score, or the first where none raised an alert.
func (d *demo) sample() (string, error) {
	events, err := os.ReadFile(d.path("events.jsonl"))
	if err != nil {
		return "", err
	}
	lines := strings.SplitAfter(string(events), "\n")
	if len(d.replay.alerts) > 0 {
		a := d.replay.alerts[0]
		at := slices.IndexFunc(lines, func(l string) bool {
			return strings.HasPrefix(l, fmt.Sprintf(`{"trans_id":%s,"line":%s,`, a.TransID, a.Line))
		})
		lines = lines[max(at, 0):]
	}
	return strings.TrimSpace(lines[0]), nil
}

// wrapped breaks text at spaces into lines of at most width bytes, but for longer words.
func wrapped(s string, width int) string {
	var b strings.Builder
	at := 0
	for i, word := range strings.Fields(s) {
		switch {
		case i == 0:
		case at+1+len(word) > width:
			b.WriteByte('\n')
			at = 0
		default:
			b.WriteByte(' ')
			at++
		}
		b.WriteString(word)
		at += len(word)
	}
	return b.String()
}

// shellWord quotes a path for a POSIX shell where it needs it.
func shellWord(s string) string {
	if strings.ContainsAny(s, " \t\"'\\$`&|;<>()*?[]#~!") {
		return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
	}
	return s
}
