package mock

import (
	"fmt"
	"math"

	"github.com/onmart/onmart/datasets"
)

// checkTaste: how much of the planted taste vectors the purchases tell. Users and products are counted, what a user
// buys beyond the product's share is factored, and each planted dimension is regressed on the users' factors. 1
// would be all of it; how near the data come depends on the purchases a user.
func checkTaste(d *shopData) []Effect {
	taste, _, err := d.tastes()
	if err != nil {
		return []Effect{{Group: "taste", Name: "vectors", Verdict: Missing, Note: err.Error()}}
	}
	users, residual, lines := d.residuals()
	const factors = tasteDims + 2 // price level, and one to spare
	n := len(users)
	if n < 4*factors {
		return []Effect{judge("taste", "correlation with factors of purchases", 1, 0, estimate{math.NaN(), math.NaN(), 0},
			"")}
	}
	x := userFactors(newDice(d.truth.Seed).of(forShuffle, 1, 0), residual, factors)
	explained, chance := 0.0, 0.0
	r := newDice(d.truth.Seed).of(forShuffle, 2, 0)
	order := r.Perm(n)
	for dim := range tasteDims {
		y, shuffled := make([]float64, n), make([]float64, n)
		for i, u := range users {
			y[i] = taste[u][dim]
			shuffled[order[i]] = y[i]
		}
		explained += rSquared(x, y) / tasteDims
		chance += rSquared(x, shuffled) / tasteDims
	}
	value, control := math.Sqrt(explained), math.Sqrt(chance)
	se := (1 - explained) / math.Sqrt(float64(n)*tasteDims)
	f := Effect{Group: "taste", Name: "correlation with factors of purchases", Planted: 1, Measured: value,
		Low: value - sigmas*se, High: min(value+sigmas*se, 1),
		Note: fmt.Sprintf("%.0f lines a user; %.2f for shuffled users", lines/float64(n), control)}
	switch {
	case f.Low > max(.4, control+.2):
		f.Verdict = Found
	case lines/float64(n) < 60 || n < 20*factors: // too few to tell six dimensions
		f.Verdict = Unclear
	default:
		f.Verdict = Missing
	}
	return []Effect{f}
}

// tastes reads the planted vectors of users and products.
func (d *shopData) tastes() (users, products [][]float64, err error) {
	read := func(name string, s *datasets.Schema) ([][]float64, error) {
		t, err := d.table(name, s)
		if err != nil {
			return nil, err
		}
		m := matrix(t.N, tasteDims)
		for i := range m {
			for dim := range m[i] {
				m[i][dim] = t.Columns[2+dim].Floats[i]
			}
		}
		return m, nil
	}
	if users, err = read(TasteUsersFile, userTasteSchema); err != nil {
		return nil, nil, err
	}
	if products, err = read(TasteProductsFile, productTasteSchema); err != nil {
		return nil, nil, err
	}
	if len(users) != len(d.users) || len(products) != len(d.products) {
		return nil, nil, fmt.Errorf("%d users and %d products have tastes, of %d and %d", len(users), len(products),
			len(d.users), len(d.products))
	}
	return users, products, nil
}

// residuals are the Freeman-Tukey deviates of what each user buys of each product from the product's share; products
// with a rhythm are left out.
func (d *shopData) residuals() (users []int, residual [][]float64, lines float64) {
	place := make([]int, len(d.products))
	n := 0
	for i := range d.products {
		place[i] = -1
		if d.products[i].rhythm == 0 {
			place[i] = n
			n++
		}
	}
	counts := matrix(len(d.users), n)
	byUser, byProduct := make([]float64, len(d.users)), make([]float64, n)
	for i := range d.lines {
		if l := &d.lines[i]; l.genuine() && place[l.product] >= 0 {
			counts[l.user][place[l.product]]++
			byUser[l.user]++
			byProduct[place[l.product]]++
			lines++
		}
	}
	for u := range counts {
		if byUser[u] < 10 {
			continue
		}
		for i, v := range counts[u] {
			e := byUser[u] * byProduct[i] / lines
			counts[u][i] = math.Sqrt(v) + math.Sqrt(v+1) - math.Sqrt(4*e+1)
		}
		users, residual = append(users, u), append(residual, counts[u])
	}
	return users, residual, lines
}

// userFactors are the users' coordinates on the leading right singular vectors, by orthogonal iteration (Golub and
// Van Loan, Matrix Computations, 8.2.4).
func userFactors(r *dice, a [][]float64, k int) [][]float64 {
	v := matrix(k, len(a[0]))
	for i := range v {
		for j := range v[i] {
			v[i][j] = r.NormFloat64()
		}
	}
	x := matrix(len(a), k)
	for range 15 {
		orthonormal(v)
		for u := range a {
			for i := range v {
				x[u][i] = dot(a[u], v[i])
			}
		}
		for i := range v {
			clear(v[i])
			for u := range a {
				w := x[u][i]
				for j, value := range a[u] {
					v[i][j] += w * value
				}
			}
		}
	}
	return x
}

// orthonormal makes rows orthonormal by modified Gram-Schmidt.
func orthonormal(v [][]float64) {
	for i := range v {
		for j := range i {
			w := dot(v[i], v[j])
			for k := range v[i] {
				v[i][k] -= w * v[j][k]
			}
		}
		norm := math.Sqrt(max(dot(v[i], v[i]), 1e-300))
		for k := range v[i] {
			v[i][k] /= norm
		}
	}
}

// rSquared is the share of y's variance that a linear regression on the columns of x and a constant explains.
func rSquared(x [][]float64, y []float64) float64 {
	k := len(x[0])
	centre := make([]float64, k+1)
	n := float64(len(x))
	for i := range x {
		for j, v := range x[i] {
			centre[j] += v / n
		}
		centre[k] += y[i] / n
	}
	a, b := matrix(k, k), make([]float64, k)
	total := 0.0
	row := make([]float64, k)
	for i := range x {
		for j := range row {
			row[j] = x[i][j] - centre[j]
		}
		z := y[i] - centre[k]
		total += z * z
		for j := range row {
			b[j] += row[j] * z
			for l := range row {
				a[j][l] += row[j] * row[l]
			}
		}
	}
	for j := range a {
		a[j][j] *= 1 + 1e-9
	}
	return dot(solve(a, b), b) / total
}

// checkRatings: the slope of ratings on how well the planted vectors of user and product agree. Lines that were
// returned have lower ratings, and are left out by their users' later return where there is one.
func checkRatings(d *shopData) []Effect {
	users, products, err := d.tastes()
	if err != nil {
		return []Effect{{Group: "taste", Name: "ratings", Verdict: Missing, Note: err.Error()}}
	}
	back := map[pair]bool{}
	for i := range d.lines {
		if l := &d.lines[i]; l.back {
			back[pair{l.user, l.product}] = true
		}
	}
	var n, sx, sy, sxx, sxy, syy float64
	for i := range d.lines {
		l := &d.lines[i]
		if l.rating == 0 || back[pair{l.user, l.product}] {
			continue
		}
		x, y := dot(users[l.user], products[l.product]), l.rating
		n++
		sx, sy, sxx, sxy, syy = sx+x, sy+y, sxx+x*x, sxy+x*y, syy+y*y
	}
	vx, vy, c := sxx-sx*sx/n, syy-sy*sy/n, sxy-sx*sy/n
	slope := c / vx
	se := math.Sqrt(max(vy-slope*c, 0) / (n - 2) / vx)
	truth := d.truth.Rating.Slope
	return []Effect{judge("taste", "rating by agreement, slope", truth, 0, estimate{slope, se, .15 * truth},
		fmt.Sprintf("%.0f ratings", n))}
}
