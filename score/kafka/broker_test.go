package kafka

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/onmart/onmart/internal/testkit/broker"
)

func createTopic(t testing.TB, c *Config, topic string, partitions int32, configs map[string]*string) {
	t.Helper()
	r, err := admin(t, c).CreateTopic(t.Context(), partitions, 1, configs, topic)
	if err == nil {
		err = r.Err
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestRealBroker holds against a real broker what the tests with kfake hold against an imitation, and what only a
// real one does.
func TestRealBroker(t *testing.T) {
	b := broker.Start(t, broker.Options{Secure: true, Properties: []string{"connections.max.reauth.ms=2000"}})
	url := scheme + b.Addr + "/"
	any := parse(t, url+"x")
	t.Run("exactly once", func(t *testing.T) {
		createTopic(t, any, "in", 1, nil)
		createTopic(t, any, "out", 2, nil)
		out := parse(t, url+"out")
		var n notes
		k := newSink(t, out, true, &n)
		for i := range int64(40) {
			var lines []Line
			for j := range i % 4 * 10 {
				lines = append(lines, Line{Value: fmt.Append(nil, i, "/", j)})
			}
			if err := k.Deliver(t.Context(), lines, map[Partition]int64{{"in", 0}: i + 1}, nil); err != nil {
				t.Fatal(err)
			}
		}
		k2 := newSink(t, out, true, &n)
		if k2.last[Partition{"in", 0}] != 40 {
			t.Errorf("committed: %v", k2.last)
		}
		if err := k.Deliver(t.Context(), []Line{{Value: []byte("late")}}, map[Partition]int64{{"in", 0}: 41}, nil); !errors.Is(err, ErrFenced) {
			t.Errorf("got %v, want ErrFenced", err)
		}
		r := newSource(t, out, &n)
		if err := r.Seek(t.Context(), atStart(r)); err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{}
		found, next := read(t, r, 600)
		for _, values := range found {
			for _, v := range values {
				if seen[v] {
					t.Errorf("%s twice", v)
				}
				seen[v] = true
			}
		}
		if len(seen) != 600 {
			t.Errorf("%d lines, want 600", len(seen))
		}
		// Positions move over the last marker, so that nothing is left to read.
		ends, err := offsets(t.Context(), r.cl, []Partition{{"out", 0}, {"out", 1}}, -1)
		if err != nil {
			t.Fatal(err)
		}
		ctx, done := context.WithTimeout(t.Context(), 5*time.Second)
		defer done()
		for next[Partition{"out", 0}] < ends[Partition{"out", 0}] || next[Partition{"out", 1}] < ends[Partition{"out", 1}] {
			all, err := r.Poll(ctx, 1000)
			if err != nil {
				t.Fatalf("at %v of %v: %v", next, ends, err)
			}
			for _, x := range all {
				next[x.Partition] = x.Next
			}
		}
	})
	t.Run("broker killed in the middle", func(t *testing.T) { brokerKilled(t, b, url, any) })
	t.Run("security", func(t *testing.T) { secured(t, b, any) })
	t.Run("password expires", func(t *testing.T) { expired(t, b, any) })
}

// brokerKilled delivers while the broker is killed and started again, three times, and counts what is committed.
func brokerKilled(t *testing.T, b *broker.Broker, url string, any *Config) {
	createTopic(t, any, "kin", 1, nil)
	createTopic(t, any, "kout", 2, nil)
	out := parse(t, url+"kout?check-every=200ms")
	var n notes
	k := newSink(t, out, true, &n)
	ctx, done := context.WithTimeout(t.Context(), 2*time.Minute)
	defer done()
	var delivered atomic.Int64
	var end atomic.Bool
	failed := make(chan error, 1)
	go func() {
		for i := int64(0); !end.Load(); i++ {
			var lines []Line
			for j := range 20 {
				lines = append(lines, Line{Value: fmt.Append(nil, i, "/", j)})
			}
			if err := k.Deliver(ctx, lines, map[Partition]int64{{"kin", 0}: i + 1}, nil); err != nil {
				failed <- fmt.Errorf("transaction %d: %w", i, err)
				return
			}
			delivered.Store(i + 1)
		}
		failed <- nil
	}()
	for round := range int64(3) {
		at := delivered.Load()
		for delivered.Load() < at+20+7*round {
			time.Sleep(5 * time.Millisecond)
		}
		b.Kill()
		b.Start()
	}
	at := delivered.Load()
	for delivered.Load() < at+10 && ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
	}
	end.Store(true)
	if err := <-failed; err != nil {
		t.Fatal(err, n.String())
	}
	total := delivered.Load()
	r := newSource(t, out, &n)
	if err := r.Seek(ctx, atStart(r)); err != nil {
		t.Fatal(err)
	}
	times := map[string]int{}
	for len(times) < int(total)*20 {
		all, err := r.Poll(ctx, 10000)
		if err != nil {
			t.Fatalf("%d of %d lines: %v", len(times), total*20, err)
		}
		for _, x := range all {
			for _, rec := range x.Records {
				times[string(rec.Value)]++
			}
		}
	}
	for v, c := range times {
		if c != 1 {
			t.Errorf("%s is there %d times", v, c)
		}
	}
	t.Logf("%d transactions over three kills; notes: %s", total, n.String())
}

func secured(t *testing.T, b *broker.Broker, any *Config) {
	createTopic(t, any, "sec", 1, nil)
	produce(t, any, "sec", 1, "v")
	password := filepath.Join(t.TempDir(), "password")
	write := func(p string) {
		if err := os.WriteFile(password, []byte(p+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(broker.Password)
	base := scheme + b.Secure + "/sec?ca=" + b.CA + "&user=" + broker.User + "&password-file=" + password + "&start-timeout=5s&check-every=200ms"
	for _, mechanism := range []string{"plain", "scram-sha-256", "scram-sha-512&cert=" + b.Cert + "&key=" + b.Key} {
		s := newSource(t, parse(t, base+"&sasl="+mechanism), &notes{})
		if err := s.Seek(t.Context(), atStart(s)); err != nil {
			t.Fatal(mechanism, err)
		}
		read(t, s, 1)
	}
	refused := func(what, url, want string, soon bool) {
		t.Helper()
		start := time.Now()
		_, err := NewSource(t.Context(), parse(t, url), "g", nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", what, err, want)
		} else if strings.Contains(err.Error(), "wrong-password") || strings.Contains(err.Error(), broker.Password) {
			t.Errorf("%s: the password is in %v", what, err)
		}
		if soon && time.Since(start) > 4*time.Second {
			t.Errorf("%s: took the whole start-timeout", what)
		}
	}
	write("wrong-password")
	refused("wrong password", base+"&sasl=plain", "refuses user onmart: check user, password-file", true)
	refused("wrong password", base+"&sasl=scram-sha-512", "refuses user onmart: check user, password-file", true)
	write(broker.Password)
	refused("unknown authority", strings.Replace(base, "ca="+b.CA, "tls=true", 1)+"&sasl=plain", "name its certificate with ca=FILE", true)
	refused("other name", base+"&sasl=plain&server-name=elsewhere", "server-name=NAME", true)
	refused("no TLS there", strings.Replace(base, b.Secure, b.Addr, 1)+"&sasl=plain", "does not speak TLS on this port", false)
	if _, err := NewSource(t.Context(), parse(t, scheme+b.Secure+"/sec?start-timeout=2s"), "g", nil); err == nil || !strings.Contains(err.Error(), "may be one for TLS") {
		t.Errorf("no TLS here: got %v", err)
	}
}

// expired changes the password at the broker while a source reads: it tells, and goes on once its file has the new one.
func expired(t *testing.T, b *broker.Broker, any *Config) {
	createTopic(t, any, "exp", 1, nil)
	produce(t, any, "exp", 1, "0")
	password := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(password, []byte(broker.Password), 0o600); err != nil {
		t.Fatal(err)
	}
	var n notes
	s := newSource(t, parse(t, scheme+b.Secure+"/exp?sasl=scram-sha-512&check-every=200ms&ca="+b.CA+"&user="+broker.User+"&password-file="+password), &n)
	if err := s.Seek(t.Context(), atStart(s)); err != nil {
		t.Fatal(err)
	}
	read(t, s, 1)
	altered, err := admin(t, any).AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{
		{User: broker.User, Mechanism: kadm.ScramSha512, Iterations: 4096, Password: "renewed-password"}})
	if err == nil {
		err = altered.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "told", func() bool { return n.find(Down, "refuses user "+broker.User) })
	if err := os.WriteFile(password, []byte("renewed-password"), 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "works again", func() bool { return n.find(Up, "works again") })
	produce(t, any, "exp", 1, "1")
	if found, _ := read(t, s, 1); fmt.Sprint(found[Partition{"exp", 0}]) != "[1]" {
		t.Errorf("got %v", found)
	}
	if text := n.String(); strings.Contains(text, "renewed-password") || strings.Contains(text, broker.Password) {
		t.Errorf("a password is in the notes: %s", text)
	}
}

// BenchmarkRealBroker delivers to a real broker, the one of ONMART_BENCH_KAFKA where that is set.
func BenchmarkRealBroker(b *testing.B) {
	url := os.Getenv("ONMART_BENCH_KAFKA")
	if url == "" {
		br := broker.Start(b, broker.Options{})
		url = scheme + br.Addr + "/"
	}
	any := parse(b, url+"x")
	topic := fmt.Sprint("bench", time.Now().UnixNano())
	createTopic(b, any, topic+"in", 1, nil)
	createTopic(b, any, topic, 2, nil)
	for _, exactly := range []bool{true, false} {
		for _, size := range []int{125, 5000} {
			for _, codec := range []string{"none", "snappy", "lz4", "zstd"} {
				if size == 125 && codec != "none" {
					continue
				}
				name := fmt.Sprintf("exactly=%v/lines=%d/%s", exactly, size, codec)
				b.Run(name, func(b *testing.B) {
					k, err := NewSink(b.Context(), parse(b, url+topic+"?compression="+codec), SinkOptions{ExactlyOnce: exactly, TransactionalID: topic, Group: topic})
					if err != nil {
						b.Fatal(err)
					}
					defer k.Close()
					benchmarkDeliver(b, k, topic+"in", size)
				})
			}
		}
	}
}
