//go:build unix

package datasets

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/onmart/onmart/internal/testkit"
)

// TestMain lets the test binary be a process that imports: under a limit on file sizes, which fails as a
// full disk does, or until it is killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv("DATASETS_CHILD_RESUME"); dir != "" {
		if err := resumedRun(dir, 1<<30); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	in := os.Getenv("DATASETS_CHILD_IN")
	if in == "" {
		os.Exit(m.Run())
	}
	if os.Getenv("DATASETS_CHILD_LIMIT") != "" {
		signal.Ignore(syscall.SIGXFSZ)
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 1 << 10, Max: 1 << 10}); err != nil {
			fmt.Println(err)
			os.Exit(2)
		}
	}
	m2, err := Preset("fraud-handbook")
	if err == nil {
		_, err = Import(context.Background(), ImportOptions{Mapping: m2, Files: []string{in}, Out: os.Getenv("DATASETS_CHILD_OUT"), Force: true})
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	os.Exit(0)
}

func importChild(t *testing.T, in, out string, env ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(append(os.Environ(), "DATASETS_CHILD_IN="+in, "DATASETS_CHILD_OUT="+out), env...)
	return cmd
}

func TestImportOnFullDisk(t *testing.T) {
	dir := t.TempDir()
	in := testkit.WriteFile(t, t.TempDir(), "in.csv", handbookHeader+rowsOf(50_000))
	out, err := importChild(t, in, filepath.Join(dir, "out"), "DATASETS_CHILD_LIMIT=1").CombinedOutput()
	if err == nil {
		t.Fatalf("it fitted: %s", out)
	}
	if !bytes.Contains(out, []byte("no space left on device")) || !bytes.Contains(out, []byte("part-00000.parquet")) {
		t.Errorf("got %s", out)
	}
	if left := testkit.Names(t, dir); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

// Killed at any moment, an import leaves the old data set or the new one whole, and the next one clears
// what is left of it.
func TestImportKilled(t *testing.T) {
	dir := t.TempDir()
	in := testkit.WriteFile(t, t.TempDir(), "in.csv", handbookHeader+rowsOf(100_000))
	out := filepath.Join(dir, "out")
	start := time.Now()
	if msg, err := importChild(t, in, out).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, msg)
	}
	took := time.Since(start)
	for i := range 8 {
		cmd := importChild(t, in, out)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(took * time.Duration(i+1) / 9)
		cmd.Process.Kill()
		cmd.Wait()
		if err := open(t, out).Verify(context.Background()); err != nil {
			t.Fatalf("killed after %d ninths: %v", i+1, err)
		}
	}
	if msg, err := importChild(t, in, out).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, msg)
	}
	if left := strings.Join(testkit.Names(t, dir), " "); left != "out" {
		t.Errorf("left %s", left)
	}
}
