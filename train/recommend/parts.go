package recommend

import (
	"context"
	"fmt"

	"github.com/onmart/onmart/ranking"
)

// fitParts fits what the configuration wants on a log up to now. net trains the network; nil leaves it out.
func (t *trainer) fitParts(ctx context.Context, l *ranking.Log, now int64, name string) (ranking.Parts, *network,
	error) {
	var p ranking.Parts
	c := &t.Config
	x, err := l.Matrix(now, 0)
	if err != nil {
		return p, nil, err
	}
	for i := range x.Value {
		x.Value[i] = 1 // whether a user has bought an item, not how often: that is what the user's own purchases say
	}
	if p.KNN, err = shared(t, fmt.Sprint("knn", name, c.Neighbours), func() (*ranking.Matrix, error) {
		return ranking.ItemNeighbours(x, c.Neighbours, t.Threads)
	}); err != nil {
		return p, nil, err
	}
	if err := ctx.Err(); err != nil {
		return p, nil, err
	}
	if t.ease(l.Items) {
		if p.EASE, err = shared(t, fmt.Sprint("ease", name, c.EASELambda, c.EASEKeep), func() (*ranking.Matrix, error) {
			return ranking.EASE(x, c.EASELambda, c.EASEKeep, t.Threads)
		}); err != nil {
			return p, nil, err
		}
	}
	if c.wants("als", ranking.ALSKind) {
		o := ranking.ALSOptions{Factors: c.ALSFactors, Iterations: c.ALSIterations,
			Regularization: float32(c.ALSRegularization), Alpha: float32(c.ALSAlpha), Seed: t.Seed, Threads: t.Threads}
		p.ALS, err = shared(t, fmt.Sprint("als", name, o.Factors, o.Iterations, o.Regularization, o.Alpha), func() (*ranking.ALS, error) {
			return ranking.TrainALS(ctx, x, o)
		})
		if err != nil {
			return p, nil, err
		}
	}
	if !c.Embeds() {
		return p, nil, nil
	}
	n, err := t.network(ctx, l, now, name)
	if err != nil {
		return p, nil, err
	}
	p.Embedding, err = n.embedding(c, l.Items)
	return p, n, err
}

// ease tells whether EASE is fitted: always where it is the model, so that too many items are an error, and in a blend
// up to ease_items of them.
func (t *trainer) ease(items int) bool {
	if t.Config.Model == string(ranking.EASER) {
		return true
	}
	return t.Config.wants("ease", ranking.EASER) && items <= t.Config.EASEItems
}

// weighed is the parts that the blend weighs: item neighbours are always there, for reasons, and not always wanted.
func (t *trainer) weighed(p ranking.Parts) ranking.Parts {
	if !t.Config.wants("knn", ranking.KNN) {
		p.KNN = nil
	}
	return p
}

// examples looks at what was bought in a span as a model of its start sees it.
func (t *trainer) examples(ctx context.Context, k int) (*ranking.Examples, error) {
	f := &t.folds[k]
	l := t.history.Log.Until(f.from)
	parts, _, err := t.fitParts(ctx, l, f.from, fmt.Sprintf("fold%d", k+1))
	if err != nil {
		return nil, err
	}
	f.parts = parts
	return ranking.NewExamples(ctx, l, f.from, t.between(f.from, f.to), t.weighed(parts), t.usersToo(), t.Seed,
		t.Threads)
}

func (t *trainer) usersToo() bool { return t.Config.wants("users", ranking.Users) }

// between is the lines of the training in [from, to).
func (t *trainer) between(from, to int64) *ranking.Log {
	l := t.history.Log.Until(to)
	n := len(l.Until(from).User)
	return &ranking.Log{Users: l.Users, Items: l.Items, User: l.User[n:], Item: l.Item[n:], Basket: l.Basket[n:],
		Time: l.Time[n:]}
}
