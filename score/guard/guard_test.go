package guard

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func write(t *testing.T, mode os.FileMode, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tokens")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTokensOfAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tokens")
	secrets := map[string]string{}
	for name, scopes := range map[string]Scope{"till": Score | Labels, "grafana": Metrics} {
		token, line, err := NewToken(name, scopes)
		if err != nil {
			t.Fatal(err)
		}
		if err := AddToken(path, name, line); err != nil {
			t.Fatal(err)
		}
		secrets[name] = token
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := ReadTokens(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, secret := range secrets {
		if strings.Contains(string(b), secret) || strings.Contains(string(b), secret[len(tokenPrefix):]) {
			t.Errorf("the file holds the token of %s", name)
		}
		if h := tokens.Find(secret); h == nil || h.Name != name {
			t.Errorf("token of %s is found as %+v", name, h)
		}
		for _, wrong := range []string{"", secret[:len(secret)-1], secret + "x", strings.ToUpper(secret), name} {
			if h := tokens.Find(wrong); h != nil {
				t.Errorf("%q is found as %s", wrong, h.Name)
			}
		}
	}
	if err := AddToken(path, "till", "till score sha256:00\n"); err == nil ||
		!strings.Contains(err.Error(), "has a token of the name till") {
		t.Errorf("a name again: %v", err)
	}
}

func TestFaultyTokensFiles(t *testing.T) {
	hash := "sha256:" + strings.Repeat("ab", 32)
	for _, c := range []struct{ text, want string }{
		{"", "no token"}, {"# nothing\n\n", "no token"},
		{"a score\n", "line 1: 2 words"}, {"a score " + hash + "\nb chat " + hash, `line 2: scope "chat"`},
		{"a score sha256:abcd", "no sha256: and 64 hex digits"}, {"a score md5:" + strings.Repeat("ab", 32), "no sha256:"},
		{"a score " + hash + "\na read " + hash, "there twice"}, {"a/b score " + hash, `name "a/b"`},
	} {
		if _, err := ReadTokens(write(t, 0o600, c.text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %s", c.text, err, c.want)
		} else if strings.Contains(err.Error(), "abab") {
			t.Errorf("the message holds a hash: %v", err)
		}
	}
	if _, err := ReadTokens(write(t, 0o620, "a score "+hash)); err == nil || !strings.Contains(err.Error(), "chmod go-w") {
		t.Errorf("a file that a group may write: %v", err)
	}
}

// Every entry is compared, wherever the one that fits stands, and no comparison ends early: Find is the two calls of
// crypto/subtle and nothing that depends on the token.
func TestFindIsInConstantTime(t *testing.T) {
	src, err := os.ReadFile("tokens.go")
	if err != nil {
		t.Fatal(err)
	}
	_, body, ok := strings.Cut(string(src), "func (t *Tokens) Find(token string) *Holder {")
	body, _, _ = strings.Cut(body, "\n}\n")
	_, loop, _ := strings.Cut(body, "for i := range t.holders {")
	loop, _, _ = strings.Cut(loop, "\n\t}\n")
	if !ok || !strings.Contains(loop, "subtle.ConstantTimeCompare") || !strings.Contains(loop, "subtle.ConstantTimeSelect") ||
		strings.Contains(loop, "return") || strings.Contains(loop, "break") ||
		strings.Contains(loop, "if ") {
		t.Errorf("the loop is\n%s", loop)
	}
}

func TestRates(t *testing.T) {
	r := Rates{PerSecond: 10, Burst: 10}
	now := time.Unix(1000, 0)
	for i := range 10 {
		if w := r.Take("a", now); w != 0 {
			t.Fatalf("request %d waits %s", i, w)
		}
	}
	if w := r.Take("a", now); w <= 0 || w > 100*time.Millisecond {
		t.Errorf("the eleventh waits %s, want at most 100ms", w)
	}
	if w := r.Take("b", now); w != 0 {
		t.Errorf("another name waits %s", w)
	}
	if w := r.Take("a", now.Add(-time.Hour)); w <= 0 {
		t.Error("a clock that is set back lets it through")
	}
	if w := r.Take("a", now.Add(time.Second)); w != 0 {
		t.Errorf("after a second it waits %s", w)
	}
	r.Keep([]string{"b"})
	if len(r.buckets) != 1 {
		t.Errorf("%d names are kept", len(r.buckets))
	}
}

func TestConnectionsBeyondTheLimitAreClosed(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var open, refused atomic.Int64
	limited := Limit(l, 2, func(n int) { open.Store(int64(n)) }, func() { refused.Add(1) })
	accepted := make(chan net.Conn, 4)
	go func() {
		for {
			c, err := limited.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	dial()
	first := <-accepted
	dial()
	<-accepted
	third := dial()
	third.SetReadDeadline(time.Now().Add(10 * time.Second))
	if n, err := third.Read(make([]byte, 1)); err == nil || n > 0 || os.IsTimeout(err) {
		t.Fatalf("the third connection is open: %d bytes, %v", n, err)
	}
	if open.Load() != 2 || refused.Load() != 1 {
		t.Errorf("%d open, %d refused", open.Load(), refused.Load())
	}
	first.Close()
	first.Close() // counts once
	dial()
	<-accepted
	if open.Load() != 2 {
		t.Errorf("%d open", open.Load())
	}
}
