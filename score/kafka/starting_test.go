package kafka

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// A broker that goes away while a job starts does not end the start.
func TestStartOutlivesBroker(t *testing.T) {
	for _, key := range []kmsg.Key{kmsg.InitProducerID, kmsg.OffsetFetch, kmsg.ListOffsets} {
		cluster, url := fake(t, kfake.SeedTopics(1, "in", "out"))
		broken := 0
		cluster.ControlKey(key.Int16(), func(kmsg.Request) (kmsg.Response, error, bool) {
			if broken++; broken <= 3 {
				cluster.KeepControl()
				return nil, errors.New("the connection breaks"), true
			}
			return nil, nil, false
		})
		var n notes
		s := newSource(t, parse(t, url+"in"), &n)
		if _, err := s.Committed(t.Context()); err != nil {
			t.Errorf("%v: %v", key, err)
		}
		newSink(t, parse(t, url+"out"), true, &n)
		if broken < 3 || !strings.Contains(n.String(), "the broker went away during the start") {
			t.Errorf("%v: broken %d times; notes: %s", key, broken, n.String())
		}
	}
}

// A broker that nobody listens for any more, and one whose connection breaks, have gone away.
func TestWentAway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	cl, err := kgo.NewClient(kgo.SeedBrokers(l.Addr().String()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := cl.Ping(t.Context()); !wentAway(err) {
		t.Errorf("%v: taken for final", err)
	}
	for _, err := range []error{io.EOF, kerr.LeaderNotAvailable, &kgo.ErrFirstReadEOF{}} {
		if !wentAway(err) {
			t.Errorf("%v: taken for final", err)
		}
	}
	for _, err := range []error{kerr.SaslAuthenticationFailed, context.Canceled, ErrTrimmed} {
		if wentAway(err) {
			t.Errorf("%v: taken for passing", err)
		}
	}
}

// A transaction that the broker does not end keeps its offsets back for ever: the start says what to do.
func TestHangingTransactionIsTold(t *testing.T) {
	cluster, url := fake(t, kfake.SeedTopics(1, "in", "out"))
	cluster.ControlKey(kmsg.OffsetFetch.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
		g := kmsg.NewOffsetFetchResponseGroup()
		g.Group, g.ErrorCode = "g", kerr.UnstableOffsetCommit.Code
		resp.Groups = append(resp.Groups, g)
		return resp, nil, true
	})
	_, err := NewSink(t.Context(), parse(t, url+"out?start-timeout=1s"),
		SinkOptions{ExactlyOnce: true, TransactionalID: "job", Group: "g"})
	if err == nil || !strings.Contains(err.Error(), "gave up after 1s") || !strings.Contains(err.Error(), "ClusterAction, for one start") {
		t.Errorf("got %v", err)
	}
}
