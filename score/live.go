package score

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/quality"
	"github.com/onmart/onmart/score/rules"
)

// live is what is in service and may change between two batches: the champion, which decides, the shadows, which only
// score, rules, and what is measured of them. The scorer's lock guards it.
type live struct {
	champion *classifier // nil where nothing is scored
	shadows  []*classifier
	warming  *classifier // is to be the champion once its windows are full
	mills    []*mill     // of shadows and warming, each once
	rules    *rules.Set
	hits     []int64 // by rule
	quality  *quality.Live
	drift    *quality.Drift
	notes    []string

	// Of the batch at hand.
	ruled  []int32 // by transaction: its rule; nil: there are none
	kept   [][]float64
	places []int
	some   []float64
}

// classifier is a model of transactions.
type classifier struct {
	artifact  *model.Artifact
	predictor *model.Predictor
	version   string
	threshold float64
	plan      *features.Plan // of its own spec
	feats     []features.Feature
	mill      *mill          // what its features come from; nil is the scorer's own engine
	at        []int          // by feature: its column there; nil: as they stand
	failed    error          // of a shadow: it is left out from then on
	drift     *quality.Drift // from its training rows; nil: it does not say what they were
	bound, of *rules.Set     // rules of for its features, made beforehand; nil: not made yet

	values  [][]float64 // of the batch at hand
	scores  []float64   // by row of its mill
	aligned []float64   // by transaction of the scorer; NaN: none
	against comparison
}

// mill is a feature engine beside the scorer's own.
type mill struct {
	plan   *features.Plan
	engine *features.Engine
	rows   features.Rows
	began  int64 // event time of the first event that it is to fold after its state ended; MaxInt64 before that
}

// comparison is of a shadow and the champion on the same transactions.
type comparison struct {
	n                                int64
	both, onlyChampion, onlyShadow   int64 // alerts
	meanX, meanY, varX, varY, covari float64
}

// add follows Welford (1962): x is the champion's score.
func (c *comparison) add(x, y float64, alertX, alertY bool) {
	c.n++
	dx, dy := x-c.meanX, y-c.meanY
	c.meanX += dx / float64(c.n)
	c.meanY += dy / float64(c.n)
	c.varX += dx * (x - c.meanX)
	c.varY += dy * (y - c.meanY)
	c.covari += dx * (y - c.meanY)
	switch {
	case alertX && alertY:
		c.both++
	case alertX:
		c.onlyChampion++
	case alertY:
		c.onlyShadow++
	}
}

// correlation is Pearson's, NaN where it is not defined.
func (c *comparison) correlation() float64 { return c.covari / math.Sqrt(c.varX*c.varY) }

// classify checks an artifact against the events and makes it ready to score, apart from where its features come from.
func (s *Scorer) classify(a *model.Artifact) (*classifier, error) {
	m := a.Manifest()
	if m.Task != model.Fraud {
		return nil, fmt.Errorf("model %s is of task %s: only a model of task %s scores transactions", a.Dir(), m.Task,
			model.Fraud)
	}
	o := s.o
	o.Artifact = a
	plan, err := o.plan()
	if err != nil {
		return nil, err
	}
	c := &classifier{artifact: a, version: m.Version, threshold: m.Threshold, plan: plan, feats: plan.Features()}
	if c.predictor, err = a.NewPredictor(o.Threads); err != nil {
		return nil, err
	}
	ref, err := a.Reference()
	if err != nil {
		return nil, err
	}
	if ref != nil {
		var names []string
		for _, f := range c.feats {
			names = append(names, f.Name)
		}
		c.drift = quality.NewDrift(names, ref.Features, ref.Scores)
	}
	return c, a.SelfTest(c.predictor)
}

// bind checks that a classifier can be the champion and makes rules ready for it, beside the scoring: long lists take a
// while.
func (s *Scorer) bind(c *classifier) (err error) {
	if err := s.checkAdded(c.feats); err != nil {
		return err
	}
	s.mu.Lock()
	set := s.live.rules
	s.mu.Unlock()
	if set != nil {
		if c.bound, err = set.Bind(s.ruleColumns(c)); err != nil {
			return fmt.Errorf("the rules do not fit it: %w", err)
		}
		c.of = set
	}
	return nil
}

// columnsOf finds the nodes of a plan among those of another by their fingerprints; nil and a name where one is
// missing.
func columnsOf(want, have *features.Plan) (at []int, missing string) {
	by := map[string]int{}
	for i, n := range have.Nodes() {
		by[n.Fingerprint] = i
	}
	at = []int{}
	for _, n := range want.Nodes() {
		i, ok := by[n.Fingerprint]
		if !ok {
			return nil, n.Name
		}
		at = append(at, i)
	}
	return at, ""
}

// newMill is an engine of its own for a classifier, with the state of its artifact if that has one. It says which.
func (s *Scorer) newMill(c *classifier) (*mill, string, error) {
	g := &mill{plan: c.plan, engine: c.plan.NewEngine(s.o.Threads), began: math.MaxInt64}
	g.engine.DetectDuplicates = true
	err := c.artifact.RestoreContext(g.engine)
	if errors.Is(err, model.ErrNoContext) {
		return g, "from nothing", nil
	}
	if err != nil {
		return nil, "", err
	}
	return g, "from its own state, up to " + datasets.FormatTime(g.engine.Watermark()), nil
}

// full tells whether nothing that the mill has not folded is in any of its windows, and from which event time on that
// will be; false for ever where a window has no beginning.
func (g *mill) full(watermark int64) (full bool, from int64, ever bool) {
	if g.began <= g.engine.Watermark() && g.began == math.MinInt64 {
		return true, 0, true
	}
	reach, ever := g.plan.Reach()
	if !ever {
		return false, 0, false
	}
	if g.began == math.MaxInt64 {
		return false, math.MaxInt64, true
	}
	return watermark >= g.began+reach, g.began + reach, true
}

// fold takes the batch that the scorer's engine has taken. watermark is the scorer's before it.
func (g *mill) fold(rows *datasets.Batch, watermark int64) error {
	if g.began == math.MaxInt64 {
		g.began = watermark
		if w := g.engine.Watermark(); w >= watermark {
			g.began = math.MinInt64 // its state goes on where the scorer's is: nothing is missing
		}
	}
	return g.engine.Process(rows, &g.rows)
}

// addShadow has an artifact score beside the champion. The scorer's lock is not needed before the first event.
func (s *Scorer) addShadow(c *classifier) error {
	for _, o := range append([]*classifier{s.live.champion}, s.live.shadows...) {
		if o.version == c.version {
			return fmt.Errorf("model %s is version %s, which is in service already", c.artifact.Dir(), c.version)
		}
	}
	var missing string
	if c.at, missing = columnsOf(c.plan, s.plan); missing != "" {
		g, from, err := s.newMill(c)
		if err != nil {
			return err
		}
		c.mill = g
		s.live.notes = append(s.live.notes, fmt.Sprintf("shadow %s has features that %s lacks (%s): it has an engine of "+
			"its own, which starts %s", c.version, s.live.champion.version, missing, from))
	}
	s.live.shadows = append(s.live.shadows, c)
	s.live.listMills()
	return nil
}

// leaveOut gives up on what an engine that failed is for: it decides nothing.
func (s *Scorer) leaveOut(g *mill, err error) {
	for _, c := range s.live.shadows {
		if c.mill == g {
			c.failed = err
		}
	}
	if w := s.live.warming; w != nil && w.mill == g {
		s.live.warming = nil
		s.monitor.Reload(targetModel, resultRefused)
	}
}

func (l *live) listMills() {
	l.mills = nil
	for _, c := range append(slices.Clone(l.shadows), l.warming) {
		if c != nil && c.failed == nil && c.mill != nil && !slices.Contains(l.mills, c.mill) {
			l.mills = append(l.mills, c.mill)
		}
	}
}

// startLive puts the models and rules of the options in service.
func (s *Scorer) startLive() error {
	o := &s.o
	if o.Artifact == nil {
		if len(o.Shadows) > 0 || o.Rules != "" {
			return fmt.Errorf("shadows and rules need a classifier: give --model a directory of onmart train fraud")
		}
		return nil
	}
	c, err := s.classify(o.Artifact)
	if err != nil {
		return err
	}
	s.install(c)
	for _, a := range o.Shadows {
		c, err := s.classify(a)
		if err == nil {
			err = s.addShadow(c)
		}
		if err != nil {
			return fmt.Errorf("shadow: %w", err)
		}
	}
	if o.Rules != "" {
		set, err := rules.Open(o.Rules, s.ruleColumns(c))
		if err != nil {
			return err
		}
		s.setRules(set)
	}
	if o.Quality != nil {
		s.live.quality = quality.New(*o.Quality)
	}
	return nil
}

func (s *Scorer) ruleColumns(c *classifier) rules.Columns {
	cols := rules.Columns{Events: s.o.Schema}
	for _, f := range c.feats {
		cols.Features = append(cols.Features, f.Name)
	}
	return cols
}

func (s *Scorer) setRules(set *rules.Set) {
	s.live.rules, s.live.hits = set, make([]int64, len(set.Rules()))
}

// install makes a classifier, whose features the scorer's engine has, the champion.
func (s *Scorer) install(c *classifier) {
	s.live.champion, s.live.drift = c, c.drift
	s.predictor, s.threshold, s.version, s.feats = c.predictor, c.threshold, c.version, c.feats
	s.task = c.artifact.Manifest().Task
	s.nameFields()
}

// view is the columns of the features in the model's order.
func (c *classifier) view(values [][]float64) [][]float64 {
	if c.at == nil {
		return values
	}
	c.values = slices.Grow(c.values[:0], len(c.at))[:len(c.at)]
	for j, at := range c.at {
		c.values[j] = values[at]
	}
	return c.values
}

// judge scores the batch that the engine has computed, and lets rules, shadows and measurements see it. scores are the
// champion's, NaN where a rule decided before the model. watermark is the engine's before the batch.
func (s *Scorer) judge(ev *Events, scores []float64, watermark int64) error {
	l, n := &s.live, s.rows.N
	s.values = l.champion.view(s.rows.Values)
	l.ruled = l.ruled[:0]
	if l.rules == nil {
		if err := s.predictor.Predict(s.values, n, scores); err != nil {
			return err
		}
	} else if err := s.judgeByRules(ev, scores); err != nil {
		return err
	}
	var broken *mill
	for _, g := range l.mills {
		if err := g.fold(ev.Rows, watermark); err != nil {
			s.o.Log.Error("the engine of a shadow is left out: it cannot fold", "spec", g.plan.Fingerprint(), "error", err)
			s.leaveOut(g, err)
			broken = g
		}
	}
	if broken != nil {
		l.listMills()
	}
	for _, c := range l.shadows {
		s.shadow(c, scores)
	}
	if l.quality != nil {
		s.measure(ev, scores)
	}
	if l.drift != nil && n > 0 {
		l.drift.Add(s.values, scores, n, s.engine.Watermark())
	}
	return nil
}

// judgeByRules scores what no rule decides before the model, and asks the rules after it.
func (s *Scorer) judgeByRules(ev *Events, scores []float64) error {
	l, n := &s.live, s.rows.N
	l.ruled = slices.Grow(l.ruled, n)[:n]
	b := rules.Batch{Events: ev.Rows, Input: s.rows.Input, Values: s.values, N: n, Scores: scores, Threshold: s.threshold}
	if l.rules.Before(&b, l.ruled) {
		if err := s.predictSome(scores); err != nil {
			return err
		}
	} else if err := s.predictor.Predict(s.values, n, scores); err != nil {
		return err
	}
	l.rules.After(&b, l.ruled)
	for _, r := range l.ruled {
		if r != rules.None {
			l.hits[r]++
		}
	}
	return nil
}

// predictSome scores the transactions that no rule has decided.
func (s *Scorer) predictSome(scores []float64) error {
	l := &s.live
	l.places = l.places[:0]
	for k, r := range l.ruled {
		scores[k] = math.NaN()
		if r == rules.None {
			l.places = append(l.places, k)
		}
	}
	n := len(l.places)
	if len(l.kept) < len(s.values) {
		l.kept = make([][]float64, len(s.values))
	}
	kept := l.kept[:len(s.values)]
	for j, column := range s.values {
		kept[j] = slices.Grow(kept[j][:0], n)[:n]
		for i, k := range l.places {
			kept[j][i] = column[k]
		}
	}
	l.some = slices.Grow(l.some[:0], n)[:n]
	if err := s.predictor.Predict(kept, n, l.some); err != nil {
		return err
	}
	for i, k := range l.places {
		scores[k] = l.some[i]
	}
	return nil
}

// shadow scores the batch by a shadow. One that fails is left out from then on: it decides nothing, and what it cannot
// score must not stop what does.
func (s *Scorer) shadow(c *classifier, scores []float64) {
	if c.failed != nil {
		return
	}
	rows := &s.rows
	if c.mill != nil {
		rows = &c.mill.rows
	}
	c.scores = slices.Grow(c.scores[:0], rows.N)[:rows.N]
	if err := c.predictor.Predict(c.view(rows.Values), rows.N, c.scores); err != nil {
		c.failed = err
		s.o.Log.Error("a shadow is left out: it cannot score", "version", c.version, "dir", c.artifact.Dir(), "error", err)
		return
	}
	c.aligned = slices.Grow(c.aligned[:0], s.rows.N)[:s.rows.N]
	j := 0
	for k, row := range s.rows.Input[:s.rows.N] {
		for j < rows.N && rows.Input[j] < row {
			j++
		}
		c.aligned[k] = math.NaN()
		if j < rows.N && rows.Input[j] == row {
			c.aligned[k] = c.scores[j]
			if x := scores[k]; x == x {
				c.against.add(x, c.scores[j], x >= s.threshold, c.scores[j] >= c.threshold)
			}
		}
	}
}

// measure hands scores and labels to the live figures, in the order of the log.
func (s *Scorer) measure(ev *Events, scores []float64) {
	l, b, k := &s.live, ev.Rows, 0
	for i := range b.N {
		switch s.rows.Status[i] {
		case features.Scored, features.Late:
			x := quality.Scored{ID: s.purchase(b, i), Line: s.lineOf(b, i), Time: b.Columns[s.time].Ints[i],
				Label: quality.Unlabelled}
			if c := s.label; c >= 0 && !b.Columns[c].IsNull(i) {
				x.Label = int8(min(max(b.Columns[c].Ints[i], 0), 1))
			}
			if p := scores[k]; p == p {
				l.quality.Add(s.version, s.threshold, x, p)
			}
			for _, c := range l.shadows {
				if c.failed == nil && c.aligned[k] == c.aligned[k] {
					l.quality.Add(c.version, c.threshold, x, c.aligned[k])
				}
			}
			k++
		case features.LabelApplied, features.LabelWaiting, features.LabelExpired:
			if c := s.label; c >= 0 && !b.Columns[c].IsNull(i) {
				l.quality.Label(s.purchase(b, i), s.lineOf(b, i), b.Columns[c].Ints[i] != 0)
			}
		}
	}
}

func (s *Scorer) purchase(b *datasets.Batch, i int) uint64 {
	if c := &b.Columns[s.id]; c.Strings != nil {
		return quality.HashText(c.Strings[i])
	}
	return quality.HashInt(b.Columns[s.id].Ints[i])
}

func (s *Scorer) lineOf(b *datasets.Batch, i int) int64 {
	if s.line < 0 || b.Columns[s.line].IsNull(i) {
		return quality.NoLine
	}
	return b.Columns[s.line].Ints[i]
}

// takeOver makes the model that warms the champion, once its windows are full. It is called between two batches.
func (s *Scorer) takeOver() {
	c := s.live.warming
	full, _, _ := c.mill.full(s.engine.Watermark())
	if !full {
		return
	}
	s.live.warming = nil
	old := s.version
	err := s.exchange(c)
	s.live.listMills()
	if err != nil {
		s.o.Log.Error("a model that was warm is refused", "version", c.version, "dir", c.artifact.Dir(), "error", err)
		s.monitor.Reload(targetModel, resultRefused)
		return
	}
	s.monitor.Reload(targetModel, resultSwapped)
	s.o.Log.Info("a model took over: its windows are full", "version", c.version, "before", old, "dir", c.artifact.Dir())
}

// exchange makes c the champion; where c has an engine of its own, that becomes the scorer's, between two batches.
// Shadows that need the one before keep it. After an error nothing has changed.
func (s *Scorer) exchange(c *classifier) error {
	set := s.live.rules
	if set != nil && set == c.of {
		set = c.bound
	} else if set != nil { // they have changed since
		var err error
		if set, err = set.Bind(s.ruleColumns(c)); err != nil {
			return fmt.Errorf("the rules do not fit it: %w", err)
		}
	}
	if c.mill != nil {
		if s.o.Record != nil {
			return errors.New("its features need another engine, and --record has to have one from its beginning to its " +
				"end: restart without --record, or end the recording first")
		}
	}
	s.install(c)
	if set != nil {
		hits := s.live.hits // the rules are the same
		s.setRules(set)
		s.live.hits = hits
	}
	if g := c.mill; g != nil {
		old := &mill{plan: s.plan, engine: s.engine, rows: s.rows, began: math.MinInt64}
		s.plan, s.engine, s.rows = g.plan, g.engine, g.rows
		s.generation.Add(1)
		for _, x := range append(slices.Clone(s.live.shadows), c) {
			switch at, missing := columnsOf(x.plan, s.plan); {
			case x.mill == g:
				x.mill, x.at = nil, at
			case x.mill == nil && missing == "":
				x.at = at
			case x.mill == nil:
				x.mill = old
				x.at, _ = columnsOf(x.plan, old.plan)
			}
		}
	}
	s.live.listMills()
	return nil
}

// states are the snapshots of what follows the events beside the engine, the followers' apart: live figures, stock, and
// engines of shadows by the first letters of their version.
func (s *Scorer) states() map[string]interface {
	features.Snapshotter
	features.Restorer
} {
	out := map[string]interface {
		features.Snapshotter
		features.Restorer
	}{}
	if s.live.quality != nil {
		out["quality"] = s.live.quality
	}
	if s.stock != nil {
		out["stock"] = s.stock
	}
	for _, c := range s.live.shadows {
		if c.mill != nil {
			out["shadow-"+c.version] = c.mill.engine
		}
	}
	return out
}

// restoreStates takes up what a state directory has of them, and says what it has not.
func (s *Scorer) restoreStates(dir string) error {
	for name, x := range s.states() {
		err := features.LoadBeside(dir, name, x)
		var other *quality.Other
		switch {
		case errors.Is(err, features.ErrNotBeside):
			s.noteWithout("the state "+dir, name)
		case errors.As(err, &other):
			s.live.notes = append(s.live.notes, fmt.Sprintf("%s: %v: it goes on from what there is", dir, err))
		case err != nil:
			return err
		}
	}
	return nil
}

// noteWithout says that a state has no live figures. Of a shadow's engine the note of what it begins with says enough.
func (s *Scorer) noteWithout(state, name string) {
	if name == "quality" {
		s.live.notes = append(s.live.notes, state+" has no live figures of quality: they begin with what comes")
	}
}

// Notes is what the scorer has to say to who starts it, such as what a shadow begins with.
func (s *Scorer) Notes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.live.notes)
}

// appendDecision writes the decision of transaction k: the model's, or that of the rule that decided.
func (s *Scorer) appendDecision(dst []byte, k int, alert bool) []byte {
	if k < len(s.live.ruled) && s.live.ruled[k] != rules.None {
		r := &s.live.rules.Rules()[s.live.ruled[k]]
		dst = append(dst, s.fields.decision...)
		dst = append(dst, '"')
		dst = append(dst, r.Then...)
		dst = append(dst, '"')
		dst = append(dst, s.fields.rule...)
		dst = appendString(dst, r.Name)
		dst = append(dst, s.fields.ruleReason...)
		return appendString(dst, r.Reason)
	}
	dst = append(dst, s.fields.decision...)
	if alert {
		return append(dst, `"alert"`...)
	}
	return append(dst, `"pass"`...)
}

// appendShadows writes the shadows' scores of transaction k.
func (s *Scorer) appendShadows(dst []byte, k int) []byte {
	first := true
	for _, c := range s.live.shadows {
		if c.failed != nil || k >= len(c.aligned) || c.aligned[k] != c.aligned[k] {
			continue
		}
		if first {
			dst = append(dst, s.fields.shadows...)
			dst = append(dst, '{')
		} else {
			dst = append(dst, ',')
		}
		first = false
		dst = append(dst, '"')
		dst = append(dst, c.version...)
		dst = append(dst, `":`...)
		dst = appendFloat(dst, c.aligned[k])
	}
	if first {
		return dst
	}
	return append(dst, '}')
}
