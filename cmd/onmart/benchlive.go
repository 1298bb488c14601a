package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/sink"
	"github.com/onmart/onmart/score/source"
)

func newBenchLiveCmd() *cobra.Command {
	b := &benchLive{}
	var threads int
	cmd := &cobra.Command{
		Use:   "live --data FILE --model DIR",
		Short: "Hold live scores against features and predict, bit by bit",
		Long: `bench live scores the Fraud Detection Handbook's transactions from their file, one at a time and in batches, on 1, 2
and 8 threads, and compares every feature and score with the backfill. Then it does so for events that arrive
shuffled, with labels that come late, through a recorded log; and for a scorer that starts in the middle from the
state of a backfill, and from the state of another scorer. It fails where a bit differs.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&b.data, "data", "", "transactions `file`, CSV, also .gz")
	cmd.Flags().StringVar(&b.model, "model", "", "artifact `directory` of onmart train fraud")
	cmd.Flags().IntVar(&threads, "threads", 0, "threads of the backfill (default one a core)")
	cmd.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		b.con = consoleOf(cmd)
		if b.data == "" || b.model == "" {
			return usagef("--data and --model are both needed")
		}
		if b.threads, err = threadCount(threads); err != nil {
			return err
		}
		return b.run(cmd.Context())
	}
	return cmd
}

type benchLive struct {
	data, model string
	threads     int
	con         *console

	dir      string
	artifact *model.Artifact
	mapping  *datasets.Mapping
	features *datasets.Dataset
	results  []liveResult
}

// liveResult is one way of scoring the same events.
type liveResult struct {
	Name    string  `json:"name"`
	Rows    int     `json:"rows"`
	Differ  int     `json:"differ"`
	Late    int64   `json:"late"`
	Labels  int64   `json:"labels"`
	Seconds float64 `json:"seconds"` // of the scorer
	Rate    float64 `json:"events_per_second"`
}

func (b *benchLive) path(name string) string { return filepath.Join(b.dir, name) }

func (b *benchLive) run(ctx context.Context) (err error) {
	if b.artifact, err = openFraud(b.model); err != nil {
		return err
	}
	if b.mapping, err = datasets.Preset("fraud-handbook"); err != nil {
		return err
	}
	if b.dir, err = os.MkdirTemp("", "onmart-bench-"); err != nil {
		return err
	}
	defer os.RemoveAll(b.dir)
	if _, err = importHandbook(ctx, b.data, b.path("transactions")); err != nil {
		return err
	}
	if b.features, err = backfillInto(ctx, b.path("transactions"), b.path("features"), "", datasets.Range{}, b.artifact.Spec(), b.threads); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{b.batches, b.shuffled, b.restarts} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	differ := 0
	for _, r := range b.results {
		differ += r.Differ
	}
	result := struct {
		Model   string       `json:"model"`
		Differ  int          `json:"differ"`
		Results []liveResult `json:"results"`
	}{b.artifact.Manifest().Version, differ, b.results}
	if err := b.con.result(result, b.print); err != nil {
		return err
	}
	if differ > 0 {
		return fmt.Errorf("%d events differ from the backfill", differ)
	}
	return nil
}

func (b *benchLive) print(w io.Writer) error {
	t := newTable("live", "events", "differ", "late", "labels", "seconds", "events/s")
	for _, r := range b.results {
		t.add(r.Name, fmt.Sprint(r.Rows), fmt.Sprint(r.Differ), fmt.Sprint(r.Late), fmt.Sprint(r.Labels), fmt.Sprintf("%.1f", r.Seconds), fmt.Sprintf("%.0f", r.Rate))
	}
	return t.write(w)
}

// pass is one run of a scorer over a file.
type pass struct {
	name           string
	file           string
	format         datasets.Format
	batch, threads int
	r              datasets.Range
	warm           string // state directory
	record         string // log directory
	stateOut       string
	out            string // lines; "" for their digest alone
	mapping        *datasets.Mapping
}

// score runs a pass and returns its result without the comparison, and a digest of its lines.
func (b *benchLive) score(ctx context.Context, p pass) (liveResult, string, error) {
	fail := func(err error) (liveResult, string, error) {
		return liveResult{}, "", fmt.Errorf("%s: %w", p.name, err)
	}
	schema := p.mapping.LogSchema()
	o := score.Options{Artifact: b.artifact, Schema: schema, Threads: p.threads, Job: "bench", Explain: score.ExplainOff, Features: true, Range: p.r}
	if p.record != "" {
		rec, err := score.NewRecorder(p.record, schema, false)
		if err != nil {
			return fail(err)
		}
		defer rec.Abort()
		o.Record = rec
	}
	s, err := score.New(o)
	if err != nil {
		return fail(err)
	}
	if p.warm != "" {
		if _, err := s.Warm(p.warm); err != nil {
			return fail(err)
		}
	}
	if err := s.Begin(); err != nil {
		return fail(err)
	}
	src, err := source.Open(p.file, p.format, p.mapping, s.Position)
	if err != nil {
		return fail(err)
	}
	defer src.Close()
	lines := &digestSink{sum: sha256.New()}
	if p.out != "" {
		f, err := sink.File(p.out, false)
		if err != nil {
			return fail(err)
		}
		defer f.Abort()
		lines.to = f
	}
	start := time.Now()
	if err := score.Run(ctx, s, src, lines, p.batch); err != nil {
		return fail(err)
	}
	took := time.Since(start).Seconds()
	if lines.to != nil {
		if err := lines.to.Close(); err != nil {
			return fail(err)
		}
	}
	if o.Record != nil {
		if err := o.Record.Close(); err != nil {
			return fail(err)
		}
	}
	if p.stateOut != "" {
		if err := s.SaveState(p.stateOut, false); err != nil {
			return fail(err)
		}
	}
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	c := s.Counts()
	if c.Rejected+c.Duplicates > 0 {
		return fail(fmt.Errorf("%d events rejected, %d duplicates", c.Rejected, c.Duplicates))
	}
	r := liveResult{Name: p.name, Rows: int(c.Scored), Late: c.Late, Labels: c.Labels, Seconds: took, Rate: float64(c.Scored) / took}
	b.con.notef("%s: %d events in %.1f s", r.Name, r.Rows, r.Seconds)
	return r, hex.EncodeToString(lines.sum.Sum(nil)), nil
}

// digestSink digests lines, and keeps them where it has somewhere to.
type digestSink struct {
	sum hash.Hash
	to  sink.Sink
}

func (s *digestSink) Write(b []byte) (int, error) {
	s.sum.Write(b)
	if s.to == nil {
		return len(b), nil
	}
	return s.to.Write(b)
}

func (s *digestSink) Flush() error { return nil }

// compare holds the lines of a file against a features data set.
func (b *benchLive) compare(ctx context.Context, r *liveResult, lines string, d *datasets.Dataset, span datasets.Range) error {
	f, err := os.Open(lines)
	if err != nil {
		return err
	}
	defer f.Close()
	p, err := compareWithBackfill(ctx, f, d, b.artifact, span, b.threads, nil)
	if err != nil {
		return fmt.Errorf("%s: %w", r.Name, err)
	}
	r.Differ = p.Differ
	b.results = append(b.results, *r)
	return os.Remove(lines)
}

// batches scores the file as it is in batches of 1, 7 and 1024 on 1, 2 and 8 threads. The first lines are held
// against the backfill, the others against the first, whose bytes they must have.
func (b *benchLive) batches(ctx context.Context) error {
	first := ""
	for _, batch := range []int{1024, 7, 1} {
		for _, threads := range []int{1, 2, 8} {
			p := pass{name: fmt.Sprintf("batches of %d, %d threads", batch, threads), file: b.data, batch: batch, threads: threads, mapping: b.mapping}
			if first == "" {
				p.out = b.path("lines.jsonl")
			}
			r, sum, err := b.score(ctx, p)
			if err != nil {
				return err
			}
			if first == "" {
				first = sum
				if err := b.compare(ctx, &r, p.out, b.features, datasets.Range{}); err != nil {
					return err
				}
				continue
			}
			if sum != first {
				r.Differ = r.Rows
			}
			b.results = append(b.results, r)
		}
	}
	return nil
}

// shuffled scores events in a disturbed order, labels apart and some of them late, and computes the features of
// the log that the scorer recorded.
func (b *benchLive) shuffled(ctx context.Context) error {
	mapping, err := datasets.MappingFor(b.mapping.Schema())
	if err != nil {
		return err
	}
	if err := b.writeShuffled(ctx, b.path("shuffled.jsonl")); err != nil {
		return err
	}
	p := pass{name: "shuffled, late labels, recorded", file: b.path("shuffled.jsonl"), batch: 1024, threads: 2,
		record: b.path("log"), out: b.path("lines.jsonl"), mapping: mapping}
	r, _, err := b.score(ctx, p)
	if err != nil {
		return err
	}
	d, err := datasets.Open(p.record)
	if err != nil {
		return err
	}
	feats := b.path("log-features")
	if _, err := features.Run(ctx, features.RunOptions{Spec: b.artifact.Spec(), In: d, Out: feats, Threads: b.threads}); err != nil {
		return err
	}
	if d, err = datasets.Open(feats); err != nil {
		return err
	}
	return b.compare(ctx, &r, p.out, d, datasets.Range{})
}

// Arrival in writeShuffled: every event up to an hour late, one in fifty up to three days (beyond the spec's
// lateness of a day for many); a fraud's label is known after one to twenty days, before or after its delay.
const (
	usualLateness = datasets.Hour
	rareLateness  = 3 * datasets.Day
	labelWithin   = 20 * datasets.Day
)

func (b *benchLive) writeShuffled(ctx context.Context, path string) error {
	in, err := datasets.Open(b.path("transactions"))
	if err != nil {
		return err
	}
	type arrival struct {
		at   int64
		text string
	}
	var events []arrival
	r := rand.New(rand.NewPCG(1, 2))
	err = in.Read(ctx, datasets.ReadOptions{}, func(c *datasets.Batch) error {
		for i := range c.N {
			ints := func(name string) int64 { return c.Column(name).Ints[i] }
			at := ints(datasets.TransDatetime)
			late := r.Int64N(usualLateness)
			if r.IntN(50) == 0 {
				late = r.Int64N(rareLateness)
			}
			events = append(events, arrival{at + late, fmt.Sprintf(`{"trans_id":%d,"trans_datetime":%q,"user_id":%d,"store_id":%d,"amount":%d.%04d}`,
				ints(datasets.TransID), datasets.FormatTime(at), ints(datasets.UserID), ints(datasets.StoreID), ints(datasets.Amount)/10000, ints(datasets.Amount)%10000)})
			if ints(datasets.IsFraud) == 1 {
				known := at + datasets.Day + r.Int64N(labelWithin-datasets.Day)
				events = append(events, arrival{known + r.Int64N(rareLateness), fmt.Sprintf(`{"event":"label","trans_id":%d,"is_fraud":1,"known_at":%q}`,
					ints(datasets.TransID), datasets.FormatTime(known))})
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortStableFunc(events, func(a, b arrival) int {
		if a.at < b.at {
			return -1
		}
		return int(min(a.at-b.at, 1))
	})
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 1<<20)
	for _, e := range events {
		w.WriteString(e.text)
		w.WriteByte('\n')
	}
	if err := w.Flush(); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// restarts starts scorers in the middle of the file: from the state of a backfill, and from the state that another
// scorer left there.
func (b *benchLive) restarts(ctx context.Context) error {
	m := b.features.Manifest()
	cut := m.From + (m.To-m.From)/2
	before, after := datasets.Range{From: math.MinInt64, To: cut}, datasets.Range{From: cut, To: math.MaxInt64}
	if _, err := backfillInto(ctx, b.path("transactions"), "", b.path("state"), before, b.artifact.Spec(), b.threads); err != nil {
		return err
	}
	first := pass{name: "first half, leaving its state", file: b.data, batch: 1000, threads: 2, r: before, stateOut: b.path("left"), out: b.path("lines.jsonl"), mapping: b.mapping}
	r, _, err := b.score(ctx, first)
	if err != nil {
		return err
	}
	if err := b.compare(ctx, &r, first.out, b.features, before); err != nil {
		return err
	}
	for _, p := range []pass{
		{name: "second half, from the backfill's state", file: b.data, batch: 7, threads: 1, r: after, warm: b.path("state"), out: b.path("lines.jsonl"), mapping: b.mapping},
		{name: "second half, from the scorer's state", file: b.copyOf(), batch: 1024, threads: 8, r: after, warm: b.path("left"), out: b.path("lines.jsonl"), mapping: b.mapping},
	} {
		r, _, err := b.score(ctx, p)
		if err != nil {
			return err
		}
		if err := b.compare(ctx, &r, p.out, b.features, after); err != nil {
			return err
		}
	}
	return nil
}

// copyOf is the data under another name: the scorer's state has a position for the first name, at its end,
// since the events outside the first half's range were read and skipped.
func (b *benchLive) copyOf() string {
	link := filepath.Join(b.dir, "again-"+filepath.Base(b.data))
	if abs, err := filepath.Abs(b.data); err == nil {
		os.Symlink(abs, link) // a failure shows when it is opened
	}
	return link
}
