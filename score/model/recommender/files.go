package recommender

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/ranking"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/train/program"
)

// Fitted is all that a training leaves.
type Fitted struct {
	Model    *Model
	History  *History // up to Model.Now
	Parts    ranking.Parts
	Together *ranking.Together
}

// Put adds the files and tensors of the task to the contents of an artifact. The network's program and weights are the
// caller's.
func (f *Fitted) Put(c *model.Contents) error {
	table := func(name string, make func() (*datasets.Batch, error)) {
		c.Files[name] = func(w io.Writer) error {
			b, err := make()
			if err != nil {
				return err
			}
			return datasets.WriteTable(w, b)
		}
	}
	if c.Files == nil {
		c.Files = map[string]func(io.Writer) error{}
	}
	h := f.History
	m := f.Model
	m.Lines, m.Users, m.Items, m.Purchases = len(h.Log.User), h.Users.Len(), h.Items.Len(), f.Together.Purchases
	c.Files[ModelFile] = m.Encode
	table(PurchasesFile, func() (*datasets.Batch, error) { return h.batch(0, len(h.Log.User)) })
	table(UsersFile, func() (*datasets.Batch, error) { return h.Users.batch(h.columns[columnUser]) })
	table(ItemsFile, func() (*datasets.Batch, error) { return h.Items.batch(h.columns[columnItem]) })
	table(KNNFile, func() (*datasets.Batch, error) { return cells(f.Parts.KNN), nil })
	table(TogetherFile, func() (*datasets.Batch, error) { return cells(f.Together.Pairs), nil })
	if m.EASE = f.Parts.EASE != nil; m.EASE {
		table(EASEFile, func() (*datasets.Batch, error) { return cells(f.Parts.EASE), nil })
	}
	if a := f.Parts.ALS; a != nil {
		m.ALS = &ALS{a.Factors, a.Regularization, a.Alpha}
		c.Weights = append(slices.Clone(c.Weights), program.Tensor{Name: tensorALS, DType: program.F32,
			Shape: []int{len(a.Items) / a.Factors, a.Factors}, F32: a.Items})
		c.Weights.Sort()
	}
	return m.check()
}

// Columns of a table of neighbours.
const (
	columnOf     = "item"   // numbers of items: rows of vocabulary/items.parquet
	columnOther  = "other"  //
	columnNumber = "weight" // of a pair bought together: purchases with both
)

// cells is a matrix as a table of its stored cells.
func cells(m *ranking.Matrix) *datasets.Batch {
	b := datasets.NewBatch(&datasets.Schema{Fields: []datasets.Field{{Name: columnOf, Type: datasets.Int64},
		{Name: columnOther, Type: datasets.Int64}, {Name: columnNumber, Type: datasets.Float64}}}, len(m.Index))
	for r := range m.Rows {
		cols, values := m.Row(r)
		for k, c := range cols {
			b.Columns[0].Ints = append(b.Columns[0].Ints, int64(r))
			b.Columns[1].Ints = append(b.Columns[1].Ints, int64(c))
			b.Columns[2].Floats = append(b.Columns[2].Floats, float64(values[k]))
		}
	}
	b.N = len(m.Index)
	return b
}

// readCells is the matrix of a table.
func readCells(a *model.Artifact, name string, items int) (*ranking.Matrix, error) {
	b, err := readTable(a, name)
	if err != nil {
		return nil, err
	}
	of, other, value := b.Column(columnOf), b.Column(columnOther), b.Column(columnNumber)
	if of == nil || other == nil || value == nil || len(of.Ints) != b.N || len(other.Ints) != b.N ||
		len(value.Floats) != b.N {
		return nil, fmt.Errorf("%s has not the columns %s, %s and %s: train again", name, columnOf, columnOther,
			columnNumber)
	}
	rows, cols, values := make([]int32, b.N), make([]int32, b.N), make([]float32, b.N)
	for i := range b.N {
		if v := of.Ints[i] | other.Ints[i]; v < 0 || v > math.MaxInt32 {
			return nil, fmt.Errorf("%s, row %d is of item %d and %d: train again", name, i, of.Ints[i], other.Ints[i])
		}
		rows[i], cols[i], values[i] = int32(of.Ints[i]), int32(other.Ints[i]), float32(value.Floats[i])
	}
	m, err := ranking.NewMatrix(items, items, rows, cols, values)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return m, nil
}

func readTable(a *model.Artifact, name string) (*datasets.Batch, error) {
	text, err := a.ReadFile(name)
	if err != nil {
		return nil, err
	}
	b, err := datasets.DecodeTable(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; copy the artifact again or train again", name, err)
	}
	return b, nil
}

// read is what Put wrote.
func read(a *model.Artifact) (*Fitted, error) {
	if task := a.Manifest().Task; task != model.Recommend {
		return nil, fmt.Errorf("it is a model for %s, and recommendations are made of one for %s: give the directory that onmart train recommend wrote", task, model.Recommend)
	}
	text, err := a.ReadFile(ModelFile)
	if err != nil {
		return nil, err
	}
	f := &Fitted{}
	if f.Model, err = decodeModel(text); err != nil {
		return nil, err
	}
	m := f.Model
	if f.History, err = NewHistory(a.Plan().Schema()); err != nil {
		return nil, err
	}
	rows, err := readTable(a, PurchasesFile)
	if err != nil {
		return nil, err
	}
	if err := f.History.Append(rows); err != nil {
		return nil, fmt.Errorf("%s: %w", PurchasesFile, err)
	}
	h := f.History
	if len(h.Log.User) != m.Lines || h.Users.Len() != m.Users || h.Items.Len() != m.Items {
		return nil, fmt.Errorf("%s has %d lines of %d users and %d items, and %s says %d of %d and %d: train again",
			PurchasesFile,
			len(h.Log.User), h.Users.Len(), h.Items.Len(), ModelFile, m.Lines, m.Users, m.Items)
	}
	for name, names := range map[string]*Names{UsersFile: h.Users, ItemsFile: h.Items} {
		if err := names.agree(a, name); err != nil {
			return nil, err
		}
	}
	f.Parts.Blend = m.Blend
	if f.Parts.KNN, err = readCells(a, KNNFile, m.Items); err != nil {
		return nil, err
	}
	if m.EASE {
		if f.Parts.EASE, err = readCells(a, EASEFile, m.Items); err != nil {
			return nil, err
		}
	}
	if m.ALS != nil {
		t := a.Weights().Find(tensorALS)
		if t == nil || len(t.F32) != m.Items*m.ALS.Factors {
			return nil, fmt.Errorf("the tensor %s is missing or of another shape: train again", tensorALS)
		}
		f.Parts.ALS = &ranking.ALS{Factors: m.ALS.Factors, Items: t.F32, Regularization: m.ALS.Regularization,
			Alpha: m.ALS.Alpha}
	}
	if m.Embedding != nil {
		if a.Program() == nil || a.Program().Forward == nil {
			return nil, errors.New("it has no program: copy the artifact again or train again")
		}
		if f.Parts.Embedding, err = NewEmbedding(*m.Embedding, m.Items, a.Program().Forward, a.Weights()); err != nil {
			return nil, err
		}
	}
	pairs, err := readCells(a, TogetherFile, m.Items)
	if err != nil {
		return nil, err
	}
	f.Together = &ranking.Together{Purchases: m.Purchases, Sold: h.sold(), Pairs: pairs}
	return f, nil
}

// sold is, by item, the purchases that have it.
func (h *History) sold() []int32 {
	type cell struct{ basket, item int32 }
	n := make([]int32, h.Items.Len())
	seen := make(map[cell]bool, len(h.Log.Item))
	for i, item := range h.Log.Item {
		if k := (cell{h.Log.Basket[i], item}); !seen[k] {
			seen[k] = true
			n[item]++
		}
	}
	return n
}

// agree compares a vocabulary with the names that the purchases give.
func (n *Names) agree(a *model.Artifact, file string) error {
	b, err := readTable(a, file)
	if err != nil {
		return err
	}
	if len(b.Columns) != 1 || b.Schema.Fields[0].Type != n.Type || b.N != n.Len() {
		return fmt.Errorf("%s has not the %d names of the purchases: train again", file, n.Len())
	}
	for i, want := range n.names {
		if got := n.text(&b.Columns[0], i); got != want {
			return fmt.Errorf("%s, row %d is %.40q, and the purchases have %.40q: train again", file, i, got, want)
		}
	}
	return nil
}
