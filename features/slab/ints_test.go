package slab

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"
)

// keyMakers are kinds of keys as they come: in a row, strided, sparse in either half, negative.
var keyMakers = map[string]func(i int64) int64{
	"sequential": func(i int64) int64 { return i },
	"negative":   func(i int64) int64 { return -i },
	"strided":    func(i int64) int64 { return i * 4096 },
	"high":       func(i int64) int64 { return i << 40 },
	"reversed":   func(i int64) int64 { return math.MaxInt64 - i*i },
	"floats":     func(i int64) int64 { return int64(math.Float64bits(float64(i))) },
	"pairs":      func(i int64) int64 { return i%1000<<32 | i/1000 },
}

func TestIntsAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := New(0, "")
		defer a.Close()
		x := NewInts(a)
		want := map[int64]uint32{}
		of := map[uint32]int64{}
		key := keyMakers[rapid.SampledFrom([]string{"sequential", "strided", "high", "floats"}).Draw(t, "keys")]
		span := rapid.SampledFrom([]int64{3, 100, 700, 9000}).Draw(t, "span")
		next := rapid.Uint64().Draw(t, "seed")
		for range rapid.SampledFrom([]int{20, 500, 20_000}).Draw(t, "steps") {
			next = next*6364136223846793005 + 1442695040888963407
			v := key(int64(next>>33) % span)
			id, has := want[v]
			switch next >> 8 % 4 {
			case 0:
				got, ok := x.Find(v)
				if ok != has || ok && got != id {
					t.Fatalf("Find(%d) = %d, %v, want %d, %v", v, got, ok, id, has)
				}
			case 1:
				if has {
					x.Delete(id)
					delete(want, v)
					delete(of, id)
					if x.Live(id) {
						t.Fatalf("number %d is still in use", id)
					}
				}
			default:
				got, fresh := x.ID(v)
				if fresh == has || has && got != id {
					t.Fatalf("ID(%d) = %d, %v, want %d, %v", v, got, fresh, id, !has)
				}
				if _, taken := of[got]; fresh && taken {
					t.Fatalf("number %d is given twice", got)
				}
				want[v], of[got] = got, v
			}
		}
		checkInts(t, x, want)
		x.Free()
		if n := a.Bytes(); n != 0 {
			t.Fatalf("%d bytes are in use after Free", n)
		}
	})
}

// checkInts compares all of a table with a map.
func checkInts(t interface{ Fatalf(string, ...any) }, x *Ints, want map[int64]uint32) {
	if x.Len() != len(want) {
		t.Fatalf("%d keys, want %d", x.Len(), len(want))
	}
	live := 0
	for id := range uint32(x.Cap()) {
		if x.Live(id) {
			live++
		}
	}
	if live != len(want) {
		t.Fatalf("%d numbers in use, want %d", live, len(want))
	}
	for v, id := range want {
		if got, ok := x.Find(v); !ok || got != id || x.Value(id) != v {
			t.Fatalf("Find(%d) = %d, %v, want %d", v, got, ok, id)
		}
	}
}

func TestIntsOfManyKinds(t *testing.T) {
	n := int64(200_000)
	if testing.Short() {
		n = 20_000
	}
	for name, key := range keyMakers {
		t.Run(name, func(t *testing.T) {
			a := New(0, "")
			defer a.Close()
			x := NewInts(a)
			want := map[int64]uint32{}
			for i := range n {
				v := key(i)
				id, fresh := x.ID(v)
				if _, has := want[v]; fresh == has {
					t.Fatalf("ID(%d): fresh is %v", v, fresh)
				}
				want[v] = id
			}
			checkInts(t, x, want)
			longest := 0
			for i := range x.x.dir {
				longest = max(longest, x.x.dir[i].longestRun())
			}
			if longest > 160 { // of 768 keys in 1024 slots; random hashes give about 100
				t.Errorf("a run of %d full slots: the hash does not spread these keys", longest)
			}
		})
	}
}

func (l *leaf) longestRun() int {
	longest, run := 0, 0
	for i := range l.mask() + 1 {
		if run++; *l.slot(i) == 0 {
			run = 0
		}
		longest = max(longest, run)
	}
	return longest
}

// unmix is the inverse of mix: keys whose hashes are as an opponent wants them.
func unmix(v uint64) uint64 {
	v ^= v>>31 ^ v>>62
	v *= 0x319642b2d24d8ec3
	v ^= v>>27 ^ v>>54
	v *= 0x96de1b173f119089
	return v ^ v>>30 ^ v>>60
}

// Keys whose hashes begin alike must not have the directory grow without end.
func TestIntsWithHashesThatBeginAlike(t *testing.T) {
	a := New(0, "")
	defer a.Close()
	x := NewInts(a)
	want := map[int64]uint32{}
	for i := range uint64(20_000) {
		h := 0xabcd<<48 | i*2654435761&0xffffffff
		v := int64(unmix(h))
		if mix(uint64(v)) != h {
			t.Fatalf("unmix(%x) is wrong", h)
		}
		want[v], _ = x.ID(v)
	}
	checkInts(t, x, want)
	if len(x.x.dir) > 64 {
		t.Errorf("the directory has %d entries for 20,000 keys", len(x.x.dir))
	}
	for v, id := range want {
		if id%2 == 0 {
			x.Delete(id)
			delete(want, v)
		}
	}
	checkInts(t, x, want)
}

// Beyond 2^24 keys the part of a slot for the number becomes wider. That many keys are a benchmark; here the table
// is made to believe in them.
func TestIntsBeyondTheFirstTag(t *testing.T) {
	for _, start := range []uint32{1<<24 - 500, 1<<26 - 500, 1<<28 - 500, 1<<30 - 500, maxKeys - 5000} {
		t.Run(fmt.Sprint(start), func(t *testing.T) {
			keys := fakeKeys{}
			a := New(0, "")
			defer a.Close()
			x := newIndex(a)
			for i := range uint32(4000) {
				id := start + i
				if i < 1000 {
					id = i // small numbers are there already
				}
				keys[id] = mix(uint64(i) + 7)
				x.insert(keys[id], id, keys)
			}
			find := func(id uint32) bool {
				l := x.at(keys[id])
				for i := uint32(keys[id]) & l.mask(); *l.slot(i) != 0; i = (i + 1) & l.mask() {
					if s := *l.slot(i); (s^tagOf(keys[id]))&^l.number() == 0 && s&l.number() == id+1 {
						return true
					}
				}
				return false
			}
			for id := range keys {
				if !find(id) {
					t.Fatalf("number %d is not found", id)
				}
			}
			for id := range keys {
				if id%3 == 0 {
					x.remove(keys[id], id, keys)
					if find(id) {
						t.Fatalf("number %d is found after it was removed", id)
					}
				}
			}
		})
	}
}

type fakeKeys map[uint32]uint64

func (k fakeKeys) hashOf(id uint32) uint64 { return k[id] }

func (k fakeKeys) hashesOf(ids []uint32, dst []uint64) []uint64 {
	for _, id := range ids {
		dst = append(dst, k[id])
	}
	return dst
}

func TestIntsDeleteOfNothing(t *testing.T) {
	a := New(0, "")
	defer a.Close()
	x := NewInts(a)
	id, _ := x.ID(5)
	x.Delete(id)
	defer func() {
		if recover() == nil {
			t.Error("a number can be deleted twice")
		}
	}()
	x.Delete(id)
}

func TestIntsBatch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := New(0, "")
		defer a.Close()
		x, one := NewInts(a), NewInts(a)
		for range 3 {
			vals := rapid.SliceOfN(rapid.Int64Range(-300, 300), 0, 2000).Draw(t, "vals")
			var null []bool
			if rapid.Bool().Draw(t, "nulls") {
				null = make([]bool, len(vals))
				for i := range null {
					null[i] = vals[i]%7 == 0
				}
			}
			out := make([]int32, len(vals))
			x.IDs(vals, null, out)
			for i, v := range vals {
				want := int32(-1)
				if null == nil || !null[i] {
					id, _ := one.ID(v)
					want = int32(id)
				}
				if out[i] != want {
					t.Fatalf("number of %d is %d, want %d", v, out[i], want)
				}
			}
		}
	})
}
