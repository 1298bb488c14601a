package fraud

import (
	"encoding/json"
	"math"
	"sort"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/train"
)

// topCards is the k of card precision@k: the cards that a team can check in a day, in the handbook.
const topCards = 100

// reliabilityBins and curvePoints size what an evaluation carries for drawing.
const (
	reliabilityBins = 10
	curvePoints     = 400
)

// Protocol says how rows are judged.
type Protocol struct {
	// Known takes cards out of a day that were known to be compromised by then; nil takes none out.
	Known *Known
	// Delay is how long after a fraud it is known, in microseconds.
	Delay int64
	// AlertsPerDay and Threshold are the artifact's: a row that scores at least Threshold is an alert.
	AlertsPerDay float64
	Threshold    float64
}

// Known is when each card was first defrauded, from the start of training on.
type Known struct{ first map[string]int64 }

// newKnown collects the frauds of the rows; From is the start of training.
func newKnown(rows *Rows, r datasets.Range) *Known {
	k := &Known{first: map[string]int64{}}
	for i, y := range rows.Y {
		if !y || !r.Contains(rows.Time[i]) {
			continue
		}
		card := rows.Cards[rows.Card[i]]
		if t, ok := k.first[card]; !ok || rows.Time[i] < t {
			k.first[card] = rows.Time[i]
		}
	}
	return k
}

// before tells whether a card is known to be compromised when the UTC day that begins at day begins: it
// had a fraud more than delay before. With a delay of whole days that is the handbook's removal: for
// test day D, cards with a fraud on any day from the start of training to D-delay-1 (Le Borgne et al.,
// "Reproducible Machine Learning for Credit Card Fraud Detection", get_train_test_set).
func (k *Known) before(card string, day, delay int64) bool {
	t, ok := k.first[card]
	return ok && t < day-delay
}

// Keep returns the places of the rows whose card was not known to be compromised when their day began.
func (p *Protocol) Keep(rows *Rows) []int {
	keep := make([]int, 0, len(rows.Y))
	for i, t := range rows.Time {
		if p.Known == nil || !p.Known.before(rows.Cards[rows.Card[i]], startOfDay(t), p.Delay) {
			keep = append(keep, i)
		}
	}
	return keep
}

func startOfDay(t int64) int64 {
	d := t % datasets.Day
	if d < 0 {
		d += datasets.Day
	}
	return t - d
}

// DayResult is one UTC day of an evaluation.
type DayResult struct {
	Day       string `json:"day"` // such as 2018-08-08
	Rows      int    `json:"rows"`
	Positives int    `json:"positives"`
	// Cards that had a fraud that day and were not detected before; CardsFound of them are among the
	// 100 cards with the greatest scores.
	Cards           int     `json:"cards"`
	CardsFound      int     `json:"cards_found"`
	CardPrecision   float64 `json:"card_precision_at_100"`
	Alerts          int     `json:"alerts"`
	AlertsPositives int     `json:"alerts_positives"`
}

// AlertResult is what the threshold would have raised on these rows.
type AlertResult struct {
	Threshold float64 `json:"threshold"`
	Budget    float64 `json:"budget_per_day"`
	PerDay    float64 `json:"per_day"`
	Precision float64 `json:"precision"`
	Recall    float64 `json:"recall"`
}

// Evaluation is how well scores find frauds. A metric that is not defined on the rows is NaN, and null
// in JSON. Log loss, Brier score, ECE and Reliability take the scores as probabilities.
type Evaluation struct {
	Rows             int           `json:"rows"`
	Positives        int           `json:"positives"`
	Unlabelled       int           `json:"unlabelled"`     // rows without a label, counted as negative
	ExcludedKnown    int           `json:"excluded_known"` // rows of cards known to be compromised
	AUC              float64       `json:"auc"`
	AveragePrecision float64       `json:"average_precision"`
	CardPrecision100 float64       `json:"card_precision_at_100"`
	LogLoss          float64       `json:"log_loss"`
	Brier            float64       `json:"brier"`
	ECE              float64       `json:"ece"`
	Alerts           AlertResult   `json:"alerts"`
	Days             []DayResult   `json:"days"`
	ROC              []train.Point `json:"roc"`
	PR               []train.Point `json:"pr"`
	Reliability      []train.Bin   `json:"reliability"`
}

// MarshalJSON writes undefined metrics as null.
func (e Evaluation) MarshalJSON() ([]byte, error) {
	type plain Evaluation
	type alerts AlertResult
	return json.Marshal(struct {
		plain
		AUC              *float64 `json:"auc"`
		AveragePrecision *float64 `json:"average_precision"`
		CardPrecision100 *float64 `json:"card_precision_at_100"`
		LogLoss          *float64 `json:"log_loss"`
		Brier            *float64 `json:"brier"`
		ECE              *float64 `json:"ece"`
		Alerts           any      `json:"alerts"`
	}{
		plain(e), orNull(e.AUC), orNull(e.AveragePrecision), orNull(e.CardPrecision100),
		orNull(e.LogLoss), orNull(e.Brier), orNull(e.ECE),
		struct {
			alerts
			PerDay    *float64 `json:"per_day"`
			Precision *float64 `json:"precision"`
			Recall    *float64 `json:"recall"`
		}{alerts(e.Alerts), orNull(e.Alerts.PerDay), orNull(e.Alerts.Precision), orNull(e.Alerts.Recall)},
	})
}

func orNull(x float64) *float64 {
	if math.IsNaN(x) {
		return nil
	}
	return &x
}

// Evaluate judges the scores of the rows, one a row, greater is more suspicious.
func Evaluate(rows *Rows, scores []float64, p Protocol) Evaluation {
	keep := p.Keep(rows)
	y, s := make([]bool, len(keep)), make([]float64, len(keep))
	e := Evaluation{Rows: len(keep), ExcludedKnown: len(rows.Y) - len(keep)}
	for k, i := range keep {
		y[k], s[k] = rows.Y[i], scores[i]
		if y[k] {
			e.Positives++
		}
		if rows.Null != nil && rows.Null[i] {
			e.Unlabelled++
		}
	}
	e.AUC = train.AUC(y, s)
	e.AveragePrecision = train.AveragePrecision(y, s)
	e.LogLoss = train.LogLoss(y, s)
	e.Brier = train.Brier(y, s)
	e.Reliability = train.Reliability(y, s, reliabilityBins)
	e.ECE = train.ECE(e.Reliability)
	e.ROC = train.Thin(train.ROC(y, s), curvePoints)
	e.PR = train.Thin(train.PR(y, s), curvePoints)
	e.Days = days(rows, keep, scores, p.Threshold)
	e.CardPrecision100 = 0
	alerts, hits := 0, 0
	for _, d := range e.Days {
		e.CardPrecision100 += d.CardPrecision
		alerts += d.Alerts
		hits += d.AlertsPositives
	}
	n := float64(len(e.Days))
	e.CardPrecision100 /= n
	e.Alerts = AlertResult{
		Threshold: p.Threshold, Budget: p.AlertsPerDay, PerDay: float64(alerts) / n,
		Precision: float64(hits) / float64(alerts), Recall: float64(hits) / float64(e.Positives),
	}
	return e
}

// days judges each UTC day that has rows. Card precision@100 is the handbook's: a card's score is its
// greatest of the day; the 100 cards with the greatest scores are checked, ties in the order of cards; the
// share of 100 that had a fraud that day is the day's precision; a card found leaves the days after.
func days(rows *Rows, keep []int, scores []float64, threshold float64) []DayResult {
	byDay := map[int64][]int{}
	for _, i := range keep {
		d := startOfDay(rows.Time[i])
		byDay[d] = append(byDay[d], i)
	}
	starts := make([]int64, 0, len(byDay))
	for d := range byDay {
		starts = append(starts, d)
	}
	sort.Slice(starts, func(i, j int) bool { return starts[i] < starts[j] })
	found := make([]bool, len(rows.Cards))
	out := make([]DayResult, 0, len(starts))
	for _, start := range starts {
		d := DayResult{Day: datasets.FormatTime(start)[:10], Rows: len(byDay[start])}
		for _, i := range byDay[start] {
			d.Positives += btoi(rows.Y[i])
			if scores[i] >= threshold {
				d.Alerts++
				d.AlertsPositives += btoi(rows.Y[i])
			}
		}
		cards := cardsOf(rows, byDay[start], scores, found)
		for k, c := range cards {
			if !c.fraud {
				continue
			}
			d.Cards++
			if k < topCards {
				d.CardsFound++
				found[c.card] = true
			}
		}
		d.CardPrecision = float64(d.CardsFound) / topCards
		out = append(out, d)
	}
	return out
}

// cardDay is one card on one day: its greatest score, and whether any of its rows is a fraud.
type cardDay struct {
	card  int32
	score float64
	fraud bool
}

// cardsOf lists the cards of the rows that were not found before, greatest score first.
func cardsOf(rows *Rows, places []int, scores []float64, found []bool) []cardDay {
	at := map[int32]int{}
	var cards []cardDay
	for _, i := range places {
		c := rows.Card[i]
		if found[c] {
			continue
		}
		k, ok := at[c]
		if !ok {
			k = len(cards)
			at[c] = k
			cards = append(cards, cardDay{c, math.Inf(-1), false})
		}
		cards[k].score = max(cards[k].score, scores[i])
		cards[k].fraud = cards[k].fraud || rows.Y[i]
	}
	sort.Slice(cards, func(i, j int) bool {
		if cards[i].score != cards[j].score {
			return cards[i].score > cards[j].score
		}
		return cards[i].card < cards[j].card
	})
	return cards
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}
