package train

import (
	"math"
	"slices"
	"sort"
)

// The metrics take labels y and, of the same length, scores s (any finite numbers, greater is more
// positive) or probabilities p in [0,1]. Where a metric is not defined (no rows, one class only) it is NaN.

// Point is one point of a curve, reached by calling every row with a score of at least Threshold positive.
type Point struct {
	X         float64 `json:"x"`
	Y         float64 `json:"y"`
	Threshold float64 `json:"threshold"`
}

// Bin is one bin of a reliability diagram: Count rows whose probability is in [From, To) (the last bin
// holds 1 too), their mean probability and the share of positives among them; both 0 in an empty bin.
type Bin struct {
	From          float64 `json:"from"`
	To            float64 `json:"to"`
	Count         int     `json:"count"`
	MeanPredicted float64 `json:"mean_predicted"`
	Rate          float64 `json:"rate"`
}

// group is the rows of one score: how many are positive and negative.
type group struct {
	score    float64
	pos, neg uint64
}

// groups counts the rows of each distinct score, greatest score first.
func groups(y []bool, s []float64) (gs []group, pos, neg uint64) {
	order := make([]int32, len(s))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int {
		switch {
		case s[a] > s[b]:
			return -1
		case s[a] < s[b]:
			return 1
		}
		return 0
	})
	for _, i := range order {
		if len(gs) == 0 || gs[len(gs)-1].score != s[i] {
			gs = append(gs, group{score: s[i]})
		}
		g := &gs[len(gs)-1]
		if y[i] {
			g.pos++
			pos++
		} else {
			g.neg++
			neg++
		}
	}
	return gs, pos, neg
}

// AUC is the area under the ROC curve: the probability that a positive scores above a negative, with
// ties counted half (Hanley & McNeil 1982). The counts are integers up to the one division.
func AUC(y []bool, s []float64) float64 {
	gs, pos, neg := groups(y, s)
	if pos == 0 || neg == 0 {
		return math.NaN()
	}
	var twice, above uint64
	for _, g := range gs {
		twice += g.neg * (2*above + g.pos)
		above += g.pos
	}
	return float64(twice) / 2 / float64(pos) / float64(neg)
}

// AveragePrecision is sum_n (R_n - R_n-1) P_n over the distinct scores from the greatest down, as
// scikit-learn defines it: no interpolation, equal scores are one step.
func AveragePrecision(y []bool, s []float64) float64 {
	gs, pos, _ := groups(y, s)
	if pos == 0 {
		return math.NaN()
	}
	var sum float64
	var tp, n uint64
	for _, g := range gs {
		tp += g.pos
		n += g.pos + g.neg
		if g.pos > 0 {
			sum += float64(g.pos) * float64(tp) / float64(n)
		}
	}
	return sum / float64(pos)
}

// ROC is the curve of true positive rate (Y) over false positive rate (X) from (0,0) to (1,1), without
// the points that lie inside a straight piece along an axis. The first point's threshold is just above the
// greatest score.
func ROC(y []bool, s []float64) []Point {
	gs, pos, neg := groups(y, s)
	if pos == 0 || neg == 0 {
		return nil
	}
	points := []Point{{Threshold: math.Nextafter(gs[0].score, math.Inf(1))}}
	var tp, fp uint64
	for _, g := range gs {
		tp += g.pos
		fp += g.neg
		p := Point{float64(fp) / float64(neg), float64(tp) / float64(pos), g.score}
		if n := len(points); n > 1 && inside(points[n-2], points[n-1], p) {
			points[n-1] = p
			continue
		}
		points = append(points, p)
	}
	return points
}

// inside tells whether b lies on the way from a to c along one axis.
func inside(a, b, c Point) bool { return a.X == b.X && b.X == c.X || a.Y == b.Y && b.Y == c.Y }

// PR is the curve of precision (Y) over recall (X) from the greatest score down to where recall is 1. In a
// run of scores that only negatives have, only the last is kept.
func PR(y []bool, s []float64) []Point {
	gs, pos, _ := groups(y, s)
	if pos == 0 {
		return nil
	}
	var points []Point
	var tp, n uint64
	negatives := 0 // length of the run of groups without positives
	for _, g := range gs {
		tp += g.pos
		n += g.pos + g.neg
		if g.pos == 0 {
			negatives++
		} else {
			negatives = 0
		}
		p := Point{float64(tp) / float64(pos), float64(tp) / float64(n), g.score}
		if negatives > 1 {
			points[len(points)-1] = p
		} else {
			points = append(points, p)
		}
		if tp == pos {
			break
		}
	}
	return points
}

// Thin keeps at most about that many points of a curve, evenly spread along its length, with its first and last: for
// drawing.
func Thin(points []Point, most int) []Point {
	if len(points) <= most || most < 2 {
		return points
	}
	along := make([]float64, len(points))
	for i := 1; i < len(points); i++ {
		along[i] = along[i-1] + math.Abs(points[i].X-points[i-1].X) + math.Abs(points[i].Y-points[i-1].Y)
	}
	step := along[len(along)-1] / float64(most-1)
	kept := []Point{points[0]}
	for at := 0; at < len(points)-1; {
		next := sort.SearchFloat64s(along, along[at]+step)
		at = min(max(next, at+1), len(points)-1)
		kept = append(kept, points[at])
	}
	return kept
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// minProbability bounds the logarithm of a certain mistake, at the distance of float64's epsilon from 0
// and 1 that scikit-learn uses.
const minProbability = 0x1p-52

// LogLoss is the mean of -log of the probability given to what happened, in nats.
func LogLoss(y []bool, p []float64) float64 {
	if len(y) == 0 {
		return math.NaN()
	}
	var sum float64
	for i, q := range p {
		q = min(max(q, minProbability), 1-minProbability)
		if y[i] {
			sum -= math.Log(q)
		} else {
			sum -= math.Log1p(-q)
		}
	}
	return sum / float64(len(y))
}

// Brier is the mean squared difference of probability and outcome (Brier 1950).
func Brier(y []bool, p []float64) float64 {
	if len(y) == 0 {
		return math.NaN()
	}
	var sum float64
	for i, q := range p {
		d := q - float64(btoi(y[i]))
		sum += d * d
	}
	return sum / float64(len(y))
}

// Reliability sorts the rows into bins of equal width over [0,1].
func Reliability(y []bool, p []float64, bins int) []Bin {
	out := make([]Bin, bins)
	for i := range out {
		out[i].From, out[i].To = float64(i)/float64(bins), float64(i+1)/float64(bins)
	}
	for i, q := range p {
		b := &out[min(max(int(q*float64(bins)), 0), bins-1)]
		b.Count++
		b.MeanPredicted += q
		b.Rate += float64(btoi(y[i]))
	}
	for i := range out {
		if b := &out[i]; b.Count > 0 {
			b.MeanPredicted /= float64(b.Count)
			b.Rate /= float64(b.Count)
		}
	}
	return out
}

// ECE is the expected calibration error (Naeini et al. 2015): the mean over the rows of |mean probability
// - share of positives| of their bin.
func ECE(bins []Bin) float64 {
	var sum, n float64
	for _, b := range bins {
		sum += float64(b.Count) * math.Abs(b.MeanPredicted-b.Rate)
		n += float64(b.Count)
	}
	return sum / n
}
