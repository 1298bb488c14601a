package program

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// fault is planted in a set without one, and all that Validate says of it, without its prefix, a line each.
type fault struct {
	plant func(s *Set)
	want  string
}

// findFaults plants one fault at a time and reads what is said: all of it, so no fault may drag others behind it that
// are none.
func findFaults(t *testing.T, sound func() *Set, faults []fault) {
	t.Helper()
	for _, f := range faults {
		s := sound()
		f.plant(s)
		got := ""
		if err := s.Validate(); err != nil {
			got = strings.ReplaceAll(err.Error(), "program: ", "")
		}
		if d := cmp.Diff(strings.Split(f.want, "\n"), strings.Split(got, "\n")); d != "" {
			t.Errorf("want -, got +\n%s", d)
		}
	}
}

// Buffers of float32, in the arena and with a name.
func tempAt(offset int, shape ...int) Buffer {
	return Buffer{Kind: Temp, DType: F32, Shape: shape, Offset: offset}
}

func named(kind Kind, name string, shape ...int) Buffer {
	return Buffer{Name: name, Kind: kind, DType: F32, Shape: shape}
}

// rowed is a buffer that is per row.
func rowed(b Buffer) Buffer { b.PerRow = true; return b }
