package score

import (
	"encoding/json"
	"math"
	"strconv"

	"github.com/onmart/onmart/datasets"
)

// appendFloat writes the shortest decimal that reads back as the same float64. Scores and features are
// finite; a value that is not becomes null, since JSON has no other word for it.
func appendFloat(dst []byte, x float64) []byte {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return append(dst, "null"...)
	}
	f := byte('f')
	if a := math.Abs(x); a != 0 && (a < 1e-6 || a >= 1e21) {
		f = 'e'
	}
	return strconv.AppendFloat(dst, x, f, -1, 64)
}

func appendString(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f || c == '<' || c == '>' || c == '&' {
			b, _ := json.Marshal(s) // a string cannot fail
			return append(dst, b...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}

// appendValue writes one cell: times as RFC 3339 in UTC, decimals with their digits.
func appendValue(dst []byte, f *datasets.Field, c *datasets.Column, i int) []byte {
	if c.IsNull(i) {
		return append(dst, "null"...)
	}
	switch f.Type {
	case datasets.String:
		return appendString(dst, c.Strings[i])
	case datasets.Float64:
		return appendFloat(dst, c.Floats[i])
	case datasets.Time:
		dst = append(dst, '"')
		dst = append(dst, datasets.FormatTime(c.Ints[i])...)
		return append(dst, '"')
	case datasets.Decimal:
		return appendFloat(dst, float64(c.Ints[i])/math.Pow10(f.Scale))
	default:
		return strconv.AppendInt(dst, c.Ints[i], 10)
	}
}

func appendError(dst []byte, source string, pos int64, column, reason string) []byte {
	dst = append(dst, `{"error":{"source":`...)
	dst = appendString(dst, source)
	dst = append(dst, `,"position":`...)
	dst = strconv.AppendInt(dst, pos, 10)
	if column != "" {
		dst = append(dst, `,"column":`...)
		dst = appendString(dst, column)
	}
	dst = append(dst, `,"reason":`...)
	dst = appendString(dst, reason)
	return append(dst, "}}\n"...)
}
