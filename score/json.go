package score

import (
	"bytes"
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
	if i := int64(x); float64(i) == x && i > -wholeLimit && i < wholeLimit && (i != 0 || !math.Signbit(x)) {
		return strconv.AppendInt(dst, i, 10)
	}
	f := byte('f')
	if a := math.Abs(x); a != 0 && (a < 1e-6 || a >= 1e21) {
		f = 'e'
	}
	return strconv.AppendFloat(dst, x, f, -1, 64)
}

// wholeLimit bounds the numbers that are written as integers: below it a float64 has all of their digits, and no
// shorter decimal reads back as the same.
const wholeLimit = 1_000_000_000_000_000

func appendString(dst []byte, s string) []byte {
	dst = append(dst, '"')
	dst = appendText(dst, s)
	return append(dst, '"')
}

// appendText is appendString without the quotes around it.
func appendText(dst []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f || c == '<' || c == '>' || c == '&' {
			b, _ := json.Marshal(s) // a string cannot fail
			return append(dst, b[1:len(b)-1]...)
		}
	}
	return append(dst, s...)
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
		dst = datasets.AppendTime(dst, c.Ints[i])
		return append(dst, '"')
	case datasets.Decimal:
		return appendDecimal(dst, c.Ints[i], f.Scale)
	default:
		return strconv.AppendInt(dst, c.Ints[i], 10)
	}
}

// appendDecimal writes v / 10^scale as appendFloat does. Of up to 15 digits, and none beyond the sixth decimal, the
// nearest float64 has those digits for its shortest form, so that they need not be found by way of one.
func appendDecimal(dst []byte, v int64, scale int) []byte {
	if v <= -wholeLimit || v >= wholeLimit || scale > 6 {
		return appendFloat(dst, float64(v)/math.Pow10(scale))
	}
	if v < 0 {
		dst = append(dst, '-')
		v = -v
	}
	unit := int64(1)
	for range scale {
		unit *= 10
	}
	dst = strconv.AppendInt(dst, v/unit, 10)
	rest := v % unit
	if rest == 0 {
		return dst
	}
	dst = append(dst, '.')
	for rest > 0 {
		unit /= 10
		dst = append(dst, byte('0'+rest/unit))
		rest %= unit
	}
	return dst
}

// ErrorLine is the object that says why an event was not scored, without the line's end.
func ErrorLine(source string, position int64, column, reason string) []byte {
	return bytes.TrimSuffix(appendError(nil, source, position, column, reason), []byte{'\n'})
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
