package baseline

import (
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"
)

const (
	// ridge is the penalty 1/2 ridge |w|^2 beside the summed log loss, the strength of scikit-learn's
	// default C = 1; the intercept has none.
	ridge = 1.0
	// Newton's steps stop where a step changes the loss by less than this share of it; from zero that
	// takes about ten.
	newtonTolerance = 1e-9
	newtonSteps     = 100
)

// Logistic is logistic regression with a ridge, fitted to the optimum by Newton's method with step
// halving (iteratively reweighted least squares, McCullagh & Nelder 1989) in float64. Features should be
// standardised, or the ridge treats them unequally.
type Logistic struct {
	w []float64 // one a feature, then the intercept
}

func (*Logistic) Name() string        { return "logistic regression" }
func (*Logistic) Key() string         { return "logistic_regression" }
func (*Logistic) Probabilities() bool { return true }

// Fit needs both classes. The seed is not used: the optimum is unique.
func (m *Logistic) Fit(x [][]float64, y []bool, _ uint64) (string, error) {
	rows, _, err := checkClasses(x, y)
	if err != nil {
		return "", err
	}
	n := len(x) + 1
	m.w = make([]float64, n)
	z := make([]float64, rows)
	loss := penalizedLoss(z, y, m.w)
	for range newtonSteps {
		step, err := newtonStep(x, y, z, m.w)
		if err != nil {
			return "", err
		}
		next, scale := make([]float64, n), 1.0
		var nextLoss float64
		for ; ; scale /= 2 {
			for k := range next {
				next[k] = m.w[k] - scale*step[k]
			}
			logits(x, next, z)
			if nextLoss = penalizedLoss(z, y, next); nextLoss <= loss || scale < 1e-10 {
				break
			}
		}
		if !(nextLoss <= loss) {
			logits(x, m.w, z)
			return "", nil // no step goes down any more: this is the optimum, to the last bits
		}
		done := loss-nextLoss <= newtonTolerance*loss
		m.w, loss = next, nextLoss
		if done {
			return "", nil
		}
	}
	return "", fmt.Errorf("baseline: logistic regression has not settled after %d steps", newtonSteps)
}

// Score gives probabilities.
func (m *Logistic) Score(x [][]float64) ([]float64, error) {
	rows, err := check(x, nil)
	if err != nil {
		return nil, err
	}
	if len(x) != len(m.w)-1 {
		return nil, fmt.Errorf("baseline: %d features, fitted on %d", len(x), len(m.w)-1)
	}
	z := make([]float64, rows)
	logits(x, m.w, z)
	for i := range z {
		z[i] = sigmoid(z[i])
	}
	return z, nil
}

func logits(x [][]float64, w, z []float64) {
	for i := range z {
		z[i] = w[len(x)]
	}
	for f, column := range x {
		for i, v := range column {
			z[i] += w[f] * v
		}
	}
}

func penalizedLoss(z []float64, y []bool, w []float64) float64 {
	var sum float64
	for i, v := range z {
		sum += math.Max(v, 0) - v*float64(btoi(y[i])) + math.Log1p(math.Exp(-math.Abs(v)))
	}
	for _, v := range w[:len(w)-1] {
		sum += ridge / 2 * v * v
	}
	return sum
}

// newtonStep solves (X' S X + ridge) step = gradient, with S the variances p (1-p).
func newtonStep(x [][]float64, y []bool, z, w []float64) ([]float64, error) {
	n := len(w)
	hessian := mat.NewSymDense(n, nil)
	gradient := mat.NewVecDense(n, nil)
	residual, variance := make([]float64, len(z)), make([]float64, len(z))
	for i, v := range z {
		p := sigmoid(v)
		residual[i], variance[i] = p-float64(btoi(y[i])), p*(1-p)
	}
	weighted := make([]float64, len(z))
	for f := range n {
		a := variance
		if f < n-1 {
			for i, v := range x[f] {
				weighted[i] = variance[i] * v
			}
			a = weighted
			gradient.SetVec(f, dot(residual, x[f])+ridge*w[f])
		} else {
			gradient.SetVec(f, total(residual))
		}
		for g := f; g < n-1; g++ {
			hessian.SetSym(f, g, dot(a, x[g]))
		}
		hessian.SetSym(f, n-1, total(a))
		if f < n-1 {
			hessian.SetSym(f, f, hessian.At(f, f)+ridge)
		}
	}
	var chol mat.Cholesky
	if !chol.Factorize(hessian) {
		return nil, errors.New("baseline: logistic regression: the curvature is not positive: a feature is too large to be squared; standardise it")
	}
	var step mat.VecDense
	if err := chol.SolveVecTo(&step, gradient); err != nil {
		var condition mat.Condition
		if !errors.As(err, &condition) { // badly conditioned is no fault here: the loss decides on the step
			return nil, fmt.Errorf("baseline: logistic regression: %w", err)
		}
	}
	return step.RawVector().Data, nil
}

func dot(a, b []float64) float64 {
	var sum float64
	for i, v := range a {
		sum += v * b[i]
	}
	return sum
}

func total(a []float64) float64 {
	var sum float64
	for _, v := range a {
		sum += v
	}
	return sum
}
