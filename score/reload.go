package score

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/internal/atomicdir"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/rules"
)

// What can be reloaded, and what came of it.
const (
	targetModel   = "model"
	targetShadow  = "shadow"
	targetRules   = "rules"
	targetPromote = "promote"

	resultSwapped   = "swapped"
	resultWarming   = "warming"
	resultRefused   = "refused"
	resultUnchanged = "unchanged"
)

// Reloaded is what a reload did with one model or with the rules.
type Reloaded struct {
	Target string `json:"target"`
	Path   string `json:"path"`
	Before string `json:"version_before,omitempty"`
	After  string `json:"version_after,omitempty"`
	Result string `json:"result"` // swapped, warming, refused, unchanged
	Reason string `json:"reason,omitempty"`
}

// Reloader brings artifacts and rules that were replaced on disk into service. All checks are done beside the scoring;
// the exchange happens between two batches. What is unfit is refused, and the old one serves on.
type Reloader struct {
	s *Scorer
	// cold lets a model with new features take over at once, with windows that are not full.
	cold bool

	mu   sync.Mutex
	seen map[string]os.FileInfo // by directory: its manifest when it was looked at last
	said map[string]string      // by path: why it was refused last
}

// NewReloader reloads into a scorer. The directories are those of its artifacts.
func NewReloader(s *Scorer, cold bool) *Reloader {
	r := &Reloader{s: s, cold: cold, seen: map[string]os.FileInfo{}, said: map[string]string{}}
	for _, c := range r.served() {
		r.seen[c.dir] = manifestOf(c.dir)
	}
	return r
}

// servedModel is a model in service by name, without the model.
type servedModel struct {
	dir, version string
	shadow       bool
}

func (r *Reloader) served() (list []servedModel) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	if c := r.s.live.champion; c != nil {
		dir, version := c.artifact.Dir(), c.version
		if w := r.s.live.warming; w != nil && w.artifact.Dir() == dir {
			version = w.version
		}
		list = append(list, servedModel{dir, version, false})
	}
	for _, c := range r.s.live.shadows {
		list = append(list, servedModel{c.artifact.Dir(), c.version, true})
	}
	return list
}

// manifestOf tells a manifest by its identity; nil where there is none, as while a directory is being replaced.
func manifestOf(dir string) os.FileInfo {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil
	}
	defer root.Close()
	st, err := root.Stat(atomicdir.ManifestName)
	if err != nil {
		return nil
	}
	return st
}

func sameFile(a, b os.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// Watch looks every so often for directories and rules that were replaced, until ctx ends.
func (r *Reloader) Watch(ctx context.Context, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			r.reload(false)
		}
	}
}

// Reload looks at all models and rules now.
func (r *Reloader) Reload() []Reloaded { return r.reload(true) }

func (r *Reloader) reload(all bool) []Reloaded {
	r.mu.Lock()
	defer r.mu.Unlock()
	done := []Reloaded{}
	for _, c := range r.served() {
		now := manifestOf(c.dir)
		if !all && (now == nil || sameFile(now, r.seen[c.dir])) {
			continue
		}
		r.seen[c.dir] = now
		done = append(done, r.say(r.model(c)))
	}
	r.s.mu.Lock()
	set := r.s.live.rules
	r.s.mu.Unlock()
	if set != nil && (all || set.Changed()) {
		if x := r.say(r.rules(set)); all || x.Result != resultUnchanged {
			done = append(done, x)
		}
	}
	return done
}

// say logs and counts an outcome; a refusal that was said before is not said again.
func (r *Reloader) say(x Reloaded) Reloaded {
	if x.Result == resultUnchanged || x.Result == resultRefused && r.said[x.Path] == x.Reason {
		return x
	}
	r.s.monitor.Reload(x.Target, x.Result)
	attrs := []any{"target", x.Target, "path", x.Path, "before", x.Before, "after", x.After}
	if x.Reason != "" {
		attrs = append(attrs, "reason", x.Reason)
	}
	if x.Result == resultRefused {
		r.said[x.Path] = x.Reason
		r.s.o.Log.Error("reload refused: the one before stays in service", attrs...)
		return x
	}
	delete(r.said, x.Path)
	r.s.o.Log.Info("reload: "+x.Result, attrs...)
	return x
}

// model opens and checks the artifact of a directory and puts it in the place of what was made of it before.
func (r *Reloader) model(c servedModel) Reloaded {
	x := Reloaded{Target: targetModel, Path: c.dir, Before: c.version, Result: resultRefused}
	if c.shadow {
		x.Target = targetShadow
	}
	a, err := model.Open(c.dir)
	if err != nil {
		x.Reason = err.Error()
		return x
	}
	if x.After = a.Manifest().Version; x.After == c.version {
		x.Result = resultUnchanged
		return x
	}
	next, err := r.s.classify(a)
	if err != nil {
		x.Reason = err.Error()
		return x
	}
	if !c.shadow {
		if err = r.s.bind(next); err != nil {
			x.Reason = err.Error()
			return x
		}
	}
	if err := r.place(next, c, &x); err != nil {
		x.Result, x.Reason = resultRefused, err.Error()
	}
	return x
}

// place finds the features of a new classifier, warms an engine where there is none that has them, and exchanges.
func (r *Reloader) place(next *classifier, old servedModel, x *Reloaded) error {
	s := r.s
	s.mu.Lock()
	plan := s.plan // changes only under r.mu, or by a model that warms
	s.mu.Unlock()
	at, missing := columnsOf(next.plan, plan)
	from := ""
	if missing != "" {
		var err error
		if next.mill, from, err = s.newMill(next); err != nil {
			return err
		}
		if _, ever := next.plan.Reach(); !ever && !old.shadow && !r.cold {
			return fmt.Errorf("it has the feature %s, which the model in service lacks, and windows without a beginning "+
				"(ever, last, decay) that never get full while it warms: start with --reload-cold to take it over with the "+
				"state of its training, or restart onmart score with it and --warm-from", missing)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed != nil {
		return s.failed
	}
	if s.plan != plan {
		return fmt.Errorf("another model has just taken over: it is looked at again when it is reloaded")
	}
	next.at = at
	if missing != "" {
		next.at = nil
	}
	x.Result = resultSwapped
	if old.shadow {
		i := slices.IndexFunc(s.live.shadows, func(c *classifier) bool { return c.version == old.version })
		if i < 0 {
			return fmt.Errorf("shadow %s is not in service any more", old.version)
		}
		s.live.shadows[i] = next
		if missing != "" {
			x.Reason = fmt.Sprintf("it has the feature %s, which the champion lacks: its own engine starts %s", missing,
				from)
		}
		s.live.listMills()
		return nil
	}
	if missing == "" || r.cold {
		s.live.warming = nil
		return s.exchange(next)
	}
	if s.o.Record != nil {
		return fmt.Errorf("it has the feature %s, which the model in service lacks, and --record has to have one engine "+
			"from its beginning to its end: restart without --record", missing)
	}
	reach, _ := next.plan.Reach()
	s.live.warming = next
	s.live.listMills()
	x.Result = resultWarming
	x.Reason = fmt.Sprintf("it has the feature %s, which the model in service lacks: its engine starts %s and takes over "+
		"when it has seen %s of events; --reload-cold takes over at once", missing, from, datasets.FormatDuration(reach))
	return nil
}

// rules reads the rules again.
func (r *Reloader) rules(old *rules.Set) Reloaded {
	x := Reloaded{Target: targetRules, Path: old.Files()[0], Result: resultRefused}
	if !old.Changed() {
		x.Result = resultUnchanged
		return x
	}
	s := r.s
	s.mu.Lock()
	champion := s.live.champion
	s.mu.Unlock()
	set, err := rules.Open(x.Path, s.ruleColumns(champion))
	if err != nil {
		x.Reason = err.Error()
		return x
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live.champion != champion {
		x.Reason = "another model has just taken over: they are read again"
		return x
	}
	s.setRules(set)
	x.Result = resultSwapped
	return x
}

// Promote makes a shadow the champion, and the champion a shadow, until the next start. A shadow whose own engine has
// windows that are not full is refused without cold.
func (r *Reloader) Promote(version string) Reloaded {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.say(r.promote(version))
}

func (r *Reloader) promote(version string) Reloaded {
	s := r.s
	x := Reloaded{Target: targetPromote, Path: version, After: version, Result: resultRefused}
	for _, m := range s.models() {
		if m.Version == version && m.Role == "shadow" {
			if err := s.bind(m.classifier); err != nil {
				x.Reason = err.Error()
				return x
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.live.shadows, func(c *classifier) bool { return c.version == version })
	if i < 0 {
		x.Reason = fmt.Sprintf("%.40q is not the version of a shadow", version)
		return x
	}
	c, old := s.live.shadows[i], s.live.champion
	x.Before = old.version
	if c.failed != nil {
		x.Reason = fmt.Sprintf("it cannot score: %v", c.failed)
		return x
	}
	if c.mill != nil && !r.cold {
		switch full, from, ever := c.mill.full(s.engine.Watermark()); {
		case full:
		case !ever:
			x.Reason = "it has windows without a beginning, which never get full beside another model: start with " +
				"--reload-cold, or restart with it as --model and --warm-from"
			return x
		case from == math.MaxInt64:
			x.Reason = "its engine has seen no event yet"
			return x
		default:
			x.Reason = fmt.Sprintf("its windows are full from %s on: wait, or start with --reload-cold",
				datasets.FormatTime(from))
			return x
		}
	}
	s.live.shadows[i] = old
	old.against, old.aligned = comparison{}, nil
	warming := s.live.warming
	s.live.warming = nil
	if err := s.exchange(c); err != nil {
		s.live.shadows[i], s.live.warming = c, warming
		s.live.listMills()
		x.Reason = err.Error()
		return x
	}
	for _, o := range s.live.shadows {
		o.against = comparison{} // it was of another champion
	}
	x.Result = resultSwapped
	x.Reason = "until the next start: give its directory as --model then"
	return x
}

// reloadModels answers POST /v1/models/reload.
func (h *Server) reloadModels(w http.ResponseWriter, _ *http.Request) {
	answer(w, h.reloader.Reload())
}

// promoteModel answers POST /v1/models/promote with {"version":"..."}.
func (h *Server) promoteModel(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Version string `json:"version"`
	}
	if !ask(w, r, &q) {
		return
	}
	answer(w, []Reloaded{h.reloader.Promote(q.Version)})
}

// answer is 409 where something was refused.
func answer(w http.ResponseWriter, done []Reloaded) {
	code := http.StatusOK
	for _, x := range done {
		if x.Result == resultRefused {
			code = http.StatusConflict
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(map[string]any{"reloaded": done})
}
