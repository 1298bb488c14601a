package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// errInterrupted is the cause of a context cancelled by Ctrl-C or SIGTERM.
var errInterrupted = errors.New("interrupted")

// sameSignal is how soon after the first a signal is the same request: timeout and some supervisors signal the process and its
// group at once.
const sameSignal = 200 * time.Millisecond

// interruptible returns a context that the first SIGINT or SIGTERM cancels, so that deferred clean-up
// runs and a training run writes its checkpoint. The second signal ends the process at once: what it
// leaves half-made is hidden and removed by the next run.
func interruptible(parent context.Context, stderr io.Writer) (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	signals := make(chan os.Signal, 2)
	quit := make(chan struct{})
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
		case <-quit:
			return
		}
		fmt.Fprintln(stderr, "\nonmart: stopping cleanly; once more to stop at once")
		cancel(errInterrupted)
		for first := time.Now(); ; {
			select {
			case <-signals:
				if time.Since(first) > sameSignal {
					os.Exit(exitFailed)
				}
			case <-quit:
				return
			}
		}
	}()
	return ctx, sync.OnceFunc(func() {
		signal.Stop(signals)
		close(quit)
		cancel(nil)
	})
}
