package kafka

import (
	"errors"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"
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
