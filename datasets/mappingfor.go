package datasets

import (
	"fmt"
	"slices"
	"strings"
)

// MappingFor reads rows whose columns have their canonical names and the types of a schema: live events for a
// model that was trained on such a data set. Times are RFC 3339, or take UTC where they carry no zone. Only
// the ids, the time and the amount must be there. Negative amounts are for data that mark returns.
func MappingFor(s *Schema) (*Mapping, error) {
	required := []string{TransID, TransDatetime, UserID, StoreID, Amount}
	var y strings.Builder
	fmt.Fprintf(&y, "timezone: UTC\nreturns: %t\n", s.Index(IsReturn) >= 0)
	if s.Index(Line) < 0 {
		y.WriteString("unique: trans_id\n")
	}
	y.WriteString("columns:\n")
	for _, f := range s.Fields {
		if slices.Contains(reserved, f.Name) || f.Name == Seq {
			continue
		}
		kind := f.Type.String()
		if i := canonicalAt(f.Name); i < len(canonical) && canonical[i].flag {
			kind = "flag"
		}
		fmt.Fprintf(&y, "  %s: {type: %s", f.Name, kind)
		if f.Type == Decimal {
			fmt.Fprintf(&y, ", scale: %d", f.Scale)
		}
		if f.Type == Time {
			y.WriteString(`, layout: "2006-01-02 15:04:05"`)
		}
		if !slices.Contains(required, f.Name) {
			y.WriteString(", optional: true")
		}
		y.WriteString("}\n")
	}
	return ParseMapping("the model's own columns", []byte(y.String()))
}
