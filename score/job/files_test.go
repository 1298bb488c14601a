package job

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/onmart/onmart/datasets"
)

// TestTextLines reads a file from any line on: empty lines count and are no events, a last line needs no end, and of one that is
// longer than any event only as much is kept as tells that.
func TestTextLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	long := strings.Repeat("x", 3*datasets.MaxEvent)
	if err := os.WriteFile(path, []byte("one\n\n"+long+"\nfour\r\nfive"), 0o600); err != nil {
		t.Fatal(err)
	}
	for from := range int64(7) {
		s, err := TextLines(path)
		if err != nil {
			t.Fatal(err)
		}
		name := s.Partitions()[0].Name
		if err := s.Seek(context.Background(), map[string]int64{name: from}); err != nil {
			t.Fatal(err)
		}
		var got []string
		var next int64
		for {
			all, err := s.Poll(context.Background(), 2)
			for _, r := range all {
				next = r.Next
				for _, e := range r.Events {
					got = append(got, string(e.Value[:min(5, len(e.Value))]))
					if e.Position == 3 && len(e.Value) != datasets.MaxEvent+1 {
						t.Errorf("%d bytes of a long line", len(e.Value))
					}
				}
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		want := []string{"one", "xxxxx", "four", "five"}
		skip := map[int64]int{0: 0, 1: 0, 2: 1, 3: 1, 4: 2, 5: 3, 6: 4}[from]
		if strings.Join(got, " ") != strings.Join(want[skip:], " ") || next != 6 {
			t.Errorf("from %d: %q, next %d", from, got, next)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s, err := TextLines(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.Seek(context.Background(), map[string]int64{s.Partitions()[0].Name: 7}); err == nil || !strings.Contains(err.Error(), "cut off") {
		t.Errorf("behind its end: %v", err)
	}
}

// TestSourcesThatCannotBeReadAgain are refused where a state is kept.
func TestSourcesThatCannotBeReadAgain(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe.jsonl")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	csv := filepath.Join(dir, "events.csv")
	if err := os.WriteFile(csv, []byte("id\n1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{pipe: "cannot be read again", csv: "give JSON lines"} {
		if _, err := TextLines(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
