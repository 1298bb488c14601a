// Package datasets is transactions on disk and on the wire.
//
// What enters: exports as CSV or JSON lines, single events as JSON. What leaves: Batches of canonical
// columns, and data set directories that are complete or do not exist. One decoder (Mapping) reads both
// exports and live events, so that a value means the same to training and to scoring. A Batch's rows are
// in log order; nothing may be assumed about the order of rows in an export.
package datasets

import "fmt"

// Canonical column names of transactions and of the log. A Mapping fills some of them; columns it does not
// fill are absent from its schema.
const (
	TransID       = "trans_id"       // names the purchase, repeats over its lines
	Line          = "line"           // Int64, 0.. within a trans_id; (trans_id, line) is one transaction
	TransDatetime = "trans_datetime" // event time
	ProductID     = "product_id"
	UserID        = "user_id"
	StoreID       = "store_id"
	TransLong     = "trans_long" // degrees
	TransLat      = "trans_lat"  // degrees
	Quantity      = "quantity"
	UnitPrice     = "unit_price"
	Amount        = "amount"
	Channel       = "channel"
	IsReturn      = "is_return"
	Rating        = "rating"
	Review        = "review"
	IsFraud       = "is_fraud" // the label: Int64 0 or 1, null where it is not known

	// Seq is an event's position in a recorded log, Int64, ascending by one. A data set of kind
	// KindTransactions has none: its position is its row.
	Seq = "seq"
	// Event is EventTransaction, EventLabel or EventStock, String; a batch without the column holds transactions.
	Event = "event"
	// EventID is the caller's own id of a live event, String, optional: scores carry it, so that they
	// have the same id after a replay.
	EventID = "event_id"
	// KnownAt is when a label could be used, or stock was counted, Time, null for transactions. A transaction row that carries
	// its label has it known at event time plus the spec's delay.
	KnownAt = "known_at"
)

// Time columns of data sets that are not of transactions.
const (
	StepTime        = "step" // of a panel: when the step begins
	InteractionTime = "time" // of interactions: when the purchase was
)

const (
	EventTransaction = "transaction"
	EventLabel       = "label"
	EventStock       = "stock" // how much of a product, in a store or in all, there was at KnownAt
)

// AmountScale is the number of decimal places of amounts and prices: they are int64 in units of 1e-4.
const AmountScale = 4

// Type is a column's type in memory and on disk.
type Type uint8

const (
	Int64   Type = iota + 1 // Ints; Parquet INT64
	Decimal                 // Ints in units of 10^-Scale; Parquet DECIMAL(18, Scale) on INT64
	Time                    // Ints: microseconds since 1970-01-01 UTC; Parquet TIMESTAMP(MICROS, UTC)
	Float64                 // Floats; Parquet DOUBLE; NaN and infinities do not occur
	String                  // Strings, UTF-8; Parquet STRING
)

var typeNames = [...]string{Int64: "int64", Decimal: "decimal", Time: "time", Float64: "float64", String: "string"}

func (t Type) String() string {
	if int(t) < len(typeNames) && t > 0 {
		return typeNames[t]
	}
	return fmt.Sprintf("type(%d)", uint8(t))
}

// MarshalText and UnmarshalText use the names int64, decimal, time, float64 and string.
func (t Type) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

func (t *Type) UnmarshalText(b []byte) error {
	for i, n := range typeNames {
		if n != "" && n == string(b) {
			*t = Type(i)
			return nil
		}
	}
	return fmt.Errorf("column type %q: want int64, decimal, time, float64 or string", b)
}

// Field describes one column.
type Field struct {
	Name     string `json:"name"`
	Type     Type   `json:"type"`
	Scale    int    `json:"scale,omitempty"` // Decimal: digits after the point
	Nullable bool   `json:"nullable,omitempty"`
}

// Schema is the columns of a Batch or a data set, in order. It is not changed once made.
type Schema struct {
	Fields []Field `json:"fields"`
}

// Index returns the place of a column, or -1.
func (s *Schema) Index(name string) int {
	for i := range s.Fields {
		if s.Fields[i].Name == name {
			return i
		}
	}
	return -1
}

// Column holds the values of one column: Ints for Int64, Decimal and Time, Floats for Float64, Strings
// for String. Null is nil where no value is null; a null's value is zero.
type Column struct {
	Ints    []int64
	Floats  []float64
	Strings []string
	Null    []bool
}

// IsNull tells whether row i has no value.
func (c *Column) IsNull(i int) bool { return c.Null != nil && c.Null[i] }

// Batch is N rows of a schema, column by column, in log order. Columns[i] belongs to Schema.Fields[i].
type Batch struct {
	Schema  *Schema
	N       int
	Columns []Column
}

// NewBatch makes an empty batch of the schema with room for n rows.
func NewBatch(s *Schema, n int) *Batch {
	b := &Batch{Schema: s, Columns: make([]Column, len(s.Fields))}
	for i, f := range s.Fields {
		switch f.Type {
		case Float64:
			b.Columns[i].Floats = make([]float64, 0, n)
		case String:
			b.Columns[i].Strings = make([]string, 0, n)
		default:
			b.Columns[i].Ints = make([]int64, 0, n)
		}
	}
	return b
}

// Column returns the column of that name, or nil.
func (b *Batch) Column(name string) *Column {
	if i := b.Schema.Index(name); i >= 0 {
		return &b.Columns[i]
	}
	return nil
}

// Slice is rows from..to of the batch, sharing its memory.
func (b *Batch) Slice(from, to int) *Batch {
	s := &Batch{Schema: b.Schema, N: to - from, Columns: make([]Column, len(b.Columns))}
	for i := range b.Columns {
		c := &b.Columns[i]
		d := &s.Columns[i]
		if c.Ints != nil {
			d.Ints = c.Ints[from:to]
		}
		if c.Floats != nil {
			d.Floats = c.Floats[from:to]
		}
		if c.Strings != nil {
			d.Strings = c.Strings[from:to]
		}
		if c.Null != nil {
			d.Null = c.Null[from:to]
		}
	}
	return s
}
