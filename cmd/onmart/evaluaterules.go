package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score/rules"
	"github.com/onmart/onmart/train/fraud"
)

// backTest is what rules would have done on the evaluated rows.
type backTest struct {
	File  string       `json:"file"`
	Rules []ruleResult `json:"rules"`
	// Combined is of rules and model together: block and review are alerts, allow is none, and where no rule decides the
	// model does. Cards that a rule blocks are checked first, then those that it sends to review, then by score.
	Combined combinedResult `json:"combined"`
}

// ruleResult is of the transactions that one rule decided: the first of its phase that held.
type ruleResult struct {
	Name      string   `json:"name"`
	Phase     string   `json:"phase"`
	Decision  string   `json:"decision"`
	Hits      int      `json:"hits"`
	Frauds    int      `json:"frauds"`
	Precision *float64 `json:"precision"` // frauds among the hits
	Recall    *float64 `json:"recall"`    // of all frauds
	Amount    *float64 `json:"amount"`    // of the hits; null where the data keep no amount
	Alerts    int      `json:"alerts"`    // hits that the model would have alerted as well
}

type combinedResult struct {
	AlertsPerDay     float64 `json:"alerts_per_day"`
	Budget           float64 `json:"budget_per_day"`
	Precision        float64 `json:"precision"`
	Recall           float64 `json:"recall"`
	CardPrecision100 float64 `json:"card_precision_at_100"`
}

// rulesData is what rules read of: the transactions that features were made from, where those were given, or else the
// features with the columns that they keep.
func rulesData(dir string, d *datasets.Dataset) (*datasets.Dataset, error) {
	raw, err := datasets.Open(dir)
	if err != nil {
		return nil, err
	}
	if raw.Manifest().Kind == datasets.KindTransactions {
		return raw, nil
	}
	return d, nil
}

// backTestRules decides the rows as a scorer would have. rows and scores are those of the evaluation, d has the events.
func backTestRules(ctx context.Context, path string, d *datasets.Dataset, rows *fraud.Rows, scores []float64,
	r datasets.Range, p fraud.Protocol) (*backTest, error) {
	events := &datasets.Schema{}
	for _, f := range d.Schema().Fields {
		if !slices.Contains(rows.Features, f.Name) {
			events.Fields = append(events.Fields, f)
		}
	}
	set, err := rules.Open(path, rules.Columns{Events: events, Features: rows.Features})
	if err != nil {
		return nil, fmt.Errorf("%w\n(conditions see the columns of %s and the features; give the transactions as --data for all of theirs)", err, d.Dir())
	}
	kept := make([]bool, rows.Len())
	for _, i := range p.Keep(rows) {
		kept[i] = true
	}
	out := &backTest{File: path}
	for _, x := range set.Rules() {
		phase := "after"
		if x.Before {
			phase = "before"
		}
		out.Rules = append(out.Rules, ruleResult{Name: x.Name, Phase: phase, Decision: string(x.Then)})
	}
	amount := d.Schema().Index(datasets.Amount)
	if amount >= 0 {
		for i := range out.Rules {
			out.Rules[i].Amount = new(float64)
		}
	}
	adjusted := slices.Clone(scores)
	positives, at := 0, 0
	for i, y := range rows.Y {
		if y && kept[i] {
			positives++
		}
	}
	var decided []int32
	err = d.Read(ctx, datasets.ReadOptions{Range: r, Threads: 1}, func(b *datasets.Batch) error {
		times := b.Column(datasets.TransDatetime).Ints
		if at+b.N > rows.Len() || !slices.Equal(times[:b.N], rows.Time[at:at+b.N]) {
			return fmt.Errorf("the rows of %s are not those that features were made of: some were left out as invalid or "+
				"duplicate; give the features as --data, with what rules read under keep in their spec", d.Dir())
		}
		in := rules.Batch{Events: &datasets.Batch{Schema: events, N: b.N}, N: b.N, Scores: scores[at : at+b.N],
			Threshold: p.Threshold}
		for c, f := range b.Schema.Fields {
			if events.Index(f.Name) >= 0 {
				in.Events.Columns = append(in.Events.Columns, b.Columns[c])
			}
		}
		for _, v := range rows.Values {
			in.Values = append(in.Values, v[at:at+b.N])
		}
		decided = slices.Grow(decided[:0], b.N)[:b.N]
		set.Before(&in, decided)
		set.After(&in, decided)
		for k, rule := range decided {
			i := at + k
			if rule == rules.None || !kept[i] {
				continue
			}
			x := &out.Rules[rule]
			x.Hits++
			if rows.Y[i] {
				x.Frauds++
			}
			if scores[i] >= p.Threshold {
				x.Alerts++
			}
			if x.Amount != nil && !b.Columns[amount].IsNull(k) {
				f := b.Schema.Fields[amount]
				if f.Type == datasets.Float64 {
					*x.Amount += b.Columns[amount].Floats[k]
				} else {
					*x.Amount += float64(b.Columns[amount].Ints[k]) / math.Pow10(f.Scale)
				}
			}
			switch rules.Decision(x.Decision) {
			case rules.Block:
				adjusted[i] += 2
			case rules.Review:
				adjusted[i]++
			case rules.Allow:
				adjusted[i] -= 2
			}
		}
		at += b.N
		return nil
	})
	if err != nil {
		return nil, err
	}
	if at != rows.Len() {
		return nil, fmt.Errorf("%s has %d rows in the range, and %d had features: give the features as --data, with what "+
			"rules read under keep in their spec", d.Dir(), at, rows.Len())
	}
	for i := range out.Rules {
		x := &out.Rules[i]
		x.Precision, x.Recall = portion(x.Frauds, x.Hits), portion(x.Frauds, positives)
	}
	ev := fraud.Evaluate(rows, adjusted, p)
	finite := func(v float64) float64 {
		if math.IsNaN(v) {
			return 0
		}
		return v
	}
	out.Combined = combinedResult{AlertsPerDay: finite(ev.Alerts.PerDay), Budget: ev.Alerts.Budget,
		Precision: finite(ev.Alerts.Precision), Recall: finite(ev.Alerts.Recall), CardPrecision100: finite(ev.CardPrecision100)}
	return out, nil
}

func portion(a, b int) *float64 {
	if b == 0 {
		return nil
	}
	v := float64(a) / float64(b)
	return &v
}

// text writes the table of rules and what they and the model come to.
func (b *backTest) text(w io.Writer) error {
	fmt.Fprintf(w, "\nrules %s\n\n", b.File)
	t := newTable("rule", "phase", "decision", "hits", "frauds", "precision", "recall", "amount", "model alerts too")
	of := func(v *float64, format string) string {
		if v == nil {
			return "-"
		}
		return fmt.Sprintf(format, *v)
	}
	for _, r := range b.Rules {
		t.add(r.Name, r.Phase, r.Decision, fmt.Sprint(r.Hits), fmt.Sprint(r.Frauds), of(r.Precision, "%.4f"), of(r.Recall, "%.4f"),
			of(r.Amount, "%.2f"), fmt.Sprint(r.Alerts))
	}
	if err := t.write(w); err != nil {
		return err
	}
	c := b.Combined
	_, err := fmt.Fprintf(w, "\nrules and model together: %.1f alerts a day (budget %g), precision %.4f, recall %.4f, card precision@100 %.4f\n",
		c.AlertsPerDay, c.Budget, c.Precision, c.Recall, c.CardPrecision100)
	return err
}
