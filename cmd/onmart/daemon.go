package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/guard"
	"github.com/onmart/onmart/score/monitor"
	"github.com/onmart/onmart/train/cpu"
)

// daemonFlags are those of a scorer that runs on: who may ask, how much, and what it tells.
type daemonFlags struct {
	tokens, tlsCert, tlsKey, clientCA string
	rate                              float64
	queue, connections                int
	readyLag, minFree                 int64
	drainDelay, drainTimeout          time.Duration
	logFormat, logLevel               string
}

// tokenRate is the default for each token: twice what a busy till system sends, and far below what fills a core.
const tokenRate = 10000

func (f *daemonFlags) bind(fl *pflag.FlagSet) {
	fl.StringVar(&f.tokens, "tokens", "",
		"`file` of the tokens of HTTP requests, one a line, made by onmart token new; it is read again when it changes")
	fl.StringVar(&f.tlsCert, "tls-cert", "",
		"certificate `file` for HTTPS; read again when it changes, like the two below")
	fl.StringVar(&f.tlsKey, "tls-key", "", "key `file` for HTTPS")
	fl.StringVar(&f.clientCA, "tls-client-ca", "",
		"`file` of authorities: clients must show a certificate of one of them, beside their token")
	fl.Float64Var(&f.rate, "http-rate", -1,
		"most requests a second of a token, 0 for no limit (default 10000 with --tokens, else none)")
	fl.IntVar(&f.queue, "http-queue", score.DefaultQueue, "most HTTP requests in hand; more are answered 429")
	fl.IntVar(&f.connections, "http-connections", 1024, "most open HTTP connections; more are closed")
	fl.Int64Var(&f.readyLag, "ready-lag", 100000,
		"not ready while a source is more `events` behind; 0 does not look")
	fl.Int64Var(&f.minFree, "min-free", 256<<20,
		"not ready below so many free `bytes` where outputs and state are written")
	fl.DurationVar(&f.drainDelay, "drain-delay", 0, "after SIGTERM: time between not being ready and not answering")
	fl.DurationVar(&f.drainTimeout, "drain-timeout", 10*time.Second, "after that: most time for requests in hand")
	fl.StringVar(&f.logFormat, "log-format", "",
		"log lines on standard error as text or json (default: plain lines)")
	fl.StringVar(&f.logLevel, "log-level", "",
		"least level: debug, info, warn or error (default info; -q and -v choose too)")
}

func (f *daemonFlags) check(listen string) error {
	if (f.tlsCert == "") != (f.tlsKey == "") {
		return usagef("--tls-cert and --tls-key go together")
	}
	if f.clientCA != "" && f.tlsCert == "" {
		return usagef("--tls-client-ca needs --tls-cert and --tls-key")
	}
	if listen != "" {
		if err := score.CheckListen(listen, f.tokens != "", f.tlsCert != ""); err != nil {
			return usage(err)
		}
	}
	if f.queue < 1 || f.connections < 1 {
		return usagef("--http-queue and --http-connections are at least 1")
	}
	if f.readyLag < 0 || f.minFree < 0 || f.drainDelay < 0 || f.drainTimeout < 0 {
		return usagef("--ready-lag, --min-free, --drain-delay and --drain-timeout are not negative")
	}
	switch f.logFormat {
	case "", "text", "json":
	default:
		return usagef("--log-format %s: want text or json", f.logFormat)
	}
	var level slog.Level
	if f.logLevel != "" && level.UnmarshalText([]byte(f.logLevel)) != nil {
		return usagef("--log-level %s: want debug, info, warn or error", f.logLevel)
	}
	return nil
}

// daemon is what runs beside the scorer: what it tells, and its HTTP server.
type daemon struct {
	f       *daemonFlags
	listen  string
	job     string
	con     *console
	monitor *monitor.Monitor
	tokens  *guard.Tokens
	certs   *guard.Certificates
}

// start reads the tokens and certificates, so that a fault ends the run before the models are loaded, and turns the
// console's lines into a log where --log-format asks for one.
func (f *daemonFlags) start(con *console, listen, job string) (*daemon, error) {
	kernels := "-"
	if b, err := cpu.New(cpu.Options{Threads: 1}); err == nil {
		kernels = b.Name()
	}
	d := &daemon{f: f, listen: listen, job: job, con: con,
		monitor: monitor.New(monitor.Build{Version: buildVersion(), Go: runtime.Version(), CPU: kernels})}
	con.logTo(f.logFormat, f.logLevel)
	d.monitor.Health.Expect("state")
	if f.readyLag > 0 {
		d.monitor.Health.Func("lag", d.lag)
	}
	var err error
	if f.tokens != "" {
		if d.tokens, err = guard.ReadTokens(f.tokens); err != nil {
			return nil, err
		}
	}
	if f.tlsCert != "" {
		d.certs = &guard.Certificates{Cert: f.tlsCert, Key: f.tlsKey, ClientCA: f.clientCA}
		if err := d.certs.Load(); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// lag is the readiness check of --ready-lag.
func (d *daemon) lag() error {
	for source, n := range d.monitor.Lags() {
		if n > d.f.readyLag {
			return fmt.Errorf("%s is %d events behind, more than --ready-lag %d", source, n, d.f.readyLag)
		}
	}
	return nil
}

// watchDisk adds the readiness check of --min-free for the directories of the outputs that are not "" or "-".
func (d *daemon) watchDisk(outputs ...string) {
	var dirs []string
	for _, o := range outputs {
		if o == "" || o == "-" {
			continue
		}
		dirs = append(dirs, existing(o))
	}
	if dirs == nil || d.f.minFree == 0 {
		return
	}
	d.monitor.Health.Func("disk", func() error {
		for _, dir := range dirs {
			free, err := freeBytes(dir)
			if err != nil {
				return fmt.Errorf("%s: %w", dir, err)
			}
			if free < d.f.minFree {
				return fmt.Errorf("%s has %d bytes free, less than --min-free %d", dir, free, d.f.minFree)
			}
		}
		return nil
	})
}

// existing is path, or the nearest directory above it that is there.
func existing(path string) string {
	for {
		if info, err := os.Stat(path); err == nil && info.IsDir() || path == filepath.Dir(path) {
			return path
		}
		path = filepath.Dir(path)
	}
}

// serve runs follow and HTTP. When ctx ends it is not ready at once, the source stops, requests in hand get their
// answers, and it returns with all that was read delivered. An error of either ends both.
func (d *daemon) serve(ctx context.Context, s *score.Scorer, m *datasets.Mapping, models score.Models,
	reloader *score.Reloader, journal score.Journal, follow func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l, err := net.Listen("tcp", d.listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	rate := d.f.rate
	if rate < 0 && d.tokens != nil {
		rate = tokenRate
	}
	h := score.NewServer(s, m, score.ServerOptions{Models: models, Reloader: reloader, Journal: journal, Tokens: d.tokens,
		Rate: max(rate, 0), Queue: d.f.queue,
		LocalNames: d.tokens == nil, Version: buildVersion(), Job: d.job, Log: d.con.log})
	srv := h.HTTPServer()
	limited := guard.Limit(l, d.f.connections, d.monitor.Connections, func() { d.monitor.Refused(monitor.TooManyConns) })
	served := make(chan error, 1)
	go func() {
		if d.certs != nil {
			srv.TLSConfig = d.certs.Config()
			served <- srv.ServeTLS(limited, "", "")
		} else {
			served <- srv.Serve(limited)
		}
		cancel()
	}()
	d.beside(ctx, h, s)
	if journal == nil {
		d.monitor.Health.Set("state", nil) // else it says so itself
	}
	d.con.notef("listening on %s", l.Addr())
	if err := notifySystemd("READY=1\nSTATUS=scoring"); err != nil {
		d.con.log.Warn("systemd was not told that the service is ready", "error", err)
	}
	followErr := follow(ctx)
	if followErr == nil {
		<-ctx.Done()
	}
	notifySystemd("STOPPING=1")
	drain, done := context.WithTimeout(context.Background(), d.f.drainDelay+d.f.drainTimeout)
	defer done()
	shutdownErr := h.Drain(drain, srv, d.f.drainDelay)
	if err := <-served; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	if shutdownErr != nil {
		shutdownErr = fmt.Errorf("requests in hand were cut off after --drain-timeout %s", d.f.drainTimeout)
	}
	return errors.Join(followErr, shutdownErr, s.Err())
}

// alone runs follow without HTTP.
func (d *daemon) alone(ctx context.Context, s *score.Scorer, follow func(context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go d.monitor.Run(ctx)
	if every := watchdogEvery(); every > 0 {
		go watchdog(ctx, every, func() { s.Err() }) // waits for the scorer's lock
	}
	if err := notifySystemd("READY=1\nSTATUS=scoring"); err != nil {
		d.con.log.Warn("systemd was not told that the service is ready", "error", err)
	}
	err := follow(ctx)
	notifySystemd("STOPPING=1")
	return err
}

// beside starts what runs until ctx ends: the history, the watchdog, and the watch over files of tokens and
// certificates, which SIGHUP makes look at once.
func (d *daemon) beside(ctx context.Context, h *score.Server, s *score.Scorer) {
	go d.monitor.Run(ctx)
	if every := watchdogEvery(); every > 0 {
		go watchdog(ctx, every, func() { s.Err() }) // waits for the scorer's lock
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	var files []string
	if d.tokens != nil {
		files = append(files, d.f.tokens)
	}
	if d.certs != nil {
		files = append(files, d.certs.Files()...)
	}
	go func() {
		defer signal.Stop(hangup)
		guard.Watch(ctx, files, hangup, func() { d.reload(h) })
	}()
}

// reload takes tokens and certificates up again; where that fails, the old ones stay.
func (d *daemon) reload(h *score.Server) {
	if d.tokens != nil {
		t, err := guard.ReadTokens(d.f.tokens)
		if err == nil {
			h.SetTokens(t)
			d.con.log.Info("tokens read again", "tokens", t.Len())
		} else {
			d.con.log.Error("the old tokens stay in force", "error", err)
		}
		d.reloaded("tokens", err)
	}
	if d.certs != nil {
		err := d.certs.Load()
		if err == nil {
			d.con.log.Info("certificates read again")
		} else {
			d.con.log.Error("the old certificates stay in use", "error", err)
		}
		d.reloaded("tls", err)
	}
}

// reloaded counts what came of a reload.
func (d *daemon) reloaded(target string, err error) {
	result := "swapped"
	if err != nil {
		result = "refused"
	}
	d.monitor.Reload(target, result)
}

// logTo sets the log of --log-format and --log-level, and sends what notef prints there too where a format is given.
func (c *console) logTo(format, level string) {
	if format == "" && level == "" {
		return
	}
	o := &slog.HandlerOptions{Level: slog.LevelInfo}
	var l slog.Level
	if level != "" && l.UnmarshalText([]byte(level)) == nil {
		o.Level = l
	} else if c.quiet {
		o.Level = slog.LevelError
	}
	c.log = slog.New(handlerOf(c.err, cmp.Or(format, "text"), o))
	c.structured = format != ""
}

func handlerOf(w io.Writer, format string, o *slog.HandlerOptions) slog.Handler {
	if format == "json" {
		return slog.NewJSONHandler(w, o)
	}
	return slog.NewTextHandler(w, o)
}
