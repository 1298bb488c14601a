package features

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
)

// snapshotBlock is how many bytes are written, read and checked at a time. What is in it is gone through twice, so it
// should stay in the second cache.
const snapshotBlock = 128 << 10

// snapshotWriter gathers blocks and keeps the first error, so that close is the only place to ask.
type snapshotWriter struct {
	w   io.Writer
	buf []byte
	crc uint32
	err error
}

func newSnapshotWriter(w io.Writer) snapshotWriter {
	return snapshotWriter{w: w, buf: make([]byte, 0, snapshotBlock)}
}

// room makes sure that n more bytes fit.
func (s *snapshotWriter) room(n int) {
	if cap(s.buf)-len(s.buf) < n {
		s.flush()
	}
}

func (s *snapshotWriter) flush() {
	s.crc = crc32.Update(s.crc, castagnoli, s.buf)
	s.write(s.buf)
	s.buf = s.buf[:0]
}

func (s *snapshotWriter) write(b []byte) {
	if s.err == nil && len(b) > 0 {
		_, s.err = s.w.Write(b)
	}
}

func (s *snapshotWriter) int(v int64) { s.uint(uint64(v)<<1 ^ uint64(v>>63)) }

func (s *snapshotWriter) uint(v uint64) {
	s.room(binary.MaxVarintLen64)
	s.buf = binary.AppendUvarint(s.buf, v)
}

func (s *snapshotWriter) raw(t string) {
	for len(t) > snapshotBlock {
		s.raw(t[:snapshotBlock])
		t = t[snapshotBlock:]
	}
	s.room(len(t))
	s.buf = append(s.buf, t...)
}

func (s *snapshotWriter) text(t string) {
	s.uint(uint64(len(t)))
	s.raw(t)
}

func (s *snapshotWriter) float(v float64) {
	s.room(8)
	s.buf = binary.LittleEndian.AppendUint64(s.buf, math.Float64bits(v))
}

func (s *snapshotWriter) flag(b bool) { s.uint(uint64(btoi(b))) }

func (s *snapshotWriter) close() error {
	s.flush()
	s.write(binary.LittleEndian.AppendUint32(nil, s.crc))
	if s.err != nil {
		return fmt.Errorf("features: writing a state: %w", s.err)
	}
	return nil
}

// snapshotReader keeps the first error; after it everything reads as zero. It may read beyond the end of the snapshot.
type snapshotReader struct {
	r      io.Reader
	buf    []byte // what was read and is not used
	block  []byte // the memory that buf lies in
	summed int    // bytes of block that are in crc
	crc    uint32
	ended  error // of r
	err    error
}

func newSnapshotReader(r io.Reader) snapshotReader {
	return snapshotReader{r: r, block: make([]byte, 0, snapshotBlock)}
}

func (s *snapshotReader) fail(err error) {
	if s.err == nil && err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			err = errors.New("it is cut off")
		}
		s.err, s.buf = err, nil
	}
}

// sum takes what was used into the checksum.
func (s *snapshotReader) sum() {
	used := len(s.block) - len(s.buf)
	s.crc = crc32.Update(s.crc, castagnoli, s.block[s.summed:used])
	s.summed = used
}

// fill reads on until n bytes are at hand, at most a block, or the source ends.
func (s *snapshotReader) fill(n int) {
	if s.err != nil || s.ended != nil {
		return
	}
	s.sum()
	s.block = append(s.block[:0], s.buf...)
	s.summed = 0
	k, err := io.ReadAtLeast(s.r, s.block[len(s.block):cap(s.block)], n-len(s.buf))
	s.block = s.block[:len(s.block)+k]
	s.buf, s.ended = s.block, err
}

// short is the error where a value is not whole.
func (s *snapshotReader) short() {
	if s.ended == nil {
		s.fail(errors.New("it is damaged: a number in it is too long"))
		return
	}
	s.fail(s.ended)
}

func (s *snapshotReader) uint() uint64 {
	if len(s.buf) > 0 && s.buf[0] < 0x80 {
		v := s.buf[0]
		s.buf = s.buf[1:]
		return uint64(v)
	}
	return s.longUint()
}

func (s *snapshotReader) longUint() uint64 {
	if len(s.buf) < binary.MaxVarintLen64 {
		s.fill(binary.MaxVarintLen64)
	}
	v, n := binary.Uvarint(s.buf)
	switch {
	case s.err != nil:
		return 0
	case n < 0:
		s.fail(errors.New("it is damaged: a number in it is too long"))
		return 0
	case n == 0:
		s.short()
		return 0
	}
	s.buf = s.buf[n:]
	return v
}

func (s *snapshotReader) int() int64 {
	u := s.uint()
	return int64(u>>1) ^ -int64(u&1)
}

// raw is the next n bytes, in memory of their own.
func (s *snapshotReader) raw(n int) []byte {
	b := make([]byte, 0, n)
	for s.err == nil && len(b) < n {
		if len(s.buf) == 0 {
			s.fill(1)
		}
		if len(s.buf) == 0 {
			s.short()
			break
		}
		k := min(n-len(b), len(s.buf))
		b = append(b, s.buf[:k]...)
		s.buf = s.buf[k:]
	}
	return b[:n]
}

// textMax bounds a name in a snapshot.
const textMax = 1 << 20

func (s *snapshotReader) text() string {
	n := s.uint()
	if n > textMax {
		s.fail(errors.New("it is damaged: a name in it is impossible"))
		return ""
	}
	if n <= uint64(len(s.buf)) {
		t := string(s.buf[:n])
		s.buf = s.buf[n:]
		return t
	}
	t := string(s.raw(int(n)))
	if s.err != nil {
		return ""
	}
	return t
}

func (s *snapshotReader) float() float64 {
	if len(s.buf) < 8 {
		s.fill(8)
	}
	if len(s.buf) < 8 {
		if s.err == nil {
			s.short()
		}
		return 0
	}
	v := math.Float64frombits(binary.LittleEndian.Uint64(s.buf))
	s.buf = s.buf[8:]
	if v-v != 0 {
		s.fail(errors.New("it is damaged: a number in it is not finite"))
	}
	return v
}

func (s *snapshotReader) flag() bool { return s.uint() == 1 }

// count reads how many of something follow.
func (s *snapshotReader) count() int {
	n := s.uint()
	if n > snapshotCount {
		s.fail(errDamaged)
		return 0
	}
	return int(n)
}

// damagedIf fails where what was read is impossible.
func (s *snapshotReader) damagedIf(bad bool) {
	if bad {
		s.fail(errDamaged)
	}
}

// time reads an instant, or the beginning where there is none.
func (s *snapshotReader) time() int64 {
	t := s.int()
	if t != beginning && (t > maxTime || t < -maxTime) {
		s.fail(errors.New("it is damaged: a time in it is impossible"))
	}
	return t
}

func (s *snapshotReader) nodes() ([]Node, error) {
	n := s.uint()
	if n > math.MaxUint16 {
		return nil, errors.New("it is damaged: the number of features is impossible")
	}
	var list []Node
	for range n {
		list = append(list, Node{s.text(), s.text()})
		if s.err != nil {
			return nil, s.err
		}
	}
	return list, s.err
}

func (s *snapshotReader) close() error {
	if s.err != nil {
		return s.err
	}
	s.sum()
	want := s.crc
	if len(s.buf) < 4 {
		s.fill(4)
	}
	if len(s.buf) < 4 {
		s.short()
		return s.err
	}
	if binary.LittleEndian.Uint32(s.buf) != want {
		return errors.New("it is damaged: the checksum is wrong")
	}
	return nil
}

// valued is a key's value and its number.
type valued struct {
	v  int64
	id int32
}

// byValue sorts by value, a byte at a time from the lowest on (LSD radix sort); bytes that all have in common take no
// pass. Values are different.
func byValue(list, spare []valued) []valued {
	if slices.IsSortedFunc(list, func(a, b valued) int { return compareInts(a.v, b.v) }) {
		return list
	}
	var or, and uint64 = 0, math.MaxUint64
	for _, x := range list {
		u := uint64(x.v) ^ 1<<63 // negative ones first
		or, and = or|u, and&u
	}
	spare = slices.Grow(spare[:0], len(list))[:len(list)]
	for shift := 0; shift < 64; shift += 8 {
		if (or^and)>>shift&0xff == 0 {
			continue
		}
		var at [257]int32
		for _, x := range list {
			at[int(byte((uint64(x.v)^1<<63)>>shift))+1]++
		}
		for i := range 256 {
			at[i+1] += at[i]
		}
		for _, x := range list {
			k := byte((uint64(x.v) ^ 1<<63) >> shift)
			spare[at[k]] = x
			at[k]++
		}
		list, spare = spare, list
	}
	return list
}

func compareInts(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
