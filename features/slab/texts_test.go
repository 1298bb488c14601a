package slab

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestTextsAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := New(0, "")
		defer a.Close()
		x := NewTexts(a)
		want := map[string]uint32{}
		text := func(i uint64) string { // of all lengths about the edges, and long ones
			switch i % 5 {
			case 0:
				return strings.Repeat("x", int(i%40))
			case 1:
				return fmt.Sprintf("%015d", i) // the longest that needs no block
			case 2:
				return fmt.Sprintf("%016d", i)
			case 3:
				return strings.Repeat("ab\x00", int(i%100)) + fmt.Sprint(i)
			}
			return fmt.Sprintf("%c%d\x00", rune(i%300), i)
		}
		span := rapid.SampledFrom([]uint64{3, 100, 700, 9000}).Draw(t, "span")
		next := rapid.Uint64().Draw(t, "seed")
		for range rapid.SampledFrom([]int{20, 500, 10_000}).Draw(t, "steps") {
			next = next*6364136223846793005 + 1442695040888963407
			s := text(next >> 33 % span)
			id, has := want[s]
			switch next >> 8 % 4 {
			case 0:
				if got, ok := x.Find(s); ok != has || ok && got != id {
					t.Fatalf("Find(%q) = %d, %v, want %d, %v", s, got, ok, id, has)
				}
			case 1:
				if has {
					x.Delete(id)
					delete(want, s)
					if x.Live(id) {
						t.Fatalf("number %d is still in use", id)
					}
				}
			default:
				got, fresh := x.ID(s)
				if fresh == has || has && got != id {
					t.Fatalf("ID(%q) = %d, %v, want %d, %v", s, got, fresh, id, !has)
				}
				want[s] = got
			}
		}
		if x.Len() != len(want) {
			t.Fatalf("%d texts, want %d", x.Len(), len(want))
		}
		for s, id := range want {
			if got, ok := x.Find(s); !ok || got != id || x.Value(id) != s || !x.Live(id) {
				t.Fatalf("Find(%q) = %d, %v, want %d; its text is %q", s, got, ok, id, x.Value(id))
			}
		}
		x.Free()
		if n := a.Bytes(); n != 0 {
			t.Fatalf("%d bytes are in use after Free", n)
		}
	})
}

// Two texts that differ by one byte anywhere have different numbers, and bytes beyond a text are not looked at.
func TestTextsByLength(t *testing.T) {
	a := New(0, "")
	defer a.Close()
	x := NewTexts(a)
	buffer := strings.Repeat("0123456789abcdef", 20)
	n := uint32(0)
	for size := range 300 {
		for at := range 3 {
			s := buffer[at : at+size]
			id, fresh := x.ID(s)
			again, _ := x.Find(strings.Clone(s))
			if again != id || fresh != (size > 0 || at == 0) {
				t.Fatalf("%q has numbers %d and %d", s, id, again)
			}
			if fresh {
				n++
			}
		}
	}
	if x.Len() != int(n) {
		t.Fatalf("%d texts, want %d", x.Len(), n)
	}
}

func TestTextsBatch(t *testing.T) {
	a := New(0, "")
	defer a.Close()
	x := NewTexts(a)
	out := make([]int32, 5)
	x.IDs([]string{"b", "", "a", "b", "c"}, []bool{false, true, false, false, false}, out)
	if got := fmt.Sprint(out); got != "[0 -1 1 0 2]" {
		t.Errorf("numbers %s", got)
	}
	x.IDs([]string{"c", "", "a", "", "d"}, nil, out)
	if got := fmt.Sprint(out); got != "[2 3 1 3 4]" {
		t.Errorf("numbers %s", got)
	}
}
