package score_test

import (
	"bufio"
	"compress/gzip"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/internal/testkit"
	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/model/modeltest"
)

// runForm scores lines with the options and returns what comes out.
func runForm(t *testing.T, o score.Options, m *datasets.Mapping, lines string) []string {
	t.Helper()
	o.Schema = m.LogSchema()
	if o.Explain == "" {
		o.Explain = score.ExplainOff
	}
	added, err := o.AddedFields()
	if err != nil {
		t.Fatal(err)
	}
	if o.Form == score.FormEvent {
		if m, err = m.Repeating(added); err != nil {
			t.Fatal(err)
		}
	}
	s, err := score.New(o)
	if err != nil {
		t.Fatal(err)
	}
	return runText(t, s, m, lines, 64)
}

// keysOf lists the names of an object's own fields in their order; it fails where one is there twice.
func keysOf(t *testing.T, line string) (keys []string) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(line))
	if _, err := d.Token(); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	for d.More() {
		k, err := d.Token()
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(keys, k.(string)) {
			t.Fatalf("%s: %v is there twice", line, k)
		}
		keys = append(keys, k.(string))
		var v json.RawMessage
		if err := d.Decode(&v); err != nil {
			t.Fatal(err)
		}
	}
	return keys
}

func TestEventFormRepeatsTheEvent(t *testing.T) {
	a := modeltest.Artifact(t)
	event := `{"trans_id":1, "trans_datetime":"2018-08-01T00:00:00Z","user_id":4,"store_id":2,"amount":4.50 ,"x":{"y":[1, 2]}`
	in := "  " + event + " }  \n{\"trans_id\":2,\"trans_datetime\":\"2018-08-01T00:00:01Z\",\"user_id\":4,\"store_id\":2,\"amount\":1,\"my_model\":3}\n"
	plain := parse(t, runForm(t, score.Options{Artifact: a, Features: true}, mapping(t), in))
	got := runForm(t, score.Options{Artifact: a, Features: true, Form: score.FormEvent, Prefix: "my_"}, mapping(t), in)
	if len(got) != 2 || !strings.HasPrefix(got[0], event+`,"my_TX_AMOUNT":4.5,`) {
		t.Fatalf("%s", got)
	}
	var line map[string]any
	if err := json.Unmarshal([]byte(got[0]), &line); err != nil {
		t.Fatal(err)
	}
	keysOf(t, got[0])
	if line["my_model"] != plain[0].Model || line["my_decision"] != plain[0].Decision || line["my_score_id"] != plain[0].ScoreID ||
		line["my_scores"].(map[string]any)["fraud"] != plain[0].Scores.Fraud {
		t.Errorf("%s, want the verdict of %+v", got[0], plain[0])
	}
	for name, v := range plain[0].Features {
		if line["my_"+name] != v {
			t.Errorf("%s is %v, want %v", name, line["my_"+name], v)
		}
	}
	// The second has a field that the output adds.
	if e := parse(t, got[1:])[0].Error; e == nil || e.Column != "my_model" {
		t.Errorf("%s, want it refused", got[1])
	}
}

const streams = "../docs/bench/streams/"

// streamParts are the spec and the mapping of the comparison with Kafka Streams.
func streamParts(t testing.TB) (*features.Spec, *datasets.Mapping) {
	t.Helper()
	text, err := os.ReadFile(streams + "spec.yaml")
	if err != nil {
		t.Fatal(err)
	}
	spec, err := features.Parse("spec.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	if text, err = os.ReadFile(streams + "mapping.yaml"); err != nil {
		t.Fatal(err)
	}
	m, err := datasets.ParseMapping("mapping.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	return spec, m
}

// madeUp are n events like the comparison's.
func madeUp(n int) (lines []string) {
	at := int64(1522540800)
	for i := range n {
		at += int64(i%13) * 700
		lines = append(lines, fmt.Sprintf(`{"id":%d,"ts":%d,"customer":%d,"terminal":%d,"amount":%d.%02d}`, i, at, i*i%17, i%5, i%211, i*7%100))
	}
	return lines
}

// handbookLines are n of the handbook's transactions as the comparison has them.
func handbookLines(t *testing.T, path string, n int) (lines []string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(bufio.NewReader(f))
	if err != nil {
		t.Fatal(err)
	}
	r := csv.NewReader(z)
	if _, err := r.Read(); err != nil {
		t.Fatal(err)
	}
	for range n {
		rec, err := r.Read()
		if err != nil {
			t.Fatal(err)
		}
		at, err := time.Parse(time.DateTime, rec[1])
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf(`{"id":%s,"ts":%d,"customer":%s,"terminal":%s,"amount":%s}`, rec[0], at.Unix(), rec[2], rec[3], rec[4]))
	}
	return lines
}

func TestFeaturesWithoutAModel(t *testing.T) { featuresWithoutAModel(t, madeUp(20_000)) }

func TestHandbookFeaturesWithoutAModel(t *testing.T) {
	featuresWithoutAModel(t, handbookLines(t, testkit.SharedData(t, "fraud-handbook/transactions.csv.gz"), 500_000))
}

// featuresWithoutAModel computes the comparison's features again from the output itself, as its verifier does.
func featuresWithoutAModel(t *testing.T, in []string) {
	t.Helper()
	spec, m := streamParts(t)
	got := runForm(t, score.Options{Spec: spec, Form: score.FormEvent}, m, strings.Join(in, "\n"))
	if len(got) != len(in) {
		t.Fatalf("%d lines of %d events", len(got), len(in))
	}
	type purchase struct {
		ts     int
		amount float64
	}
	past := map[int][]purchase{}
	for i, line := range got {
		if !strings.HasPrefix(line, in[i][:len(in[i])-1]+",") {
			t.Fatalf("%s does not begin as %s", line, in[i])
		}
		var e struct {
			ID, TS, Customer int
			Amount           float64
			N1, N7, N30      int
			A1, A7, A30      float64
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		h := append(past[e.Customer], purchase{e.TS, e.Amount})
		past[e.Customer] = h
		for s, days := range []int{1, 7, 30} {
			n, sum := 0, 0.0
			for _, x := range slices.Backward(h) {
				if x.ts <= e.TS-days*86400 {
					break
				}
				n++
				sum += x.amount
			}
			gotN, gotA := []int{e.N1, e.N7, e.N30}[s], []float64{e.A1, e.A7, e.A30}[s]
			if gotN != n || !(math.Abs(gotA-sum/float64(n)) <= 1e-9*math.Abs(gotA)) {
				t.Fatalf("%s: within %d days %d of mean %v, want %d of %v", line, days, gotN, gotA, n, sum/float64(n))
			}
		}
	}
	if keys := keysOf(t, got[0]); len(keys) != 11 {
		t.Errorf("fields %v", keys)
	}
	// The other form has the same numbers in an object of their own.
	for i, line := range runForm(t, score.Options{Spec: spec}, m, strings.Join(in[:100], "\n")) {
		var e struct {
			Trans    int64              `json:"trans_id"`
			Features map[string]float64 `json:"features"`
		}
		var same map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(got[i]), &same); err != nil {
			t.Fatal(err)
		}
		if float64(e.Trans) != same["id"] || len(e.Features) != 6 {
			t.Fatalf("%s, want that of %s", line, got[i])
		}
		for name, v := range e.Features {
			if same[name] != v {
				t.Errorf("%s: %s is not that of %s", line, name, got[i])
			}
		}
	}
}

// live is one event at a time from its bytes to the bytes of its answer, in memory that is used again.
type live struct {
	scorer    *score.Scorer
	decoder   *datasets.EventDecoder
	rows      *datasets.Batch
	sources   []string
	positions []int64
	lines     score.Lines
}

func newLive(t testing.TB, o score.Options, m *datasets.Mapping, rows int) *live {
	t.Helper()
	o.Schema = m.LogSchema()
	s, err := score.New(o)
	if err != nil {
		t.Fatal(err)
	}
	d, err := m.NewEventDecoder("test")
	if err != nil {
		t.Fatal(err)
	}
	return &live{scorer: s, decoder: d, rows: datasets.NewBatch(o.Schema, rows), sources: []string{"test"}}
}

func (l *live) score(t testing.TB, events ...[]byte) []byte {
	l.rows.Reset()
	l.positions = l.positions[:0]
	l.lines.Reset()
	for _, e := range events {
		if r := l.decoder.Append(l.rows, e, 0); r != nil {
			t.Fatal(r)
		}
		l.positions = append(l.positions, int64(len(l.positions)))
	}
	if _, err := l.scorer.ProcessLines(score.Events{Sources: l.sources, Rows: l.rows, Positions: l.positions}, &l.lines); err != nil {
		t.Fatal(err)
	}
	return l.lines.Bytes
}

// handbookEvents are purchases like the handbook's, 9 s apart.
func handbookEvents(n int) (out [][]byte) {
	for i := range n {
		out = append(out, fmt.Appendf(nil, `{"trans_id":%d,"trans_datetime":%q,"user_id":%d,"store_id":%d,"amount":%d.%02d}`,
			i, datasets.FormatTime(start+int64(i)*9*datasets.Second), i*7919%5000, i*104729%10000, i*31%300, i*17%100))
	}
	return out
}

// BenchmarkLive is one event at a time, from its bytes to those of the answer: 15 features and a small model, or that of
// the directory ONMART_BENCH_MODEL.
func BenchmarkLive(b *testing.B) {
	a := modeltest.Artifact(b)
	if dir := os.Getenv("ONMART_BENCH_MODEL"); dir != "" {
		a = modeltest.Open(b, dir)
	}
	l := newLive(b, score.Options{Artifact: a, Explain: score.ExplainOff}, mapping(b), 1)
	events := handbookEvents(400_000)
	for _, e := range events[:100_000] {
		l.score(b, e)
	}
	events = events[100_000:]
	i := 0
	took := make([]time.Duration, 0, len(events))
	b.ReportAllocs()
	for b.Loop() {
		if i == len(events) {
			b.Fatal("more iterations than events: give a shorter -benchtime")
		}
		start := time.Now()
		l.score(b, events[i])
		took = append(took, time.Since(start))
		i++
	}
	slices.Sort(took)
	for _, p := range []int{50, 99} {
		b.ReportMetric(float64(took[len(took)*p/100].Nanoseconds())/1e3, fmt.Sprintf("p%d-us", p))
	}
}

// BenchmarkBatches is batches of 4096 events, with features alone and with a small model.
func BenchmarkBatches(b *testing.B) {
	const batch = 4096
	for _, c := range []string{"features", "model"} {
		b.Run(c, func(b *testing.B) {
			o := score.Options{Artifact: modeltest.Artifact(b), Explain: score.ExplainOff}
			if c == "features" {
				o = score.Options{Spec: o.Artifact.Spec()}
			}
			l := newLive(b, o, mapping(b), batch)
			events := handbookEvents(120 * batch)
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				if i+batch > len(events) {
					b.Fatal("more iterations than events: give a shorter -benchtime")
				}
				l.score(b, events[i:i+batch]...)
				i += batch
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*batch), "ns/event")
		})
	}
}
