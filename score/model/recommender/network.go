package recommender

import (
	"fmt"

	"github.com/onmart/onmart/ranking"
	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/program"
)

// Names in the network: inputs of its program, and its table of items.
const (
	InputUser   = "user"   // [1]: the number of the user, -1 for one that is not known
	InputRecent = "recent" // [Recent]: the latest different items, -1 where there are fewer
	ItemTable   = "items"
)

// NewEmbedding makes a trained network ready: p maps a user to a vector, weights hold the tables. Items that are not in
// the table have the vector 0, users beyond it are unknown.
func NewEmbedding(e Embedding, items int, p *program.Program, weights program.Tensors) (*ranking.Embedding, error) {
	f, err := cpu.NewForward(p, weights)
	if err != nil {
		return nil, err
	}
	table := weights.Find(ItemTable)
	in := f.Inputs()
	at := map[string]int{}
	for i, x := range in {
		at[x.Name] = i
	}
	u, okUser := at[InputUser]
	r, okRecent := at[InputRecent]
	if len(in) != 2 || !okUser || !okRecent || in[u].Width != 1 || in[r].Width != e.Recent || f.Width() != e.Dim ||
		table == nil || len(table.Shape) != 2 || table.Shape[1] != e.Dim {
		return nil, fmt.Errorf("the network takes %v and gives %d numbers: want user [1] and recent [%d] to %d; train again", in, f.Width(), e.Recent, e.Dim)
	}
	users, known := in[u].Rows, in[r].Rows
	vectors := make([]float32, items*e.Dim)
	copy(vectors, table.F32)
	return &ranking.Embedding{Dim: e.Dim, Recent: e.Recent, Items: vectors,
		NewVector: func() (func([]float32, int32, []int32) error, error) {
			f := f.Clone()
			rows := make([][]float32, 2)
			rows[u], rows[r] = make([]float32, 1), make([]float32, e.Recent)
			return func(dst []float32, user int32, recent []int32) error {
				rows[u][0] = -1
				if int(user) < users {
					rows[u][0] = float32(user)
				}
				n := 0
				for _, item := range recent {
					if int(item) < known && n < e.Recent {
						rows[r][n] = float32(item)
						n++
					}
				}
				for ; n < e.Recent; n++ {
					rows[r][n] = -1
				}
				return f.RunAllF32(rows, 1, dst)
			}, nil
		}}, nil
}
