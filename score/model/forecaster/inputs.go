package forecaster

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/onmart/onmart/forecast"
)

// Scalings of the network's inputs and outputs.
const (
	// Ratio divides a series by its mean demand: for counts with zeros, whose closed steps are taken out first.
	Ratio = "ratio"
	// Shift takes off the mean of the last season and divides by the mean difference of steps a season apart: for
	// series that are never or seldom zero.
	Shift = "shift"
)

// Design fixes what the network is told of a series. It is stored with the model: inputs that are made at another time
// are the same.
type Design struct {
	Step       forecast.Step `json:"step"`
	Scaling    string        `json:"scaling"`
	Seasons    []int         `json:"seasons"`              // in steps, ascending
	Horizon    int           `json:"horizon"`              // steps that were trained on
	Covariates []string      `json:"covariates,omitempty"` // known up to the origin
	Known      []string      `json:"known,omitempty"`      // known in advance
}

// spans are the windows that inputs look back over, in open steps.
type spans struct {
	means []int  // means
	wide  [2]int // quantiles and spread
	last  int    // single values
}

func spansOf(s forecast.Step) spans {
	switch s {
	case forecast.Hour:
		return spans{[]int{3, 6, 12, 24, 48, 168, 336}, [2]int{168, 336}, 24}
	case forecast.Week:
		return spans{[]int{2, 4, 8, 13, 26, 52}, [2]int{26, 52}, 8}
	}
	return spans{[]int{3, 6, 12, 24, 48, 96}, [2]int{48, 96}, 12}
}

var (
	smoothing   = []float64{.03, .1, .2}           // rates of the exponential means
	wideLevels  = []float64{.25, .5, .75, .9, .95} // quantiles of the wide windows
	phaseSpans  = [2]int{8, 16}                    // turns of the season that are averaged
	trendSpans  = [2][2]int{{6, 24}, {12, 48}}     // open steps whose totals are compared
	stepBuckets = 8                                // parts of the horizon
	dayTurns    = 8                                // turns of the first season looked back on by Shift
	weekTurns   = 3                                // and of the longest
	inputLimit  = map[string]float64{Ratio: 8, Shift: 30}
)

// Names lists the inputs in order, those of the series and then those of the step.
func (d *Design) Names() []string {
	return append(d.stateNames(), d.stepNames()...)
}

func (d *Design) stateNames() []string {
	sp := spansOf(d.Step)
	var n []string
	add := func(format string, args ...any) { n = append(n, fmt.Sprintf(format, args...)) }
	for _, k := range sp.means {
		add("mean_%d", k)
	}
	add("mean_all")
	if d.Scaling == Ratio {
		for _, k := range sp.means[1:] {
			add("busy_%d", k)
		}
		add("busy_all")
	}
	for _, a := range smoothing {
		add("smooth_%g", a)
	}
	for _, k := range sp.wide {
		for _, q := range wideLevels {
			add("q%g_%d", q, k)
		}
		add("max_%d", k)
		add("spread_%d", k)
	}
	add("age")
	add("scale")
	if d.Scaling == Ratio {
		add("recency")
		add("size")
		for _, t := range trendSpans {
			add("trend_%d_%d", t[0], t[1])
			add("busy_trend_%d_%d", t[0], t[1])
		}
	} else {
		for j := 1; j <= dayTurns; j++ {
			add("turn_%d", j)
		}
		for _, m := range d.Seasons {
			add("change_%d", m)
		}
	}
	for _, c := range d.Covariates {
		add("%s", c)
		add("%s_change", c)
	}
	for j := 1; j <= sp.last; j++ {
		add("last_%d", j)
	}
	return n
}

func (d *Design) stepNames() []string {
	n := []string{"ahead"}
	add := func(format string, args ...any) { n = append(n, fmt.Sprintf(format, args...)) }
	if d.clock() {
		for w := range 7 {
			add("weekday_%d", w)
		}
		if d.Step == forecast.Hour {
			for h := 1; h <= 2; h++ {
				add("hour_sin_%d", h)
				add("hour_cos_%d", h)
			}
		}
	}
	for _, c := range d.Known {
		add("%s_then", c)
		add("%s_other", c)
	}
	if d.Scaling == Ratio {
		return append(n, "profile", "busy_profile", "phase_mean_8", "phase_mean_16", "phase_1", "phase_2")
	}
	for b := range stepBuckets {
		add("part_%d", b)
	}
	for j := 1; j <= dayTurns; j++ {
		add("phase_%d", j)
	}
	add("phase_1_before")
	add("phase_1_after")
	if m := d.Seasons[len(d.Seasons)-1]; m > d.Seasons[0] {
		for j := 1; j <= weekTurns; j++ {
			add("long_%d", j)
			add("long_%d_before", j)
			add("long_%d_after", j)
			add("long_%d_mean", j)
		}
	}
	return n
}

// clock tells whether the time of a step says something: series that are scaled by Shift may have times that mean
// nothing, as those of M4.
func (d *Design) clock() bool { return d.Scaling == Ratio && d.Step != forecast.Week }

// check reports a design that inputs cannot be made of.
func (d *Design) check() error {
	switch {
	case d.Step < forecast.Hour || d.Step > forecast.Week:
		return fmt.Errorf("the step %v is not known", d.Step)
	case d.Scaling != Ratio && d.Scaling != Shift:
		return fmt.Errorf("the scaling %q is not known", d.Scaling)
	case d.Horizon < 1 || d.Horizon > MaxHorizon:
		return fmt.Errorf("a horizon of %d steps: want 1 to %d", d.Horizon, MaxHorizon)
	case len(d.Seasons) == 0:
		return fmt.Errorf("no season")
	}
	for i, m := range d.Seasons {
		if m < 1 || m > maxSeason || i > 0 && m <= d.Seasons[i-1] {
			return fmt.Errorf("the seasons %v: want ascending lengths from 1 to %d", d.Seasons, maxSeason)
		}
	}
	return nil
}

const (
	// MaxHorizon bounds what is asked for at once.
	MaxHorizon = 5000
	maxSeason  = 10_000
)

// View is a panel as inputs are made of it. It is safe for concurrent use once made.
type View struct {
	d       *Design
	p       *forecast.Panel
	closed  *forecast.Closed
	cov     []int     // places of the design's covariates in the panel's, -1 for one that it lacks
	known   []int     // and of those that are known in advance
	open    []int     // indices of the steps that were open
	before  []int     // by step: open steps before it; one more than there are steps
	phase   []int     // by open step: of the first season
	phases  [][]int32 // by phase: places in open
	total   []float64 // by open step: sum over the series, summed from the first on
	busy    []float64 // and series that sold something
	dayOf   []int     // by step of the panel: weekday, Monday 0
	hourOf  []int
	nPhases int
}

// NewView prepares a panel. closed are the steps on which nothing is sold.
func (d *Design) NewView(p *forecast.Panel, closed *forecast.Closed) *View {
	v := &View{d: d, p: p, closed: closed, nPhases: d.Seasons[0]}
	place := func(name string) int {
		return slices.IndexFunc(p.Covariates, func(c forecast.Covariate) bool { return c.Name == name })
	}
	for _, name := range d.Covariates {
		v.cov = append(v.cov, place(name))
	}
	for _, name := range d.Known {
		v.known = append(v.known, place(name))
	}
	n := len(p.Times)
	v.before, v.dayOf, v.hourOf = make([]int, n+1), make([]int, n), make([]int, n)
	v.phases = make([][]int32, v.nPhases)
	for i, t := range p.Times {
		v.dayOf[i], v.hourOf[i] = v.clockOf(t)
		if d.Scaling == Shift || !closed.At(t) {
			ph := v.phaseAt(i)
			v.phases[ph] = append(v.phases[ph], int32(len(v.open)))
			v.open, v.phase = append(v.open, i), append(v.phase, ph)
		}
		v.before[i+1] = len(v.open)
	}
	if d.Scaling == Ratio {
		v.sums()
	}
	return v
}

func (v *View) sums() {
	v.total, v.busy = make([]float64, len(v.open)+1), make([]float64, len(v.open)+1)
	for i := range v.p.Series {
		s := &v.p.Series[i]
		for j := v.before[s.First]; j < len(v.open); j++ {
			if y := s.Y[v.open[j]-s.First]; y != 0 {
				v.total[j+1] += y
				v.busy[j+1]++
			}
		}
	}
	for j := range v.open {
		v.total[j+1] += v.total[j]
		v.busy[j+1] += v.busy[j]
	}
}

func (v *View) clockOf(t int64) (weekday, hour int) {
	zone := v.p.Zone
	if zone == nil {
		zone = time.UTC
	}
	at := time.UnixMicro(t).In(zone)
	return (int(at.Weekday()) + 6) % 7, at.Hour()
}

// phaseAt is the phase of the first season at a step: by the clock where the season is the clock's.
func (v *View) phaseAt(i int) int {
	if i < len(v.p.Times) {
		return v.phaseOf(i, v.dayOf[i], v.hourOf[i])
	}
	return i % v.nPhases
}

func (v *View) phaseOf(i, weekday, hour int) int {
	switch {
	case v.d.Scaling == Shift:
	case v.d.Step == forecast.Day && v.nPhases == 7:
		return weekday
	case v.d.Step == forecast.Hour && v.nPhases == 24:
		return hour
	}
	return i % v.nPhases
}

// Origin is what the inputs of one origin have in common: the first Known steps of the panel are known.
type Origin struct {
	v       *View
	known   int
	open    int // open steps known
	profile []float64
	busy    []float64
	trends  []float64
	ahead   []stepAhead
}

// stepAhead is a step after an origin.
type stepAhead struct {
	index, phase, weekday, hour int
	open                        bool
}

// At prepares the origin after the first known steps, for a horizon. Steps after the panel's end are those that its
// clock goes on with.
func (v *View) At(known, horizon int) *Origin {
	o := &Origin{v: v, known: known, open: v.before[known], ahead: make([]stepAhead, horizon)}
	var future []int64
	if n := known + horizon - len(v.p.Times); n > 0 {
		future = v.p.Future(n)
	}
	for k := range o.ahead {
		i := known + k
		s := stepAhead{index: i}
		var t int64
		if i < len(v.p.Times) {
			t, s.weekday, s.hour = v.p.Times[i], v.dayOf[i], v.hourOf[i]
		} else {
			t = future[i-len(v.p.Times)]
			s.weekday, s.hour = v.clockOf(t)
		}
		s.phase, s.open = v.phaseOf(i, s.weekday, s.hour), !v.closed.At(t)
		o.ahead[k] = s
	}
	if v.d.Scaling == Ratio {
		o.panelState()
	}
	return o
}

// Open tells whether something is sold at the k-th step ahead, counted from 0.
func (o *Origin) Open(k int) bool { return o.ahead[k].open }

// panelState is what the panel as a whole did: how the phases of the season share the demand, and where it goes.
func (o *Origin) panelState() {
	v, wide := o.v, spansOf(o.v.d.Step).wide[1]
	from := max(0, o.open-wide)
	n := float64(o.open - from)
	o.profile, o.busy = make([]float64, v.nPhases), make([]float64, v.nPhases)
	count := make([]float64, v.nPhases)
	for j := from; j < o.open; j++ {
		o.profile[v.phase[j]] += v.total[j+1] - v.total[j]
		o.busy[v.phase[j]] += v.busy[j+1] - v.busy[j]
		count[v.phase[j]]++
	}
	total, busy := v.total[o.open]-v.total[from], v.busy[o.open]-v.busy[from]
	for ph := range count {
		o.profile[ph] = share(o.profile[ph]/count[ph], total/n)
		o.busy[ph] = share(o.busy[ph]/count[ph], busy/n)
	}
	ratio := func(sum []float64, short, long int) float64 {
		short, long = min(short, o.open), min(long, o.open)
		a := (sum[o.open] - sum[o.open-short]) / float64(short)
		b := (sum[o.open] - sum[o.open-long]) / float64(long)
		return share(a, b)
	}
	for _, t := range trendSpans {
		o.trends = append(o.trends, ratio(v.total, t[0], t[1]), ratio(v.busy, t[0], t[1]))
	}
}

// share is the logarithm of a/b, held to two orders of magnitude; 0 where it is not defined.
func share(a, b float64) float64 {
	if !(b > 0) || math.IsNaN(a) {
		return 0
	}
	return math.Log(math.Min(a/b, 100) + .05)
}

// Writer makes inputs of series at an origin. It is for one goroutine.
type Writer struct {
	o      *Origin
	width  int
	state  []float32
	sorted []float64
	z      []float64 // open steps of the series, as they are
	level  float64
	scale  float64
	first  int // open step that the series begins with
	series *forecast.Series
}

// Writer is for the series of the origin, one after the other.
func (o *Origin) Writer() *Writer { return &Writer{o: o, width: len(o.v.d.Names())} }

// Width is the number of inputs.
func (w *Writer) Width() int { return w.width }

// Begin takes a series of the panel that has begun, and tells what the network's outputs are in: demand is
// level + scale x output.
func (w *Writer) Begin(series int) (level, scale float64) {
	v := w.o.v
	w.series = &v.p.Series[series]
	w.first = min(v.before[min(w.series.First, w.o.known)], w.o.open)
	w.z = w.z[:0]
	for j := w.first; j < w.o.open; j++ {
		w.z = append(w.z, w.series.Y[v.open[j]-w.series.First])
	}
	if len(w.z) == 0 {
		w.z = append(w.z, 0) // it lies in closed steps as a whole
	}
	w.state = w.state[:0]
	if v.d.Scaling == Ratio {
		w.ratioScale()
	} else {
		w.shiftScale()
	}
	w.writeState()
	return w.level, w.scale
}

// meanOf is the mean of the last k open steps, fewer where the series is younger.
func (w *Writer) meanOf(k int, f func(float64) float64) float64 {
	z := w.z[max(0, len(w.z)-k):]
	var sum float64
	for _, y := range z {
		sum += f(y)
	}
	return sum / float64(len(z))
}

func same(y float64) float64 { return y }

func nonzero(y float64) float64 {
	if y != 0 {
		return 1
	}
	return 0
}

// Weights of the scale of Ratio: mostly the wide window, a little of the whole history so that a pause is no end, and
// at least a fiftieth of a usual sale.
const (
	recentShare = .75
	leastSale   = .02
)

func (w *Writer) ratioScale() {
	wide := spansOf(w.o.v.d.Step).wide[0]
	all := w.meanOf(len(w.z), same)
	w.level = 0
	w.scale = recentShare*w.meanOf(wide, same) + (1-recentShare)*all
	if b := w.meanOf(len(w.z), nonzero); b > 0 {
		w.scale = math.Max(w.scale, leastSale*all/b)
	}
	if !(w.scale > 0) {
		w.scale = 1 // nothing was ever sold, or as much came back
	}
}

// Floors of the scale of Shift: a share of the spread of the longest season, and of the level.
const (
	leastSpread = .05
	leastLevel  = 1e-3
	shiftTurns  = 14 // turns of the first season that differences are averaged over
)

func (w *Writer) shiftScale() {
	d := w.o.v.d
	m, long := d.Seasons[0], d.Seasons[len(d.Seasons)-1]
	w.level = w.meanOf(m, same)
	z := w.z[max(0, len(w.z)-m*(shiftTurns+1)):]
	var sum, n float64
	for t := m; t < len(z); t++ {
		sum += math.Abs(z[t] - z[t-m])
		n++
	}
	w.scale = 0
	if n > 0 {
		w.scale = sum / n
	}
	mean := w.meanOf(2*long, same)
	spread := w.meanOf(2*long, func(y float64) float64 { return math.Abs(y - mean) })
	w.scale = math.Max(w.scale, math.Max(leastSpread*spread, leastLevel*math.Abs(w.level)))
	if !(w.scale > 1e-9) {
		w.scale = 1
	}
}

// put appends an input, compressed where series have heavy tails, and held to what the network was trained on.
func (w *Writer) put(x float64) {
	d := w.o.v.d
	if d.Scaling == Ratio {
		x = math.Copysign(math.Log1p(math.Abs(x)), x)
	}
	limit := inputLimit[d.Scaling]
	if math.IsNaN(x) {
		x = 0
	}
	w.state = append(w.state, float32(math.Max(-limit, math.Min(limit, x))))
}

func (w *Writer) unit(y float64) float64 { return (y - w.level) / w.scale }

func (w *Writer) writeState() {
	d, sp := w.o.v.d, spansOf(w.o.v.d.Step)
	for _, k := range sp.means {
		w.put(w.unit(w.meanOf(k, same)))
	}
	all := w.meanOf(len(w.z), same)
	w.put(w.unit(all))
	if d.Scaling == Ratio {
		for _, k := range sp.means[1:] {
			w.put(w.meanOf(k, nonzero))
		}
		w.put(w.meanOf(len(w.z), nonzero))
	}
	for _, a := range smoothing {
		e := all
		for _, y := range w.z[max(0, len(w.z)-int(5/a)):] {
			e += a * (y - e)
		}
		w.put(w.unit(e))
	}
	for _, k := range sp.wide {
		w.writeWide(w.z[max(0, len(w.z)-k):])
	}
	w.put(math.Log(float64(len(w.z))))
	if d.Scaling == Ratio {
		w.writeRatio(all)
	} else {
		w.writeShift()
	}
	w.writeCovariates()
	for j := 1; j <= sp.last; j++ {
		w.put(w.unit(w.z[max(0, len(w.z)-j)]) * here(len(w.z) >= j))
	}
}

func here(ok bool) float64 {
	if ok {
		return 1
	}
	return 0
}

func (w *Writer) writeWide(z []float64) {
	w.sorted = append(w.sorted[:0], z...)
	slices.Sort(w.sorted)
	for _, q := range wideLevels {
		w.put(w.unit(quantile(w.sorted, q)))
	}
	w.put(w.unit(w.sorted[len(w.sorted)-1]))
	var sum, squares float64
	for _, y := range z {
		sum += y
	}
	mean := sum / float64(len(z))
	for _, y := range z {
		squares += (y - mean) * (y - mean)
	}
	w.put(math.Sqrt(squares/float64(len(z))) / w.scale)
}

// quantile interpolates between the sorted values (type 7 of Hyndman and Fan 1996).
func quantile(sorted []float64, q float64) float64 {
	at := q * float64(len(sorted)-1)
	i := int(at)
	if i+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[i] + (at-float64(i))*(sorted[i+1]-sorted[i])
}

func (w *Writer) writeRatio(all float64) {
	w.put(math.Log(w.scale))
	gap := 0
	for gap < len(w.z) && w.z[len(w.z)-1-gap] == 0 {
		gap++
	}
	w.put(math.Log1p(float64(gap)))
	size := 0.
	if b := w.meanOf(len(w.z), nonzero); b > 0 {
		size = math.Log(math.Max(all/b, .1))
	}
	w.put(size)
	for _, t := range w.o.trends {
		w.put(t)
	}
}

func (w *Writer) writeShift() {
	d := w.o.v.d
	w.put(math.Log(w.scale/(math.Abs(w.level)+1e-9) + 1e-6))
	m, n := d.Seasons[0], len(w.z)
	for j := 1; j <= dayTurns; j++ {
		from, to := n-j*m, n-(j-1)*m
		if from < 0 {
			w.put(0)
			continue
		}
		var sum float64
		for _, y := range w.z[from:to] {
			sum += y
		}
		w.put(w.unit(sum / float64(m)))
	}
	for _, m := range d.Seasons {
		var sum float64
		if n >= 2*m {
			for t := n - m; t < n; t++ {
				sum += math.Abs(w.z[t] - w.z[t-m])
			}
		}
		w.put(sum / float64(m) / w.scale)
	}
}

// covariateSpan is how many steps before a covariate is compared with.
const covariateSpan = 28

func (w *Writer) writeCovariates() {
	at := w.o.known - 1 - w.series.First
	for _, c := range w.o.v.cov {
		if c < 0 || c >= len(w.series.X) || at < 0 {
			w.put(0)
			w.put(0)
			continue
		}
		x := w.series.X[c]
		now, then := x[at], x[max(0, at-covariateSpan)]
		w.put(math.Log(math.Max(now, .01)))
		change := 0.
		if now > 0 && then > 0 {
			change = math.Max(-1, math.Min(1, math.Log(now/then)))
		}
		w.put(change)
	}
}

// Row writes the inputs of the k-th step ahead, counted from 0, for the series that Begin took.
func (w *Writer) Row(k int, dst []float32) {
	n := len(w.state)
	w.writeStep(k)
	copy(dst, w.state)
	w.state = w.state[:n]
}

func (w *Writer) writeStep(k int) {
	d, s := w.o.v.d, w.o.ahead[k]
	w.put(math.Min(1, float64(k)/float64(d.Horizon)))
	if d.clock() {
		for day := range 7 {
			w.put(here(s.weekday == day))
		}
		if d.Step == forecast.Hour {
			for h := 1; h <= 2; h++ {
				sin, cos := math.Sincos(2 * math.Pi * float64(h*s.hour) / 24)
				w.put(sin)
				w.put(cos)
			}
		}
	}
	w.writeKnown(s)
	if d.Scaling == Ratio {
		w.writeRatioStep(s)
	} else {
		w.writeShiftStep(k, s)
	}
}

// writeKnown writes what is known of the step: the value, and how it differs from what it was of late. A value that is
// not known after all is taken to stay as it was last.
func (w *Writer) writeKnown(s stepAhead) {
	at, last := s.index-w.series.First, w.o.known-1-w.series.First
	for _, c := range w.o.v.known {
		if c < 0 || c >= len(w.series.X) || last < 0 {
			w.put(0)
			w.put(0)
			continue
		}
		x := w.series.X[c]
		then := x[min(at, len(x)-1)]
		var sum float64
		from := max(0, last+1-covariateSpan)
		for _, v := range x[from : last+1] {
			sum += v
		}
		w.put(then)
		w.put(then - sum/float64(last+1-from))
	}
}

func (w *Writer) writeRatioStep(s stepAhead) {
	v := w.o.v
	w.put(w.o.profile[s.phase])
	w.put(w.o.busy[s.phase])
	// The latest open steps of the phase.
	at := v.phases[s.phase]
	end, _ := slices.BinarySearch(at, int32(w.o.open))
	at = at[:end]
	begin, _ := slices.BinarySearch(at, int32(w.first))
	at = at[begin:]
	value := func(j int) float64 { return w.z[int(at[len(at)-j])-w.first] }
	for _, turns := range phaseSpans {
		var sum float64
		n := min(turns, len(at))
		for j := 1; j <= n; j++ {
			sum += value(j)
		}
		if n == 0 {
			sum, n = w.meanOf(len(w.z), same), 1
		}
		w.put(sum / float64(n) / w.scale)
	}
	for j := 1; j <= 2; j++ {
		if len(at) < j {
			w.put(0)
			continue
		}
		w.put(value(j) / w.scale)
	}
}

func (w *Writer) writeShiftStep(k int, s stepAhead) {
	d, n := w.o.v.d, len(w.z)
	for b := range stepBuckets {
		w.put(here(min(k*stepBuckets/d.Horizon, stepBuckets-1) == b))
	}
	// at is a step counted from the origin; one that the series does not have counts as its level.
	at := func(t int) float64 {
		if t += n; t < 0 || t >= n {
			return 0
		}
		return w.unit(w.z[t])
	}
	m := d.Seasons[0]
	turn := k/m + 1
	for j := range dayTurns {
		w.put(at(k - m*(turn+j)))
	}
	w.put(at(k - m*turn - 1))
	after := k - m*turn + 1
	w.put(at(min(after, -1)))
	if long := d.Seasons[len(d.Seasons)-1]; long > m {
		turn := k/long + 1
		for j := range weekTurns {
			i := k - long*(turn+j)
			w.put(at(i))
			w.put(at(i - 1))
			w.put(at(min(i+1, -1)))
			w.put(w.meanBefore(-long*(turn+j), m))
		}
	}
}

// meanBefore is the mean of the m steps that end at step t, counted from the origin, in the network's units.
func (w *Writer) meanBefore(t, m int) float64 {
	to := t + len(w.z)
	if to < m {
		return 0
	}
	var sum float64
	for _, y := range w.z[to-m : to] {
		sum += y
	}
	return w.unit(sum / float64(m))
}

// Series is a series of the panel.
func (v *View) Series(i int) *forecast.Series { return &v.p.Series[i] }

// Len is the number of series.
func (v *View) Len() int { return len(v.p.Series) }
