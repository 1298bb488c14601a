package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/onmart/onmart/score/deadletter"
)

func redriveLetters(n int) [][]byte {
	var all [][]byte
	for i := range n {
		l := deadletter.Letter{Source: "http", Position: int64(i), Column: "amount", Reason: "no number", Event: fmt.Appendf(nil, "{\"n\":\n%d}", i), Time: time.Unix(int64(i), 0)}
		if i%3 == 0 {
			l.Column, l.Reason = "", "not JSON"
		}
		all = append(all, deadletter.Append(nil, &l))
	}
	return all
}

func redrive(t *testing.T, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := newRoot()
	cmd.SetArgs(append([]string{"redrive"}, args...))
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatalf("%v: %v\n%s", args, err, errs.String())
	}
	return out.String()
}

func TestRedriveOfAFileGoesOnWhereItStopped(t *testing.T) {
	dir := t.TempDir()
	from, to := filepath.Join(dir, "dead.jsonl"), filepath.Join(dir, "events.jsonl")
	all := redriveLetters(10)
	text := append(bytes.Join(all[:6], []byte("\n")), '\n')
	if err := os.WriteFile(from, append(text, all[6][:20]...), 0o600); err != nil { // the last line is being written
		t.Fatal(err)
	}
	if got := redrive(t, "--from", from, "--dry-run", "--cause", "^amount: "); !strings.HasPrefix(got, "6 letters: 4 sent, 2 passed over") {
		t.Errorf("dry run: %s", got)
	}
	redrive(t, "--from", from, "--to", to, "--limit", "2")
	redrive(t, "--from", from, "--to", to)
	if err := os.WriteFile(from, append(bytes.Join(all, []byte("\n")), '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
	redrive(t, "--from", from, "--to", to)
	redrive(t, "--from", from, "--to", to)
	got, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	var want strings.Builder
	for i := range 10 {
		fmt.Fprintf(&want, "{\"n\": %d}\n", i)
	}
	if string(got) != want.String() {
		t.Errorf("got\n%swant\n%s", got, want.String())
	}
}

func TestRedriveFromTopicToTopic(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(2, "dead"), kfake.SeedTopics(1, "events"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	url := "kafka://" + c.ListenAddrs()[0] + "/"
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.ConsumeTopics("events"), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	for i, l := range append(redriveLetters(30), []byte("garbage")) {
		if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "dead", Partition: int32(i % 2), Value: l}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	if got := redrive(t, "--from", url+"dead", "--to", url+"events", "--limit", "7"); !strings.Contains(got, " 7 sent, ") {
		t.Errorf("with a limit: %s", got)
	}
	if got := redrive(t, "--from", url+"dead", "--to", url+"events"); !strings.Contains(got, " 23 sent, ") {
		t.Errorf("the rest: %s", got)
	}
	if got := redrive(t, "--from", url+"dead", "--to", url+"events"); !strings.HasPrefix(got, "0 letters: 0 sent") {
		t.Errorf("again: %s", got)
	}
	seen := map[string]int{}
	for len(seen) < 30 {
		fetches := cl.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) { seen[string(r.Value)]++ })
	}
	for i := range 30 {
		if n := seen[fmt.Sprintf("{\"n\":\n%d}", i)]; n != 1 {
			t.Errorf("event %d came %d times", i, n)
		}
	}
}
