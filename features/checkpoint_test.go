package features

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/datasets"
)

// longStream is a month of rows that fill more than one part, stored once for all tests of checkpoints.
func longStream(t *testing.T) *datasets.Dataset {
	t.Helper()
	in := monthStream(300_000)
	for i := range in.Columns[2].Ints {
		in.Columns[2].Ints[i] = int64(i*7919%5000 + i%7)
		in.Columns[3].Ints[i] = int64(i*104729%9000 + i%5)
	}
	return store(t, datasets.KindTransactions, in, nil)
}

// made is what a run leaves, to be compared byte by byte.
type made struct {
	id, counts     string
	state, rejects []byte
}

func madeBy(t *testing.T, out, state string) made {
	t.Helper()
	m := open(t, out).Manifest()
	rejects, err := os.ReadFile(filepath.Join(out, RejectsFile))
	if err != nil {
		t.Fatal(err)
	}
	return made{m.ID, fmt.Sprint(m.Counts, m.Rows), stateFileOf(t, state), rejects}
}

func (m made) same(t *testing.T, what string, o made) {
	t.Helper()
	if m.id != o.id || m.counts != o.counts || !bytes.Equal(m.state, o.state) || !bytes.Equal(m.rejects, o.rejects) {
		t.Errorf("%s: data set %t, counts %t (%s, want %s), state %t, rejects %t equal", what, m.id == o.id,
			m.counts == o.counts, o.counts, m.counts, bytes.Equal(m.state, o.state), bytes.Equal(m.rejects, o.rejects))
	}
}

// leftovers are the names in a directory, without those of the given outputs.
func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// A run that is told to stop, again and again, and goes on each time gives the data set, the counts, the rejects and
// the
// state of a run that was not, to the byte.
func TestStoppedRunGoesOn(t *testing.T) {
	in := longStream(t)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	spec := fraudSpec(t)
	if _, err := Run(context.Background(), RunOptions{Spec: spec, In: in, Out: at("whole"), StateOut: at("wholestate"),
		Threads: 2}); err != nil {
		t.Fatal(err)
	}
	want := madeBy(t, at("whole"), at("wholestate"))

	o := RunOptions{Spec: spec, In: in, Out: at("f"), StateOut: at("s"), Threads: 2, CheckpointEvery: time.Hour}
	stops := 0
	for ; ; stops++ {
		ctx, cancel := context.WithCancelCause(context.Background())
		batches := 0
		o.Progress = func(done, _ int64) {
			if batches++; batches == 2 {
				cancel(errors.New("told to stop"))
			}
		}
		_, err := Run(ctx, o)
		cancel(nil)
		if err == nil {
			break
		}
		var stopped *Stopped
		if !errors.As(err, &stopped) || !strings.Contains(err.Error(), "(told to stop)") || stopped.Folded == 0 {
			t.Fatal(err)
		}
		if _, err := os.Stat(o.Out); err == nil {
			t.Fatal("a run that was stopped left an output")
		}
		again := o
		again.Resume, again.Progress = false, nil
		if _, err := Run(context.Background(), again); err == nil || !strings.Contains(err.Error(), "--resume goes on "+
			"with it, --force starts anew") {
			t.Fatalf("without Resume: %v", err)
		}
		o.Resume = true
	}
	if stops < 2 {
		t.Errorf("stopped %d times only", stops)
	}
	want.same(t, "stopped and gone on", madeBy(t, at("f"), at("s")))
	if names := leftovers(t, dir); len(names) != 4 {
		t.Errorf("left over: %v", names)
	}
}

const killedEnv = "ONMART_TEST_KILLED_RUN"

// TestKilledRunHelper is the process that TestKilledRunGoesOn kills.
func TestKilledRunHelper(t *testing.T) {
	args := strings.Split(os.Getenv(killedEnv), "\n")
	if len(args) < 3 {
		t.Skip("not called by TestKilledRunGoesOn")
	}
	in, err := datasets.Open(args[0])
	if err != nil {
		t.Fatal(err)
	}
	o := RunOptions{Spec: fraudSpec(t), In: in, Out: args[1], StateOut: args[2], Threads: 2,
		CheckpointEvery: time.Nanosecond}
	o.Progress = func(done, _ int64) { fmt.Println("done", done) }
	for _, resume := range []bool{true, false} {
		o.Resume = resume
		if _, err = Run(context.Background(), o); err == nil || !strings.Contains(err.Error(), "nothing to resume") {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A run that is killed at any moment goes on from its last checkpoint and gives the bytes of one that was not.
func TestKilledRunGoesOn(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a dozen processes")
	}
	in := longStream(t)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	if _, err := Run(context.Background(), RunOptions{Spec: fraudSpec(t), In: in, Out: at("whole"),
		StateOut: at("wholestate"), Threads: 2}); err != nil {
		t.Fatal(err)
	}
	want := madeBy(t, at("whole"), at("wholestate"))
	rng := rand.New(rand.NewPCG(6, 28))
	killed, ended := 0, 0
	for round := 0; ended < 1; round++ {
		if round > 20 {
			t.Fatal("it does not come to an end")
		}
		cmd := exec.Command(os.Args[0], "-test.run=TestKilledRunHelper", "-test.v")
		cmd.Env = append(os.Environ(), killedEnv+"="+strings.Join([]string{in.Dir(), at("f"), at("s")}, "\n"))
		out := &seenOutput{lines: 1 + rng.IntN(2), first: make(chan struct{})}
		cmd.Stdout, cmd.Stderr = out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		// Not before the first batch, so that each process gets on.
		dead := make(chan error, 1)
		go func() { dead <- cmd.Wait() }()
		var err error
		select {
		case err = <-dead:
		case <-out.first:
			select {
			case err = <-dead:
			case <-time.After(time.Duration(rng.IntN(40)) * time.Millisecond):
				_ = cmd.Process.Kill()
				err = <-dead
				killed++
			}
		}
		if err != nil {
			if cmd.ProcessState.Exited() {
				t.Fatalf("%v\n%s", err, out.text())
			}
			// It may have ended while it was being killed; then the state may be what is missing.
			if _, err := os.Stat(at("f")); err != nil {
				continue
			}
			if _, err := os.Stat(at("s")); err != nil {
				if err := os.RemoveAll(at("f")); err != nil {
					t.Fatal(err)
				}
				continue
			}
		}
		want.same(t, fmt.Sprint("after ", killed, " kills"), madeBy(t, at("f"), at("s")))
		ended++
		for _, name := range []string{"f", "s"} {
			if err := os.RemoveAll(at(name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("killed %d times", killed)
	if killed < 2 {
		t.Errorf("killed %d times only", killed)
	}
}

// seenOutput keeps a process's output and says when it has told of so many batches.
type seenOutput struct {
	buf   bytes.Buffer
	lines int
	first chan struct{}
	said  bool
}

func (s *seenOutput) Write(b []byte) (int, error) {
	s.buf.Write(b)
	if !s.said && bytes.Count(s.buf.Bytes(), []byte("done ")) >= s.lines {
		s.said = true
		close(s.first)
	}
	return len(b), nil
}

func (s *seenOutput) text() string { return s.buf.String() }

func TestCheckpointRefusals(t *testing.T) {
	in := longStream(t)
	spec := fraudSpec(t)
	out := filepath.Join(t.TempDir(), "f")
	stop := func(o RunOptions) error {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		o.Progress = func(done, _ int64) { cancel() }
		_, err := Run(ctx, o)
		return err
	}
	base := RunOptions{Spec: spec, In: in, Out: out, Threads: 1, CheckpointEvery: time.Hour}
	var stopped *Stopped
	if err := stop(base); !errors.As(err, &stopped) || !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	later, err := spec.WithDelay(3 * datasets.Day)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(o *RunOptions){
		"another spec":  func(o *RunOptions) { o.Spec = later },
		"another input": func(o *RunOptions) { o.In = store(t, datasets.KindTransactions, cardStream(500), nil) },
		"another range": func(o *RunOptions) {
			o.Range = datasets.Range{From: in.Manifest().From + datasets.Day, To: in.Manifest().To}
		},
		"with a state": func(o *RunOptions) { o.StateOut = out + "state" },
	} {
		o := base
		o.Resume = true
		change(&o)
		if _, err := Run(context.Background(), o); err == nil || !strings.Contains(err.Error(), "another run") {
			t.Errorf("%s: %v", name, err)
		}
	}
	o := base
	o.Resume = true
	other := o
	other.Out = out + "2"
	if _, err := Run(context.Background(), other); err == nil || !strings.Contains(err.Error(), "nothing to resume") {
		t.Errorf("nothing there: %v", err)
	}
	if _, err := Run(context.Background(), o); err != nil {
		t.Error(err)
	}

	// --force without --resume begins anew and leaves no checkpoint.
	base.Out = out + "3"
	if err := stop(base); !errors.As(err, &stopped) {
		t.Fatal(err)
	}
	base.Force = true
	m, err := Run(context.Background(), base)
	if err != nil || m.Rows != 297_000 {
		t.Errorf("%v", err)
	}
	if names := leftovers(t, filepath.Dir(out)); len(names) != 2 {
		t.Errorf("left over: %v", names)
	}
}

// A state that must lie in a file for the most part gives the bytes of one that need not.
func TestSpilledRun(t *testing.T) {
	in := monthStream(300_000)
	for i := range in.Columns[2].Ints {
		in.Columns[2].Ints[i] = int64(i * 7919 % 60_000)
	}
	d := store(t, datasets.KindTransactions, in, nil)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	var whole, spilled MemoryUse
	o := RunOptions{Spec: fraudSpec(t), In: d, Out: at("f"), StateOut: at("s"), Threads: 2, Used: &whole}
	if _, err := Run(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	o.Out, o.StateOut, o.Used, o.Memory, o.Spill = at("f2"), at("s2"), &spilled, 2<<20, dir
	if _, err := Run(context.Background(), o); err != nil {
		if strings.Contains(err.Error(), "needs Linux") {
			t.Skip(err)
		}
		t.Fatal(err)
	}
	madeBy(t, at("f"), at("s")).same(t, "spilled", madeBy(t, at("f2"), at("s2")))
	if whole.Spilled != 0 || spilled.Spilled < whole.State/4 {
		t.Errorf("without a budget %+v, with one %+v", whole, spilled)
	}
	var roomy MemoryUse // a budget that is enough puts nothing into a file
	o.Out, o.StateOut, o.Used, o.Memory = at("f3"), at("s3"), &roomy, 1<<30
	if _, err := Run(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	if roomy.Spilled != 0 {
		t.Errorf("with a large budget %+v", roomy)
	}
	if names := leftovers(t, dir); len(names) != 6 {
		t.Errorf("left over: %v", names)
	}
}
