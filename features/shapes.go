package features

import (
	"io"
	"regexp"
	"time"

	"github.com/onmart/onmart/datasets"
)

// Shape is what a spec makes of a log.
type Shape string

const (
	Events  Shape = "events"       // a row of features for each transaction: Engine
	Panels  Shape = "panel"        // a row for each series and step of time: Panel
	Baskets Shape = "interactions" // a row for each item of a purchase: Interactions
)

// State is an engine of any shape: what it remembers can be written down and taken up again. Equal states give
// equal bytes.
type State interface {
	Snapshot(io.Writer) error
	Restore(io.Reader) error
	// Watermark is the greatest event time of the folded transactions, or math.MinInt64 before the first.
	Watermark() int64
}

// Shape tells which engine the spec is for.
func (s *Spec) Shape() Shape {
	switch {
	case s.panel != nil:
		return Panels
	case s.inter != nil:
		return Baskets
	}
	return Events
}

// Location is the zone whose clock the spec reads.
func (s *Spec) Location() *time.Location {
	loc, err := time.LoadLocation(s.timezone)
	if err != nil {
		panic(err) // Parse has loaded it
	}
	return loc
}

// Names of the columns that panels and interactions have of their own.
const (
	ColumnSeries = "series"
	ColumnStep   = datasets.StepTime
	ColumnDemand = "demand"
	ColumnTime   = datasets.InteractionTime
	ColumnWeight = "weight"
)

// panelDef is a spec's `panel:`.
type panelDef struct {
	pos        position
	keys       []text
	step       Step
	seasons    []int
	fillLast   bool // a step without rows repeats the demand before it; otherwise it has 0
	returns    *returnsDef
	demand     measureDef
	measures   []measureDef
	covariates []covariateDef
}

// returnsDef says which rows take goods back and which of them undo a sale.
type returnsDef struct {
	flag text   // Int64 column; empty: a row with a negative quantity is a return
	undo []text // columns that a sale and the return that undoes it have equal; nil: no return undoes a sale
	pos  position
}

// Rows are the classes of rows that a measure is over.
type rowClass string

const (
	rowsDemand   rowClass = "demand"   // sales that no return of the same step undid
	rowsSold     rowClass = "sold"     // all sales
	rowsUndone   rowClass = "undone"   // sales that a return of the same step undid
	rowsReturned rowClass = "returned" // returns that undo no sale of their step
	rowsAll      rowClass = "all"      // everything, returns counted as negative
)

var rowClasses = []string{string(rowsDemand), string(rowsSold), string(rowsUndone), string(rowsReturned),
	string(rowsAll)}

// How rows of a step become one number.
const (
	aggSum      = "sum"
	aggMean     = "mean"
	aggLast     = "last"
	aggMax      = "max"
	aggCount    = "count"    // rows
	aggDistinct = "distinct" // distinct values, such as of trans_id
)

var aggregations = []string{aggSum, aggMean, aggLast, aggMax, aggCount, aggDistinct}

// measureDef is one column over the rows of a step.
type measureDef struct {
	name, kind, of text
	rows           rowClass
	unit, words    string
}

// Kinds of covariates beside aggLast, aggMean and aggMax.
const (
	covCalendar = "calendar" // of the step's local time
	covTable    = "table"    // a number of a joined table, by the step's date and the series' keys
	covFlag     = "flag"     // 1 where a joined table has a value that is neither 0 nor empty
	covLag      = "lag"      // demand or a measure some steps before
)

var covariateKinds = []string{aggLast, aggMean, aggMax, covCalendar, covTable, covFlag, covLag}

// covariateDef is one covariate; a lag gives one for each of its steps.
type covariateDef struct {
	measureDef
	known    bool
	hasKnown bool
	lags     []int
}

// joinDef is a dimension table beside the data set, whose columns rows or steps get.
type joinDef struct {
	table   text
	on      []text // columns of the rows, or `date`
	key     []text // the table's columns that on is compared with; on's own names where nil
	since   text   // a row holds from the day in this column of the table on
	between []text // a row holds from the day in the first to that in the second
	take    []text
	prefix  string
	pos     position
}

// joinDate is a step's local date where a join is on it.
const joinDate = "date"

// whereDef is a condition that a row has to meet.
type whereDef struct {
	column       text
	matches      *regexp.Regexp
	in, notIn    []text
	above, below *float64
	present      bool
}

// interDef is a spec's `interactions:`.
type interDef struct {
	pos        position
	user, item text
	weight     text  // a column that is summed; empty: 1 a purchase
	log        bool  // weight is log(1 + sum)
	hold       int64 // lines of a purchase this long after its first are one row with it
	returns    *returnsDef
	policy     string
	keep       []text
}

// What a return makes of interactions.
const (
	returnsIgnore = "ignore" // nothing
	returnsRemove = "remove" // takes back the purchase that it undoes, where that is not longer ago than hold
	returnsNegate = "negate" // is an interaction of its own, with a negative weight
)

var returnPolicies = []string{returnsIgnore, returnsRemove, returnsNegate}
