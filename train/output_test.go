package train

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/onmart/onmart/train/program"
	"github.com/onmart/onmart/train/tune"
)

func TestOutput(t *testing.T) {
	out := filepath.Join(t.TempDir(), "model")
	refused := func(o Output, want string) {
		t.Helper()
		if err := o.Check(); want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%+v: %v, want %q", o, err, want)
		}
	}
	refused(Output{Dir: out}, "")
	refused(Output{Dir: out, Resume: true}, "nothing to resume")
	if err := os.Mkdir(CheckpointDir(out), 0o777); err != nil {
		t.Fatal(err)
	}
	refused(Output{Dir: out}, "--resume goes on with it")
	refused(Output{Dir: out, Resume: true}, "")

	o := Output{Dir: out}
	broken := errors.New("broken")
	stopped, stop := context.WithCancel(t.Context())
	stop()
	for _, c := range []struct {
		ctx      context.Context
		err      error
		finished bool
		want     string
		gone     bool
	}{
		{t.Context(), broken, true, "broken; what was finished is kept in " + CheckpointDir(out), false},
		{t.Context(), broken, false, "broken", false},
		{t.Context(), &Diverged{Epoch: 3}, true, (&Diverged{Epoch: 3}).Error(), true},
		{t.Context(), &tune.NoneTrained{Trials: 3}, true, (&tune.NoneTrained{Trials: 3}).Error(), true},
		{t.Context(), &program.NotFinite{Step: 3}, true, (&program.NotFinite{Step: 3}).Error(), true},
		{stopped, broken, true, "the training was stopped (context canceled); what was finished is kept", false},
		{stopped, &Diverged{Epoch: 3}, true, "the training was stopped (context canceled); what was finished is kept", false},
	} {
		if err := os.MkdirAll(CheckpointDir(out), 0o777); err != nil {
			t.Fatal(err)
		}
		if got := o.Ended(c.ctx, c.err, c.finished).Error(); !strings.HasPrefix(got, c.want) || c.want == c.err.Error() && got != c.want {
			t.Errorf("%v, finished %v: %q, want %q", c.err, c.finished, got, c.want)
		}
		// What would diverge again is not in the way of other settings.
		if _, err := os.Stat(CheckpointDir(out)); (err != nil) != c.gone {
			t.Errorf("%v: the checkpoint is gone: %v", c.err, err)
		}
	}
	if err := os.MkdirAll(filepath.Dir(o.journal()), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(o.journal(), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if got := o.Ended(t.Context(), &Diverged{Epoch: 3}, true).Error(); !strings.Contains(got, "trials.json: --force starts anew") {
		t.Error(got)
	}
	refused(Output{Dir: out, Force: true}, "")
	if _, err := os.Stat(CheckpointDir(out)); err == nil {
		t.Error("--force left the checkpoint")
	}
	if got := o.Ended(stopped, broken, true).Error(); !strings.HasSuffix(got, "nothing was left behind") {
		t.Error(got)
	}
	if err := os.Mkdir(out, 0o777); err != nil {
		t.Fatal(err)
	}
	refused(Output{Dir: out, Resume: true}, "its training came to its end")
	if err := (&Output{Dir: out}).Check(); err == nil {
		t.Error("an output that is there was not refused")
	}
}

// The folder of the checkpoints says which training it is of from its first moment, and is nothing to lose until it holds one.
func TestTheFolderOfCheckpoints(t *testing.T) {
	out := filepath.Join(t.TempDir(), "model")
	begun := Begun{Task: "fraud", Seeds: 1, Folds: 1, Settings: map[string]string{"epochs": "3"}}
	begin := func(resume bool, b Begun) error {
		return (&Session{Out: Output{Dir: out, Resume: resume}}).Begin(b)
	}
	if err := begin(false, begun); err != nil {
		t.Fatal(err)
	}
	if err := begin(true, begun); err != nil {
		t.Errorf("nothing differs: %v", err)
	}
	other := begun
	other.Task, other.Trials = "demand", 9
	if err := begin(true, other); err == nil || !strings.Contains(err.Error(), "task was fraud and is demand now; --tune was none and is 9 now") {
		t.Error(err)
	}
	if err := (&Output{Dir: out}).Check(); err != nil {
		t.Errorf("nothing would be lost: %v", err)
	}
	if err := begin(false, begun); err != nil {
		t.Fatal(err)
	}
	o := Output{Dir: out}
	if err := o.Ended(t.Context(), errors.New("broken"), false); err.Error() != "broken" {
		t.Error(err)
	}
	if _, err := os.Stat(CheckpointDir(out)); err == nil {
		t.Error("an empty folder is left")
	}
	if err := os.MkdirAll(filepath.Join(CheckpointDir(out), "choose"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := begin(true, begun); err == nil || !strings.Contains(err.Error(), "manifest.json") || !strings.Contains(err.Error(), "--force in place of --resume") {
		t.Errorf("no manifest: %v", err)
	}
}
