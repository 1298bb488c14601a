package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/datasets/mock"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/forecast"
	"github.com/onmart/onmart/internal/progress"
	"github.com/onmart/onmart/internal/report"
	"github.com/onmart/onmart/score/model/forecaster"
	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/demand"
)

// The demo's forecasts: how far, and how many products are drawn.
const (
	demoHorizon = demoDays - demoLive
	demoDrawn   = 4
)

// demandShown is what the demo found out about demand.
type demandShown struct {
	trained    *demand.Summary
	forecaster *forecaster.Forecaster // live: its history ends where the events end
	before     []forecaster.Answer    // of the drawn products, from what was known before the last weeks
	after      []forecaster.Answer    // of every product, from what is known now
	orders     []itemOrder            // of every product that is for sale
	names      map[string]string      // of products
}

// shaped runs a built-in spec over the shop.
func (d *demo) shaped(ctx context.Context, spec, part string) (*datasets.Dataset, error) {
	in, err := datasets.Open(d.path("shop"))
	if err != nil {
		return nil, err
	}
	s, err := features.Builtin(spec)
	if err != nil {
		return nil, err
	}
	bar := d.con.bar(part, in.Manifest().Rows, "rows")
	o := features.RunOptions{Spec: s, In: in, Out: d.path(part), Force: true, Threads: d.threads, Created: d.created(),
		Progress: func(done, _ int64) { bar.Set(done, "") }}
	if _, err := features.Run(ctx, o); err != nil {
		return nil, err
	}
	bar.Done()
	return datasets.Open(d.path(part))
}

func (d *demo) trainDemand(ctx context.Context) error {
	panel, err := d.shaped(ctx, "shop-daily", "panel")
	if err != nil {
		return err
	}
	config := demand.DefaultConfig()
	config.Rows = 2 * d.mock.Rows // two or three minutes of a real training are not what a demo is for
	config.Hidden, config.Epochs = []int{128, 128}, 3
	backend, closeBackend, err := openBackend(d.con, deviceFlags{name: "auto", threads: d.threads}, demandLacks(config, nil))
	if err != nil {
		return err
	}
	defer giveBack(d.con, closeBackend)
	src, err := demand.OpenSource(panel)
	if err != nil {
		return err
	}
	test := d.days(demoLive, demoDays-1)
	defer os.RemoveAll(train.CheckpointDir(d.path("demand")))
	d.demand.trained, err = demand.Train(ctx, demand.Options{
		Source: src, Out: d.path("demand"), Force: true, Train: d.days(0, demoLive-1), Test: &test, Horizon: demoHorizon,
		Config: config, Seed: d.mock.Seed, Threads: d.threads, Backend: backend,
		Note: d.con.notef, Bar: d.con.bar, Created: trainCreated("demo"),
	})
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// foresee keeps the forecasts of the products that are drawn as they were before the last weeks.
func (d *demo) foresee() (err error) {
	p := d.demand.forecaster.Panel()
	sold := map[string]float64{}
	var keys []string
	for _, s := range p.Series {
		for _, y := range s.Y[max(0, len(s.Y)-90):] {
			sold[s.Key] += y
		}
		keys = append(keys, s.Key)
	}
	slices.SortStableFunc(keys, func(a, b string) int { return cmp.Compare(sold[b], sold[a]) })
	d.demand.before, err = d.demand.forecaster.Forecast(forecaster.Request{Keys: keys[:min(demoDrawn, len(keys))], Horizon: demoHorizon})
	return err
}

// order plans what to order when the last day has ended.
func (d *demo) order(stocks map[string]stockRow) (err error) {
	f := d.demand.forecaster
	if err := f.Advance(d.day(demoDays)); err != nil {
		return err
	}
	horizon := max(demoHorizon, protection(stocks, forecast.Policy{}))
	if d.demand.after, err = f.Forecast(forecaster.Request{Horizon: horizon}); err != nil {
		return err
	}
	var forSale []forecaster.Answer
	for _, a := range d.demand.after {
		if _, ok := stocks[a.Key]; ok {
			forSale = append(forSale, a)
		}
	}
	if d.demand.orders, err = plan(forSale, stocks, forecast.Policy{}, d.con); err != nil {
		return err
	}
	slices.SortStableFunc(d.demand.orders, func(a, b itemOrder) int { return cmp.Compare(b.WithoutOrder, a.WithoutOrder) })
	return nil
}

// stock is what the shop has of each product for sale, and when it can order more.
func (d *demo) stock() (map[string]stockRow, error) {
	products, err := d.table(mock.ProductsFile)
	if err != nil {
		return nil, err
	}
	d.demand.names = map[string]string{}
	policies := map[string]forecast.Policy{}
	for i, id := range products.Column(datasets.ProductID).Strings {
		d.demand.names[id] = products.Column("name").Strings[i]
		policies[id] = forecast.Policy{Lead: int(products.Column("lead_days").Ints[i]), Review: int(products.Column("review_days").Ints[i]),
			Service: .95, Pack: 1, Dependence: forecast.DefaultDependence}
	}
	stock, err := d.table(mock.StockFile)
	if err != nil {
		return nil, err
	}
	rows := map[string]stockRow{}
	for i, id := range stock.Column(datasets.ProductID).Strings {
		has := forecast.Stock{OnHand: float64(stock.Column("on_hand").Ints[i]), OnOrder: float64(stock.Column("on_order").Ints[i])}
		rows[id] = stockRow{Stock: has, policy: policies[id]}
	}
	return rows, nil
}

// table reads one of the shop's tables.
func (d *demo) table(file string) (*datasets.Batch, error) {
	b, err := os.ReadFile(filepath.Join(d.path("shop"), file))
	if err != nil {
		return nil, err
	}
	return datasets.DecodeTable(b)
}

// sold are the units of the last weeks and those expected of as many to come.
func (d *demo) sold() (before, ahead float64) {
	p := d.demand.forecaster.Panel()
	for i := range p.Series {
		y := p.Series[i].Y
		for _, v := range y[max(0, len(y)-demoHorizon):] {
			before += v
		}
	}
	for _, a := range d.demand.after {
		for _, v := range a.Mean[:demoHorizon] {
			ahead += v
		}
	}
	return before, ahead
}

// printOrders writes the orders of the products that are nearest to running out.
func (d *demo) printOrders(w io.Writer) error {
	const most = 5
	t := newTable("product", "order", "in stock", "expected demand", "days", "runs out without")
	for _, o := range d.demand.orders {
		if o.Quantity > 0 && len(t.rows) <= most {
			t.add(d.name(o.Series), number0(o.Quantity), number0(o.OnHand), number0(o.Expected), strconv.Itoa(o.Lead+o.Review), percent(o.WithoutOrder))
		}
	}
	return t.write(w)
}

// number0 writes a number without decimals.
func number0(x float64) string { return strconv.FormatFloat(x, 'f', 0, 64) }

func (d *demo) orderSection() report.Section {
	const most = 15
	t := report.Table{Columns: []report.Column{{Name: "product", Text: true}, {Name: "order"}, {Name: "in stock"}, {Name: "coming"},
		{Name: "demand"}, {Name: "for days"}, {Name: "runs out without"}, {Name: "with"}}}
	ordered, units := 0, 0.0
	for _, o := range d.demand.orders {
		if o.Quantity == 0 {
			continue
		}
		ordered++
		units += o.Quantity
		if len(t.Rows) < most {
			t.Rows = append(t.Rows, report.Row{Cells: []string{d.name(o.Series), number0(o.Quantity), number0(o.OnHand), number0(o.OnOrder), number0(o.Expected),
				strconv.Itoa(o.Lead + o.Review), percent(o.WithoutOrder), percent(o.RunsOut)}})
		}
	}
	t.Caption = fmt.Sprintf("The %d products that are nearest to running out. Demand is what is expected until an order of the next round arrives; the last columns are the probabilities of running out before, without the order and with it, which aims at 5%%.", len(t.Rows))
	return report.Section{Heading: "What to order tomorrow",
		Text:   []string{fmt.Sprintf("%s of %s products need an order now, %s units in all.", progress.Count(int64(ordered)), progress.Count(int64(len(d.demand.orders))), progress.Count(int64(units)))},
		Tables: []report.Table{t}}
}

// name is a product for people.
func (d *demo) name(id string) string {
	if n := d.demand.names[id]; n != "" {
		return n + " (" + id + ")"
	}
	return id
}

func (d *demo) salesSection() report.Section {
	p := d.demand.forecaster.Panel()
	const shown = 120
	from := max(0, len(p.Times)-shown)
	sold := make([]float64, len(p.Times)-from)
	for i := range p.Series {
		s := &p.Series[i]
		for t := max(from, s.First); t < len(p.Times); t++ {
			sold[t-from] += s.Y[t-s.First]
		}
	}
	past := report.Series{Name: "sold"}
	for k, y := range sold {
		past.Points = append(past.Points, report.Point{X: float64(p.Times[from+k]), Y: y})
	}
	ahead := report.Series{Name: "expected"}
	for k, at := range d.demand.after[0].Steps[:demoHorizon] {
		var sum float64
		for _, a := range d.demand.after {
			sum += a.Mean[k]
		}
		ahead.Points = append(ahead.Points, report.Point{X: float64(at), Y: sum})
	}
	return report.Section{Heading: "What will sell", Charts: []report.Chart{report.Line{
		Title: "Units a day, the whole shop", Caption: "Sold so far, and expected in the next four weeks. Closed days are zero.",
		X: report.Axis{Unit: report.Date}, Y: report.Axis{Label: "units", Unit: report.Count}, Series: []report.Series{past, ahead}, Wide: true}}}
}

func (d *demo) forecastSection() report.Section {
	p := d.demand.forecaster.Panel()
	at := map[string]int{}
	for i := range p.Series {
		at[p.Series[i].Key] = i
	}
	s := report.Section{Heading: "Was it right?"}
	if test := d.demand.trained.Test; test != nil {
		s.Text = append(s.Text, "Four weeks ago the forecasts below were made. They are drawn with the range that nine of ten days should lie in, and with what came.", d.demandWords())
		s.Tables = append(s.Tables, judgedTable(test))
	}
	for _, a := range d.demand.before {
		band := report.Series{Name: "forecast", Band: true}
		low, high := slices.Index(a.Levels, .05), slices.Index(a.Levels, .95)
		for k, t := range a.Steps {
			band.Points = append(band.Points, report.Point{X: float64(t), Y: a.Mean[k], Low: a.Quantiles[low][k], High: a.Quantiles[high][k]})
		}
		came := report.Series{Name: "sold", Muted: true}
		series := &p.Series[at[a.Key]]
		for t := max(0, len(p.Times)-demoHorizon-28); t < len(p.Times); t++ {
			came.Points = append(came.Points, report.Point{X: float64(p.Times[t]), Y: series.Y[t-series.First]})
		}
		s.Charts = append(s.Charts, report.Line{Title: d.name(a.Key), X: report.Axis{Unit: report.Date}, Y: report.Axis{Label: "units a day", Unit: report.Count},
			Series: []report.Series{came, band}})
	}
	return s
}

// demandWords says how good the forecasts were.
func (d *demo) demandWords() string {
	test := d.demand.trained.Test
	if test == nil {
		return ""
	}
	words := fmt.Sprintf("Four weeks ahead, the error of the demand of %d products (RMSSE, in units of their day-to-day changes) is %.3f", test.Series, test.Model["rmsse"])
	for _, b := range test.Baselines {
		if b.Name == "seasonal-naive" {
			words += fmt.Sprintf("; expecting each day what the same weekday sold before gives %.3f", b.Metrics["rmsse"])
		}
	}
	return words + "."
}

// judgedTable is the forecaster beside the methods alone.
func judgedTable(j *demand.TestSummary) report.Table {
	columns := []string{"rmsse", "wrmsse", "mase", "pinball_50", "pinball_90", "pinball_95"}
	t := report.Table{Caption: "On the last four weeks, lower is better. rmsse and mase are errors in units of a product's own day-to-day changes, wrmsse weighs products by revenue; pinball is the error of a quantile.",
		Columns: []report.Column{{Name: "forecast", Text: true}}}
	for _, c := range columns {
		t.Columns = append(t.Columns, report.Column{Name: c})
	}
	add := func(name string, m demand.Metrics, lead bool) {
		r := report.Row{Cells: []string{name}, Lead: lead}
		for _, c := range columns {
			cell := ""
			if v, ok := m[c]; ok {
				cell = strconv.FormatFloat(v, 'f', 3, 64)
			}
			r.Cells = append(r.Cells, cell)
		}
		t.Rows = append(t.Rows, r)
	}
	add("combination", j.Model, true)
	for _, b := range j.Baselines {
		add(b.Name, b.Metrics, false)
	}
	return t
}
