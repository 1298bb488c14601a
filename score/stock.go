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
	levels map[shelf]level
	totals map[string]int64 // by product, over its shelves
	latest int64            // time of the latest count, math.MinInt64 before the first
	come   int64            // counts so far: their order where events have no place of their own
}

// shelf is where a product lies.
type shelf struct{ product, store string } // without a store: of no particular one

// level is one count.
type level struct {
	units              int64
	at, partition, seq int64 // when it was made, and the event's place in the log
}

func newStock() *stock {
	return &stock{levels: map[shelf]level{}, totals: map[string]int64{}, latest: math.MinInt64}
}

// set takes a count. Of two of one shelf that with the later time counts, of equal times the later in the log.
func (s *stock) set(on shelf, l level) {
	old, known := s.levels[on]
	if known && cmp.Or(cmp.Compare(old.at, l.at), cmp.Compare(old.partition, l.partition), cmp.Compare(old.seq, l.seq)) > 0 {
		return
	}
	s.levels[on] = l
	s.totals[on.product] += l.units - old.units
	s.latest = max(s.latest, l.at)
}

// unitsOf is how much there is of a product in a store, or with store "" in all. Where only counts without a store are known,
// these are of every store. known is false where no event told of it.
func (s *stock) unitsOf(product, store string) (units int64, known bool) {
	if s == nil {
		return 0, false
	}
	if store == "" {
		units, known = s.totals[product]
		return units, known
	}
	l, known := s.levels[shelf{product, store}]
	if !known {
		l, known = s.levels[shelf{product: product}]
	}
	return l.units, known
}

// gone are the products of which there is nothing, in a store or with store "" in all, in ascending order.
func (s *stock) gone(store string) []string {
	if s == nil {
		return nil
	}
	var gone []string
	for product := range s.totals {
		if units, known := s.unitsOf(product, store); known && units <= 0 {
			gone = append(gone, product)
		}
	}
	slices.Sort(gone)
	return gone
}

// shelves are all places in ascending order.
func (s *stock) shelves() []shelf {
	return slices.SortedFunc(maps.Keys(s.levels), func(a, b shelf) int {
		return cmp.Or(cmp.Compare(a.product, b.product), cmp.Compare(a.store, b.store))
	})
}

// stockMagic begins a snapshot; its last byte is the version of the format.
const stockMagic = "onmart stock\x01"

// Snapshot writes all counts. Equal stock gives equal bytes.
func (s *stock) Snapshot(w io.Writer) error {
	b := bufio.NewWriter(w)
	b.WriteString(stockMagic)
	var buf []byte
	buf = binary.AppendVarint(buf, s.come)
	buf = binary.AppendUvarint(buf, uint64(len(s.levels)))
	for _, on := range s.shelves() {
		l := s.levels[on]
		for _, text := range []string{on.product, on.store} {
			buf = append(binary.AppendUvarint(buf, uint64(len(text))), text...)
		}
		for _, x := range []int64{l.units, l.at, l.partition, l.seq} {
			buf = binary.AppendVarint(buf, x)
		}
		b.Write(buf)
		buf = buf[:0]
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
	now := newStock()
	now.come = number()
	n, err := binary.ReadUvarint(b)
	bad = errors.Join(bad, err)
	for ; n > 0 && bad == nil; n-- {
		on := shelf{text(), text()}
		l := level{number(), number(), number(), number()}
		if bad == nil {
			now.set(on, l)
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
	return newStock(), c
}

// takeStock folds the events of stock and returns the others, which the features see. A count that lies in the impossible
// future is a reject, as a transaction is: it would stand for good.
func (s *Scorer) takeStock(ev Events) Events {
	c := &s.stockIn
	if s.stock == nil {
		return ev
	}
	kinds := ev.Rows.Columns[c.event].Strings[:ev.Rows.N]
	if !slices.Contains(kinds, datasets.EventStock) {
		return ev
	}
	watermark, now := s.engine.Watermark(), s.o.Now().UnixMicro()+clockError
	early := func(i int) bool {
		t := ev.Rows.Columns[c.at].Ints[i]
		return kinds[i] == datasets.EventStock && t > now && (watermark == math.MinInt64 || t-maxGap > watermark)
	}
	ev = ev.without(early, func(i int) *Reject {
		return &Reject{early: true, Reject: datasets.Reject{File: ev.source(i), Line: ev.Positions[i], Column: datasets.KnownAt,
			Reason: datasets.FormatTime(ev.Rows.Columns[c.at].Ints[i]) + " has not come yet: the count would stand for good"}}
	})
	rows := ev.Rows
	for i := range rows.N {
		if rows.Columns[c.event].Strings[i] != datasets.EventStock {
			continue
		}
		on := shelf{product: idText(&rows.Columns[c.product], i)}
		if c.store >= 0 && !rows.Columns[c.store].IsNull(i) {
			on.store = idText(&rows.Columns[c.store], i)
		}
		s.stock.come++
		l := level{units: rows.Columns[c.units].Ints[i], at: rows.Columns[c.at].Ints[i], seq: s.stock.come}
		if c.partition >= 0 && c.seq >= 0 {
			l.partition, l.seq = rows.Columns[c.partition].Ints[i], rows.Columns[c.seq].Ints[i]
		}
		s.stock.set(on, l)
		s.counts.Stock++
	}
	return ev.without(func(i int) bool { return rows.Columns[c.event].Strings[i] == datasets.EventStock }, nil)
}

// onHand is how much there is of what a series is of, by the names of its keys and its own: nil where it is not of a product, or
// of one in a store, or no event told of it.
func (s *stock) onHand(keys []string, series string) *int64 {
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
	Products []string `json:"products"` // empty: all that events told of
	Store    string   `json:"store"`    // empty: each store by itself
}

// StockAnswer is the answer, by product and store.
type StockAnswer struct {
	Until  string       `json:"until,omitempty"` // time of the latest count, RFC 3339
	Levels []StockLevel `json:"levels"`
}

// StockLevel is one count.
type StockLevel struct {
	Product string `json:"product_id"`
	Store   string `json:"store_id,omitempty"` // none: of no particular one
	OnHand  int64  `json:"on_hand"`
	KnownAt string `json:"known_at"`
}

// stockLevels answers GET /v1/stock.
func (h *Server) stockLevels(w http.ResponseWriter, r *http.Request) {
	var q StockRequest
	if !ask(w, r, &q) || !h.enter(w) {
		return
	}
	answer := StockAnswer{Levels: []StockLevel{}}
	_ = h.scorer.Inspect(func() error {
		s := h.scorer.stock
		if s.latest != math.MinInt64 {
			answer.Until = datasets.FormatTime(s.latest)
		}
		for _, on := range s.shelves() {
			if q.Store != "" && on.store != q.Store || len(q.Products) > 0 && !slices.Contains(q.Products, on.product) {
				continue
			}
			l := s.levels[on]
			answer.Levels = append(answer.Levels, StockLevel{on.product, on.store, l.units, datasets.FormatTime(l.at)})
		}
		return nil
	})
	writeJSON(w, answer)
}
