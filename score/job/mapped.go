package job

import (
	"fmt"
	"strings"

	"github.com/onmart/onmart/datasets"
)

// ownColumns brings the events of a lane with a mapping of its own into the columns of all.
type ownColumns struct {
	rows *datasets.Batch
	from []int // by column of all: its own; -1: it has none
}

// append decodes an event to the end of b.
func (l *lane) append(b *datasets.Batch, e *Event) *datasets.Reject {
	if l.own == nil {
		return l.decoder.Append(b, e.Value, e.Position)
	}
	own := l.own
	own.rows.Reset()
	if r := l.decoder.Append(own.rows, e.Value, e.Position); r != nil {
		return r
	}
	for i, from := range own.from {
		d := &b.Columns[i]
		if from < 0 {
			appendNull(d, b.Schema.Fields[i].Type, b.N)
			continue
		}
		appendColumn(d, &own.rows.Columns[from], 0, 1, b.N)
	}
	b.N++
	return nil
}

// appendNull appends a null to a column of n rows.
func appendNull(d *datasets.Column, t datasets.Type, n int) {
	switch t {
	case datasets.String:
		d.Strings = append(d.Strings, "")
	case datasets.Float64:
		d.Floats = append(d.Floats, 0)
	default:
		d.Ints = append(d.Ints, 0)
	}
	for len(d.Null) < n {
		d.Null = append(d.Null, false)
	}
	d.Null = append(d.Null, true)
}

// columnsOf finds columns of all among a mapping's own; -1 where it has none.
func columnsOf(all, own *datasets.Schema) []int {
	from := make([]int, len(all.Fields))
	for i := range all.Fields {
		from[i] = own.Index(all.Fields[i].Name)
	}
	return from
}

// CheckMapping refuses a mapping of some partitions whose events do not go into the columns of the job's.
func CheckMapping(job, own *datasets.Mapping) error {
	if _, err := own.NewEventDecoder(""); err != nil {
		return err
	}
	var faults []string
	all := job.LogSchema()
	for _, f := range own.LogSchema().Fields {
		switch i := all.Index(f.Name); {
		case i < 0:
			faults = append(faults, f.Name+" is not among them")
		case all.Fields[i].Type != f.Type || all.Fields[i].Scale != f.Scale:
			faults = append(faults, fmt.Sprintf("%s is %s there and %s here", f.Name, all.Fields[i].Type, f.Type))
		}
	}
	if faults == nil {
		return nil
	}
	return fmt.Errorf("its columns do not go into those of the job's mapping: %s; give both the same columns and types", strings.Join(faults, ", "))
}
