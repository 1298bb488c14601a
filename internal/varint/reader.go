// Package varint reads what binary.AppendUvarint and AppendVarint wrote into bytes that may be damaged.
//
// What enters: bytes. What leaves: numbers and byte strings. After a fault everything is 0 and empty, so that it has to be
// looked for once, at the end.
package varint

import "encoding/binary"

// Reader reads numbers and byte strings one after the other.
type Reader struct {
	B   []byte // what is left
	Bad bool   // something was not there, or was no number
}

// Uint is what binary.AppendUvarint wrote.
func (r *Reader) Uint() uint64 {
	v, n := binary.Uvarint(r.B)
	return v * r.skip(n)
}

// Int is what binary.AppendVarint wrote.
func (r *Reader) Int() int64 {
	v, n := binary.Varint(r.B)
	return v * int64(r.skip(n))
}

// skip goes on behind n bytes; it is 0 where they are not there, else 1.
func (r *Reader) skip(n int) uint64 {
	if n <= 0 || r.Bad {
		r.Bad, r.B = true, nil
		return 0
	}
	r.B = r.B[n:]
	return 1
}

// Count is how many of something follow, each of a byte at least.
func (r *Reader) Count() int {
	n := r.Uint()
	if n > uint64(len(r.B)) {
		r.Bad, r.B = true, nil
		return 0
	}
	return int(n)
}

// Bytes are Count bytes, in the memory of B.
func (r *Reader) Bytes() []byte {
	n := r.Count()
	b := r.B[:n:n]
	r.B = r.B[n:]
	return b
}
