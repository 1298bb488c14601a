package features

import (
	"slices"

	"github.com/onmart/onmart/datasets"
)

// Kind says what a feature computes.
type Kind string

// Kinds of the row: computed from the transaction alone.
const (
	Value       Kind = "value"
	Calendar    Kind = "calendar"
	Cyclic      Kind = "cyclic"
	Log         Kind = "log"
	Clip        Kind = "clip"
	Bins        Kind = "bins"
	Hash        Kind = "hash"
	Vocabulary  Kind = "vocabulary"
	Expr        Kind = "expr"
	Length      Kind = "length"
	WordCount   Kind = "words"
	Sentiment   Kind = "sentiment"
	HashedWords Kind = "hashed_words"
)

// Windowed kinds: computed from the entries of the transaction's key.
const (
	Count      Kind = "count"
	Sum        Kind = "sum"
	Mean       Kind = "mean"
	Std        Kind = "std"
	Min        Kind = "min"
	Max        Kind = "max"
	Distinct   Kind = "distinct"
	Mode       Kind = "mode"
	Share      Kind = "share"
	First      Kind = "first"
	SinceFirst Kind = "since_first"
	SinceLast  Kind = "since_last"
	Gap        Kind = "gap"
	Ratio      Kind = "ratio"
	ZScore     Kind = "zscore"
	Last       Kind = "last"
	Distance   Kind = "distance"
	Speed      Kind = "speed"
	Risk       Kind = "risk"
	EWMA       Kind = "ewma"
)

// windowed tells whether the kind reads the entries of a key.
func (k Kind) windowed() bool {
	i := k.info()
	return i != nil && i.windowed
}

// info is the kind's entry in the table, nil for none.
func (k Kind) info() *kindInfo {
	if i := slices.IndexFunc(kindTable, func(x kindInfo) bool { return x.kind == k }); i >= 0 {
		return &kindTable[i]
	}
	return nil
}

// kindInfo is what the parser, the JSON Schema's test, the planner and docs/FEATURES.md say of a kind.
type kindInfo struct {
	kind     Kind
	windowed bool
	of       string          // what `of` is, "" where the kind has none
	types    []datasets.Type // that a column in `of` may have
	must     []string        // fields beside name and kind; key stands for key or keys
	may      []string        // further fields, beside log, unit and words, which every kind has
	unit     string          // of the values where the spec gives none; "of" is the name of the column
	noun     string          // in the words of a feature, for {kind}

	computes string // what it computes, by formula
	none     string // windowed: its value where there are no entries

	// Of windowed kinds: what of the log's order it depends on, beside which transactions stand before; what a
	// transaction costs beside finding the entries of its windows, with n entries in the window; how many bytes an
	// entry has, the 8 of its instant among them; and what a key holds for a window without a beginning.
	order, cost string
	entry       int
	ever        string
}

// has tells whether the kind has a field.
func (i *kindInfo) has(field string) need {
	switch {
	case slices.Contains(i.must, field):
		return must
	case slices.Contains(i.may, field), slices.Contains(commonFields, field):
		return may
	}
	return mustNot
}

// need is whether a kind has a field.
type need uint8

const (
	may need = iota
	must
	mustNot
)

// commonFields are of every kind.
var commonFields = []string{"name", "kind", "log", "unit", "words"}

// Column types.
var (
	numbers  = []datasets.Type{datasets.Int64, datasets.Decimal, datasets.Float64}
	exact    = []datasets.Type{datasets.Int64, datasets.Decimal}
	discrete = []datasets.Type{datasets.Int64, datasets.String}
	whole    = []datasets.Type{datasets.Int64}
	texts    = []datasets.Type{datasets.String}
)

// kinds are the names of all kinds, in the order of the table.
var kinds = func() []string {
	var list []string
	for _, k := range kindTable {
		list = append(list, string(k.kind))
	}
	return list
}()

// calendarInfo is something that a calendar or a clock shows.
type calendarInfo struct {
	name, is string
	cyclic   bool
	flag     bool // 1 or 0
}

// calendarTable is what calendar features can be of, and cyclic ones.
var calendarTable = []calendarInfo{
	{name: "hour", is: "0 to 23", cyclic: true},
	{name: "minute_of_day", is: "0 to 1439", cyclic: true},
	// The code of the fraud handbook has hour <= 6, its text says before 6.
	{name: "night", is: "1 from 00:00:00 to 06:59:59", flag: true},
	{name: "weekday", is: "0 (Monday) to 6", cyclic: true},
	{name: "weekend", is: "1 on Saturday and Sunday", flag: true},
	{name: "day", is: "of the month, from 1", cyclic: true},
	{name: "yearday", is: "day of the year, from 1", cyclic: true},
	{name: "week", is: "of ISO 8601, from 1", cyclic: true},
	{name: "month", is: "from 1", cyclic: true},
	{name: "month_end", is: "days to the last day of the month, 0 on it"},
	{name: "year", is: "such as 2026"},
	{name: "holiday", is: "1 on the days that the spec lists under `holidays`", flag: true},
}

func calendarsWhere(f func(c calendarInfo) bool) []string {
	var list []string
	for _, c := range calendarTable {
		if f(c) {
			list = append(list, c.name)
		}
	}
	return list
}

// calendars are what a calendar feature can be of, cyclics what a cyclic one can; flags are 1 or 0.
var (
	calendars     = calendarsWhere(func(c calendarInfo) bool { return true })
	cyclics       = calendarsWhere(func(c calendarInfo) bool { return c.cyclic })
	calendarFlags = calendarsWhere(func(c calendarInfo) bool { return c.flag })
)

// kindTable is the one place that says which kinds there are. In its formulas v are the values of the entries in the
// window, n their number, K their instants, t the time of the transaction, x the transaction's own value.
var kindTable = []kindInfo{
	{kind: Value, of: "a number", types: numbers, must: []string{"of"}, may: []string{"null", "hidden"},
		unit: "of", noun: "value",
		computes: "the column as it is"},
	{kind: Calendar, of: "a calendar value", must: []string{"of"}, may: []string{"hidden"},
		unit: "", noun: "calendar",
		computes: "a number or flag of the local time"},
	{kind: Cyclic, of: "a cyclic calendar value", must: []string{"of"}, may: []string{"hidden"},
		unit: "", noun: "cycle",
		computes: "two columns, `NAME_sin` and `NAME_cos`, of the angle of the local time in its cycle"},
	{kind: Log, of: "a number", types: numbers, must: []string{"of"}, may: []string{"null", "scale", "hidden"},
		unit: "", noun: "log",
		computes: "ln(1 + x), 0 for x below 0"},
	{kind: Clip, of: "a number", types: numbers, must: []string{"of"}, may: []string{"min", "max", "null", "hidden"},
		unit: "of", noun: "clipped",
		computes: "x, but not below `min` and not above `max`"},
	{kind: Bins, of: "a number", types: numbers, must: []string{"of", "edges"}, may: []string{"null", "hidden"},
		unit: "", noun: "bin",
		computes: "how many of the ascending `edges` are at or below x: 0 to their number"},
	{kind: Hash, of: "a whole number or text", types: discrete, must: []string{"of", "buckets"},
		may: []string{"null", "hidden"}, unit: "", noun: "bucket",
		computes: "a bucket from 0 to `buckets`-1 by a fixed hash"},
	{kind: Vocabulary, of: "a whole number or text", types: discrete, must: []string{"of", "values"},
		may: []string{"null", "hidden"}, unit: "", noun: "code",
		computes: "the place in the list `values`, from 1; 0 for what is not in it"},
	{kind: Expr, must: []string{"expr"}, may: []string{"null", "empty", "scale", "hidden"},
		unit: "", noun: "expression",
		computes: "the expression; a condition is 1 or 0; `empty` where it is not a finite number"},
	{kind: Length, of: "a text", types: texts, must: []string{"of"}, may: []string{"null", "hidden"},
		unit: "characters", noun: "length",
		computes: "characters of the text"},
	{kind: WordCount, of: "a text", types: texts, must: []string{"of"}, may: []string{"null", "hidden"},
		unit: "words", noun: "words",
		computes: "words of the text: runs of letters and digits"},
	{kind: Sentiment, of: "a text", types: texts, must: []string{"of"}, may: []string{"null", "hidden"},
		unit: "", noun: "sentiment",
		computes: "the sentiment of the text by a lexicon, from -1 to 1"},
	{kind: HashedWords, of: "a text", types: texts, must: []string{"of", "buckets"}, may: []string{"null", "hidden"},
		unit: "words", noun: "words",
		computes: "columns `NAME_0` to `NAME_{buckets-1}`: how many words of the text fall into each by a fixed hash"},

	{kind: Count, windowed: true, must: []string{"key", "windows"}, may: []string{"shift", "where", "include_current"},
		unit: "events", noun: "count",
		computes: "n", none: "0",
		cost: "1", entry: 8, ever: "24 bytes"},
	{kind: Sum, windowed: true, of: "a whole number or decimal", types: exact, must: []string{"of", "key", "windows"},
		may: []string{"shift", "where", "include_current", "null"}, unit: "of", noun: "sum",
		computes: "sum v", none: "0",
		cost: "1", entry: 16, ever: "40 bytes"},
	{kind: Mean, windowed: true, of: "a whole number or decimal", types: exact, must: []string{"of", "key", "windows"},
		may: []string{"shift", "where", "include_current", "null", "empty"}, unit: "of", noun: "mean",
		computes: "sum v / n", none: "`empty`, 0",
		cost: "1", entry: 16, ever: "40 bytes"},
	{kind: Std, windowed: true, of: "a whole number or decimal", types: exact, must: []string{"of", "key", "windows"},
		may: []string{"shift", "where", "include_current", "null", "empty"}, unit: "of", noun: "standard deviation",
		computes: "sqrt((n sum v^2 - (sum v)^2) / (n (n-1))), 0 for one entry", none: "`empty`, 0",
		cost: "1", entry: 32, ever: "64 bytes"},
	{kind: Min, windowed: true, of: "a number", types: numbers, must: []string{"of", "key", "windows"},
		may: []string{"shift", "where", "include_current", "null", "empty"}, unit: "of", noun: "least",
		computes: "the least v", none: "`empty`, 0",
		cost: "log n", entry: 16, ever: "40 bytes"},
	{kind: Max, windowed: true, of: "a number", types: numbers, must: []string{"of", "key", "windows"},
		may: []string{"shift", "where", "include_current", "null", "empty"}, unit: "of", noun: "greatest",
		computes: "the greatest v", none: "`empty`, 0",
		cost: "log n", entry: 16, ever: "40 bytes"},
	{kind: Distinct, windowed: true, of: "a whole number or text", types: discrete, must: []string{"of", "key", "windows"},
		may: []string{"shift", "where", "include_current", "null"}, unit: "values", noun: "number of different",
		computes: "how many different values", none: "0",
		cost: "1, by a table of the values", entry: 16,
		ever: "32 bytes and 8 a value up to 1,024 values, then 4 KiB"},
	{kind: Mode, windowed: true, of: "a whole number", types: whole, must: []string{"of", "key", "windows"},
		may: []string{"shift", "where", "include_current", "null", "empty"}, unit: "", noun: "most frequent",
		computes: "the most frequent value, of equally frequent ones the least", none: "`empty`, 0",
		cost: "1, by a table of the values", entry: 16, ever: "32 bytes and a table of the values"},
	{kind: Share, windowed: true, of: "a whole number or text", types: discrete, must: []string{"of", "key", "windows"},
		may: []string{"shift", "where", "include_current", "null"}, unit: "share", noun: "share of the same",
		computes: "(how many v equal x) / n", none: "0",
		cost: "1, by a table of the values", entry: 16, ever: "32 bytes and a table of the values"},
	{kind: First, windowed: true, must: []string{"key", "windows"}, may: []string{"shift", "where"},
		unit: "flag", noun: "first",
		computes: "1 where there are no entries, else 0", none: "1",
		cost: "1", entry: 8, ever: "24 bytes"},
	{kind: SinceFirst, windowed: true, must: []string{"key", "windows"},
		may: []string{"shift", "where", "include_current", "empty"}, unit: "seconds", noun: "time since the first",
		computes: "seconds t - least K", none: "`empty`, the seconds of a sliding window or 0",
		cost: "1", entry: 8, ever: "24 bytes"},
	{kind: SinceLast, windowed: true, must: []string{"key", "windows"}, may: []string{"shift", "where", "empty"},
		unit: "seconds", noun: "time since the last",
		computes: "seconds t - greatest K", none: "`empty`, the seconds of a sliding window or 0",
		cost: "1", entry: 8, ever: "24 bytes"},
	{kind: Gap, windowed: true, must: []string{"key", "windows"},
		may: []string{"shift", "where", "include_current", "empty"}, unit: "seconds", noun: "mean gap",
		computes: "seconds (greatest K - least K) / (n-1)",
		none:     "`empty`, the seconds of a sliding window or 0, for n < 2 too",
		order:    "", cost: "1", entry: 8, ever: "24 bytes"},
	{kind: Ratio, windowed: true, of: "a whole number or decimal", types: exact, must: []string{"of", "key", "windows"},
		may: []string{"shift", "where", "include_current", "null", "empty"}, unit: "", noun: "ratio to the mean",
		computes: "x / (sum v / n)", none: "`empty`, 0; where sum v is 0 too",
		cost: "1", entry: 16, ever: "40 bytes"},
	{kind: ZScore, windowed: true, of: "a whole number or decimal", types: exact, must: []string{"of", "key", "windows"},
		may: []string{"shift", "where", "include_current", "null", "empty"}, unit: "", noun: "z-score",
		computes: "(x - mean) / std, 0 where std is 0", none: "`empty`, 0",
		cost: "1", entry: 32, ever: "64 bytes"},
	{kind: Last, windowed: true, of: "a number", types: numbers, must: []string{"of", "key", "windows"},
		may: []string{"nth", "shift", "where", "null", "empty"}, unit: "of", noun: "last",
		computes: "v of the `nth` last entry, the last where nth is not given", none: "`empty`, 0; for n < nth too",
		order: "(K, partition, seq)", cost: "1", entry: 24, ever: "the last `nth` entries"},
	{kind: Distance, windowed: true, must: []string{"key", "windows"},
		may: []string{"place", "shift", "where", "null", "empty"}, unit: "km", noun: "distance",
		computes: "km from the last entry's place to the transaction's, by haversine (R = 6371.0088 km)",
		none:     "`empty`, 0",
		order:    "(K, partition, seq)", cost: "1", entry: 32, ever: "the last entry"},
	{kind: Speed, windowed: true, must: []string{"key", "windows"},
		may: []string{"place", "shift", "where", "null", "empty"}, unit: "km/h", noun: "speed",
		computes: "distance / (t - K of the last entry, 1 second at least)", none: "`empty`, 0",
		order: "(K, partition, seq)", cost: "1", entry: 32, ever: "the last entry"},
	{kind: Risk, windowed: true, must: []string{"key", "windows"}, may: []string{"where", "prior", "empty"},
		unit: "share", noun: "risk",
		computes: "(frauds + rate weight) / (n + weight), K being when the label is known",
		none:     "the prior's rate; without one `empty`, 0",
		order:    "(K, partition, seq) of labels", cost: "1", entry: 16,
		ever: "40 bytes, and entries until their labels are known"},
	{kind: EWMA, windowed: true, of: "a whole number or decimal", types: exact, must: []string{"of", "key", "half_life"},
		may: []string{"shift", "where", "null", "empty"}, unit: "of", noun: "recent mean",
		computes: "mean of all v, each weighted by 2^(-(K of the last - its own K) / half_life)", none: "`empty`, 0",
		order: "K; what comes more than `lateness` late is left out", cost: "1", entry: 0, ever: "24 bytes"},
}
