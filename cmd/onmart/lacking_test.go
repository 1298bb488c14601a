package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/onmart/onmart/train/demand"
	"github.com/onmart/onmart/train/fraud"
	"github.com/onmart/onmart/train/recommend"
	"github.com/onmart/onmart/train/tune"
)

// TestWhatAGPULacks: of each task the defaults and the default search run on a GPU, and a setting that does not is
// found in the config and among the values that a search may draw.
func TestWhatAGPULacks(t *testing.T) {
	tasks := map[string]func(set []string, space tune.Space) (lacking, error){
		"fraud": func(set []string, space tune.Space) (lacking, error) {
			c := fraud.DefaultConfig()
			err := c.Set(set)
			return fraudLacks(c, space), err
		},
		"demand": func(set []string, space tune.Space) (lacking, error) {
			c := demand.DefaultConfig()
			err := c.Set(set)
			return demandLacks(c, space), err
		},
		"recommend": func(set []string, space tune.Space) (lacking, error) {
			c := recommend.DefaultConfig()
			err := c.Set(set)
			return recommendLacks(c, space), err
		},
	}
	for _, c := range []struct {
		task, set string
		space     tune.Space
		want      string
	}{
		{"fraud", "", fraud.DefaultSpace(), ""},
		{"fraud", "pieces=4 residual=true genuine=.5", nil, ""},
		{"fraud", "optimizer=adagrad", nil, "(adagrad, node "},
		{"fraud", "clip_norm=1", nil, "(sum_squares, node "},
		{"fraud", "", tune.Must("optimizer: [adamw, sgd]\n"), "(momentum, node "},
		{"fraud", "", tune.Must("clip_norm: {from: 0, to: 2}\n"), "(sum_squares, node "},
		{"demand", "", demand.DefaultSpace(), ""},
		{"demand", "ema=.9", nil, "(moving_average, node "},
		{"demand", "ema=.9 network=false", nil, ""},
		{"recommend", "", recommend.DefaultSpace(), ""},
		{"recommend", "loss=softmax", nil, "(lookup_dot, node "},
		{"recommend", "loss=softmax model=als", nil, ""},
		{"recommend", "", tune.Must("loss: [shared, bpr]\n"), "(lookup_dot, node "},
	} {
		lacks, err := tasks[c.task](strings.Fields(c.set), c.space)
		if err != nil {
			t.Fatal(err)
		}
		err = lacks()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s %s %v: %v, want %q", c.task, c.set, c.space, err, c.want)
		}
	}
}

// TestAutoTakesNoGPUThatLacksAKernel: it takes the processor and says for what; a GPU that was asked for is refused by
// name, in a training and on paper.
func TestAutoTakesNoGPUThatLacksAKernel(t *testing.T) {
	onDevice(t)
	t.Chdir(t.TempDir())
	makeCards(t)
	train := func(args ...string) (code int, stdout, stderr string) {
		t.Helper()
		return cli(t, append([]string{"train", "fraud", "--data", "cards", "--set", "epochs=4", "--set", "hidden=16",
			"--set", "towers=1", "--set", "learning_rate=.05", "--set", "optimizer=adagrad", "--json"}, args...)...)
	}
	code, stdout, stderr := train("--out", "model")
	var made struct{ Backend string }
	if code != exitGood || json.Unmarshal([]byte(stdout), &made) != nil || !strings.HasPrefix(made.Backend, "cpu-") {
		t.Fatalf("exit %d, trained on %q: %s", code, made.Backend, stderr)
	}
	if !strings.Contains(stderr, "a GPU is there and is not taken: instruction ") ||
		!strings.Contains(stderr, " (adagrad, node ") {
		t.Errorf("auto says:\n%s", stderr)
	}
	const refused = ") has no kernel for a GPU yet"
	code, _, stderr = train("--out", "model-cuda", "--device", "cuda")
	if code != exitFailed || !strings.Contains(stderr, refused+": train with --device cpu") {
		t.Errorf("cuda: exit %d: %s", code, stderr)
	}
	code, _, stderr = train("--explain", "--device", "model:rtx2060")
	if code != exitFailed || !strings.Contains(stderr, "gpu: predict: instruction ") ||
		!strings.Contains(stderr, refused) {
		t.Errorf("on paper: exit %d: %s", code, stderr)
	}
}
