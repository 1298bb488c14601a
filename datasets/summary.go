package datasets

import (
	"context"
	"math"
	"slices"
)

// Summary is what a data set holds, found by reading all of it.
type Summary struct {
	Dir     string           `json:"dir"`
	Kind    Kind             `json:"kind"`
	ID      string           `json:"id"`
	Rows    int64            `json:"rows"`
	From    string           `json:"from,omitempty"` // first and last event time, RFC 3339
	To      string           `json:"to,omitempty"`
	Parts   int              `json:"parts"`
	Bytes   int64            `json:"bytes"`
	Columns []ColumnSummary  `json:"columns"`
	Days    []DayCount       `json:"days,omitempty"` // UTC days from the first to the last, empty ones too
	Counts  map[string]int64 `json:"counts,omitempty"`
	Created Created          `json:"created"`
	Sources []Source         `json:"sources,omitempty"`
}

// ColumnSummary is one column of a Summary. Min and Max are absent where no row has a value.
type ColumnSummary struct {
	Name     string   `json:"name"`
	Type     Type     `json:"type"`
	Scale    int      `json:"scale,omitempty"`
	Nulls    int64    `json:"nulls"`
	Min      string   `json:"min,omitempty"`
	Max      string   `json:"max,omitempty"`
	Mean     *float64 `json:"mean,omitempty"`     // of numbers that are no names
	Distinct int64    `json:"distinct,omitempty"` // of texts and whole numbers; DistinctLimit is that or more
}

// DayCount is the rows of one day.
type DayCount struct {
	Day  string `json:"day"`
	Rows int64  `json:"rows"`
}

const (
	// DistinctLimit is where distinct values are no longer counted.
	DistinctLimit = 100_000
	// daysLimit is the longest span listed day by day: thirty years.
	daysLimit = 11_000
)

// Summarize reads a data set, verifies its checksums on the way, and tells what it holds.
// Progress, where given, is called with the rows read so far.
func Summarize(ctx context.Context, d *Dataset, progress func(rows int64)) (*Summary, error) {
	m := d.Manifest()
	s := &Summary{Dir: d.Dir(), Kind: m.Kind, ID: m.ID, Rows: m.Rows, Parts: len(m.Parts), Counts: m.Counts, Created: m.Created, Sources: m.Sources}
	for _, p := range m.Parts {
		s.Bytes += p.Bytes
	}
	timed := m.Schema.HasTime() && m.Rows > 0
	if timed {
		s.From, s.To = FormatTime(m.From), FormatTime(m.To)
	}
	columns := make([]columnStats, len(m.Schema.Fields))
	for i := range columns {
		columns[i] = newColumnStats(&m.Schema.Fields[i])
	}
	days := map[int64]int64{}
	var rows int64
	err := d.Read(ctx, ReadOptions{}, func(b *Batch) error {
		for i := range columns {
			columns[i].add(&b.Columns[i], b.N)
		}
		for _, us := range rowTimes(b) {
			days[floorDay(us)]++
		}
		if rows += int64(b.N); progress != nil {
			progress(rows)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range columns {
		s.Columns = append(s.Columns, columns[i].summary())
	}
	if timed {
		s.Days = listDays(days, floorDay(m.From), floorDay(m.To))
	}
	return s, nil
}

func floorDay(us int64) int64 {
	day := us / Day
	if us%Day < 0 {
		day--
	}
	return day
}

func listDays(days map[int64]int64, from, to int64) []DayCount {
	if to-from >= daysLimit {
		return nil
	}
	var out []DayCount
	for day := from; day <= to; day++ {
		out = append(out, DayCount{FormatTime(day * Day)[:10], days[day]})
	}
	return out
}

// columnStats gathers a ColumnSummary.
type columnStats struct {
	f         *Field
	rows      int64
	nulls     int64
	minI      int64
	maxI      int64
	minF      float64
	maxF      float64
	minS      string
	maxS      string
	sum       float64
	ints      map[int64]struct{}
	texts     map[string]struct{}
	any, full bool // a value was seen; distinct values are no longer counted
}

func newColumnStats(f *Field) columnStats {
	return columnStats{f: f, minI: math.MaxInt64, maxI: math.MinInt64, minF: math.Inf(1), maxF: math.Inf(-1),
		ints: map[int64]struct{}{}, texts: map[string]struct{}{}}
}

func (s *columnStats) add(c *Column, n int) {
	s.rows += int64(n)
	for i := range n {
		if c.IsNull(i) {
			s.nulls++
			continue
		}
		switch s.f.Type {
		case Float64:
			s.addFloat(c.Floats[i])
		case String:
			s.addText(c.Strings[i])
		default:
			s.addInt(c.Ints[i])
		}
		s.any = true
	}
}

func (s *columnStats) addFloat(v float64) {
	s.minF, s.maxF = min(s.minF, v), max(s.maxF, v)
	s.sum += v
}

func (s *columnStats) addInt(v int64) {
	s.minI, s.maxI = min(s.minI, v), max(s.maxI, v)
	s.sum += float64(v)
	if s.f.Type == Int64 && !s.full {
		s.ints[v] = struct{}{}
		s.full = len(s.ints) >= DistinctLimit
	}
}

func (s *columnStats) addText(v string) {
	if !s.any || v < s.minS {
		s.minS = v
	}
	if !s.any || v > s.maxS {
		s.maxS = v
	}
	if !s.full {
		s.texts[v] = struct{}{}
		s.full = len(s.texts) >= DistinctLimit
	}
}

// summaryText is the most of a text that a summary shows.
const summaryText = 40

func (s *columnStats) summary() ColumnSummary {
	out := ColumnSummary{Name: s.f.Name, Type: s.f.Type, Scale: s.f.Scale, Nulls: s.nulls}
	if !s.any {
		return out
	}
	least := Column{Ints: []int64{s.minI}, Floats: []float64{s.minF}, Strings: []string{bounded([]byte(s.minS), summaryText)}}
	greatest := Column{Ints: []int64{s.maxI}, Floats: []float64{s.maxF}, Strings: []string{bounded([]byte(s.maxS), summaryText)}}
	out.Min, out.Max = FormatValue(s.f, &least, 0), FormatValue(s.f, &greatest, 0)
	switch {
	case s.f.Type == String:
		out.Distinct = int64(len(s.texts))
	case s.f.Type == Int64:
		out.Distinct = int64(len(s.ints))
	}
	names := []string{TransID, Line, UserID, StoreID, ProductID, Seq}
	if s.f.Type == Float64 || s.f.Type == Decimal || s.f.Type == Int64 && !slices.Contains(names, s.f.Name) {
		mean := s.sum / float64(s.rows-s.nulls)
		if s.f.Type == Decimal {
			mean /= float64(pow10[s.f.Scale])
		}
		out.Mean = &mean
	}
	return out
}
