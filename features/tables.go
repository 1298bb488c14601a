package features

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/onmart/onmart/datasets"
)

// Tables are the dimension tables that a spec joins. They are not changed once read and may be shared.
type Tables struct {
	dir    string
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
	t := &Tables{dir: dir, byName: map[string]*dimension{}}
	for _, name := range s.Tables() {
		path := filepath.Join(dir, tableFile(name))
		file, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is missing: the spec %s joins the table %s; put it beside the data set as Parquet", path, s.name, name)
		}
		if err != nil {
			return nil, err
		}
		rows, err := datasets.DecodeTable(file)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		sum := sha256.Sum256(file)
		t.byName[name] = &dimension{rows, file, hex.EncodeToString(sum[:])}
	}
	return t, nil
}

func tableFile(name string) string { return name + ".parquet" }

// join is a joinDef bound to a table: from the values of `on` to a row of it.
type join struct {
	def   *joinDef
	rows  *datasets.Batch
	on    []int // columns of the extended input; onDate for the step's date
	take  []int // columns of the table
	index map[string]int32
}

// onDate stands for the step's local date among the columns of a join.
const onDate = -1

// appendKey appends one value of a join's key, so that no two lists of values have equal bytes.
func appendKey(buf []byte, t datasets.Type, n int64, s string) []byte {
	if t == datasets.String {
		buf = binary.AppendUvarint(buf, uint64(len(s)))
		return append(buf, s...)
	}
	return binary.LittleEndian.AppendUint64(buf, uint64(n))
}

// build makes the index. A key that a table has twice is an error: which row is meant cannot be told.
func (j *join) build(key []int, types []datasets.Type) error {
	j.index = make(map[string]int32, j.rows.N)
	var buf []byte
	for i := range j.rows.N {
		buf = buf[:0]
		null := false
		for k, c := range key {
			col := &j.rows.Columns[c]
			if col.IsNull(i) {
				null = true
				break
			}
			if j.on[k] == onDate {
				day, err := dateOf(&j.rows.Schema.Fields[c], col, i)
				if err != nil {
					return fmt.Errorf("table %s, row %d: %w", j.def.table.s, i+1, err)
				}
				buf = appendKey(buf, datasets.Int64, day, "")
				continue
			}
			var n int64
			var s string
			if types[k] == datasets.String {
				s = col.Strings[i]
			} else {
				n = col.Ints[i]
			}
			buf = appendKey(buf, types[k], n, s)
		}
		if null {
			continue // a row without a key is nobody's
		}
		if first, twice := j.index[string(buf)]; twice {
			return fmt.Errorf("table %s: rows %d and %d have the same %s: leave one of them out", j.def.table.s, first+1, i+1, joined(j.keyNames()))
		}
		j.index[string(buf)] = int32(i)
	}
	return nil
}

// keyNames are the table's columns that on is compared with.
func (d *joinDef) keyNames() []text {
	if d.key != nil {
		return d.key
	}
	return d.on
}

func (j *join) keyNames() []text { return j.def.keyNames() }

func joined(ts []text) string {
	s := ""
	for i, t := range ts {
		if i > 0 {
			s += ", "
		}
		s += t.s
	}
	return s
}

// dateOf reads a date of a table as days since 1970: of a time its date in UTC, of text 2026-01-31.
func dateOf(f *datasets.Field, c *datasets.Column, row int) (int64, error) {
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
func numberOf(f *datasets.Field, c *datasets.Column, row int) float64 {
	if f.Type == datasets.Float64 {
		return c.Floats[row]
	}
	return scaled(c.Ints[row], f.Scale)
}
