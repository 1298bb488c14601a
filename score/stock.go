package score

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"net/http"
	"slices"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
)

// stock is what a scorer knows of how much of each product there is, from events of stock: the latest count of each product
// in each store. It is a function of the set of the events, not of their order. Features never read it: a forecast is of what
// could be sold, and recommendations leave out what is not there.
type stock struct {
	scale  int                 // decimals of counts
	levels map[string]*shelves // by product
	count  int                 // of levels
	latest int64               // time of the latest count, math.MinInt64 before the first
	come   int64               // counts so far: their order where events have no place of their own

	// Products of which there is nothing: in a store, and in all.
	goneIn map[string]map[string]struct{}
	gone   map[string]struct{}
}

// shelves are the counts of a product.
type shelves struct {
	in  map[string]level // by store; "": of the product as a whole
	sum int64            // of the stores
}

// level is one count.
type level struct {
	units              int64 // of 10^-scale
	at, partition, seq int64 // when it was made, and the event's place in the log
}

func newStock(scale int) *stock {
	return &stock{scale: scale, levels: map[string]*shelves{}, latest: math.MinInt64,
		goneIn: map[string]map[string]struct{}{}, gone: map[string]struct{}{}}
}

// set takes a count. Of two of one product and store that with the later time counts, of equal times the later in the log.
func (s *stock) set(product, store string, l level) {
	of := s.levels[product]
	if of == nil {
		of = &shelves{in: map[string]level{}}
		s.levels[product] = of
	}
	old, known := of.in[store]
	if known && cmp.Or(cmp.Compare(old.at, l.at), cmp.Compare(old.partition, l.partition), cmp.Compare(old.seq, l.seq)) > 0 {
		return
	}
	if !known {
		s.count++
	}
	of.in[store] = l
	if store != "" {
		of.sum += l.units - old.units
	}
	s.latest = max(s.latest, l.at)
	if s.goneIn[store] == nil {
		s.goneIn[store] = map[string]struct{}{}
	}
	put(s.goneIn[store], product, l.units <= 0)
	put(s.gone, product, of.total() <= 0)
}

// put makes a name one of a set, or not.
func put(set map[string]struct{}, name string, is bool) {
	if is {
		set[name] = struct{}{}
	} else {
		delete(set, name)
	}
}

// total is how much there is in all: the count of the product as a whole, or without one the sum of its stores.
func (of *shelves) total() int64 {
	if whole, known := of.in[""]; known {
		return whole.units
	}
	return of.sum
}

// unitsOf is how much there is of a product in a store, by its own count or else by that of the product as a whole, or with
// store "" in all. known is false where no event told of it.
func (s *stock) unitsOf(product, store string) (units float64, known bool) {
	if s == nil {
		return 0, false
	}
	of, known := s.levels[product]
	if !known {
		return 0, false
	}
	if store == "" {
		return s.number(of.total()), true
	}
	l, known := of.in[store]
	if !known {
		l, known = of.in[""]
	}
	return s.number(l.units), known
}

// number is a count in units.
func (s *stock) number(units int64) float64 { return float64(units) / math.Pow10(s.scale) }

// goneFrom appends the products of which there is nothing, in a store or with store "" in all.
func (s *stock) goneFrom(store string, to []string) []string {
	switch {
	case s == nil:
		return to
	case store == "":
		return slices.AppendSeq(to, maps.Keys(s.gone))
	}
	to = slices.AppendSeq(to, maps.Keys(s.goneIn[store]))
	for product := range s.goneIn[""] {
		if _, own := s.levels[product].in[store]; !own {
			to = append(to, product)
		}
	}
	return to
}

// stockMagic begins a snapshot; its last byte is the version of the format.
const stockMagic = "onmart stock\x01"

// Snapshot writes all counts. Equal stock gives equal bytes.
func (s *stock) Snapshot(w io.Writer) error {
	b := bufio.NewWriter(w)
	b.WriteString(stockMagic)
	var buf []byte
	buf = binary.AppendVarint(buf, int64(s.scale))
	buf = binary.AppendVarint(buf, s.come)
	buf = binary.AppendUvarint(buf, uint64(s.count))
	for _, product := range slices.Sorted(maps.Keys(s.levels)) {
		stores := s.levels[product].in
		for _, store := range slices.Sorted(maps.Keys(stores)) {
			l := stores[store]
			for _, text := range []string{product, store} {
				buf = append(binary.AppendUvarint(buf, uint64(len(text))), text...)
			}
			for _, x := range []int64{l.units, l.at, l.partition, l.seq} {
				buf = binary.AppendVarint(buf, x)
			}
			b.Write(buf)
			buf = buf[:0]
		}
	}
	b.Write(buf)
	return b.Flush()
}

// Restore takes up what Snapshot wrote.
func (s *stock) Restore(r io.Reader) error {
	b := bufio.NewReader(r)
	magic := make([]byte, len(stockMagic))
	if _, err := io.ReadFull(b, magic); err != nil || string(magic) != stockMagic {
		return errors.New("it holds no stock of this version: start from a state of this version, or from a backfill")
	}
	var bad error
	number := func() int64 {
		x, err := binary.ReadVarint(b)
		bad = errors.Join(bad, err)
		return x
	}
	text := func() string {
		n, err := binary.ReadUvarint(b)
		if bad = errors.Join(bad, err); bad != nil || n > datasets.MaxEvent {
			bad = cmp.Or(bad, errors.New("a name is longer than an event"))
			return ""
		}
		name := make([]byte, n)
		_, err = io.ReadFull(b, name)
		bad = errors.Join(bad, err)
		return string(name)
	}
	now := newStock(s.scale)
	if scale := number(); bad == nil && scale != int64(s.scale) {
		return fmt.Errorf("its counts of stock have %d decimals, and the mapping's quantity has %d: start with the mapping that it had", scale, s.scale)
	}
	now.come = number()
	n, err := binary.ReadUvarint(b)
	bad = errors.Join(bad, err)
	for ; n > 0 && bad == nil; n-- {
		product, store := text(), text()
		l := level{number(), number(), number(), number()}
		if bad == nil {
			now.set(product, store, l)
		}
	}
	if bad != nil {
		return fmt.Errorf("the stock cannot be read: %w: the state is damaged; move it away and start from a backfill", bad)
	}
	*s = *now
	return nil
}

// stockColumns are where events of stock have what they tell.
type stockColumns struct{ event, product, store, units, at, partition, seq int }

// stockOf makes a scorer follow stock where its events have the columns.
func stockOf(events *datasets.Schema) (*stock, stockColumns) {
	c := stockColumns{
		event: events.Index(datasets.Event), product: events.Index(datasets.ProductID), store: events.Index(datasets.StoreID),
		units: events.Index(datasets.Quantity), at: events.Index(datasets.KnownAt), partition: events.Index(features.Partition),
		seq: events.Index(datasets.Seq),
	}
	if c.event < 0 || c.product < 0 || c.units < 0 || c.at < 0 {
		return nil, c
	}
	return newStock(events.Fields[c.units].Scale), c
}

// takeStock folds the events of stock and returns the others, which the features see. A count that lies in the impossible
// future is a reject, as a transaction is, by the events before it in the log: it would stand for good.
func (s *Scorer) takeStock(ev Events) Events {
	c := &s.stockIn
	if s.stock == nil {
		return ev
	}
	kinds := ev.Rows.Columns[c.event].Strings[:ev.Rows.N]
	if !slices.Contains(kinds, datasets.EventStock) {
		return ev
	}
	when := s.horizonOf()
	known, times := ev.Rows.Columns[c.at], ev.Rows.Columns[s.time]
	ev = ev.without(func(i int) bool {
		switch {
		case kinds[i] == datasets.EventStock:
			return when.impossible(known.Ints[i])
		case !times.IsNull(i):
			when.pass(times.Ints[i])
		}
		return false
	}, func(i int) *Reject {
		return &Reject{early: true, Reject: datasets.Reject{File: ev.source(i), Line: ev.Positions[i], Column: datasets.KnownAt,
			Reason: datasets.FormatTime(known.Ints[i]) + " has not come yet, and no event so far is within 30 days of it: the count would stand for good"}}
	})
	rows := ev.Rows
	for i := range rows.N {
		if rows.Columns[c.event].Strings[i] != datasets.EventStock {
			continue
		}
		store := ""
		if c.store >= 0 && !rows.Columns[c.store].IsNull(i) {
			store = idText(&rows.Columns[c.store], i)
		}
		s.stock.come++
		l := level{units: rows.Columns[c.units].Ints[i], at: rows.Columns[c.at].Ints[i], seq: s.stock.come}
		if c.partition >= 0 && c.seq >= 0 {
			l.partition, l.seq = rows.Columns[c.partition].Ints[i], rows.Columns[c.seq].Ints[i]
		}
		s.stock.set(idText(&rows.Columns[c.product], i), store, l)
		s.counts.Stock++
	}
	return ev.without(func(i int) bool { return rows.Columns[c.event].Strings[i] == datasets.EventStock }, nil)
}

// onHand is how much there is of what a series is of, by the names of its keys and its own: nil where it is not of a product, or
// of one in a store, or no event told of it.
func (s *stock) onHand(keys []string, series string) *float64 {
	product, store := slices.Index(keys, datasets.ProductID), slices.Index(keys, datasets.StoreID)
	values := features.SeriesKeys(series, len(keys))
	if product < 0 || values == nil || len(keys) > 2 || len(keys) == 2 && store < 0 {
		return nil
	}
	in := ""
	if store >= 0 {
		in = values[store]
	}
	units, known := s.unitsOf(values[product], in)
	if !known {
		return nil
	}
	return &units
}

// idText is an id as requests over HTTP name it.
func idText(c *datasets.Column, row int) string {
	if c.Strings != nil {
		return c.Strings[row]
	}
	return fmt.Sprint(c.Ints[row])
}

// StockRequest asks for how much there is. Over GET its fields are query parameters, lists separated by commas.
type StockRequest struct {
	Products []string `json:"products"` // empty: all that events told of, if they have no more than 10,000 counts
	Store    string   `json:"store"`    // empty: each store by itself
}

// maxLevels bounds the counts that are told unasked: events wait while they are looked up.
const maxLevels = 10_000

// StockAnswer is the answer, by product and store.
type StockAnswer struct {
	Until  string       `json:"until,omitempty"` // time of the latest count, RFC 3339
	Levels []StockLevel `json:"levels"`
}

// StockLevel is one count.
type StockLevel struct {
	Product string  `json:"product_id"`
	Store   string  `json:"store_id,omitempty"` // none: of the product as a whole
	OnHand  float64 `json:"on_hand"`
	KnownAt string  `json:"known_at"`
}

// stockLevels answers GET /v1/stock.
func (h *Server) stockLevels(w http.ResponseWriter, r *http.Request) {
	var q StockRequest
	if !ask(w, r, &q) || !h.enter(w) {
		return
	}
	answer, err := h.levelsOf(q)
	if err != nil {
		httpError(w, http.StatusBadRequest, err.Error())
		return
	}
	slices.SortFunc(answer.Levels, func(a, b StockLevel) int {
		return cmp.Or(cmp.Compare(a.Product, b.Product), cmp.Compare(a.Store, b.Store))
	})
	answer.Levels = slices.Compact(answer.Levels) // a product may be named twice
	writeJSON(w, answer)
}

// levelsOf looks up what is asked for, in no order.
func (h *Server) levelsOf(q StockRequest) (*StockAnswer, error) {
	if len(q.Products) > maxSeries {
		return nil, fmt.Errorf("products: %d names, want at most %d", len(q.Products), maxSeries)
	}
	answer := &StockAnswer{Levels: []StockLevel{}}
	return answer, h.scorer.Inspect(func() error {
		s := h.scorer.stock
		if s.latest != math.MinInt64 {
			answer.Until = datasets.FormatTime(s.latest)
		}
		products := q.Products
		if len(products) == 0 {
			if s.count > maxLevels {
				return fmt.Errorf("products: there are %d counts: name up to %d products", s.count, maxSeries)
			}
			products = slices.Collect(maps.Keys(s.levels))
		}
		for _, product := range products {
			of, known := s.levels[product]
			if !known {
				continue
			}
			for store, l := range of.in {
				if q.Store == "" || q.Store == store {
					answer.Levels = append(answer.Levels, StockLevel{product, store, s.number(l.units), datasets.FormatTime(l.at)})
				}
			}
		}
		return nil
	})
}
