package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/datasets"
)

type benchScore struct {
	url, model, tokenFile     string
	in, out, delivery         string // of topics
	attach                    bool
	backlog                   int
	rate, connections, events int
	duration, warm            time.Duration
	con                       *console
	token                     string
	schema                    *datasets.Schema
	first                     int64 // microseconds: time of the first event
}

func newBenchScoreCmd() *cobra.Command {
	b := &benchScore{}
	cmd := &cobra.Command{
		Use:   "score",
		Short: "Latency of a scoring daemon under a fixed rate of requests or events",
		Long: `bench score sends purchases to a daemon's /v1/score at a fixed rate and measures each from the moment when it was due
to the last byte of its answer. Requests are written when they are due, however many are unanswered, so that a daemon
that stalls is charged for all that waited.

With --in and --out it sends them to a topic instead, and measures until their lines can be read, committed, from the
other: events that are due are sent whatever is unanswered. --backlog sends so many before the daemon starts and tells
how fast it gets through them. Both topics must be there, that of a backlog empty; the daemon must keep the events' keys,
as onmart score does.

Without --url or --attach it starts a daemon of its own, in a second process, with --model or, without, one that it trains on a
made-up shop. With --url, --model tells what fields events need (default: trans_id, trans_datetime, user_id, store_id
and amount).`,
		Args: cobra.NoArgs,
	}
	fl := cmd.Flags()
	fl.StringVar(&b.url, "url", "", "`address` of a running daemon, such as http://127.0.0.1:8080")
	fl.StringVar(&b.model, "model", "", "artifact `directory` of onmart train fraud")
	fl.StringVar(&b.tokenFile, "token-file", "", "`file` with the bearer token")
	fl.StringVar(&b.in, "in", "", "Kafka `URL` of the topic that events go to, instead of HTTP")
	fl.StringVar(&b.out, "out", "", "Kafka `URL` of the topic that their lines come to")
	fl.StringVar(&b.delivery, "delivery", "", "--delivery of the daemon that is started")
	fl.BoolVar(&b.attach, "attach", false, "with --in: a daemon reads it already, start none")
	fl.IntVar(&b.backlog, "backlog", 0, "with --in: send so many `events` first, and measure how fast they are worked off")
	fl.IntVar(&b.rate, "rate", 5000, "requests a second")
	fl.IntVar(&b.events, "events", 1, "events of a request")
	fl.IntVar(&b.connections, "connections", 8, "connections")
	fl.DurationVar(&b.duration, "duration", 10*time.Second, "how long to measure")
	fl.DurationVar(&b.warm, "warm", 2*time.Second, "how long to send before that")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		b.con = consoleOf(cmd)
		if b.rate < 1 || b.events < 1 || b.connections < 1 || b.duration <= 0 || b.warm < 0 {
			return usagef("--rate, --events, --connections and --duration are above 0, --warm is not below")
		}
		if b.backlog < 0 {
			return usagef("--backlog %d: want 1 or more", b.backlog)
		}
		if b.in == "" && b.out == "" {
			if b.delivery != "" || b.attach || b.backlog > 0 {
				return usagef("--delivery, --attach and --backlog go with --in and --out")
			}
			return b.run(cmd.Context())
		}
		if err := b.checkTopics(); err != nil {
			return err
		}
		return b.runTopics(cmd.Context())
	}
	return cmd
}

// benchScoreResult is the figures; latencies are in milliseconds, from due time.
type benchScoreResult struct {
	Requests int64   `json:"requests"`
	Errors   int64   `json:"errors"`
	Asked    float64 `json:"rate_asked"`
	Achieved float64 `json:"rate_achieved"` // answers a second
	Events   int     `json:"events_per_request"`
	P50      float64 `json:"p50_ms"`
	P90      float64 `json:"p90_ms"`
	P99      float64 `json:"p99_ms"`
	P999     float64 `json:"p99_9_ms"`
	Max      float64 `json:"max_ms"`
}

func (b *benchScore) run(ctx context.Context) error {
	if b.tokenFile != "" {
		text, err := os.ReadFile(b.tokenFile)
		if err != nil {
			return fmt.Errorf("--token-file: %w", err)
		}
		b.token = strings.TrimSpace(string(text))
	}
	if b.url == "" {
		dir, err := os.MkdirTemp("", "onmart-bench-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		if b.model == "" {
			if b.model, err = b.train(ctx, dir); err != nil {
				return err
			}
		}
		stop, err := b.daemon(ctx)
		if err != nil {
			return err
		}
		defer stop()
	}
	if err := b.shape(); err != nil {
		return err
	}
	r, err := b.load(ctx)
	if err != nil {
		return err
	}
	return b.con.result(r, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%d requests of %d events, %.0f/s asked, %.0f/s answered, %d errors\nlatency ms from due time: p50 %.3f  p90 %.3f  p99 %.3f  p99.9 %.3f  max %.3f\n",
			r.Requests, r.Events, r.Asked, r.Achieved, r.Errors, r.P50, r.P90, r.P99, r.P999, r.Max)
		return err
	})
}

// train makes a model of a made-up shop with the program itself.
func (b *benchScore) train(ctx context.Context, dir string) (string, error) {
	model := filepath.Join(dir, "model")
	for _, args := range [][]string{
		{"mock", "--out", filepath.Join(dir, "transactions"), "--rows", "60000", "--days", "90"},
		{"features", "--in", filepath.Join(dir, "transactions"), "--out", filepath.Join(dir, "features")},
		{"train", "fraud", "--data", filepath.Join(dir, "features"), "--out", model, "--train", "2026-02-11..2026-03-21",
			"--alerts-per-day", "10", "--set", "epochs=5", "--set", "towers=1"},
	} {
		b.con.notef("onmart %s", args[0])
		cmd, err := b.self(ctx, args...)
		if err != nil {
			return "", err
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("onmart %s: %w: %s", args[0], err, bytes.TrimSpace(out))
		}
	}
	return model, nil
}

func (b *benchScore) self(ctx context.Context, args ...string) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return exec.CommandContext(ctx, exe, args...), nil
}

// daemon starts one in a second process and sets the url.
func (b *benchScore) daemon(ctx context.Context) (stop func(), err error) {
	cmd, err := b.self(ctx, "score", "--model", b.model, "--listen", "127.0.0.1:0", "--explain", "off")
	if err != nil {
		return nil, err
	}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() { cmd.Process.Signal(os.Interrupt); cmd.Wait() }
	lines := bufio.NewScanner(stderr)
	said := ""
	for lines.Scan() {
		said += lines.Text() + "\n"
		if _, addr, ok := strings.Cut(lines.Text(), "listening on "); ok {
			b.url = "http://" + strings.Fields(addr)[0]
			go io.Copy(io.Discard, stderr) // or the daemon blocks
			return stop, nil
		}
	}
	stop()
	return nil, fmt.Errorf("the daemon ended: %s", strings.TrimSpace(said))
}

// shape decides what fields events have and when they begin.
func (b *benchScore) shape() error {
	b.schema = &datasets.Schema{Fields: []datasets.Field{{Name: datasets.TransID, Type: datasets.Int64},
		{Name: datasets.TransDatetime, Type: datasets.Time}, {Name: datasets.UserID, Type: datasets.Int64},
		{Name: datasets.StoreID, Type: datasets.Int64}, {Name: datasets.Amount, Type: datasets.Decimal}}}
	b.first = time.Now().UnixMicro()
	if b.model == "" {
		return nil
	}
	a, err := openFraud(b.model)
	if err != nil {
		return err
	}
	m := a.Manifest()
	b.schema = m.Input
	if m.Context != nil {
		b.first = m.Context.Watermark
	}
	return nil
}

// appendEvent writes the n-th purchase: cards and shops in a fixed disorder, a hundred purchases a second.
func (b *benchScore) appendEvent(dst []byte, n int) []byte {
	x := uint64(n)*0x9E3779B97F4A7C15 + 1
	x ^= x >> 29
	dst = append(dst, '{')
	for i := range b.schema.Fields {
		f := &b.schema.Fields[i]
		if f.Name == datasets.IsFraud {
			continue
		}
		if dst[len(dst)-1] != '{' {
			dst = append(dst, ',')
		}
		dst = fmt.Appendf(dst, "%q:", f.Name)
		v := x >> (i % 16) % 5000
		switch {
		case f.Name == datasets.TransID:
			v = uint64(b.first) + uint64(n)
		case f.Name == datasets.Line, f.Name == datasets.IsReturn:
			v = 0
		}
		switch f.Type {
		case datasets.Time:
			dst = append(datasets.AppendTime(append(dst, '"'), b.first+int64(n)*datasets.Second/100), '"')
		case datasets.String:
			dst = fmt.Appendf(dst, "\"%d\"", v)
		case datasets.Int64:
			dst = fmt.Appendf(dst, "%d", v)
		default:
			dst = fmt.Appendf(dst, "%d.%02d", v%200, v%100)
		}
	}
	return append(dst, '}')
}

// lane is one connection: requests are written when due, answers read in their order.
type lane struct {
	conn   net.Conn
	due    chan time.Time // of what was written and is not answered
	hist   latencies
	errors int64
	err    error
}

func (b *benchScore) dial(u *url.URL) (net.Conn, error) {
	addr := u.Host
	if u.Port() == "" {
		addr = net.JoinHostPort(u.Hostname(), map[bool]string{true: "443", false: "80"}[u.Scheme == "https"])
	}
	if u.Scheme == "https" {
		return tls.Dial("tcp", addr, nil)
	}
	return net.Dial("tcp", addr)
}

func (b *benchScore) load(ctx context.Context) (*benchScoreResult, error) {
	u, err := url.Parse(b.url)
	if err != nil || u.Host == "" {
		return nil, usagef("--url %s: want an address such as http://127.0.0.1:8080", b.url)
	}
	lanes := make([]*lane, b.connections)
	for i := range lanes {
		conn, err := b.dial(u)
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		lanes[i] = &lane{conn: conn, due: make(chan time.Time, 1<<16)}
	}
	start := time.Now()
	from := start.Add(b.warm)
	total := int(float64(b.rate) * (b.warm + b.duration).Seconds())
	stop := context.AfterFunc(ctx, func() {
		for _, l := range lanes {
			l.conn.Close()
		}
	})
	defer stop()
	var wg sync.WaitGroup
	for _, l := range lanes {
		wg.Go(func() { l.read(from) })
	}
	wg.Go(func() { b.write(lanes, u, start, total) })
	wg.Wait()
	end := time.Now()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	var all latencies
	r := &benchScoreResult{Asked: float64(b.rate), Events: b.events}
	var errs []error
	for _, l := range lanes {
		all.add(&l.hist)
		r.Errors += l.errors
		errs = append(errs, l.err)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	r.Requests = all.n
	r.Achieved = float64(all.n) / end.Sub(from).Seconds()
	ms := func(p float64) float64 { return all.quantile(p).Seconds() * 1e3 }
	r.P50, r.P90, r.P99, r.P999, r.Max = ms(.5), ms(.9), ms(.99), ms(.999), all.max.Seconds()*1e3
	return r, nil
}

// write sends the requests from one thread, which sleeps until each is due, to one connection after the other.
func (b *benchScore) write(lanes []*lane, u *url.URL, start time.Time, total int) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer func() {
		for _, l := range lanes {
			close(l.due)
		}
	}()
	head := fmt.Sprintf("POST /v1/score HTTP/1.1\r\nHost: %s\r\n", u.Host)
	if b.token != "" {
		head += "Authorization: Bearer " + b.token + "\r\n"
	}
	var body, text []byte
	for i := range total {
		body = body[:0]
		for e := range b.events {
			body = append(b.appendEvent(body, i*b.events+e), '\n')
		}
		text = fmt.Appendf(append(text[:0], head...), "Content-Length: %d\r\n\r\n", len(body))
		text = append(text, body...)
		due := start.Add(time.Duration(float64(i) / float64(b.rate) * 1e9))
		sleepUntil(due)
		l := lanes[i%len(lanes)]
		l.due <- due
		if _, err := l.conn.Write(text); err != nil {
			return // the reader says why
		}
	}
}

// read takes the answers; those of requests due before from count in nothing but errors.
func (l *lane) read(from time.Time) {
	r := bufio.NewReaderSize(l.conn, 64<<10)
	for due := range l.due {
		if l.err != nil {
			continue // the writer must not block
		}
		resp, err := http.ReadResponse(r, nil)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
		}
		if err != nil {
			l.err = fmt.Errorf("read an answer: %w", err)
			l.conn.Close()
			continue
		}
		if resp.StatusCode != http.StatusOK {
			l.errors++
		}
		if !due.Before(from) {
			l.hist.record(time.Since(due))
		}
	}
}

// latencies is a histogram of 64 buckets for each doubling: a quantile is at most 1.6 % too high.
type latencies struct {
	n      int64
	max    time.Duration
	counts [64 * 58]int64
}

func (h *latencies) record(d time.Duration) {
	d = max(d, 0)
	h.n++
	h.max = max(h.max, d)
	h.counts[bucket(uint64(d))]++
}

func bucket(v uint64) int {
	shift := max(bits.Len64(v)-7, 0)
	return shift*64 + int(v>>shift)
}

// limit is the greatest value of a bucket.
func limit(i int) uint64 {
	if i < 128 {
		return uint64(i)
	}
	shift := i/64 - 1
	return uint64(i-shift*64+1)<<shift - 1
}

func (h *latencies) add(o *latencies) {
	h.n += o.n
	h.max = max(h.max, o.max)
	for i, c := range o.counts {
		h.counts[i] += c
	}
}

// quantile is the least latency that a share p of all do not exceed.
func (h *latencies) quantile(p float64) time.Duration {
	want, sum := int64(math.Ceil(p*float64(h.n))), int64(0)
	for i, c := range h.counts {
		if sum += c; sum >= want && c > 0 {
			return min(time.Duration(limit(i)), h.max)
		}
	}
	return h.max
}
