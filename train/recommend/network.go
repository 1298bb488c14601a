package recommend

import (
	"context"
	"math"
	"slices"
	"strings"

	"github.com/onmart/onmart/ranking"
	"github.com/onmart/onmart/score/model/recommender"
	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/graph"
	"github.com/onmart/onmart/train/program"
)

// Names of the network's tables, constants and columns, beside those that package recommender reads.
const (
	tableUsers   = "users"
	tableHistory = "history"
	constCDF     = "cdf"
	constLogQ    = "logq"
	columnItem   = "item"
	columnWeight = "weight"
)

// firstScale is the deviation of the first vectors, small beside what a few steps make of them.
const firstScale = .05

// tile is the users whose vectors the forward program makes at once.
const tile = 64

// Compile lowers the network: a user's vector is the user's own plus the mean of the vectors, as history, of the latest
// items (as in YouTube's candidate generation, Covington et al. 2016, and FISM, Kabbur et al. 2013); an item has
// another vector as what is offered. What was bought must win against items that are drawn in proportion to their
// sales: by a softmax whose logits are corrected for that (Bengio, Senecal 2008), so that popularity is learned
// too. The items are drawn once a step for all rows or, with other losses than the default, a few for each row: by the
// same softmax, or by the pairs of BPR.
func (c *Config) Compile(users, items, rows int) (*program.Set, error) {
	build := func(b *graph.Builder) (graph.Model, error) {
		offered := b.Table(recommender.ItemTable, items, c.Dim, firstScale)
		bought := b.Table(tableHistory, items, c.Dim, firstScale)
		own := b.Table(tableUsers, users, c.Dim, firstScale)
		user := b.Add(b.Lookup(own, b.Input(recommender.InputUser, 1)),
			b.Lookup(bought, b.Input(recommender.InputRecent, c.Recent)))
		item, weight := b.Input(columnItem, 1), b.Input(columnWeight, 1)
		if c.Loss != lossShared {
			return graph.Model{Loss: c.candidates(b, offered, user, item, weight), Output: user}, nil
		}
		pos := b.RowDot(user, b.Lookup(offered, item))
		drawn := b.Sample(b.Const(constCDF, items), c.Negatives)
		neg := b.MatMulT(user, b.Lookup(offered, drawn))
		return graph.Model{Loss: b.SampledSoftmax(pos, neg, item, drawn, b.Const(constLogQ, items), weight),
			Output: user}, nil
	}
	return graph.Compile(build, c.Options(min(c.Batch, rows), rows, tile))
}

// Names of the losses.
const (
	lossShared  = "shared"  // a softmax over items that all rows of a step share
	lossSoftmax = "softmax" // a softmax over items that each row draws for itself
	lossBPR     = "bpr"     // the pairs of Rendle et al. 2009, over the same
)

// candidates is the loss of each row's own candidates.
func (c *Config) candidates(b *graph.Builder, offered, user, item, weight *graph.Node) *graph.Node {
	items := offered.Shape()[0]
	idx := b.Concat(item, b.SampleRows(b.Const(constCDF, items), c.Candidates))
	scores := b.LookupDot(offered, idx, user)
	if c.Loss == lossBPR {
		return b.CandidateBPR(scores, idx, weight)
	}
	return b.CandidateSoftmax(scores, idx, b.Const(constLogQ, items), weight)
}

// companions is how many of a user's lines, up to and with the purchase of a row, the row's recent items are drawn
// from.
const companions = 60

// Random numbers of the rows, apart from those of the program.
const siteRows = 0x726f7773

// rowsOf makes a row of each line of a log: user, item bought, and items that the user bought by then. Lines of the
// same purchase are among them, the item itself is not: what is learned is which items go together. weight counts a
// line by its age.
func (c *Config) rowsOf(l *ranking.Log, now int64, seed uint64) []program.Column {
	n := len(l.User)
	user, item, weight := make([]float32, 0, n), make([]float32, 0, n), make([]float32, 0, n)
	recent := make([]float32, 0, n*c.Recent)
	var pool []int32
	row := uint32(0)
	for u, lines := range l.Histories() {
		for at := range lines {
			end := at
			for end+1 < len(lines) && lines[end+1].Visit == lines[at].Visit {
				end++
			}
			pool = pool[:0]
			for k := end; k >= 0 && len(pool) < companions; k-- {
				if i := lines[k].Item; i != lines[at].Item && !slices.Contains(pool, i) {
					pool = append(pool, i)
				}
			}
			// The latest few, or a few of all: a list of recent items may be short.
			want := min(len(pool), c.Recent)
			for k := range want {
				pick := k + int(program.Philox([2]uint32{uint32(seed), siteRows},
					[4]uint32{row, uint32(k), 1})[0]%uint32(len(pool)-k))
				pool[k], pool[pick] = pool[pick], pool[k]
				recent = append(recent, float32(pool[k]))
			}
			for range c.Recent - want {
				recent = append(recent, -1)
			}
			known := float32(u)
			if r := program.Philox([2]uint32{uint32(seed), siteRows},
				[4]uint32{row, 0, 2})[0]; float64(r)/(1<<32) < c.Anonymous {
				known = -1
			}
			user, item = append(user, known), append(item, float32(lines[at].Item))
			w := 1.0
			if c.HalfLife > 0 {
				w = math.Exp2(-float64(now-lines[at].Time) / (float64(c.HalfLife) * microDay))
			}
			weight = append(weight, float32(w))
			row++
		}
	}
	var mean float64
	for _, w := range weight {
		mean += float64(w)
	}
	mean /= float64(max(1, n))
	for i := range weight {
		weight[i] = float32(float64(weight[i]) / mean) // so that the learning rate means the same for any half life
	}
	return []program.Column{
		{Name: recommender.InputUser, Rows: n, Width: 1, F32: user},
		{Name: recommender.InputRecent, Rows: n, Width: c.Recent, F32: recent},
		{Name: columnItem, Rows: n, Width: 1, F32: item},
		{Name: columnWeight, Rows: n, Width: 1, F32: weight},
	}
}

// sampling is the distribution that negatives are drawn from: sales to the power of three quarters, as in word2vec
// (Mikolov et al. 2013), and a little for items without any.
func sampling(l *ranking.Log) program.Tensors {
	share := make([]float64, l.Items)
	for _, i := range l.Item {
		share[i]++
	}
	sum := 0.0
	for i, n := range share {
		share[i] = math.Pow(n+.1, .75)
		sum += share[i]
	}
	cdf, logq := make([]float32, l.Items), make([]float32, l.Items)
	at := 0.0
	for i := range share {
		at += share[i] / sum
		cdf[i], logq[i] = float32(min(at, 1)), float32(math.Log(share[i]/sum))
	}
	cdf[l.Items-1] = 1
	return program.Tensors{{Name: constCDF, DType: program.F32, Shape: []int{l.Items}, F32: cdf},
		{Name: constLogQ, DType: program.F32, Shape: []int{l.Items}, F32: logq}}
}

// fitting is one training of the network.
type fitting struct {
	config  *Config
	backend program.Backend
	seed    uint64
	explain func(*program.Set, program.Data)
	// do runs the task; nil runs it with nothing around it.
	do func(context.Context, *train.Task) (*train.Result, error)
}

// network is a trained one.
type network struct {
	set     *program.Set
	weights program.Tensors
	result  *train.Result
	rows    int
	members int // networks of other seeds in it, whose vectors stand side by side
}

// bind compiles the network for a log and makes its data.
func (f *fitting) bind(l *ranking.Log, now int64) (*program.Set, program.Data, error) {
	set, err := f.config.Compile(l.Users, l.Items, len(l.User))
	if err != nil {
		return nil, program.Data{}, err
	}
	data := program.Data{
		Columns:  f.config.rowsOf(l, now, f.seed),
		Schedule: program.Schedule{Seed: f.seed, Train: program.Range{To: len(l.User)}},
	}
	data.Rates = f.config.Rates(data.StepsPerEpoch(set.Train.Rows), f.config.Epochs)
	return set, data, nil
}

// run trains on the lines of a log up to now.
func (f *fitting) run(ctx context.Context, l *ranking.Log, now int64) (*network, error) {
	set, data, err := f.bind(l, now)
	if err != nil {
		return nil, err
	}
	if f.explain != nil {
		f.explain(set, data)
	}
	init := set.Initial(f.seed)
	for _, t := range sampling(l) { // a loss may want one of them alone
		if slices.ContainsFunc(set.Consts, func(c program.TensorSpec) bool { return c.Name == t.Name }) {
			init = append(init, t)
		}
	}
	init.Sort()
	task := train.Task{Set: set, Data: data, Init: init, Plateau: f.config.Plateau()}
	do := f.do
	if do == nil {
		do = func(ctx context.Context, t *train.Task) (*train.Result, error) { return t.Run(ctx, f.backend) }
	}
	n := &network{set: set, rows: len(l.User), members: 1}
	if n.result, err = do(ctx, &task); err != nil {
		return nil, err
	}
	n.weights = n.result.Weights
	return n, nil
}

// embedding makes it ready to answer.
func (n *network) embedding(c *Config, items int) (*ranking.Embedding, error) {
	return recommender.NewEmbedding(recommender.Embedding{Dim: c.Dim * n.members, Recent: c.Recent}, items, n.set.Served(),
		n.weights)
}

// served is the set as an artifact holds it, whose forward program reads averages of the weights as parameters.
func (n *network) served() *program.Set {
	return &program.Set{Params: n.set.Params, Consts: n.set.Consts, Forward: n.set.Served()}
}

// together is the networks of several seeds as one: a user's vectors stand side by side, and so do those of an item, divided
// by the number of networks. The inner product is then the mean of theirs: of the logits, whose scale all networks share,
// because the softmax that they were trained by fixes it.
func together(nets []*network) (*network, error) {
	if len(nets) == 1 {
		return nets[0], nil
	}
	first, k := nets[0], len(nets)
	set, err := program.SideBySide(first.set, k)
	if err != nil {
		return nil, err
	}
	var members []program.Tensors
	var tables []*program.Tensor
	for _, n := range nets {
		tables = append(tables, n.weights.Find(recommender.ItemTable))
		members = append(members, slices.DeleteFunc(slices.Clone(n.weights), func(t program.Tensor) bool {
			return t.Name == recommender.ItemTable
		}))
	}
	items, dim := tables[0].Shape[0], tables[0].Shape[1]
	joined := program.Tensor{Name: recommender.ItemTable, DType: program.F32, Shape: []int{items, k * dim},
		F32: make([]float32, items*k*dim)}
	for m, t := range tables {
		for i := range items {
			to := joined.F32[(i*k+m)*dim : (i*k+m+1)*dim]
			for c, v := range t.F32[i*dim : (i+1)*dim] {
				to[c] = v / float32(k)
			}
		}
	}
	weights := append(program.Members(first.set, members), joined)
	weights.Sort()
	for i := range set.Params { // no program reads them, and they go along under one name
		if set.Params[i].Name == program.MemberName(0, recommender.ItemTable) {
			set.Params[i] = program.TensorSpec{Name: recommender.ItemTable, Shape: joined.Shape}
		}
	}
	set.Params = slices.DeleteFunc(set.Params, func(s program.TensorSpec) bool {
		return strings.HasSuffix(s.Name, "/"+recommender.ItemTable)
	})
	return &network{set: set, weights: weights, result: first.result, rows: first.rows, members: k}, nil
}
