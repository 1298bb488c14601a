package features

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

func TestByValue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfDistinct(rapid.OneOf(rapid.Int64(), rapid.Int64Range(-300, 70000)), rapid.ID).Draw(t, "values")
		list := make([]valued, len(values))
		for i, v := range values {
			list[i] = valued{v, int32(i)}
		}
		got := byValue(list, nil)
		slices.Sort(values)
		for i, x := range got {
			if x.v != values[i] {
				t.Fatalf("place %d: %d, want %d", i, x.v, values[i])
			}
		}
	})
}

// TestSnapshotBlocks writes more than several blocks of every kind of value and reads them from sources that give what
// they like at a time.
func TestSnapshotBlocks(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	const n = 30_000
	ints, texts := make([]int64, n), make([]string, n)
	for i := range ints {
		ints[i] = int64(rnd.Uint64()) >> rnd.IntN(64)
		texts[i] = string(bytes.Repeat([]byte{byte(i)}, rnd.IntN(20)))
	}
	ints[0], ints[1], texts[7] = math.MinInt64, math.MaxInt64, string(make([]byte, 3*snapshotBlock+5))
	var w bytes.Buffer
	sw := newSnapshotWriter(&w)
	for i := range ints {
		sw.int(ints[i])
		sw.uint(uint64(ints[i]))
		sw.text(texts[i])
		sw.float(float64(ints[i]))
		sw.flag(i%2 == 0)
	}
	if err := sw.close(); err != nil {
		t.Fatal(err)
	}
	whole := w.Bytes()
	read := func(sr snapshotReader) error {
		for i := range ints {
			a, b, c, d, e := sr.int(), sr.uint(), sr.text(), sr.float(), sr.flag()
			if sr.err != nil {
				return sr.err
			}
			if a != ints[i] || b != uint64(ints[i]) || c != texts[i] || d != float64(ints[i]) || e != (i%2 == 0) {
				t.Fatalf("value %d differs", i)
			}
		}
		return sr.close()
	}
	if err := read(newSnapshotReader(bytes.NewReader(whole))); err != nil {
		t.Error(err)
	}
	if err := read(newSnapshotReader(iotest.HalfReader(iotest.DataErrReader(bytes.NewReader(whole))))); err != nil {
		t.Error(err)
	}
	if err := read(newSnapshotReader(iotest.OneByteReader(bytes.NewReader(whole)))); err != nil {
		t.Error(err)
	}
	for _, cut := range []int{0, 1, 100, snapshotBlock, snapshotBlock + 1, len(whole) - 4, len(whole) - 1} {
		if err := read(newSnapshotReader(bytes.NewReader(whole[:cut]))); err == nil || err.Error() != "it is cut off" {
			t.Errorf("cut at %d: %v", cut, err)
		}
	}
	broken := slices.Clone(whole)
	broken[len(broken)-1] ^= 1
	if err := read(newSnapshotReader(bytes.NewReader(broken))); err == nil {
		t.Error("a wrong checksum was read")
	}
	sr := newSnapshotReader(iotest.ErrReader(iotest.ErrTimeout))
	if sr.int(); sr.close() != iotest.ErrTimeout {
		t.Errorf("the source's error became %v", sr.err)
	}
}
