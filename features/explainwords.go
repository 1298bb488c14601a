package features

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/onmart/onmart/datasets"
)

// sentence says in words what a feature is.
func (s *Spec) sentence(f *featureDef) string {
	switch {
	case f.kind == EWMA:
		return fmt.Sprintf("mean of %s over all %s, each weighing half as much after %s%s", f.of.s, f.purchases(s),
			spanText(f.halfLife), f.tail())
	case f.kind.windowed():
		return f.windowedSentence(s) + f.tail()
	}
	return s.rowSentence(f)
}

// purchases names the entries of a key: "the user's purchases", "the purchases of the same user and store".
func (f *featureDef) purchases(s *Spec) string {
	var nouns []string
	for _, k := range f.keys {
		nouns = append(nouns, strings.TrimSuffix(k.s, "_id"))
	}
	if len(nouns) == 1 {
		return "the " + nouns[0] + "'s purchases"
	}
	return "the purchases of the same " + strings.Join(nouns[:len(nouns)-1], ", ") + " and " + nouns[len(nouns)-1]
}

// entriesText is the entries in the window.
func (f *featureDef) entriesText(s *Spec) string {
	p := f.purchases(s)
	if f.where.s != "" {
		p += " with (" + f.where.s + ")"
	}
	switch f.window.form {
	case sliding:
		return p + " of the latest " + strings.TrimPrefix(spanText(f.window.span), "1 ")
	case calendarUnit:
		return p + " since the " + f.window.unit + " began"
	case lastN:
		return "the last " + strconv.Itoa(f.window.n) + " of " + p
	}
	return "all of " + p + " so far"
}

// tail is what changes the entries.
func (f *featureDef) tail() string {
	s := ""
	if f.shiftByDelay {
		s += ", as they were the label delay ago"
	} else if f.shift > 0 {
		s += ", as they were " + spanText(f.shift) + " ago"
	}
	if f.includeCurrent {
		s += ", this one included"
	}
	if f.skipNull {
		s += "; those without a value are not counted"
	}
	return s
}

func (f *featureDef) windowedSentence(s *Spec) string {
	all, of := f.entriesText(s), f.of.s
	switch f.kind {
	case Count:
		return "number of " + all
	case Sum:
		return "sum of " + of + " over " + all
	case Mean:
		return "mean of " + of + " over " + all
	case Std:
		return "standard deviation of " + of + " over " + all
	case Min:
		return "least " + of + " of " + all
	case Max:
		return "greatest " + of + " of " + all
	case Distinct:
		return "number of different " + of + " in " + all
	case Mode:
		return "most frequent " + of + " of " + all
	case Share:
		return "share of this purchase's " + of + " in " + all
	case First:
		return "1 where there are none of " + all + ", otherwise 0"
	case SinceFirst:
		return "seconds since the first of " + all
	case SinceLast:
		return "seconds since the last of " + all
	case Gap:
		return "mean seconds from one to the next of " + all
	case Ratio:
		return "this purchase's " + of + " divided by its mean over " + all
	case ZScore:
		return "this purchase's " + of + " less its mean, in standard deviations, over " + all
	case Last:
		if f.nth > 1 {
			return fmt.Sprintf("%s of the last but %d of %s", of, f.nth-1, all)
		}
		return of + " of the last of " + all
	case Distance:
		return "kilometres to the place of the last of " + all
	case Speed:
		return "kilometres an hour from the place of the last of " + all
	case Risk:
		t := fmt.Sprintf("share of %s in %s, as labels were known %s after each", s.label.column.s, all,
			spanText(s.label.delay))
		if f.priorWeight > 0 {
			t += fmt.Sprintf(", with %g more at a share of %g", f.priorWeight, f.priorRate)
		}
		return t
	}
	return string(f.kind) + " of " + all
}

func (s *Spec) rowSentence(f *featureDef) string {
	null := ""
	if f.null != nil {
		null = fmt.Sprintf(", %g where it has no value", *f.null)
	}
	calendar := func() string {
		if i := slices.IndexFunc(calendarTable, func(c calendarInfo) bool { return c.name == f.of.s }); i >= 0 {
			return calendarTable[i].is
		}
		return ""
	}
	t := ""
	switch f.kind {
	case Value:
		t = f.of.s + " of the purchase"
	case Calendar:
		return fmt.Sprintf("%s of the local time in %s: %s", f.of.s, s.timezone, calendar())
	case Cyclic:
		return fmt.Sprintf("sine and cosine of %s of the local time in %s, one turn a cycle", f.of.s, s.timezone)
	case Log:
		t = "natural logarithm of 1 + " + f.of.s
	case Clip:
		t = f.of.s
		if f.min != nil {
			t += fmt.Sprintf(", but not below %g", *f.min)
		}
		if f.max != nil {
			t += fmt.Sprintf(", but not above %g", *f.max)
		}
	case Bins:
		t = "how many of the edges " + numbersText(f.edges) + " are at or below " + f.of.s
	case Hash:
		t = fmt.Sprintf("%s in one of %d buckets by a fixed hash", f.of.s, f.buckets)
	case Vocabulary:
		t = fmt.Sprintf("place of %s in a list of %d values, 0 for others", f.of.s, len(f.values))
	case Expr:
		t = f.expr.s
	case Length:
		t = "characters of " + f.of.s
	case WordCount:
		t = "words of " + f.of.s
	case Sentiment:
		t = "sentiment of " + f.of.s + " by a lexicon, from -1 to 1"
	case HashedWords:
		t = fmt.Sprintf("words of %s in %d buckets by a fixed hash, a column each", f.of.s, f.buckets)
	default:
		t = string(f.kind) + " of " + f.of.s
	}
	return t + null
}

// numbersText lists numbers, the middle of many left out.
func numbersText(v []float64) string {
	var list []string
	for i, x := range v {
		if len(v) > 6 && i == 3 {
			list = append(list, "...")
		}
		if len(v) <= 6 || i < 3 || i == len(v)-1 {
			list = append(list, strconv.FormatFloat(x, 'g', -1, 64))
		}
	}
	return strings.Join(list, ", ")
}

// spanText is a duration in words: 7 days, 1 hour.
func spanText(us int64) string {
	for _, u := range []struct {
		n    int64
		name string
	}{{datasets.Day, "day"}, {datasets.Hour, "hour"}, {datasets.Minute, "minute"}, {datasets.Second, "second"}} {
		if us != 0 && us%u.n == 0 || u.n == datasets.Second {
			if n := us / u.n; n != 1 {
				return strconv.FormatInt(n, 10) + " " + u.name + "s"
			}
			return "1 " + u.name
		}
	}
	return ""
}

// reads finds the columns of the data, and the tables, that a feature is made of.
func (s *Spec) sources(f *featureDef) (columns, tables []string) {
	seen := map[string]bool{}
	var add func(name string)
	of := func(f *featureDef) {
		switch f.kind {
		case Calendar, Cyclic:
			add(datasets.TransDatetime)
			return
		case Risk:
			add(s.label.column.s)
		}
		for _, name := range append(append([]text{f.of}, f.place[:]...), f.keys...) {
			add(name.s)
		}
		for _, r := range f.reads {
			add(r.s)
		}
		if f.kind.windowed() {
			add(datasets.TransDatetime)
		}
	}
	add = func(name string) {
		if name == "" || seen[name] {
			return
		}
		seen[name] = true
		for i := range s.features {
			if g := &s.features[i]; g != f && slices.Contains(g.columns(), name) {
				of(g)
				return
			}
		}
		for i := range s.joins {
			j := &s.joins[i]
			if slices.ContainsFunc(j.take, func(t text) bool { return j.prefix+t.s == name }) {
				if !slices.Contains(tables, j.table.s) {
					tables = append(tables, j.table.s)
				}
				for _, on := range j.on {
					add(on.s)
				}
				return
			}
		}
		columns = append(columns, name)
	}
	of(f)
	return columns, tables
}
