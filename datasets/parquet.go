package datasets

import (
	"errors"
	"fmt"

	"github.com/parquet-go/parquet-go"
)

// A part is one Parquet file with one row group, so that parts are encoded and decoded in parallel with
// no order between them, and an export can be read by anything that opens Parquet.

// decimalPrecision is the digits of a DECIMAL column: the most an INT64 may carry.
const decimalPrecision = 18

// parquetNode is a column's logical type, without encoding.
func parquetNode(f *Field) parquet.Node {
	var n parquet.Node
	switch f.Type {
	case Decimal:
		n = parquet.Decimal(f.Scale, decimalPrecision, parquet.Int64Type)
	case Time:
		n = parquet.Timestamp(parquet.Microsecond)
	case Float64:
		n = parquet.Leaf(parquet.DoubleType)
	case String:
		n = parquet.String()
	default:
		n = parquet.Int(64)
	}
	return n
}

// errCorrupt marks what a sound part cannot hold.
var errCorrupt = errors.New("the file is damaged")

// checkParquetSchema compares names, order, physical and logical types with the data set's schema.
func checkParquetSchema(f *parquet.File, s *Schema) error {
	got := f.Schema().Fields()
	if len(got) != len(s.Fields) {
		return fmt.Errorf("%w: %d columns, the manifest says %d", errCorrupt, len(got), len(s.Fields))
	}
	for i := range s.Fields {
		want := &s.Fields[i]
		node := parquetNode(want)
		if got[i].Name() != want.Name || !got[i].Leaf() || got[i].Repeated() || got[i].Optional() != want.Nullable ||
			got[i].Type().Kind() != node.Type().Kind() || got[i].Type().String() != node.Type().String() {
			return fmt.Errorf("%w: column %d is %s %s, the manifest says %s %s", errCorrupt, i+1,
				got[i].Name(), got[i].Type(), want.Name, node.Type())
		}
	}
	return nil
}

func (c *Column) length(t Type) int {
	switch t {
	case Float64:
		return len(c.Floats)
	case String:
		return len(c.Strings)
	}
	return len(c.Ints)
}
