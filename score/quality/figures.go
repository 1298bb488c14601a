package quality

import (
	"math"
	"slices"
	"sort"

	"github.com/onmart/onmart/datasets"
)

// Figures are how good one version was on the transactions that were judged: those whose event time is in (From, To].
// What is not defined, such as the AUC of rows without a fraud, is nil.
type Figures struct {
	Version string  `json:"version"`
	From    string  `json:"from,omitempty"` // RFC 3339; none before the first judged transaction
	To      string  `json:"to,omitempty"`
	Sampled float64 `json:"sampled"` // share of the purchases that the figures but Budget are made of
	Rows    int     `json:"rows"`
	Pending int     `json:"pending"` // kept, and not judged yet
	Labels  int     `json:"labels"`  // judged rows that a label came for; the others count as genuine

	Positives        int      `json:"positives"`
	AUC              *float64 `json:"auc"`               // exact on the rows, ties counted half
	AveragePrecision *float64 `json:"average_precision"` // as evaluate's
	Brier            *float64 `json:"brier"`
	LogLoss          *float64 `json:"log_loss"`
	Expected         float64  `json:"expected"` // sum of the scores: the positives that the model expects
	Alerts           Alerts   `json:"alerts"`
	Budget           Budget   `json:"budget"`
	Calibration      []Decile `json:"calibration"`
}

// Alerts are the judged rows that score at least the version's threshold.
type Alerts struct {
	Threshold float64  `json:"threshold"`
	Rows      int      `json:"rows"`
	Positives int      `json:"positives"`
	Precision *float64 `json:"precision"`
	Recall    *float64 `json:"recall"`
}

// Budget is of the PerDay transactions of each UTC day that score highest, over the days that were judged as a whole.
// It is not of a sample.
type Budget struct {
	PerDay    int      `json:"per_day"`
	Days      int      `json:"days"`
	Rows      int      `json:"rows"`
	Positives int      `json:"positives"`
	Precision *float64 `json:"precision"`
}

// Decile is a tenth of the judged rows by score.
type Decile struct {
	Rows     int     `json:"rows"`
	From     float64 `json:"from"` // least score
	To       float64 `json:"to"`   // greatest
	Expected float64 `json:"expected"`
	Observed float64 `json:"observed"`
}

// judged is what figures are made of, copied from a track.
type judged struct {
	f     Figures
	score []float64
	y     []bool
}

// Figures are those of every version that is followed, the one that was scored last first. Sorting is done beside:
// scoring waits only while the rows are copied.
func (l *Live) Figures() []Figures {
	var list []judged
	l.mu.Lock()
	tracks := slices.Clone(l.tracks)
	slices.SortStableFunc(tracks, func(a, b *track) int { return int(min(max(b.last-a.last, -1), 1)) })
	for _, t := range tracks {
		list = append(list, t.judge(&l.o, l.bound(), l.watermark))
	}
	l.mu.Unlock()
	out := []Figures{}
	for i := range list {
		list[i].compute()
		out = append(out, list[i].f)
	}
	return out
}

func (t *track) judge(o *Options, bound, watermark int64) judged {
	j := judged{f: Figures{Version: t.version, Sampled: float64(t.keep) / math.MaxUint64,
		Alerts: Alerts{Threshold: t.threshold}, Budget: Budget{PerDay: o.Budget}}}
	if watermark == math.MinInt64 {
		return j
	}
	due := watermark - o.Delay
	for i := t.head; i < t.rows.len(); i++ {
		switch at := t.rows.at[i]; {
		case at <= bound:
		case at > due:
			j.f.Pending++
		default:
			j.score, j.y = append(j.score, t.rows.score[i]), append(j.y, t.rows.y[i] == Fraud)
			if t.rows.y[i] != Unlabelled {
				j.f.Labels++
			}
		}
	}
	if len(j.score) > 0 {
		j.f.To = datasets.FormatTime(due)
		if bound != math.MinInt64 {
			j.f.From = datasets.FormatTime(bound)
		}
	}
	b := &j.f.Budget
	for i := range t.days {
		d := &t.days[i]
		if d.start <= bound || d.start+datasets.Day > due {
			continue
		}
		b.Days++
		b.Rows += len(d.top)
		for k := range d.top {
			b.Positives += int(max(d.top[k].y, 0))
		}
	}
	return j
}

// compute makes the figures; the sums run over the rows in the order of their coming.
func (j *judged) compute() {
	f := &j.f
	f.Rows = len(j.score)
	brier, loss := 0.0, 0.0
	for i, p := range j.score {
		y := 0.0
		if j.y[i] {
			y = 1
			f.Positives++
		}
		d := p - y
		brier += d * d
		f.Expected += p
		// As evaluate's: a certain mistake is no more certain than the distance of float64's epsilon.
		switch q := min(max(p, 0x1p-52), 1-0x1p-52); {
		case j.y[i]:
			loss -= math.Log(q)
		default:
			loss -= math.Log1p(-q)
		}
		if p >= f.Alerts.Threshold {
			f.Alerts.Rows++
			f.Alerts.Positives += int(y)
		}
	}
	n := float64(f.Rows)
	f.Brier, f.LogLoss = ratio(brier, n), ratio(loss, n)
	f.Alerts.Precision = ratio(float64(f.Alerts.Positives), float64(f.Alerts.Rows))
	f.Alerts.Recall = ratio(float64(f.Alerts.Positives), float64(f.Positives))
	f.Budget.Precision = ratio(float64(f.Budget.Positives), float64(f.Budget.Rows))
	f.Calibration = j.deciles()
	j.ranked()
}

// ratio is nil where it is not defined.
func ratio(a, b float64) *float64 {
	if b == 0 {
		return nil
	}
	r := a / b
	return &r
}

// deciles cuts the rows into ten by score, the least first; rows of one score may fall into two. It sorts the rows,
// equal scores in the order of their coming.
func (j *judged) deciles() []Decile {
	sort.Stable((*byScore)(j))
	out := []Decile{}
	n := len(j.score)
	for d := range 10 {
		from, to := n*d/10, n*(d+1)/10
		if from == to {
			continue
		}
		x := Decile{Rows: to - from, From: j.score[from], To: j.score[to-1]}
		for i := from; i < to; i++ {
			x.Expected += j.score[i]
			if j.y[i] {
				x.Observed++
			}
		}
		x.Expected /= float64(x.Rows)
		x.Observed /= float64(x.Rows)
		out = append(out, x)
	}
	return out
}

type byScore judged

func (s *byScore) Len() int           { return len(s.score) }
func (s *byScore) Less(a, b int) bool { return s.score[a] < s.score[b] }
func (s *byScore) Swap(a, b int) {
	s.score[a], s.score[b] = s.score[b], s.score[a]
	s.y[a], s.y[b] = s.y[b], s.y[a]
}

// ranked is AUC (Hanley & McNeil 1982) and average precision over the sorted rows, from the greatest score down, with
// the operations of package train, so that they have its bits.
func (j *judged) ranked() {
	f := &j.f
	pos := uint64(f.Positives)
	neg := uint64(f.Rows) - pos
	if pos == 0 {
		return
	}
	var twice, tp, n uint64
	var sum float64
	for i := len(j.score); i > 0; {
		var p, q uint64
		for s := j.score[i-1]; i > 0 && j.score[i-1] == s; i-- {
			if j.y[i-1] {
				p++
			} else {
				q++
			}
		}
		twice += q * (2*tp + p)
		tp, n = tp+p, n+p+q
		if p > 0 {
			sum += float64(p) * float64(tp) / float64(n)
		}
	}
	f.AveragePrecision = ratio(sum, float64(pos))
	if neg > 0 {
		auc := float64(twice) / 2 / float64(pos) / float64(neg)
		f.AUC = &auc
	}
}
