package fraud

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/datasets"
	"pgregory.net/rapid"
)

const day0 = 1_522_540_800_000_000 // 2018-04-01

// makeRows builds rows from (day, card, fraud); the hour follows the place.
func makeRows(list [][3]int) *Rows {
	r := &Rows{}
	most := 0
	for i, x := range list {
		r.Time = append(r.Time, day0+int64(x[0])*datasets.Day+int64(i%24)*datasets.Hour)
		r.Card = append(r.Card, int32(x[1]))
		r.Y = append(r.Y, x[2] == 1)
		most = max(most, x[1])
	}
	for c := range most + 1 {
		r.Cards = append(r.Cards, fmt.Sprint(c))
	}
	return r
}

func TestKnownCardsLeaveByTheBook(t *testing.T) {
	// Training starts on day 10 and lasts 7 days; delay 7 d. Card 0 is defrauded before training, 1 in
	// it, 2 on its last day, 3 on the day after, 4 never.
	history := makeRows([][3]int{{9, 0, 1}, {10, 1, 1}, {16, 2, 1}, {17, 3, 1}, {18, 3, 1}, {16, 4, 0}})
	known := newKnown(history, datasets.Range{From: day0 + 10*datasets.Day, To: day0 + 100*datasets.Day})
	var list [][3]int
	for d := 23; d <= 26; d++ {
		for c := range 5 {
			list = append(list, [3]int{d, c, 0})
		}
	}
	rows := makeRows(list)
	p := Protocol{Known: known, Delay: 7 * datasets.Day}
	var got []string
	for _, i := range p.Keep(rows) {
		got = append(got, fmt.Sprintf("%d:%d", list[i][0], list[i][1]))
	}
	// On day 24 frauds up to day 16 are known; card 3's of day 17 is known on day 25.
	want := "23:0 23:2 23:3 23:4 24:0 24:3 24:4 25:0 25:4 26:0 26:4"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("kept %s, want %s", s, want)
	}
}

// bookCardPrecision is the handbook's card_precision_top_k written plainly: sets and full sorts.
func bookCardPrecision(rows *Rows, scores []float64, k int) float64 {
	var allDays []int64
	for _, t := range rows.Time {
		if d := t / datasets.Day; !slices.Contains(allDays, d) {
			allDays = append(allDays, d)
		}
	}
	slices.Sort(allDays)
	detected := map[int32]bool{}
	var sum float64
	for _, d := range allDays {
		score, fraud := map[int32]float64{}, map[int32]bool{}
		for i, c := range rows.Card {
			if rows.Time[i]/datasets.Day != d || detected[c] {
				continue
			}
			if s, ok := score[c]; !ok || scores[i] > s {
				score[c] = scores[i]
			}
			fraud[c] = fraud[c] || rows.Y[i]
		}
		var cards []int32
		for c := int32(0); int(c) < len(rows.Cards); c++ {
			if _, ok := score[c]; ok {
				cards = append(cards, c)
			}
		}
		slices.SortStableFunc(cards, func(a, b int32) int {
			if score[a] > score[b] {
				return -1
			} else if score[a] < score[b] {
				return 1
			}
			return 0
		})
		hits := 0
		for _, c := range cards[:min(k, len(cards))] {
			if fraud[c] {
				hits++
				detected[c] = true
			}
		}
		sum += float64(hits) / float64(k)
	}
	return sum / float64(len(allDays))
}

func TestCardPrecisionIsTheBooks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 900).Draw(t, "n")
		seed := rapid.Uint64().Draw(t, "seed")
		next := func(m uint64) int {
			seed = seed*6364136223846793005 + 1442695040888963407
			return int(seed >> 33 % m)
		}
		var list [][3]int
		var scores []float64
		for range n {
			list = append(list, [3]int{next(3), next(250), btoi(next(10) == 0)})
			scores = append(scores, float64(next(8))/8) // many ties
		}
		rows := makeRows(list)
		e := Evaluate(rows, scores, Protocol{Threshold: .5})
		if want := bookCardPrecision(rows, scores, 100); !(math.Abs(e.CardPrecision100-want) <= 1e-12) {
			t.Errorf("card precision %v, want %v", e.CardPrecision100, want)
		}
		alerts, hits := 0, 0
		for i, s := range scores {
			if s >= .5 {
				alerts++
				hits += btoi(rows.Y[i])
			}
		}
		if got := e.Alerts.PerDay * float64(len(e.Days)); !(math.Abs(got-float64(alerts)) <= 1e-9) {
			t.Errorf("%v alerts, want %d", got, alerts)
		}
		if alerts > 0 && !(math.Abs(e.Alerts.Precision-float64(hits)/float64(alerts)) <= 1e-12) {
			t.Errorf("alert precision %v, want %d of %d", e.Alerts.Precision, hits, alerts)
		}
	})
}

func TestEvaluationCountsAndJSON(t *testing.T) {
	rows := makeRows([][3]int{{0, 0, 0}, {0, 1, 0}, {1, 2, 0}})
	rows.Null = []bool{false, true, false}
	e := Evaluate(rows, []float64{.1, .2, .3}, Protocol{Threshold: .9, AlertsPerDay: 2})
	if e.Rows != 3 || e.Positives != 0 || e.Unlabelled != 1 || len(e.Days) != 2 {
		t.Errorf("%+v", e)
	}
	out, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(out, &m); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"auc", "average_precision"} {
		if v, ok := m[name]; !ok || v != nil {
			t.Errorf("%s is %v without a fraud, want null", name, v)
		}
	}
	if m["card_precision_at_100"] != 0. || m["log_loss"] == nil || m["rows"] != 3. {
		t.Errorf("%s", out)
	}
	alerts := m["alerts"].(map[string]any)
	if alerts["precision"] != nil || alerts["per_day"] != 0. || alerts["budget_per_day"] != 2. {
		t.Errorf("alerts %v", alerts)
	}
	if _, err := json.Marshal(Evaluate(&Rows{}, nil, Protocol{})); err != nil {
		t.Errorf("an evaluation of nothing: %v", err)
	}
}

func TestCardsAreSortedByValue(t *testing.T) {
	schema := &datasets.Schema{Fields: []datasets.Field{
		{Name: datasets.TransDatetime, Type: datasets.Time},
		{Name: datasets.UserID, Type: datasets.Int64},
		{Name: datasets.IsFraud, Type: datasets.Int64, Nullable: true},
		{Name: "A", Type: datasets.Float64},
	}}
	if err := checkColumns(schema, []string{"A"}); err != nil {
		t.Fatal(err)
	}
	c := newCollector([]string{"A"})
	for range 2 {
		b := datasets.NewBatch(schema, 3)
		b.N = 3
		b.Columns[0].Ints = []int64{1, 2, 3}
		b.Columns[1].Ints = []int64{10, 9, 100}
		b.Columns[2].Ints = []int64{1, 0, 0}
		if len(c.rows.Y) > 0 {
			b.Columns[2].Null = []bool{false, false, true}
		}
		b.Columns[3].Floats = []float64{.5, 1, 2}
		c.add(b)
	}
	r := c.finish()
	if got := fmt.Sprint(r.Cards, r.Card, r.Y, r.Null, r.Values, r.Positives(), r.Unlabelled()); got !=
		"[9 10 100] [1 0 2 1 0 2] [true false false true false false] [false false false false false true] [[0.5 1 2 0.5 1 2]] 2 1" {
		t.Error(got)
	}
	err := checkColumns(&datasets.Schema{Fields: schema.Fields[:1]}, []string{"A"})
	if err == nil || !strings.Contains(err.Error(), "user_id") || !strings.Contains(err.Error(), " A") {
		t.Errorf("missing columns: %v", err)
	}
}
