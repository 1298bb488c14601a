package features

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/onmart/onmart/datasets"
)

// Tables are the dimension tables that a spec joins. They are not changed once read and may be shared.
type Tables struct {
	byName map[string]*dimension
}

// dimension is one table: its rows, and its file for those who hand it on.
type dimension struct {
	rows *datasets.Batch
	file []byte
	sum  string // hex SHA-256 of the file
}

// Tables lists the dimension tables that the spec joins, in the order in which it names them: NAME.parquet beside a
// data set.
func (s *Spec) Tables() []string {
	var list []string
	for _, j := range s.joins {
		if !slices.Contains(list, j.table.s) {
			list = append(list, j.table.s)
		}
	}
	return list
}

// OpenTables reads the spec's dimension tables from the directory of a data set. A spec that joins none needs
// none, and gets empty Tables.
func OpenTables(dir string, s *Spec) (*Tables, error) {
	t, err := ReadTables(s, func(file string) ([]byte, error) { return os.ReadFile(filepath.Join(dir, file)) })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return t, nil
}

// ReadTables takes the spec's dimension tables from wherever they are: read is given the name of a Parquet file, such
// as calendar.parquet, and its error is fs.ErrNotExist where there is none.
func ReadTables(s *Spec, read func(file string) ([]byte, error)) (*Tables, error) {
	t := &Tables{byName: map[string]*dimension{}}
	for _, name := range s.Tables() {
		file, err := read(tableFile(name))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is missing: the spec %s joins the table %s; put it there as Parquet", tableFile(name),
				s.name, name)
		}
		if err != nil {
			return nil, err
		}
		rows, err := datasets.DecodeTable(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", tableFile(name), err)
		}
		sum := sha256.Sum256(file)
		t.byName[name] = &dimension{rows, file, hex.EncodeToString(sum[:])}
	}
	return t, nil
}

// Files are the tables as Parquet files, by the name that ReadTables asks for. A nil Tables has none.
func (t *Tables) Files() map[string][]byte {
	files := map[string][]byte{}
	if t != nil {
		for name, d := range t.byName {
			files[tableFile(name)] = d.file
		}
	}
	return files
}

// WriteBeside puts the tables beside the parts of a data set that is being written, where OpenTables finds them: what
// was made with them can be made again, and a panel's plans for the days ahead are where the panel is. A nil Tables has
// none.
func (t *Tables) WriteBeside(w *datasets.Writer) error {
	files := t.Files()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		f, err := w.SideFile(name)
		if err != nil {
			return err
		}
		_, err = f.Write(files[name])
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

func tableFile(name string) string { return name + ".parquet" }

// rowJoin gives rows the columns of the table's row that has their values in `on`.
type rowJoin struct {
	def   *joinDef
	rows  *datasets.Batch
	on    []int // columns of the extended input
	take  []int // columns of the table
	index map[string]int32
	ints  map[int64]int32  // in place of index, on one column of whole numbers
	texts map[string]int32 // the same of texts
}

// dimJoin gives a series and a date a row of a table. A table's row holds for a span of days: all of them, the one that
// is in its column of `date`, those `between` two of its columns, or those `since` one. Of several rows that hold,
// the one that began last counts.
type dimJoin struct {
	def   *joinDef
	rows  *datasets.Batch
	parts []dimPart        // how the values of `on` but date are found
	index map[string]int32 // to spans
	spans [][]daySpan      // by their first day
	dated bool             // on date alone, as a calendar is: a missing day is a fault of the table
}

// dimPart is a value of a series: one of its keys, or a column of a table that is joined on such values.
type dimPart struct {
	key  int // of the panel's keys, or -1
	via  int // of the panel's joins
	take int // column of its table
	kind datasets.Type
}

// daySpan is the days for which a row holds, both included. maxTo is the greatest `to` up to this one.
type daySpan struct {
	from, to, maxTo int64
	row             int32
}

// appendKey appends one value of a join's key, so that no two lists of values have equal bytes.
func appendKey(buf []byte, t datasets.Type, n int64, s string) []byte {
	if t == datasets.String {
		buf = binary.AppendUvarint(buf, uint64(len(s)))
		return append(buf, s...)
	}
	return binary.LittleEndian.AppendUint64(buf, uint64(n))
}

// appendRow appends the values of some columns of a table's row; ok is false where one has none.
func appendRow(buf []byte, rows *datasets.Batch, columns []int, i int) (_ []byte, ok bool) {
	for _, c := range columns {
		col := &rows.Columns[c]
		if col.IsNull(i) {
			return buf, false
		}
		if col.Strings != nil {
			buf = appendKey(buf, datasets.String, 0, col.Strings[i])
		} else {
			buf = appendKey(buf, datasets.Int64, col.Ints[i], "")
		}
	}
	return buf, true
}

// build makes the index. A key that a table has twice is an error: which row is meant cannot be told. A row without a
// key is nobody's.
func (j *rowJoin) build(key []int) error {
	j.index = make(map[string]int32, j.rows.N)
	var buf []byte
	for i := range j.rows.N {
		var ok bool
		if buf, ok = appendRow(buf[:0], j.rows, key, i); !ok {
			continue
		}
		if first, twice := j.index[string(buf)]; twice {
			return fmt.Errorf("table %s: rows %d and %d have the same %s: leave one of them out", j.def.table.s, first+1, i+1,
				joined(j.def.keyNames()))
		}
		j.index[string(buf)] = int32(i)
	}
	if len(key) == 1 {
		j.alone(&j.rows.Columns[key[0]])
	}
	return nil
}

// alone makes the index of a join on one column: most are, and it is asked for every row.
func (j *rowJoin) alone(key *datasets.Column) {
	if key.Strings != nil {
		j.texts = make(map[string]int32, len(j.index))
	} else {
		j.ints = make(map[int64]int32, len(j.index))
	}
	for _, i := range j.index {
		if key.Strings != nil {
			j.texts[key.Strings[i]] = i
		} else {
			j.ints[key.Ints[i]] = i
		}
	}
	j.index = nil
}

// Days that stand for no bound.
const (
	firstDay = math.MinInt64
	lastDay  = math.MaxInt64
)

// build makes the index by the columns of the key; from and to are the columns of the days for which a row holds, -1
// for no bound.
func (j *dimJoin) build(key []int, from, to int) error {
	j.index = map[string]int32{}
	var buf []byte
	for i := range j.rows.N {
		var ok bool
		if buf, ok = appendRow(buf[:0], j.rows, key, i); !ok {
			continue
		}
		s := daySpan{from: firstDay, to: lastDay, row: int32(i)}
		var err error
		if from >= 0 {
			if s.from, err = dateOf(j.rows, from, i); err != nil {
				return fmt.Errorf("table %s, row %d: %w", j.def.table.s, i+1, err)
			}
		}
		if to >= 0 {
			if s.to, err = dateOf(j.rows, to, i); err != nil {
				return fmt.Errorf("table %s, row %d: %w", j.def.table.s, i+1, err)
			}
		}
		if s.to < s.from {
			return fmt.Errorf("table %s, row %d: it ends before it begins", j.def.table.s, i+1)
		}
		at, seen := j.index[string(buf)]
		if !seen {
			at = int32(len(j.spans))
			j.index[string(buf)] = at
			j.spans = append(j.spans, nil)
		}
		j.spans[at] = append(j.spans[at], s)
	}
	for _, spans := range j.spans {
		slices.SortStableFunc(spans, func(a, b daySpan) int { return cmp.Compare(a.from, b.from) })
		for k := range spans {
			if spans[k].maxTo = spans[k].to; k == 0 {
				continue
			}
			if spans[k].from == spans[k-1].from {
				return fmt.Errorf("table %s: rows %d and %d have the same key and begin on the same day: leave one of them out",
					j.def.table.s, spans[k-1].row+1, spans[k].row+1)
			}
			spans[k].maxTo = max(spans[k].to, spans[k-1].maxTo)
		}
	}
	return nil
}

// at is the row that holds on a day, or -1.
func (j *dimJoin) at(group int32, day int64) int32 {
	if group < 0 {
		return none
	}
	spans := j.spans[group]
	n, exact := slices.BinarySearchFunc(spans, day, func(s daySpan, day int64) int { return cmp.Compare(s.from, day) })
	if !exact {
		n--
	}
	for ; n >= 0 && spans[n].maxTo >= day; n-- {
		if spans[n].to >= day {
			return spans[n].row
		}
	}
	return none
}

// keyNames are the table's columns that on is compared with.
func (d *joinDef) keyNames() []text {
	if d.key != nil {
		return d.key
	}
	return d.on
}

// ofSteps tells a join that needs a step's date from one on values alone.
func (d *joinDef) ofSteps() bool {
	return d.since.s != "" || d.between != nil || slices.ContainsFunc(d.on, func(t text) bool { return t.s == joinDate })
}

func joined(ts []text) string {
	var names []string
	for _, t := range ts {
		names = append(names, t.s)
	}
	return strings.Join(names, ", ")
}

// dateOf reads a date of a table as days since 1970: of a time its date in UTC, of text 2026-01-31.
func dateOf(rows *datasets.Batch, column, row int) (int64, error) {
	f, c := &rows.Schema.Fields[column], &rows.Columns[column]
	if c.IsNull(row) {
		return 0, fmt.Errorf("column %s has no value", f.Name)
	}
	if f.Type == datasets.Time {
		return floorDiv(c.Ints[row], datasets.Day), nil
	}
	t, err := time.Parse(time.DateOnly, c.Strings[row])
	if err != nil {
		return 0, fmt.Errorf("column %s: %.40q is not a date such as 2026-01-31", f.Name, c.Strings[row])
	}
	return t.Unix() / 86400, nil
}

// numberOf reads a number of a table.
func numberOf(rows *datasets.Batch, column, row int) float64 {
	if c := &rows.Columns[column]; c.Floats != nil {
		return c.Floats[row]
	}
	return scaled(rows.Columns[column].Ints[row], rows.Schema.Fields[column].Scale)
}

// flagOf tells whether a table has a value there that is neither 0 nor empty.
func flagOf(rows *datasets.Batch, column, row int) float64 {
	c := &rows.Columns[column]
	switch {
	case c.IsNull(row):
		return 0
	case c.Strings != nil:
		return float64(btoi(c.Strings[row] != ""))
	}
	return float64(btoi(rows.Schema.Fields[column].Type == datasets.Time || numberOf(rows, column, row) != 0))
}
