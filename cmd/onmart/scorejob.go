package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/job"
	"github.com/onmart/onmart/score/kafka"
	"github.com/onmart/onmart/score/monitor"
	"github.com/onmart/onmart/score/state"
)

// jobFlags are those of a job whose state outlives the process.
type jobFlags struct {
	state, delivery, letters, start string
	labelTopics, stockTopics        []string
	topicMaps                       []string
	rebuild                         bool
	every                           time.Duration
}

const (
	exactlyOnce = "exactly-once"
	atLeastOnce = "at-least-once"
)

func (f *jobFlags) bind(fl *pflag.FlagSet) {
	fl.StringVar(&f.state, "state", "", "`directory` that keeps the state, so that a killed process goes on where it was; topics need it")
	fl.StringVar(&f.delivery, "delivery", "", "to a topic: exactly-once (default from a topic of the same cluster) or at-least-once")
	fl.StringVar(&f.letters, "dead-letters", "", "`topic` of the sink's cluster for events that cannot be scored (default: lines that say so in the sink)")
	fl.StringVar(&f.start, "start", "earliest", "where a topic begins that nothing is known of: earliest or latest")
	fl.BoolVar(&f.rebuild, "rebuild", false, "make a state that was lost again from the first event of its topics, without lines; only for a job that began there without a backfill")
	fl.StringSliceVar(&f.labelTopics, "label-topics", nil, "`topics` of the source that hold labels alone")
	fl.StringSliceVar(&f.stockTopics, "stock-topics", nil, "`topics` of the source that hold counts of stock alone")
	fl.StringArrayVar(&f.topicMaps, "topic-map", nil, "mapping `TOPIC=FILE` of a topic whose events have other fields than --map says; once for each")
	fl.DurationVar(&f.every, "checkpoint-every", 10*time.Second, "least time between two checkpoints of the state; the larger the state, the rarer they are")
}

func isTopic(url string) bool { return strings.HasPrefix(url, "kafka://") }

func (f *jobFlags) check(s *scoreFlags) error {
	switch {
	case f.delivery != "" && f.delivery != exactlyOnce && f.delivery != atLeastOnce:
		return usagef("--delivery %s: want %s or %s", f.delivery, exactlyOnce, atLeastOnce)
	case f.start != "earliest" && f.start != "latest":
		return usagef("--start %s: want earliest or latest", f.start)
	case f.every <= 0:
		return usagef("--checkpoint-every %s: want more than 0", f.every)
	case f.letters != "" && !isTopic(s.sink):
		return usagef("--dead-letters %s is a topic of the sink's cluster, and the sink is none: without it, such events get a line in the sink", f.letters)
	case f.delivery != "" && !isTopic(s.sink):
		return usagef("--delivery is for a --sink that is a topic; a file gets every line once, standard output may get the last ones again after a crash")
	case f.delivery != atLeastOnce && isTopic(s.sink) && !isTopic(s.source) && s.source != "":
		return usagef("--sink %s: lines and positions can be one transaction only where both are topics: give --delivery %s", hidden(s.sink), atLeastOnce)
	case f.state == "" && (isTopic(s.source) || isTopic(s.sink)):
		return usagef("topics need --state: name a directory that keeps the state from one start to the next")
	case f.state == "" && (len(f.labelTopics) > 0 || len(f.stockTopics) > 0 || len(f.topicMaps) > 0 || f.rebuild):
		return usagef("--label-topics, --stock-topics, --topic-map and --rebuild are for a --source of topics")
	case f.state == "":
		return nil
	case s.source == "-" || s.source == "" && s.listen == "":
		return usagef("--state keeps what can be read again: give --source a file or a topic, or --listen for HTTP alone")
	case s.record != "":
		return usagef("--record is for files and HTTP without --state: events from several partitions have no single order to be recorded in")
	case s.stateOut != "":
		return usagef("--state-out is for runs without --state: onmart state export writes such a directory from %s", f.state)
	case s.eventRange != "" && isTopic(s.source):
		return usagef("--range is for files: a topic's events are all scored")
	case s.source == "" && s.sink != "-":
		return usagef("--sink without --source: answers to HTTP go to those who ask; leave it out")
	}
	for _, of := range []struct {
		flag   string
		topics []string
	}{{"label", f.labelTopics}, {"stock", f.stockTopics}} {
		for _, t := range of.topics {
			if !isTopic(s.source) || !slices.Contains(topicsOf(s.source), t) {
				return usagef("--%s-topics %s: it is not among the topics of --source", of.flag, t)
			}
		}
	}
	for _, t := range f.stockTopics {
		if slices.Contains(f.labelTopics, t) {
			return usagef("topic %s: it is given to --label-topics and to --stock-topics: a topic holds one of them, or events that say "+
				"themselves what they are", t)
		}
	}
	for _, m := range f.topicMaps {
		switch topic, _, ok := strings.Cut(m, "="); {
		case !ok:
			return usagef("--topic-map %s: want TOPIC=FILE", m)
		case !isTopic(s.source) || !slices.Contains(topicsOf(s.source), topic):
			return usagef("--topic-map %s: %s is not among the topics of --source", m, topic)
		}
	}
	return nil
}

// mappings reads those of --topic-map.
func (f *jobFlags) mappings(main *datasets.Mapping, o *score.Options) (func(source string) *datasets.Mapping, error) {
	by := map[string]*datasets.Mapping{}
	for _, arg := range f.topicMaps {
		topic, file, _ := strings.Cut(arg, "=")
		m, err := loadMapping(file, "")
		if err == nil && o.Form == score.FormEvent {
			var added []string
			if added, err = o.AddedFields(); err == nil {
				m, err = m.Repeating(added)
			}
		}
		if err == nil {
			err = job.CheckMapping(main, m)
		}
		if err != nil {
			return nil, usagef("--topic-map %s: %w", topic, err)
		}
		by[topic] = m
	}
	for _, topic := range f.stockTopics {
		m := by[topic]
		if m == nil {
			m = main
		}
		if !m.HasStock() {
			return nil, usagef("--stock-topics %s: the mapping of its events lacks %s or %s: give a --topic-map that has them, such as "+
				"quantity: {from: on_hand}", topic, datasets.ProductID, datasets.Quantity)
		}
	}
	return func(source string) *datasets.Mapping {
		p, _ := kafka.ParsePartition(source)
		return by[p.Topic]
	}, nil
}

// topicsOf are those of a source's URL.
func topicsOf(text string) []string {
	c, err := kafka.Parse(text)
	if err != nil {
		return nil // it is said where the source is opened
	}
	return c.Topics
}

// hidden is a URL without its parameters.
func hidden(text string) string {
	before, _, _ := strings.Cut(text, "?")
	return before
}

// runKept scores with a state that outlives the process.
func (f *scoreFlags) runKept(cmd *cobra.Command, con *console, d *daemon, s *score.Scorer, m *datasets.Mapping, o *score.Options,
	models *scored) (err error) {
	ctx := cmd.Context()
	mappings, err := f.kept.mappings(m, o)
	if err != nil {
		return err
	}
	d.monitor.Health.Expect("state")
	store, err := state.Open(f.kept.state, state.Identity{Job: f.job, Nodes: s.Nodes(), Followers: s.Tasks()}, f.stateOptions(ctx, con, d))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	numbers, err := f.warmKept(store, s, models.classifier != nil, con)
	if err != nil {
		return err
	}
	topics, in, err := f.openJobSource(ctx, con, d)
	if err != nil {
		return err
	}
	if in != nil {
		defer func() { err = errors.Join(err, in.Close()) }()
	}
	jobOptions := job.Options{
		Scorer: s, Mapping: m, Store: store, Source: in, Monitor: d.monitor, Log: con.log,
		Labels: f.kept.ofLabels, Stock: f.kept.ofStock, Mappings: mappings, Numbers: numbers, FromEnd: f.kept.start == "latest", Rebuild: f.kept.rebuild,
		Stay: f.listen != "", DeadLetters: f.kept.letters != "", Batch: f.batch, CheckpointEvery: f.kept.every,
		Drain: f.daemon.drainTimeout,
	}
	if err := job.Check(ctx, jobOptions); err != nil {
		return err
	}
	// From here on no process before this one can deliver, and what is committed stays so.
	if jobOptions.Sink, err = f.openJobSink(ctx, cmd, topics, con, d); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, jobOptions.Sink.Close()) }()
	j, err := job.Open(ctx, jobOptions)
	if err != nil {
		return err
	}
	for _, note := range s.Notes() {
		con.notef("%s", note)
	}
	start := time.Now()
	watching, stop := context.WithCancel(ctx)
	defer stop()
	reloader := f.watch(watching, s, models.classifier != nil)
	d.watchDisk(f.kept.state, fileOf(f.sink))
	if f.listen == "" {
		err = d.alone(ctx, s, j.Run)
	} else {
		err = d.serve(ctx, s, m, models.answering, reloader, j, j.Run)
	}
	if err != nil {
		return err
	}
	return f.summary(con, s.Counts(), time.Since(start))
}

// fileOf is a path, or "" for what is none.
func fileOf(out string) string {
	if isTopic(out) {
		return ""
	}
	return out
}

func (f *scoreFlags) stateOptions(ctx context.Context, con *console, d *daemon) state.Options {
	return state.Options{Context: ctx, Log: con.log,
		OnSpace: func(x state.Space) {
			if !x.Short {
				d.monitor.Health.Set("state", nil)
				con.log.Info("there is space for the state again", "for", x.For)
				return
			}
			err := fmt.Errorf("the disk of %s is full: the %s waits for %d bytes, there are %d", f.kept.state, x.For, x.Needs, x.Free)
			d.monitor.Error(monitor.StateFault)
			d.monitor.Health.Set("state", err)
			con.log.Error(err.Error())
		},
		OnDamage: func(err error) {
			d.monitor.Error(monitor.StateFault)
			d.monitor.Health.Set("state-files", err) // no later checkpoint takes that back
		},
		OnFatal: func(err error) {
			con.log.Error(err.Error())
			os.Exit(exitFailed)
		},
	}
}

// warmKept gives the scorer of a new state what it begins with, and returns the numbers that its partitions have in it.
func (f *scoreFlags) warmKept(store *state.Store, s *score.Scorer, classifier bool, con *console) (map[string]int32, error) {
	c, err := store.Checkpoint()
	if err != nil {
		return nil, err
	}
	if c != nil {
		if f.warmFrom != "" {
			con.notef("--warm-from %s is for a new state: %s has one, which goes on", f.warmFrom, f.kept.state)
		}
		return nil, nil
	}
	if err := f.warm(s, classifier, con); err != nil || f.warmFrom == "" || f.warmFrom == "none" {
		return nil, err
	}
	m, err := features.OpenState(f.warmFrom)
	if err != nil {
		return nil, err
	}
	return m.Partitions, nil
}

func (f *jobFlags) ofLabels(source string) bool {
	p, ok := kafka.ParsePartition(source)
	return ok && slices.Contains(f.labelTopics, p.Topic)
}

func (f *jobFlags) ofStock(source string) bool {
	p, ok := kafka.ParsePartition(source)
	return ok && slices.Contains(f.stockTopics, p.Topic)
}

// kafkaHealth has a connection's notes in the log and in readiness.
func kafkaHealth(con *console, d *daemon, check string, cause monitor.Cause) func(kafka.Note) {
	d.monitor.Health.Set(check, nil)
	return func(n kafka.Note) {
		switch n.State {
		case kafka.Down:
			d.monitor.Error(cause)
			d.monitor.Health.Set(check, errors.New(n.Text))
			con.log.Error(n.Text, "connection", check)
		case kafka.Up:
			d.monitor.Health.Set(check, nil)
			con.log.Info(n.Text, "connection", check)
		default:
			con.log.Warn(n.Text, "connection", check)
		}
	}
}

// group names a job's offsets where the source does not.
func (f *scoreFlags) group(c *kafka.Config) string {
	if c.Group != "" {
		return c.Group
	}
	return "onmart-" + f.job
}

// openJobSource opens the source; topics is nil where it is none, and the source where there is only HTTP.
func (f *scoreFlags) openJobSource(ctx context.Context, con *console, d *daemon) (topics *kafka.Source, in job.Source, err error) {
	switch {
	case f.source == "":
		return nil, nil, nil
	case !isTopic(f.source):
		in, err = job.TextLines(f.source)
		return nil, in, err
	}
	c, err := kafka.Parse(f.source)
	if err != nil {
		return nil, nil, usagef("--source: %w", err)
	}
	topics, err = kafka.NewSource(ctx, c, f.group(c), kafkaHealth(con, d, "source", monitor.SourceFault))
	if err != nil {
		return nil, nil, fmt.Errorf("--source: %w", err)
	}
	return topics, job.Topics(topics), nil
}

func (f *scoreFlags) openJobSink(ctx context.Context, cmd *cobra.Command, topics *kafka.Source, con *console, d *daemon) (job.Sink, error) {
	switch {
	case f.sink == "-":
		return job.Stream(cmd.OutOrStdout()), nil
	case !isTopic(f.sink):
		return job.File(f.sink)
	}
	c, err := kafka.Parse(f.sink)
	if err != nil {
		return nil, usagef("--sink: %w", err)
	}
	o := kafka.SinkOptions{Note: kafkaHealth(con, d, "sink", monitor.SinkFault)}
	if f.kept.letters != "" {
		o.Topics = []string{f.kept.letters}
	}
	exactly := f.kept.delivery != atLeastOnce
	if exactly {
		from, err := kafka.Parse(f.source)
		if err != nil {
			return nil, usagef("--source: %w", err)
		}
		o.ExactlyOnce, o.TransactionalID, o.Group = true, "onmart-"+f.job, f.group(from)
	}
	k, err := kafka.NewSink(ctx, c, o)
	if err != nil {
		return nil, fmt.Errorf("--sink: %w", err)
	}
	if topics != nil {
		if err := f.kept.checkClusters(ctx, topics, k, append(o.Topics, c.Topics...), topicsOf(f.source), exactly); err != nil {
			return nil, errors.Join(err, k.Close())
		}
	}
	return job.Topic(k, f.kept.letters, exactly), nil
}

// checkClusters refuses two clusters where exactly once is wanted, since they have no transaction together, and a job that would
// read what it writes.
func (f *jobFlags) checkClusters(ctx context.Context, source *kafka.Source, sink *kafka.Sink, writes, reads []string, exactly bool) error {
	from, err := source.ClusterID(ctx)
	if err != nil {
		return fmt.Errorf("--source: %w", err)
	}
	to, err := sink.ClusterID(ctx)
	if err != nil {
		return fmt.Errorf("--sink: %w", err)
	}
	switch {
	case from != to && exactly:
		return usagef("--source and --sink are different clusters (%s and %s), which have no transaction together: give --delivery %s", from, to, atLeastOnce)
	case from != to:
		return nil
	}
	for _, t := range writes {
		if slices.Contains(reads, t) {
			return usagef("topic %s is read and written: the job would read its own lines for ever; give lines and dead letters topics that "+
				"--source has not", t)
		}
	}
	return nil
}
