package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/forecast"
	"github.com/onmart/onmart/internal/atomicdir"
	"github.com/onmart/onmart/internal/progress"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/model/forecaster"
	"github.com/onmart/onmart/train/demand"
)

type forecastFlags struct {
	model, data, out, method, levels string
	series                           []string
	horizon, threads                 int
	components, orders               bool
	stock                            string
	policy                           forecast.Policy
	force                            *bool
}

func newForecastCmd() *cobra.Command {
	var f forecastFlags
	cmd := &cobra.Command{
		Use:   "forecast --model DIR",
		Short: "Forecast demand, and what to order",
		Long: `forecast answers from a model of onmart train demand: the expected demand of each series for the steps after
its history, with quantiles. The history is that of the model, or of --data (a panel or transactions) where it is newer.
The forecast is the combination of network and classical methods that was weighted on rolling folds; --method takes
one of them alone.

Without --out it prints: step by step where few series are asked for, sums over the horizon otherwise. --out writes
Parquet: series, step, mean, one column for each quantile (q05, q50, q97_5 ...) and the method.

--components takes each series and its forecast apart: level, trend, seasons and remainder.

--orders says what to order now, so that demand until the next order arrives (--lead and --review, in steps) is met with
the probability --service, or with the best one for the costs of --shortage and --excess a unit. --stock is what is
there: a number for all, or a CSV or Parquet file with the columns series (or the panel's key), on_hand and, if wanted,
on_order, lead, review, service, pack and minimum; a series without a row there has nothing.`,
		Args: cobra.NoArgs,
	}
	fl := cmd.Flags()
	fl.StringVar(&f.model, "model", "", "artifact `directory` of onmart train demand")
	fl.StringVar(&f.data, "data", "", "panel or transactions `directory` with newer history (default: the model's own)")
	fl.StringVar(&f.out, "out", "", "Parquet `file` to make")
	fl.StringArrayVar(&f.series, "series", nil, "`key` of a series; may be repeated (default: all)")
	fl.IntVar(&f.horizon, "horizon", 0, "`steps` to forecast (default: those trained for; with --orders, lead and review)")
	fl.StringVar(&f.method, "method", forecaster.Combination, "combination, network, or a classical `method`, such as ets")
	fl.StringVar(&f.levels, "levels", "", "quantile `levels` with commas between (default: the model's)")
	fl.BoolVar(&f.components, "components", false, "show level, trend, seasons and remainder")
	fl.BoolVar(&f.orders, "orders", false, "say what to order")
	fl.IntVar(&f.policy.Lead, "lead", 0, "`steps` from an order to its arrival")
	fl.IntVar(&f.policy.Review, "review", 7, "`steps` from one order to the next")
	fl.Float64Var(
		&f.policy.Service,
		"service",
		0,
		"`probability` of not running out that orders aim at (default .95 without costs)",
	)
	fl.Float64Var(&f.policy.Shortage, "shortage", 0, "`cost` of one unit asked for and not there")
	fl.Float64Var(&f.policy.Excess, "excess", 0, "`cost` of one unit left over")
	fl.Float64Var(&f.policy.Pack, "pack", 1, "`units` that can only be ordered together")
	fl.Float64Var(&f.policy.Minimum, "minimum", 0, "least `units` of an order")
	fl.Float64Var(
		&f.policy.Dependence,
		"dependence",
		forecast.DefaultDependence,
		"how demands of different steps move together: 0 not, 1 all",
	)
	fl.StringVar(&f.stock, "stock", "", "what is there: a number of units, or a CSV or Parquet `file`")
	fl.IntVar(&f.threads, "threads", 0, "threads (default one a core); they never change the result")
	f.force = addForce(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runForecast(cmd, &f) }
	return cmd
}

// check reports every fault of the flags at once.
func (f *forecastFlags) check() (levels []float64, err error) {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if f.model == "" {
		fault("--model is missing: name the directory that onmart train demand wrote")
	}
	if f.out != "" && filepath.Ext(f.out) != ".parquet" {
		fault("--out %s: forecasts are Parquet, so give a name that ends in .parquet", f.out)
	}
	if f.components && f.orders {
		fault("--components and --orders: ask for one of them")
	}
	if f.horizon < 0 || f.horizon > forecaster.MaxHorizon {
		fault("--horizon %d: want 1 to %d steps", f.horizon, forecaster.MaxHorizon)
	}
	if f.levels != "" {
		var c demand.Config
		if err := c.Set([]string{"levels=" + f.levels}); err != nil {
			fault("--levels %s: want ascending numbers between 0 and 1, such as .1,.5,.9", f.levels)
		}
		levels = c.Levels
	}
	if f.orders {
		if f.policy.Service == 0 && f.policy.Shortage == 0 && f.policy.Excess == 0 {
			f.policy.Service = .95
		}
		if f.policy.Service == 0 && !(f.policy.Shortage > 0 && f.policy.Excess > 0) {
			fault("--shortage %g and --excess %g: give both costs, above 0, or --service", f.policy.Shortage, f.policy.Excess)
		}
		if f.policy.Lead < 0 || f.policy.Review < 1 || f.policy.Lead+f.policy.Review > forecaster.MaxHorizon {
			fault(
				"--lead %d and --review %d: want a lead of at least 0 and a review of at least 1 step",
				f.policy.Lead,
				f.policy.Review,
			)
		}
	} else if f.stock != "" {
		fault("--stock is for --orders")
	}
	f.threads, err = threadCount(f.threads)
	return levels, errors.Join(append(faults, err)...)
}

// forecastReport is what forecast prints with --json.
type forecastReport struct {
	Model         string           `json:"model"`
	Method        string           `json:"method"`
	Out           string           `json:"out,omitempty"`
	From          string           `json:"from"`
	Horizon       int              `json:"horizon"`
	Series        int              `json:"series"`
	Closed        string           `json:"closed"`
	Rows          int              `json:"rows"`
	Forecasts     []forecastSeries `json:"forecasts,omitempty"` // without --out
	Orders        []itemOrder      `json:"orders,omitempty"`
	Seconds       float64          `json:"seconds"`
	RowsPerSecond float64          `json:"rows_per_second"`
}

// forecastSeries is one series of the report.
type forecastSeries struct {
	Series    string               `json:"series"`
	Steps     []string             `json:"steps"`
	Mean      []float64            `json:"mean"`
	Quantiles map[string][]float64 `json:"quantiles"`
}

func runForecast(cmd *cobra.Command, f *forecastFlags) error {
	ctx, con := cmd.Context(), consoleOf(cmd)
	levels, err := f.check()
	if err != nil {
		return usage(err)
	}
	var file *atomicdir.File
	if f.out != "" {
		if file, err = atomicdir.CreateFile(f.out, *f.force); err != nil {
			return err
		}
		defer file.Abort()
	}
	a, err := model.Open(f.model)
	if err != nil {
		return err
	}
	fc, err := forecaster.Open(a, f.threads)
	if err != nil {
		return err
	}
	if f.data != "" {
		if err := f.newer(ctx, con, a, fc); err != nil {
			return err
		}
	}
	start := time.Now()
	r := forecaster.Request{Keys: f.series, Horizon: f.horizon, Levels: levels, Method: f.method}
	var stocks map[string]stockRow
	if f.orders {
		if stocks, err = readStock(f.stock, f.policy, keyColumn(fc)); err != nil {
			return err
		}
		if r.Horizon == 0 {
			r.Horizon = protection(stocks, f.policy)
		}
	} else if r.Horizon == 0 {
		r.Horizon = fc.Model().Design.Horizon
	}
	answers, err := fc.Forecast(r)
	if err != nil {
		return err
	}
	report := &forecastReport{
		Model:   a.Manifest().Version,
		Method:  f.method,
		Out:     f.out,
		Horizon: r.Horizon,
		Series:  len(answers),
		Closed:  fc.Closed().String(),
	}
	if len(answers) > 0 {
		report.From = datasets.FormatTime(answers[0].Steps[0])
	}
	var rows *datasets.Batch
	var print func(io.Writer) error
	switch {
	case f.orders:
		report.Orders, err = plan(answers, stocks, f.policy, con)
		rows, print = ordersBatch(
			report.Orders,
		), func(w io.Writer) error { return printOrders(w, report.Orders, fc.Model().Unit) }
	case f.components:
		rows, err = componentsBatch(fc, answers)
		print = func(w io.Writer) error { return printComponents(w, rows, fc.Panel().Zone, fc.Model().Design.Step) }
	default:
		rows = forecastsBatch(answers)
		print = func(w io.Writer) error { return printForecasts(w, answers, fc.Panel().Zone, fc.Model().Design.Step) }
		if f.out == "" {
			report.Forecasts = forecastsOf(answers)
		}
	}
	if err != nil {
		return err
	}
	report.Rows = rows.N
	report.Seconds = time.Since(start).Seconds()
	report.RowsPerSecond = float64(rows.N) / report.Seconds
	if file != nil {
		if err := datasets.WriteTable(file, rows); err != nil {
			return file.Err(err)
		}
		if err := file.Commit(); err != nil {
			return err
		}
		print = func(w io.Writer) error {
			_, err := fmt.Fprintf(
				w,
				"%s: %s rows, %s series from %s on, by %s of model %s\n",
				f.out,
				progress.Count(int64(rows.N)),
				progress.Count(
					int64(len(answers)),
				),
				stepText(report.fromTime(answers), fc.Panel().Zone, fc.Model().Design.Step),
				f.method,
				report.Model,
			)
			return err
		}
	}
	return con.result(report, print)
}

func (r *forecastReport) fromTime(answers []forecaster.Answer) int64 {
	if len(answers) == 0 {
		return 0
	}
	return answers[0].Steps[0]
}

// newer takes the history of --data.
func (f *forecastFlags) newer(ctx context.Context, con *console, a *model.Artifact, fc *forecaster.Forecaster) error {
	d, err := openFeatures(ctx, con, f.data, a.Spec(), f.threads)
	if err != nil {
		return err
	}
	s, err := demand.OpenSource(d)
	if err != nil {
		return err
	}
	if s.Spec.Name() != a.Spec().Name() {
		return fmt.Errorf(
			"--data %s: its panel was made with the spec %s, the model with %s: give transactions, or a panel of the same spec",
			f.data,
			s.Spec.Name(),
			a.Spec().Name(),
		)
	}
	p, err := s.Load(ctx, math.MaxInt64, f.threads)
	if err != nil {
		return err
	}
	last, have := fc.Panel().Times, p.Times
	if have[len(have)-1] < last[len(last)-1] {
		con.notef(
			"the history of %s ends at %s, before the model's own: it is what is forecast from",
			f.data,
			datasets.FormatTime(have[len(have)-1]),
		)
	}
	var engine *features.Panel
	if s.Transactions != nil {
		state, err := features.StateOf(ctx, s.Spec, s.Transactions, math.MaxInt64, nil)
		if err != nil {
			return err
		}
		engine, _ = state.(*features.Panel) // a panel's spec makes no other
	} else if len(fc.Model().Design.Known) > 0 {
		con.notef("what is known in advance of the steps to come (%s) stays as it was last: %s",
			strings.Join(fc.Model().Design.Known, ", "), s.NoTransactions)
	}
	return fc.Replace(p, engine)
}

func stepText(t int64, zone *time.Location, s forecast.Step) string {
	if zone == nil {
		zone = time.UTC
	}
	at := time.UnixMicro(t).In(zone)
	if s == forecast.Hour {
		return at.Format("2006-01-02 15:04")
	}
	return at.Format("Mon 2006-01-02")
}

// quantileName is the column of a level: q05, q50, q97_5.
func quantileName(q float64) string {
	s := strconv.FormatFloat(math.Round(q*1e6)/1e4, 'f', -1, 64)
	if q < .1 {
		s = "0" + s
	}
	return "q" + strings.ReplaceAll(s, ".", "_")
}

func forecastsOf(answers []forecaster.Answer) []forecastSeries {
	out := []forecastSeries{}
	for _, a := range answers {
		s := forecastSeries{Series: a.Key, Mean: a.Mean, Quantiles: map[string][]float64{}}
		for _, t := range a.Steps {
			s.Steps = append(s.Steps, datasets.FormatTime(t))
		}
		for l, q := range a.Levels {
			s.Quantiles[quantileName(q)] = a.Quantiles[l]
		}
		out = append(out, s)
	}
	return out
}

func forecastsBatch(answers []forecaster.Answer) *datasets.Batch {
	s := &datasets.Schema{Fields: []datasets.Field{
		{
			Name: features.ColumnSeries,
			Type: datasets.String,
		}, {Name: features.ColumnStep, Type: datasets.Time}, {Name: "mean", Type: datasets.Float64}}}
	var levels []float64
	if len(answers) > 0 {
		levels = answers[0].Levels
	}
	for _, q := range levels {
		s.Fields = append(s.Fields, datasets.Field{Name: quantileName(q), Type: datasets.Float64})
	}
	s.Fields = append(s.Fields, datasets.Field{Name: "method", Type: datasets.String})
	b := datasets.NewBatch(s, 0)
	for _, a := range answers {
		for t, at := range a.Steps {
			b.Columns[0].Strings = append(b.Columns[0].Strings, a.Key)
			b.Columns[1].Ints = append(b.Columns[1].Ints, at)
			b.Columns[2].Floats = append(b.Columns[2].Floats, a.Mean[t])
			for l := range levels {
				b.Columns[3+l].Floats = append(b.Columns[3+l].Floats, a.Quantiles[l][t])
			}
			last := &b.Columns[3+len(levels)]
			last.Strings = append(last.Strings, a.Method)
			b.N++
		}
	}
	return b
}

// fewSeries are shown step by step; of more, shownSeries have a line each.
const (
	fewSeries   = 3
	shownSeries = 20
)

func printForecasts(w io.Writer, answers []forecaster.Answer, zone *time.Location, step forecast.Step) error {
	if len(answers) == 0 {
		_, err := fmt.Fprintln(w, "there is no series to forecast")
		return err
	}
	number := func(x float64) string { return strconv.FormatFloat(x, 'f', decimals(answers), 64) }
	if len(answers) <= fewSeries {
		for _, a := range answers {
			header := []string{a.Key, "mean"}
			for _, q := range a.Levels {
				header = append(header, quantileName(q))
			}
			t := newTable(header...)
			for k, at := range a.Steps {
				cells := []string{stepText(at, zone, step), number(a.Mean[k])}
				for l := range a.Levels {
					cells = append(cells, number(a.Quantiles[l][k]))
				}
				t.add(cells...)
			}
			if err := t.write(w); err != nil {
				return err
			}
			fmt.Fprintln(w)
		}
		return nil
	}
	first := answers[0].Steps
	fmt.Fprintf(
		w,
		"sums of the mean over %d steps, %s to %s\n",
		len(first),
		stepText(first[0], zone, step),
		stepText(first[len(first)-1], zone, step),
	)
	sums := make([]float64, len(answers))
	order := make([]int, len(answers))
	for i, a := range answers {
		order[i] = i
		for _, y := range a.Mean {
			sums[i] += y
		}
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case sums[a] > sums[b]:
			return -1
		case sums[a] < sums[b]:
			return 1
		}
		return 0
	})
	t := newTable("series", "sum", "a step", "kind")
	for _, i := range order[:min(shownSeries, len(order))] {
		t.add(answers[i].Key, number(sums[i]), number(sums[i]/float64(len(first))), answers[i].Class)
	}
	if err := t.write(w); err != nil {
		return err
	}
	if n := len(answers) - shownSeries; n > 0 {
		fmt.Fprintf(
			w,
			"and %s more: --series KEY shows one step by step, --out FILE.parquet writes all\n",
			progress.Count(int64(n)),
		)
	}
	return nil
}

// decimals shows small numbers with more of them.
func decimals(answers []forecaster.Answer) int {
	var top float64
	for _, a := range answers {
		for _, y := range a.Mean {
			top = math.Max(top, math.Abs(y))
		}
	}
	switch {
	case top >= 100:
		return 0
	case top >= 10:
		return 1
	}
	return 2
}

// componentsBatch takes series apart: a row for each step of history and horizon.
func componentsBatch(fc *forecaster.Forecaster, answers []forecaster.Answer) (*datasets.Batch, error) {
	s := &datasets.Schema{Fields: []datasets.Field{
		{
			Name: features.ColumnSeries,
			Type: datasets.String,
		}, {Name: features.ColumnStep, Type: datasets.Time}, {Name: "ahead", Type: datasets.Int64},
		{
			Name: "value",
			Type: datasets.Float64,
		}, {Name: "level", Type: datasets.Float64}, {Name: "trend", Type: datasets.Float64}}}
	seasons := fc.Model().Design.Seasons
	for i := range seasons {
		s.Fields = append(s.Fields, datasets.Field{Name: fmt.Sprintf("season_%d", i+1), Type: datasets.Float64})
	}
	s.Fields = append(
		s.Fields,
		datasets.Field{Name: "remainder", Type: datasets.Float64},
		datasets.Field{Name: "closed", Type: datasets.Int64},
	)
	b := datasets.NewBatch(s, 0)
	put := func(c int, x float64) { b.Columns[c].Floats = append(b.Columns[c].Floats, x) }
	for i := range answers {
		a := &answers[i]
		c, series, err := fc.Decompose(a)
		if err != nil {
			return nil, err
		}
		times := append(slices.Clone(fc.Panel().Times[series.First:]), a.Steps...)
		for t := range c.Level {
			b.Columns[0].Strings = append(b.Columns[0].Strings, a.Key)
			b.Columns[1].Ints = append(b.Columns[1].Ints, times[t])
			b.Columns[2].Ints = append(b.Columns[2].Ints, int64(max(0, t-c.History+1)))
			if t < c.History {
				put(3, series.Y[t])
			} else {
				put(3, a.Mean[t-c.History])
			}
			put(4, finite(c.Level[t]))
			put(5, finite(c.Trend[t]))
			for k := range seasons {
				v := 0.
				if k < len(c.Seasons) {
					v = finite(c.Seasons[k].Values[t])
				}
				put(6+k, v)
			}
			put(6+len(seasons), finite(c.Remainder[t]))
			closed := int64(0)
			if c.Closed[t] {
				closed = 1
			}
			b.Columns[7+len(seasons)].Ints = append(b.Columns[7+len(seasons)].Ints, closed)
			b.N++
		}
	}
	return b, nil
}

// finite is 0 for a step that has no component: a closed one.
func finite(x float64) float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return 0
	}
	return x
}

// shownHistory is how many steps of history a table of components begins with.
const shownHistory = 14

func printComponents(w io.Writer, b *datasets.Batch, zone *time.Location, step forecast.Step) error {
	var t *table
	shown := 0
	for i := range b.N {
		key := b.Columns[0].Strings[i]
		if i == 0 || key != b.Columns[0].Strings[i-1] {
			if t != nil {
				if err := t.write(w); err != nil {
					return err
				}
				fmt.Fprintln(w)
			}
			if shown++; shown > fewSeries {
				_, err := fmt.Fprintln(w, "and more series: --series KEY chooses one, --out FILE.parquet writes all")
				return err
			}
			header := []string{key, ""}
			for _, f := range b.Schema.Fields[3 : len(b.Columns)-1] {
				header = append(header, f.Name)
			}
			t = newTable(header...)
		}
		ahead := b.Columns[2].Ints[i]
		if ahead == 0 && !lastSteps(b, i, shownHistory) {
			continue
		}
		kind := "history"
		if ahead > 0 {
			kind = "forecast"
		}
		last := len(b.Columns) - 1
		if b.Columns[last].Ints[i] == 1 {
			kind += ", closed"
		}
		cells := []string{stepText(b.Columns[1].Ints[i], zone, step), kind}
		for c := 3; c < last; c++ {
			cells = append(cells, strconv.FormatFloat(b.Columns[c].Floats[i], 'f', 2, 64))
		}
		t.add(cells...)
	}
	if t == nil {
		_, err := fmt.Fprintln(w, "there is no series to show")
		return err
	}
	return t.write(w)
}

// lastSteps tells whether a row of history is one of the last n of its series.
func lastSteps(b *datasets.Batch, i, n int) bool {
	j := i + n
	return j >= b.N || b.Columns[0].Strings[j] != b.Columns[0].Strings[i] || b.Columns[2].Ints[j] > 0
}

// stockRow is what an item has, and its own policy.
type stockRow struct {
	forecast.Stock
	policy forecast.Policy
}

// stockAll is the entry of readStock for items without a row.
const stockAll = ""

// keyColumn is the one key of the panel, by whose name a file of stock may call the series; "" where there are several.
func keyColumn(fc *forecaster.Forecaster) string {
	if p := fc.Plan(); p != nil && len(p.Panel().Keys) == 1 {
		return p.Panel().Keys[0]
	}
	return ""
}

// readStock reads --stock: a number for every item, or a file.
func readStock(text string, policy forecast.Policy, keyName string) (map[string]stockRow, error) {
	all := stockRow{policy: policy}
	if text == "" {
		return map[string]stockRow{stockAll: all}, nil
	}
	if n, err := strconv.ParseFloat(text, 64); err == nil {
		if math.IsNaN(n) || math.IsInf(n, 0) {
			return nil, usagef("--stock %s: want a number of units", text)
		}
		all.OnHand = n
		return map[string]stockRow{stockAll: all}, nil
	}
	var names []string
	var cells [][]string
	var err error
	if filepath.Ext(text) == ".parquet" {
		names, cells, err = parquetCells(text)
	} else {
		names, cells, err = csvCells(text)
	}
	if err != nil {
		return nil, fmt.Errorf("--stock: %w", err)
	}
	out := map[string]stockRow{stockAll: all}
	key, hand := slices.Index(names, features.ColumnSeries), slices.Index(names, "on_hand")
	if key < 0 && keyName != "" {
		key = slices.Index(names, keyName)
	}
	if key < 0 || hand < 0 {
		return nil, fmt.Errorf("--stock %s: it has the columns %s; want series and on_hand", text, strings.Join(names, ", "))
	}
	for i, row := range cells {
		r := stockRow{policy: policy}
		if _, twice := out[row[key]]; twice {
			return nil, fmt.Errorf("--stock %s: row %d: series %q has a row already, or no name", text, i+1, row[key])
		}
		for c, name := range names {
			if c == key || row[c] == "" {
				continue
			}
			if err := r.set(name, row[c]); err != nil {
				return nil, fmt.Errorf("--stock %s: row %d, column %s: %w", text, i+1, name, err)
			}
		}
		out[row[key]] = r
	}
	return out, nil
}

// policyColumns are the columns that say something; others are the shop's own.
var policyColumns = []string{"on_hand", "on_order", "lead", "review", "service", "pack", "minimum"}

func (r *stockRow) set(name, text string) error {
	if !slices.Contains(policyColumns, name) {
		return nil
	}
	x, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
	if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
		return fmt.Errorf("%q is no number", text)
	}
	whole := func(to *int, least float64) error {
		if x != math.Trunc(x) || x < least || x > forecaster.MaxHorizon {
			return fmt.Errorf("%s: want a whole number of steps from %g on", text, least)
		}
		*to = int(x)
		return nil
	}
	switch name {
	case "on_hand":
		r.OnHand = x
	case "on_order":
		r.OnOrder = x
	case "lead":
		return whole(&r.policy.Lead, 0)
	case "review":
		return whole(&r.policy.Review, 1)
	case "service":
		r.policy.Service, r.policy.Shortage, r.policy.Excess = x, 0, 0
	case "pack":
		r.policy.Pack = x
	case "minimum":
		r.policy.Minimum = x
	}
	return nil
}

func csvCells(path string) (names []string, cells [][]string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	r := csv.NewReader(f)
	if names, err = r.Read(); err != nil {
		return nil, nil, fmt.Errorf("%s: it has no line of column names: %w", path, err)
	}
	cells, err = r.ReadAll()
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return names, cells, err
}

func parquetCells(path string) (names []string, cells [][]string, err error) {
	b, err := datasets.ReadTable(path)
	if err != nil {
		return nil, nil, err
	}
	cells = make([][]string, b.N)
	for c, f := range b.Schema.Fields {
		names = append(names, f.Name)
		col := &b.Columns[c]
		for i := range cells {
			text := ""
			switch {
			case col.IsNull(i):
			case f.Type == datasets.String:
				text = col.Strings[i]
			case f.Type == datasets.Float64:
				text = strconv.FormatFloat(col.Floats[i], 'g', -1, 64)
			default:
				text = strconv.FormatInt(col.Ints[i], 10)
			}
			cells[i] = append(cells[i], text)
		}
	}
	return names, cells, nil
}

// protection is the longest time that an order has to last.
func protection(stocks map[string]stockRow, p forecast.Policy) int {
	most := p.Lead + p.Review
	for _, r := range stocks {
		most = max(most, r.policy.Lead+r.policy.Review)
	}
	return most
}

// itemOrder is what to order of one item.
type itemOrder struct {
	Series       string  `json:"series"`
	OnHand       float64 `json:"on_hand"`
	OnOrder      float64 `json:"on_order"`
	Lead         int     `json:"lead"`
	Review       int     `json:"review"`
	Quantity     float64 `json:"order_quantity"`
	Target       float64 `json:"order_up_to"`
	ReorderPoint float64 `json:"reorder_point"`
	SafetyStock  float64 `json:"safety_stock"`
	Expected     float64 `json:"expected_demand"`
	Service      float64 `json:"service"`
	RunsOut      float64 `json:"stock_out_probability"`
	WithoutOrder float64 `json:"stock_out_probability_without_order"`
	Before       float64 `json:"stock_out_probability_before_arrival"`
}

func plan(
	answers []forecaster.Answer,
	stocks map[string]stockRow,
	policy forecast.Policy,
	con *console,
) ([]itemOrder, error) {
	out := []itemOrder{}
	without := 0
	for i := range answers {
		a := &answers[i]
		row, ok := stocks[a.Key]
		if !ok {
			row = stocks[stockAll]
			without++
		}
		o, err := forecast.PlanOrder(&a.Forecast, a.Levels, row.Stock, row.policy)
		if err != nil {
			return nil, fmt.Errorf("series %q: %w", a.Key, err)
		}
		out = append(out, itemOrder{
			a.Key, row.OnHand, row.OnOrder, row.policy.Lead, row.policy.Review,
			o.Quantity, o.Target, o.ReorderPoint, o.SafetyStock, o.Expected,
			o.Fractile, o.RunsOut, o.WithoutOrder, o.BeforeArrival,
		})
	}
	if len(stocks) > 1 && without > 0 {
		con.notef(
			"%s of %s series have no row in --stock: they are taken to have nothing",
			progress.Count(int64(without)),
			progress.Count(int64(len(answers))),
		)
	}
	return out, nil
}

func ordersBatch(orders []itemOrder) *datasets.Batch {
	names := []string{
		"on_hand",
		"on_order",
		"lead",
		"review",
		"order_quantity",
		"order_up_to",
		"reorder_point",
		"safety_stock",
		"expected_demand",
		"service",
		"stock_out_probability",
		"stock_out_probability_without_order",
		"stock_out_probability_before_arrival",
	}
	s := &datasets.Schema{Fields: []datasets.Field{{Name: features.ColumnSeries, Type: datasets.String}}}
	for _, n := range names {
		s.Fields = append(s.Fields, datasets.Field{Name: n, Type: datasets.Float64})
	}
	b := datasets.NewBatch(s, 0)
	for _, o := range orders {
		b.Columns[0].Strings = append(b.Columns[0].Strings, o.Series)
		for c, x := range []float64{o.OnHand, o.OnOrder, float64(o.Lead), float64(o.Review),
			o.Quantity, o.Target, o.ReorderPoint, o.SafetyStock, o.Expected, o.Service,
			o.RunsOut, o.WithoutOrder, o.Before} {
			b.Columns[1+c].Floats = append(b.Columns[1+c].Floats, x)
		}
		b.N++
	}
	return b
}

// shownOrders is how many lines a table of orders has; the largest orders come first.
const shownOrders = 40

func printOrders(w io.Writer, orders []itemOrder, unit string) error {
	sorted := slices.Clone(orders)
	slices.SortStableFunc(sorted, func(a, b itemOrder) int {
		switch {
		case a.Quantity > b.Quantity:
			return -1
		case a.Quantity < b.Quantity:
			return 1
		}
		return 0
	})
	number := func(x float64) string { return strconv.FormatFloat(x, 'f', 1, 64) }
	share := func(x float64) string { return strconv.FormatFloat(100*x, 'f', 1, 64) + " %" }
	t := newTable(
		"series",
		"order",
		"on hand",
		"on order",
		"expected",
		"safety",
		"up to",
		"reorder at",
		"runs out",
		"without order",
		"before arrival",
	)
	placed := 0
	for i, o := range sorted {
		if o.Quantity > 0 {
			placed++
		}
		if i < shownOrders {
			t.add(
				o.Series,
				strconv.FormatFloat(o.Quantity, 'f', -1, 64),
				number(o.OnHand),
				number(o.OnOrder),
				number(o.Expected),
				number(o.SafetyStock),
				number(o.Target),
				number(o.ReorderPoint),
				share(o.RunsOut),
				share(o.WithoutOrder),
				share(o.Before),
			)
		}
	}
	if err := t.write(w); err != nil {
		return err
	}
	if n := len(sorted) - shownOrders; n > 0 {
		fmt.Fprintf(w, "and %s more: --out FILE.parquet writes all\n", progress.Count(int64(n)))
	}
	in := ""
	if unit != "" {
		in = " (in " + unit + ")"
	}
	_, err := fmt.Fprintf(
		w,
		"%s of %s items are to be ordered%s\n",
		progress.Count(int64(placed)),
		progress.Count(int64(len(orders))),
		in,
	)
	return err
}
