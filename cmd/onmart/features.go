package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/internal/progress"
)

// featuresReport is what features prints with --json.
type featuresReport struct {
	Out           string           `json:"out"`
	StateOut      string           `json:"state_out,omitempty"`
	ID            string           `json:"id"`
	Spec          string           `json:"spec"`
	Fingerprint   string           `json:"fingerprint"`
	Shape         features.Shape   `json:"shape"`
	Features      int              `json:"features,omitempty"`
	Series        int64            `json:"series,omitempty"` // of a panel, at its last step
	Steps         int64            `json:"steps,omitempty"`
	Step          features.Step    `json:"step,omitempty"`
	Partial       string           `json:"partial,omitempty"` // the last step, where the data end inside it
	Rows          int64            `json:"rows"`
	From          string           `json:"from,omitempty"`
	To            string           `json:"to,omitempty"`
	Counts        map[string]int64 `json:"counts"`
	StateBytes    int64            `json:"state_bytes,omitempty"`   // of the engine, at the end
	SpilledBytes  int64            `json:"spilled_bytes,omitempty"` // of them, in a file
	Seconds       float64          `json:"seconds"`
	RowsPerSecond float64          `json:"rows_per_second"` // of all rows that were folded

	folded int64 // by this run
}

const (
	// checkpointEvery is how often a run keeps what it has made. Where that takes long, less often: a twentieth of the
	// time at the most.
	checkpointEvery = 30 * time.Second
	// checkpointFrom is how long a run must have lasted for Ctrl-C to leave a checkpoint.
	checkpointFrom = 5 * time.Second
)

// featuresFlags are the flags of features.
type featuresFlags struct {
	spec, in, delay, rows  string
	out, stateOut, stateIn string
	appendTo               string
	resume                 bool
	memory, spill          string
	every, from            time.Duration // checkpoints
	maxRejects             float64
	threads                int
	force                  *bool
	diff, skew, rowsB      string // what is compared; the other output is the argument
	explain                bool
	verify                 int
	seed                   uint64
	against                string
}

func newFeaturesCmd() *cobra.Command { return featuresCmd(checkpointEvery, checkpointFrom) }

// featuresCmd is features with checkpoints that often, and on Ctrl-C from so long after its start.
func featuresCmd(every, from time.Duration) *cobra.Command {
	f := featuresFlags{every: every, from: from}
	cmd := &cobra.Command{
		Use:   "features --spec S --in DIR --out DIR",
		Short: "Compute features, a panel or interactions of transactions or of a recorded log",
		Long: `features computes a spec's features for every transaction of a data set, from what stood before it in time,
exactly as onmart score computes them live. With --range only those transactions are given rows; what came
before is still counted in their windows, and what comes after is not read. Rows that are set aside (invalid ones, and
by the spec's policies duplicates, rows of the future and late ones) are listed with the reason in rejects.jsonl beside
the parts.

What a run has made is kept now and then, and on Ctrl-C, in a hidden directory beside OUT: after an interruption, a
crash or a loss of power, the same command with --resume goes on from there, and the result is that of a run without a
break.

A day at a time: --state-out keeps the engine's state, --state-in goes on from it with the data that come after, and
--append DIR puts their rows at the end of the features that were made with the state. The result is that of one run
over all of the data, to the bit.

    onmart features --in JANUARY --out F --state-out S
    onmart features --in FEBRUARY --append F --state-in S --state-out S --force

A spec may also ask for a panel, series by steps of time for onmart train demand, or for interactions, the items of
purchases for onmart train recommend. --range is then of steps or purchases, and its dates are days of the spec's time
zone. Without an end, the last step of a panel is the one that the last transaction is in, whole or not.

A spec is a YAML file or a built-in one: ` + strings.Join(features.Builtins(), ", ") + `. docs/FEATURES.md has all of
its keys; one looks like this:

    name: shop
    label: {column: is_fraud, delay: 7d}
    keep: [trans_id, trans_datetime, user_id, is_fraud]
    features:
      - {name: amount, kind: value, of: amount, log: true}
      - {name: night, kind: calendar, of: night}
      - {name: "card_lines_{w}", kind: count, key: user_id, windows: [1d, 30d], log: true}
      - {name: "card_mean_{w}", kind: mean, of: amount, key: user_id, windows: [7d], log: true}
      - {name: "store_risk_{w}", kind: risk, key: store_id, windows: [30d]}

Two outputs, data sets or Parquet files of onmart predict, are compared in two ways:

    onmart features --diff A B    row by row and bit by bit; the exit status is 1 where anything differs
    onmart features --skew A B    how each column is spread, such as training and live: population stability index

And the features themselves are looked into in two:

    onmart features --explain --spec S --in DIR       each in words, what it costs an event, what the state takes up
    onmart features --verify 1000 --spec S --in DIR   rows computed anew from all rows before them, by the definition`,
	}
	fl := cmd.Flags()
	fl.StringVar(&f.spec, "spec", "fraud-handbook", "feature spec: a YAML `file` or a built-in name")
	fl.StringVar(&f.in, "in", "", "data set `directory` of transactions, or a log of onmart score --record")
	fl.StringVar(&f.out, "out", "", "features `directory` to make")
	fl.StringVar(&f.rows, "range", "",
		"transactions to give rows: a `range` FROM..TO; TO as a date includes that day; with --skew, rows of A")
	fl.StringVar(&f.stateOut, "state-out", "",
		"`directory` for the engine's state at the end, for onmart score --warm-from and --state-in")
	fl.StringVar(&f.stateIn, "state-in", "", "state `directory` to go on from with data that come after it")
	fl.StringVar(&f.appendTo, "append", "", "features `directory` to put the rows at the end of, in place of --out")
	fl.StringVar(&f.delay, "delay", "", "label `delay` in place of the spec's, such as 7d")
	fl.Float64Var(&f.maxRejects, "max-rejects", 1, "largest `share` of rows that may be invalid")
	fl.StringVar(&f.memory, "memory", "",
		"`size` that the engine's state may take up, such as 2GiB; what is more lies in a file (default no limit)")
	fl.StringVar(&f.spill, "spill", "", "`directory` for that file (default where the output goes)")
	fl.IntVar(&f.threads, "threads", 0, "threads (default one a core)")
	fl.BoolVar(&f.resume, "resume", false, "go on from the checkpoint of a run to the same output that was stopped")
	f.force = addForce(cmd)
	fl.StringVar(&f.diff, "diff", "", "compare this output, `A`, with the argument B row by row")
	fl.StringVar(&f.skew, "skew", "", "compare the spread of this output's columns, `A`, with that of the argument B")
	fl.StringVar(&f.rowsB, "range-b", "", "with --skew, rows of B: a `range` FROM..TO")
	fl.BoolVar(&f.explain, "explain", false, "say what each feature is, and with --in what it costs")
	fl.IntVar(&f.verify, "verify", 0, "compute `N` rows of --in anew by the definition and compare")
	fl.Uint64Var(&f.seed, "seed", 0, "with --verify, a `number` that chooses the rows")
	fl.StringVar(&f.against, "against", "", "with --verify and --explain, features `directory` that was made of --in")
	cmd.Args = func(cmd *cobra.Command, args []string) error { return f.arguments(args) }
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case f.threads < 0:
			return usagef("--threads %d: want 1 or more, or 0 for one a core", f.threads)
		case f.diff != "":
			return runDiff(cmd, f.diff, args[0], f.threads)
		case f.skew != "":
			return runSkew(cmd, f.skew, args[0], f.rows, f.rowsB, f.threads)
		case f.explain:
			return f.runExplain(cmd)
		case cmd.Flags().Changed("verify"):
			return f.runVerify(cmd)
		case f.against != "":
			return usagef("--against %s: it goes with --verify or --explain", f.against)
		}
		o, err := f.options()
		if err != nil {
			return err
		}
		return runFeatures(cmd, o)
	}
	return cmd
}

// arguments checks how many outputs are named: one beside --diff or --skew, none otherwise.
func (f *featuresFlags) arguments(args []string) error {
	switch {
	case btoi(f.diff != "")+btoi(f.skew != "")+btoi(f.explain)+btoi(f.verify != 0) > 1:
		return errors.New("--diff, --skew, --explain and --verify: give one of them")
	case f.diff == "" && f.skew == "" && len(args) > 0:
		return fmt.Errorf("unknown argument %q: features takes flags; the data set is --in DIR", args[0])
	case f.diff != "" && len(args) != 1:
		return errors.New("--diff A B: name two outputs")
	case f.skew != "" && len(args) != 1:
		return errors.New("--skew A B: name two outputs")
	}
	return nil
}

// options are those of a run.
func (f *featuresFlags) options() (o features.RunOptions, err error) {
	o = features.RunOptions{Out: f.out, StateOut: f.stateOut, StateIn: f.stateIn, Threads: f.threads, Force: *f.force}
	switch {
	case f.in == "":
		return o, usagef("--in is missing: name a directory of onmart import or onmart score --record")
	case f.appendTo != "" && f.out != "":
		return o, usagef("--append %s and --out %s: give the one to add to, or the other to make anew", f.appendTo, f.out)
	case f.appendTo != "" && f.stateIn == "":
		return o, usagef("--append %s: --state-in is missing: name the state that was written with it", f.appendTo)
	case f.out == "" && f.stateOut == "" && f.appendTo == "":
		return o, usagef("--out is missing: name the directory to make")
	case f.spill != "" && f.memory == "":
		return o, usagef("--spill %s: --memory is missing: without it nothing is put into a file", f.spill)
	case f.resume && f.out == "":
		return o, usagef("--resume: only a run with --out has a checkpoint; leave it out")
	case f.maxRejects < 0 || f.maxRejects > 1 || f.maxRejects != f.maxRejects:
		return o, usagef("--max-rejects %v: want a share between 0 and 1", f.maxRejects)
	}
	if f.appendTo != "" {
		o.Out, o.Append = f.appendTo, true
	}
	if o.Memory, err = parseBytes(f.memory); err != nil {
		return o, usagef("--memory %s: %w", f.memory, err)
	}
	if o.Spill = f.spill; o.Spill == "" {
		o.Spill = filepath.Dir(cmp.Or(o.Out, o.StateOut))
	}
	o.Resume = f.resume
	o.CheckpointEvery, o.CheckpointFrom = f.every, f.from
	if f.maxRejects < 1 {
		o.MaxRejects = &f.maxRejects
	}
	if o.Spec, err = loadSpec(f.spec, f.delay); err != nil {
		return o, err
	}
	if o.Spec.Shape() != features.Events && (f.stateIn != "" || f.maxRejects < 1 || f.resume || f.memory != "") {
		return o, usagef("the spec %s is of %s: --state-in, --append, --resume, --memory and --max-rejects are for "+
			"features of transactions",
			o.Spec.Name(), inWords(string(o.Spec.Shape().Kind())))
	}
	if f.rows != "" {
		loc := time.UTC
		if o.Spec.Shape() != features.Events {
			loc = o.Spec.Location()
		}
		if o.Range, err = datasets.ParseRangeIn(f.rows, loc); err != nil {
			return o, usagef("--range: %w", err)
		}
	}
	if o.In, err = datasets.Open(f.in); err != nil {
		return o, err
	}
	kind := string(o.Spec.Shape().Kind())
	if err := errors.Join(replaces("--out", f.out, o.Force, kind), replaces("--state-out", o.StateOut, o.Force,
		features.StateKind)); err != nil {
		return o, usage(err)
	}
	o.Created = datasets.Created{Command: "features", Version: buildVersion(), Args: os.Args[1:]}
	return o, nil
}

// loadSpec takes a feature spec from a YAML file or by a built-in name; delay, where not empty, is put in
// place of its label delay.
func loadSpec(name, delay string) (*features.Spec, error) {
	spec, err := readSpec(name)
	if err != nil || delay == "" {
		return spec, err
	}
	d, err := datasets.ParseDuration(delay)
	if err != nil {
		return nil, usagef("--delay: %w", err)
	}
	spec, err = spec.WithDelay(d)
	return spec, usage(err)
}

func readSpec(name string) (*features.Spec, error) {
	if !strings.ContainsAny(name, `./\`) {
		spec, err := features.Builtin(name)
		return spec, usage(err)
	}
	src, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("--spec: %w", err)
	}
	spec, err := features.Parse(name, src)
	return spec, usage(err)
}

func runFeatures(cmd *cobra.Command, o features.RunOptions) error {
	con := consoleOf(cmd)
	bar := con.bar("features", o.In.Manifest().Rows, "rows")
	o.Progress = func(done, _ int64) { bar.Set(done, "") }
	start := time.Now()
	var used features.MemoryUse
	o.Used = &used
	m, err := features.Run(cmd.Context(), o)
	if err != nil {
		return err
	}
	bar.Done()
	made, err := features.MadeOf(m)
	if err != nil {
		return err
	}
	seconds := time.Since(start).Seconds()
	folded := m.Counts["folded"]
	if o.Append {
		folded = o.In.Manifest().Rows
	}
	r := featuresReport{
		Out: o.Out, StateOut: o.StateOut, ID: m.ID, Spec: o.Spec.Name(), Fingerprint: made.Fingerprint,
		Shape: o.Spec.Shape(), Features: len(made.Features), Rows: m.Rows, Counts: m.Counts, Seconds: seconds,
		StateBytes: used.State, SpilledBytes: used.Spilled,
		folded: folded, RowsPerSecond: float64(folded) / seconds,
	}
	if p := made.Panel; p != nil {
		r.Series, r.Steps, r.Step, r.Partial = p.Series, p.Steps, p.Step, p.Partial
	}
	if m.Rows > 0 && o.Out != "" && m.Schema.HasTime() {
		r.From, r.To = datasets.FormatTime(m.From), datasets.FormatTime(m.To)
	}
	return con.result(r, func(w io.Writer) error {
		_, err := io.WriteString(w, r.text())
		return err
	})
}

func (r *featuresReport) text() string {
	s := ""
	if r.Out != "" {
		switch r.Shape {
		case features.Panels:
			s = fmt.Sprintf("%s: a panel of %s, %s series by %s steps of %s, %s rows", r.Out, r.Spec,
				progress.Count(r.Series), progress.Count(r.Steps), oneStep(r.Step), progress.Count(r.Rows))
		case features.Baskets:
			s = fmt.Sprintf("%s: %s interactions of %s", r.Out, progress.Count(r.Rows), r.Spec)
		default:
			s = fmt.Sprintf("%s: %d features of %s for %s transactions", r.Out, r.Features, r.Spec, progress.Count(r.Rows))
		}
		if r.From != "" {
			s += fmt.Sprintf(", %s to %s", r.From, r.To)
		}
		s += "\n"
	}
	if r.StateOut != "" {
		s += fmt.Sprintf("%s: the state after the last of them\n", r.StateOut)
	}
	if r.Out != "" && r.Rows > 0 && r.From == "" {
		s += fmt.Sprintf("  without %s: what is to be trained on or cut by time needs it among the spec's keep\n", datasets.TransDatetime)
	}
	s += fmt.Sprintf("  %s rows folded at %s rows/s\n", progress.Count(r.folded), progress.Short(r.RowsPerSecond))
	if r.SpilledBytes > 0 {
		s += fmt.Sprintf("  %s of state, %s of it in a file\n", progress.Bytes(r.StateBytes), progress.Bytes(r.SpilledBytes))
	}
	if r.Partial != "" {
		s += fmt.Sprintf("  the data end inside the last step, which begins at %s: give --range to leave it out\n", r.Partial)
	}
	late := "came later than the spec's lateness and may miss older purchases"
	switch r.Shape {
	case features.Panels:
		late = "came later than the spec's lateness, when their step was over, and were left out"
	case features.Baskets:
		late = "came later than the spec's lateness and stand out of order"
	}
	for _, c := range []struct{ key, text string }{
		{"late", late},
		{"filtered", "do not meet the spec's conditions"},
		{"unkeyed", "have no value in a key, or a table lacks their row, and were left out"},
		{"negative", "have a negative quantity and are not marked as returns; they were taken for returns"},
		{"undone", "sales were undone by a return"},
		{"returned", "returns were left out or undid a purchase"},
		{"dateless", "values of joined tables were not there and are 0"},
		{"invalid", "lack a value that the spec needs, or have an impossible one, and were left out"},
		{"late_skipped", "came later than the spec's lateness and were left out, as the spec says"},
		{"future", "were too far ahead of all before them to be believed and were left out"},
		{"duplicates", "were there already and were left out"},
		{"labels_waiting", "labels came before their transactions"},
		{"labels_expired", "labels were too far in time from their transactions and were not applied"},
		{"labels_ignored", "labels were ignored: the spec has none"},
	} {
		if n := r.Counts[c.key]; n > 0 {
			s += fmt.Sprintf("  %s %s\n", progress.Count(n), c.text)
		}
	}
	if r.Shape == features.Events && r.Out != "" &&
		r.Counts["invalid"]+r.Counts["late_skipped"]+r.Counts["future"]+r.Counts["duplicates"] > 0 {
		s += fmt.Sprintf("  those that were left out are in %s\n", filepath.Join(r.Out, features.RejectsFile))
	}
	return s
}
