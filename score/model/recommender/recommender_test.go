package recommender

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/ranking"
	"github.com/onmart/onmart/score/model"
)

const spec = `name: test-baskets
timezone: UTC
lateness: 0s
interactions:
  user: user_id
  item: product_id
  hold: 1h
`

const day = 24 * 60 * 60 * 1e6

func input() *datasets.Schema {
	return &datasets.Schema{Fields: []datasets.Field{{Name: datasets.TransID, Type: datasets.Int64},
		{Name: datasets.TransDatetime, Type: datasets.Time},
		{Name: datasets.UserID, Type: datasets.Int64}, {Name: datasets.ProductID, Type: datasets.String}}}
}

func plan(t testing.TB) (*features.Spec, *features.Plan) {
	t.Helper()
	s, err := features.Parse("test", []byte(spec))
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Plan(input())
	if err != nil {
		t.Fatal(err)
	}
	return s, p
}

type bought struct {
	user  int64
	item  string
	day   float64
	trans int64
}

func rows(t testing.TB, lines ...bought) *datasets.Batch {
	_, p := plan(t)
	b := datasets.NewBatch(p.Schema(), len(lines))
	for _, l := range lines {
		b.Columns[columnUser].Ints = append(b.Columns[columnUser].Ints, l.user)
		b.Columns[columnItem].Strings = append(b.Columns[columnItem].Strings, l.item)
		b.Columns[columnTime].Ints = append(b.Columns[columnTime].Ints, int64(l.day*day))
		b.Columns[columnWeight].Floats = append(b.Columns[columnWeight].Floats, 1)
		b.Columns[columnTrans].Ints = append(b.Columns[columnTrans].Ints, l.trans)
		b.N++
	}
	return b
}

// shop is a few purchases: tea and cups go together, and so do nails and hammers.
func shop(t testing.TB) *History {
	t.Helper()
	h, err := NewHistory(rows(t).Schema)
	if err != nil {
		t.Fatal(err)
	}
	var all []bought
	for u := int64(1); u <= 8; u++ {
		pair := []string{"tea", "cup"}
		if u%2 == 0 {
			pair = []string{"nails", "hammer"}
		}
		for k := range 3 {
			for _, item := range pair {
				all = append(all, bought{u, item, float64(10*k) + float64(u)/10, u*10 + int64(k)})
			}
		}
	}
	all = append(all, bought{9, "tea", 30, 99}, bought{9, "lamp", 30, 99})
	slices.SortStableFunc(all, func(a, b bought) int { return int(100*a.day) - int(100*b.day) })
	if err := h.Append(rows(t, all...)); err != nil {
		t.Fatal(err)
	}
	return h
}

func fitted(t testing.TB, kind ranking.Kind) *Fitted {
	t.Helper()
	h := shop(t)
	x, err := h.Log.Matrix(31*day, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := &Fitted{Model: &Model{Kind: kind, Now: 31 * day}, History: h}
	if f.Parts.KNN, err = ranking.ItemNeighbours(x, 10, 1); err != nil {
		t.Fatal(err)
	}
	if f.Parts.EASE, err = ranking.EASE(x, 1, 10, 1); err != nil {
		t.Fatal(err)
	}
	if f.Parts.ALS, err = ranking.TrainALS(t.Context(), x, ranking.ALSOptions{Factors: 4,
		Regularization: .1}); err != nil {
		t.Fatal(err)
	}
	if f.Together, err = ranking.NewTogether(&h.Log, 10, 1); err != nil {
		t.Fatal(err)
	}
	return f
}

func save(t testing.TB, f *Fitted) *model.Artifact {
	t.Helper()
	s, _ := plan(t)
	c := model.Contents{Manifest: model.Manifest{Task: model.Recommend}, Spec: s, Input: input()}
	if err := f.Put(&c); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "model")
	if err := model.Save(dir, c, false); err != nil {
		t.Fatal(err)
	}
	a, err := model.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func names(list *List) string {
	var out []string
	for _, x := range list.Items {
		out = append(out, x.Item)
	}
	return strings.Join(out, " ")
}

func TestAnswers(t *testing.T) {
	for _, opened := range []bool{false, true} {
		f := fitted(t, ranking.KNN)
		r, err := New(f, 2)
		if opened {
			r, err = Open(save(t, f), 2)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, test := range []struct {
			request Request
			want    string
			known   bool
		}{
			{Request{User: "2", K: 2}, "hammer nails", true},
			{Request{User: "9", K: 1, Filter: Filter{ExcludeBought: true}}, "cup", true},
			{Request{User: "2", K: 1, Filter: Filter{ExcludeBought: true, InStock: []string{"lamp", "nails"}}}, "lamp",
				true},
			{Request{User: "9", K: 5, Filter: Filter{ExcludeBought: true, NotForSale: []string{"cup", "nails",
				"unheard-of"}}}, "hammer", true},
			{Request{User: "77", Recent: []string{"nails"}, K: 1, Filter: Filter{ExcludeBought: true}}, "hammer",
				false},
			{Request{Recent: []string{"tea", "never"}, K: 1, Filter: Filter{ExcludeBought: true}}, "cup", false},
			{Request{User: "1", K: 5, Filter: Filter{InStock: []string{}}}, "", true},
		} {
			list, err := r.Recommend(test.request)
			if err != nil || list.Known != test.known {
				t.Fatalf("%+v: %+v, %v", test.request, list, err)
			}
			got := strings.Fields(names(list))
			slices.Sort(got)
			if strings.Join(got, " ") != test.want {
				t.Errorf("%+v: %q, want %q", test.request, got, test.want)
			}
		}
		list, err := r.Recommend(Request{User: "9", K: 3})
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range list.Items {
			want := "bought_with"
			if x.Item == "tea" || x.Item == "lamp" {
				want = "bought_before"
			}
			if x.Why.Kind != want {
				t.Errorf("%s for reason %+v", x.Item, x.Why)
			}
		}
		list, err = r.Recommend(Request{Basket: []string{"hammer", "never"}, K: 5})
		if err != nil || names(list) != "nails" || len(list.Ignore) != 1 || list.Items[0].Why.Support != 12 ||
			list.Items[0].Why.Text == "" {
			t.Errorf("%+v, %v", list, err)
		}
		for want, q := range map[string]Request{
			"want 1 to": {User: "1"}, "both a basket": {User: "1", Basket: []string{"tea"},
				K: 1}, "ever sold": {Basket: []string{"never"}, K: 1},
		} {
			if _, err := r.Recommend(q); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%+v: %v, want %q", q, err, want)
			}
		}
		all, err := r.All(t.Context(), 2, Filter{}, nil)
		if err != nil || len(all) != 9 || all[0].User != "1" {
			t.Errorf("%v, %v", all, err)
		}
		for _, x := range all {
			list, err := r.Recommend(Request{User: x.User, K: 2})
			if err != nil || fmt.Sprint(list.Items) != fmt.Sprint(x.Items) {
				t.Errorf("alone user %s gets %v, with all others %v", x.User, list.Items, x.Items)
			}
		}
	}
}

// TestAppend: users and items that come after training, late rows, and goods that are taken back.
func TestAppend(t *testing.T) {
	f := fitted(t, ranking.Own)
	r, err := New(f, 1)
	if err != nil {
		t.Fatal(err)
	}
	back := rows(t, bought{1, "tea", 33, 201})
	back.Columns[columnWeight].Floats[0] = -1
	for _, b := range []*datasets.Batch{rows(t, bought{50, "kettle", 32, 200}, bought{50, "tea", 32, 200}),
		rows(t, bought{50, "cup", 12, 150}), back} {
		if err := r.Append(b); err != nil {
			t.Fatal(err)
		}
	}
	list, err := r.Recommend(Request{User: "50", K: 10})
	if err != nil || !list.Known || len(list.Items) != 6 {
		t.Fatalf("%+v: %v", list, err)
	}
	for i, want := range []string{"bought_before", "bought_before", "bought_before"} {
		if list.Items[i].Why.Kind != want {
			t.Errorf("%+v", list.Items[i])
		}
	}
	if h := r.History(); h.Returns != 1 || !slices.IsSorted(h.Log.Time) || h.Log.Check() != nil {
		t.Errorf("%d returns, log %v", h.Returns, h.Log.Check())
	}
	if err := r.Append(&datasets.Batch{N: 1}); err == nil {
		t.Error("rows without columns are taken")
	}
	if err := r.Fold(nil); err != ErrNoState {
		t.Errorf("fold without a state: %v", err)
	}
	if err := r.Snapshot(&bytes.Buffer{}); err != ErrNoState {
		t.Errorf("snapshot without a state: %v", err)
	}
}

func TestHistoryFaults(t *testing.T) {
	schema := rows(t).Schema
	if _, err := NewHistory(&datasets.Schema{Fields: schema.Fields[:3]}); err == nil {
		t.Error("three columns are taken")
	}
	wrong := &datasets.Schema{Fields: slices.Clone(schema.Fields)}
	wrong.Fields[columnItem].Type = datasets.Float64
	if _, err := NewHistory(wrong); err == nil || !strings.Contains(err.Error(), datasets.ProductID) {
		t.Errorf("an item that is a fraction: %v", err)
	}
	h := shop(t)
	null := rows(t, bought{1, "tea", 40, 300})
	null.Columns[columnUser].Null = []bool{true}
	if err := h.Append(null); err == nil || !strings.Contains(err.Error(), "no user_id") {
		t.Errorf("a purchase of nobody: %v", err)
	}
	later := h.Later()
	others, err := later.AppendKnown(rows(t, bought{1, "tea", 40, 300}, bought{99, "tea", 41, 301},
		bought{1, "new", 42, 302}))
	if err != nil || others != 2 || len(later.Log.User) != 1 || h.Items.Len() != 5 {
		t.Errorf("%d of others, %d lines, %d items: %v", others, len(later.Log.User), h.Items.Len(), err)
	}
}

// TestDamage: an artifact whose parts do not fit each other is refused, whatever its checksums say.
func TestDamage(t *testing.T) {
	for want, spoil := range map[string]func(*Fitted){
		"of kind":         func(f *Fitted) { f.Model.Kind = "best" },
		"weights of a":    func(f *Fitted) { f.Model.Kind = ranking.Blended },
		"an embedding of": func(f *Fitted) { f.Model.Embedding = &Embedding{Dim: -1, Recent: 3} },
		"has no program":  func(f *Fitted) { f.Model.Embedding = &Embedding{Dim: 4, Recent: 3} },
		"outside a matrix": func(f *Fitted) {
			f.Parts.KNN = &ranking.Matrix{Rows: 9, Cols: 9, Start: []int{0, 0, 0, 0, 0, 0, 0, 0, 0, 1},
				Index: []int32{8}, Value: []float32{1}}
		},
	} {
		f := fitted(t, ranking.KNN)
		spoil(f)
		s, _ := plan(t)
		c := model.Contents{Manifest: model.Manifest{Task: model.Recommend}, Spec: s, Input: input()}
		err := f.Put(&c)
		if err == nil {
			dir := filepath.Join(t.TempDir(), "model")
			if err = model.Save(dir, c, false); err == nil {
				var a *model.Artifact
				if a, err = model.Open(dir); err == nil {
					_, err = Open(a, 1)
				}
			}
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	good, err := json.Marshal(Model{FormatVersion: formatVersion, Kind: ranking.KNN, Lines: 1, Users: 1, Items: 1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := decodeModel(good); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "{", `{"format_version":99}`, `{"unknown":1}`,
		strings.Replace(string(good), `"lines":1`, `"lines":0`, 1)} {
		if _, err := decodeModel([]byte(text)); err == nil {
			t.Errorf("%s is taken", text)
		}
	}
	if m := (Model{Kind: ranking.KNN, Lines: math.MaxInt32 + 1, Users: 1, Items: 1}); m.check() == nil {
		t.Error("more lines than can be numbered")
	}
}
