package kafka

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/internal/testkit"
)

func TestParse(t *testing.T) {
	t.Setenv(PasswordVariable, "hush-hush")
	c := parse(t, "kafka://h1:1,h2,[::1]:3/a+b.c?group=g&sasl=scram-sha-512&user=u&check-every=1s&batch-bytes=64KiB&fetch-bytes=1048576&compression=none")
	if fmt.Sprint(c.Brokers, c.Topics) != "[h1:1 h2:9092 [::1]:3] [a b.c]" || c.Group != "g" || c.batchBytes != 65536 || c.fetchBytes != 1<<20 || c.checkEvery != time.Second {
		t.Errorf("got %+v", c)
	}
	if !c.tls {
		t.Error("a password would go to h1 without TLS")
	}
	if c := parse(t, "kafka://127.0.0.1/a?sasl=plain&user=u"); c.tls {
		t.Error("TLS was taken for the loopback")
	}
	for _, bad := range []struct{ url, want string }{
		{"http://h/a", "want kafka://HOST:PORT/TOPIC"},
		{"kafka:///a", "a broker is missing"},
		{"kafka://h:0/a", "broker h:0: want HOST:PORT"},
		{"kafka://h:99999/a", "broker h:99999"},
		{"kafka://h/", `topic ""`},
		{"kafka://h/a+a", "topic a is named twice"},
		{"kafka://h/a%20b", `topic "a%20b"`},
		{"kafka://h/a?grup=x", "grup: no such parameter; there are batch-bytes, ca"},
		{"kafka://h/a?group=x&group=y", "group is given 2 times"},
		{"kafka://h/a?tls=maybe", "want true or false"},
		{"kafka://h/a?tls=false&ca=x", "leave out one of the two"},
		{"kafka://h/a?cert=x", "cert and key go together"},
		{"kafka://h/a?user=u", "need sasl="},
		{"kafka://h/a?sasl=plain", "sasl needs user=NAME"},
		{"kafka://h/a?sasl=md5", "md5: want one of plain"},
		{"kafka://h/a?ca=/no/such/file", "ca: open /no/such/file"},
		{"kafka://h/a?check-every=1ms", "at least 50ms"},
		{"kafka://h/a?batch-bytes=1TiB", "want bytes"},
		{"kafka://h/a?start-timeout=x&compression=rar", "compression: rar: want one of"},
		{"kafka://h/a?start-timeout=x&compression=rar", "start-timeout: x: want a duration"},
	} {
		if _, err := Parse(bad.url); err == nil || !strings.Contains(err.Error(), bad.want) {
			t.Errorf("%s: got %v, want %q", bad.url, err, bad.want)
		}
	}
}

func TestNoErrorRepeatsAPassword(t *testing.T) {
	t.Setenv(PasswordVariable, "hush-hush")
	c := parse(t, "kafka://127.0.0.1:1/a?sasl=plain&user=u")
	if s := fmt.Sprintf("%v %+v %#v", c, c, *c); strings.Contains(s, "hush") {
		t.Error("the password is in the printed config")
	}
	for _, url := range []string{"kafka://u:hush-hush@h/a", "kafka://h/a?password=hush-hush", "kafka://h/a?user=u&password=hush-hush%", "kafka://u:hush-hush@h:x/a", "http://u:hush-hush@h/a"} {
		if _, err := Parse(url); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: got %v", url, err)
		}
	}
}

func TestThePasswordIsReadAgain(t *testing.T) {
	file := filepath.Join(t.TempDir(), "p")
	for _, p := range []string{"one", "two"} {
		if err := os.WriteFile(file, []byte(p+"\r\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c := &Config{passwordFile: file}
		if got, err := c.password(); got != p || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	f.Add("kafka://h1:1,h2,[::1]:3/a+b.c?group=g&check-every=1s")
	f.Add("kafka://[::1/a?x=%zz")
	f.Fuzz(func(t *testing.T, url string) {
		c, err := Parse(url)
		if err == nil && (len(c.Brokers) == 0 || len(c.Topics) == 0) {
			t.Errorf("%q: %+v", url, c)
		}
	})
}

func FuzzParsePartition(f *testing.F) {
	f.Add("kafka:a/1")
	f.Fuzz(func(t *testing.T, name string) {
		if p, ok := ParsePartition(name); ok && p.Number >= 0 && p.Topic != "" {
			if again, ok := ParsePartition(p.Name()); !ok || again != p {
				t.Errorf("%q: %v, then %v", name, p, again)
			}
		} else if ok {
			t.Errorf("%q: %v", name, p)
		}
	})
}

// The guide's table of parameters is made from the code.
func TestTheGuideListsTheParameters(t *testing.T) {
	var b strings.Builder
	b.WriteString("| Parameter | Value | Meaning |\n| --- | --- | --- |\n")
	for _, p := range parameters() {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", p.key, strings.ReplaceAll(p.value, "|", ", "), p.help)
	}
	guide := filepath.Join(testkit.Root(t), "docs", "GUIDE", "10-kafka.md")
	text, err := os.ReadFile(guide)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- parameters -->\n", "<!-- end of parameters -->\n"
	head, rest, ok := strings.Cut(string(text), begin)
	old, tail, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatalf("%s has no marks of the table", guide)
	}
	if old == b.String() {
		return
	}
	if !testkit.Update() {
		t.Fatalf("%s is out of date: go test ./score/kafka -run Guide -update", guide)
	}
	if err := os.WriteFile(guide, []byte(head+begin+b.String()+end+tail), 0o644); err != nil {
		t.Fatal(err)
	}
}
