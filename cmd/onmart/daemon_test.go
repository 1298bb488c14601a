package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/onmart/onmart/score/guard"
	"github.com/onmart/onmart/score/model/modeltest"
)

// authority makes certificates for tests.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	pem  []byte
	last int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "tests"},
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{key, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 1}
}

// issue writes NAME.crt and NAME.key below dir and returns the serial number.
func (a *authority) issue(t *testing.T, dir, name string) int64 {
	t.Helper()
	a.last++
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(a.last),
		Subject:      pkix.Name{CommonName: name},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{
			x509.ExtKeyUsageServerAuth,
			x509.ExtKeyUsageClientAuth,
		},
		NotBefore: time.Now().Add(-time.Hour),
		NotAfter:  time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	k, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for ext, block := range map[string]*pem.Block{".crt": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "EC PRIVATE KEY", Bytes: k}} {
		if err := os.WriteFile(filepath.Join(dir, name+ext), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return a.last
}

// served is onmart score in a process of its own.
type served struct {
	cmd  *exec.Cmd
	addr string
	mu   sync.Mutex
	log  strings.Builder
	done chan error
}

func startScore(t *testing.T, env []string, args ...string) *served {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	s := &served{cmd: exec.Command(exe, append([]string{"score"}, args...)...), done: make(chan error, 1)}
	s.cmd.Env = append(append(os.Environ(), "ONMART_TEST_CHILD=1"), env...)
	s.cmd.Dir = t.TempDir()
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.cmd.Process.Kill() })
	addr := make(chan string, 1)
	go func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			s.mu.Lock()
			s.log.WriteString(lines.Text() + "\n")
			s.mu.Unlock()
			if m := regexp.MustCompile(`listening on ([\d.:]+\d)`).FindStringSubmatch(lines.Text()); m != nil {
				addr <- m[1]
			}
		}
		s.done <- s.cmd.Wait()
	}()
	select {
	case s.addr = <-addr:
	case err := <-s.done: // it has ended before
		s.done <- err
	case <-time.After(60 * time.Second):
		t.Fatalf("it does not listen:\n%s", s.text())
	}
	return s
}

func (s *served) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.log.String()
}

// saying waits until the log has a text.
func (s *served) saying(t *testing.T, text string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !strings.Contains(s.text(), text); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the log does not say %q:\n%s", text, s.text())
		}
	}
}

func tokenFile(t *testing.T, dir, name string, scopes guard.Scope) (path, secret string) {
	t.Helper()
	path = filepath.Join(dir, "tokens")
	secret, line, err := guard.NewToken(name, scopes)
	if err == nil {
		os.Remove(path)
		err = guard.AddToken(path, name, line)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path, secret
}

// TLS with clients' certificates over HTTP/2; tokens and certificates are taken up on SIGHUP, and a broken file leaves
// the old ones; SIGTERM ends it with 0; no secret is in the log.
func TestDaemonTakesUpTokensAndCertificates(t *testing.T) {
	dir := t.TempDir()
	modeltest.Save(t, filepath.Join(dir, "model"), 1)
	ca := newAuthority(t)
	if err := os.WriteFile(filepath.Join(dir, "ca.pem"), ca.pem, 0o600); err != nil {
		t.Fatal(err)
	}
	first := ca.issue(t, dir, "server")
	ca.issue(t, dir, "client")
	tokens, secret := tokenFile(t, dir, "first", guard.Read)
	s := startScore(
		t,
		nil,
		"--model",
		filepath.Join(dir, "model"),
		"--warm-from",
		"none",
		"--listen",
		"127.0.0.1:0",
		"--tokens",
		tokens,
		"--tls-cert",
		filepath.Join(dir, "server.crt"),
		"--tls-key",
		filepath.Join(dir, "server.key"),
		"--tls-client-ca",
		filepath.Join(dir, "ca.pem"),
		"--log-format",
		"json",
		"--log-level",
		"debug",
	)
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "client.crt"), filepath.Join(dir, "client.key"))
	if err != nil {
		t.Fatal(err)
	}
	get := func(token string, certs ...tls.Certificate) (status, proto int, serial int64, err error) {
		c := &http.Client{Transport: &http.Transport{ForceAttemptHTTP2: true, DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: certs}}, Timeout: 30 * time.Second}
		req, err := http.NewRequest("GET", "https://"+s.addr+"/v1/models", nil)
		if err != nil {
			return 0, 0, 0, err
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := c.Do(req)
		if err != nil {
			return 0, 0, 0, err
		}
		defer resp.Body.Close()
		return resp.StatusCode, resp.ProtoMajor, resp.TLS.PeerCertificates[0].SerialNumber.Int64(), nil
	}
	if status, proto, serial, err := get(secret, pair); err != nil || status != 200 || proto != 2 || serial != first {
		t.Fatalf("status %d over HTTP/%d, certificate %d, %v", status, proto, serial, err)
	}
	if _, _, _, err := get(secret); err == nil {
		t.Error("a client without a certificate is let in")
	}
	second := ca.issue(t, dir, "server")
	_, secret2 := tokenFile(t, dir, "second", guard.Read)
	s.cmd.Process.Signal(syscall.SIGHUP)
	s.saying(t, "tokens read again")
	s.saying(t, "certificates read again")
	if status, _, serial, err := get(secret2, pair); err != nil || status != 200 || serial != second {
		t.Errorf("after SIGHUP: status %d, certificate %d, want %d, %v", status, serial, second, err)
	}
	if status, _, _, err := get(secret, pair); err != nil || status != 401 {
		t.Errorf("the token that was taken out: status %d, %v", status, err)
	}
	if err := os.WriteFile(tokens, []byte("broken\n"), 0o600); err != nil { // noticed without a signal
		t.Fatal(err)
	}
	s.saying(t, "the old tokens stay in force")
	if status, _, _, err := get(secret2, pair); err != nil || status != 200 {
		t.Errorf("with a broken file: status %d, %v", status, err)
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	if err := <-s.done; err != nil {
		t.Errorf("SIGTERM: %v\n%s", err, s.text())
	}
	for _, text := range []string{secret, secret2, "PRIVATE KEY"} {
		if strings.Contains(s.text(), text) {
			t.Errorf("a secret is in the log:\n%s", s.text())
		}
	}
}

// systemd is told when the service is ready, that it moves, and that it stops.
func TestSystemdIsTold(t *testing.T) {
	dir := t.TempDir()
	modeltest.Save(t, filepath.Join(dir, "model"), 1)
	socket := filepath.Join(dir, "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := startScore(t, []string{"NOTIFY_SOCKET=" + socket, "WATCHDOG_USEC=150000"}, "--model", filepath.Join(dir, "model"),
		"--warm-from", "none", "--listen", "127.0.0.1:0", "--state-out", filepath.Join(dir, "state"))
	next := func() string {
		b := make([]byte, 256)
		l.SetReadDeadline(time.Now().Add(30 * time.Second))
		n, err := l.Read(b)
		if err != nil {
			t.Fatalf("%v\n%s", err, s.text())
		}
		return string(b[:n])
	}
	if m := next(); !strings.HasPrefix(m, "READY=1") {
		t.Errorf("first message %q", m)
	}
	for range 2 {
		if m := next(); m != "WATCHDOG=1" {
			t.Errorf("message %q", m)
		}
	}
	resp, err := http.Post("http://"+s.addr+"/v1/score", "", strings.NewReader(
		`{"trans_id":1,"trans_datetime":"2018-08-01T10:00:00Z","user_id":1,"store_id":1,"amount":10}`))
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Errorf("status %d: %s", resp.StatusCode, body)
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	for m := next(); m != "STOPPING=1"; m = next() {
		if m != "WATCHDOG=1" {
			t.Fatalf("message %q", m)
		}
	}
	if err := <-s.done; err != nil {
		t.Errorf("SIGTERM: %v\n%s", err, s.text())
	}
	if _, err := os.Stat(filepath.Join(dir, "state", "manifest.json")); err != nil {
		t.Errorf("the state is not saved: %v", err)
	}
}

// The second signal ends it at once, also while it drains.
func TestSecondSignalEndsADrain(t *testing.T) {
	dir := t.TempDir()
	modeltest.Save(t, filepath.Join(dir, "model"), 1)
	s := startScore(
		t,
		nil,
		"--model",
		filepath.Join(dir, "model"),
		"--warm-from",
		"none",
		"--listen",
		"127.0.0.1:0",
		"--drain-delay",
		"5m",
	)
	ready := func() int {
		resp, err := http.Get("http://" + s.addr + "/readyz")
		if err != nil {
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if code := ready(); code != 200 {
		t.Fatalf("status %d", code)
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	for end := time.Now().Add(30 * time.Second); ready() != 503; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is ready while it drains")
		}
	}
	time.Sleep(2 * sameSignal) // sooner it would be the same request
	s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-s.done:
		if err == nil {
			t.Error("exit status 0")
		}
	case <-time.After(30 * time.Second):
		t.Error("it goes on")
	}
}

func TestTokenNew(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "tokens")
	code, stdout, stderr := cli(t, "token", "new", "--name", "till-1", "--scopes", "score,labels", "--out", file)
	if code != 0 || !regexp.MustCompile(`^onmart_[\w-]{43}\n$`).MatchString(stdout) {
		t.Fatalf("exit %d, %q, %s", code, stdout, stderr)
	}
	tokens, err := guard.ReadTokens(file)
	if err != nil {
		t.Fatal(err)
	}
	if h := tokens.Find(strings.TrimSpace(stdout)); h == nil || h.Name != "till-1" ||
		h.Scopes != guard.Score|guard.Labels {
		t.Errorf("found %+v", h)
	}
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"--name till-1 --scopes read --out " + file, 1, "has a token of the name till-1"},
		{"--name a --scopes chat", 2, `scope "chat": want some of`}, {"--name a/b --scopes read", 2, "letters, digits"},
	} {
		if code, stdout, stderr := cli(t, append([]string{"token", "new"}, strings.Fields(c.args)...)...); code != c.code ||
			stdout != "" ||
			!strings.Contains(stderr, c.want) {
			t.Errorf("%s: exit %d, %q, %s", c.args, code, stdout, stderr)
		}
	}
}

// The page in a real browser: it shows what was scored, draws curves, asks for a token where there are some, and the
// console has no error.
func TestStatusPageInABrowser(t *testing.T) {
	chromium, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not here")
	}
	dir := t.TempDir()
	modeltest.Save(t, filepath.Join(dir, "model"), 1)
	tokens, _ := tokenFile(t, dir, "desk", guard.Read)
	browse := func(addr string) (page, console string) {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(
			ctx,
			chromium,
			"--headless",
			"--no-sandbox",
			"--disable-gpu",
			"--disable-dev-shm-usage",
			"--enable-logging=stderr",
			"--v=0",
			"--user-data-dir="+filepath.Join(dir, "browser"),
			"--virtual-time-budget=3000",
			"--dump-dom",
			"http://"+addr+"/",
		)
		var out, errs strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil {
			t.Fatalf("chromium: %v\n%s", err, errs.String())
		}
		for line := range strings.Lines(errs.String()) {
			if strings.Contains(line, "CONSOLE") {
				console += line
			}
		}
		return out.String(), console
	}
	for _, c := range []struct {
		args        []string
		want, hides []string
	}{
		{nil, []string{`data-shown="yes"`, "ready", "3 in all", "No labels yet", `class="line0"`, "champion", "No alert yet"}, nil},
		{[]string{"--tokens", tokens}, []string{`data-shown="login"`, "locked"}, []string{"champion"}},
	} {
		s := startScore(
			t,
			nil,
			append(
				[]string{"--model", filepath.Join(dir, "model"), "--warm-from", "none", "--listen", "127.0.0.1:0"},
				c.args...)...)
		if c.args == nil {
			for i := range 3 {
				resp, err := http.Post("http://"+s.addr+"/v1/score", "", strings.NewReader(fmt.Sprintf(
					`{"trans_id":%d,"trans_datetime":"2018-08-01T10:0%d:00Z","user_id":1,"store_id":1,"amount":1000}`, i+1, i)))
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
			}
			time.Sleep(6 * time.Second) // a step of the history
		}
		page, console := browse(s.addr)
		visible, _, _ := strings.Cut(page, "<script nonce")
		for _, w := range c.want {
			if !strings.Contains(visible, w) {
				t.Errorf("%v: the page lacks %q", c.args, w)
			}
		}
		for _, w := range c.hides {
			if strings.Contains(visible, w) {
				t.Errorf("%v: the page shows %q", c.args, w)
			}
		}
		if console != "" {
			t.Errorf("%v: the console says\n%s", c.args, console)
		}
		s.cmd.Process.Signal(syscall.SIGTERM)
		if err := <-s.done; err != nil {
			t.Errorf("%v: %v", c.args, err)
		}
	}
}
