package graph

import "testing"

// TestCheckDrawsIndices: what a model reads tables by is drawn from their rows, behind a Concat and where no table says
// how many there are, too; the program on the CPU takes no other numbers.
func TestCheckDrawsIndices(t *testing.T) {
	for name, build := range map[string]func(*Builder) (Model, error){
		"drawn for each row": func(b *Builder) (Model, error) {
			v, user := b.Table("items", 7, 3, .5), b.Lookup(b.Table("users", 5, 3, .5), b.Input("user", 1))
			idx := b.Concat(b.Input("item", 1), b.SampleRows(b.Const("cdf", 7), 3))
			s := b.LookupDot(v, idx, user)
			loss := b.Add(b.CandidateSoftmax(s, idx, b.Const("logq", 7), nil), b.CandidateBPR(s, idx, nil))
			return Model{Loss: loss, Output: user}, nil
		},
		"of the data": func(b *Builder) (Model, error) {
			v, idx := b.Table("items", 7, 3, .5), b.Input("items idx", 4)
			y := b.LookupWeighted(v, idx, b.Input("share", 4))
			return Model{Loss: b.BCEWithLogits(b.RowDot(y, y), b.Input("y", 1), nil), Output: y}, nil
		},
		"of no table": func(b *Builder) (Model, error) {
			s, idx := b.Dense("scores", b.Input("x", 3), 4, "", "glorot_uniform"), b.Input("idx", 4)
			return Model{Loss: b.Add(b.CandidateSoftmax(s, idx, nil, nil), b.CandidateBPR(s, idx, nil)), Output: s}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, rows := range []int{3, 40} {
				if err := Check(build, CheckOptions{Rows: rows, Backend: backend(t)}); err != nil {
					t.Errorf("%d rows: %v", rows, err)
				}
			}
		})
	}
}
