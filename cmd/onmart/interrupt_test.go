package main

import (
	"context"
	"io"
	"syscall"
	"testing"
	"time"
)

// TestTwoSignalsAtOnceAreOne signals this process as timeout does, itself and by its group: it would end if both counted.
func TestTwoSignalsAtOnceAreOne(t *testing.T) {
	ctx, stop := interruptible(context.Background(), io.Discard)
	defer stop()
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		if err := syscall.Kill(syscall.Getpid(), s); err != nil {
			t.Fatal(err)
		}
	}
	<-ctx.Done()
	time.Sleep(sameSignal / 2) // the second is there by now
	if context.Cause(ctx) != errInterrupted {
		t.Error(context.Cause(ctx))
	}
}
