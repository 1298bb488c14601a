package datasets

import (
	"strconv"
	"strings"
)

// FormatValue shows the value of a row as CSV and reports do: times in RFC 3339, decimals with their
// point, and nothing for null.
func FormatValue(f *Field, c *Column, row int) string {
	if c.IsNull(row) {
		return ""
	}
	switch f.Type {
	case Decimal:
		return FormatDecimal(c.Ints[row], f.Scale)
	case Time:
		return FormatTime(c.Ints[row])
	case Float64:
		return strconv.FormatFloat(c.Floats[row], 'g', -1, 64)
	case String:
		return c.Strings[row]
	}
	return strconv.FormatInt(c.Ints[row], 10)
}

// FormatDecimal writes v units of 10^-scale as a decimal number, without zeros at its end.
func FormatDecimal(v int64, scale int) string {
	u := magnitude(v)
	s := strconv.FormatUint(u/pow10[scale], 10)
	if frac := u % pow10[scale]; frac != 0 {
		digits := strconv.FormatUint(frac+pow10[scale], 10)[1:]
		s += "." + strings.TrimRight(digits, "0")
	}
	if v < 0 {
		return "-" + s
	}
	return s
}
