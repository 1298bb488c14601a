package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/quality"
)

// reloadEvery is how often directories and rules are looked at: a look is two system calls for each.
const reloadEvery = time.Second

// addLive adds the flags of shadows, rules, live figures and reloading.
func (f *scoreFlags) addLive(fl *pflag.FlagSet) {
	fl.StringArrayVar(&f.shadows, "shadow", nil, "artifact `directory` of a classifier that scores beside --model and decides nothing; may be repeated")
	fl.StringVar(&f.rules, "rules", "", "YAML `file` of rules that decide before and after the model")
	fl.BoolVar(&f.reloadCold, "reload-cold", false, "let a replaced model with new features take over at once, with windows that are not full")
	fl.StringVar(&f.quality, "quality", "on", "keep live figures from the labels that come: on or off")
	fl.StringVar(&f.qualityWindow, "quality-window", "30d", "how far back, in event time, live figures reach")
	fl.IntVar(&f.alertBudget, "alert-budget", 0, "transactions a day of the live precision at the budget (default: the model's alerts a day)")
}

// live fills in what the flags of addLive ask for.
func (f *scoreFlags) live(o *score.Options) error {
	o.Rules = f.rules
	window, err := datasets.ParseDuration(f.qualityWindow)
	if err != nil || window <= 0 {
		return usagef("--quality-window %s: want a duration, such as 30d", f.qualityWindow)
	}
	if f.quality != "on" && f.quality != "off" {
		return usagef("--quality %s: want on or off", f.quality)
	}
	if f.alertBudget < 0 {
		return usagef("--alert-budget %d: want 1 or more", f.alertBudget)
	}
	for _, dir := range f.shadows {
		a, err := model.Open(dir)
		if err != nil {
			return err
		}
		o.Shadows = append(o.Shadows, a)
	}
	if o.Artifact == nil || f.quality == "off" {
		return nil
	}
	m := o.Artifact.Manifest()
	q := &quality.Options{Delay: o.Artifact.Spec().Delay(), Window: window, Budget: f.alertBudget}
	if q.Delay == 0 {
		q.Delay = int64(m.Lineage.Delay)
	}
	if q.Budget == 0 {
		q.Budget = int(m.AlertsPerDay)
	}
	o.Quality = q
	return nil
}

// watch reloads what is replaced on disk, and all on SIGHUP, until ctx ends; nil without a classifier.
func (f *scoreFlags) watch(ctx context.Context, s *score.Scorer, classifier bool) *score.Reloader {
	if !classifier {
		return nil
	}
	r := score.NewReloader(s, f.reloadCold)
	go r.Watch(ctx, reloadEvery)
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	go func() {
		defer signal.Stop(hup)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hup:
				r.Reload()
			}
		}
	}()
	return r
}
