package datasets

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/internal/testkit"
)

// fourColumns is a schema whose parts are quick to write.
var fourColumns = &Schema{Fields: mixed.Fields[:4]}

// resumedRows is the rows of the data set that resumedRun makes: several parts, the last one not full.
const resumedRows = 2*partRows + pageRows + 321

// resumedRun writes rows of randomBatch from where a checkpoint left off, with a checkpoint after each few batches, and
// stops without a word before the batch of number stop. A file beside the rows says how many there are.
func resumedRun(dir string, stop int) error {
	w, err := CreateOrResume(dir, KindFeatures, fourColumns, false, "task")
	if err != nil {
		return err
	}
	defer w.Suspend()
	if w.Rows() > 0 {
		text, err := os.ReadFile(filepath.Join(w.Resumed(), "state", "rows"))
		if err != nil {
			return err
		}
		if string(text) != fmt.Sprint(w.Rows()) {
			return fmt.Errorf("the state is of %s rows, the data set has %d", text, w.Rows())
		}
	}
	r := rand.New(rand.NewPCG(uint64(w.Rows()), 7))
	for batch := 0; w.Rows() < resumedRows; batch++ {
		if batch == stop {
			return nil
		}
		n := min(1+r.IntN(70_000), int(resumedRows-w.Rows()))
		if r.IntN(4) == 0 { // up to the end of a page or part, where the tail is short
			n = min(n, int(pageRows-w.Rows()%pageRows))
		}
		if err := w.Write(randomBatch(fourColumns, int(w.Rows()), n)); err != nil {
			return err
		}
		if r.IntN(3) == 0 {
			continue
		}
		err := w.Checkpoint(func(dir string) error {
			if err := os.Mkdir(filepath.Join(dir, "state"), 0o777); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "state", "rows"), []byte(strconv.FormatInt(w.Rows(), 10)), 0o666)
		})
		if err != nil {
			return err
		}
	}
	return w.Commit()
}

func wholeID(t *testing.T, kind Kind, rows int) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "whole")
	w, err := Create(dir, kind, fourColumns, false)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if err := errors.Join(w.Write(randomBatch(fourColumns, 0, rows)), w.Commit()); err != nil {
		t.Fatal(err)
	}
	return open(t, dir).ID()
}

// A run that is stopped again and again gives the bytes of one that is not.
func TestResume(t *testing.T) {
	want := wholeID(t, KindFeatures, resumedRows)
	for seed := range 2 {
		root := t.TempDir()
		dir := filepath.Join(root, "deep", "set")
		r := rand.New(rand.NewPCG(uint64(seed), 1))
		for try := 0; ; try++ {
			if try == 100 {
				t.Fatal("it never ended")
			}
			if err := resumedRun(dir, 1+r.IntN(5)); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(dir); err == nil {
				break
			}
		}
		if d := open(t, dir); d.ID() != want || d.Verify(context.Background()) != nil {
			t.Errorf("id %s, want %s, %v", d.ID(), want, d.Verify(context.Background()))
		}
		if left := testkit.Names(t, filepath.Join(root, "deep")); len(left) != 1 {
			t.Errorf("left %q", left)
		}
	}
}

// So does one that is killed, in the middle of writing or of a checkpoint.
func TestResumeKilled(t *testing.T) {
	want := wholeID(t, KindFeatures, resumedRows)
	root := t.TempDir()
	dir := filepath.Join(root, "set")
	r := rand.New(rand.NewPCG(3, 3))
	kills := 0
	for {
		cmd := exec.Command(os.Args[0], "-test.run=^$")
		cmd.Env = append(os.Environ(), "DATASETS_CHILD_RESUME="+dir)
		var out strings.Builder
		cmd.Stdout = &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if kills < 8 {
			time.Sleep(time.Duration(20+r.IntN(300)) * time.Millisecond)
			if err := cmd.Process.Kill(); err != nil {
				t.Log(err) // it has ended
			}
			kills++
		}
		if err := cmd.Wait(); err == nil {
			break
		} else if out.Len() > 0 {
			t.Fatalf("%v: %s", err, &out)
		}
	}
	if id := open(t, dir).ID(); id != want {
		t.Errorf("id %s, want %s", id, want)
	}
	if left := testkit.Names(t, root); len(left) != 1 {
		t.Errorf("left %q", left)
	}
}

// checkpointed leaves a checkpoint of a full part, a page and some rows beside dir, with a file of the caller's.
func checkpointed(t *testing.T, dir string) (folder string) {
	t.Helper()
	w, err := CreateOrResume(dir, KindFeatures, fourColumns, false, "task")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Suspend()
	if err := w.Write(randomBatch(fourColumns, 0, partRows+pageRows+100)); err != nil {
		t.Fatal(err)
	}
	state := func(dir string) error { return os.WriteFile(filepath.Join(dir, "state"), []byte("state"), 0o666) }
	if err := w.Checkpoint(state); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(filepath.Dir(dir), ".set.onmart-checkpoint")
}

// A checkpoint that fails leaves the one before it.
// TestKilledWhileItRemoves: what is left of a checkpoint whose removal was cut short is no checkpoint, and in nobody's way.
func TestKilledWhileItRemoves(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "out")
	for stop := 1; ; stop++ { // until there is a checkpoint with a file beside the rows
		if err := resumedRun(dir, stop); err != nil {
			t.Fatal(err)
		}
		c := filepath.Join(filepath.Dir(dir), ".out.onmart-checkpoint")
		if left, _ := filepath.Glob(filepath.Join(c, "extra-*", "state", "rows")); len(left) == 0 {
			continue
		}
		if err := os.Remove(filepath.Join(c, checkpointName)); err != nil {
			t.Fatal(err)
		}
		break
	}
	if err := resumedRun(dir, -1); err != nil {
		t.Fatal(err)
	}
	d, err := Open(dir)
	if err != nil || d.ID() != wholeID(t, KindFeatures, resumedRows) {
		t.Errorf("another data set came of it: %v", err)
	}
}

// TestRemovalBeginsWithTheNames: at no moment of its removal does a checkpoint name files that are gone.
func TestRemovalBeginsWithTheNames(t *testing.T) {
	c, err := openCheckpoint(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	testkit.WriteFile(t, c.dir, checkpointName, "{}")
	extra := filepath.Join(c.dir, "extra-1")
	if err := os.Mkdir(extra, 0o777); err != nil {
		t.Fatal(err)
	}
	const files = 1500
	for i := range files {
		testkit.WriteFile(t, extra, strconv.Itoa(i), "")
	}
	c.last.Number = 1
	done := make(chan error, 1)
	go func() { done <- c.remove() }()
	for removed := false; !removed; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			removed = true
		default:
		}
		left, _ := os.ReadDir(extra)
		if _, err := os.Stat(filepath.Join(c.dir, checkpointName)); err == nil && len(left) < files {
			t.Fatalf("%d of %d files are left, and the checkpoint names them all", len(left), files)
		}
	}
}

func TestCheckpointThatFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "set")
	folder := checkpointed(t, dir)
	before := testkit.Names(t, folder)
	w, err := CreateOrResume(dir, KindFeatures, fourColumns, false, "task")
	if err != nil {
		t.Fatal(err)
	}
	rows := w.Rows()
	if err := w.Write(randomBatch(fourColumns, int(rows), partRows)); err != nil {
		t.Fatal(err)
	}
	err = w.Checkpoint(func(dir string) error {
		return errors.Join(os.WriteFile(filepath.Join(dir, "half"), nil, 0o666), errors.New("no more"))
	})
	if err == nil || !strings.Contains(err.Error(), "checkpoint of "+dir+": no more") {
		t.Errorf("got %v", err)
	}
	w.Suspend()
	w, err = CreateOrResume(dir, KindFeatures, fourColumns, false, "task")
	if err != nil {
		t.Fatal(err)
	}
	if w.Rows() != rows {
		t.Errorf("%d rows, want %d", w.Rows(), rows)
	}
	if text, err := os.ReadFile(filepath.Join(w.Resumed(), "state")); string(text) != "state" {
		t.Errorf("%q %v", text, err)
	}
	if err := w.resume.clean(); err != nil {
		t.Fatal(err)
	}
	if after := testkit.Names(t, folder); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Errorf("%q, want %q", after, before)
	}
	w.Abort()
	if left := testkit.Names(t, filepath.Dir(dir)); len(left) > 0 {
		t.Errorf("Abort left %q", left)
	}
}

func TestDamagedCheckpointsAreRefused(t *testing.T) {
	root := t.TempDir()
	good := filepath.Join(root, "good", "set")
	folder := checkpointed(t, good)
	for name, want := range map[string]string{
		"part-00000.parquet": "part-00000.parquet: the checksum differs from the checkpoint's",
		tailPages + "-1":     "the checksum differs",
		tailRows + "-1":      "the checksum differs",
		"extra-1/state":      "the checksum differs",
		checkpointName:       "invalid character",
	} {
		for _, how := range []string{"flip", "cut", "remove"} {
			dir := filepath.Join(root, strings.ReplaceAll(name, "/", "-")+how, "set")
			if err := os.CopyFS(filepath.Join(filepath.Dir(dir), filepath.Base(folder)), os.DirFS(folder)); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(filepath.Dir(dir), filepath.Base(folder), filepath.FromSlash(name))
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			data[len(data)/2-2] ^= 0x80
			wanted := want
			switch how {
			case "flip":
				err = os.WriteFile(path, data, 0o666)
			case "cut":
				if err = os.Truncate(path, int64(len(data)/3)); name == checkpointName {
					wanted = "unexpected end"
				}
			case "remove":
				if name == checkpointName {
					continue // it was never a checkpoint
				}
				err, wanted = os.Remove(path), "no such file"
			}
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // the refusal leaves it as it is
				_, err = CreateOrResume(dir, KindFeatures, fourColumns, true, "task")
				if err == nil || !strings.Contains(err.Error(), wanted) || !strings.Contains(err.Error(), "to begin anew") {
					t.Errorf("%s %s: got %v", name, how, err)
				}
			}
		}
	}
}

func TestForeignCheckpoints(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "set")
	checkpointed(t, dir)
	_, err := CreateOrResume(dir, KindFeatures, fourColumns, false, "other")
	if err == nil || !strings.Contains(err.Error(), "is the checkpoint of another run") ||
		!strings.Contains(err.Error(), "--force to begin anew") {
		t.Errorf("got %v", err)
	}
	w, err := CreateOrResume(dir, KindFeatures, fourColumns, false, "task")
	if err != nil || w.Rows() == 0 {
		t.Fatal(err)
	}
	if _, err := CreateOrResume(dir, KindFeatures, fourColumns, false, "task"); err == nil ||
		!strings.Contains(err.Error(), "is being written by another process") {
		t.Errorf("two at once: %v", err)
	}
	w.Suspend()
	w, err = CreateOrResume(dir, KindFeatures, fourColumns, true, "other")
	if err != nil || w.Rows() != 0 || w.Resumed() != "" {
		t.Fatalf("%v, %d rows", err, w.Rows())
	}
	w.Abort()
	plain, err := Create(dir, KindFeatures, fourColumns, false)
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Abort()
	if err := plain.Checkpoint(nil); err == nil || !strings.Contains(err.Error(), "not begun by CreateOrResume") {
		t.Errorf("got %v", err)
	}
	if left := testkit.Names(t, filepath.Dir(dir)); len(left) != 1 {
		t.Errorf("left %q", left)
	}
}

// What is appended gives the bytes of a run over all of it.
func TestAppend(t *testing.T) {
	for _, c := range []struct{ old, more int }{
		{0, 100}, {100, 0}, {1000, 5000}, {partRows, 10}, {partRows + pageRows, pageRows}, {partRows + 7, partRows},
	} {
		dir := filepath.Join(t.TempDir(), "set")
		writeSmall(t, dir, c.old)
		old := open(t, dir)
		w, err := Append(old, dir, true)
		if err != nil {
			t.Fatal(err)
		}
		if w.Rows() != int64(c.old) {
			t.Errorf("%d rows, want %d", w.Rows(), c.old)
		}
		if err := errors.Join(w.Write(randomBatch(fourColumns, c.old, c.more)), w.Commit()); err != nil {
			t.Fatal(err)
		}
		d := open(t, dir)
		if err := d.Verify(context.Background()); err != nil || d.ID() != wholeID(t, KindTransactions, c.old+c.more) {
			t.Errorf("%d and %d rows: another id; %v", c.old, c.more, err)
		}
		if left := testkit.Names(t, filepath.Dir(dir)); len(left) != 1 {
			t.Errorf("left %q", left)
		}
	}
}

func writeSmall(t *testing.T, dir string, n int) {
	t.Helper()
	w, err := Create(dir, KindTransactions, fourColumns, false)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if err := errors.Join(w.Write(randomBatch(fourColumns, 0, n)), w.Commit()); err != nil {
		t.Fatal(err)
	}
}

func TestAppendLinksAndRefuses(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "set")
	writeSmall(t, dir, partRows+500)
	old := open(t, dir)
	out := filepath.Join(root, "out")
	w, err := Append(old, out, false)
	if err != nil {
		t.Fatal(err)
	}
	a, aerr := os.Stat(filepath.Join(dir, "part-00000.parquet"))
	b, berr := os.Stat(w.dir.Path("part-00000.parquet"))
	if aerr != nil || berr != nil || !os.SameFile(a, b) {
		t.Errorf("not a link: %v %v", aerr, berr)
	}
	w.Abort()
	if _, err := Append(old, dir, false); err == nil || !strings.Contains(err.Error(), "give --force") {
		t.Errorf("got %v", err)
	}
	last := filepath.Join(dir, "part-00001.parquet")
	data, err := os.ReadFile(last)
	if err != nil {
		t.Fatal(err)
	}
	data[100] ^= 1
	if err := os.WriteFile(last, data, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := Append(old, out, false); err == nil ||
		!strings.Contains(err.Error(), last+": the checksum differs from the manifest's") {
		t.Errorf("got %v", err)
	}
	if left := testkit.Names(t, root); len(left) != 1 {
		t.Errorf("left %q", left)
	}
}

func TestLinkOrCopy(t *testing.T) {
	dir := t.TempDir()
	from := testkit.WriteFile(t, dir, "from", "text")
	other, err := os.MkdirTemp("/dev/shm", "datasets")
	if err != nil {
		t.Skip("no second file system to copy to")
	}
	defer os.RemoveAll(other)
	for _, to := range []string{filepath.Join(dir, "to"), filepath.Join(other, "to")} {
		if err := linkOrCopy(from, to); err != nil {
			t.Error(err)
		}
		if text, err := os.ReadFile(to); string(text) != "text" {
			t.Errorf("%s: %q %v", to, text, err)
		}
		if err := linkOrCopy(from, to); err == nil {
			t.Error("an existing file was replaced")
		}
	}
}
