package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score/model"
)

// scoreLine is a line of the scorer as people and comparisons read it. It needs score --features.
type scoreLine struct {
	TransID  json.RawMessage `json:"trans_id"`
	Line     json.RawMessage `json:"line"`
	Datetime string          `json:"trans_datetime"`
	User     json.RawMessage `json:"user_id"`
	Store    json.RawMessage `json:"store_id"`
	Scores   struct {
		Fraud float64 `json:"fraud"`
	} `json:"scores"`
	Decision string `json:"decision"`
	Reasons  []struct {
		Text string `json:"text"`
	} `json:"reasons"`
	Features map[string]float64 `json:"features"`
	Error    json.RawMessage    `json:"error"`
}

// parity counts lines of a scorer, and those in which a feature or the score is not, to the bit, what the backfill
// has for the same transaction.
type parity struct{ Rows, Differ int }

// compareWithBackfill reads the scorer's lines, in the order of the features data set's rows in the range, and
// compares each with the backfill. each, if not nil, is given every line. Another number of lines than rows is an
// error.
func compareWithBackfill(ctx context.Context, lines io.Reader, d *datasets.Dataset, a *model.Artifact, r datasets.Range, threads int, each func(*scoreLine)) (parity, error) {
	var p parity
	names := a.Manifest().Features
	predictor, err := a.NewPredictor(threads)
	if err != nil {
		return p, err
	}
	in := bufio.NewScanner(lines)
	in.Buffer(make([]byte, 1<<16), 1<<24)
	o := datasets.ReadOptions{Columns: append([]string{datasets.TransID}, names...), Range: r, Threads: threads}
	err = d.Read(ctx, o, func(b *datasets.Batch) error {
		scores, err := predictBatch(predictor, b, names)
		if err != nil {
			return err
		}
		for i := range b.N {
			if !in.Scan() {
				return fmt.Errorf("%d scores for more transactions: %w", p.Rows, orEOF(in.Err()))
			}
			var l scoreLine
			if err := json.Unmarshal(in.Bytes(), &l); err != nil {
				return fmt.Errorf("score %d: %w", p.Rows+1, err)
			}
			p.Rows++
			same := l.Error == nil && sameID(l.TransID, b, i) && math.Float64bits(l.Scores.Fraud) == math.Float64bits(scores[i])
			for j, n := range names {
				v, ok := l.Features[n]
				same = same && ok && math.Float64bits(v) == math.Float64bits(b.Columns[j+1].Floats[i])
			}
			p.Differ += btoi(!same)
			if each != nil {
				each(&l)
			}
		}
		return nil
	})
	if err == nil && in.Scan() {
		err = fmt.Errorf("more scores than the %d transactions of %s", p.Rows, d.Dir())
	}
	return p, err
}

func orEOF(err error) error {
	if err == nil {
		return io.ErrUnexpectedEOF
	}
	return err
}

// sameID compares a line's trans_id with the first column of a batch.
func sameID(id json.RawMessage, b *datasets.Batch, i int) bool {
	if b.Schema.Fields[0].Type == datasets.String {
		var s string
		return json.Unmarshal(id, &s) == nil && s == b.Columns[0].Strings[i]
	}
	return string(id) == fmt.Sprint(b.Columns[0].Ints[i])
}

// predictBatch scores a batch that has the features as columns.
func predictBatch(p *model.Predictor, b *datasets.Batch, names []string) ([]float64, error) {
	values := make([][]float64, len(names))
	for i, n := range names {
		values[i] = b.Column(n).Floats
	}
	scores := make([]float64, b.N)
	return scores, p.Predict(values, b.N, scores)
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
