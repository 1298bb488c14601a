package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/gpu"
	"github.com/onmart/onmart/train/program"
	"github.com/onmart/onmart/train/tune"
)

// trainFlags are the flags that every task has.
type trainFlags struct {
	data, out, spec    string
	train, valid, test string
	device             deviceFlags
	seed               uint64
	resume, explain    bool
	set                []string
	force              *bool
	runningFlags
	start time.Time // of the command: what --max-time counts from
}

// trainWords is what a task calls the things that its flags name.
type trainWords struct {
	data, spec         string
	train, valid, test string
	seed               string
}

func (f *trainFlags) bind(cmd *cobra.Command, w trainWords, space tune.Space) {
	fl := cmd.Flags()
	fl.StringVar(&f.data, "data", "", w.data)
	fl.StringVar(&f.out, "out", "", "`directory` of the artifact to make")
	fl.StringVar(&f.spec, "spec", "", w.spec)
	fl.StringVar(&f.train, "train", "", w.train)
	fl.StringVar(&f.valid, "valid", "", w.valid)
	fl.StringVar(&f.test, "test", "", w.test)
	fl.StringVar(&f.device.name, "device", "auto", "auto, cpu or cuda[:N]; with --explain also model:NAME, such as model:rtx2060")
	fl.StringVar(&f.device.memory, "gpu-memory", "", "`size` that may be taken of the GPU's memory, such as 4GiB (default nine tenths of what is free)")
	fl.Uint64Var(&f.seed, "seed", 1, w.seed)
	fl.IntVar(&f.device.threads, "threads", 0, "threads (default one a core); they never change the result")
	fl.BoolVar(&f.resume, "resume", false, "go on with a training that was stopped")
	fl.StringArrayVar(&f.set, "set", nil, "change a setting, `name=value`; may be repeated")
	fl.BoolVar(&f.explain, "explain", false, "print the training program, one instruction a line, and where the time of a step goes, measured; for a GPU, what a step is predicted to ask of it")
	f.runningFlags.bind(cmd, space)
	f.force = addForce(cmd)
}

// faults are all faults of the flags but those of the ranges and the settings. It fixes the number of threads.
func (f *trainFlags) faults() []error {
	var faults []error
	if f.data == "" {
		faults = append(faults, errors.New("--data is missing: name a directory of onmart features or onmart import"))
	}
	if f.out == "" && !f.device.paper() {
		faults = append(faults, errors.New("--out is missing: name the directory of the artifact to make"))
	}
	var err error
	if f.device.threads, err = threadCount(f.device.threads); err != nil {
		faults = append(faults, err)
	}
	faults = append(faults, f.device.check()...)
	if f.device.paper() && !f.explain {
		faults = append(faults, fmt.Errorf("--device %s: nothing can be trained on a description of a card; --explain predicts a step on it", f.device.name))
	}
	return faults
}

// run reads how the training is to run, and fixes when it began.
func (f *trainFlags) run(r *train.Running) (err error) {
	f.start = time.Now()
	*r, err = f.running(f.out, f.start, f.resume)
	return err
}

// trainRanges are --train, --valid and --test; the last two are nil where they were not given.
type trainRanges struct {
	train       datasets.Range
	valid, test *datasets.Range
}

// ranges reads the ranges; dates are days of the zone.
func (f *trainFlags) ranges(zone *time.Location) (trainRanges, error) {
	var faults []error
	span := func(flag, value string) *datasets.Range {
		if value == "" {
			return nil
		}
		r, err := datasets.ParseRangeIn(value, zone)
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", flag, err))
		}
		return &r
	}
	var out trainRanges
	if r := span("--train", f.train); r != nil {
		out.train = *r
	}
	out.valid, out.test = span("--valid", f.valid), span("--test", f.test)
	return out, errors.Join(faults...)
}

// settingsText lists what --set takes, with the defaults.
func settingsText[C any](settings []train.Setting[C], defaults C) string {
	var widest int
	for _, x := range settings {
		widest = max(widest, len(x.Name)+1+len(x.Value(&defaults)))
	}
	var s strings.Builder
	s.WriteString("Settings for --set, with their defaults:")
	for _, x := range settings {
		fmt.Fprintf(&s, "\n  %-*s  %s", widest, x.Name+"="+x.Value(&defaults), x.Words)
	}
	return s.String()
}

// trainCreated says what makes the artifact of a command.
func trainCreated(command string) model.Created {
	return model.Created{Command: command, Onmart: buildVersion(), Args: os.Args[1:], Time: time.Now().UTC().Format(time.RFC3339)}
}

// explained prints the program of a step; where its time goes on the processor, measured; or what the GPU of the backend, where it
// has one, is predicted to take for it. It is nil without --explain.
func (f *trainFlags) explained(con *console, backend program.Backend) func(*program.Set, program.Data) {
	if !f.explain {
		return nil
	}
	return func(set *program.Set, data program.Data) {
		fmt.Fprint(con.err, set.Train.String())
		if b, ok := backend.(*cpu.Backend); ok {
			p, err := b.Profile(set, data)
			if err != nil {
				con.notef("no profile of a step: %v", err)
				return
			}
			fmt.Fprintln(con.err)
			p.Print(con.err) // an error of standard error has nowhere to go
			return
		}
		b, ok := backend.(*gpu.Backend)
		if !ok {
			return
		}
		p, err := gpu.Predict(set, data, b.Kernels().Tuning())
		if err != nil {
			con.notef("no prediction of a step: %v", err)
			return
		}
		fmt.Fprintln(con.err)
		p.Print(con.err) // an error of standard error has nowhere to go
	}
}

// predicted says what a step would ask of the card that --device describes. Nothing is trained.
func (f *trainFlags) predicted(con *console, set *program.Set, data program.Data) error {
	tuning, err := f.device.tuning()
	if err != nil {
		return err
	}
	p, err := gpu.Predict(set, data, tuning)
	if err != nil {
		return err
	}
	con.notef("nothing was trained: %s is a description of a card, not a card", f.device.name)
	return con.result(p, p.Print)
}
