package mock

import (
	"fmt"
	"math"
)

// A regression of a category's sales: the units sold of each product and day are taken as Poisson with a logarithm
// linear in the columns and a constant a product. The constants are conditioned on: given its total, a product's units
// are multinomial over its days (Palmgren 1981). Errors are widened by the Pearson dispersion.
type regression struct {
	names    []string
	products []fitRows
	beta     []float64
	cov      [][]float64
}

// fitRows is a product's days in a regression, and with the same columns those without stock.
type fitRows struct {
	product int
	x       [][]float64
	y       []float64
	total   float64
	outX    [][]float64
	outY    float64
}

// yearDays is the least stream whose year can be told from its trend.
const yearDays = 420

// checkDemand measures seasons, prices, promotions, trend, holidays and stock-outs.
func checkDemand(d *shopData) []Effect {
	counts := make([]float64, len(d.products)*d.days)
	for i := range d.lines {
		if l := &d.lines[i]; l.genuine() {
			counts[int(l.product)*d.days+int(l.day)] += float64(l.quantity)
		}
	}
	var names []string // of holidays on which the shop is open
	var planted []float64
	for _, h := range d.truth.Holidays {
		if h.Factor > 0 {
			names, planted = append(names, h.Name), append(planted, h.Factor)
		}
	}
	var effects []Effect
	pooled := map[string]*pool{}
	var out pool // observed, expected
	for c := range d.truth.Categories {
		r := d.regress(c, names, counts)
		effects = append(effects, d.categoryEffects(c, r)...)
		for i, n := range r.names {
			if pooled[n] == nil {
				pooled[n] = &pool{}
			}
			pooled[n].add(r.beta[i], math.Sqrt(r.cov[i][i]))
		}
		for i := range r.products {
			p := &r.products[i]
			out.observed += p.outY
			out.expected += r.expect(p)
		}
	}
	shop := func(name, column string, planted, tolerance float64) {
		e := estimate{math.NaN(), math.NaN(), tolerance}
		if p := pooled[column]; p != nil {
			e.value, e.se = p.mean()
		}
		effects = append(effects, judge("shop", name, math.Log(planted), 0, e, "").exp())
	}
	if d.days >= yearDays {
		shop("trend, a year", "trend", d.truth.Trend, .05)
	}
	shop("promotion lift beside price", "promotion", d.truth.Promotion, .05)
	for i, n := range names {
		shop(n, n, planted[i], .08)
	}
	closed := 0.0
	for i := range d.lines {
		if d.calendar[d.lines[i].day].closed {
			closed++
		}
	}
	effects = append(effects, exact("shop", "lines on closed days", 0, closed))
	return append(effects, d.outEffects(out)...)
}

// pool is a mean of estimates weighted by their precision, and counts of what stock-outs cost.
type pool struct {
	weight, sum        float64
	observed, expected float64
}

func (p *pool) add(v, se float64) {
	if w := 1 / (se * se); finite(v, w) {
		p.weight += w
		p.sum += w * v
	}
}

func (p *pool) mean() (v, se float64) { return p.sum / p.weight, 1 / math.Sqrt(p.weight) }

// exact compares counts that must agree.
func exact(group, name string, planted, measured float64) Effect {
	f := Effect{Group: group, Name: name, Planted: planted, Measured: measured, Low: measured, High: measured,
		Verdict: Found}
	if planted != measured {
		f.Verdict = Off
	}
	return f
}

// outEffects: what is out of stock sells nothing, and the regression says what would have been sold.
func (d *shopData) outEffects(out pool) []Effect {
	sold := Effect{Group: "stock", Name: "units sold without stock", Measured: out.observed, Low: out.observed,
		High:    out.observed,
		Verdict: Found, Note: fmt.Sprintf("%.0f were to be expected", out.expected)}
	switch {
	case out.observed > 0:
		sold.Verdict = Off
	case out.expected < 10:
		sold.Verdict = Unclear
	}
	planted := d.lostUnits()
	e := estimate{out.expected, math.Sqrt(1.5 * (out.expected + planted)), .1 * planted}
	return []Effect{sold, judge("stock", "units asked for without stock", planted, 0, e, "expected by the regression")}
}

// lostUnits were asked for while there was no stock, of products that the regressions have.
func (d *shopData) lostUnits() float64 {
	t, err := d.table(LostFile, lostSchema)
	if err != nil {
		return math.NaN()
	}
	total := 0.0
	for i := range t.N {
		if p, ok := d.byProduct[t.Columns[0].Strings[i]]; ok && d.regular(int(p)) {
			total += float64(t.Column("units").Ints[i])
		}
	}
	return total
}

// regular products follow nothing but season, price and stock.
func (d *shopData) regular(i int) bool { return d.products[i].rhythm == 0 && !d.products[i].follows }

// categoryEffects compares a category's regression with what was planted.
func (d *shopData) categoryEffects(c int, r *regression) []Effect {
	truth := &d.truth.Categories[c]
	high, low := 0, 0
	for i, v := range truth.Weekly {
		if v > truth.Weekly[high] {
			high = i
		}
		if v < truth.Weekly[low] {
			low = i
		}
	}
	weights := map[string]float64{}
	weights[weekdays[high]]++
	weights[weekdays[low]]--
	planted := math.Log(truth.Weekly[high] / truth.Weekly[low])
	week := judge(truth.Name, "week, "+weekdays[high]+" over "+weekdays[low], planted, 0, r.estimate(weights,
		.12*planted), "").exp()
	price := judge(truth.Name, "price elasticity", truth.Elasticity, 0, r.estimate(map[string]float64{"price": 1},
		.15*math.Abs(truth.Elasticity)), "")
	effects := []Effect{week, price}
	if d.days < yearDays {
		return effects
	}
	phase := 2 * math.Pi * truth.PeakDay / 365.25
	season := judge(truth.Name, "year, amplitude", truth.Season, 0,
		r.estimate(map[string]float64{"cos": math.Cos(phase), "sin": math.Sin(phase)}, .1*truth.Season+.02), r.peak())
	effects = append(effects, season)
	if truth.Christmas > 0 {
		effects = append(effects, judge(truth.Name, "Christmas", truth.Christmas, 0,
			r.estimate(map[string]float64{"christmas": 1}, .1*truth.Christmas+.03), "").exp())
	}
	return effects
}

var weekdays = []string{"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"}

// peak says on which day of the year the fitted season is highest.
func (r *regression) peak() string {
	c, s := r.at("cos"), r.at("sin")
	if c < 0 || !finite(r.beta[c], r.beta[s]) {
		return ""
	}
	day := math.Atan2(r.beta[s], r.beta[c]) / (2 * math.Pi) * 365.25
	return fmt.Sprintf("highest on day %.0f of the year", math.Mod(day+365.25, 365.25))
}

func (r *regression) at(name string) int {
	for i, n := range r.names {
		if n == name {
			return i
		}
	}
	return -1
}

// estimate is a sum of coefficients; those that are not in the regression are 0, as Monday's.
func (r *regression) estimate(weights map[string]float64, tolerance float64) estimate {
	w := make([]float64, len(r.names))
	for i, n := range r.names {
		w[i] = weights[n]
	}
	e := estimate{tolerance: tolerance}
	for i := range w {
		e.value += w[i] * r.beta[i]
		for j := range w {
			e.se += w[i] * w[j] * r.cov[i][j]
		}
	}
	e.se = math.Sqrt(e.se)
	return e
}

// expect is how many units the regression puts on a product's days without stock.
func (r *regression) expect(p *fitRows) float64 {
	in := 0.0
	for _, x := range p.x {
		in += math.Exp(dot(x, r.beta))
	}
	out := 0.0
	for _, x := range p.outX {
		out += math.Exp(dot(x, r.beta))
	}
	return out * p.total / max(in, 1e-300)
}

// regress fits a category.
func (d *shopData) regress(category int, holidays []string, counts []float64) *regression {
	r := &regression{names: append([]string{}, weekdays[1:]...)}
	r.names = append(r.names, "price", "promotion", "cos", "sin", "christmas", "trend")
	r.names = append(r.names, holidays...)
	for i := range d.products {
		p := &d.products[i]
		if p.category != category || !d.regular(i) {
			continue
		}
		rows := fitRows{product: i}
		for day := max(p.launched, 0); day < min(d.days, p.gone); day++ {
			if d.calendar[day].closed {
				continue
			}
			cell := i*d.days + day
			x := d.covariates(r.names, cell, day)
			if d.out[cell] {
				rows.outX = append(rows.outX, x)
				rows.outY += counts[cell]
				continue
			}
			rows.x, rows.y = append(rows.x, x), append(rows.y, counts[cell])
			rows.total += counts[cell]
		}
		r.products = append(r.products, rows)
	}
	r.fit()
	return r
}

func (d *shopData) covariates(names []string, cell, day int) []float64 {
	c := &d.calendar[day]
	x := make([]float64, len(names))
	for k, n := range names {
		switch n {
		case "price":
			x[k] = d.price[cell]
		case "promotion":
			x[k] = float64(flag(d.promoted[cell]))
		case "cos":
			x[k] = math.Cos(2 * math.Pi * c.part)
		case "sin":
			x[k] = math.Sin(2 * math.Pi * c.part)
		case "christmas":
			x[k] = christmas(c.part)
		case "trend":
			x[k] = float64(day) / 365.25
		default:
			x[k] = float64(flag(n == weekdays[c.weekday] || n == c.holiday))
		}
	}
	return x
}

// fit maximises the likelihood by Newton's method with halved steps.
func (r *regression) fit() {
	k := len(r.names)
	r.beta = make([]float64, k)
	best, grad, hess := r.likelihood(r.beta)
	for range 30 {
		step := solve(hess, grad)
		var moved []float64
		var value float64
		var g []float64
		var h [][]float64
		for scale := 1.0; ; scale /= 2 {
			moved = make([]float64, k)
			for i := range moved {
				moved[i] = r.beta[i] + scale*step[i]
			}
			if value, g, h = r.likelihood(moved); value >= best || scale < 1e-6 {
				break
			}
		}
		gain := value - best
		if !(gain > 0) {
			break
		}
		r.beta, best, grad, hess = moved, value, g, h
		if gain < 1e-9*math.Abs(best) {
			break
		}
	}
	r.cov = inverse(hess)
	spread := r.dispersion()
	for i := range r.cov {
		for j := range r.cov[i] {
			r.cov[i][j] *= spread
		}
	}
}

// priorSpread is the deviation of a normal prior of every coefficient around 0: far wider than any effect, so that it
// only decides where the data say nothing.
const priorSpread = 3

// likelihood is the logarithm of the conditional likelihood and the prior, its gradient, and the negative of its second
// derivative.
func (r *regression) likelihood(beta []float64) (value float64, grad []float64, hess [][]float64) {
	k := len(beta)
	grad, hess = make([]float64, k), matrix(k, k)
	mean := make([]float64, k)
	for i := range r.products {
		p := &r.products[i]
		if p.total == 0 {
			continue
		}
		sum := 0.0
		clear(mean)
		second := matrix(k, k)
		for n, x := range p.x {
			eta := dot(x, beta)
			e := math.Exp(eta)
			sum += e
			value += p.y[n] * eta
			for a, va := range x {
				if va == 0 {
					continue
				}
				mean[a] += e * va
				grad[a] += p.y[n] * va
				for b := 0; b <= a; b++ {
					second[a][b] += e * va * x[b]
				}
			}
		}
		value -= p.total * math.Log(sum)
		for a := range mean {
			ma := mean[a] / sum
			grad[a] -= p.total * ma
			for b := 0; b <= a; b++ {
				hess[a][b] += p.total * (second[a][b]/sum - ma*mean[b]/sum)
			}
		}
	}
	for a := range hess {
		value -= beta[a] * beta[a] / (2 * priorSpread * priorSpread)
		grad[a] -= beta[a] / (priorSpread * priorSpread)
		hess[a][a] += 1.0 / (priorSpread * priorSpread)
		for b := range a {
			hess[b][a] = hess[a][b]
		}
	}
	return value, grad, hess
}

// dispersion is Pearson's, at least 1.
func (r *regression) dispersion() float64 {
	chi, n := 0.0, -float64(len(r.beta))
	for i := range r.products {
		p := &r.products[i]
		if p.total == 0 {
			continue
		}
		sum := 0.0
		for _, x := range p.x {
			sum += math.Exp(dot(x, r.beta))
		}
		for k, x := range p.x {
			mu := p.total * math.Exp(dot(x, r.beta)) / sum
			chi += (p.y[k] - mu) * (p.y[k] - mu) / mu
		}
		n += float64(len(p.x)) - 1
	}
	return max(chi/max(n, 1), 1)
}

func dot(a, b []float64) float64 {
	s := 0.0
	for i, v := range a {
		s += v * b[i]
	}
	return s
}

func matrix(n, m int) [][]float64 {
	all := make([]float64, n*m)
	rows := make([][]float64, n)
	for i := range rows {
		rows[i] = all[i*m : (i+1)*m : (i+1)*m]
	}
	return rows
}

// solve solves a x = b for a symmetric positive definite a, by Cholesky.
func solve(a [][]float64, b []float64) []float64 {
	l := cholesky(a)
	x := append([]float64{}, b...)
	for i := range x {
		for j := range i {
			x[i] -= l[i][j] * x[j]
		}
		x[i] /= l[i][i]
	}
	for i := len(x) - 1; i >= 0; i-- {
		for j := i + 1; j < len(x); j++ {
			x[i] -= l[j][i] * x[j]
		}
		x[i] /= l[i][i]
	}
	return x
}

func cholesky(a [][]float64) [][]float64 {
	l := matrix(len(a), len(a))
	for i := range a {
		for j := 0; j <= i; j++ {
			s := a[i][j]
			for k := range j {
				s -= l[i][k] * l[j][k]
			}
			if i == j {
				l[i][i] = math.Sqrt(max(s, 1e-12))
			} else {
				l[i][j] = s / l[j][j]
			}
		}
	}
	return l
}

func inverse(a [][]float64) [][]float64 {
	inv := matrix(len(a), len(a))
	for i := range a {
		e := make([]float64, len(a))
		e[i] = 1
		copy(inv[i], solve(a, e))
	}
	return inv
}
