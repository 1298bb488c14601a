package mock

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/onmart/onmart/datasets"
)

// Verdict on an effect.
type Verdict string

const (
	// Found: the effect is there, and as large as planted within the bounds.
	Found Verdict = "found"
	// Off: the effect is there, and what was planted is outside the bounds.
	Off Verdict = "off"
	// Missing: the data would show an effect of the planted size, and do not.
	Missing Verdict = "missing"
	// Unclear: the data are too few to tell an effect of the planted size from none.
	Unclear Verdict = "unclear"
)

// Effect is one planted effect beside what the data show.
type Effect struct {
	Group    string  `json:"group"`
	Name     string  `json:"name"`
	Planted  float64 `json:"planted"`
	Measured float64 `json:"measured"`
	Low      float64 `json:"low"` // bounds of Measured
	High     float64 `json:"high"`
	Verdict  Verdict `json:"verdict"`
	Note     string  `json:"note,omitempty"`

	empty bool // nothing was measured
}

// Report is what Check found.
type Report struct {
	Lines    int64    `json:"rows"`
	Effects  []Effect `json:"effects"`
	Found    int      `json:"found"`
	NotFound int      `json:"not_found"` // off and missing
	Unclear  int      `json:"unclear"`
}

// sigmas is how many standard errors the bounds lie from a measurement: of a hundred effects, fewer than one in a
// hundred shops has one outside by chance.
const sigmas = 4

// estimate is a measurement before it is judged. tolerance is how far it may be from the truth beyond its error,
// because the methods leave out that the effects touch each other; it is in units of the estimate.
type estimate struct {
	value, se, tolerance float64
}

// judge compares an estimate with what was planted, where null is the value without an effect.
func judge(group, name string, planted, null float64, e estimate, note string) Effect {
	f := Effect{Group: group, Name: name, Planted: planted, Note: note}
	width, gap := sigmas*e.se, math.Abs(planted-null)
	if !finite(e.value, e.se) || width > 100*gap {
		f.Verdict, f.Note, f.empty = Unclear, "nothing to measure it by", true
		return f
	}
	f.Measured, f.Low, f.High = e.value, e.value-width, e.value+width
	shows := math.Abs(e.value-null) >= width && (e.value > null) == (planted > null)
	switch {
	case !shows && gap < 2*width: // chance alone can hide it
		f.Verdict = Unclear
	case !shows:
		f.Verdict = Missing
	case math.Abs(e.value-planted) <= width+e.tolerance:
		f.Verdict = Found
	default:
		f.Verdict = Off
	}
	return f
}

func finite(v ...float64) bool {
	for _, x := range v {
		if x-x != 0 {
			return false
		}
	}
	return true
}

// exp turns an effect on the logarithm of demand into a factor.
func (f Effect) exp() Effect {
	f.Planted = math.Exp(f.Planted)
	if !f.empty {
		f.Measured, f.Low, f.High = math.Exp(f.Measured), math.Exp(f.Low), math.Exp(f.High)
	}
	return f
}

// Check measures the planted effects of a shop that Write made, from its transactions and tables, and compares
// them with truth.json. Truth is used for what to look for and what to compare with; products whose demand follows
// others, by a rhythm or a rule, are left out of the regressions.
func Check(ctx context.Context, dir string) (*Report, error) {
	d, err := readShop(ctx, dir)
	if err != nil {
		return nil, err
	}
	r := &Report{Lines: int64(len(d.lines))}
	steps := []func(*shopData) []Effect{checkDemand, checkRules, checkRhythms, checkInfluence, checkReturns,
		checkTaste, checkRatings, checkFrauds}
	for _, step := range steps {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		r.Effects = append(r.Effects, step(d)...)
	}
	for _, f := range r.Effects {
		switch f.Verdict {
		case Found:
			r.Found++
		case Unclear:
			r.Unclear++
		default:
			r.NotFound++
		}
	}
	return r, nil
}

// sold is one line of the data.
type sold struct {
	trans         int64
	at            int64
	day           int32
	product, user int32
	store         int64
	quantity      int64
	amount        int64
	rating        float64 // 0 for none
	back          bool    // a return
	fraud         bool
	undone        bool // or the line that undoes it, on the same day
}

// genuine lines are sales that stood and were no fraud.
func (l *sold) genuine() bool { return !l.back && !l.fraud && !l.undone }

// shopData is a shop as read from disk.
type shopData struct {
	dir        string
	truth      Truth
	start      int64
	days       int
	lines      []sold
	users      []userRow
	products   []productRow
	byProduct  map[string]int32
	calendar   []dayRow
	price      []float64 // logarithm of price over the first list price, by product and day
	promoted   []bool
	out        []bool // no stock
	categories []string
}

type userRow struct {
	zip    string
	joined int
}

type productRow struct {
	id             string
	category       int
	list           float64
	launched, gone int
	rhythm         float64 // planted
	follows        bool    // is what a rule brings
}

type dayRow struct {
	weekday int
	holiday string
	closed  bool
	part    float64
}

// readTruth reads truth.json of a shop.
func readTruth(dir string) (*Truth, error) {
	text, err := os.ReadFile(filepath.Join(dir, TruthFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s has no %s: it is not a shop that onmart mock made", dir, TruthFile)
	}
	if err != nil {
		return nil, err
	}
	var t Truth
	if err := json.Unmarshal(text, &t); err != nil {
		return nil, fmt.Errorf("%s: it cannot be read: %w: make the shop again", filepath.Join(dir, TruthFile), err)
	}
	if len(t.Categories) == 0 || t.FirstDay == "" {
		return nil, fmt.Errorf("%s: it is not that of a shop, or of an older onmart: make the shop again",
			filepath.Join(dir, TruthFile))
	}
	return &t, nil
}

func readShop(ctx context.Context, dir string) (*shopData, error) {
	set, err := datasets.Open(dir)
	if err != nil {
		return nil, err
	}
	truth, err := readTruth(dir)
	if err != nil {
		return nil, err
	}
	first, err1 := parseDay(truth.FirstDay)
	last, err2 := parseDay(truth.LastDay)
	if err := errors.Join(err1, err2); err != nil || last.Before(first) {
		return nil, fmt.Errorf("%s: first and last day %q and %q: make the shop again", filepath.Join(dir, TruthFile),
			truth.FirstDay, truth.LastDay)
	}
	d := &shopData{dir: dir, truth: *truth, start: first.UnixMicro(),
		days: int((last.UnixMicro()-first.UnixMicro())/datasets.Day) + 1}
	for _, read := range []func() error{d.readUsers, d.readProducts, d.readCalendar, d.readPrices, d.readStockouts} {
		if err := read(); err != nil {
			return nil, err
		}
	}
	if err := d.readLines(ctx, set); err != nil {
		return nil, err
	}
	d.markUndone()
	return d, nil
}

// table reads a table of the shop, its columns in the order of the schema.
func (d *shopData) table(name string, s *datasets.Schema) (*datasets.Batch, error) {
	path := filepath.Join(d.dir, name)
	t, err := datasets.ReadTable(path)
	if err != nil {
		return nil, err
	}
	b := &datasets.Batch{Schema: s, N: t.N}
	for _, f := range s.Fields {
		i := t.Schema.Index(f.Name)
		if i < 0 || t.Schema.Fields[i].Type != f.Type || t.Schema.Fields[i].Scale != f.Scale ||
			t.Schema.Fields[i].Nullable && !f.Nullable {
			return nil, fmt.Errorf("%s: column %s of type %s is not as onmart mock writes it: make the shop again", path,
				f.Name, f.Type)
		}
		b.Columns = append(b.Columns, t.Columns[i])
	}
	return b, nil
}

// day is the number of the day of an instant, from the first.
func (d *shopData) day(at int64) int {
	return int(math.Floor(float64(at-d.start) / float64(datasets.Day)))
}

func (d *shopData) readUsers() error {
	t, err := d.table(UsersFile, usersSchema)
	if err != nil {
		return err
	}
	for i := range t.N {
		if t.Columns[0].Ints[i] != int64(i) {
			return fmt.Errorf("%s: row %d is user %d: make the shop again", UsersFile, i, t.Columns[0].Ints[i])
		}
		d.users = append(d.users, userRow{t.Column("zip").Strings[i], d.day(t.Column("joined").Ints[i])})
	}
	return nil
}

func (d *shopData) readProducts() error {
	t, err := d.table(ProductsFile, productsSchema)
	if err != nil {
		return err
	}
	d.byProduct = make(map[string]int32, t.N)
	for _, c := range d.truth.Categories {
		d.categories = append(d.categories, c.Name)
	}
	for i := range t.N {
		p := productRow{id: t.Columns[0].Strings[i], category: slices.Index(d.categories, t.Column("category").Strings[i]),
			list: float64(t.Column("list_price").Ints[i]), launched: d.day(t.Column("launched").Ints[i]), gone: math.MaxInt}
		if c := t.Column("discontinued"); !c.IsNull(i) {
			p.gone = d.day(c.Ints[i])
		}
		d.byProduct[p.id] = int32(i)
		d.products = append(d.products, p)
	}
	for _, r := range d.truth.Rhythms {
		if i, ok := d.byProduct[r.Product]; ok {
			d.products[i].rhythm = r.Days
		}
	}
	for _, r := range d.truth.Rules {
		if i, ok := d.byProduct[r.Then]; ok {
			d.products[i].follows = true
		}
	}
	return nil
}

func (d *shopData) readCalendar() error {
	t, err := d.table(CalendarFile, calendarSchema)
	if err != nil {
		return err
	}
	for i := range min(t.N, d.days) {
		d.calendar = append(d.calendar, dayRow{int(t.Column("weekday").Ints[i]), t.Column("holiday").Strings[i],
			t.Column("closed").Ints[i] == 1, yearPart(dayOf(d.start, i))})
	}
	if len(d.calendar) < d.days {
		return fmt.Errorf("%s has %d days of %d: make the shop again", CalendarFile, len(d.calendar), d.days)
	}
	return nil
}

// readPrices lays list prices and promotions out by product and day.
func (d *shopData) readPrices() error {
	t, err := d.table(PricesFile, pricesSchema)
	if err != nil {
		return err
	}
	d.price, d.promoted = make([]float64, len(d.products)*d.days), make([]bool, len(d.products)*d.days)
	for i := range t.N { // by product and day: a later price overwrites the rest of the days
		p, ok := d.byProduct[t.Columns[0].Strings[i]]
		if !ok {
			return fmt.Errorf("%s: product %s is not in %s", PricesFile, t.Columns[0].Strings[i], ProductsFile)
		}
		log := math.Log(float64(t.Columns[2].Ints[i]) / d.products[p].list)
		for day := max(d.day(t.Columns[1].Ints[i]), 0); day < d.days; day++ {
			d.price[int(p)*d.days+day] = log
		}
	}
	promos, err := d.table(PromotionsFile, promotionsSchema)
	if err != nil {
		return err
	}
	category, product := promos.Column("category"), promos.Column(datasets.ProductID)
	first, last, discount := promos.Column("first_day"), promos.Column("last_day"), promos.Column("discount")
	for k := range promos.N {
		for i := range d.products {
			if !category.IsNull(k) && d.categories[d.products[i].category] != category.Strings[k] ||
				!product.IsNull(k) && d.products[i].id != product.Strings[k] {
				continue
			}
			for day := max(d.day(first.Ints[k]), 0); day <= min(d.day(last.Ints[k]), d.days-1); day++ {
				d.price[i*d.days+day] += math.Log1p(-discount.Floats[k])
				d.promoted[i*d.days+day] = true
			}
		}
	}
	return nil
}

func (d *shopData) readStockouts() error {
	t, err := d.table(StockoutsFile, stockoutsSchema)
	if err != nil {
		return err
	}
	d.out = make([]bool, len(d.products)*d.days)
	for i := range t.N {
		p, ok := d.byProduct[t.Columns[0].Strings[i]]
		if day := d.day(t.Columns[1].Ints[i]); ok && day >= 0 && day < d.days {
			d.out[int(p)*d.days+day] = true
		}
	}
	return nil
}

func (d *shopData) readLines(ctx context.Context, set *datasets.Dataset) error {
	columns := []string{datasets.TransID, datasets.TransDatetime, datasets.ProductID, datasets.UserID,
		datasets.StoreID, datasets.Quantity,
		datasets.Amount, datasets.IsReturn, datasets.Rating, datasets.IsFraud}
	return set.Read(ctx, datasets.ReadOptions{Columns: columns}, func(b *datasets.Batch) error {
		c := b.Columns
		for i := range b.N {
			p, ok := d.byProduct[c[2].Strings[i]]
			user := c[3].Ints[i]
			if day := d.day(c[1].Ints[i]); !ok || user < 0 || user >= int64(len(d.users)) || day < 0 || day >= d.days {
				return fmt.Errorf("%s: the line of purchase %d on day %d names product %s or user %d, which the tables do not have",
					d.dir, c[0].Ints[i], day, c[2].Strings[i], user)
			}
			l := sold{trans: c[0].Ints[i], at: c[1].Ints[i], day: int32(d.day(c[1].Ints[i])), product: p, user: int32(user),
				store:    c[4].Ints[i],
				quantity: c[5].Ints[i], amount: c[6].Ints[i], back: c[7].Ints[i] == 1, fraud: c[9].Ints[i] == 1}
			if !c[8].IsNull(i) {
				l.rating = c[8].Floats[i]
			}
			d.lines = append(d.lines, l)
		}
		return nil
	})
}

// pair names a user and a product.
type pair struct{ user, product int32 }

// byPair lists the lines of each user and product in time order.
func (d *shopData) byPair(want func(*sold) bool) map[pair][]int32 {
	m := map[pair][]int32{}
	for i := range d.lines {
		if l := &d.lines[i]; want(l) {
			m[pair{l.user, l.product}] = append(m[pair{l.user, l.product}], int32(i))
		}
	}
	return m
}

// markUndone finds sales that a return undid on the same day.
func (d *shopData) markUndone() {
	last := map[pair]int{}
	for i := range d.lines {
		l := &d.lines[i]
		key := pair{l.user, l.product}
		if !l.back {
			last[key] = i
		} else if k, ok := last[key]; ok && d.lines[k].day == l.day && d.lines[k].quantity == -l.quantity &&
			l.at-d.lines[k].at < datasets.Hour {
			d.lines[k].undone, l.undone = true, true
		}
	}
}

// meanAndError is the mean of values and its standard error.
func meanAndError(v []float64) (mean, se float64) {
	n := float64(len(v))
	for _, x := range v {
		mean += x / n
	}
	for _, x := range v {
		se += (x - mean) * (x - mean)
	}
	return mean, math.Sqrt(se / n / max(n-1, 1))
}

// median of values, and its standard error by the normal rule: 1.253 of that of a mean, with a deviation from
// the quartiles so that stray values do not count.
func median(v []float64) (value, se float64) {
	if len(v) == 0 {
		return math.NaN(), math.NaN()
	}
	s := slices.SortedFunc(slices.Values(v), cmp.Compare[float64])
	at := func(q float64) float64 {
		x := q * float64(len(s)-1)
		i := int(x)
		return s[i] + (x-float64(i))*(s[min(i+1, len(s)-1)]-s[i])
	}
	return at(.5), 1.253 * (at(.75) - at(.25)) / 1.349 / math.Sqrt(float64(len(s)))
}
