package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// starting does a step of a start. Where the broker goes away in the midst of it, which is when a cluster is restarted, the step is
// done again from its beginning, until start-timeout has passed.
func (c *Config) starting(ctx context.Context, note func(Note), step func(context.Context) error) error {
	limit, done := context.WithTimeout(ctx, c.startTimeout)
	defer done()
	for told := false; ; {
		err := step(limit)
		if err == nil || !wentAway(err) || ctx.Err() != nil {
			return err
		}
		if _, hard := c.explain(err); hard {
			return err
		}
		if !told {
			note(Note{Text: fmt.Sprintf("the broker went away during the start: %v; trying for %s", err, c.startTimeout)})
			told = true
		}
		if sleep(limit, 250*time.Millisecond) != nil {
			return fmt.Errorf("gave up after %s (start-timeout): %w", c.startTimeout, err)
		}
	}
}

// wentAway reports errors of a connection that was there and broke or could not be made, and of a broker that is not itself again.
func wentAway(err error) bool {
	var (
		first *kgo.ErrFirstReadEOF
		op    *net.OpError // of a dial too, which kgo does not count among those to be retried
	)
	return kgo.IsRetryableBrokerErr(err) || kerr.IsRetriable(err) || errors.As(err, &first) || errors.As(err, &op) || errors.Is(err, io.EOF)
}
