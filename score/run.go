package score

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/onmart/onmart/score/monitor"
)

// Source hands out events in order. Next returns at least one event or reject, or an error; io.EOF, which may
// come with the last events, ends it.
type Source interface {
	Name() string
	Next(ctx context.Context, limit int) (Events, error)
}

// Output takes whole lines; Flush makes them visible to a reader of a stream.
type Output interface {
	io.Writer
	Flush() error
}

// Run scores a source to its end in batches of at most batch events, reading ahead by one. When ctx ends it
// stops after the batch in hand and returns nil: all that was read into the state has been written.
func Run(ctx context.Context, s *Scorer, src Source, out Output, batch int) error {
	type piece struct {
		ev  Events
		at  time.Time // when it was read
		err error
	}
	pieces := make(chan piece)
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		defer close(pieces)
		for {
			ev, err := src.Next(ctx, batch)
			select {
			case pieces <- piece{ev, time.Now(), err}:
			case <-stop:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	var lines Lines
	for {
		var p piece
		select {
		case p = <-pieces:
		case <-ctx.Done():
			select {
			case p = <-pieces: // read already: it would be lost
			default:
				return nil
			}
		}
		if p.ev.Rows != nil {
			lines.Reset()
			if _, err := s.ProcessLines(p.ev, &lines); err != nil {
				return err
			}
			start := time.Now()
			if _, err := out.Write(lines.Bytes); err != nil {
				return err
			}
			if err := out.Flush(); err != nil {
				return err
			}
			if n := len(lines.Lines); n > 0 {
				s.monitor.Stage(monitor.Deliver, time.Since(start))
				s.monitor.Delivered(n, time.Since(p.at))
			}
			for _, source := range p.ev.Sources {
				s.monitor.Position(source, s.Position(source))
			}
		}
		switch {
		case p.err == io.EOF, errors.Is(p.err, context.Canceled):
			return nil
		case p.err != nil:
			return p.err
		}
	}
}
