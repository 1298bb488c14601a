package job

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score"
)

const shopMapping = `
timezone: UTC
columns:
  trans_id: {type: int64}
  trans_datetime: {}
  product_id: {}
  store_id: {type: int64}
  quantity: {}
`

// countsMapping is of a topic whose events name things in their own way.
const countsMapping = `
timezone: UTC
columns:
  trans_id: {type: int64}
  trans_datetime: {}
  product_id: {from: sku}
  store_id: {from: shop, type: int64}
  quantity: {from: on_hand}
`

const shopSpec = `name: shop
timezone: UTC
features:
  - {name: sales, kind: count, key: product_id, windows: [ever]}
`

// TestStockOnATopicOfItsOwn: counts of stock come on a topic with names of its own and among the transactions, have no line, and
// are there after the job was started again: from its journal, where it was killed before a checkpoint, and from that.
func TestStockOnATopicOfItsOwn(t *testing.T) {
	const begin = 1_600_000_000
	b, dir := newBroker(), t.TempDir()
	for _, p := range []string{"kafka:in/0", "kafka:stock/0", "kafka:stock/1"} {
		b.create(p, "a")
	}
	at := func(minute int) string { return time.Unix(int64(begin+60*minute), 0).UTC().Format(time.RFC3339) }
	buy := func(minute int) []byte {
		return fmt.Appendf(nil, `{"trans_id":%d,"trans_datetime":%q,"product_id":"milk","store_id":1,"quantity":1}`, minute, at(minute))
	}
	count := func(product string, shop, units, minute int) []byte {
		return fmt.Appendf(nil, `{"sku":%q,"shop":%d,"on_hand":%d,"known_at":%q}`, product, shop, units, at(minute))
	}
	for minute := range 4 {
		b.produce("kafka:in/0", 0, nil, buy(minute))
	}
	b.produce("kafka:in/0", 0, nil, fmt.Appendf(nil, `{"event":"stock","product_id":"salt","quantity":5,"known_at":%q}`, at(4)))
	b.produce("kafka:stock/0", 0, nil, count("milk", 1, 12, 1))
	b.produce("kafka:stock/0", 0, []byte("wrong"), buy(100))
	b.produce("kafka:stock/1", 0, nil, count("milk", 2, 8, 2))
	b.produce("kafka:stock/1", 0, nil, count("milk", 1, 11, 3))
	life := func(killed bool, lines int, want string) {
		t.Helper()
		m, spec := parsed(t, shopMapping, shopSpec)
		own, err := datasets.ParseMapping("counts", []byte(countsMapping))
		if err != nil {
			t.Fatal(err)
		}
		p, err := startOf(t, dir, m, spec, func(o *Options) {
			overTopics(b)(o)
			o.Source = &memorySource{b: b, rng: rand.New(rand.NewPCG(1, 2)), stop: !killed}
			o.DeadLetters = true
			o.Stock = func(source string) bool { return strings.HasPrefix(source, "kafka:stock/") }
			o.Mappings = func(source string) *datasets.Mapping {
				if o.Stock(source) {
					return own
				}
				return nil
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- p.j.Run(ctx) }()
		if killed {
			until(t, func() bool {
				b.mu.Lock()
				defer b.mu.Unlock()
				return len(b.lines) == lines && p.scorer.Counts().Stock == 4
			})
			p.j.fold.Lock()
			p.j.checkpoints.entry = p.j.last // no checkpoint
			p.j.fold.Unlock()
			stop()
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		stop()
		w := httptest.NewRecorder()
		score.NewServer(p.scorer, m, score.ServerOptions{}).Handler().ServeHTTP(w, httptest.NewRequest("GET", "/v1/stock", nil))
		got, err := io.ReadAll(w.Result().Body)
		if err != nil || strings.TrimSpace(string(got)) != strings.ReplaceAll(want, "AT", "2020-09-13T12:") {
			t.Errorf("%s\nwant %s, %v", got, want, err)
		}
		p.close(t)
	}
	life(true, 5, `{"until":"AT30:40Z","levels":[{"product_id":"milk","store_id":"1","on_hand":11,"known_at":"AT29:40Z"},`+
		`{"product_id":"milk","store_id":"2","on_hand":8,"known_at":"AT28:40Z"},{"product_id":"salt","on_hand":5,"known_at":"AT30:40Z"}]}`)
	b.produce("kafka:stock/0", 0, nil, count("milk", 2, 0, 9))
	b.produce("kafka:in/0", 0, nil, buy(9))
	life(false, 6, `{"until":"AT35:40Z","levels":[{"product_id":"milk","store_id":"1","on_hand":11,"known_at":"AT29:40Z"},`+
		`{"product_id":"milk","store_id":"2","on_hand":0,"known_at":"AT35:40Z"},{"product_id":"salt","on_hand":5,"known_at":"AT30:40Z"}]}`)
	b.produce("kafka:in/0", 0, nil, buy(10))
	life(false, 7, `{"until":"AT35:40Z","levels":[{"product_id":"milk","store_id":"1","on_hand":11,"known_at":"AT29:40Z"},`+
		`{"product_id":"milk","store_id":"2","on_hand":0,"known_at":"AT35:40Z"},{"product_id":"salt","on_hand":5,"known_at":"AT30:40Z"}]}`)
	dead := 0
	for _, l := range b.lines {
		if l.Dead {
			dead++
		}
	}
	if len(b.lines) != 7 || dead != 1 {
		t.Errorf("%d lines, %d of them letters", len(b.lines), dead)
	}
}
