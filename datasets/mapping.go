package datasets

import (
	"embed"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // zones are the same on machines without a database of their own

	"github.com/goccy/go-yaml/ast"
)

// Mapping says how the columns of an export, or the fields of live events, become canonical columns.
//
// It is written in YAML:
//
//	format: csv                  # or jsonl; without it by the file's name
//	delimiter: ";"               # one character; default is a comma
//	timezone: Europe/London      # of times that carry none; required
//	unique: trans_id             # a second row with the same trans_id is a duplicate
//	returns: true                # negative amounts, prices and quantities are allowed
//	columns:
//	  trans_id: {from: InvoiceNo, type: int64}
//	  trans_datetime: {from: When, layout: ["2006-01-02 15:04:05"]}
//	  amount: {product: [quantity, unit_price]}
//	  is_return: {from: InvoiceNo, prefix: C}
//	  shelf: {from: Shelf, type: string, optional: true, null_values: ["", "NA"]}
//
// A column's keys: from is the source's name (default: the canonical one); type is int64, decimal, time,
// float64, string or flag (0 or 1), given for canonical columns already; scale is the digits after the
// point of a decimal; layout is one or several Go time layouts, or unix, unix_ms, unix_us; null_values
// are texts that mean no value; optional says that the source may lack the column or leave it empty;
// prefix makes a flag of text: 1 where it begins with the prefix; product multiplies two mapped columns
// exactly; upper cuts the spaces around a text and puts it in capitals.
//
// Without unique, and without a column mapped to line, the lines of a trans_id are numbered from 0 in the
// order in which they stand.
//
// A Mapping is not changed once made and may be used by several goroutines.
type Mapping struct {
	name     string
	format   Format // "" is by the file's name
	comma    byte
	loc      *time.Location
	unique   bool // trans_id names one row
	returns  bool
	wide     *wide // a series on each row of a file
	columns  []column
	schema   *Schema
	log      *Schema
	logExtra []column // columns of log beyond schema
	repeats  bool     // decoders keep what they read
	added    []string // fields that events may not have
}

// column is one column of a mapping.
type column struct {
	Field
	from     string
	layouts  []string
	nulls    []string
	optional bool // the source may lack the column
	empty    bool // an empty text is null
	flag     bool // Int64 of 0 and 1
	signed   bool // may be negative whatever the mapping says of returns
	id       bool // names something: integers and text only
	prefix   string
	upper    bool   // text is cut of spaces around it and put in capitals
	product  [2]int // columns to multiply, where isProduct
	products bool
}

//go:embed presets/*.yaml
var presetFiles embed.FS

// Presets lists the names that Preset takes.
func Presets() []string {
	files, err := presetFiles.ReadDir("presets")
	if err != nil {
		panic(err) // embedded: cannot fail
	}
	names := make([]string, len(files))
	for i, f := range files {
		names[i] = strings.TrimSuffix(f.Name(), ".yaml")
	}
	return names
}

// Preset returns a built-in mapping: fraud-handbook, online-retail or canonical.
func Preset(name string) (*Mapping, error) {
	if !slices.Contains(Presets(), name) {
		return nil, fmt.Errorf("no preset %s%s", name, didYouMean(name, Presets()))
	}
	src, err := presetFiles.ReadFile("presets/" + name + ".yaml")
	if err != nil {
		return nil, err
	}
	return ParseMapping("preset "+name, src)
}

// Name is what the mapping was parsed under: its file, or "preset NAME".
func (m *Mapping) Name() string { return m.name }

// WithDelimiter is the mapping for files with another character between the fields.
func (m *Mapping) WithDelimiter(comma byte) *Mapping {
	c := *m
	c.comma = comma
	return &c
}

// Schema is the columns of the transactions that the mapping yields, under canonical names. Line, where it is
// not mapped and trans_id is not unique, is null until an import numbers the lines.
func (m *Mapping) Schema() *Schema { return m.schema }

// LogSchema is the columns that live events yield: Schema with every column but trans_id nullable, then
// is_fraud where Schema has none, event, known_at and event_id. A label's row has no value but in trans_id,
// is_fraud, event, known_at and, where the event gave them, line and event_id.
// The row of an event of stock has product_id, quantity, event, known_at and, where the event gave them, store_id and event_id.
func (m *Mapping) LogSchema() *Schema { return m.log }

// HasStock tells whether events of stock can be read: they need product_id and quantity among the columns.
func (m *Mapping) HasStock() bool {
	return m.log.Index(ProductID) >= 0 && m.log.Index(Quantity) >= 0
}

// canonical gives the type of each canonical column and whether it names something or may be below zero.
var canonical = []column{
	{Field: Field{Name: TransID, Type: String}, id: true},
	{Field: Field{Name: Line, Type: Int64}},
	{Field: Field{Name: TransDatetime, Type: Time}},
	{Field: Field{Name: ProductID, Type: String}, id: true},
	{Field: Field{Name: UserID, Type: String}, id: true},
	{Field: Field{Name: StoreID, Type: String}, id: true},
	{Field: Field{Name: TransLong, Type: Float64}, signed: true},
	{Field: Field{Name: TransLat, Type: Float64}, signed: true},
	{Field: Field{Name: Quantity, Type: Int64}},
	{Field: Field{Name: UnitPrice, Type: Decimal, Scale: AmountScale}},
	{Field: Field{Name: Amount, Type: Decimal, Scale: AmountScale}},
	{Field: Field{Name: Channel, Type: String}},
	{Field: Field{Name: IsReturn, Type: Int64}, flag: true},
	{Field: Field{Name: Rating, Type: Float64}, signed: true},
	{Field: Field{Name: Review, Type: String}},
	{Field: Field{Name: IsFraud, Type: Int64, Nullable: true}, flag: true, empty: true},
}

// liveColumns are the columns that only events have.
var liveColumns = []column{
	{Field: Field{Name: Event, Type: String}, from: Event, optional: true},
	{Field: Field{Name: KnownAt, Type: Time, Nullable: true}, from: KnownAt, optional: true, empty: true},
	{Field: Field{Name: EventID, Type: String, Nullable: true}, from: EventID, optional: true, empty: true, id: true},
}

// reserved are canonical names that a mapping cannot fill.
var reserved = []string{Seq, Event, EventID, KnownAt}

// ParseMapping reads a mapping; name stands in messages. The error lists every fault with its line.
func ParseMapping(name string, src []byte) (*Mapping, error) {
	d := &yamlDoc{name: name}
	m := &Mapping{name: name, comma: ','}
	root := d.parse(src)
	if root == nil {
		return nil, d.err()
	}
	entries := d.entries(root, "mapping", "format", "delimiter", "timezone", "unique", "returns", "columns", "wide")
	var columns, wide *yamlEntry
	for i, e := range entries {
		switch e.key {
		case "format":
			m.format = Format(d.text(e))
			if m.format != CSV && m.format != JSONL {
				d.fault(e.value, "format: want csv or jsonl, not %q", m.format)
			}
		case "delimiter":
			m.comma = d.delimiter(e)
		case "timezone":
			m.loc = d.timezone(e)
		case "unique":
			m.unique = true
			if key := d.text(e); key != TransID {
				d.fault(e.value, "unique: only trans_id can be unique, not %q", key)
			}
		case "returns":
			m.returns = d.flag(e)
		case "columns":
			columns = &entries[i]
		case "wide":
			wide = &entries[i]
		}
	}
	if m.loc == nil && !slices.ContainsFunc(entries, func(e yamlEntry) bool { return e.key == "timezone" }) {
		d.fault(root, "timezone: is missing; name the zone of times that carry none, such as UTC or Europe/London")
	}
	switch {
	case wide != nil && (columns != nil || m.unique || m.format == JSONL):
		d.fault(wide.node, "wide: goes with neither columns, unique nor format: jsonl")
		return nil, d.err()
	case wide != nil:
		m.parseWide(d, *wide)
	case columns == nil:
		d.fault(root, "columns: is missing")
		return nil, d.err()
	default:
		m.parseColumns(d, *columns)
	}
	if len(d.faults) > 0 {
		return nil, d.err()
	}
	if m.wide != nil {
		m.makeWide()
	} else {
		m.makeSchemas()
	}
	return m, nil
}

func (d *yamlDoc) delimiter(e yamlEntry) byte {
	s := d.text(e)
	if s == `\t` || s == "tab" {
		s = "\t"
	}
	if len(s) != 1 || s == "\"" || s == "\n" || s == "\r" || s[0] >= 0x80 {
		d.fault(e.value, "delimiter: want one ASCII character such as \";\", or \"\\t\"")
		return ','
	}
	return s[0]
}

func (d *yamlDoc) timezone(e yamlEntry) *time.Location {
	s := d.text(e)
	if s == "" || s == "Local" {
		d.fault(e.value, "timezone: want the name of a zone such as UTC or Europe/London: data must mean the same on every machine")
		return nil
	}
	loc, err := time.LoadLocation(s)
	if err != nil {
		d.fault(e.value, "timezone: no zone %q; names are those of the IANA database, such as UTC or Europe/London", s)
		return nil
	}
	return loc
}

func (m *Mapping) parseColumns(d *yamlDoc, columns yamlEntry) {
	nodes := map[string]ast.Node{}
	products := map[string][]string{}
	for _, e := range d.entries(columns.value, "columns") {
		c, product := d.column(e)
		nodes[c.Name] = e.node
		products[c.Name] = product
		m.columns = append(m.columns, c)
	}
	if !m.unique && nodes[Line] == nil {
		line := canonical[canonicalAt(Line)]
		line.from, line.optional, line.empty, line.Nullable = Line, true, true, true
		m.columns = append(m.columns, line)
	}
	// In memory and on disk, columns stand in the canonical order, others after them as they were given.
	slices.SortStableFunc(m.columns, func(a, b column) int { return canonicalAt(a.Name) - canonicalAt(b.Name) })
	for i := range m.columns {
		if names := products[m.columns[i].Name]; names != nil {
			m.bindProduct(d, nodes[m.columns[i].Name], &m.columns[i], names)
		}
	}
	for _, need := range []string{TransID, TransDatetime} {
		if nodes[need] == nil {
			d.fault(columns.node, "columns: %s is missing", need)
		}
	}
	if m.unique && nodes[Line] != nil {
		d.fault(nodes[Line], "columns: line cannot be mapped where unique says that a trans_id has one row")
	}
}

func canonicalAt(name string) int {
	if i := slices.IndexFunc(canonical, func(c column) bool { return c.Name == name }); i >= 0 {
		return i
	}
	return len(canonical)
}

// column reads one entry of columns.
func (d *yamlDoc) column(e yamlEntry) (c column, product []string) {
	known := canonicalAt(e.key) < len(canonical)
	if known {
		c = canonical[canonicalAt(e.key)]
	}
	c.Name, c.from = e.key, e.key
	switch {
	case slices.Contains(reserved, e.key):
		d.fault(e.node, "columns: %s cannot be mapped: live events carry it under its own name", e.key)
	case !columnName.MatchString(e.key):
		d.fault(e.node, "columns: %q: a name has letters, digits, _ and dots, and starts with a letter", e.key)
	}
	typed, scaled := known || slices.Contains(reserved, e.key), false
	for _, o := range d.entries(e.value, e.key, "from", "type", "scale", "layout", "null_values", "optional", "prefix", "product", "upper") {
		switch o.key {
		case "from":
			if c.from = d.text(o); c.from == "" {
				d.fault(o.node, "%s: from is empty", e.key)
			}
		case "type":
			d.columnType(&c, o, known)
			typed = true
		case "scale":
			n, err := strconv.Atoi(d.text(o))
			if err != nil || n < 0 || n > 9 {
				d.fault(o.value, "%s: scale: want the digits after the point, 0 to 9", e.key)
			}
			c.Scale, scaled = n, true
		case "layout":
			c.layouts = d.layouts(o, e.key)
		case "null_values":
			c.nulls = d.texts(o)
			c.Nullable = true
			c.empty = c.empty || slices.Contains(c.nulls, "")
		case "optional":
			if c.optional = d.flag(o); c.optional {
				c.Nullable, c.empty = true, true
			}
		case "prefix":
			if c.prefix = d.text(o); c.prefix == "" {
				d.fault(o.value, "%s: prefix is empty", e.key)
			}
		case "product":
			product = d.texts(o)
		case "upper":
			c.upper = d.flag(o)
		}
	}
	if !typed {
		d.fault(e.node, "%s: type is missing: only canonical columns have one already", e.key)
	}
	d.checkColumn(e, &c, scaled, product)
	return c, product
}

// checkColumn finds settings that contradict each other.
func (d *yamlDoc) checkColumn(e yamlEntry, c *column, scaled bool, product []string) {
	switch {
	case scaled && c.Type != Decimal:
		d.fault(e.node, "%s: scale is for a decimal", e.key)
	case c.layouts != nil && c.Type != Time:
		d.fault(e.node, "%s: layout is for a time", e.key)
	case c.prefix != "" && !c.flag:
		d.fault(e.node, "%s: prefix makes a flag: give it type: flag", e.key)
	case c.upper && c.Type != String:
		d.fault(e.node, "%s: upper is for text", e.key)
	case product != nil && c.Type != Decimal && c.Type != Int64:
		d.fault(e.node, "%s: product makes a decimal or an int64", e.key)
	case (c.Name == TransID || c.Name == TransDatetime) && c.Nullable:
		d.fault(e.node, "%s: every row has one: it takes neither optional nor null_values", e.key)
	}
}

// columnType sets the type; a canonical column may change it only where its meaning allows.
func (d *yamlDoc) columnType(c *column, o yamlEntry, known bool) {
	name := d.text(o)
	was := *c
	c.flag = name == "flag"
	if c.flag {
		name = "int64"
	}
	if err := c.Type.UnmarshalText([]byte(name)); err != nil {
		d.fault(o.value, "%s: type: want int64, decimal, time, float64, string or flag, not %q", c.Name, name)
		return
	}
	if c.Type == Decimal && c.Scale == 0 {
		c.Scale = AmountScale
	} else if c.Type != Decimal {
		c.Scale = 0
	}
	if !known {
		c.signed = true
		return
	}
	ok := c.Type == was.Type && c.flag == was.flag ||
		was.id && (c.Type == Int64 && !c.flag || c.Type == String) ||
		was.Name == Quantity && c.Type == Decimal
	if !ok {
		d.fault(o.value, "%s: type: it is %s and cannot be %s", c.Name, typeWords(&was), name)
	}
}

func typeWords(c *column) string {
	switch {
	case c.flag:
		return "flag"
	case c.id:
		return "int64 or string"
	}
	return c.Type.String()
}

func (d *yamlDoc) layouts(o yamlEntry, column string) []string {
	layouts := d.texts(o)
	sample := time.Date(2011, 10, 9, 8, 7, 6, 0, time.UTC)
	for _, l := range layouts {
		switch l {
		case layoutUnix, layoutUnixMilli, layoutUnixMicro:
			continue
		}
		back, err := time.Parse(l, sample.Format(l))
		switch {
		case strings.Contains(l, "MST"):
			d.fault(o.value, "%s: layout %q: abbreviations of zones are ambiguous; use timezone", column, l)
		case err != nil || back.Year() != 2011 || back.YearDay() != sample.YearDay():
			d.fault(o.value, "%s: layout %q: write the time 2006-01-02 15:04:05 in your format, or unix, unix_ms, unix_us", column, l)
		}
	}
	return layouts
}

func (m *Mapping) bindProduct(d *yamlDoc, n ast.Node, c *column, names []string) {
	if len(names) != 2 {
		d.fault(n, "%s: product: want two columns", c.Name)
		return
	}
	c.products = true
	scale := 0
	for i, name := range names {
		at := slices.IndexFunc(m.columns, func(o column) bool { return o.Name == name })
		if at < 0 || m.columns[at].products || m.columns[at].Type != Int64 && m.columns[at].Type != Decimal {
			d.fault(n, "%s: product: %s is not a mapped int64 or decimal column", c.Name, name)
			return
		}
		c.product[i] = at
		c.Nullable = c.Nullable || m.columns[at].Nullable
		scale += m.columns[at].Scale
	}
	if c.Type == Int64 && scale != 0 {
		d.fault(n, "%s: product: the factors have decimals: make it a decimal", c.Name)
	}
}

// makeSchemas derives the schemas from the columns.
func (m *Mapping) makeSchemas() {
	m.schema = &Schema{}
	m.log = &Schema{}
	for _, c := range m.columns {
		m.schema.Fields = append(m.schema.Fields, c.Field)
		c.Nullable = c.Name != TransID
		m.log.Fields = append(m.log.Fields, c.Field)
	}
	if m.schema.Index(IsFraud) < 0 {
		fraud := canonical[canonicalAt(IsFraud)]
		fraud.from, fraud.optional = IsFraud, true
		m.logExtra = append(m.logExtra, fraud)
	}
	m.logExtra = append(m.logExtra, liveColumns...)
	for _, c := range m.logExtra {
		m.log.Fields = append(m.log.Fields, c.Field)
	}
}
