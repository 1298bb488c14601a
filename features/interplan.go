package features

import (
	"slices"

	"github.com/onmart/onmart/datasets"
)

// interPlan is a spec's `interactions:` bound to columns.
type interPlan struct {
	rowPlan
	user, item keyColumn
	idText     bool
	weight     int // of vals; -1 for 1 a purchase
	scale      int
	log        bool
	hold       int64
	policy     string
	kept       []int // columns of the extended input that are handed on
}

func (b *shapeBinder) interactions() {
	d, p := b.p.spec.inter, b.p
	x := &b.inter
	x.weight, x.log, x.hold, x.policy = -1, d.log, d.hold, d.policy
	key := func(what string, name text) (k keyColumn) {
		if c, ok := b.column(what, name, datasets.Int64, datasets.String); ok {
			k = keyColumn{name.s, c, b.rows.ext.Fields[c].Type == datasets.String}
		}
		return k
	}
	x.user, x.item = key("interactions: user", d.user), key("interactions: item", d.item)
	if c, ok := b.column("interactions", text{s: datasets.TransID, pos: d.pos}, datasets.Int64, datasets.String); ok {
		b.rows.id = c
		x.idText = b.rows.ext.Fields[c].Type == datasets.String
	}
	b.returnsOf(d.returns)
	if d.weight.s != "" {
		if c, ok := b.column("interactions: weight", d.weight, datasets.Int64, datasets.Decimal); ok {
			x.weight, x.scale = b.val(c), b.rows.ext.Fields[c].Scale
		}
	}
	if c := b.rows.ext.Index(datasets.Quantity); c >= 0 && d.returns != nil {
		if c, ok := b.column("interactions: returns", text{s: datasets.Quantity, pos: d.pos}, datasets.Int64,
			datasets.Decimal); ok {
			b.rows.target = b.val(c)
		}
	}
	for _, k := range d.keep {
		if c, ok := b.column("interactions: keep", k); ok {
			x.kept = append(x.kept, c)
		}
	}
	if len(b.faults.List) > 0 {
		return
	}
	field := func(c int) datasets.Field {
		f := b.rows.ext.Fields[c]
		f.Nullable = false
		return f
	}
	p.out = &datasets.Schema{Fields: []datasets.Field{field(x.user.col), field(x.item.col),
		{Name: ColumnTime, Type: datasets.Time},
		{Name: ColumnWeight, Type: datasets.Float64}, field(b.rows.id)}}
	for _, c := range x.kept {
		p.out.Fields = append(p.out.Fields, b.rows.ext.Fields[c])
	}
	n := shapeNode{Kind: string(Baskets), Of: d.weight.s, Log: d.log,
		Series: []any{d.user.s, d.item.s, d.hold, d.policy, p.lateness,
			b.whereKey(), b.returnsKey(d.returns), slices.Clone(p.out.Fields)}}
	if x.weight >= 0 {
		n.Field = b.rows.ext.Fields[b.rows.vals[x.weight].col]
	}
	b.shapeNode(ColumnWeight, n)
}
