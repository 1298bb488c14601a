package score_test

import (
	"bytes"
	"encoding/json"
	"log/slog"

	"math"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/model/modeltest"
	"github.com/onmart/onmart/score/quality"
	"github.com/onmart/onmart/train"
)

// specOf is the handbook's spec with its first features only, or with one more.
func specOf(t testing.TB, more string) *features.Spec {
	t.Helper()
	s, err := features.Parse("test", []byte(`name: test
label: {column: is_fraud, delay: 7d}
features:
  - {name: weekend, kind: calendar, of: weekend}
  - {name: n_1d, kind: count, key: user_id, windows: [1d]}
  - {name: mean_1d, kind: mean, of: amount, key: user_id, windows: [1d]}
`+more))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// put saves a model in the place of what is in dir, by rename.
func put(t testing.TB, dir string, spec *features.Spec, seed uint64, sample bool) *model.Artifact {
	t.Helper()
	c := modeltest.Contents(t, spec, modeltest.Schema(), seed)
	if sample {
		for range c.Manifest.Typical {
			column := make([]float64, 400)
			for i := range column {
				column[i] = float64(i % 7)
			}
			c.Sample = append(c.Sample, column)
		}
	}
	if err := model.Save(dir, c, true); err != nil {
		t.Fatal(err)
	}
	return modeltest.Open(t, dir)
}

type liveLine struct {
	TransID    int64              `json:"trans_id"`
	Scores     map[string]float64 `json:"scores"`
	Shadows    map[string]float64 `json:"shadows"`
	Decision   string             `json:"decision"`
	Rule       string             `json:"rule"`
	RuleReason string             `json:"rule_reason"`
	Model      string             `json:"model"`
}

func decode(t testing.TB, lines []string) (out []liveLine) {
	t.Helper()
	for _, l := range lines {
		var x liveLine
		if err := json.Unmarshal([]byte(l), &x); err != nil {
			t.Fatal(err, l)
		}
		out = append(out, x)
	}
	return out
}

func TestShadows(t *testing.T) {
	dir := t.TempDir()
	champion := put(t, filepath.Join(dir, "a"), specOf(t, ""), 1, false)
	same := put(t, filepath.Join(dir, "b"), specOf(t, ""), 2, false)
	more := specOf(t, "  - {name: n_3d, kind: count, key: store_id, windows: [3d]}\n")
	other := put(t, filepath.Join(dir, "c"), more, 3, false)
	lines := cards(8, 400, true)
	alone := func(a *model.Artifact) []liveLine {
		return decode(t, run(t, newScorer(t, a, score.Options{}), lines, 64))
	}
	want := [][]liveLine{alone(champion), alone(same), alone(other)}
	for _, batch := range []int{1, 17, 1000} {
		s := newScorer(t, champion, score.Options{Shadows: []*model.Artifact{same, other}})
		got := decode(t, run(t, s, lines, batch))
		for i, x := range got {
			if x.Scores["fraud"] != want[0][i].Scores["fraud"] || x.Decision != want[0][i].Decision ||
				x.Shadows[same.Manifest().Version] != want[1][i].Scores["fraud"] ||
				x.Shadows[other.Manifest().Version] != want[2][i].Scores["fraud"] {
				t.Fatalf("batch %d, line %d: %+v, want %v %v %v", batch, i, x, want[0][i], want[1][i], want[2][i])
			}
		}
		if len(s.Notes()) != 1 || !strings.Contains(s.Notes()[0], "(n_3d)") {
			t.Error("notes:", s.Notes())
		}
	}
	if _, err := score.New(score.Options{Artifact: champion, Schema: mapping(t).LogSchema(),
		Shadows: []*model.Artifact{champion}}); err == nil || !strings.Contains(err.Error(), "in service already") {
		t.Error(err)
	}
}

func TestRules(t *testing.T) {
	dir := t.TempDir()
	a := put(t, filepath.Join(dir, "a"), specOf(t, ""), 1, false)
	path := filepath.Join(dir, "rules.yaml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, time.Time{}, time.Now().Add(time.Duration(len(text))*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	write(`before:
  - {name: tiny, when: amount < 30, then: allow, reason: too little to steal}
after:
  - {name: sure, when: score > 0.05, then: block, reason: the model is sure}
  - {name: busy, when: n_1d >= 3 and not alert, then: review, reason: many at once}
`)
	lines := cards(9, 400, true)
	plain := decode(t, run(t, newScorer(t, a, score.Options{}), lines, 64))
	seen := map[string]int{}
	for _, batch := range []int{1, 50} {
		s := newScorer(t, a, score.Options{Rules: path})
		for i, x := range decode(t, run(t, s, lines, batch)) {
			var in struct{ Amount float64 }
			if err := json.Unmarshal([]byte(lines[i]), &in); err != nil {
				t.Fatal(err)
			}
			p := plain[i].Scores["fraud"]
			switch {
			case in.Amount < 30:
				if x.Decision != "allow" || x.Rule != "tiny" || len(x.Scores) != 0 || x.RuleReason != "too little to steal" {
					t.Fatalf("%+v", x)
				}
			case p > 0.05:
				if x.Decision != "block" || x.Rule != "sure" || x.Scores["fraud"] != p {
					t.Fatalf("%+v", x)
				}
			default:
				if x.Rule != "" && x.Rule != "busy" || x.Scores["fraud"] != p {
					t.Fatalf("%+v", x)
				}
			}
			seen[x.Rule+x.Decision]++
		}
	}
	if len(seen) != 4 {
		t.Error("not all rules were tried:", seen)
	}
	s := newScorer(t, a, score.Options{Rules: path})
	r := score.NewReloader(s, false)
	write("after:\n  - {name: x, when: scor > 1, then: block, reason: y}\n")
	if x := r.Reload(); len(x) != 2 || x[1].Result != "refused" || !strings.Contains(x[1].Reason, "did you mean score?") {
		t.Errorf("%+v", x)
	}
	write("after:\n  - {name: all, when: score >= 0, then: review, reason: yes}\n")
	if x := r.Reload(); x[1].Result != "swapped" {
		t.Errorf("%+v", x)
	}
	if got := decode(t, run(t, s, lines[:3], 1)); got[2].Rule != "all" || got[2].Decision != "review" {
		t.Errorf("%+v", got)
	}
}

// TestReload: a replaced model takes over between two batches; an unfit one is refused, and the old one serves.
func TestReload(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "model")
	first := put(t, dir, specOf(t, ""), 1, true)
	lines := cards(10, 300, true)
	var log strings.Builder
	s := newScorer(t, first, score.Options{Quality: &quality.Options{Delay: 7 * datasets.Day}, Log: slog.New(slog.NewJSONHandler(&log, nil))})
	r := score.NewReloader(s, false)
	if x := r.Reload(); len(x) != 1 || x[0].Result != "unchanged" {
		t.Fatalf("%+v", x)
	}
	at := 0
	version := func() string {
		at++
		return decode(t, run(t, s, lines[at:at+1], 1))[0].Model
	}
	if v := version(); v != first.Manifest().Version {
		t.Fatal(v)
	}
	refuse := func(what, why string) {
		t.Helper()
		before := version()
		x := r.Reload()
		if len(x) != 1 || x[0].Result != "refused" || !strings.Contains(x[0].Reason, why) {
			t.Errorf("%s: %+v", what, x)
		}
		if v := version(); v != before {
			t.Errorf("%s: %s took over", what, v)
		}
	}
	second := put(t, dir, specOf(t, ""), 2, true)
	weights := filepath.Join(dir, "weights.safetensors")
	b, err := os.ReadFile(weights)
	if err != nil {
		t.Fatal(err)
	}
	bad := slices.Clone(b)
	bad[len(bad)-1] ^= 1
	os.WriteFile(weights, bad, 0o666)
	refuse("a damaged one", "SHA-256")
	os.WriteFile(weights, b, 0o666)
	if x := r.Reload(); x[0].Result != "swapped" || x[0].After != second.Manifest().Version || version() != x[0].After {
		t.Errorf("%+v", x)
	}
	if err := os.Rename(dir, dir+".gone"); err != nil {
		t.Fatal(err)
	}
	refuse("none", "no such directory")
	c := modeltest.Contents(t, specOf(t, ""), &datasets.Schema{Fields: slices.Concat(modeltest.Schema().Fields[:2],
		[]datasets.Field{{Name: datasets.UserID, Type: datasets.String}}, modeltest.Schema().Fields[3:])}, 4)
	if err := model.Save(dir, c, true); err != nil {
		t.Fatal(err)
	}
	refuse("ids as text", "user_id is")
	put(t, dir, specOf(t, "  - {name: all, kind: count, key: user_id, windows: [ever]}\n"), 5, false)
	refuse("a window without a beginning", "--reload-cold")
	if x := score.NewReloader(s, true).Reload(); x[0].Result != "swapped" {
		t.Errorf("cold: %+v", x)
	}
	third := put(t, dir, specOf(t, ""), 6, false)
	if x := r.Reload(); x[0].Result != "swapped" || version() != third.Manifest().Version {
		t.Errorf("fewer features: %+v", x)
	}
	if !strings.Contains(log.String(), `"msg":"reload: swapped"`) || !strings.Contains(log.String(), `"level":"ERROR","msg":"reload refused`) {
		t.Errorf("the log says\n%s", log.String())
	}
}

// Where lines repeat their events, a model with other features must not add a field that the events may have.
func TestReloadAddsNoOtherFields(t *testing.T) {
	more := "  - {name: risk_5d, kind: risk, key: store_id, windows: [5d]}\n"
	for _, c := range []struct {
		o        score.Options
		was, now string
		refused  bool
	}{
		{score.Options{Form: score.FormEvent, Features: true}, "", more, true},
		{score.Options{Form: score.FormEvent, Features: true}, more, "", false},
		{score.Options{Form: score.FormEvent}, "", more, false},
		{score.Options{Features: true}, "", more, false},
	} {
		dir := filepath.Join(t.TempDir(), "model")
		s := newScorer(t, put(t, dir, specOf(t, c.was), 1, false), c.o)
		put(t, dir, specOf(t, c.now), 2, false)
		x := score.NewReloader(s, true).Reload()
		if len(x) != 1 {
			t.Fatalf("%+v", x)
		}
		if (x[0].Result == "refused") != c.refused || c.refused && !strings.Contains(x[0].Reason, "risk_5d") {
			t.Errorf("%+v from %q to %q: %+v", c.o, c.was, c.now, x[0])
		}
	}
}

// TestWarmsBeside: a model with a new feature takes over when its windows are full, and scores then what it would have
// scored had it been there from the beginning.
func TestWarmsBeside(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "model")
	first := put(t, dir, specOf(t, ""), 1, false)
	lines := cards(11, 600, true)
	s := newScorer(t, first, score.Options{})
	r := score.NewReloader(s, false)
	got := decode(t, run(t, s, lines[:200], 50))
	next := put(t, dir, specOf(t, "  - {name: risk_5d, kind: risk, key: store_id, windows: [5d]}\n"), 2, false)
	if x := r.Reload(); len(x) != 1 || x[0].Result != "warming" || !strings.Contains(x[0].Reason, "risk_5d") {
		t.Fatalf("%+v", x)
	}
	for i := 200; i < len(lines); i += 50 {
		got = append(got, decode(t, run(t, s, lines[i:min(i+50, len(lines))], 50))...)
	}
	want := [][]liveLine{decode(t, run(t, newScorer(t, first, score.Options{}), lines, 50)),
		decode(t, run(t, newScorer(t, next, score.Options{}), lines, 50))}
	took := 0
	for i, x := range got {
		w := want[0][i]
		if x.Model == next.Manifest().Version {
			w = want[1][i]
			if took == 0 {
				took = i
			}
		} else if took > 0 {
			t.Fatal("it gave back")
		}
		if x.Scores["fraud"] != w.Scores["fraud"] {
			t.Fatalf("line %d of %s: %v, want %v", i, x.Model, x.Scores, w.Scores)
		}
	}
	// 12 days of a stream of 40 days with 600 purchases, from purchase 200 on.
	if took < 350 || took > 450 {
		t.Errorf("it took over at purchase %d", took)
	}
}

func TestPromote(t *testing.T) {
	dir := t.TempDir()
	a := put(t, filepath.Join(dir, "a"), specOf(t, ""), 1, false)
	b := put(t, filepath.Join(dir, "b"), specOf(t, "  - {name: n_3d, kind: count, key: store_id, windows: [3d]}\n"), 2, false)
	lines := cards(12, 600, true)
	s := newScorer(t, a, score.Options{Shadows: []*model.Artifact{b}})
	r := score.NewReloader(s, false)
	h := score.NewServer(s, mapping(t), score.ServerOptions{Reloader: r})
	post := func(path, body string) (int, string) {
		w := httptest.NewRecorder()
		h.Handler().ServeHTTP(w, httptest.NewRequest("POST", path, strings.NewReader(body)))
		return w.Code, w.Body.String()
	}
	promote := `{"version":"` + b.Manifest().Version + `"}`
	run(t, s, lines[:100], 10)
	if x := r.Promote("none"); x.Result != "refused" {
		t.Errorf("%+v", x)
	}
	run(t, s, lines[100:300], 10)
	if code, text := post("/v1/models/promote", promote); code != 200 || !strings.Contains(text, "swapped") {
		t.Fatal(code, text)
	}
	got := decode(t, run(t, s, lines[300:], 10))
	alone := [][]liveLine{decode(t, run(t, newScorer(t, a, score.Options{}), lines, 50)),
		decode(t, run(t, newScorer(t, b, score.Options{}), lines, 50))}
	for i, x := range got {
		if x.Model != b.Manifest().Version || x.Scores["fraud"] != alone[1][300+i].Scores["fraud"] ||
			x.Shadows[a.Manifest().Version] != alone[0][300+i].Scores["fraud"] {
			t.Fatalf("line %d: %+v", i, x)
		}
	}
	if code, text := post("/v1/models/reload", ""); code != 200 || strings.Count(text, "unchanged") != 2 {
		t.Error(code, text)
	}
	for _, path := range []string{"/v1/models", "/metrics"} {
		w := httptest.NewRecorder()
		h.Handler().ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if w.Code != 200 || !strings.Contains(w.Body.String(), b.Manifest().Version) {
			t.Error(path, w.Code, w.Body.String())
		}
	}
}

// TestThousandReloads: under load, memory, file handles and goroutines stay what they were.
func TestThousandReloads(t *testing.T) {
	dir := t.TempDir()
	at := filepath.Join(dir, "model")
	two := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
	for i, d := range two {
		put(t, d, specOf(t, ""), uint64(i+1), true)
	}
	point := func(i int) { // as a deployment by symbolic link does
		os.Remove(at + ".new")
		if err := os.Symlink(two[i%2], at+".new"); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(at+".new", at); err != nil {
			t.Fatal(err)
		}
	}
	point(0)
	s := newScorer(t, modeltest.Open(t, at), score.Options{Quality: &quality.Options{Delay: datasets.Day}})
	r := score.NewReloader(s, false)
	lines := cards(13, 2000, true)
	stop, scored := make(chan struct{}), sync.WaitGroup{}
	scored.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			h := score.NewServer(s, mapping(t), score.ServerOptions{})
			w := httptest.NewRecorder()
			h.Handler().ServeHTTP(w, httptest.NewRequest("POST", "/v1/score", strings.NewReader(lines[i%len(lines)])))
			if w.Code != 200 {
				t.Error(w.Code, w.Body)
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	measure := func() (heap uint64, files, routines int) {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			return m.HeapAlloc, 0, runtime.NumGoroutine()
		}
		return m.HeapAlloc, len(entries), runtime.NumGoroutine()
	}
	reload := func(from, to int) {
		for i := from; i < to; i++ {
			point(i)
			if x := r.Reload(); len(x) != 1 || x[0].Result != "swapped" {
				t.Fatalf("reload %d: %+v", i, x)
			}
		}
	}
	reload(1, 51)
	heap, files, routines := measure()
	reload(51, 1051)
	heap2, files2, routines2 := measure()
	close(stop)
	scored.Wait()
	t.Logf("heap %d to %d kB, files %d to %d, goroutines %d to %d", heap>>10, heap2>>10, files, files2, routines, routines2)
	if heap2 > heap+4<<20 || files2 > files+2 || routines2 > routines+2 {
		t.Error("1,000 reloads leak")
	}
}

// TestLiveQuality: what /v1/quality says is what a batch over the recorded log says, to the bit, and it goes along with
// the state.
func TestLiveQuality(t *testing.T) {
	dir := t.TempDir()
	a := put(t, filepath.Join(dir, "a"), specOf(t, ""), 1, false)
	b := put(t, filepath.Join(dir, "b"), specOf(t, ""), 2, false)
	lines := cards(14, 1500, false)
	o := score.Options{Shadows: []*model.Artifact{b}, Quality: &quality.Options{Delay: 7 * datasets.Day, Window: 90 * datasets.Day}}
	s := newScorer(t, a, o)
	out := run(t, s, lines[:700], 64)
	if err := s.SaveState(filepath.Join(dir, "state"), false); err != nil {
		t.Fatal(err)
	}
	s = newScorer(t, a, o)
	if _, err := s.Warm(filepath.Join(dir, "state")); err != nil {
		t.Fatal(err)
	}
	out = append(out, run(t, s, lines[700:], 64)...)
	w := httptest.NewRecorder()
	score.NewServer(s, mapping(t), score.ServerOptions{}).Handler().ServeHTTP(w, httptest.NewRequest("GET", "/v1/quality", nil))
	var answer struct{ Versions []quality.Figures }
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || len(answer.Versions) != 2 {
		t.Fatal(err, w.Body.String())
	}
	fraud := map[int64]bool{}
	for _, l := range lines {
		if strings.Contains(l, `"event":"label"`) {
			var x struct {
				TransID int64 `json:"trans_id"`
			}
			if err := json.Unmarshal([]byte(l), &x); err != nil {
				t.Fatal(err)
			}
			fraud[x.TransID] = true
		}
	}
	for i, a := range []*model.Artifact{a, b} {
		var y []bool
		var p []float64
		for _, l := range out {
			var x struct {
				liveLine
				At string `json:"trans_datetime"`
			}
			if err := json.Unmarshal([]byte(l), &x); err != nil {
				t.Fatal(err)
			}
			at, err := time.Parse(time.RFC3339, x.At)
			if err != nil || at.UnixMicro() > s.Watermark()-7*datasets.Day {
				continue
			}
			y = append(y, fraud[x.TransID])
			p = append(p, []float64{x.Scores["fraud"], x.Shadows[b.Manifest().Version]}[i])
		}
		k := slices.IndexFunc(answer.Versions, func(f quality.Figures) bool { return f.Version == a.Manifest().Version })
		f := answer.Versions[k]
		if f.Rows != len(y) || f.Rows < 500 || f.Positives < 20 || *f.AUC != train.AUC(y, p) || *f.Brier != train.Brier(y, p) ||
			*f.AveragePrecision != train.AveragePrecision(y, p) {
			t.Errorf("%s: %+v, want %d rows, AUC %v", f.Version, f, len(y), train.AUC(y, p))
		}
	}
}

func TestLiveDrift(t *testing.T) {
	dir := t.TempDir()
	a := put(t, filepath.Join(dir, "a"), specOf(t, ""), 1, true)
	s := newScorer(t, a, score.Options{})
	run(t, s, cards(15, 2000, true), 64)
	w := httptest.NewRecorder()
	score.NewServer(s, mapping(t), score.ServerOptions{}).Handler().ServeHTTP(w, httptest.NewRequest("GET", "/v1/drift", nil))
	var r struct {
		Version string
		quality.DriftReport
	}
	if err := json.Unmarshal(w.Body.Bytes(), &r); err != nil {
		t.Fatal(err, w.Body.String())
	}
	if r.Version != a.Manifest().Version || r.Rows == 0 || r.Features[0].Verdict != "shifted" || len(r.Features) != 3 {
		t.Errorf("%+v", r)
	}
	if math.IsNaN(r.Features[0].Mean) || bytes.Contains(w.Body.Bytes(), []byte("NaN")) {
		t.Error("not finite")
	}
}
