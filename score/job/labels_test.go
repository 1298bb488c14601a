package job

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/score/deadletter"
)

const labelMapping = `format: jsonl
timezone: UTC
columns:
  trans_id: {type: int64}
  trans_datetime: {layout: unix}
  user_id: {type: int64}
  store_id: {type: int64}
  amount: {}
`

const labelSpec = `name: labels
timezone: UTC
label: {column: is_fraud, delay: 2d}
features:
  - {name: risk, kind: risk, key: store_id, windows: [ever], prior: {rate: 0.5, weight: 1}}
`

// TestLabelsOnATopicOfTheirOwn: labels are folded among the transactions by when they were known, and have no line; what else
// comes on their topic becomes a letter; a job that was stopped knows them still.
func TestLabelsOnATopicOfTheirOwn(t *testing.T) {
	const begin = 1_600_000_000
	b, dir := newBroker(), t.TempDir()
	b.create("kafka:in/0", "a")
	b.create("kafka:labels/0", "a")
	buy := func(minute int) []byte {
		return fmt.Appendf(nil, `{"trans_id":%d,"trans_datetime":%d,"user_id":%d,"store_id":1,"amount":2.5}`, minute, begin+60*minute, minute)
	}
	label := func(id, known int) []byte {
		return fmt.Appendf(nil, `{"trans_id":%d,"is_fraud":1,"known_at":%q}`, id, time.Unix(int64(begin+known), 0).UTC().Format(time.RFC3339))
	}
	for minute := range 8 {
		b.produce("kafka:in/0", 0, fmt.Appendf(nil, "k%d", minute), buy(minute))
	}
	b.produce("kafka:labels/0", 0, nil, label(0, 210)) // between the fourth and the fifth
	b.produce("kafka:labels/0", 0, []byte("wrong"), buy(100))
	b.produce("kafka:labels/0", 0, nil, label(2, 330))
	life := func() {
		t.Helper()
		m, spec := parsed(t, labelMapping, labelSpec)
		p, err := startOf(t, dir, m, spec, func(o *Options) {
			overTopics(b)(o)
			o.DeadLetters = true
			o.Labels = func(source string) bool { return strings.HasPrefix(source, "kafka:labels/") }
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.j.Run(context.Background()); err != nil {
			t.Fatal(err)
		}
		p.close(t)
	}
	life()
	b.produce("kafka:in/0", 0, []byte("k8"), buy(8))
	b.produce("kafka:labels/0", 0, nil, label(4, 500))
	b.produce("kafka:in/0", 0, []byte("k9"), buy(9))
	life()

	// The prior counts as half a fraud of one; each label that is known by then adds a fraud of one.
	want := []float64{0.5, 0.5, 0.5, 0.5, 1.5 / 2, 1.5 / 2, 2.5 / 3, 2.5 / 3, 2.5 / 3, 3.5 / 4}
	scored := 0
	for _, l := range b.lines {
		if l.Dead {
			x, err := deadletter.Parse(l.Value)
			if err != nil || string(l.Key) != "wrong" || x.Column != "is_fraud" || x.Reason != "is missing" {
				t.Errorf("letter %s: %+v, %v", l.Key, x, err)
			}
			continue
		}
		var x struct{ Risk float64 }
		if err := json.Unmarshal(l.Value, &x); err != nil {
			t.Fatal(err)
		}
		if key := fmt.Sprintf("k%d", scored); string(l.Key) != key || x.Risk != want[scored] {
			t.Errorf("line %s has risk %v, want %s with %v", l.Key, x.Risk, key, want[scored])
		}
		scored++
	}
	if scored != len(want) || len(b.lines) != len(want)+1 {
		t.Errorf("%d lines, %d of them scores", len(b.lines), scored)
	}
}
