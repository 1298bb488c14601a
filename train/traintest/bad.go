package traintest

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/train/program"
)

// BadData: both backends refuse to bind columns that are missing, misshapen, given twice or no index where one is
// wanted, ranges and rates that cannot be trained with, and tensors that are not the set's; and a NaN in a column
// ends a run with its step.
func BadData(t testing.TB, c Case) {
	t.Helper()
	for _, b := range []program.Backend{Processor(t, 1), GPU(t, nil)} {
		for _, bad := range faults(&c) {
			e, err := b.Compile(c.Set)
			if err != nil {
				t.Fatal(err)
			}
			d := c.Data
			d.Columns = slices.Clone(d.Columns)
			bad.plant(&d)
			if err := e.Bind(d); err == nil || !strings.Contains(err.Error(), bad.want) {
				t.Errorf("%s: %s: %v, want %q", b.Name(), bad.name, err, bad.want)
			}
			if err := e.Run(0, 1, make([]float64, len(c.Set.Slots))); err == nil {
				t.Errorf("%s: %s: it ran all the same", b.Name(), bad.name)
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
		}
		e := open(t, b, c, c.start())
		foreign := program.Tensor{Name: "~foreign", DType: program.F32, Shape: []int{1}, F32: []float32{1}}
		for name, ts := range map[string]program.Tensors{
			"is missing":         c.start()[1:],
			"is not part of":     append(c.start(), foreign),
			"want ":              misshapen(c.start()),
			"is given twice":     append(c.start(), c.start()[0]),
			" F32 and 0 F64 ele": short(c.start()),
		} {
			if err := e.Import(ts); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: tensors: %v, want %q", b.Name(), err, name)
			}
		}
		slots := make([]float64, len(c.Set.Slots))
		if err := e.Run(c.steps(), 1, slots); err == nil || !strings.Contains(err.Error(), "steps ") {
			t.Errorf("%s: a step past the schedule: %v", b.Name(), err)
		}
		if err := e.Run(0, 1, slots[1:]); err == nil || !strings.Contains(err.Error(), "room for ") {
			t.Errorf("%s: a slot too few: %v", b.Name(), err)
		}
		notFinite(t, b, c)
	}
}

type badData struct {
	name, want string
	plant      func(d *program.Data)
}

// faults of data, for every column that a step gathers.
func faults(c *Case) []badData {
	nan := float32(math.NaN())
	list := []badData{
		{"no training rows", "training rows", func(d *program.Data) { d.Train.To = d.Train.From }},
		{"training rows past the data", "training rows", func(d *program.Data) { d.Train.To = d.Columns[0].Rows + 1 }},
		{"a rate that is NaN", "learning rate of step 0", func(d *program.Data) { d.Rates = []float32{nan} }},
		{"a rate below 0", "learning rate of step 1", func(d *program.Data) { d.Rates = []float32{0, -1} }},
	}
	for _, in := range c.Set.Train.Instrs {
		if in.Op != program.Gather {
			continue
		}
		name := in.Attr.Column
		column := func(d *program.Data) *program.Column {
			col := d.Column(name)
			col.F32 = slices.Clone(col.F32)
			return col
		}
		quoted := `column "` + name + `"`
		list = append(list,
			badData{name + " is missing", quoted + " is missing", func(d *program.Data) {
				d.Columns = slices.DeleteFunc(d.Columns, func(c program.Column) bool { return c.Name == name })
			}},
			badData{name + " is too wide", quoted, func(d *program.Data) {
				col := column(d)
				col.Width++
				col.F32 = make([]float32, col.Rows*col.Width)
			}},
			badData{name + " is given twice", quoted + " is given twice", func(d *program.Data) {
				d.Columns = append(d.Columns, *column(d))
			}},
			badData{name + " has a row less", "rows", func(d *program.Data) {
				col := column(d)
				col.Rows--
				col.F32 = col.F32[:col.Rows*col.Width]
			}},
			badData{name + " is shorter than it says", quoted, func(d *program.Data) {
				col := column(d)
				col.F32 = col.F32[1:]
			}})
		if rows := c.Set.Train.Indexed(in.Outs[0]); rows > 0 {
			for _, x := range []float32{float32(rows), -2, .5, nan} {
				list = append(list, badData{name + " has what is no index", quoted, func(d *program.Data) {
					col := column(d)
					col.F32[len(col.F32)-1] = x
				}})
			}
		}
	}
	return list
}

func misshapen(ts program.Tensors) program.Tensors {
	ts[0].Shape = append(slices.Clone(ts[0].Shape), 1)
	return ts
}

func short(ts program.Tensors) program.Tensors {
	for i := range ts {
		if ts[i].F32 != nil {
			ts[i].F32 = ts[i].F32[1:]
			return ts
		}
	}
	return ts
}

// notFinite puts NaN through a column that is no index.
func notFinite(t testing.TB, b program.Backend, c Case) {
	t.Helper()
	for _, in := range c.Set.Train.Instrs {
		if in.Op != program.Gather || c.Set.Train.Indexed(in.Outs[0]) > 0 {
			continue
		}
		d := c
		d.Data.Columns = slices.Clone(c.Data.Columns)
		col := d.Data.Column(in.Attr.Column)
		col.F32 = slices.Repeat([]float32{float32(math.NaN())}, len(col.F32))
		e := open(t, b, d, c.start())
		err := e.Run(0, c.few(2), make([]float64, len(c.Set.Slots)))
		var diverged *program.NotFinite
		if !errors.As(err, &diverged) || diverged.Step != 0 || !strings.Contains(err.Error(), "diverged") {
			t.Errorf("%s: column %q of NaN: %v", b.Name(), in.Attr.Column, err)
		}
	}
}
