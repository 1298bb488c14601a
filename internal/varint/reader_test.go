package varint

import (
	"encoding/binary"
	"testing"
)

// TestReader reads what was written, and of every shortened form says that it is bad and gives nothing that was not there.
func TestReader(t *testing.T) {
	b := binary.AppendUvarint(nil, 300)
	b = binary.AppendVarint(b, -70_000)
	b = append(binary.AppendUvarint(b, 3), "abc"...)
	for n := range len(b) + 1 {
		r := Reader{B: b[:n]}
		u, i, text := r.Uint(), r.Int(), string(r.Bytes())
		whole := n == len(b)
		switch {
		case r.Bad == whole:
			t.Errorf("%d bytes of %d: bad %t", n, len(b), r.Bad)
		case whole && (u != 300 || i != -70_000 || text != "abc" || len(r.B) > 0):
			t.Errorf("%d %d %q", u, i, text)
		case !whole && (text != "" || u != 0 && u != 300 || i != 0 && i != -70_000):
			t.Errorf("%d bytes: %d %d %q", n, u, i, text)
		}
	}
	r := Reader{B: binary.AppendUvarint(nil, 1<<40)}
	if r.Count() != 0 || !r.Bad {
		t.Error("more bytes than there are")
	}
}
