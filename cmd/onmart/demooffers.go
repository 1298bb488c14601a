package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/onmart/onmart/internal/progress"
	"github.com/onmart/onmart/internal/report"
	"github.com/onmart/onmart/score/model/recommender"
	"github.com/onmart/onmart/train"
	"github.com/onmart/onmart/train/recommend"
)

// The demo's lists.
const (
	demoUsers = 4 // who are shown
	demoOffer = 4 // items of a list
	demoNew   = 3 // of them that the user has never bought
)

// offersShown is what the demo found out about who wants what.
type offersShown struct {
	trained     *recommend.Summary
	recommender *recommender.Recommender // live: it knows every purchase up to the end
	users       []userOffers
	baskets     []basketOffers
}

// userOffers is what to offer a user next.
type userOffers struct {
	User   string               `json:"user"`
	Offers []recommender.Answer `json:"offers"`
	New    []recommender.Answer `json:"new"` // of what the user has never bought
}

// basketOffers is an item and what goes with it.
type basketOffers struct {
	Item string               `json:"item"`
	With []recommender.Answer `json:"with"`
}

func (d *demo) trainOffers(ctx context.Context) error {
	baskets, err := d.shaped(ctx, "shop-interactions", "baskets")
	if err != nil {
		return err
	}
	config := recommend.DefaultConfig()
	config.Folds, config.Epochs = 2, 3 // each fold trains a network of its own
	backend, closeBackend, err := openBackend(d.con, deviceFlags{name: "auto", threads: d.threads}, recommendLacks(config, nil))
	if err != nil {
		return err
	}
	defer giveBack(d.con, closeBackend)
	src, err := recommend.OpenSource(baskets)
	if err != nil {
		return err
	}
	test := d.days(demoLive, demoDays-1)
	defer os.RemoveAll(train.CheckpointDir(d.path("recommend")))
	d.offers.trained, err = recommend.Train(ctx, recommend.Options{
		Source: src, Out: d.path("recommend"), Force: true, Train: d.days(0, demoLive-1), Test: &test,
		Config: config, Seed: d.mock.Seed, Threads: d.threads, Backend: backend,
		Note: d.con.notef, Bar: d.con.bar, Created: trainCreated("demo"),
	})
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// advise says what to order and what to offer, from what the models know when the last event has been lived through.
func (d *demo) advise(context.Context) error {
	stock, err := d.stock()
	if err != nil {
		return err
	}
	if err := d.order(stock); err != nil {
		return err
	}
	var there []string
	for id, row := range stock {
		if row.OnHand > 0 {
			there = append(there, id)
		}
	}
	slices.Sort(there)
	filter := recommender.Filter{InStock: there}
	for _, user := range d.latestUsers() {
		list, err := d.offers.recommender.Recommend(recommender.Request{User: user.User, K: demoOffer, Filter: filter})
		if err != nil {
			return err
		}
		user.Offers = list.Items
		filter := filter
		filter.ExcludeBought = true
		if list, err = d.offers.recommender.Recommend(recommender.Request{User: user.User, K: demoNew, Filter: filter}); err != nil {
			return err
		}
		user.New = list.Items
		d.offers.users = append(d.offers.users, user)
	}
	return d.goesWith(filter)
}

// latestUsers are those whose purchases came last.
func (d *demo) latestUsers() []userOffers {
	h := d.offers.recommender.History()
	var out []userOffers
	seen := map[int32]bool{}
	for i := len(h.Log.User) - 1; i >= 0 && len(out) < demoUsers; i-- {
		if u := h.Log.User[i]; !seen[u] {
			seen[u] = true
			out = append(out, userOffers{User: h.Users.Name(u)})
		}
	}
	return out
}

// goesWith finds the pairs of items that are bought together more often than all others.
func (d *demo) goesWith(filter recommender.Filter) error {
	h := d.offers.recommender.History()
	for i := range h.Items.Len() {
		item := h.Items.Name(int32(i))
		list, err := d.offers.recommender.Recommend(recommender.Request{Basket: []string{item}, K: 2, Filter: filter})
		if err != nil {
			return err
		}
		if len(list.Items) > 0 {
			d.offers.baskets = append(d.offers.baskets, basketOffers{item, list.Items})
		}
	}
	slices.SortStableFunc(d.offers.baskets, func(a, b basketOffers) int {
		return cmp.Or(cmp.Compare(b.With[0].Score, a.With[0].Score), cmp.Compare(b.With[0].Why.Confidence, a.With[0].Why.Confidence))
	})
	// A pair is shown once, from the side that says more.
	seen := map[string]bool{}
	d.offers.baskets = slices.DeleteFunc(d.offers.baskets, func(b basketOffers) bool {
		other := b.With[0].Item + " " + b.Item
		seen[b.Item+" "+b.With[0].Item] = true
		return seen[other]
	})
	d.offers.baskets = d.offers.baskets[:min(6, len(d.offers.baskets))]
	return nil
}

func (d *demo) offerSections() report.Sections {
	users := report.Table{Caption: "For the customers who bought last, of what is in stock. Why each is offered stands behind it.",
		Columns: []report.Column{{Name: "customer", Text: true}, {Name: "what to offer", Text: true, Prose: true}, {Name: "something new", Text: true, Prose: true}}}
	list := func(answers []recommender.Answer) string {
		var lines []string
		for _, o := range answers {
			lines = append(lines, d.demand.names[o.Item]+": "+d.named(o.Why.Text))
		}
		return strings.Join(lines, "\n")
	}
	for _, u := range d.offers.users {
		users.Rows = append(users.Rows, report.Row{Cells: []string{u.User, list(u.Offers), list(u.New)}})
	}
	pairs := report.Table{Caption: "Of pairs in the same purchase. Lift is how many times as often as chance would have it.",
		Columns: []report.Column{{Name: "who buys", Text: true}, {Name: "is offered", Text: true}, {Name: "purchases with both"}, {Name: "of those with the first"}, {Name: "lift"}}}
	for _, b := range d.offers.baskets {
		w := b.With[0]
		pairs.Rows = append(pairs.Rows, report.Row{Cells: []string{d.name(b.Item), d.name(w.Item), progress.Count(int64(w.Why.Support)),
			percent(w.Why.Confidence), strconv.FormatFloat(w.Why.Lift, 'f', 1, 64)}})
	}
	out := report.Sections{
		{Heading: "What to offer to whom", Text: []string{d.offerWords()}, Tables: append([]report.Table{users}, d.offerTable()...)},
		{Heading: "What goes together", Tables: []report.Table{pairs}},
	}
	return out
}

// offerWords says how good the lists were.
func (d *demo) offerWords() string {
	test := d.offers.trained.Test
	if test == nil {
		return ""
	}
	m := test.Model
	return fmt.Sprintf("Of the %s customers who came back in the last four weeks, %s bought something of a list of ten that was made for them before. A list of things that they had never bought hit with %s.",
		progress.Count(int64(m["users"])), percent(m["hit_rate_at_10"]), percent(m["new_hit_rate_at_10"]))
}

// offerTable is the model beside simpler ones.
func (d *demo) offerTable() []report.Table {
	test := d.offers.trained.Test
	if test == nil {
		return nil
	}
	columns := []report.Column{{Name: "lists of ten", Text: true}, {Name: "hits"}, {Name: "recall"}, {Name: "nDCG"}, {Name: "hits, new things"}, {Name: "nDCG, new things"}}
	t := report.Table{Columns: columns, Caption: "On the last four weeks; higher is better. New things are those that the customer had never bought."}
	add := func(name string, m recommend.Metrics, lead bool) {
		r := report.Row{Cells: []string{name}, Lead: lead}
		for _, k := range []string{"hit_rate_at_10", "recall_at_10", "ndcg_at_10", "new_hit_rate_at_10", "new_ndcg_at_10"} {
			r.Cells = append(r.Cells, strconv.FormatFloat(m[k], 'f', 3, 64))
		}
		t.Rows = append(t.Rows, r)
	}
	add(d.offers.trained.Model, test.Model, true)
	for _, b := range test.Baselines {
		add(b.Name, b.Metrics, false)
	}
	return []report.Table{t}
}

// named puts products' names for their ids in a reason.
func (d *demo) named(text string) string {
	words := strings.Fields(text)
	for i, w := range words {
		if n := d.demand.names[strings.TrimRight(w, ",:")]; n != "" {
			words[i] = strings.Replace(w, strings.TrimRight(w, ",:"), n, 1)
		}
	}
	return strings.Join(words, " ")
}

// printOffers writes what to offer to whom.
func (d *demo) printOffers(w io.Writer) error {
	t := newTable("customer", "offer", "why")
	for _, u := range d.offers.users {
		for i, o := range slices.Concat(u.Offers[:min(2, len(u.Offers))], u.New[:min(1, len(u.New))]) {
			user := ""
			if i == 0 {
				user = u.User
			}
			t.add(user, d.demand.names[o.Item], d.named(o.Why.Text))
		}
	}
	return t.write(w)
}
