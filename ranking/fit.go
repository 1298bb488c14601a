package ranking

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/optimize"
)

// Examples are what users bought in a span of time beside what else they might have bought, as a model of kind blend
// sees it at the start of the span. FitBlend learns from them.
type Examples struct {
	components []string
	facts      []float32 // item after item, of the span's start
	start      []int     // by user: the first row; one more at the end
	item       []int32
	comp       []float32 // row after row, a number for each component
	own        []int32   // by row: row in ownFacts, -1 for an item new to the user
	ownFacts   []float32
	bought     []bool
	// weight corrects for items left out: log of how many each stands for.
	weight []float32
}

const (
	// hardest items by each component are always among the examples, and so are those bought in the span or before.
	hardest = 60
	// others is how many of the rest a user's examples have, drawn at random.
	others = 300
	// maxLearners is how many users a span gives at most, drawn at random.
	maxLearners = 1500
	sampleSite  = 0x5a3b // in the random numbers, apart from those of ALS
	userSample  = 0x5a3c
)

// weighable tells what a Blend of these parts can weigh.
func weighable(p Parts, users bool) []string {
	have := []bool{p.EASE != nil, p.ALS != nil, p.KNN != nil, users, users, p.Embedding != nil}
	var list []string
	for c, name := range components {
		if have[c] {
			list = append(list, name)
		}
	}
	return list
}

// NewExamples looks, as of the instant now, at what the users of the log l bought in later, which begins then. Of
// parts, a blend will weigh those that are there; with alike, also the users who buy most alike. The same seed gives
// the same examples.
func NewExamples(ctx context.Context, l *Log, now int64, later *Log, parts Parts, alike bool, seed uint64,
	threads int) (*Examples, error) {
	if later.Users != l.Users || later.Items != l.Items {
		return nil, fmt.Errorf("ranking: a log of %d users and %d items and a later one of %d and %d", l.Users, l.Items,
			later.Users, later.Items)
	}
	names := weighable(parts, alike)
	parts.Blend = &Blend{Components: names, Facts: facts, OwnFacts: ownFacts,
		New: make([]float32, len(facts)+len(names)), Bought: make([]float32, len(facts)+len(names)+len(ownFacts))}
	m, err := NewModel(Blended, l, now, parts)
	if err != nil {
		return nil, err
	}
	bought := truth(later)
	var users []int32
	for u := range bought {
		if len(bought[u]) > 0 && len(m.own[u]) > 0 {
			users = append(users, int32(u))
		}
	}
	users = draw(users, maxLearners, seed, userSample, 0)
	slices.Sort(users)
	parts1 := make([]*Examples, len(users))
	fails := make([]error, len(users))
	unsold := m.Unsold()
	parallel(threads, len(users), func() func(int) {
		w := &sampler{m: m, s: m.NewScorer(), unsold: unsold, chosen: NewBitmap(m.items), want: NewBitmap(m.items),
			seed: seed}
		return func(i int) {
			if ctx.Err() == nil {
				parts1[i], fails[i] = w.user(users[i], bought[users[i]])
			}
		}
	})
	if err := errors.Join(append(fails, context.Cause(ctx))...); err != nil {
		return nil, err
	}
	all := &Examples{components: names, facts: m.pop.value, start: []int{0}}
	for _, p := range parts1 {
		if p == nil {
			continue
		}
		for _, o := range p.own {
			if o >= 0 {
				o += int32(len(all.ownFacts) / len(ownFacts))
			}
			all.own = append(all.own, o)
		}
		all.item, all.comp = append(all.item, p.item...), append(all.comp, p.comp...)
		all.ownFacts = append(all.ownFacts, p.ownFacts...)
		all.bought, all.weight = append(all.bought, p.bought...), append(all.weight, p.weight...)
		all.start = append(all.start, len(all.item))
	}
	return all, nil
}

// Users is how many users gave examples.
func (e *Examples) Users() int { return len(e.start) - 1 }

// draw takes n of a list by the random numbers of their values.
func draw(list []int32, n int, seed uint64, site uint32, row uint64) []int32 {
	if len(list) <= n {
		return list
	}
	type ticket struct {
		v int32
		r uint64
	}
	tickets := make([]ticket, len(list))
	for i, v := range list {
		p := philox(seed, site, row, uint32(v))
		tickets[i] = ticket{v, uint64(p[0])<<32 | uint64(p[1])}
	}
	slices.SortFunc(tickets, func(a, b ticket) int {
		switch {
		case a.r < b.r:
			return -1
		case a.r > b.r:
			return 1
		}
		return int(a.v) - int(b.v)
	})
	out := make([]int32, n)
	for i := range out {
		out[i] = tickets[i].v
	}
	return out
}

type sampler struct {
	m            *Model
	s            *Scorer
	unsold       Bitmap
	chosen, want Bitmap
	list         []Scored
	rest         []int32
	popular      []float32
	seed         uint64
}

// user makes the examples of one user, nil where nothing was bought that could have been offered.
func (w *sampler) user(u int32, bought []int32) (*Examples, error) {
	m, s := w.m, w.s
	if _, err := s.Scores(u, m.own[u]); err != nil {
		return nil, err
	}
	e := &Examples{}
	copy(w.chosen, w.unsold)
	clear(w.want)
	any := false
	for _, i := range bought {
		if !w.unsold.Has(i) {
			w.want.Set(i)
			any = true
		}
	}
	if !any {
		return nil, nil
	}
	add := func(i int32, weight float32) {
		if w.chosen.Has(i) {
			return
		}
		w.chosen.Set(i)
		e.item, e.bought, e.weight = append(e.item, i), append(e.bought, w.want.Has(i)), append(e.weight, weight)
		for _, c := range m.comp {
			e.comp = append(e.comp, s.scaled[c][i])
		}
		if at := s.past.slot[i]; at > 0 {
			e.own = append(e.own, int32(len(e.ownFacts)/len(ownFacts)))
			e.ownFacts = append(e.ownFacts, make([]float32, len(ownFacts))...)
			s.past.facts(e.ownFacts[len(e.ownFacts)-len(ownFacts):], &s.past.items[at-1], m.now)
		} else {
			e.own = append(e.own, -1)
		}
	}
	for i := range s.past.items {
		add(s.past.items[i].item, 0)
	}
	for _, i := range bought {
		add(i, 0)
	}
	if w.popular == nil {
		for i := range m.items {
			w.popular = append(w.popular, float32(m.pop.month[i]))
		}
	}
	w.list = best(w.list, w.popular, hardest, w.unsold)
	for _, x := range w.list {
		add(x.Item, 0)
	}
	for _, c := range m.comp {
		w.list = best(w.list, s.scaled[c], hardest, w.chosen)
		for _, x := range w.list {
			add(x.Item, 0)
		}
	}
	w.rest = w.rest[:0]
	for i := range m.items {
		if !w.chosen.Has(int32(i)) {
			w.rest = append(w.rest, int32(i))
		}
	}
	drawn := draw(w.rest, others, w.seed, sampleSite, uint64(u))
	weight := float32(math.Log(float64(len(w.rest)) / float64(max(1, len(drawn)))))
	for _, i := range drawn {
		add(i, weight)
	}
	e.start = []int{0, len(e.item)}
	return e, nil
}

// FitOptions are the settings of FitBlend; zero values mean the defaults.
type FitOptions struct {
	// Penalty is twice the factor of the squares of the weights, each in units of its fact's root mean square, beside
	// the sum of the losses of all users; default 8. So a few users move the weights little. On the months of Online Retail
	// from July to September 2011, 2 and 23 came to the same.
	Penalty float64
	// NewShare is how much of the loss is about items new to the user, ranked among themselves; default 0.5.
	NewShare   float64
	Iterations int // default 100
	Threads    int
}

// FitBlend finds the weights by which what users bought ranks before what they did not: the mean over users of a
// softmax cross-entropy (ListNet in kind, Cao et al. 2007) of what was bought among all examples and, as the other
// part of the loss, of what was bought for the first time among the items new to the user. It is convex; L-BFGS
// finds its minimum. Examples must be of the same components.
func FitBlend(ctx context.Context, sets []*Examples, o FitOptions) (*Blend, error) {
	if o.Penalty == 0 {
		o.Penalty = 8
	}
	if o.NewShare == 0 {
		o.NewShare = .5
	}
	if o.Iterations == 0 {
		o.Iterations = 100
	}
	if !(o.Penalty > 0) || !(o.NewShare >= 0 && o.NewShare <= 1) || o.Iterations < 0 {
		return nil, fmt.Errorf("ranking: fit a blend with penalty %v, a share of new items of %v and %d iterations: want above 0, 0 to 1, above 0",
			o.Penalty, o.NewShare, o.Iterations)
	}
	users := 0
	for _, e := range sets {
		if !slices.Equal(e.components, sets[0].components) {
			return nil, fmt.Errorf("ranking: examples of %v and of %v cannot be fitted together", sets[0].components,
				e.components)
		}
		users += e.Users()
	}
	if users == 0 {
		return nil, fmt.Errorf("ranking: no user of the training bought anything in the span that the blend is fitted on: give a longer range, or take another model than blend")
	}
	f := newFit(sets, users, o)
	var stop error
	problem := optimize.Problem{
		Func: func(w []float64) float64 { return f.at(w) },
		Grad: func(grad, w []float64) { f.at(w); copy(grad, f.grad) },
		Status: func() (optimize.Status, error) {
			if stop = context.Cause(ctx); stop != nil {
				return optimize.Failure, stop
			}
			return optimize.NotTerminated, nil
		},
	}
	r, err := optimize.Minimize(problem, make([]float64, f.width()), &optimize.Settings{
		MajorIterations: o.Iterations, GradientThreshold: 1e-5,
		Converger: &optimize.FunctionConverge{Relative: 1e-7, Iterations: 5},
	}, &optimize.LBFGS{Store: 10})
	switch {
	case stop != nil:
		return nil, stop
	case r == nil:
		return nil, fmt.Errorf("ranking: fit a blend: %w", err)
	case err != nil && !(r.F < f.atZero):
		return nil, fmt.Errorf("ranking: fit a blend: %w", err)
	}
	return f.blend(r.X)
}

// fit is the loss and its gradient.
type fit struct {
	o     FitOptions
	sets  []*Examples
	users int
	nf    int // facts
	nc    int // components
	no    int
	scale []float64 // by weight: its fact's root mean square

	w, grad []float64
	last    []float64 // weights that grad and value are of
	value   float64
	atZero  float64

	newBase, ownBase [][]float64 // by set and item
	slopes           [][]float64 // by set and row: d loss / d score
}

func newFit(sets []*Examples, users int, o FitOptions) *fit {
	f := &fit{o: o, sets: sets, users: users, nf: len(facts), nc: len(sets[0].components), no: len(ownFacts)}
	f.scale = make([]float64, f.width())
	var fresh, bought float64
	for _, e := range sets {
		f.newBase = append(f.newBase, make([]float64, len(e.facts)/f.nf))
		f.ownBase = append(f.ownBase, make([]float64, len(e.facts)/f.nf))
		f.slopes = append(f.slopes, make([]float64, len(e.item)))
		for r, item := range e.item {
			at := 0
			if e.own[r] >= 0 {
				at = f.nf + f.nc
				bought++
				for k, v := range e.ownFacts[int(e.own[r])*f.no:][:f.no] {
					f.scale[2*(f.nf+f.nc)+k] += float64(v) * float64(v)
				}
			} else {
				fresh++
			}
			for k, v := range e.facts[int(item)*f.nf:][:f.nf] {
				f.scale[at+k] += float64(v) * float64(v)
			}
			for k, v := range e.comp[r*f.nc:][:f.nc] {
				f.scale[at+f.nf+k] += float64(v) * float64(v)
			}
		}
	}
	for k, s := range f.scale {
		// Over all rows, in which a fact of bought items is 0 for the others: as if all were columns of one table.
		s = math.Sqrt(s / (fresh + bought))
		if s == 0 {
			s = 1 // a fact that never differs from 0 keeps the weight 0
		}
		f.scale[k] = s
	}
	f.w, f.grad = make([]float64, f.width()), make([]float64, f.width())
	f.atZero = f.at(make([]float64, f.width()))
	return f
}

// width is the number of weights: facts and components of new items, the same of bought ones, own facts.
func (f *fit) width() int { return 2*(f.nf+f.nc) + f.no }

// at computes loss and gradient at weights in units of scale.
func (f *fit) at(x []float64) float64 {
	if f.last != nil && slices.Equal(f.last, x) {
		return f.value
	}
	f.last = append(f.last[:0], x...)
	for k, v := range x {
		f.w[k] = v / f.scale[k]
	}
	loss := 0.0
	clear(f.grad)
	for i := range f.sets {
		loss += f.set(i)
	}
	n := float64(f.users)
	loss /= n
	penalty := f.o.Penalty / n
	for k, v := range x {
		f.grad[k] = f.grad[k]/n/f.scale[k] + penalty*v
		loss += penalty / 2 * v * v
	}
	f.value = loss
	return loss
}

// fitChunk is the users whose sums are one: large enough for a goroutine, and the same for any number of them.
const fitChunk = 64

// set adds one set's part of the gradient and returns its loss.
func (f *fit) set(i int) float64 {
	e := f.sets[i]
	half := f.nf + f.nc
	wNew, wOwn, wFacts := f.w[:half], f.w[half:2*half], f.w[2*half:]
	items := len(e.facts) / f.nf
	newBase, ownBase, slopes := f.newBase[i], f.ownBase[i], f.slopes[i]
	parallel(f.o.Threads, (items+255)/256, func() func(int) {
		return func(job int) {
			for j := job * 256; j < min(job*256+256, items); j++ {
				a, b := 0.0, 0.0
				for k, v := range e.facts[j*f.nf:][:f.nf] {
					a += wNew[k] * float64(v)
					b += wOwn[k] * float64(v)
				}
				newBase[j], ownBase[j] = a, b
			}
		}
	})
	chunks := (e.Users() + fitChunk - 1) / fitChunk
	losses := make([]float64, chunks)
	grads := make([][]float64, chunks) // of components and own facts
	parallel(f.o.Threads, chunks, func() func(int) {
		var z, p []float64
		return func(c int) {
			grad := make([]float64, 2*f.nc+f.no)
			for u := c * fitChunk; u < min((c+1)*fitChunk, e.Users()); u++ {
				lo, hi := e.start[u], e.start[u+1]
				z, p = slices.Grow(z[:0], hi-lo)[:hi-lo], slices.Grow(p[:0], hi-lo)[:hi-lo]
				for r := lo; r < hi; r++ {
					comp := e.comp[r*f.nc:][:f.nc]
					s := float64(e.weight[r])
					if own := e.own[r]; own >= 0 {
						s += ownBase[e.item[r]]
						for k, v := range comp {
							s += wOwn[f.nf+k] * float64(v)
						}
						for k, v := range e.ownFacts[int(own)*f.no:][:f.no] {
							s += wFacts[k] * float64(v)
						}
					} else {
						s += newBase[e.item[r]]
						for k, v := range comp {
							s += wNew[f.nf+k] * float64(v)
						}
					}
					z[r-lo] = s
				}
				d := slopes[lo:hi]
				clear(d)
				losses[c] += listLoss(d, z, p, e.bought[lo:hi], nil, 1-f.o.NewShare)
				losses[c] += listLoss(d, z, p, e.bought[lo:hi], e.own[lo:hi], f.o.NewShare)
				for r := lo; r < hi; r++ {
					g := d[r-lo]
					to := grad[:f.nc]
					if own := e.own[r]; own >= 0 {
						to = grad[f.nc:][:f.nc]
						for k, v := range e.ownFacts[int(own)*f.no:][:f.no] {
							grad[2*f.nc+k] += g * float64(v)
						}
					}
					for k, v := range e.comp[r*f.nc:][:f.nc] {
						to[k] += g * float64(v)
					}
				}
			}
			grads[c] = grad
		}
	})
	loss := 0.0
	for c, g := range grads {
		loss += losses[c]
		for k := range f.nc {
			f.grad[f.nf+k] += g[k]
			f.grad[half+f.nf+k] += g[f.nc+k]
		}
		for k := range f.no {
			f.grad[2*half+k] += g[2*f.nc+k]
		}
	}
	// The facts of an item are the same in all rows: their slopes are summed first.
	clear(newBase)
	clear(ownBase)
	for r, item := range e.item {
		if e.own[r] >= 0 {
			ownBase[item] += slopes[r]
		} else {
			newBase[item] += slopes[r]
		}
	}
	for j := range items {
		for k, v := range e.facts[j*f.nf:][:f.nf] {
			f.grad[k] += newBase[j] * float64(v)
			f.grad[half+k] += ownBase[j] * float64(v)
		}
	}
	return loss
}

// listLoss is the cross-entropy of the softmax of z against equal shares for what was bought, times weight; where
// own is given, over the rows with own -1 alone. It adds the slopes to d.
func listLoss(d, z, p []float64, bought []bool, own []int32, weight float64) float64 {
	most, n := math.Inf(-1), 0
	for i, v := range z {
		if own == nil || own[i] < 0 {
			most = max(most, v)
			if bought[i] {
				n++
			}
		}
	}
	if n == 0 || weight == 0 {
		return 0
	}
	sum := 0.0
	for i, v := range z {
		p[i] = 0
		if own == nil || own[i] < 0 {
			p[i] = math.Exp(v - most)
			sum += p[i]
		}
	}
	loss, share := 0.0, weight/float64(n)
	logSum := math.Log(sum) + most
	for i := range z {
		if own != nil && own[i] >= 0 {
			continue
		}
		d[i] += weight * p[i] / sum
		if bought[i] {
			d[i] -= share
			loss += share * (logSum - z[i])
		}
	}
	return loss
}

// blend takes the weights out of their units.
func (f *fit) blend(x []float64) (*Blend, error) {
	b := &Blend{Components: f.sets[0].components, Facts: facts, OwnFacts: ownFacts}
	for k, v := range x {
		w := float32(v / f.scale[k])
		switch {
		case k < f.nf+f.nc:
			b.New = append(b.New, w)
		default:
			b.Bought = append(b.Bought, w)
		}
	}
	return b, b.check()
}
