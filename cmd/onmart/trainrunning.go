package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/internal/atomicdir"
	"github.com/onmart/onmart/internal/report"
	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/program"
	"github.com/onmart/onmart/train/tune"
)

// runningFlags say how a training runs, for every task.
type runningFlags struct {
	maxTime, log, report string
	seeds, trials        int
	space                string
}

// noLog is what --log says to keep none.
const noLog = "none"

func (f *runningFlags) bind(cmd *cobra.Command, space tune.Space) {
	fl := cmd.Flags()
	fl.StringVar(&f.maxTime, "max-time", "", "end at the last epoch that fits into this `time`, such as 10m, from the start of the command")
	fl.IntVar(&f.seeds, "seeds", 1, "train so many networks, with --seed and the seeds after it, and average them in one model")
	fl.IntVar(&f.trials, "tune", 0, "first try so many `settings`, judged on validation rows alone, and train with the best of them")
	fl.StringVar(&f.space, "tune-space", "", "YAML `file` of the ranges that --tune draws from, or in onmart.yaml the ranges themselves (default: built in)")
	fl.StringVar(&f.log, "log", "", "`file` of the run log, JSON lines (default: OUT.runlog.jsonl; none keeps none)")
	fl.StringVar(&f.report, "report", "", "HTML `file` to write, with the course of the training")
	cmd.Long += "\n\nRanges for --tune where --tune-space names no others:\n  " +
		strings.ReplaceAll(strings.TrimSpace(space.String()), "\n", "\n  ")
}

// running reads the flags; out is the artifact.
func (f *runningFlags) running(out string, start time.Time, resume bool) (train.Running, error) {
	var faults []error
	r := train.Running{Log: f.log, Start: start, Seeds: f.seeds, Trials: f.trials}
	switch f.log {
	case "":
		r.Log = train.LogFile(out)
	case noLog:
		r.Log = ""
	}
	if f.maxTime != "" {
		d, err := time.ParseDuration(f.maxTime)
		if err != nil || d <= 0 {
			faults = append(faults, fmt.Errorf("--max-time %s: want a time such as 90s, 10m or 1h30m", f.maxTime))
		}
		r.MaxTime = d
	}
	if f.seeds < 1 || f.seeds > train.MaxSeeds {
		faults = append(faults, fmt.Errorf("--seeds %d: want 1 to %d", f.seeds, train.MaxSeeds))
	}
	if f.trials < 0 || f.trials > maxTrials {
		faults = append(faults, fmt.Errorf("--tune %d: want 1 to %d trials", f.trials, maxTrials))
	}
	if f.space != "" && f.trials == 0 {
		if !strings.HasPrefix(f.space, inlineSpace) { // ranges in onmart.yaml wait for a --tune
			faults = append(faults, errors.New("--tune-space: without --tune there is nothing to draw; add --tune 20"))
		}
	} else if f.space != "" {
		var err error
		if r.Space, err = readSpace(f.space); err != nil {
			faults = append(faults, fmt.Errorf("--tune-space: %w", err))
		}
	}
	return r, errors.Join(faults...)
}

// maxTrials bounds --tune.
const maxTrials = 10_000

// inlineSpace begins the value of --tune-space that onmart.yaml gives in place of a file.
const inlineSpace = "ranges:\n"

// readSpace reads the ranges of a file, or those that onmart.yaml has.
func readSpace(value string) (tune.Space, error) {
	if text, ok := strings.CutPrefix(value, inlineSpace); ok {
		return tune.Parse(configName, []byte(text))
	}
	text, err := os.ReadFile(value)
	if err != nil {
		return nil, err
	}
	return tune.Parse(value, text)
}

// beside gives the trials of a search a backend of one thread each, where they are trained on the processor: a small model
// makes no use of several.
func beside(r *train.Running, b program.Backend, threads int) error {
	if _, onCPU := b.(*cpu.Backend); !onCPU || threads < 2 || r.Trials < 2 {
		return nil
	}
	one, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		return err
	}
	r.Beside, r.Parallel = one, min(threads, r.Trials)
	return nil
}

// reportable sees to it that --report can be written, before the training.
func (f *runningFlags) reportable(force bool) error {
	if f.report == "" {
		return nil
	}
	probe, err := atomicdir.CreateFile(f.report, force)
	if err != nil {
		return err
	}
	probe.Abort()
	return nil
}

// writeReport writes the page of a training.
func (f *runningFlags) writeReport(con *console, force bool, page *report.Page) error {
	if f.report == "" {
		return nil
	}
	file, err := atomicdir.CreateFile(f.report, force)
	if err != nil {
		return err
	}
	defer file.Abort()
	if err := report.Write(file, page); err != nil {
		return file.Err(err)
	}
	if err := file.Commit(); err != nil {
		return err
	}
	con.notef("report: %s", f.report)
	return nil
}

// tableRows is how many trials are printed; --json and the report have all.
const tableRows = 20

// printTrials is the table of a search, the best first.
func printTrials(w io.Writer, r *tune.Result, figure string) error {
	if r == nil {
		return nil
	}
	names := settingNames(r)
	spread := slices.ContainsFunc(r.Trials, func(t tune.Trial) bool { return len(t.Folds) > 1 })
	head := []string{"trial", figure}
	if spread {
		head = append(head, "spread")
	}
	t := newTable(append(append(head, "epochs", "seconds"), names...)...)
	for i, x := range r.Trials {
		if i == tableRows {
			break
		}
		t.add(trialCells(&x, names, spread)...)
	}
	if err := t.write(w); err != nil {
		return err
	}
	if n := len(r.Trials) - tableRows; n > 0 {
		fmt.Fprintf(w, "and %d more, which --json and --report list\n", n)
	}
	foot := "trial 1 is the settings as they were given"
	if len(r.Rungs) > 1 {
		foot = "figures of trials that went less far are of fewer epochs; " + foot
	}
	_, err := fmt.Fprintln(w, foot)
	return err
}

// trialCells is a trial as a row of a table.
func trialCells(x *tune.Trial, names []string, spread bool) []string {
	cells := []string{fmt.Sprint(x.ID), "-"}
	switch {
	case x.Failed != "":
		cells[1] = "failed"
	case x.Rung > 0:
		cells[1] = fmt.Sprintf("%.4f", x.Figure)
	}
	if spread {
		cells = append(cells, fmt.Sprintf("%.4f", x.Spread))
	}
	cells = append(cells, fmt.Sprint(x.Epochs), fmt.Sprintf("%.1f", x.Seconds))
	for _, name := range names {
		at := slices.IndexFunc(x.Settings, func(c tune.Choice) bool { return c.Name == name })
		value := "-"
		if at >= 0 {
			value = x.Settings[at].Value
		}
		cells = append(cells, value)
	}
	return cells
}

// settingNames are the settings that the trials vary.
func settingNames(r *tune.Result) []string {
	var names []string
	for _, t := range r.Trials {
		for _, c := range t.Settings {
			if !slices.Contains(names, c.Name) {
				names = append(names, c.Name)
			}
		}
	}
	slices.Sort(names)
	return names
}
