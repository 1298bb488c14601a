package main

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/internal/atomicdir"
	"github.com/onmart/onmart/internal/progress"
	"github.com/onmart/onmart/score/model"
)

// Columns that predict adds.
const (
	columnScore    = "score"
	columnDecision = "decision"
)

type predictFlags struct {
	model, data, out, rows string
	threads                int
	force                  *bool
}

func newPredictCmd() *cobra.Command {
	var f predictFlags
	cmd := &cobra.Command{
		Use:   "predict --model DIR --data DIR --out FILE.parquet",
		Short: "Score the transactions of a data set",
		Long: `predict writes one Parquet file: the data set's columns without the features, and for each transaction its
score, a probability, and the decision that the model's threshold makes of it (alert or pass). Scores are those
that onmart score gives for the same events, to the last bit.

--data takes features, or transactions, of which the model's features are computed first and kept in
DIR.features-<fingerprint>.`,
		Args: cobra.NoArgs,
	}
	fl := cmd.Flags()
	fl.StringVar(&f.model, "model", "", "artifact `directory` of onmart train")
	fl.StringVar(&f.data, "data", "", "features or transactions `directory`")
	fl.StringVar(&f.out, "out", "", "Parquet `file` to make")
	fl.StringVar(&f.rows, "range", "", "only transactions of this `range`, FROM..TO")
	fl.IntVar(&f.threads, "threads", 0, "threads (default one a core)")
	f.force = addForce(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runPredict(cmd, &f) }
	return cmd
}

func runPredict(cmd *cobra.Command, f *predictFlags) error {
	ctx, con := cmd.Context(), consoleOf(cmd)
	switch {
	case f.model == "":
		return usagef("--model is missing: name the directory that onmart train wrote")
	case f.out == "":
		return usagef("--out is missing: name the Parquet file to make")
	case filepath.Ext(f.out) != ".parquet":
		return usagef("--out %s: predictions are Parquet, so give a name that ends in .parquet", f.out)
	}
	var err error
	if f.threads, err = threadCount(f.threads); err != nil {
		return err
	}
	if other, err := model.Open(f.model); err == nil && other.Manifest().Task == model.Recommend {
		return usagef("%s is a recommender, which makes lists and not scores of transactions: onmart recommend --model %s --all --out %s writes those of all users", f.model, f.model, f.out)
	}
	var r datasets.Range
	if f.rows != "" {
		if r, err = datasets.ParseRange(f.rows); err != nil {
			return usagef("--range: %w", err)
		}
	}
	file, err := atomicdir.CreateFile(f.out, *f.force)
	if err != nil {
		return err
	}
	defer file.Abort()
	a, err := openFraud(f.model)
	if err != nil {
		return err
	}
	d, err := openModelFeatures(ctx, con, a, f.data, f.threads)
	if err != nil {
		return err
	}
	start := time.Now()
	p, err := newPrediction(a, d.Schema(), f.threads)
	if err != nil {
		return fmt.Errorf("%s: %w", d.Dir(), err)
	}
	bar := con.bar("predict", d.Manifest().Rows, "rows")
	err = d.Read(ctx, datasets.ReadOptions{Columns: p.columns, Range: r, Threads: f.threads}, func(b *datasets.Batch) error {
		if err := p.add(b); err != nil {
			return err
		}
		bar.Set(int64(p.out.N), "")
		return nil
	})
	if err != nil {
		return err
	}
	bar.Done()
	if p.out.N == 0 {
		return fmt.Errorf("%s has no transactions in %s: it reaches from %s to %s", d.Dir(), r, datasets.FormatTime(d.Manifest().From), datasets.FormatTime(d.Manifest().To))
	}
	if err := datasets.WriteTable(file, p.out); err != nil {
		return file.Err(err)
	}
	if err := file.Commit(); err != nil {
		return err
	}
	seconds := time.Since(start).Seconds()
	result := struct {
		Out           string  `json:"out"`
		Model         string  `json:"model"`
		Rows          int     `json:"rows"`
		Alerts        int     `json:"alerts"`
		Threshold     float64 `json:"threshold"`
		Seconds       float64 `json:"seconds"`
		RowsPerSecond float64 `json:"rows_per_second"`
	}{f.out, a.Manifest().Version, p.out.N, p.alerts, a.Manifest().Threshold, seconds, float64(p.out.N) / seconds}
	return con.result(result, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s: %s transactions scored by model %s, %s of them alerts\n", f.out, progress.Count(int64(result.Rows)), result.Model, progress.Count(int64(result.Alerts)))
		return err
	})
}

// prediction gathers kept columns and scores.
type prediction struct {
	predictor *model.Predictor
	threshold float64
	columns   []string // to read: kept ones, then the features in the model's order
	kept      int
	values    [][]float64
	out       *datasets.Batch
	alerts    int
}

func newPrediction(a *model.Artifact, s *datasets.Schema, threads int) (*prediction, error) {
	m := a.Manifest()
	p := &prediction{threshold: m.Threshold, values: make([][]float64, len(m.Features))}
	out := &datasets.Schema{}
	for _, f := range s.Fields {
		switch {
		case slices.Contains(m.Features, f.Name):
		case f.Name == columnScore || f.Name == columnDecision:
			return nil, fmt.Errorf("it has a column %s already, which predict would write: leave it out of the spec's keep", f.Name)
		default:
			p.columns = append(p.columns, f.Name)
			out.Fields = append(out.Fields, f)
		}
	}
	p.kept = len(p.columns)
	p.columns = append(p.columns, m.Features...)
	out.Fields = append(out.Fields, datasets.Field{Name: columnScore, Type: datasets.Float64}, datasets.Field{Name: columnDecision, Type: datasets.String})
	p.out = datasets.NewBatch(out, 0)
	var err error
	p.predictor, err = a.NewPredictor(threads)
	return p, err
}

func (p *prediction) add(b *datasets.Batch) error {
	for j := range p.values {
		p.values[j] = b.Columns[p.kept+j].Floats
	}
	at := p.out.N
	score := &p.out.Columns[p.kept]
	score.Floats = append(score.Floats, make([]float64, b.N)...)
	if err := p.predictor.Predict(p.values, b.N, score.Floats[at:]); err != nil {
		return err
	}
	decision := &p.out.Columns[p.kept+1]
	for _, s := range score.Floats[at:] {
		what := "pass"
		if s >= p.threshold {
			what = "alert"
			p.alerts++
		}
		decision.Strings = append(decision.Strings, what)
	}
	for c := range p.kept {
		appendColumn(&p.out.Columns[c], &b.Columns[c], at, b.N)
	}
	p.out.N += b.N
	return nil
}

// appendColumn adds n values to a column that has at.
func appendColumn(to, from *datasets.Column, at, n int) {
	to.Ints = append(to.Ints, from.Ints...)
	to.Floats = append(to.Floats, from.Floats...)
	to.Strings = append(to.Strings, from.Strings...)
	if from.Null != nil && to.Null == nil {
		to.Null = make([]bool, at)
	}
	switch {
	case from.Null != nil:
		to.Null = append(to.Null, from.Null...)
	case to.Null != nil:
		to.Null = append(to.Null, make([]bool, n)...)
	}
}
