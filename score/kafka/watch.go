package kafka

import (
	"context"
	"sync"
	"time"
)

// watch looks after a connection: probe is called again and again, and what changes is told. A probe that fails
// for good returns an error of its own kind through fatal.
type watch struct {
	every  time.Duration
	note   func(Note)
	probe  func(ctx context.Context) (problem string, fatal error)
	fatal  func(error)
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// The first line of an outage is repeated this often, so that a log of the last hours shows it.
const repeatAfter = 5 * time.Minute

// probeTimeout is how long a broker may take to answer before it counts as down.
const probeTimeout = 5 * time.Second

func (w *watch) start() {
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	w.done.Go(func() { w.run(ctx) })
}

func (w *watch) stop() {
	w.cancel()
	w.done.Wait()
}

func (w *watch) run(ctx context.Context) {
	var down, told time.Time
	for sleep(ctx, w.every) == nil {
		probing, done := context.WithTimeout(ctx, probeTimeout)
		problem, fatal := w.probe(probing)
		done()
		switch {
		case ctx.Err() != nil:
			return
		case fatal != nil:
			w.note(Note{Down, fatal.Error()})
			w.fatal(fatal)
			return
		case problem != "":
			now := time.Now()
			if down.IsZero() {
				down = now
			}
			if told.IsZero() || now.Sub(told) >= repeatAfter {
				told = now
				w.note(Note{Down, problem + "; trying again until it works"})
			}
		case !down.IsZero():
			w.note(Note{Up, "works again after " + time.Since(down).Round(time.Second).String()})
			down, told = time.Time{}, time.Time{}
		}
	}
}
