// Package testkit holds what tests of several packages share: the root of the repository, the data
// shared beside a checkout, golden files, and the Python that reads our files back.
//
// Tests enter; nothing of the product may import this package. Where something outside the
// repository is missing, the test is skipped with a message that says what to provide.
package testkit

import (
	"bytes"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite golden and generated files with what the tests produce")

// Update reports whether the test binary runs with -update: generated files are then rewritten.
func Update() bool { return *update }

// Root returns the repository's root: the nearest folder above the test's that holds go.mod.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("no go.mod above the test's folder")
		}
		dir = up
	}
}

// SharedData returns the path of ../shared/data/rel beside the repository, and skips the test where
// it is absent: those files are too large to commit.
func SharedData(t testing.TB, rel string) string {
	t.Helper()
	path := filepath.Join(Root(t), "..", "shared", "data", filepath.FromSlash(rel))
	if _, err := os.Stat(path); err != nil {
		t.Skipf("needs shared/data/%s beside the checkout: %v", rel, err)
	}
	return path
}

// Golden compares got with testdata/name of the test's package and fails with a diff. With -update it
// writes got there.
func Golden(t testing.TB, name string, got []byte) {
	t.Helper()
	GoldenFile(t, filepath.Join("testdata", filepath.FromSlash(name)), got)
}

// GoldenFile is Golden for a generated file that lives elsewhere, such as a page of the documentation.
func GoldenFile(t testing.TB, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v (run the test with -update to write it)", err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (run the test with -update where the change is meant); -want +got:\n%s",
			path, cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")))
	}
}

// Python returns the interpreter named by ONMART_TEST_PYTHON after checking that it imports the given
// modules, and skips the test where it is not set. A module that is missing there fails the test.
func Python(t testing.TB, modules ...string) string {
	t.Helper()
	python := os.Getenv("ONMART_TEST_PYTHON")
	if python == "" {
		t.Skip("needs ONMART_TEST_PYTHON=/path/to/python with " + strings.Join(modules, ", ") + " (.ci/run makes one)")
	}
	if len(modules) > 0 {
		out, err := exec.Command(python, "-c", "import "+strings.Join(modules, ", ")).CombinedOutput()
		if err != nil {
			t.Fatalf("ONMART_TEST_PYTHON=%s cannot import %s: %v\n%s", python, strings.Join(modules, ", "), err, out)
		}
	}
	return python
}

// WriteFile writes text to name (slashes make folders) inside dir and returns its path.
func WriteFile(t testing.TB, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// Names lists the files and folders directly inside dir, sorted, hidden ones too: what a failed or
// interrupted run must not have left.
func Names(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names
}
