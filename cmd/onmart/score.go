package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/internal/atomicdir"
	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/sink"
	"github.com/onmart/onmart/score/source"
)

type scoreFlags struct {
	models, shadows                                []string
	rules, quality, qualityWindow                  string
	alertBudget                                    int
	reloadCold                                     bool
	source, format, sink, mapFile, preset          string
	warmFrom, record, stateOut, listen, eventRange string
	explain, job                                   string
	spec, form, prefix                             string
	reasons, batch, threads                        int
	features                                       bool
	force                                          *bool
	daemon                                         daemonFlags
	kept                                           jobFlags
}

func newScoreCmd() *cobra.Command {
	var f scoreFlags
	cmd := &cobra.Command{
		Use:   "score --model DIR...|--spec S [--source URL] [--sink URL] [--state DIR] [--listen ADDR]",
		Short: "Score events as they come",
		Long: `score computes the model's features for each event from topics, a file, standard input or HTTP, with the
same engine that made the training data, and writes one line of JSON for each transaction: score, decision,
reasons. With --output event the line is the event's own object, byte for byte, and what is computed stands behind its
fields: with --with-features the features, then score_id, scores, decision and model. With --spec instead of --model
there is no model, and the features of that spec are all that is written. Labels are events too ("event":"label" with
trans_id, is_fraud and known_at). An event that cannot be read gets an error object with its position, and the stream
goes on.

With --state the process may be killed at any moment: the next one with that directory goes on where its lines end. Topics
need it: --source kafka://HOST:PORT/IN --sink kafka://HOST:PORT/OUT --state DIR. The URL of a topic may have parameters for
TLS, passwords and limits (docs/GUIDE/10-kafka.md), and docs/GUIDE/11-live.md goes from a broker to alerts.

Beside a fraud classifier it takes a forecaster and a recommender (--model again, one of each task): every
transaction that is folded brings them up to date, and HTTP answers from what they know then. Without a
classifier nothing is scored, and transactions go to the others alone.

It starts with the purchases that the model's training had seen. --warm-from takes a state directory of
"onmart features --state-out", "onmart score --state-out" or "onmart state export" instead; --warm-from none starts from nothing, as a
replay of a whole history must. A file goes on after the position that such a state has for it; it is known by
its name and its first two lines, wherever it lies.

Without --source, standard input is read, unless --listen is given. With --listen, HTTP answers on
POST /v1/score, POST /v1/labels, GET /v1/models, of the models that are there /v1/forecast and /v1/recommend,
/v1/stock where events may tell of stock, /healthz, /readyz and /metrics until Ctrl-C or SIGTERM; a page on / shows what
happens. An address that other machines reach needs --tokens (see "onmart token new"), --tls-cert and --tls-key.`,
		Args: cobra.NoArgs,
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&f.models, "model", nil, "artifact `directory` of onmart train; once for each task")
	fl.StringVar(&f.spec, "spec", "", "without a model: feature spec, built-in `name` or file, whose features are written")
	fl.StringVar(&f.form, "output", string(score.FormScore), "form of a transaction's line: score, or event: the event's own object with fields added")
	fl.StringVar(&f.prefix, "output-prefix", "", "with --output event, `text` before the names that are added")
	fl.StringVar(&f.source, "source", "", "events: a `file` (.jsonl or .csv, also .gz or .zst), - for standard input, or topics: kafka://HOST:PORT/TOPIC[+TOPIC...]")
	fl.StringVar(&f.format, "format", "", "csv or jsonl, where the source's name does not tell")
	fl.StringVar(&f.mapFile, "map", "", "mapping `file` of the events' fields to canonical columns")
	fl.StringVar(&f.preset, "preset", "", "built-in mapping: "+strings.Join(datasets.Presets(), ", ")+" (default: the canonical columns that the model was trained on)")
	fl.StringVar(&f.sink, "sink", "-", "`file` for the scores, - for standard output, or a topic: kafka://HOST:PORT/TOPIC")
	fl.StringVar(&f.listen, "listen", "", "also answer HTTP on this `address`, such as 127.0.0.1:8080")
	fl.StringVar(&f.warmFrom, "warm-from", "", "state `directory` to start from, or none (default: the model's own state)")
	fl.StringVar(&f.stateOut, "state-out", "", "`directory` for the state when the events end")
	fl.StringVar(&f.record, "record", "", "`directory` for a log of all events that were folded, which onmart features reads")
	fl.StringVar(&f.eventRange, "range", "", "score only transactions of this range, FROM..TO; others are skipped")
	fl.StringVar(&f.explain, "explain", "alerts", "give reasons for: off, alerts or all")
	fl.IntVar(&f.reasons, "reasons", model.DefaultReasons, "how many reasons")
	fl.BoolVar(&f.features, "with-features", false, "write the features into each line")
	fl.StringVar(&f.job, "job", "score", "name that is part of every score_id")
	fl.IntVar(&f.batch, "batch", 1024, "most events of a source that are scored together")
	fl.IntVar(&f.threads, "threads", 1, "threads for a batch")
	f.daemon.bind(fl)
	f.kept.bind(fl)
	f.addLive(fl)
	f.force = addForce(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runScore(cmd, &f) }
	return cmd
}

func (f *scoreFlags) check() (datasets.Range, error) {
	var r datasets.Range
	switch {
	case len(f.models) == 0 && f.spec == "":
		return r, usagef("--model is missing: name the directory that onmart train wrote; or --spec for features alone")
	case f.spec != "" && len(f.models) == 0 && f.mapFile == "" && f.preset == "":
		return r, usagef("--spec needs --map or --preset, which say what the events' fields are")
	case f.form != string(score.FormScore) && f.form != string(score.FormEvent):
		return r, usagef("--output %s: want score or event", f.form)
	case f.prefix != "" && f.form != string(score.FormEvent):
		return r, usagef("--output-prefix goes with --output event")
	}
	switch score.Explain(f.explain) {
	case score.ExplainOff, score.ExplainAlerts, score.ExplainAll:
	default:
		return r, usagef("--explain %s: want off, alerts or all", f.explain)
	}
	if f.batch < 1 || f.threads < 1 || f.reasons < 1 {
		return r, usagef("--batch, --threads and --reasons are at least 1")
	}
	if f.format != "" && f.format != string(datasets.CSV) && f.format != string(datasets.JSONL) {
		return r, usagef("--format %s: want csv or jsonl", f.format)
	}
	if f.eventRange != "" {
		var err error
		if r, err = datasets.ParseRange(f.eventRange); err != nil {
			return r, usagef("--range: %w", err)
		}
	}
	if err := f.daemon.check(f.listen); err != nil {
		return r, err
	}
	if err := f.kept.check(f); err != nil {
		return r, err
	}
	if f.source == "" && f.listen == "" {
		f.source = "-"
	}
	return r, nil
}

func runScore(cmd *cobra.Command, f *scoreFlags) error {
	eventRange, err := f.check()
	if err != nil {
		return err
	}
	if err := f.refuseOutputs(); err != nil {
		return err
	}
	con := consoleOf(cmd)
	d, err := f.daemon.start(con, f.listen, f.job)
	if err != nil {
		return err
	}
	models, err := openScored(f.models, f.threads)
	if err != nil {
		return err
	}
	mapping, err := f.mapping(models)
	if err != nil {
		return err
	}
	options := score.Options{
		Artifact: models.classifier, Followers: models.followers, Schema: mapping.LogSchema(), Threads: f.threads, Job: f.job,
		Explain: score.Explain(f.explain), Reasons: f.reasons, Features: f.features, Range: eventRange,
		Form: score.Form(f.form), Prefix: f.prefix,
	}
	if mapping, err = f.adjust(&options, mapping); err != nil {
		return err
	}
	if f.kept.state != "" {
		options.Schema = score.Placed(mapping.LogSchema())
	}
	var rec *score.Recorder
	if f.record != "" {
		if rec, err = score.NewRecorder(f.record, mapping.LogSchema(), *f.force); err != nil {
			return err
		}
		defer rec.Abort()
		m := rec.Manifest()
		m.Created.Command, m.Created.Version, m.Created.Args = "score", buildVersion(), os.Args[1:]
	}
	options.Record, options.Monitor, options.Log = rec, d.monitor, con.log
	if err := f.live(&options); err != nil {
		return err
	}
	s, err := score.New(options)
	if err != nil {
		return err
	}
	for _, m := range models.followers {
		con.notef("%s model %s: what it knows ends at %s, and follows the events from there", m.Task(), m.Artifact.Dir(), models.until(m))
	}
	if f.kept.state != "" {
		return f.runKept(cmd, con, d, s, mapping, &options, models)
	}
	if err := f.warm(s, models.classifier != nil, con); err != nil {
		return err
	}
	for _, note := range s.Notes() {
		con.notef("%s", note)
	}
	out, err := f.openSink(cmd.OutOrStdout())
	if err != nil {
		return err
	}
	defer out.Abort()
	start := time.Now()
	ctx, stop := context.WithCancel(cmd.Context())
	reloader := f.watch(ctx, s, models.classifier != nil)
	defer stop()
	d.watchDisk(f.record, f.stateOut, f.sink)
	if err := f.serve(ctx, con, d, s, mapping, models.answering, reloader, out); err != nil {
		return err
	}
	if err := f.finish(s, out, rec); err != nil {
		return err
	}
	return f.summary(con, s.Counts(), time.Since(start))
}

// refuseOutputs finds before the first event what would stop the writing after the last.
func (f *scoreFlags) refuseOutputs() error {
	seen := map[string]string{}
	for _, out := range []struct{ flag, path string }{{"--sink", f.sink}, {"--record", f.record}, {"--state-out", f.stateOut}} {
		if out.path == "" || out.flag == "--sink" && out.path == "-" {
			continue
		}
		at, err := filepath.Abs(out.path)
		if err != nil {
			return fmt.Errorf("%s: %w", out.flag, err)
		}
		if other, taken := seen[at]; taken {
			return usagef("%s and %s are both %s: give each a name of its own", other, out.flag, out.path)
		}
		seen[at] = out.flag
	}
	if err := errors.Join(replaces("--record", f.record, *f.force, string(datasets.KindLog)), replaces("--state-out", f.stateOut, *f.force, features.StateKind)); err != nil {
		return usage(err)
	}
	if in, err := os.Stat(f.source); err == nil && f.sink != "-" {
		if out, err := os.Stat(f.sink); err == nil && os.SameFile(in, out) {
			return usagef("--sink %s is the --source: the scores would replace the events; name another file", f.sink)
		}
	}
	if f.stateOut == "" {
		return nil
	}
	probe, err := atomicdir.Create(f.stateOut, *f.force)
	if err != nil {
		return fmt.Errorf("--state-out: %w", err)
	}
	probe.Abort()
	return nil
}

// finish completes the outputs. The state is what a restart needs, so a fault of the log does not keep it back.
func (f *scoreFlags) finish(s *score.Scorer, out sink.Sink, rec *score.Recorder) error {
	if err := out.Close(); err != nil {
		return err
	}
	var errs []error
	if rec != nil {
		errs = append(errs, rec.Close())
	}
	if f.stateOut != "" {
		errs = append(errs, s.SaveState(f.stateOut, *f.force))
	}
	return errors.Join(errs...)
}

// adjust reads --spec, and has the mapping fit --output.
func (f *scoreFlags) adjust(o *score.Options, m *datasets.Mapping) (*datasets.Mapping, error) {
	if f.spec != "" {
		spec, err := readSpec(f.spec)
		if err != nil {
			return nil, err
		}
		o.Spec = spec
	}
	if o.Form != score.FormEvent {
		return m, nil
	}
	added, err := o.AddedFields()
	if err != nil {
		return nil, err
	}
	repeating, err := m.Repeating(added)
	if err != nil {
		return nil, usagef("--output event: %w; see --output-prefix", err)
	}
	return repeating, nil
}

func (f *scoreFlags) mapping(m *scored) (*datasets.Mapping, error) {
	if f.mapFile == "" && f.preset == "" {
		schema, err := m.input()
		if err != nil {
			return nil, err
		}
		return datasets.MappingFor(schema)
	}
	return loadMapping(f.mapFile, f.preset)
}

// warm restores the state the scorer begins with and says which it was.
func (f *scoreFlags) warm(s *score.Scorer, classifier bool, con *console) error {
	switch f.warmFrom {
	case "none":
		return s.Begin()
	case "":
		err := s.UseContext()
		if errors.Is(err, model.ErrNoContext) {
			con.notef("the model carries no state: windows start empty (--warm-from DIR gives them their history)")
			return s.Begin()
		}
		if err != nil {
			return err
		}
	default:
		without, err := s.Warm(f.warmFrom)
		if err != nil {
			return err
		}
		for _, task := range without {
			con.notef("%s has no state of task %s: it goes on from what its model carries, without the events between", f.warmFrom, task)
		}
	}
	switch w := s.Watermark(); {
	case w != math.MinInt64:
		con.notef("state up to %s", datasets.FormatTime(w))
	case classifier:
		con.notef("the state of %s holds no transactions yet", cmp.Or(f.warmFrom, "the model"))
	}
	return s.Begin()
}

func (f *scoreFlags) openSink(stdout io.Writer) (sink.Sink, error) {
	if f.sink == "-" {
		return sink.Stream(stdout), nil
	}
	return sink.File(f.sink, *f.force)
}

// serve runs the source to its end and HTTP until the context ends; whichever fails first ends both.
func (f *scoreFlags) serve(ctx context.Context, con *console, d *daemon, s *score.Scorer, m *datasets.Mapping, answering score.Models, reloader *score.Reloader, out sink.Sink) error {
	if f.listen == "" {
		return f.follow(ctx, con, s, m, out)
	}
	return d.serve(ctx, s, m, answering, reloader, nil, func(ctx context.Context) error {
		if f.source == "" {
			return nil
		}
		return f.follow(ctx, con, s, m, out)
	})
}

func (f *scoreFlags) follow(ctx context.Context, con *console, s *score.Scorer, m *datasets.Mapping, out sink.Sink) error {
	src, err := source.Open(f.source, datasets.Format(f.format), m, s.Position)
	if err != nil {
		return err
	}
	defer src.Close()
	if n := src.Skipped(); n > 1 {
		con.notef("%s: going on at line %d, the lines before are in the state", f.source, n)
	}
	return score.Run(ctx, s, src, out, f.batch)
}

func (f *scoreFlags) summary(con *console, c score.Counts, took time.Duration) error {
	con.notef("%d scored, %d alerts, %d late, %d labels (%d waiting, %d expired), %d duplicates, %d rejected, %d skipped in %.1f s (%.0f/s)",
		c.Scored, c.Alerts, c.Late, c.Labels, c.LabelsWaiting, c.LabelsExpired, c.Duplicates, c.Rejected, c.Skipped,
		took.Seconds(), float64(c.Scored)/took.Seconds())
	if c.Stock > 0 {
		con.notef("%d counts of stock", c.Stock)
	}
	if !con.json || f.sink == "-" { // standard output carries the scores
		return nil
	}
	return con.result(struct {
		score.Counts
		Seconds       float64 `json:"seconds"`
		RowsPerSecond float64 `json:"rows_per_second"`
	}{c, took.Seconds(), float64(c.Scored) / took.Seconds()}, nil)
}
