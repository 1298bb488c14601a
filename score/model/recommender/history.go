package recommender

import (
	"fmt"
	"slices"
	"sort"
	"strconv"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/ranking"
)

// Names numbers the users or the items in the order in which they first come.
type Names struct {
	Type  datasets.Type // Int64 or String
	names []string
	index map[string]int32
}

// NewNames is empty.
func NewNames(t datasets.Type) *Names { return &Names{Type: t, index: map[string]int32{}} }

// Len is how many there are.
func (n *Names) Len() int { return len(n.names) }

// Name is the text of a number.
func (n *Names) Name(i int32) string { return n.names[i] }

// Find is the number of a name.
func (n *Names) Find(name string) (int32, bool) {
	i, ok := n.index[name]
	return i, ok
}

// add is the number of a name, a new one where it is not known.
func (n *Names) add(name string) int32 {
	i, ok := n.index[name]
	if !ok {
		i = int32(len(n.names))
		n.names = append(n.names, name)
		n.index[name] = i
	}
	return i
}

// text is row i of a column of the names' type.
func (n *Names) text(c *datasets.Column, i int) string {
	if n.Type == datasets.Int64 {
		return strconv.FormatInt(c.Ints[i], 10)
	}
	return c.Strings[i]
}

// Put appends a name to a column of the names' type.
func (n *Names) Put(c *datasets.Column, name string) error {
	if n.Type != datasets.Int64 {
		c.Strings = append(c.Strings, name)
		return nil
	}
	v, err := strconv.ParseInt(name, 10, 64)
	c.Ints = append(c.Ints, v)
	return err
}

// History is purchases in the order of time, with users, items and purchases numbered.
type History struct {
	Users, Items *Names
	Log          ranking.Log
	// Returns counts rows with a weight of 0 or less: goods that were taken back. They are no purchases.
	Returns int

	columns []string // of a row: user, item, trans_id
	trans   *Names
	baskets map[basket]int32
}

// basket is one user's purchase.
type basket struct{ user, trans int32 }

// Columns of a row of interactions, in the order in which features makes them.
const (
	columnUser = iota
	columnItem
	columnTime
	columnWeight
	columnTrans
	interactionColumns
)

// NewHistory is empty; schema is that of interactions.
func NewHistory(schema *datasets.Schema) (*History, error) {
	if len(schema.Fields) < interactionColumns {
		return nil, fmt.Errorf("interactions have %d columns: want user, item, time, weight and purchase; make them again with onmart features", len(schema.Fields))
	}
	for i, want := range [interactionColumns][]datasets.Type{{datasets.Int64, datasets.String},
		{datasets.Int64, datasets.String},
		{datasets.Time}, {datasets.Float64}, {datasets.Int64, datasets.String}} {
		if f := schema.Fields[i]; !slices.Contains(want, f.Type) {
			return nil, fmt.Errorf("column %d of the interactions, %s, is %s: want one of %v; make them again with onmart features", i+1, f.Name, f.Type, want)
		}
	}
	h := &History{Users: NewNames(schema.Fields[columnUser].Type), Items: NewNames(schema.Fields[columnItem].Type),
		trans: NewNames(schema.Fields[columnTrans].Type), baskets: map[basket]int32{}}
	for _, f := range schema.Fields[:interactionColumns] {
		h.columns = append(h.columns, f.Name)
	}
	return h, nil
}

// Columns are the names of the columns of users, items, times, weights and purchases.
func (h *History) Columns() []string { return h.columns }

// Later is an empty history with the same users and items, for what came after.
func (h *History) Later() *History {
	return &History{Users: h.Users, Items: h.Items, Log: ranking.Log{Users: h.Users.Len(), Items: h.Items.Len()},
		columns: h.columns, trans: NewNames(h.trans.Type), baskets: map[basket]int32{}}
}

// Canonical numbers users and items anew by the order of time, where late rows came between.
func (h *History) Canonical() (*History, error) {
	rows, err := h.batch(0, len(h.Log.User))
	if err != nil {
		return nil, err
	}
	out, err := NewHistory(h.schema())
	if err != nil {
		return nil, err
	}
	out.Returns = h.Returns
	return out, out.Append(rows)
}

// Append takes rows of interactions. One that is earlier than those before it is put in its place.
func (h *History) Append(rows *datasets.Batch) error { return h.append(rows, true) }

// AppendKnown takes the rows whose user and item are known already, and says how many others there were: what is
// judged must not add to what can be offered.
func (h *History) AppendKnown(rows *datasets.Batch) (others int, err error) {
	known := rows.N
	var keep []int
	for i := range rows.N {
		_, u := h.Users.Find(h.Users.text(&rows.Columns[columnUser], i))
		_, p := h.Items.Find(h.Items.text(&rows.Columns[columnItem], i))
		if u && p {
			keep = append(keep, i)
		}
	}
	if len(keep) == known {
		return 0, h.append(rows, false)
	}
	for _, i := range keep {
		if err := h.append(rows.Slice(i, i+1), false); err != nil {
			return 0, err
		}
	}
	return known - len(keep), nil
}

func (h *History) append(rows *datasets.Batch, grow bool) error {
	if len(rows.Columns) < interactionColumns {
		return fmt.Errorf("rows of %d columns are no interactions", len(rows.Columns))
	}
	l := &h.Log
	c := rows.Columns
	for i := range rows.N {
		for k := range interactionColumns {
			if c[k].IsNull(i) {
				return fmt.Errorf("row %d of the interactions has no %s", i, h.columns[k])
			}
		}
		if c[columnWeight].Floats[i] <= 0 {
			h.Returns++
			continue
		}
		user, item := h.Users.add(h.Users.text(&c[columnUser], i)), h.Items.add(h.Items.text(&c[columnItem], i))
		key := basket{user, h.trans.add(h.trans.text(&c[columnTrans], i))}
		b, ok := h.baskets[key]
		if !ok {
			b = int32(len(h.baskets))
			h.baskets[key] = b
		}
		t := c[columnTime].Ints[i]
		at := len(l.Time)
		if at > 0 && t < l.Time[at-1] {
			at = sort.Search(at, func(k int) bool { return l.Time[k] > t })
		}
		l.User, l.Item, l.Basket = slices.Insert(l.User, at, user), slices.Insert(l.Item, at,
			item), slices.Insert(l.Basket, at, b)
		l.Time = slices.Insert(l.Time, at, t)
	}
	if grow {
		l.Users, l.Items = h.Users.Len(), h.Items.Len()
	}
	return nil
}

// schema is that of the rows that batch makes.
func (h *History) schema() *datasets.Schema {
	return &datasets.Schema{Fields: []datasets.Field{
		{Name: h.columns[columnUser], Type: h.Users.Type}, {Name: h.columns[columnItem], Type: h.Items.Type},
		{Name: h.columns[columnTime], Type: datasets.Time}, {Name: h.columns[columnWeight], Type: datasets.Float64},
		{Name: h.columns[columnTrans], Type: h.trans.Type}}}
}

// batch is lines from..to as rows of interactions of weight 1.
func (h *History) batch(from, to int) (*datasets.Batch, error) {
	byNumber := make([]int32, len(h.baskets))
	for k, b := range h.baskets {
		byNumber[b] = k.trans
	}
	b := datasets.NewBatch(h.schema(), to-from)
	for i := from; i < to; i++ {
		if err := h.Users.Put(&b.Columns[columnUser], h.Users.Name(h.Log.User[i])); err != nil {
			return nil, err
		}
		if err := h.Items.Put(&b.Columns[columnItem], h.Items.Name(h.Log.Item[i])); err != nil {
			return nil, err
		}
		b.Columns[columnTime].Ints = append(b.Columns[columnTime].Ints, h.Log.Time[i])
		b.Columns[columnWeight].Floats = append(b.Columns[columnWeight].Floats, 1)
		if err := h.trans.Put(&b.Columns[columnTrans], h.trans.Name(byNumber[h.Log.Basket[i]])); err != nil {
			return nil, err
		}
		b.N++
	}
	return b, nil
}

// names is a vocabulary as a table of one column.
func (n *Names) batch(column string) (*datasets.Batch, error) {
	b := datasets.NewBatch(&datasets.Schema{Fields: []datasets.Field{{Name: column, Type: n.Type}}}, len(n.names))
	for _, name := range n.names {
		if err := n.Put(&b.Columns[0], name); err != nil {
			return nil, err
		}
		b.N++
	}
	return b, nil
}
