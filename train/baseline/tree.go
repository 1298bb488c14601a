package baseline

import (
	"fmt"
	"slices"
	"sort"

	"github.com/sjwhitworth/golearn/trees"
)

const (
	// treeLevels is how many values a feature has left when the tree sees it: golearn tries every pair of
	// neighbouring values and counts all rows for each.
	treeLevels = 32
	// treeRows bounds the rows that the tree is grown on: 12,000 rows of 15 features take about a second.
	treeRows  = 12_000
	treeDepth = 6
)

// Tree is golearn's CART decision tree (Breiman et al. 1984, Gini) on features cut into 32 levels. It grows
// on a sample that keeps all frauds where they fit; its leaves are then counted over all rows, since
// golearn gives classes only and a sample's shares are not those of the data.
type Tree struct {
	cuts  [][]float64 // per feature, ascending
	nodes []treeNode
	share []float64 // per leaf
}

// treeNode sends a row with level[feature] < threshold to left: a node, or leaf -1-left.
type treeNode struct {
	feature     int
	threshold   float64
	left, right int
}

func (*Tree) Name() string        { return "decision tree (golearn CART)" }
func (*Tree) Key() string         { return "cart" }
func (*Tree) Probabilities() bool { return true }

// Fit needs both classes.
func (m *Tree) Fit(x [][]float64, y []bool, seed uint64) (note string, err error) {
	rows, positives, err := checkClasses(x, y)
	if err != nil {
		return "", err
	}
	m.cuts = make([][]float64, len(x))
	columns := make([][]float64, len(x)+1)
	for f, column := range x {
		m.cuts[f] = cuts(column)
		columns[f] = make([]float64, rows)
		for i, v := range column {
			columns[f][i] = level(m.cuts[f], v)
		}
	}
	labels := make([]float64, rows)
	for i, v := range y {
		labels[i] = float64(btoi(v))
	}
	columns[len(x)] = labels
	chosen := sample(y, treeRows, seed)
	if err := m.grow(columns, chosen); err != nil {
		return "", err
	}
	m.count(columns, y)
	if len(chosen) < rows {
		kept := 0
		for _, i := range chosen {
			kept += btoi(y[i])
		}
		note = fmt.Sprintf("grown on %d of %d rows (%d of %d frauds), leaves counted over all", len(chosen), rows, kept, positives)
	}
	return note, nil
}

// grow lets golearn grow the tree and copies its nodes out: their type is not exported, their fields are.
func (m *Tree) grow(columns [][]float64, chosen []int) (err error) {
	defer recovered("the decision tree", &err)
	g, err := grid(columns, chosen)
	if err != nil {
		return err
	}
	t := trees.NewDecisionTreeClassifier(trees.GINI, treeDepth, []int64{0, 1})
	if err := t.Fit(g); err != nil {
		return fmt.Errorf("baseline: decision tree: %w", err)
	}
	m.nodes, m.share = nil, nil
	queue := list(t.RootNode)
	for at := 0; at < len(queue); at++ {
		n := queue[at]
		child := func(isLeaf bool) int {
			if isLeaf {
				m.share = append(m.share, 0)
				return -len(m.share)
			}
			return len(queue)
		}
		node := treeNode{feature: int(n.Feature), threshold: n.Threshold}
		if node.left = child(n.Left == nil); n.Left != nil {
			queue = append(queue, n.Left)
		}
		if node.right = child(n.Right == nil); n.Right != nil {
			queue = append(queue, n.Right)
		}
		m.nodes = append(m.nodes, node)
	}
	return nil
}

func list[T any](x T) []T { return []T{x} }

// count gives each leaf its share of frauds, drawn towards the overall share by one row's weight
// (Laplace), so that leaves of one class but different size differ.
func (m *Tree) count(columns [][]float64, y []bool) {
	rows := make([]float64, len(m.share))
	var all float64
	for i, v := range y {
		leaf := m.leaf(columns, i)
		rows[leaf]++
		m.share[leaf] += float64(btoi(v))
		all += float64(btoi(v))
	}
	for k := range m.share {
		m.share[k] = (m.share[k] + all/float64(len(y))) / (rows[k] + 1)
	}
}

func (m *Tree) leaf(levels [][]float64, row int) int {
	at := 0
	for {
		n := &m.nodes[at]
		if levels[n.feature][row] < n.threshold {
			at = n.left
		} else {
			at = n.right
		}
		if at < 0 {
			return -1 - at
		}
	}
}

// Score gives the share of frauds in the row's leaf.
func (m *Tree) Score(x [][]float64) ([]float64, error) {
	rows, err := check(x, nil)
	if err != nil {
		return nil, err
	}
	if len(x) != len(m.cuts) {
		return nil, fmt.Errorf("baseline: %d features, fitted on %d", len(x), len(m.cuts))
	}
	levels := make([][]float64, len(x))
	for f, column := range x {
		levels[f] = make([]float64, rows)
		for i, v := range column {
			levels[f][i] = level(m.cuts[f], v)
		}
	}
	s := make([]float64, rows)
	for i := range s {
		s[i] = m.share[m.leaf(levels, i)]
	}
	return s, nil
}

// cuts are up to 31 places between values: half at quantiles of the rows, half at quantiles of the
// distinct values, since a column that is mostly 0 has its news in the few rows that are not.
func cuts(column []float64) []float64 {
	sorted := slices.Clone(column)
	slices.Sort(sorted)
	distinct := slices.Compact(slices.Clone(sorted))
	var out []float64
	add := func(from []float64, parts int) {
		for k := 1; k < parts; k++ {
			v := from[len(from)*k/parts]
			if i := sort.SearchFloat64s(distinct, v); i > 0 {
				out = append(out, distinct[i-1]+(v-distinct[i-1])/2)
			}
		}
	}
	if len(distinct) <= treeLevels {
		add(distinct, len(distinct))
	} else {
		add(sorted, treeLevels/2)
		add(distinct, treeLevels/2+1)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// level is the number of cuts at or below v.
func level(cuts []float64, v float64) float64 {
	return float64(sort.Search(len(cuts), func(i int) bool { return cuts[i] > v }))
}
