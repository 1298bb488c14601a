package features

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features/derive"
)

// Partition is an optional Int64 column of a log: the partition of its source that an event came from.
// With it, Seq is the position within the partition. Without it all events are of partition 0.
const Partition = "partition"

// Feature describes one column of output.
type Feature struct {
	Name  string `json:"name"`
	Kind  Kind   `json:"kind"`
	Log   bool   `json:"log,omitempty"`   // a model wants log1p of it: counts and amounts
	Words string `json:"words,omitempty"` // for people, with {value} and {typical} to be filled in
	Unit  string `json:"unit,omitempty"`
}

// Node is one computed feature and the fingerprint of what it computes: the hex SHA-256 of its canonical
// definition. Equal fingerprints mean equal values and interchangeable state.
type Node struct {
	Name        string `json:"name"`
	Fingerprint string `json:"fingerprint"`
}

// Plan is a spec bound to the columns of its input. It is not changed once made and may be shared.
type Plan struct {
	spec     *Spec
	in, out  *datasets.Schema
	features []Feature
	nodes    []Node
	kept     []int // input columns that are handed on

	// Input columns, -1 where absent.
	time, id, line, event, knownAt, seq, part, label int
	idText                                           bool

	hasLabel                   bool
	delay, acceptFor, lateness int64
	horizon                    int64 // H of the records: the longest window over labels, and lateness
	retain                     int64 // how long an event is held past the horizon
	location                   *time.Location

	// Of features of transactions. A row has the columns of the input, then those of joins, then derived ones;
	// all numbers of columns below are among these.
	row      rowPlan
	fields   []datasets.Field
	derived  *derive.Program // nil: none
	needed   []int           // columns in which a transaction must have a value
	keys     []keyPlan
	vals     []valuePlan
	filters  []filterPlan
	units    []string // calendar units that windows begin with
	groups   []*group
	direct   []directFeature
	last     *derive.Program // features of features; nil: none
	lastIn   []lastInput     // its input
	lastOut  []lastOutput
	labelled []labelledKey

	// Of a panel or of interactions.
	panel  *panelPlan
	inter  *interPlan
	tables []string // checksums of the dimension tables
}

// keyPlan is what rows are told apart by: one column, or a pair of earlier keyPlans.
type keyPlan struct {
	name        string
	col         int // -1: a pair
	text        bool
	left, right int
}

// keyColumn is a key of a panel or of interactions.
type keyColumn struct {
	name string
	col  int
	text bool
}

// valueColumn is a column of a panel or of interactions that is summed.
type valueColumn struct {
	name  string
	col   int
	scale float64 // units in 1
}

// form says how a column's values become the 64-bit words that state holds.
type valueForm uint8

const (
	number   valueForm = iota // Int64 and Decimal: as they are
	floating                  // Float64: bits in an order that compares as whole numbers do
	category                  // what only equality is asked of: Int64 as they are, the hash of a text
)

type valuePlan struct {
	col   int
	form  valueForm
	scale float64 // units in 1 of a number
}

// filterPlan says which rows are entries: those that have a value in all of `present`, and where `where` is not 0.
type filterPlan struct {
	where   int // column, -1: any
	present []int
}

// directFeature is a column of the row.
type directFeature struct {
	dest  int // number of the feature
	col   int
	float bool
	scale float64
}

// labelledKey is a key and filter of a label group: what a label needs to know of its transaction.
type labelledKey struct{ key, filter int }

// lastInput is a column that features of features read: of the row, or an earlier feature.
type lastInput struct{ col, feature int }

type lastOutput struct {
	dest, col int // col is among the columns of Plan.last
	float     bool
	scale     float64
	empty     float64 // where what it is made of has no value
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Schema is the output's columns: the kept columns of the input, then the features, all Float64.
func (p *Plan) Schema() *datasets.Schema { return p.out }

// Features are the features in the order of the output.
func (p *Plan) Features() []Feature { return slices.Clone(p.features) }

// Nodes are the features' fingerprints in the order of the output.
func (p *Plan) Nodes() []Node { return slices.Clone(p.nodes) }

// Fingerprint identifies the whole output: kept columns, names and nodes.
func (p *Plan) Fingerprint() string {
	def, err := json.Marshal(struct {
		Columns []datasets.Field
		Nodes   []Node
		Tables  []string `json:",omitempty"`
	}{p.out.Fields, p.nodes, p.tables})
	if err != nil {
		panic(err) // plain strings and numbers
	}
	return digest(def)
}

func digest(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// columns are the input columns that the plan reads. Without partitions the order of a log says all that its
// seq says, and going by the order lets a log continue the positions of the state it began from.
func (p *Plan) columns() []int {
	list := append(slices.Clone(p.kept), p.row.used...)
	for _, c := range []int{p.time, p.id, p.line, p.event, p.knownAt, p.label, p.part} {
		if c >= 0 {
			list = append(list, c)
		}
	}
	if p.part >= 0 && p.seq >= 0 {
		list = append(list, p.seq)
	}
	slices.Sort(list)
	return slices.Compact(list)
}
