package main

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
)

const streamsSpec, streamsMapping = "../../docs/bench/streams/spec.yaml", "../../docs/bench/streams/mapping.yaml"

// TestAJobThatReadsItsOwnLinesIsRefused gives the same topic as source and sink, or as source and dead letters: each line would
// be read as an event that cannot be scored, and make another one.
func TestAJobThatReadsItsOwnLinesIsRefused(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "in", "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	url := "kafka://" + c.ListenAddrs()[0] + "/"
	for _, args := range [][]string{
		{"--source", url + "in", "--sink", url + "in"},
		{"--source", url + "in", "--sink", url + "in", "--delivery", "at-least-once"},
		{"--source", url + "out+in", "--sink", url + "in"},
		{"--source", url + "in", "--sink", url + "out", "--dead-letters", "in"},
	} {
		args = append([]string{"score", "--spec", streamsSpec, "--map", streamsMapping, "--state", filepath.Join(t.TempDir(), "state")}, args...)
		if code, _, stderr := cli(t, args...); code != 2 || !strings.Contains(stderr, "topic in is read and written") {
			t.Errorf("%q: exit %d: %s", args, code, stderr)
		}
	}
}

// TestStockTopicsThatCannotBe: each wrong use of --stock-topics says what to do.
func TestStockTopicsThatCannotBe(t *testing.T) {
	t.Chdir(t.TempDir())
	const in = "kafka://127.0.0.1:1/tx+stock"
	topics := []string{"--source", in, "--sink", "kafka://127.0.0.1:1/out", "--state", "state"}
	for _, x := range []struct {
		args []string
		want string
	}{
		{append([]string{"--stock-topics", "stocks"}, topics...), "--stock-topics stocks: it is not among the topics of --source"},
		{append([]string{"--stock-topics", "stock", "--label-topics", "stock"}, topics...), "topic stock: it is given to --label-topics and to --stock-topics"},
		{append([]string{"--stock-topics", "stock"}, topics...), "--stock-topics stock: the mapping of its events lacks product_id or quantity: give a --topic-map"},
		{[]string{"--stock-topics", "stock"}, "--stock-topics, --topic-map and --rebuild are for a --source of topics"},
	} {
		args := append([]string{"score", "--spec", "fraud-handbook", "--preset", "fraud-handbook"}, x.args...)
		if code, _, stderr := cli(t, args...); code != 2 || !strings.Contains(stderr, x.want) {
			t.Errorf("%q: exit %d: %s", args, code, stderr)
		}
	}
}

// TestLagIsToldBeforeTheFirstEvent starts a job from the end of a topic, and from a topic without events.
func TestLagIsToldBeforeTheFirstEvent(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "in"), kfake.SeedTopics(1, "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for range 3 {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "in", Value: []byte("{}")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	url := "kafka://" + c.ListenAddrs()[0] + "/"
	s := startScore(t, nil, "--spec", absoluteOf(t, streamsSpec), "--map", absoluteOf(t, streamsMapping),
		"--state", filepath.Join(t.TempDir(), "state"), "--source", url+"in", "--sink", url+"out", "--start", "latest", "--output", "event", "--listen", "127.0.0.1:0")
	want := "onmart_source_lag_events{source=\"kafka:in/0\"} 0\nonmart_source_lag_events{source=\"kafka:in/1\"} 0\n" +
		"|onmart_source_position{source=\"kafka:in/0\"} 3\nonmart_source_position{source=\"kafka:in/1\"} 0\n"
	var got string
	for range 100 {
		_, got = get(t, "http://"+s.addr+"/metrics", nil)
		if notIn(got, strings.Split(want, "|")) == "" {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("the metrics lack\n%sand have\n%s", notIn(got, strings.Split(want, "|")), got)
}

func notIn(text string, want []string) (lacks string) {
	for _, w := range want {
		if !strings.Contains(text, w) {
			lacks += w
		}
	}
	return lacks
}
