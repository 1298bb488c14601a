package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/ranking"
)

//go:embed benchrecommend.py
var benchRecommendScript string

type benchRecommend struct {
	python, peers, retail, cut string
	threads, rounds, seeds     int
	users, items, cells        int
	searchItems                []int
	exact                      bool

	con *console
	dir string
	res benchRecommendResult
}

func newBenchRecommendCmd() *cobra.Command {
	b := &benchRecommend{}
	cmd := &cobra.Command{
		Use:   "recommend --python FILE --peers DIR",
		Short: "Exact search and ALS beside faiss and implicit",
		Long: `bench recommend runs, one after the other and more than once, the exact search of ours and faiss's IndexFlatIP
on the same vectors (64 dimensions, one thread, one query at a time), and ALS of ours and implicit's on matrices of the
same make (64 factors; implicit through als_speed.py): seconds an iteration, the ten best items of every user without
those he has, and the fold-in of a user. Every line is a ratio of medians of one run. --retail also compares the
nDCG@10 of both ALS on Online Retail, for several seeds.

--python names a Python with numpy, scipy, faiss and implicit; --peers the folder with als_speed.py, retail.py and
common.py.`,
		Args: cobra.NoArgs,
	}
	fl := cmd.Flags()
	fl.StringVar(&b.python, "python", "python3", "Python `file` that has the peers")
	fl.StringVar(&b.peers, "peers", "../shared/bench/recommend", "`directory` of the peers' scripts")
	fl.StringVar(&b.retail, "retail", "", "`directory` of Online Retail's CSV files")
	fl.StringVar(&b.cut, "cut", "2011-09-01", "first `day` of the month that --retail judges on")
	fl.IntVar(&b.threads, "threads", 2, "threads of ALS")
	fl.IntVar(&b.rounds, "rounds", 3, "times that each side of a comparison runs")
	fl.IntVar(&b.seeds, "seeds", 5, "trainings of --retail on each side")
	fl.IntVar(&b.users, "users", 100_000, "users of ALS")
	fl.IntVar(&b.items, "items", 20_000, "items of ALS")
	fl.IntVar(&b.cells, "interactions", 10_000_000, "interactions of ALS")
	fl.IntSliceVar(&b.searchItems, "search-items", []int{20_000, 1_000_000}, "numbers of items to search")
	fl.BoolVar(&b.exact, "exact", false, "solve rows of ALS by Cholesky's factorisation, not by conjugate gradients")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		b.con = consoleOf(cmd)
		return b.run(cmd.Context())
	}
	return cmd
}

// versus is one quantity on both sides; a ratio above 1 says that ours is better.
type versus struct {
	Name   string  `json:"name"`
	Unit   string  `json:"unit"`
	Onmart float64 `json:"onmart"`
	Peer   float64 `json:"peer"`
	Ratio  float64 `json:"ratio"`
	Note   string  `json:"note,omitempty"`
}

type benchRecommendResult struct {
	Threads int           `json:"threads"`
	Speed   []versus      `json:"speed"`
	Retail  *retailResult `json:"retail,omitempty"`
}

// retailResult is the nDCG@10 of both ALS on the same split, by seed: over all items, and over those new to the
// customer.
type retailResult struct {
	Cut    string       `json:"cut"`
	Onmart [][2]float64 `json:"onmart"`
	Peer   [][2]float64 `json:"peer"`
}

func (b *benchRecommend) run(ctx context.Context) error {
	var faults []error
	for _, n := range []struct {
		flag  string
		value int
	}{{"threads", b.threads}, {"rounds", b.rounds}, {"seeds", b.seeds}, {"users", b.users}, {"items", b.items}} {
		if n.value < 1 {
			faults = append(faults, fmt.Errorf("--%s %d: want 1 or more", n.flag, n.value))
		}
	}
	if b.cells < 1 || b.cells > b.users*b.items/4 {
		faults = append(faults, fmt.Errorf("--interactions %d: want 1 to a quarter of all pairs", b.cells))
	}
	if _, err := time.Parse(time.DateOnly, b.cut); err != nil {
		faults = append(faults, fmt.Errorf("--cut %s: want a day such as 2011-09-01", b.cut))
	}
	if _, err := exec.LookPath(b.python); err != nil {
		faults = append(faults, fmt.Errorf("--python %s: %w", b.python, err))
	}
	if _, err := os.Stat(filepath.Join(b.peers, "als_speed.py")); err != nil {
		faults = append(faults, fmt.Errorf("--peers: %w", err))
	}
	for _, n := range b.searchItems {
		if n < 10 {
			faults = append(faults, fmt.Errorf("--search-items %d: want 10 or more", n))
		}
	}
	if err := errors.Join(faults...); err != nil {
		return usage(err)
	}
	dir, err := os.MkdirTemp("", "onmart-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b.dir, b.res.Threads = dir, b.threads
	if err := os.WriteFile(filepath.Join(dir, "peers.py"), []byte(benchRecommendScript), 0o600); err != nil {
		return err
	}
	for _, n := range b.searchItems {
		for _, flat := range []bool{false, true} {
			if err := b.search(ctx, n, flat); err != nil {
				return err
			}
		}
	}
	if err := b.als(ctx); err != nil {
		return err
	}
	if b.retail != "" {
		if err := b.quality(ctx); err != nil {
			return err
		}
	}
	return b.con.result(b.res, b.print)
}

func (b *benchRecommend) print(w io.Writer) error {
	t := newTable("recommend", "unit", "onmart", "peer", "ratio", "note")
	for _, v := range b.res.Speed {
		t.add(v.Name, v.Unit, fmt.Sprintf("%.4g", v.Onmart), fmt.Sprintf("%.4g", v.Peer),
			fmt.Sprintf("%.2f", v.Ratio), v.Note)
	}
	if err := t.write(w); err != nil || b.res.Retail == nil {
		return err
	}
	r := b.res.Retail
	t = newTable("Online Retail, month from "+r.Cut, "seed", "onmart all", "implicit all", "onmart new", "implicit new")
	for i := range r.Onmart {
		t.add("nDCG@10", fmt.Sprint(i+1), fmt.Sprintf("%.4f", r.Onmart[i][0]), fmt.Sprintf("%.4f", r.Peer[i][0]),
			fmt.Sprintf("%.4f", r.Onmart[i][1]), fmt.Sprintf("%.4f", r.Peer[i][1]))
	}
	return t.write(w)
}

// faster compares seconds.
func (b *benchRecommend) faster(name, unit string, scale float64, ours, peers []float64, note string) {
	o, p := spreadOf(ours).Median, spreadOf(peers).Median
	v := versus{Name: name, Unit: unit, Onmart: o * scale, Peer: p * scale, Ratio: p / o, Note: note}
	b.res.Speed = append(b.res.Speed, v)
	b.con.notef("%s: %.4g %s, peer %.4g", name, o*scale, unit, p*scale)
}

// peer runs the script and decodes what it prints.
func (b *benchRecommend) peer(ctx context.Context, result any, args ...string) error {
	out, err := b.python3(ctx, append([]string{filepath.Join(b.dir, "peers.py")}, args...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, result); err != nil {
		return fmt.Errorf("what %s of the peers printed: %w", args[0], err)
	}
	return nil
}

func (b *benchRecommend) python3(ctx context.Context, args ...string) ([]byte, error) {
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, b.python, args...)
	cmd.Stderr = &stderr
	cmd.Env = append(os.Environ(), "OPENBLAS_NUM_THREADS=1") // as implicit asks for
	out, err := cmd.Output()
	if err != nil {
		text := strings.TrimSpace(stderr.String())
		return nil, fmt.Errorf("%s %s: %w: %s", b.python, filepath.Base(args[0]), err, text[max(0, len(text)-2000):])
	}
	return out, nil
}

func writeNumbers(path string, numbers any) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := binary.Write(f, binary.LittleEndian, numbers); err != nil {
		return err
	}
	return f.Close()
}

// searchDim is the number of dimensions of items and queries.
const searchDim, searchQueries = 64, 64

// search compares one query at a time among n items: vectors as a factorisation makes them (clusters of taste, a
// decaying spectrum, uneven lengths), or Gaussian ones, which have nearly one length.
func (b *benchRecommend) search(ctx context.Context, n int, gauss bool) error {
	items, queries := benchVectors(rand.New(rand.NewPCG(5, 5)), n, gauss)
	if err := writeNumbers(filepath.Join(b.dir, "items"), items); err != nil {
		return err
	}
	if err := writeNumbers(filepath.Join(b.dir, "queries"), queries); err != nil {
		return err
	}
	x, err := ranking.NewIndex(items, searchDim)
	if err != nil {
		return err
	}
	var ours, peers []float64
	repeats := 2000
	if n > 200_000 {
		repeats = 100
	}
	list := make([]ranking.Scored, 0, 10)
	same := 0
	for range b.rounds {
		var times []float64
		for i := range repeats {
			q := queries[i%searchQueries*searchDim:][:searchDim]
			start := time.Now()
			if list, err = x.Search(list, q, 10, nil); err != nil {
				return err
			}
			times = append(times, time.Since(start).Seconds())
		}
		ours = append(ours, spreadOf(times).Median)
		var r struct {
			Seconds float64
			IDs     [][]int32
		}
		if err := b.peer(ctx, &r, "search", b.dir, strconv.Itoa(searchDim), strconv.Itoa(repeats)); err != nil {
			return err
		}
		peers = append(peers, r.Seconds)
		same = 0
		for i, ids := range r.IDs {
			if list, err = x.Search(list, queries[i*searchDim:][:searchDim], 10, nil); err != nil {
				return err
			}
			for _, s := range list {
				if slices.Contains(ids, s.Item) {
					same++
				}
			}
		}
	}
	kind := "vectors of factors"
	if gauss {
		kind = "Gaussian vectors"
	}
	b.faster(fmt.Sprintf("top 10 of %d, %s", n, kind), "us", 1e6, ours, peers,
		fmt.Sprintf("faiss Flat IP, %.2f%% the same items", 100*float64(same)/(10*searchQueries)))
	return nil
}

func benchVectors(r *rand.Rand, n int, gauss bool) (items, queries []float32) {
	const centres = 500
	base := make([]float32, centres*searchDim)
	for i := range base {
		base[i] = float32(r.NormFloat64() / math.Sqrt(float64(i%searchDim+1)))
	}
	make1 := func(n int, uneven float64) []float32 {
		v := make([]float32, n*searchDim)
		for i := range n {
			c, scale := r.IntN(centres)*searchDim, float32(math.Exp(uneven*r.NormFloat64()))
			for j := range searchDim {
				if v[i*searchDim+j] = float32(r.NormFloat64()); !gauss {
					v[i*searchDim+j] = (base[c+j] + 0.5*v[i*searchDim+j]/float32(math.Sqrt(float64(j+1)))) * scale
				}
			}
		}
		return v
	}
	return make1(n, 0.3), make1(searchQueries, 0)
}

// Lines of als_speed.py.
var (
	alsIterations = regexp.MustCompile(`iterations ([0-9. ]+) s, median`)
	alsRecommend  = regexp.MustCompile(`blas threads=\d+: [0-9.]+ s = ([0-9]+) users/s`)
	alsFoldIn     = regexp.MustCompile(`fold-in .*p50 ([0-9]+) us`)
)

// als compares training, recommendations for all and the fold-in. Ours runs before and after implicit.
func (b *benchRecommend) als(ctx context.Context) error {
	m, err := benchMatrix(rand.New(rand.NewPCG(6, 6)), b.users, b.items, b.cells)
	if err != nil {
		return err
	}
	var o, p alsTimes
	for range max(1, b.rounds-1) {
		if err := b.alsOurs(ctx, m, &o); err != nil {
			return err
		}
		args := []string{filepath.Join(b.peers, "als_speed.py"), "--recommend", "--iters", "3",
			"--threads", strconv.Itoa(b.threads),
			"--users", strconv.Itoa(b.users), "--items", strconv.Itoa(b.items), "--nnz", strconv.Itoa(b.cells),
			"--factors", strconv.Itoa(searchDim)}
		if b.exact {
			args = append(args, "--exact")
		}
		out, err := b.python3(ctx, args...)
		if err != nil {
			return err
		}
		if err := p.parse(string(out)); err != nil {
			return err
		}
	}
	if err := b.alsOurs(ctx, m, &o); err != nil {
		return err
	}
	what := fmt.Sprintf("%dk x %dk, %.3gM", b.users/1000, b.items/1000, float64(b.cells)/1e6)
	b.faster("ALS iteration, "+what, "s", 1, o.iteration, p.iteration, "implicit")
	b.faster("ALS top 10 of a user, all users", "us", 1e6, o.user, p.user,
		fmt.Sprintf("implicit, best of 1 and 2 BLAS threads; onmart %.0f users/s", 1/spreadOf(o.user).Median))
	b.faster("ALS fold-in of a user", "us", 1e6, o.fold, p.fold, "implicit")
	return nil
}

// alsTimes are seconds: an iteration, a user of all users' recommendations, a user folded in.
type alsTimes struct{ iteration, user, fold []float64 }

func (t *alsTimes) parse(out string) error {
	it, fold := alsIterations.FindStringSubmatch(out), alsFoldIn.FindStringSubmatch(out)
	users := alsRecommend.FindAllStringSubmatch(out, -1)
	if it == nil || users == nil || fold == nil {
		return fmt.Errorf("als_speed.py printed no iterations, users/s or fold-in:\n%s", out)
	}
	number := func(s string) float64 {
		x, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return math.NaN()
		}
		return x
	}
	for f := range strings.FieldsSeq(it[1]) {
		t.iteration = append(t.iteration, number(f))
	}
	best := 0.0
	for _, u := range users {
		best = max(best, number(u[1]))
	}
	t.user, t.fold = append(t.user, 1/best), append(t.fold, number(fold[1])*1e-6)
	return nil
}

func (b *benchRecommend) alsOurs(ctx context.Context, m *ranking.Matrix, t *alsTimes) error {
	o := ranking.ALSOptions{Factors: searchDim, Iterations: 3, Regularization: 0.05, Alpha: 2, Seed: 3,
		Threads: b.threads, Exact: b.exact,
		Report: func(p ranking.ALSProgress) {
			t.iteration = append(t.iteration, p.Elapsed.Seconds())
			b.con.notef("ALS iteration %d: %.2f s, loss %.6f", p.Iteration, p.Elapsed.Seconds(), p.Loss)
		}}
	a, err := ranking.TrainALS(ctx, m, o)
	if err != nil {
		return err
	}
	x, err := ranking.NewIndex(a.Items, a.Factors)
	if err != nil {
		return err
	}
	start := time.Now()
	if _, err := x.SearchBatch(ranking.Batch{Queries: a.Users, K: 10, Seen: m, Threads: b.threads}); err != nil {
		return err
	}
	t.user = append(t.user, time.Since(start).Seconds()/float64(m.Rows))
	f, err := ranking.NewFoldIn(a)
	if err != nil {
		return err
	}
	var v []float32
	var times []float64
	for u := range min(300, m.Rows) {
		items, values := m.Row(u)
		start := time.Now()
		if v, err = f.User(v, items, values); err != nil {
			return err
		}
		times = append(times, time.Since(start).Seconds())
	}
	t.fold = append(t.fold, spreadOf(times).Median)
	return nil
}

// benchMatrix is a matrix of the make of als_speed.py's: items by Zipf (exponent 0.8, shifted by 20), users log-normal,
// values 1 and a Poisson number of mean 0.5 more.
func benchMatrix(r *rand.Rand, users, items, cells int) (*ranking.Matrix, error) {
	wi, wu := make([]float64, items), make([]float64, users)
	for i := range wi {
		wi[i] = math.Pow(float64(i)+20, -0.8)
	}
	for u := range wu {
		wu[u] = math.Exp(r.NormFloat64())
	}
	ci, cu := cumulative(wi), cumulative(wu)
	keys := make([]int64, 0, cells+cells/2)
	for len(keys) < cells {
		for range (cells-len(keys))*13/10 + 1000 {
			u, i := sort.SearchFloat64s(cu, r.Float64()), sort.SearchFloat64s(ci, r.Float64())
			keys = append(keys, int64(min(u, users-1))*int64(items)+int64(min(i, items-1)))
		}
		slices.Sort(keys)
		keys = slices.Compact(keys)
	}
	r.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	keys = keys[:cells]
	row, col, value := make([]int32, cells), make([]int32, cells), make([]float32, cells)
	for k, key := range keys {
		row[k], col[k], value[k] = int32(key/int64(items)), int32(key%int64(items)), 1
		for p := r.Float64(); p > math.Exp(-0.5); p *= r.Float64() { // Knuth's Poisson
			value[k]++
		}
	}
	return ranking.NewMatrix(users, items, row, col, value)
}

func cumulative(w []float64) []float64 {
	sum := 0.0
	for i, x := range w {
		sum += x
		w[i] = sum
	}
	for i := range w {
		w[i] /= sum
	}
	return w
}

// Settings of both ALS on Online Retail.
const (
	retailFactors, retailIterations   = 64, 15
	retailRegularization, retailAlpha = 5, 3
)

// quality compares the two on Online Retail, binary, at the same settings.
func (b *benchRecommend) quality(ctx context.Context) error {
	var size struct{ Users, Items int }
	if err := b.peer(ctx, &size, "split", b.dir, b.peers, b.retail, b.cut); err != nil {
		return err
	}
	raw, err := os.ReadFile(filepath.Join(b.dir, "train"))
	if err != nil {
		return err
	}
	cells := make([][2]int32, len(raw)/8)
	if err := binary.Read(bytes.NewReader(raw), binary.LittleEndian, cells); err != nil {
		return err
	}
	row, col, value := make([]int32, len(cells)), make([]int32, len(cells)), make([]float32, len(cells))
	for i, c := range cells {
		row[i], col[i], value[i] = c[0], c[1], 1
	}
	m, err := ranking.NewMatrix(size.Users, size.Items, row, col, value)
	if err != nil {
		return err
	}
	for seed := 1; seed <= b.seeds; seed++ {
		a, err := ranking.TrainALS(ctx, m, ranking.ALSOptions{Factors: retailFactors, Iterations: retailIterations,
			Regularization: retailRegularization, Alpha: retailAlpha, Seed: uint64(seed), Threads: b.threads, Exact: b.exact})
		if err != nil {
			return err
		}
		path := filepath.Join(b.dir, fmt.Sprintf("factors%d", seed))
		if err := writeNumbers(path, slices.Concat(a.Users, a.Items)); err != nil {
			return err
		}
	}
	var r retailResult
	args := []string{"score", b.dir, b.peers}
	for _, n := range []int{b.seeds, size.Users, size.Items,
		retailFactors, retailRegularization, retailAlpha, retailIterations} {
		args = append(args, strconv.Itoa(n))
	}
	if err := b.peer(ctx, &r, args...); err != nil {
		return err
	}
	r.Cut = b.cut
	b.res.Retail = &r
	return nil
}
