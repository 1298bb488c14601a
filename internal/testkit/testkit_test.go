package testkit

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// recorder is a testing.TB that notes a failure instead of reporting it.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { r.failed = true }

func TestGoldenFailsOnADifference(t *testing.T) {
	path := WriteFile(t, t.TempDir(), "golden.txt", "a\nb\n")
	same, other := &recorder{TB: t}, &recorder{TB: t}
	if *update {
		t.Skip("-update rewrites instead of comparing")
	}
	GoldenFile(same, path, []byte("a\nb\n"))
	GoldenFile(other, path, []byte("a\nc\n"))
	if same.failed || !other.failed {
		t.Errorf("equal text failed: %v; other text failed: %v", same.failed, other.failed)
	}
}

func TestRootHoldsGoMod(t *testing.T) {
	if _, err := os.Stat(filepath.Join(Root(t), "go.mod")); err != nil {
		t.Error(err)
	}
}

func TestNamesListsHiddenFiles(t *testing.T) {
	dir := t.TempDir()
	WriteFile(t, dir, ".hidden", "")
	WriteFile(t, dir, "sub/x", "")
	if got := Names(t, dir); !slices.Equal(got, []string{".hidden", "sub"}) {
		t.Errorf("got %q", got)
	}
}
