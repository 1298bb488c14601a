package features

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/onmart/onmart/datasets"
)

// What stands for something in names and words.
var (
	nameHolders = []string{"kind", "of", "key", "w", "n"}
	wordHolders = []string{"value", "typical", "window", "kind", "of", "key", "w", "n"}
	holder      = regexp.MustCompile(`\{[^{}]*\}`)
)

// placeholders reports those that are not known.
func (r *reader) placeholders(t text, what string, known []string) {
	for _, m := range holder.FindAllStringIndex(t.s, -1) {
		if h := t.s[m[0]+1 : m[1]-1]; !slices.Contains(known, h) {
			r.faults.add(t.at(m[0]), "%s: unknown placeholder {%s}%s; there are {%s}", what, h,
				suggest(h, known), strings.Join(known, "}, {"))
		}
	}
}

// checkNames reports placeholders that nothing can be put into.
func (r *reader) checkNames(t *template, what string, infos []*kindInfo) {
	r.placeholders(t.name, what, nameHolders)
	windowed := slices.ContainsFunc(infos, func(i *kindInfo) bool { return i.windowed })
	for _, x := range [][2]string{{"{key}", "has no key"}, {"{w}", "has no windows"}, {"{n}", "has no windows"},
		{"{of}", "has no of"}} {
		h, why := x[0], x[1]
		i := strings.Index(t.name.s, h)
		if i < 0 {
			continue
		}
		missing := !windowed || !has(t, "windows")
		switch h {
		case "{of}":
			missing = !has(t, "of")
		case "{key}":
			missing = !windowed
		}
		if missing {
			r.faults.add(t.name.at(i), "%s: %s cannot be filled in: it %s", what, h, why)
		}
	}
	if i := strings.Index(t.name.s, "{n}"); i >= 0 {
		for _, w := range t.windows {
			if w.form == calendarUnit || w.form == ever {
				r.faults.add(w.text.pos, "%s: windows: %s has no number for {n}: write {w}", what, w.text.s)
			}
		}
	}
}

// expand gives the features of a template: kinds outermost, then columns, then keys, and windows innermost. A kind
// without an `of` is there once, not once for each column.
func (r *reader) expand(t *template) []featureDef {
	var list []featureDef
	for _, k := range t.kinds {
		info := Kind(k.s).info()
		ofs, keys, windows := []text{{}}, [][]text{nil}, []windowDef{{}}
		if info.has("of") != mustNot {
			ofs = t.ofs
		}
		if info.windowed {
			keys = t.keys
		}
		if info.has("windows") != mustNot {
			windows = t.windows
		}
		// A list of which nothing is left has faults already; what else is wrong with the feature is said all the same.
		ofs, keys, windows = orOne(ofs), orOne(keys), orOne(windows)
		for _, of := range ofs {
			for _, key := range keys {
				for _, w := range windows {
					list = append(list, t.feature(info, of, key, w))
				}
			}
		}
	}
	return list
}

func orOne[T any](list []T) []T {
	if len(list) == 0 {
		return make([]T, 1)
	}
	return list
}

// feature is one of a template's.
func (t *template) feature(info *kindInfo, of text, key []text, w windowDef) featureDef {
	f := t.featureDef
	f.kind, f.of, f.keys, f.window = info.kind, of, key, w
	if info.has("empty") == mustNot {
		f.empty = nil
	}
	if info.has("null") == mustNot {
		f.null, f.skipNull = nil, false
	}
	if info.kind != Last {
		f.nth = 0
	}
	if info.kind != EWMA {
		f.halfLife = 0
	}
	if info.kind != Risk {
		f.priorRate, f.priorWeight = 0, 0
	}
	if info.kind != Distance && info.kind != Speed {
		f.place = [2]text{}
	} else if f.place[0].s == "" {
		f.place = [2]text{{datasets.TransLong, t.at}, {datasets.TransLat, t.at}}
	}
	f.name.s = t.fill(t.name.s, info, of, key, w)
	window, number := w.words()
	if of.s == "" {
		f.words = strings.ReplaceAll(f.words, " of {of}", "")
	}
	f.words = strings.NewReplacer("{window}", window, "{kind}", info.noun, "{of}", of.s, "{key}", keyWords(key, " and "),
		"{w}", w.text.s, "{n}", number).Replace(f.words)
	if f.unit == "" {
		switch f.unit = info.unit; {
		case f.unit == "of":
			f.unit = of.s
		case info.kind == Calendar && slices.Contains(calendarFlags, of.s):
			f.unit = "flag"
		}
	}
	return f
}

// fill puts a feature's own into the placeholders of its name. Where a kind has no column, {of} goes with one
// underscore beside it.
func (t *template) fill(name string, info *kindInfo, of text, key []text, w windowDef) string {
	if of.s == "" {
		name = strings.ReplaceAll(name, "_{of}", "")
		name = strings.ReplaceAll(name, "{of}_", "")
	}
	_, number := w.words()
	return strings.NewReplacer("{kind}", string(info.kind), "{of}", of.s, "{key}", keyWords(key, "_x_"),
		"{w}", strings.ReplaceAll(w.text.s, " ", ""), "{n}", number).Replace(name)
}

// keyWords are the columns of a key without _id.
func keyWords(key []text, between string) string {
	var list []string
	for _, k := range key {
		list = append(list, strings.TrimSuffix(k.s, "_id"))
	}
	return strings.Join(list, between)
}

// words writes a window as in a sentence, and its number: 7d is "7 days" and 7, last 5 "the last 5" and 5.
func (w windowDef) words() (sentence, number string) {
	switch w.form {
	case sliding:
		number = strings.TrimRight(w.text.s, "smhdw")
		return humanSpan(w.text.s, number), number
	case calendarUnit:
		return "the " + w.unit + " so far", ""
	case lastN:
		number = strconv.Itoa(w.n)
		return "the last " + number, number
	case ever:
		return "all time", ""
	}
	return "", ""
}

// humanSpan writes a duration as in a sentence: 7d is "7 days", 24h "24 hours".
func humanSpan(w, number string) string {
	unit := map[byte]string{'s': "second", 'm': "minute", 'h': "hour", 'd': "day", 'w': "week"}[w[len(w)-1]]
	if number == "1" {
		return "1 " + unit
	}
	return number + " " + unit + "s"
}

// describe is what the values count and a reason in words, for people.
func (f *featureDef) describe() (unit, words string) { return f.unit, f.words }

// columns are the names of the feature's columns: one but for two kinds.
func (f *featureDef) columns() []string {
	switch f.kind {
	case Cyclic:
		return []string{f.name.s + "_sin", f.name.s + "_cos"}
	case HashedWords:
		var list []string
		for i := range f.buckets {
			list = append(list, f.name.s+"_"+strconv.Itoa(i))
		}
		return list
	}
	return []string{f.name.s}
}
