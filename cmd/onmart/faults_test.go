//go:build linux

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sys/unix"

	"github.com/onmart/onmart/internal/testkit/broker"
)

// The tests of this file put the daemon through bad events, a damaged, read-only or full disk, a topic that is made
// again and a password that changes, beside what TestRealDaemon has. Each looks at what an operator sees, and
// afterwards at the lines: one for each event.

// put produces values to the source, under the key "k".
func (j *liveJob) put(values ...string) {
	j.t.Helper()
	var records []*kgo.Record
	for _, v := range values {
		records = append(records, &kgo.Record{Topic: j.in(), Key: []byte("k"), Value: []byte(v)})
	}
	if err := j.client.ProduceSync(context.Background(), records...).FirstErr(); err != nil {
		j.t.Fatal(err)
	}
}

// endsWith waits for a daemon that ends by itself with exit code 1 and an error that has all of the parts.
func endsWith(t *testing.T, s *served, parts ...string) {
	t.Helper()
	select {
	case <-s.done:
	case <-time.After(60 * time.Second):
		t.Fatalf("it does not end: %s", s.text())
	}
	if code := s.cmd.ProcessState.ExitCode(); code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
	for _, part := range parts {
		if !strings.Contains(s.text(), part) {
			t.Errorf("it does not say %q: %s", part, s.text())
		}
	}
	t.Logf("it says: %s", s.text())
}

// metric is the sum of a metric's samples whose labels have a text.
func metric(t *testing.T, s *served, name, label string) (sum float64) {
	t.Helper()
	resp, err := http.Get("http://" + s.addr + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^`+name+`(\{.*\})? (\S+)$`).FindAllStringSubmatch(string(body), -1) {
		if v, err := strconv.ParseFloat(m[2], 64); err == nil && strings.Contains(m[1], label) {
			sum += v
		}
	}
	return sum
}

// unready waits until readiness has a failed check whose message has a text.
func unready(t *testing.T, s *served, check, text string) {
	t.Helper()
	var code int
	var body string
	for end := time.Now().Add(40 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		code, body = readiness(s)
		failed := strings.Contains(body, `"`+check+`","ok":false`)
		if code == http.StatusServiceUnavailable && failed && strings.Contains(body, text) {
			return
		}
	}
	t.Errorf("/readyz is %d %s, want %s not ready for %q: %s", code, body, check, text, s.text())
}

// mount puts a file system in memory at the job's state, or skips the test.
func (j *liveJob) mount(megabytes int) {
	j.t.Helper()
	if err := os.MkdirAll(j.state, 0o755); err != nil {
		j.t.Fatal(err)
	}
	if err := unix.Mount("onmart", j.state, "tmpfs", 0, fmt.Sprintf("size=%dm", megabytes)); err != nil {
		j.t.Skipf("needs the right to mount a file system in memory (root): %v", err)
	}
	j.t.Cleanup(func() { unix.Unmount(j.state, unix.MNT_DETACH) })
}

// TestDaemonFaults has bad events, damaged and half-written state, disks and a topic that is made again.
func TestDaemonFaults(t *testing.T) {
	b := broker.Start(t, broker.Options{Properties: []string{"message.max.bytes=16777216",
		"replica.fetch.max.bytes=16777216"}})
	t.Run("bad events", func(t *testing.T) { badEvents(t, newLiveJob(t, b, "events", 1)) })
	t.Run("redrive after a mended mapping", func(t *testing.T) { mendedMapping(t, newLiveJob(t, b, "mapping", 2)) })
	t.Run("topic made again while it runs", func(t *testing.T) {
		j := newLiveJob(t, b, "anew", 1)
		s := j.start()
		j.send(10)
		j.answered()
		if _, err := j.admin.DeleteTopics(context.Background(), j.in()); err != nil {
			t.Fatal(err)
		}
		j.create(j.in(), 1)
		endsWith(t, s, "topic anew-in was deleted and made again", "start with a new --state and --job")
		// The lines stay those of the events of before.
		j.answered()
		endsWith(t, j.start(), "was deleted and made again since the state was saved", "new --state and --job")
	})
	t.Run("damaged state", func(t *testing.T) { damagedState(t, newLiveJob(t, b, "damaged", 1)) })
	t.Run("half-written state", func(t *testing.T) {
		j := newLiveJob(t, b, "half", 1)
		j.worked(10)
		// As a kill in the middle leaves them.
		for _, path := range []string{"format.new", filepath.Join("incoming", "part")} {
			if err := os.MkdirAll(filepath.Dir(filepath.Join(j.state, path)), 0o755); err != nil {
				t.Fatal(err)
			}
			writeFile(t, filepath.Join(j.state, path), "half")
		}
		j.worked(10)
	})
	t.Run("read-only state", func(t *testing.T) {
		j := newLiveJob(t, b, "readonly", 1)
		j.mount(300)
		j.worked(10, "--min-free", "0")
		if err := unix.Mount("", j.state, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		j.send(10)
		endsWith(t, j.start(), j.state, "cannot be written", "make it writable")
		if err := unix.Mount("", j.state, "", unix.MS_REMOUNT, ""); err != nil {
			t.Fatal(err)
		}
		s := j.start("--min-free", "0")
		j.answered()
		j.stop(s)
	})
	t.Run("full disk", func(t *testing.T) {
		j := newLiveJob(t, b, "full", 1)
		j.mount(300)
		s := j.start("--min-free", "0")
		j.send(10)
		j.answered()
		ready(t, s)
		hog := filepath.Join(j.state, "db", "hog")
		if err := os.WriteFile(hog, make([]byte, 200<<20), 0o600); err != nil {
			t.Fatal(err)
		}
		j.send(10)
		unready(t, s, "state", "is full")
		if n := metric(t, s, "onmart_errors_total", `"state"`); n == 0 {
			t.Error("no metric of the full disk")
		}
		if err := os.Remove(hog); err != nil {
			t.Fatal(err)
		}
		ready(t, s)
		j.answered()
		t.Logf("it says: %s", s.text())
		j.stop(s)
	})
}

// badEvents sends what cannot be scored, and what is odd but can.
func badEvents(t *testing.T, j *liveJob) {
	large := strconv.Itoa(12 << 20)
	limit := []kadm.AlterConfig{{Name: "max.message.bytes", Value: &large}}
	if _, err := j.admin.AlterTopicConfigs(context.Background(), limit, j.in()); err != nil {
		t.Fatal(err)
	}
	s := j.start()
	j.send(3)
	bad := []struct{ event, want string }{
		{`{"id":`, `"reason"`},
		{strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000), `"reason"`},
		{`{"id":70,"ts":"never","customer":1,"terminal":1,"amount":1}`, `"column":"ts"`},
		{`{"id":1,"ts":1600000060,"customer":1,"terminal":1,"amount":1.5}`, "was scored before"},
		{`{"id":71,"ts":4102444800,"customer":1,"terminal":1,"amount":1}`, "has not come yet"},
		{`{"id":72,"ts":1600000000,"customer":1,"terminal":1,"amount":1,"note":"` + strings.Repeat("x", 10<<20) + `"}`,
			"the topic takes"},
	}
	for _, x := range bad[:5] {
		j.put(x.event)
	}
	c, err := kgo.NewClient(kgo.SeedBrokers(j.b.Addr), kgo.ProducerBatchMaxBytes(12<<20))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	tenMB := &kgo.Record{Topic: j.in(), Value: []byte(bad[5].event)}
	if err := c.ProduceSync(context.Background(), tenMB).FirstErr(); err != nil {
		t.Fatal(err)
	}
	letters := j.lines(j.dead(), len(bad))
	if len(letters) != len(bad) {
		t.Fatalf("%d letters, want %d: %.2000s", len(letters), len(bad), letters)
	}
	for i, x := range bad {
		place := fmt.Sprintf(`"source":"kafka:%s/0","position":%d`, j.in(), 3+i)
		if !strings.Contains(letters[i], place) || !strings.Contains(letters[i], x.want) {
			t.Errorf("letter of %.60s lacks %s or %s: %.400s", x.event, place, x.want, letters[i])
		}
		t.Logf("letter: %.300s", letters[i])
	}
	j.answered() // the three, and no line for what has a letter
	for cause, want := range map[string]float64{"malformed": 3, "duplicate": 1, "too_early": 1, "too_large": 1} {
		if got := metric(t, s, "onmart_dead_letters_total", `"`+cause+`"`); got != want {
			t.Errorf("onmart_dead_letters_total of %s is %v, want %v", cause, got, want)
		}
	}
	ready(t, s)
	j.put(`{"id":3,"ts":1600000180,"customer":99,"terminal":1,"amount":1,"unknown":[1,{"a":2}]}`,
		`{"id":4,"ts":1590000000,"customer":98,"terminal":1,"amount":1}`) // 115 days late
	lines := j.lines(j.out(), 5)
	if len(lines) != 5 || !strings.Contains(lines[4], `"late":true`) || strings.Contains(lines[3], `"late":true`) {
		t.Errorf("lines %v: want five, the last marked late", lines)
	}
	j.stop(s)
}

// mendedMapping scores with a mapping that names a field wrongly, mends it and sends the letters again.
func mendedMapping(t *testing.T, j *liveJob) {
	text, err := os.ReadFile("../../docs/bench/streams/mapping.yaml")
	if err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(t.TempDir(), "wrong.yaml")
	writeFile(t, wrong, strings.Replace(string(text), "from: ts", "from: time", 1))
	s := j.start("--map", wrong)
	j.send(20)
	letters := j.lines(j.dead(), 20)
	if len(letters) != 20 || !strings.Contains(letters[0], "time") {
		t.Fatalf("%d letters: %v", len(letters), letters)
	}
	t.Logf("letter: %s", letters[0])
	j.stop(s)
	s = j.start()
	for range 2 { // the second time there is nothing left to send
		from, to := "kafka://"+j.b.Addr+"/"+j.dead(), "kafka://"+j.b.Addr+"/"+j.in()
		code, _, stderr := cli(t, "redrive", "--from", from, "--to", to)
		if code != 0 {
			t.Fatal(stderr)
		}
	}
	j.answered()
	if n := len(j.lines(j.dead(), 20)); n != 20 {
		t.Errorf("%d letters after the redrive, want the 20 of before", n)
	}
	j.stop(s)
}

// damagedState changes a bit in each table of the state, which has the checkpoint's parts: refused; and then in its
// log, of which the database takes the rest for what was never written: here that is all, a new state, which is made again
// from the topic only where that is asked for.
func damagedState(t *testing.T, j *liveJob) {
	j.worked(2000)
	saved := filepath.Join(t.TempDir(), "saved")
	if err := os.CopyFS(saved, os.DirFS(j.state)); err != nil {
		t.Fatal(err)
	}
	putBack := func() {
		if err := os.RemoveAll(j.state); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(j.state, os.DirFS(saved)); err != nil {
			t.Fatal(err)
		}
	}
	j.flip("*.sst")
	s := j.start()
	endsWith(t, s, "is damaged", "move it away and start from a copy of it, or from a backfill")
	if text := s.text(); strings.Contains(text, "stack trace") {
		t.Errorf("the log has a stack of the database: %s", text)
	}
	putBack()
	j.flip("*.log")
	s = j.start()
	endsWith(t, s, "by a job whose state is not here", "--warm-from", "start once with --rebuild")
	j.worked(10, "--rebuild")
	putBack() // a state of before that again: what was delivered since is folded without lines
	j.worked(10)
}

// flip changes a bit in the files of the state's database that match.
func (j *liveJob) flip(pattern string) {
	j.t.Helper()
	paths, err := filepath.Glob(filepath.Join(j.state, "db", pattern))
	if err != nil {
		j.t.Fatal(err)
	}
	damaged := 0
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			j.t.Fatal(err)
		}
		if len(data) < 1000 {
			continue
		}
		damaged++
		data[len(data)/3] ^= 1
		writeFile(j.t, path, string(data))
	}
	if damaged == 0 {
		j.t.Fatalf("the state has no %s to damage", pattern)
	}
}

// TestDaemonPassword has the password of a secure broker changed while the daemon runs, and then its file.
func TestDaemonPassword(t *testing.T) {
	b := broker.Start(t, broker.Options{Secure: true, Properties: []string{
		"listener.name.sasl_ssl.connections.max.reauth.ms=2000"}})
	j := newLiveJob(t, b, "secret", 1)
	password := filepath.Join(t.TempDir(), "password")
	writeFile(t, password, broker.Password)
	query := "?sasl=scram-sha-512&check-every=200ms&ca=" + b.CA + "&user=" + broker.User + "&password-file=" + password
	secure := []string{"--source", "kafka://" + b.Secure + "/" + j.in() + query,
		"--sink", "kafka://" + b.Secure + "/" + j.out() + query}
	s := j.start(secure...)
	j.send(10)
	j.answered()
	ready(t, s)
	altered, err := j.admin.AlterUserSCRAMs(context.Background(), nil, []kadm.UpsertSCRAM{
		{User: broker.User, Mechanism: kadm.ScramSha512, Iterations: 4096, Password: "renewed-password"}})
	if err == nil {
		err = altered.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	j.send(10)
	unready(t, s, "source", "refuses user "+broker.User)
	unready(t, s, "sink", "password-file "+password)
	other := *j
	other.state += "2"
	endsWith(t, other.start(secure...),
		"refuses user "+broker.User, "password-file "+password)
	writeFile(t, password, "renewed-password")
	ready(t, s)
	j.answered()
	if text := s.text(); strings.Contains(text, "renewed-password") || strings.Contains(text, broker.Password) {
		t.Errorf("a password is in the log: %s", text)
	}
	t.Logf("it says: %s", s.text())
	j.stop(s)
}
