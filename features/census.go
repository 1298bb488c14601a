package features

import (
	"context"
	"math"
	"runtime"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features/slab"
)

// A census predicts the memory of an engine's state. State belongs to keys, so that a sample of the keys has a sample
// of the state: for each key of the plan an engine of that key's groups alone folds the rows of one in so many keys,
// chosen by a hash, and its memory is taken that many times. Keys that have a large share of the rows alone are
// counted apart, once. What is measured thus follows every rule of growth and forgetting that the engine has.
const (
	// censusRows is about how many rows each key's engine folds: the cost of a prediction.
	censusRows = 400_000
	// censusHeavy is the share of rows, one in so many, from which a key is counted apart. With fewer rows a key moves
	// the sum of the others' little.
	censusHeavy = 256
	// censusLook is how many rows are looked at for such keys before the counting begins.
	censusLook = 1 << 18
)

// Prediction is the memory that a run over a data set would take up for its state.
type Prediction struct {
	Rows    int64           `json:"rows"`
	Share   float64         `json:"share"` // of the keys that were counted
	Keys    []KeyPrediction `json:"keys"`
	Groups  []int64         `json:"groups"`        // bytes by group
	Free    int64           `json:"free_bytes"`    // of blocks that others have grown out of
	State   int64           `json:"state_bytes"`   // groups and tables of keys: what a run without --state-out takes up
	Records int64           `json:"records_bytes"` // recent events beside it, with --state-out and live

	// Of features that a run has made, what it took up.
	RunOf string     `json:"run_of,omitempty"`
	Run   *MemoryUse `json:"run,omitempty"`
}

// KeyPrediction is one key of the plan.
type KeyPrediction struct {
	Columns  []string `json:"columns"`
	Distinct int64    `json:"distinct"`
	Bytes    int64    `json:"bytes"` // of the table that numbers its values
}

// census is a prediction under way.
type census struct {
	p      *Plan
	full   *Engine // gives the columns of rows
	every  uint64  // one key in so many is folded
	keys   []keyCensus
	time   []int64 // event times of the records that would be held
	gone   int
	held   int // the most of them at a time
	mark   int64
	rows   int64
	hashes []uint64
}

// keyCensus is what one key of the plan holds.
type keyCensus struct {
	light, heavy shadow
	apart        map[uint64]bool // hashes of the heavy keys
}

// shadow is an engine of one key's groups, its table and each of its groups in an arena of their own.
type shadow struct {
	e      *Engine
	table  *slab.Arena
	groups []int // of the plan
	arenas []*slab.Arena
	rows   []int32
	out    Rows
}

// newCensus begins a prediction for so many rows, each key's engine folding about `fold` of them.
func newCensus(p *Plan, rows, fold int64) *census {
	c := &census{p: p, full: p.NewEngine(1), every: 1, mark: beginning, keys: make([]keyCensus, len(p.keys))}
	for int64(c.every)*fold < rows {
		c.every *= 2
	}
	for k := range c.keys {
		c.keys[k] = keyCensus{light: newShadow(p, k), heavy: newShadow(p, k), apart: map[uint64]bool{}}
	}
	return c
}

// newShadow makes an engine of the groups of key k.
func newShadow(p *Plan, k int) shadow {
	q := *p
	s := shadow{table: slab.New(0, "")}
	q.groups, q.direct, q.last, q.lastIn, q.lastOut = nil, nil, nil, nil, nil
	for i, g := range p.groups {
		if g.key == k {
			q.groups = append(q.groups, g)
			s.groups = append(s.groups, i)
		}
	}
	s.e = q.NewEngine(1)
	s.e.st.keys[k] = newKeyTable(&q.keys[k], s.table)
	s.e.st.lives[k].reach = p.reach(k) // as keys that name it hold it
	for g := range q.groups {
		a := slab.New(0, "")
		s.arenas = append(s.arenas, a)
		s.e.st.groups[g] = newGroupState(q.groups[g], a)
	}
	s.e.bindReaders()
	if p.event < 0 {
		s.e.withoutState()
	}
	return s
}

func (s *shadow) close() {
	s.e.close()
	s.table.Close()
	for _, a := range s.arenas {
		a.Close()
	}
}

// predict folds a data set's rows for the prediction.
func (b *backfill) predict(ctx context.Context, fold int64, progress func(done int64)) (*Prediction, error) {
	m := b.In.Manifest()
	c := newCensus(b.plan, m.Rows, fold)
	defer c.close()
	o := datasets.ReadOptions{Columns: b.columns, Threads: runtime.GOMAXPROCS(0), Reuse: true}
	if c.every > 1 {
		if err := c.look(ctx, b.In, o); err != nil {
			return nil, err
		}
	}
	if err := b.In.Read(ctx, o, func(in *datasets.Batch) error {
		err := c.add(in)
		progress(c.rows)
		return err
	}); err != nil {
		return nil, err
	}
	return c.result(), nil
}

func (c *census) close() {
	c.full.a.Close()
	for k := range c.keys {
		c.keys[k].light.close()
		c.keys[k].heavy.close()
	}
}

// errLooked ends the look at the first rows.
type errLooked struct{}

func (errLooked) Error() string { return "enough rows were looked at" }

// look finds the keys that have many of the first rows.
func (c *census) look(ctx context.Context, in *datasets.Dataset, o datasets.ReadOptions) error {
	counts := make([]map[uint64]int, len(c.keys))
	for k := range counts {
		counts[k] = map[uint64]int{}
	}
	rows := 0
	err := in.Read(ctx, o, func(b *datasets.Batch) error {
		c.full.columns(b)
		for k := range c.keys {
			c.hash(k, b.N)
			for _, h := range c.hashes {
				counts[k][h]++
			}
		}
		if rows += b.N; rows >= censusLook {
			return errLooked{}
		}
		return nil
	})
	if _, ok := err.(errLooked); err != nil && !ok {
		return err
	}
	for k := range counts {
		for h, n := range counts[k] {
			if n*censusHeavy >= rows && h != noHash {
				c.keys[k].apart[h] = true
			}
		}
	}
	return nil
}

// noHash is the hash of a row without the key.
const noHash = math.MaxUint64

// hash gives each row's hash of key k.
func (c *census) hash(k, n int) {
	c.hashes = append(c.hashes[:0], make([]uint64, n)...)
	c.mixKey(k)
	for i, h := range c.hashes {
		if h != noHash {
			c.hashes[i] = hashPosition(h) >> 1 // never noHash
		}
	}
}

// mixKey puts the values of a key's columns into the hashes.
func (c *census) mixKey(k int) {
	kp := &c.p.keys[k]
	if kp.col < 0 {
		c.mixKey(kp.left)
		c.mixKey(kp.right)
		return
	}
	col := &c.full.sc.cols[kp.col]
	for i := range c.hashes {
		switch {
		case c.hashes[i] == noHash || col.IsNull(i):
			c.hashes[i] = noHash
		case col.Strings != nil:
			c.hashes[i] = hashPosition(c.hashes[i]+uint64(textHash(col.Strings[i]))) >> 1
		default:
			c.hashes[i] = hashPosition(c.hashes[i]+uint64(col.Ints[i])) >> 1
		}
	}
}

// textHash is FNV-1a of a text.
func textHash(s string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 0x100000001b3
	}
	return h
}

// add folds a batch's rows of the keys that are counted.
func (c *census) add(in *datasets.Batch) error {
	c.full.columns(in)
	for k := range c.keys {
		q := &c.keys[k]
		c.hash(k, in.N)
		q.light.rows, q.heavy.rows = q.light.rows[:0], q.heavy.rows[:0]
		for i, h := range c.hashes {
			switch {
			case c.p.event >= 0 && in.Columns[c.p.event].Strings[i] != datasets.EventTransaction:
				q.light.rows, q.heavy.rows = append(q.light.rows, int32(i)), append(q.heavy.rows, int32(i))
			case h == noHash:
			case q.apart[h]:
				q.heavy.rows = append(q.heavy.rows, int32(i))
			case h%c.every == 0:
				q.light.rows = append(q.light.rows, int32(i))
			}
		}
		for _, s := range []*shadow{&q.light, &q.heavy} {
			if err := s.fold(in); err != nil {
				return err
			}
		}
	}
	c.record(in)
	c.rows += int64(in.N)
	return nil
}

func (s *shadow) fold(in *datasets.Batch) error {
	switch len(s.rows) {
	case 0:
		return nil
	case in.N:
		return s.e.Process(in, &s.out)
	}
	return s.e.Process(rowsAt(in, s.rows), &s.out)
}

// record follows how many recent events would be held, as records do it.
func (c *census) record(in *datasets.Batch) {
	at := &in.Columns[c.p.time]
	for i, t := range at.Ints {
		if at.IsNull(i) {
			t = c.mark
		}
		c.mark = max(c.mark, t)
		c.time = append(c.time, t)
	}
	for c.gone < len(c.time) && c.time[c.gone]+c.p.retain <= c.p.horizonAt(c.mark) {
		c.gone++
	}
	c.held = max(c.held, len(c.time)-c.gone)
	if c.gone >= recordPage && c.gone*2 > len(c.time) {
		c.time = c.time[:copy(c.time, c.time[c.gone:])]
		c.gone = 0
	}
}

func (c *census) result() *Prediction {
	r := &Prediction{Rows: c.rows, Share: 1 / float64(c.every), Groups: make([]int64, len(c.p.groups)),
		Keys: []KeyPrediction{}}
	every := int64(c.every)
	var used, lightUsed, lightFree, heavyFree int64
	measure := func(light, heavy *slab.Arena) int64 {
		l, h := light.Bytes(), heavy.Bytes()
		lightUsed += every * l
		lightFree = max(lightFree, every*(light.Cut()-l))
		heavyFree = max(heavyFree, heavy.Cut()-h)
		used += every*l + h
		return every*l + h
	}
	for k := range c.keys {
		q := &c.keys[k]
		r.Keys = append(r.Keys, KeyPrediction{
			Columns:  c.p.keyNames(k),
			Distinct: every*int64(q.light.e.st.keys[k].cap()) + int64(q.heavy.e.st.keys[k].cap()),
			Bytes:    measure(q.light.table, q.heavy.table),
		})
		for i, g := range q.light.groups {
			r.Groups[g] = measure(q.light.arenas[i], q.heavy.arenas[i])
		}
	}
	// A ring that grows leaves its old block behind, for another to use: of another key, or in a run, where the groups
	// share an arena, of another group. So what is left of the worst group is counted, not of all. The blocks of heavy keys
	// are large and are cut up for the many small ones of the others, as far as these need memory.
	r.Free = max(lightFree, heavyFree-lightUsed)
	r.State = used + r.Free
	r.Records = c.p.recordBytes(c.held)
	return r
}

// recordBytes is about the memory of so many recent events.
func (p *Plan) recordBytes(events int) int64 {
	pages := int64(events/recordPage + 2)
	width := int64(recWords + (len(p.labelled)+1)/2)
	bytes := pages * 8 * int64(slab.ClassWords(int(recordPage*width)))
	if p.idText { // else there is no index before it is asked for
		bytes += slab.TextsBytes(events, idBytes) + pages*8<<intsBits
	}
	return bytes
}

// idBytes is the length of a trans_id that is text, as far as memory is predicted: of a UUID.
const idBytes = 36

// keyNames are the columns of key k.
func (p *Plan) keyNames(k int) []string {
	if kp := &p.keys[k]; kp.col < 0 {
		return append(p.keyNames(kp.left), p.keyNames(kp.right)...)
	}
	return []string{p.keys[k].name}
}
