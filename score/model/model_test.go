package model_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/internal/atomicdir"
	"github.com/onmart/onmart/internal/testkit"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/model/modeltest"
	"github.com/onmart/onmart/train/program"
)

func contents(t testing.TB) model.Contents {
	t.Helper()
	spec, err := features.Builtin("fraud-handbook")
	if err != nil {
		t.Fatal(err)
	}
	return modeltest.Contents(t, spec, modeltest.Schema(), 1)
}

// rows makes feature-major values of the kinds that occur.
func rows(t testing.TB, a *model.Artifact, n int) [][]float64 {
	t.Helper()
	plan, err := a.Spec().Plan(a.Manifest().Input)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(7, 8))
	var values [][]float64
	for _, f := range plan.Features() {
		v := make([]float64, n)
		for i := range v {
			switch {
			case f.Log:
				v[i] = math.Floor(math.Exp(rng.NormFloat64()*2+2)) / 4
			case rng.IntN(2) == 0:
				v[i] = rng.Float64()
			}
		}
		values = append(values, v)
	}
	return values
}

func TestSaveAndOpen(t *testing.T) {
	c := contents(t)
	c.Manifest.Test = &model.Evaluation{Data: "d", Metrics: map[string]float64{"auc": 0.9, "average_precision": math.NaN()},
		Baselines: []model.Baseline{{Name: "tree", Metrics: map[string]float64{"auc": math.Inf(1), "log_loss": 0.1}}}}
	dir := filepath.Join(t.TempDir(), "model")
	if err := model.Save(dir, c, false); err != nil {
		t.Fatal(err)
	}
	if err := model.Save(dir, c, false); err == nil {
		t.Error("an existing artifact was replaced without force")
	}
	a := modeltest.Open(t, dir)
	m := a.Manifest()
	if len(m.Version) != 12 || m.Kind != "model" || m.Task != "fraud" || len(m.Nodes) == 0 || m.Context != nil {
		t.Errorf("manifest %+v", m)
	}
	if diff := cmp.Diff(m.Lineage, c.Manifest.Lineage); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(m.Test, &model.Evaluation{Data: "d", Metrics: map[string]float64{"auc": 0.9}, Baselines: []model.Baseline{{Name: "tree", Metrics: map[string]float64{"log_loss": 0.1}}}}); diff != "" {
		t.Error("undefined metrics are left out:", diff)
	}
	if diff := cmp.Diff(a.Weights(), c.Weights); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(a.Program(), c.Program); diff != "" {
		t.Error(diff)
	}
	if !bytes.Equal(a.Spec().YAML(), c.Spec.YAML()) {
		t.Error("the spec changed")
	}
	if names := testkit.Names(t, dir); !cmp.Equal(names, []string{"manifest.json", "program.json", "spec.yaml", "weights.safetensors"}) {
		t.Error("files", names)
	}
}

// TestVersion: the same model has the same version wherever and whenever it is saved, another model another.
func TestVersion(t *testing.T) {
	version := func(change func(*model.Contents)) string {
		c := contents(t)
		change(&c)
		dir := filepath.Join(t.TempDir(), "model")
		if err := model.Save(dir, c, false); err != nil {
			t.Fatal(err)
		}
		return modeltest.Open(t, dir).Manifest().Version
	}
	first := version(func(*model.Contents) {})
	if v := version(func(c *model.Contents) { c.Manifest.Created.Time = "2020-01-01T00:00:00Z" }); v != first {
		t.Error("the time of creation is in the version")
	}
	if v := version(func(c *model.Contents) { c.Manifest.Threshold = 0.25 }); v == first {
		t.Error("the threshold is not in the version")
	}
	if v := version(func(c *model.Contents) { c.Weights.Find("out.bias").F32[0]++ }); v == first {
		t.Error("the weights are not in the version")
	}
}

// TestPrune: what trains is left out.
func TestPrune(t *testing.T) {
	c := contents(t)
	c.Program.Train = c.Program.Forward
	c.Program.State = []program.TensorSpec{{Name: "m", Shape: []int{1}}}
	c.Program.Params = append(c.Program.Params, program.TensorSpec{Name: "unused", Shape: []int{1}})
	c.Weights = append(c.Weights, program.Tensor{Name: "m", DType: program.F32, Shape: []int{1}, F32: []float32{1}})
	c.Weights.Sort()
	dir := filepath.Join(t.TempDir(), "model")
	if err := model.Save(dir, c, false); err != nil {
		t.Fatal(err)
	}
	a := modeltest.Open(t, dir)
	if a.Weights().Find("m") != nil || a.Program().Train != nil || len(a.Program().Params) != 6 {
		t.Error("training was saved")
	}
}

// TestContext: the engine's state goes along and comes back to the byte.
func TestContext(t *testing.T) {
	c := contents(t)
	plan, err := c.Spec.Plan(c.Input)
	if err != nil {
		t.Fatal(err)
	}
	e := plan.NewEngine(1)
	var out features.Rows
	if err := e.Process(transactions(300), &out); err != nil {
		t.Fatal(err)
	}
	c.Context = e
	dir := filepath.Join(t.TempDir(), "model")
	if err := model.Save(dir, c, false); err != nil {
		t.Fatal(err)
	}
	a := modeltest.Open(t, dir)
	if m := a.Manifest(); m.Context == nil || m.Context.Watermark != e.Watermark() {
		t.Errorf("context %+v, watermark %d", m.Context, e.Watermark())
	}
	var want, got bytes.Buffer
	f := plan.NewEngine(1)
	if err := errors.Join(a.RestoreContext(f), e.Snapshot(&want), f.Snapshot(&got)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want.Bytes(), got.Bytes()) {
		t.Error("the state changed on its way")
	}
	if err := modeltest.Artifact(t).RestoreContext(f); !errors.Is(err, model.ErrNoContext) {
		t.Errorf("without context: %v", err)
	}
	flip(t, filepath.Join(dir, "context", "state.bin"), -1)
	if _, err := model.Open(dir); err == nil || !strings.Contains(err.Error(), "context/state.bin was changed") {
		t.Errorf("a changed state: %v", err)
	}
}

func transactions(n int) *datasets.Batch {
	b := datasets.NewBatch(modeltest.Schema(), n)
	b.N = n
	for i := range n {
		k := int64(i)
		for c, v := range []int64{k, 1532476800e6 + k*3600e6, k % 7, k % 5, 10000 * (1 + k%90), k % 11 / 10} {
			b.Columns[c].Ints = append(b.Columns[c].Ints, v)
		}
	}
	return b
}

// flip changes one byte of a file; a negative place counts from its end.
func flip(t testing.TB, path string, at int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if at < 0 {
		at += len(b)
	}
	b[at] ^= 1
	if err := os.WriteFile(path, b, 0o666); err != nil {
		t.Fatal(err)
	}
}

// put writes a file of an artifact and makes the manifest agree with it: somebody who tampers with care.
func put(t testing.TB, dir, name string, content []byte, change func(*model.Manifest)) {
	t.Helper()
	path := filepath.Join(dir, "manifest.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m := &model.Manifest{}
	if err := json.Unmarshal(b, m); err != nil {
		t.Fatal(err)
	}
	if name != "" {
		sum := sha256.Sum256(content)
		m.Files[name] = atomicdir.Written{Bytes: int64(len(content)), SHA256: hex.EncodeToString(sum[:])}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if change != nil {
		change(m)
	}
	model.Seal(m)
	if b, err = json.Marshal(m); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, b, 0o666); err != nil {
		t.Fatal(err)
	}
}

func safetensors(t testing.TB, ts program.Tensors) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := program.WriteSafetensors(&b, ts, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestOpenRefuses(t *testing.T) {
	edit := func(change func(c *model.Contents)) model.Contents {
		c := contents(t)
		change(&c)
		return c
	}
	remove := func(name string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	write := func(name, text string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) { testkit.WriteFile(t, dir, name, text) }
	}
	for name, c := range map[string]struct {
		spoil func(t *testing.T, dir string)
		want  string
	}{
		"no directory":      {func(t *testing.T, dir string) { os.RemoveAll(dir) }, "there is no such directory: give the directory that onmart train wrote"},
		"half written":      {remove("manifest.json"), "there is no manifest.json: not an artifact, or one whose writing was interrupted; train again"},
		"file missing":      {remove("weights.safetensors"), "weights.safetensors is missing though manifest.json lists it"},
		"data set":          {write("manifest.json", `{"kind":"features","format_version":1}`), `this is a directory of kind "features", not a model`},
		"no kind":           {write("manifest.json", `{}`), "this is something that has no kind, not a model"},
		"newer":             {write("manifest.json", `{"kind":"model","format_version":2,"new":{}}`), "the artifact has format 2 and this onmart reads format 1"},
		"manifest damaged":  {write("manifest.json", `{"kind":`), "manifest.json is damaged"},
		"manifest unknown":  {write("manifest.json", `{"kind":"model","format_version":1,"extra":1}`), `unknown field "extra"`},
		"manifest appended": {write("manifest.json", `{"kind":"model","format_version":1}{}`), "manifest.json is damaged"},
		"threshold edited": {func(t *testing.T, dir string) {
			b, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
			if err != nil {
				t.Fatal(err)
			}
			testkit.WriteFile(t, dir, "manifest.json", strings.Replace(string(b), `"threshold": 0.5`, `"threshold": 0.9`, 1))
		}, "manifest.json was changed after it was written"},
		"weights changed": {func(t *testing.T, dir string) { flip(t, filepath.Join(dir, "weights.safetensors"), -1) }, "weights.safetensors was changed after it was written"},
		"weights cut short": {func(t *testing.T, dir string) {
			if err := os.Truncate(filepath.Join(dir, "weights.safetensors"), 100); err != nil {
				t.Fatal(err)
			}
		}, "weights.safetensors has 100 bytes and manifest.json says"},
		"program changed": {func(t *testing.T, dir string) { flip(t, filepath.Join(dir, "program.json"), 40) }, "program.json was changed"},
		"spec changed":    {func(t *testing.T, dir string) { flip(t, filepath.Join(dir, "spec.yaml"), 3) }, "spec.yaml was changed"},
		"link outside": {func(t *testing.T, dir string) {
			b, err := os.ReadFile(filepath.Join(dir, "spec.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			out := testkit.WriteFile(t, t.TempDir(), "spec.yaml", string(b))
			remove("spec.yaml")(t, dir)
			if err := os.Symlink(out, filepath.Join(dir, "spec.yaml")); err != nil {
				t.Fatal(err)
			}
		}, "escapes"},
		"folder for a file": {func(t *testing.T, dir string) {
			remove("spec.yaml")(t, dir)
			if err := os.Mkdir(filepath.Join(dir, "spec.yaml"), 0o777); err != nil {
				t.Fatal(err)
			}
		}, "spec.yaml is not a regular file"},
		"other files listed": {func(t *testing.T, dir string) {
			put(t, dir, "", nil, func(m *model.Manifest) { m.Files["../x"] = atomicdir.Written{} })
		}, "manifest.json lists the files"},
		"other spec": {func(t *testing.T, dir string) {
			spec := strings.Replace(string(contents(t).Spec.YAML()), "weekend", "night", 1)
			put(t, dir, "spec.yaml", []byte(spec), nil)
		}, "spec.yaml and manifest.json disagree"},
		"spec unreadable": {func(t *testing.T, dir string) { put(t, dir, "spec.yaml", []byte("features: {"), nil) }, "spec.yaml"},
		"node changed": {func(t *testing.T, dir string) {
			put(t, dir, "", nil, func(m *model.Manifest) { m.Nodes[0].Fingerprint = "00" })
		}, "is defined otherwise"},
		"node renamed": {func(t *testing.T, dir string) {
			put(t, dir, "", nil, func(m *model.Manifest) { m.Nodes[0].Name = "elsewhere" })
		}, "the model wants node elsewhere, which is not there"},
		"features reordered": {func(t *testing.T, dir string) {
			put(t, dir, "", nil, func(m *model.Manifest) { m.Features[0], m.Features[1] = m.Features[1], m.Features[0] })
		}, "feature 1 is TX_AMOUNT and the model wants TX_DURING_WEEKEND"},
		"typical missing": {func(t *testing.T, dir string) {
			put(t, dir, "", nil, func(m *model.Manifest) { m.Typical = nil })
		}, "0 typical values"},
		"no input schema": {func(t *testing.T, dir string) { put(t, dir, "", nil, func(m *model.Manifest) { m.Input = nil }) }, "no input schema"},
		"threshold": {func(t *testing.T, dir string) {
			put(t, dir, "", nil, func(m *model.Manifest) { m.Threshold = 1.5 })
		}, "threshold 1.5 is not a probability"},
		"not a program":   {func(t *testing.T, dir string) { put(t, dir, "program.json", []byte(`[1]`), nil) }, "program.json is damaged"},
		"empty program":   {func(t *testing.T, dir string) { put(t, dir, "program.json", []byte(`{}`), nil) }, "there is no forward program"},
		"not safetensors": {func(t *testing.T, dir string) { put(t, dir, "weights.safetensors", []byte("12345678901"), nil) }, "weights.safetensors is damaged"},
		"training program": {func(t *testing.T, dir string) {
			put(t, dir, "program.json", encode(t, edit(func(c *model.Contents) { c.Program.Train = c.Program.Forward }).Program), nil)
		}, "it holds a training program"},
		"huge arena": {func(t *testing.T, dir string) {
			put(t, dir, "program.json", encode(t, edit(func(c *model.Contents) { c.Program.Forward.Arena = 1 << 40 }).Program), nil)
		}, "an arena of 1099511627776 bytes"},
		"operand out of range": {func(t *testing.T, dir string) {
			put(t, dir, "program.json", encode(t, edit(func(c *model.Contents) { c.Program.Forward.Instrs[0].Args[0] = 999 }).Program), nil)
		}, "program.json: program: forward"},
		"narrow input": {func(t *testing.T, dir string) {
			set, w := modeltest.Program([]features.Feature{{Name: "one"}}, 1)
			put(t, dir, "program.json", encode(t, set), nil)
			put(t, dir, "weights.safetensors", safetensors(t, w), nil)
		}, "want [32 15] of F64: one column a feature"},
		"tensor missing": {func(t *testing.T, dir string) {
			put(t, dir, "weights.safetensors", safetensors(t, contents(t).Weights[1:]), nil)
		}, "weights.safetensors: tensor calibrate.ab is missing"},
		"tensor too many": {func(t *testing.T, dir string) {
			put(t, dir, "weights.safetensors", safetensors(t, append(contents(t).Weights, program.Tensor{Name: "zz", DType: program.F32, Shape: []int{1}, F32: []float32{1}})), nil)
		}, "tensor zz is not in the program"},
		"tensor misshapen": {func(t *testing.T, dir string) {
			c := edit(func(c *model.Contents) { c.Weights.Find("hidden.weight").Shape = []int{21, 15} })
			put(t, dir, "weights.safetensors", safetensors(t, c.Weights), nil)
		}, "tensor hidden.weight is [21 15] of F32 and the program wants [15 21] of F32"},
		"weight not finite": {func(t *testing.T, dir string) {
			c := edit(func(c *model.Contents) { c.Weights.Find("hidden.weight").F32[3] = float32(math.NaN()) })
			put(t, dir, "weights.safetensors", safetensors(t, c.Weights), nil)
		}, "tensor hidden.weight has NaN at element 3"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "model")
			modeltest.Save(t, dir, 1)
			c.spoil(t, dir)
			_, err := model.Open(dir)
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
				t.Errorf("%v\nwant it to contain %q and the directory", err, c.want)
			}
		})
	}
}

// TestSaveRefuses: what Open would refuse is not written, and nothing is left behind.
func TestSaveRefuses(t *testing.T) {
	for want, spoil := range map[string]func(*model.Contents){
		"tensor out.bias is missing":     func(c *model.Contents) { c.Weights.Find("out.bias").Name = "elsewhere"; c.Weights.Sort() },
		"15 features":                    func(c *model.Contents) { c.Manifest.Typical = c.Manifest.Typical[:3] },
		"typical value of TX_AMOUNT":     func(c *model.Contents) { c.Manifest.Typical[0] = math.Inf(1) },
		"threshold NaN":                  func(c *model.Contents) { c.Manifest.Threshold = math.NaN() },
		"there is no forward program":    func(c *model.Contents) { c.Program = &program.Set{} },
		"names no task":                  func(c *model.Contents) { c.Manifest.Task = "" },
		"tensor hidden.bias has +Inf at": func(c *model.Contents) { c.Weights.Find("hidden.bias").F32[0] = float32(math.Inf(1)) },
	} {
		c := contents(t)
		spoil(&c)
		parent := t.TempDir()
		if err := model.Save(filepath.Join(parent, "model"), c, false); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
		if names := testkit.Names(t, parent); len(names) > 0 {
			t.Errorf("%s: left %v", want, names)
		}
	}
}

func TestCheckNodes(t *testing.T) {
	a := modeltest.Artifact(t)
	plan := func(spec *features.Spec) *features.Plan {
		p, err := spec.Plan(modeltest.Schema())
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	if err := a.CheckNodes(plan(a.Spec()).Nodes()); err != nil {
		t.Error(err)
	}
	other, err := a.Spec().WithDelay(3 * datasets.Day)
	if err != nil {
		t.Fatal(err)
	}
	err = a.CheckNodes(plan(other).Nodes())
	if err == nil || !strings.Contains(err.Error(), "was trained on other features") || !strings.Contains(err.Error(), "spec.yaml") {
		t.Errorf("another delay: %v", err)
	}
}

// forward is the model of modeltest in float64, by the definition of its instructions.
func forward(w program.Tensors, x []float64) float64 {
	mean, scale, log, ab := w.Find("standardize.mean").F64, w.Find("standardize.scale").F64, w.Find("standardize.log").F64, w.Find("calibrate.ab").F64
	w1, b1, w2, b2 := w.Find("hidden.weight").F32, w.Find("hidden.bias").F32, w.Find("out.weight").F32, w.Find("out.bias").F32
	w3, b3 := w.Find("other.weight").F32, w.Find("other.bias").F32
	z := float64(b2[0]+b3[0]) / 2
	for j := range b1 {
		h := float64(b1[j])
		for i, v := range x {
			if log[i] == 1 {
				v = math.Log1p(max(v, 0))
			}
			h += (v - mean[i]) * scale[i] * float64(w1[i*len(b1)+j])
		}
		z += max(h, 0) * float64(w2[j]+w3[j]) / 2
	}
	return 1 / (1 + math.Exp(-(ab[0]*z + ab[1])))
}

func row(values [][]float64, i int) []float64 {
	x := make([]float64, len(values))
	for j := range x {
		x[j] = values[j][i]
	}
	return x
}

func predictor(t testing.TB, a *model.Artifact, threads int) *model.Predictor {
	t.Helper()
	p, err := a.NewPredictor(threads)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestPredict compares with a forward pass written apart, and any cut into batches and threads with row by
// row, to the bit.
func TestPredict(t *testing.T) {
	a := modeltest.Artifact(t)
	const n = 5*modeltest.Tile + 3
	values := rows(t, a, n)
	single := predictor(t, a, 1)
	want := make([]float64, n)
	one := make([][]float64, len(values))
	low, high := 1.0, 0.0
	for i := range want {
		for j := range values {
			one[j] = values[j][i : i+1]
		}
		if err := single.Predict(one, 1, want[i:]); err != nil {
			t.Fatal(err)
		}
		if exact := forward(a.Weights(), row(values, i)); !(math.Abs(want[i]-exact) <= 1e-5) {
			t.Errorf("row %d: %v, want %v", i, want[i], exact)
		}
		low, high = min(low, want[i]), max(high, want[i])
	}
	if !(low < 0.2 && high > 0.8) {
		t.Errorf("scores between %v and %v test little", low, high)
	}
	for _, threads := range []int{1, 2, 3, 8} {
		p := predictor(t, a, threads)
		for _, k := range []int{0, 1, 2, modeltest.Tile - 1, modeltest.Tile, modeltest.Tile + 1, 3 * modeltest.Tile, n} {
			got := make([]float64, n)
			if err := p.Predict(values, k, got); err != nil {
				t.Fatal(err)
			}
			for i := range got {
				if w := want[i]; i < k && got[i] != w || i >= k && got[i] != 0 {
					t.Fatalf("%d threads, %d rows: row %d is %v, alone %v", threads, k, i, got[i], w)
				}
			}
		}
	}
}

func TestPredictRefuses(t *testing.T) {
	a := modeltest.Artifact(t)
	p := predictor(t, a, 2)
	values := rows(t, a, 100)
	scores := make([]float64, 100)
	short := append([][]float64(nil), values...)
	short[3] = short[3][:50]
	bad := append([][]float64(nil), values...)
	bad[0] = append([]float64(nil), bad[0]...)
	bad[0][70] = math.NaN()
	for want, err := range map[string]error{
		"3 features, the model wants 15":                p.Predict(values[:3], 100, scores),
		"CUSTOMER_ID_NB_TX_1DAY_WINDOW has 50 values":   p.Predict(short, 100, scores),
		"room for 99 scores":                            p.Predict(values, 100, scores[:99]),
		"row 70 scores NaN, which is no probability":    p.Predict(bad, 100, scores),
		"row 70 scores NaN, which is no probability: a": p.Predict(bad, 71, scores),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestPredictAllocatesNothing(t *testing.T) {
	a := modeltest.Artifact(t)
	p := predictor(t, a, 2)
	values, scores := rows(t, a, 1), make([]float64, 1)
	if n := testing.AllocsPerRun(100, func() {
		if err := p.Predict(values, 1, scores); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a row", n)
	}
}

// TestReasons recomputes each contribution from Predict by its definition.
func TestReasons(t *testing.T) {
	a := modeltest.Artifact(t)
	p := predictor(t, a, 1)
	const n = 40
	values := rows(t, a, n)
	odds := func(x []float64) float64 {
		columns, score := make([][]float64, len(x)), make([]float64, 1)
		for j := range x {
			columns[j] = x[j : j+1]
		}
		if err := p.Predict(columns, 1, score); err != nil {
			t.Fatal(err)
		}
		return math.Log(score[0] / (1 - score[0]))
	}
	seen := map[string]bool{}
	for i := range n {
		x := row(values, i)
		got := p.Reasons(values, i, 100)
		for k, r := range got {
			j := feature(a, r.Feature)
			y := append([]float64(nil), x...)
			y[j] = a.Manifest().Typical[j]
			if want := odds(x) - odds(y); !(math.Abs(r.Contribution-want) <= 1e-9*max(1, math.Abs(want))) {
				t.Errorf("row %d, %s: contribution %v, want %v", i, r.Feature, r.Contribution, want)
			}
			if r.Value != x[j] || r.Typical != y[j] || r.Words == "" || strings.Contains(r.Words, "{") {
				t.Errorf("row %d: %+v", i, r)
			}
			if k > 0 {
				q := got[k-1].Contribution
				if r.Contribution > 0 && q < r.Contribution || q < 0 && math.Abs(q) < math.Abs(r.Contribution) {
					t.Errorf("row %d: %v before %v", i, q, r.Contribution)
				}
			}
			seen[r.Feature] = true
		}
		if three := p.Reasons(values, i, 0); len(three) != 3 || !cmp.Equal(three, got[:3]) {
			t.Errorf("row %d: default reasons %v of %v", i, three, got)
		}
	}
	if len(seen) != len(values) {
		t.Errorf("only %d features ever mattered", len(seen))
	}
	for j := range values {
		values[j][0] = a.Manifest().Typical[j]
	}
	if r := p.Reasons(values, 0, 3); len(r) != 0 {
		t.Errorf("a typical row has reasons: %v", r)
	}
}

func feature(a *model.Artifact, name string) int {
	for j, f := range a.Manifest().Features {
		if f == name {
			return j
		}
	}
	return -1
}

// TestWords: reasons speak with the spec's words.
func TestWords(t *testing.T) {
	a := modeltest.Artifact(t)
	p := predictor(t, a, 1)
	values := rows(t, a, 1)
	for j := range values {
		values[j][0] = 1234.5
	}
	values[feature(a, "TX_DURING_NIGHT")][0] = 1
	values[feature(a, "TX_DURING_WEEKEND")][0] = 0
	values[feature(a, "CUSTOMER_ID_NB_TX_1DAY_WINDOW")][0] = 1
	values[feature(a, "TERMINAL_ID_RISK_7DAY_WINDOW")][0] = 0.125
	said := map[string]string{}
	for _, r := range p.Reasons(values, 0, 100) {
		said[r.Feature] = r.Words
	}
	for name, want := range map[string]string{
		"TX_AMOUNT":                          "amount 1,234.50 (typical ",
		"TX_DURING_NIGHT":                    "at night",
		"TX_DURING_WEEKEND":                  "not on a weekend",
		"CUSTOMER_ID_NB_TX_1DAY_WINDOW":      "1 purchase on this card in 1 day (typical ",
		"CUSTOMER_ID_NB_TX_7DAY_WINDOW":      "1,234 purchases on this card in 7 days (typical ",
		"CUSTOMER_ID_AVG_AMOUNT_7DAY_WINDOW": "average of 1,234.50 per purchase on this card over 7 days (typical ",
		"TERMINAL_ID_NB_TX_30DAY_WINDOW":     "1,234 purchases at this store, latest 30 days with labels (typical ",
		"TERMINAL_ID_RISK_7DAY_WINDOW":       "12.5% of this store's purchases were fraud, latest 7 days with labels (typical ",
	} {
		if said[name] != "" && !strings.HasPrefix(said[name], want) {
			t.Errorf("%s: %q, want it to begin with %q", name, said[name], want)
		}
		if len(said[name]) > 100 {
			t.Errorf("%s: %q is more than a line", name, said[name])
		}
	}
	for _, name := range []string{"TX_AMOUNT", "TX_DURING_NIGHT", "CUSTOMER_ID_AVG_AMOUNT_7DAY_WINDOW", "TERMINAL_ID_RISK_7DAY_WINDOW"} {
		if said[name] == "" {
			t.Errorf("%s gives no reason", name)
		}
	}
}

func TestFormat(t *testing.T) {
	for _, c := range []struct {
		unit string
		v    float64
		want string
	}{
		{"amount", 1234567.891, "1,234,567.89"}, {"amount", -1234.5, "-1,234.50"}, {"money", 0, "0.00"}, {"amount", 999, "999.00"},
		{"share", 0.25, "25%"}, {"share", 1, "100%"}, {"share", 0.01234, "1.23%"}, {"share", 0, "0%"},
		{"purchases", 3, "3"}, {"purchases", 12345, "12,345"}, {"purchases", 2.5, "2.5"}, {"", 0.000123, "0.000123"}, {"", 1e-12, "0"}, {"", 1234.5678, "1,235"}, {"", 12.345, "12.3"}, {"", -7, "-7"},
	} {
		if got := model.Format(c.unit, c.v); got != c.want {
			t.Errorf("%v %s: %s, want %s", c.v, c.unit, got, c.want)
		}
	}
}

// TestNumpy runs the forward pass of testdata/forward.py, which the guide shows, on the saved files.
func TestNumpy(t *testing.T) {
	python := testkit.Python(t, "numpy", "safetensors")
	a := modeltest.Artifact(t)
	const n = 100
	values := rows(t, a, n)
	scores := make([]float64, n)
	if err := predictor(t, a, 2).Predict(values, n, scores); err != nil {
		t.Fatal(err)
	}
	var x [][]float64
	for i := range n {
		x = append(x, row(values, i))
	}
	code := `
import json, sys, numpy as np
sys.path.insert(0, "testdata")
from forward import scores
json.dump(scores(sys.argv[1], np.array(json.load(sys.stdin))).tolist(), sys.stdout)`
	cmd := exec.Command(python, "-B", "-c", code, a.Dir())
	cmd.Stdin = bytes.NewReader(encode(t, x))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var got []float64
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != n {
		t.Fatalf("%d scores, want %d", len(got), n)
	}
	for i := range got {
		if !(math.Abs(got[i]-scores[i]) <= 1e-5) {
			t.Errorf("row %d: numpy %v, predict %v", i, got[i], scores[i])
		}
	}
}

// FuzzOpen: no manifest, spec, program or weights panic, and what opens also predicts.
func FuzzOpen(f *testing.F) {
	a := modeltest.Artifact(f)
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(a.Dir(), name))
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	good := []string{"manifest.json", "spec.yaml", "program.json", "weights.safetensors"}
	base := map[string][]byte{}
	for _, name := range good {
		base[name] = read(name)
	}
	for i, name := range good {
		f.Add(i, base[name])
		for cut := 1; cut < len(base[name]); cut += len(base[name])/7 + 1 {
			f.Add(i, base[name][:cut])
		}
	}
	f.Add(3, []byte("\x60\x00\x00\x00\x00\x00\x00\x00"+`{"calibrate.ab":{"dtype":"F32","shape":[2147483648,2147483648],"data_offsets":[0,0]}}            `))
	f.Fuzz(func(t *testing.T, which int, content []byte) {
		files := map[string][]byte{}
		for i, name := range good {
			files[name] = base[name]
			if i == which {
				files[name] = content
			}
		}
		a, err := model.Assemble(files["manifest.json"], files)
		if err != nil {
			return
		}
		p, err := a.NewPredictor(1)
		if err != nil {
			return
		}
		n := len(a.Manifest().Features)
		values := make([][]float64, n)
		for i := range values {
			values[i] = []float64{1}
		}
		// A changed weight may make any score but no panic.
		_ = p.Predict(values, 1, make([]float64, 1))
	})
}

func BenchmarkPredict(b *testing.B) {
	a := modeltest.Artifact(b)
	for name, n := range map[string]int{"1": 1, "1024": 1024} {
		b.Run(name, func(b *testing.B) {
			p := predictor(b, a, 1)
			values, scores := rows(b, a, n), make([]float64, n)
			b.ReportAllocs()
			for b.Loop() {
				if err := p.Predict(values, n, scores); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}

// BenchmarkReasons is of an alert: one pass of 16 rows, three sentences.
func BenchmarkReasons(b *testing.B) {
	dir := os.Getenv("ONMART_BENCH_MODEL") // a trained classifier; empty: a small one made by hand
	a := modeltest.Artifact(b)
	if dir != "" {
		a = modeltest.Open(b, dir)
	}
	p := predictor(b, a, 1)
	values := rows(b, a, 16)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		p.Reasons(values, i%16, 3)
	}
}
