package main

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/internal/atomicdir"
	"github.com/onmart/onmart/internal/progress"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/score/model/recommender"
)

type recommendFlags struct {
	model, user, out      string
	recent, basket        string
	all, excludeBought    bool
	inStock, notForSale   string
	k, threads            int
	force                 *bool
	given                 func(flag string) bool
	recentItems, basketOf []string
}

func newRecommendCmd() *cobra.Command {
	var f recommendFlags
	cmd := &cobra.Command{
		Use:   "recommend --model DIR [--user ID | --basket A,B | --all --out FILE]",
		Short: "Recommend items to users, or for a basket, with the reasons",
		Long: `recommend answers from a model of onmart train recommend: the items that a user is most likely to buy next, best first,
each with the reason for it. A user that the model does not know is answered by what --recent says was bought lately, and
without that by what sells now. --basket asks what is bought together with the items of a basket: in how many purchases,
which share of those with the one item has the other (confidence), and how many times as often as chance that is (lift).
--all answers for every user and writes Parquet: user, rank, item, score, kind and reason.

What may be offered is filtered before the list is cut to -k: --exclude-bought leaves out what the user has bought,
--in-stock names a file of the only items there are, --not-for-sale one of items that must not be offered. Such a file is CSV or
Parquet with the item's column (as in the data, or a single column); with a column on_hand or stock, rows of 0 are not there.`,
		Args: cobra.NoArgs,
	}
	fl := cmd.Flags()
	fl.StringVar(&f.model, "model", "", "artifact `directory` of onmart train recommend")
	fl.StringVar(&f.user, "user", "", "`id` of the user to answer for")
	fl.StringVar(&f.recent, "recent", "",
		"`items` that the user has bought lately, beside what is known, with commas between")
	fl.StringVar(&f.basket, "basket", "", "`items` of a basket, with commas between")
	fl.BoolVar(&f.all, "all", false, "answer for every user; wants --out")
	fl.StringVar(&f.out, "out", "", "Parquet `file` to make")
	fl.IntVarP(&f.k, "k", "k", 10, "items of a list")
	fl.BoolVar(&f.excludeBought, "exclude-bought", false, "offer nothing that the user has bought")
	fl.StringVar(&f.inStock, "in-stock", "", "CSV or Parquet `file` of the items that are there")
	fl.StringVar(&f.notForSale, "not-for-sale", "", "CSV or Parquet `file` of items that must not be offered")
	fl.IntVar(&f.threads, "threads", 0, "threads (default one a core); they never change the result")
	f.force = addForce(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		f.given = cmd.Flags().Changed
		return runRecommend(cmd, &f)
	}
	return cmd
}

// check reports every fault of the flags at once.
func (f *recommendFlags) check() error {
	var faults []error
	fault := func(format string, args ...any) { faults = append(faults, fmt.Errorf(format, args...)) }
	if f.model == "" {
		fault("--model is missing: name the directory that onmart train recommend wrote")
	}
	asked := 0
	for _, flag := range []string{"user", "basket", "all"} {
		if f.given(flag) {
			asked++
		}
	}
	switch {
	case asked > 1:
		fault("--user, --basket and --all: ask for one of them")
	case asked == 0 && f.recent == "":
		fault("nobody to answer for: give --user, --recent, --basket or --all")
	}
	if f.given("user") && f.user == "" {
		fault("--user is empty: name the user, or give --recent alone")
	}
	if f.recent != "" && (f.given("basket") || f.all) {
		fault("--recent is of one user: give it with --user or alone")
	}
	if f.given("basket") && f.excludeBought {
		fault("--exclude-bought is of users: the items of a basket are never offered with it")
	}
	if f.all != (f.out != "") {
		fault("--all and --out belong together: lists of all users are a file")
	}
	if f.out != "" && filepath.Ext(f.out) != ".parquet" {
		fault("--out %s: lists are Parquet, so give a name that ends in .parquet", f.out)
	}
	if f.k < 1 || f.k > recommender.MaxK {
		fault("-k %d: want 1 to %d items", f.k, recommender.MaxK)
	}
	items := func(flag, text string) []string {
		var out []string
		for _, s := range strings.Split(text, ",") {
			if s = strings.TrimSpace(s); s != "" {
				out = append(out, s)
			}
		}
		if f.given(flag) && len(out) == 0 {
			fault("--%s: no items there: give their ids, with commas between", flag)
		}
		return out
	}
	f.recentItems, f.basketOf = items("recent", f.recent), items("basket", f.basket)
	var err error
	f.threads, err = threadCount(f.threads)
	return errors.Join(append(faults, err)...)
}

// recommendReport is what recommend prints with --json.
type recommendReport struct {
	Model       string               `json:"model"`
	AsOf        string               `json:"as_of"`
	User        string               `json:"user,omitempty"`
	Known       *bool                `json:"known,omitempty"` // the user has purchases
	Basket      []string             `json:"basket,omitempty"`
	NeverSold   []string             `json:"never_sold,omitempty"` // items of the question that nobody had bought
	Items       []recommender.Answer `json:"items,omitempty"`
	Out         string               `json:"out,omitempty"`
	Users       int                  `json:"users,omitempty"`
	Rows        int                  `json:"rows"`
	Seconds     float64              `json:"seconds"`
	UsersPerSec float64              `json:"users_per_second,omitempty"`
}

func runRecommend(cmd *cobra.Command, f *recommendFlags) error {
	con := consoleOf(cmd)
	if err := f.check(); err != nil {
		return usage(err)
	}
	var file *atomicdir.File
	var err error
	if f.out != "" {
		if file, err = atomicdir.CreateFile(f.out, *f.force); err != nil {
			return err
		}
		defer file.Abort()
	}
	a, err := model.Open(f.model)
	if err != nil {
		return err
	}
	r, err := recommender.Open(a, f.threads)
	if err != nil {
		return err
	}
	filter := recommender.Filter{ExcludeBought: f.excludeBought}
	item := r.History().Columns()[1]
	if f.inStock != "" {
		if filter.InStock, err = readItems("--in-stock", f.inStock, item); err != nil {
			return err
		}
	}
	if f.notForSale != "" {
		if filter.NotForSale, err = readItems("--not-for-sale", f.notForSale, item); err != nil {
			return err
		}
	}
	start := time.Now()
	rep := &recommendReport{Model: a.Manifest().Version, AsOf: datasets.FormatTime(r.Now()), User: f.user,
		Basket: f.basketOf, Out: f.out}
	if f.all {
		return f.writeAll(cmd, con, r, filter, file, rep, start)
	}
	list, err := r.Recommend(recommender.Request{User: f.user, Recent: f.recentItems, Basket: f.basketOf, K: f.k,
		Filter: filter})
	if err != nil {
		return err
	}
	rep.Items, rep.NeverSold, rep.Rows = list.Items, list.Ignore, len(list.Items)
	if f.basketOf == nil {
		rep.Known = &list.Known
	}
	rep.Seconds = time.Since(start).Seconds()
	if len(list.Ignore) > 0 {
		con.notef("never sold, and so without a say: %s", strings.Join(list.Ignore, ", "))
	}
	if f.user != "" && !list.Known {
		how := "what sells now is offered"
		if len(f.recentItems) > len(list.Ignore) {
			how = "--recent is all that is known"
		}
		con.notef("%s has bought nothing before %s: %s", f.user, rep.AsOf, how)
	}
	return con.result(rep, func(w io.Writer) error { return printList(w, rep.Items, f) })
}

func printList(w io.Writer, items []recommender.Answer, f *recommendFlags) error {
	if len(items) == 0 {
		what := "nothing is left to offer: the filters leave out every item"
		if f.basketOf != nil {
			what = "nothing is known to be bought together with this basket, or the filters leave it out"
		}
		_, err := fmt.Fprintln(w, what)
		return err
	}
	if f.basketOf != nil {
		t := newTable("item", "with", "purchases", "confidence", "lift", "cosine")
		for _, x := range items {
			y := x.Why
			t.add(x.Item, y.With, strconv.Itoa(y.Support), fmt.Sprintf("%.3f", y.Confidence),
				fmt.Sprintf("%.1f", y.Lift), fmt.Sprintf("%.3f", y.Cosine))
		}
		return t.write(w)
	}
	t := newTable("item", "score", "why")
	for _, x := range items {
		t.add(x.Item, fmt.Sprintf("%.3f", x.Score), x.Why.Text)
	}
	return t.write(w)
}

// writeAll answers for every user.
func (f *recommendFlags) writeAll(cmd *cobra.Command, con *console, r *recommender.Recommender,
	filter recommender.Filter, file *atomicdir.File, rep *recommendReport, start time.Time) error {
	h := r.History()
	bar := con.bar("recommend", int64(h.Users.Len()), "users")
	lists, err := r.All(cmd.Context(), f.k, filter, func(n int64) { bar.Set(n, "") })
	if err == nil {
		bar.Set(int64(h.Users.Len()), "")
	}
	bar.Done()
	if err != nil {
		return err
	}
	took := time.Since(start).Seconds()
	columns := h.Columns()
	b := datasets.NewBatch(&datasets.Schema{Fields: []datasets.Field{{Name: columns[0], Type: h.Users.Type},
		{Name: "rank", Type: datasets.Int64},
		{Name: columns[1], Type: h.Items.Type}, {Name: "score", Type: datasets.Float64}, {Name: "kind",
			Type: datasets.String}, {Name: "reason", Type: datasets.String}}}, 0)
	for _, list := range lists {
		for rank, x := range list.Items {
			if err := errors.Join(h.Users.Put(&b.Columns[0], list.User),
				h.Items.Put(&b.Columns[2], x.Item)); err != nil {
				return err
			}
			b.Columns[1].Ints = append(b.Columns[1].Ints, int64(rank+1))
			b.Columns[3].Floats = append(b.Columns[3].Floats, x.Score)
			b.Columns[4].Strings, b.Columns[5].Strings = append(b.Columns[4].Strings,
				x.Why.Kind), append(b.Columns[5].Strings, x.Why.Text)
			b.N++
		}
	}
	if err := datasets.WriteTable(file, b); err != nil {
		return file.Err(err)
	}
	if err := file.Commit(); err != nil {
		return err
	}
	rep.Users, rep.Rows, rep.AsOf, rep.Seconds = len(lists), b.N, datasets.FormatTime(r.Now()), time.Since(start).Seconds()
	rep.UsersPerSec = float64(len(lists)) / took
	return con.result(rep, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s: lists of %s users, %s rows, as of %s, by model %s\n", f.out,
			progress.Count(int64(rep.Users)), progress.Count(int64(rep.Rows)), rep.AsOf, rep.Model)
		return err
	})
}

// stockColumns say how many of an item there are.
var stockColumns = []string{"on_hand", "stock", "quantity"}

// readItems reads a CSV or Parquet file of items: the column of that name, or the only one. Rows whose stock is 0 or
// less are left out.
func readItems(flag, path, column string) ([]string, error) {
	var names []string
	var cells [][]string
	var err error
	if filepath.Ext(path) == ".parquet" {
		names, cells, err = parquetCells(path)
	} else {
		names, cells, err = itemCells(path, column)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	at := slices.Index(names, column)
	if at < 0 && len(names) == 1 {
		at = 0
	}
	if at < 0 {
		return nil, fmt.Errorf("%s %s: it has the columns %s; want %s", flag, path, strings.Join(names, ", "), column)
	}
	stock := slices.IndexFunc(names, func(n string) bool { return slices.Contains(stockColumns, n) })
	items := []string{}
	for i, row := range cells {
		if stock >= 0 && stock != at && row[stock] != "" {
			n, err := strconv.ParseFloat(strings.TrimSpace(row[stock]), 64)
			if err != nil || n != n {
				return nil, fmt.Errorf("%s %s: row %d: %s is %q, want a number", flag, path, i+1, names[stock],
					row[stock])
			}
			if n <= 0 {
				continue
			}
		}
		if id := strings.TrimSpace(row[at]); id != "" {
			items = append(items, id)
		}
	}
	return items, nil
}

// itemCells reads CSV with a header. A file of a single column may be without: then its first line is an item too.
func itemCells(path, column string) (names []string, rows [][]string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	r := csv.NewReader(f)
	if rows, err = r.ReadAll(); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(rows) == 0 {
		return nil, nil, fmt.Errorf("%s is empty: want a header and a line for each item", path)
	}
	if len(rows[0]) == 1 && !strings.EqualFold(rows[0][0], column) {
		return []string{column}, rows, nil
	}
	names = rows[0]
	for i := range names {
		names[i] = strings.ToLower(strings.TrimSpace(names[i]))
	}
	return names, rows[1:], nil
}

// inspectRecommend says what a recommender is made of.
func inspectRecommend(w io.Writer, a *model.Artifact) error {
	r, err := recommender.Open(a, 1)
	if err != nil {
		return err
	}
	m := r.Model()
	fmt.Fprintf(w, "  answers    by %s, for %s users from %s items, as of %s\n", m.Kind, progress.Count(int64(m.Users)),
		progress.Count(int64(m.Items)), datasets.FormatTime(m.Now))
	fmt.Fprintf(w, "  knows      %s purchases, %s lines\n", progress.Count(int64(m.Purchases)),
		progress.Count(int64(m.Lines)))
	if m.Blend != nil {
		fmt.Fprintf(w, "  blends     own purchases, popularity, %s\n", strings.Join(m.Blend.Components, ", "))
	}
	return nil
}
