package features

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml/ast"

	"github.com/onmart/onmart/internal/yamlread"
)

// The fields of a feature and its parts; which kind has which stands in kindTable. spec.schema.json has the same.
var (
	featureFields = []string{"name", "kind", "kinds", "of", "key", "keys", "windows", "shift", "where",
		"include_current", "null", "empty", "nth", "half_life", "prior", "place", "expr", "edges", "min", "max",
		"buckets", "values", "scale", "hidden", "log", "unit", "words"}
	priorFields = []string{"rate", "weight"}
)

// Bounds of what a spec may ask for. Entries of a last n window and the names of a template are held in memory;
// hashed words are columns of a data set.
const (
	maxLast     = 1_000_000
	maxFeatures = 10_000 // and columns
	maxBuckets  = 1 << 30
	maxColumns  = 4096 // of one feature of hashed words
	maxScale    = 18   // as of a column
)

// template is a feature as written: it gives one for each of its kinds, columns, keys and windows.
type template struct {
	featureDef                     // what its features have in common
	seen       map[string]position // places of the fields that are there
	kinds      []text
	ofs        []text
	keys       [][]text
	windows    []windowDef
	noNull     text // null: skip
	shiftText  text
}

func (r *reader) features(n ast.Node) []featureDef {
	seq, ok := n.(*ast.SequenceNode)
	if !ok || len(seq.Values) == 0 {
		r.faults.add(place(n), "features: want a list with at least one feature")
		return nil
	}
	var list []featureDef
	columns := 0
	for _, v := range seq.Values {
		t := r.template(v)
		if t == nil {
			continue
		}
		size := len(t.kinds) * max(len(t.ofs), 1) * max(len(t.keys), 1) * max(len(t.windows), 1)
		if slices.ContainsFunc(t.kinds, func(k text) bool { return Kind(k.s) == HashedWords }) {
			size *= t.buckets
		}
		if columns += size; columns > maxFeatures {
			r.faults.add(t.at, "features: more than %d columns in one spec", maxFeatures)
			return list
		}
		list = append(list, r.expand(t)...)
	}
	return list
}

// template reads one entry. It is nil where nothing more can be said of the entry.
func (r *reader) template(n ast.Node) *template {
	t := &template{seen: map[string]position{}}
	t.at, t.scale, t.nth = place(n), -1, 1
	t.name.pos = t.at
	if m, ok := n.(ast.MapNode); ok {
		// The name first: the faults of the other fields say whose they are.
		for it := m.MapRange(); it.Next(); {
			if yamlread.Key(it.Key()) == "name" {
				if s, ok := it.Value().(*ast.StringNode); ok {
					t.name.s = s.Value
				}
			}
		}
	}
	what := t.what()
	seen := r.fields(n, what, featureFields, func(key string, v ast.Node) {
		t.seen[key] = place(v)
		r.field(t, what+": "+key, key, v)
	})
	if seen == nil {
		return nil
	}
	return r.checkTemplate(t, what)
}

// what names the template in a fault.
func (t *template) what() string { return strings.TrimSpace("feature " + t.name.s) }

func (r *reader) field(t *template, what, key string, v ast.Node) {
	switch key {
	case "name":
		t.name = r.prose(v, "feature name")
	case "kind":
		if _, ok := v.(*ast.SequenceNode); ok {
			r.faults.add(place(v), "%s: want one kind; a list goes under kinds", what)
			return
		}
		t.kinds = []text{r.text(v, what)}
	case "kinds":
		t.kinds = r.several(v, what)
	case "of":
		t.ofs = r.several(v, what)
	case "key":
		if k := r.several(v, what); k != nil {
			t.keys = [][]text{k}
		}
	case "keys":
		r.keys(t, what, v)
	case "windows":
		r.windows(t, what, v)
	case "shift":
		if s, ok := v.(*ast.StringNode); ok && s.Value == "delay" {
			t.shiftByDelay, t.shiftText = true, r.text(v, what)
		} else {
			t.shift, t.shiftText = r.duration(v, what)
		}
	case "where":
		t.where = r.formula(v, what)
	case "include_current":
		t.includeCurrent = r.flag(v, what)
	case "null":
		if s, ok := v.(*ast.StringNode); ok {
			t.skipNull = r.word(v, what, []string{"skip"}) == "skip"
			t.noNull = text{s.Value, place(v)}
		} else {
			t.null = r.numeric(v, what)
		}
	case "empty":
		t.empty = r.numeric(v, what)
	case "nth":
		t.nth = r.count(v, what, 1, maxLast)
	case "half_life":
		if t.halfLife, _ = r.duration(v, what); t.halfLife == 0 {
			r.faults.add(place(v), "%s: want a time longer than nothing, such as 7d", what)
		}
	case "prior":
		r.prior(t, what, v)
	case "place":
		if seq, ok := v.(*ast.SequenceNode); ok && len(seq.Values) == 2 {
			t.place = [2]text{r.nonempty(seq.Values[0], what), r.nonempty(seq.Values[1], what)}
		} else {
			r.faults.add(place(v), "%s: want two columns, longitude and latitude", what)
		}
	case "expr":
		t.expr = r.formula(v, what)
	case "edges":
		r.edges(t, what, v)
	case "min":
		t.min = r.numeric(v, what)
	case "max":
		t.max = r.numeric(v, what)
	case "buckets":
		t.buckets = r.count(v, what, 1, maxBuckets)
	case "values":
		t.values = r.once(r.scalars(v, what), what)
	case "scale":
		t.scale = r.count(v, what, 0, maxScale)
	case "hidden":
		t.hidden = r.flag(v, what)
	case "log":
		t.log = r.flag(v, what)
	case "unit":
		t.unit = r.text(v, what).s
	case "words":
		w := r.prose(v, what)
		t.words = w.s
		r.placeholders(w, what, wordHolders)
	}
}

// several reads one name, or a list of them with none twice.
func (r *reader) several(n ast.Node, what string) []text {
	seq, ok := n.(*ast.SequenceNode)
	if !ok {
		return r.once([]text{r.nonempty(n, what)}, what)
	}
	if len(seq.Values) == 0 {
		r.faults.add(place(n), "%s: want at least one name", what)
	}
	var list []text
	for _, v := range seq.Values {
		list = append(list, r.nonempty(v, what))
	}
	return r.once(list, what)
}

// formula reads the text of an expression.
func (r *reader) formula(n ast.Node, what string) text {
	before := len(r.faults.List)
	t := r.prose(n, what)
	if len(r.faults.List) == before && strings.TrimSpace(t.s) == "" {
		r.faults.add(t.pos, "%s: want an expression, such as amount / quantity > 10", what)
		t.s = ""
	}
	return t
}

// nonempty reads a name.
func (r *reader) nonempty(n ast.Node, what string) text {
	t := r.text(n, what)
	if s, ok := n.(*ast.StringNode); ok && s.Value == "" {
		r.faults.add(t.pos, "%s: want a name", what)
	}
	return t
}

// once reports what is repeated, and leaves it out; so it does what is already a fault.
func (r *reader) once(list []text, what string) []text {
	var once []text
	for _, t := range list {
		if t.s == "" {
			continue
		}
		if slices.ContainsFunc(once, func(o text) bool { return o.s == t.s }) {
			r.faults.add(t.pos, "%s: %s is there twice", what, t.s)
			continue
		}
		once = append(once, t)
	}
	return once
}

// numeric reads a number that is finite; nil where it is none.
func (r *reader) numeric(n ast.Node, what string) *float64 {
	before := len(r.faults.List)
	x := r.number(n, what)
	if len(r.faults.List) > before {
		return nil
	}
	return &x
}

// count reads a whole number between two bounds.
func (r *reader) count(n ast.Node, what string, least, most int) int {
	before := len(r.faults.List)
	x := r.number(n, what)
	if len(r.faults.List) > before {
		return least
	}
	if x != math.Trunc(x) || x < float64(least) || x > float64(most) {
		r.faults.add(place(n), "%s: want a whole number from %d to %d", what, least, most)
		return least
	}
	return int(x)
}

func (r *reader) keys(t *template, what string, n ast.Node) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok || len(seq.Values) == 0 {
		r.faults.add(place(n), "%s: want a list of keys, such as [user_id, [user_id, store_id]]", what)
		return
	}
	t.keys = nil
	for _, v := range seq.Values {
		k := r.several(v, what)
		switch same := func(o []text) bool { return slices.Equal(plain(o), plain(k)) }; {
		case len(k) == 0: // already a fault
		case slices.ContainsFunc(t.keys, same):
			r.faults.add(place(v), "%s: %s is there twice", what, strings.Join(plain(k), ", "))
		default:
			t.keys = append(t.keys, k)
		}
	}
}

// calendarUnits are the windows that begin with the clock.
var calendarUnits = []string{"hour", "day", "week", "month"}

var lastWindow = regexp.MustCompile(`^last +([0-9]+)$`)

func (r *reader) windows(t *template, what string, n ast.Node) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok || len(seq.Values) == 0 {
		r.faults.add(place(n), "%s: want a list with at least one window, such as [1d, 7d, day, last 5, ever], found %s",
			what, kindOf(n))
		return
	}
	for _, v := range seq.Values {
		w, ok := r.window(r.text(v, what), what)
		if !ok {
			continue
		}
		for _, o := range t.windows {
			if o.form == w.form && o.span == w.span && o.unit == w.unit && o.n == w.n {
				r.faults.add(w.text.pos, "%s: %s is the same window as %s", what, w.text.s, o.text.s)
				ok = false
				break
			}
		}
		if ok {
			t.windows = append(t.windows, w)
		}
	}
}

func (r *reader) window(t text, what string) (windowDef, bool) {
	w := windowDef{text: t}
	switch last := lastWindow.FindStringSubmatch(t.s); {
	case t.s == "":
		return w, false // already a fault
	case t.s == "ever":
		w.form = ever
	case slices.Contains(calendarUnits, t.s):
		w.form, w.unit = calendarUnit, t.s
	case last != nil:
		n, err := strconv.Atoi(last[1])
		if err != nil || n < 1 || n > maxLast {
			r.faults.add(t.pos, "%s: %s: want a number from 1 to %d", what, t.s, maxLast)
			return w, false
		}
		w.form, w.n = lastN, n
	case t.s[0] == '-' || t.s[0] >= '0' && t.s[0] <= '9':
		before := len(r.faults.List)
		w.form, w.span = sliding, r.span(t, what)
		if len(r.faults.List) > before {
			return w, false
		}
		if w.span == 0 {
			r.faults.add(t.pos, "%s: %s: want a window longer than nothing", what, t.s)
			return w, false
		}
	default:
		r.faults.add(t.pos, "%s: unknown window %q%s; want a duration such as 7d, one of hour, day, week and month, "+
			"last and a number such as last 5, or ever", what, t.s,
			suggest(t.s, slices.Concat(calendarUnits, []string{"ever", "last 5"})))
		return w, false
	}
	return w, true
}

func (r *reader) prior(t *template, what string, n ast.Node) {
	seen := r.fields(n, what, priorFields, func(key string, v ast.Node) {
		x := r.numeric(v, what+": "+key)
		switch {
		case x == nil:
		case key == "rate" && (*x < 0 || *x > 1):
			r.faults.add(place(v), "%s: rate: want a share from 0 to 1", what)
		case key == "weight" && !(*x > 0):
			r.faults.add(place(v), "%s: weight: want a number of transactions above 0", what)
		case key == "rate":
			t.priorRate = *x
		default:
			t.priorWeight = *x
		}
	})
	for _, f := range priorFields {
		if seen != nil && !seen[f] {
			r.faults.add(place(n), "%s: the field %s is missing", what, f)
		}
	}
}

func (r *reader) edges(t *template, what string, n ast.Node) {
	seq, ok := n.(*ast.SequenceNode)
	if !ok || len(seq.Values) == 0 {
		r.faults.add(place(n), "%s: want a list of ascending numbers, such as [10, 100]", what)
		return
	}
	for _, v := range seq.Values {
		x := r.numeric(v, what)
		if x == nil {
			continue
		}
		if k := len(t.edges); k > 0 && *x <= t.edges[k-1] {
			r.faults.add(place(v), "%s: want ascending numbers: %v comes after %v", what, *x, t.edges[k-1])
			continue
		}
		t.edges = append(t.edges, *x)
	}
}

// lenient are the fields that go with a template of several kinds where one of them has it; the others do without.
var lenient = []string{"of", "null", "empty", "nth", "half_life", "prior", "place"}

// checkTemplate is what concerns the fields of a template together. It is nil where its kinds are not known.
func (r *reader) checkTemplate(t *template, what string) *template {
	if _, ok := t.seen["name"]; !ok {
		r.faults.add(t.at, "feature: the field name is missing")
	} else if t.name.s == "" {
		r.faults.add(t.name.pos, "feature name: want a name")
	}
	for _, both := range [][2]string{{"kind", "kinds"}, {"key", "keys"}} {
		_, one := t.seen[both[0]]
		if at, many := t.seen[both[1]]; one && many {
			r.faults.add(at, "%s: want either %s or %s", what, both[0], both[1])
			return nil
		}
	}
	if _, ok := t.seen["kinds"]; !ok {
		if _, ok := t.seen["kind"]; !ok {
			r.faults.add(t.at, "%s: the field kind is missing: one of %s", what, strings.Join(kinds, ", "))
			return nil
		}
	}
	var infos []*kindInfo
	for _, k := range t.kinds {
		if i := Kind(k.s).info(); i != nil {
			infos = append(infos, i)
		} else if k.s != "" {
			r.faults.add(k.pos, "%s: unknown kind %q%s; there are %s", what, k.s, suggest(k.s, kinds),
				strings.Join(kinds, ", "))
		}
	}
	if len(infos) != len(t.kinds) || len(infos) == 0 {
		return nil
	}
	r.checkFields(t, what, infos)
	r.checkValues(t, what, infos)
	return t
}

// checkFields reports fields that are missing or that a kind does not have.
func (r *reader) checkFields(t *template, what string, infos []*kindInfo) {
	for _, field := range featureFields {
		name := map[string]string{"kinds": "kind", "keys": "key"}[field]
		if name == "" {
			name = field
		}
		at, seen := t.seen[field]
		other := map[string]string{"key": "keys", "kind": "kinds"}[field]
		if _, ok := t.seen[other]; !seen && ok {
			continue // the other spelling
		}
		if name != field && !seen {
			continue
		}
		var without, with *kindInfo
		for _, i := range infos {
			switch i.has(name) {
			case must:
				if with = i; !seen {
					r.faults.add(t.at, "%s: %s needs the field %s", what, article(i.kind), name)
					seen = true
				}
			case mustNot:
				without = i
			case may:
				with = i
			}
		}
		if _, written := t.seen[field]; written && without != nil && (with == nil || !slices.Contains(lenient, field)) {
			r.faults.add(at, "%s: %s has no field %s%s", what, article(without.kind), field, r.instead(without, field))
		}
	}
}

// instead says what a kind has in place of a field that it has not.
func (r *reader) instead(i *kindInfo, field string) string {
	switch {
	case field == "include_current" && i.kind == Risk:
		return ": the label of the transaction itself is not known yet"
	case field == "shift" && i.kind == Risk:
		return ": its entries come when their labels are known"
	case field == "windows" && i.kind == EWMA:
		return ": half_life says how fast it forgets; give it an entry of its own"
	}
	return ""
}

func article(k Kind) string {
	if strings.ContainsRune("aeiou", rune(k[0])) {
		return "an " + string(k)
	}
	return "a " + string(k)
}

// checkValues is what concerns the values of fields.
func (r *reader) checkValues(t *template, what string, infos []*kindInfo) {
	at := func(field string) position { return t.seen[field] }
	for _, i := range infos {
		known := map[Kind][]string{Calendar: calendars, Cyclic: cyclics}[i.kind]
		for _, o := range t.ofs {
			if known != nil && o.s != "" && !slices.Contains(known, o.s) {
				r.faults.add(o.pos, "%s: of: unknown calendar value %q%s; %s has %s", what, o.s, suggest(o.s, known),
					article(i.kind), strings.Join(known, ", "))
			}
		}
		switch i.kind {
		case Clip:
			switch {
			case t.min == nil && t.max == nil && !has(t, "min") && !has(t, "max"):
				r.faults.add(t.at, "%s: a clip needs min, max or both", what)
			case t.min != nil && t.max != nil && *t.min > *t.max:
				r.faults.add(at("min"), "%s: min %v is above max %v", what, *t.min, *t.max)
			}
		case HashedWords:
			if t.buckets > maxColumns {
				r.faults.add(at("buckets"), "%s: buckets: want at most %d: each is a column", what, maxColumns)
			}
		case Last:
			for _, w := range t.windows {
				if w.form == lastN && t.nth > w.n {
					r.faults.add(w.text.pos, "%s: windows: %s has no entry that is nth: %d", what, w.text.s, t.nth)
				}
			}
		}
		if t.noNull.s != "" && !i.windowed && i.has("null") != mustNot {
			r.faults.add(t.noNull.pos, "%s: null: want a number that stands for a missing value, found %q", what, t.noNull.s)
		}
		if t.null != nil && i.windowed && i.has("null") != mustNot {
			r.faults.add(at("null"), "%s: null: want skip, which leaves transactions without a value out", what)
		}
	}
	both := !slices.ContainsFunc(infos, func(i *kindInfo) bool {
		return i.has("include_current") == mustNot || i.has("shift") == mustNot
	})
	if both && t.includeCurrent && (t.shiftByDelay || t.shift > 0) {
		r.faults.add(at("include_current"),
			"%s: include_current does not go with a shift: the current event is outside a shifted window", what)
	}
	if t.priorWeight > 0 && has(t, "empty") && len(infos) == 1 {
		r.faults.add(at("empty"), "%s: with a prior a risk is never empty", what)
	}
	r.checkNames(t, what, infos)
}

func has(t *template, field string) bool {
	_, ok := t.seen[field]
	return ok
}
