package program

import (
	"testing"
)

// TestPhiloxKnownAnswers: the vectors of kat_vectors in Random123, the authors' own library.
func TestPhiloxKnownAnswers(t *testing.T) {
	const ones = 0xffffffff
	for _, c := range []struct {
		ctr, want [4]uint32
		key       [2]uint32
	}{
		{want: [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{ctr: [4]uint32{ones, ones, ones, ones}, key: [2]uint32{ones, ones}, want: [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{ctr: [4]uint32{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, key: [2]uint32{0xa4093822, 0x299f31d0}, want: [4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		if got := Philox(c.key, c.ctr); got != c.want {
			t.Errorf("Philox(%x, %x) = %x, want %x", c.key, c.ctr, got, c.want)
		}
	}
}

func TestPermutationVisitsEveryRowOnce(t *testing.T) {
	sizes := []int{1, 2, 3, 4, 5, 6, 7, 15, 16, 17, 255, 256, 257, 1000, 67240}
	for n := 8; n < 140; n++ {
		sizes = append(sizes, n)
	}
	for _, n := range sizes {
		for epoch := range uint32(3) {
			p := NewPermutation(123456789, epoch, n)
			seen := make([]bool, n)
			for i := range n {
				at := p.At(i)
				if at < 0 || at >= n || seen[at] {
					t.Fatalf("n=%d epoch %d: index %d goes to %d, which is out of range or taken", n, epoch, i, at)
				}
				seen[at] = true
			}
		}
	}
}

func TestPermutationDependsOnSeedAndEpoch(t *testing.T) {
	const n = 1000
	base := NewPermutation(5, 0, n)
	for what, p := range map[string]Permutation{
		"epoch":             NewPermutation(5, 1, n),
		"low half of seed":  NewPermutation(6, 0, n),
		"high half of seed": NewPermutation(5+1<<32, 0, n),
	} {
		equal := 0
		for i := range n {
			if p.At(i) == base.At(i) {
				equal++
			}
		}
		if equal > 20 { // one is expected by chance
			t.Errorf("another %s leaves %d of %d rows in place", what, equal, n)
		}
	}
}

// TestPermutationIsEven: over many epochs each row is equally often in each quarter, to six deviations.
func TestPermutationIsEven(t *testing.T) {
	const n, epochs = 8, 4000
	var count [n][n]int
	for e := range uint32(epochs) {
		p := NewPermutation(77, e, n)
		for i := range n {
			count[i][p.At(i)]++
		}
	}
	for i := range count {
		for j, c := range count[i] {
			if c < 500-130 || c > 500+130 { // deviation sqrt(4000/8*7/8) = 21
				t.Errorf("index %d goes to row %d in %d of %d epochs, want about 500", i, j, c, epochs)
			}
		}
	}
}

// TestFeistelIsThePermutation computes indices from the numbers alone, as another backend would.
func TestFeistelIsThePermutation(t *testing.T) {
	for _, n := range []int{1, 2, 17, 1000} {
		p := NewPermutation(1<<40+3, 9, n)
		f := p.Feistel()
		f3 := func(half, round uint32) uint32 { return Philox(f.Key, [4]uint32{half, round, f.Epoch, f.Site})[0] }
		for i := range n {
			x := uint32(i)
			for again := true; again; again = x >= f.N {
				l, r := uint64(x/f.B), uint64(x%f.B)
				l = (l + uint64(f3(uint32(r), 0))*uint64(f.A)>>32) % uint64(f.A)
				r = (r + uint64(f3(uint32(l), 1))*uint64(f.B)>>32) % uint64(f.B)
				l = (l + uint64(f3(uint32(r), 2))*uint64(f.A)>>32) % uint64(f.A)
				r = (r + uint64(f3(uint32(l), 3))*uint64(f.B)>>32) % uint64(f.B)
				x = uint32(l)*f.B + uint32(r)
			}
			if int(x) != p.At(i) {
				t.Fatalf("n=%d: index %d: %d by the numbers, %d by At", n, i, x, p.At(i))
			}
		}
	}
}

func TestUniforms4(t *testing.T) {
	if a, b := Uniforms4(1, 2, 3, 4), Uniforms4(1, 2, 3, 4); a != b {
		t.Errorf("%v and %v", a, b)
	}
	r := Philox([2]uint32{7, 8}, [4]uint32{5, 6, 2, 3})
	if got, want := Uniforms4(8<<32+7, 2, 3, 6<<32+5)[1], float32(r[1]>>8)/(1<<24); got != want {
		t.Errorf("element 1 is %v, want %v", got, want)
	}
	var sum, sum2 float64
	const blocks = 25000
	seen := map[[4]float32]bool{}
	for i := range uint64(blocks) {
		u := Uniforms4(9, uint32(i%5), uint32(i%3), i)
		if seen[u] {
			t.Fatalf("block %d repeats another", i)
		}
		seen[u] = true
		for _, x := range u {
			if !(x >= 0 && x < 1) {
				t.Fatalf("%v is outside of [0,1)", x)
			}
			sum += float64(x)
			sum2 += float64(x) * float64(x)
		}
	}
	if mean, square := sum/(4*blocks), sum2/(4*blocks); !(mean > 0.495 && mean < 0.505 && square > 0.328 && square < 0.339) {
		t.Errorf("mean %v and mean square %v, want 1/2 and 1/3", mean, square)
	}
}

func TestLaneSum(t *testing.T) {
	// Lanes matter: with 2^24 in lane 0, ones in it are lost, ones in the others are not.
	x := make([]float32, 48)
	x[0], x[16], x[32] = 1<<24, 1, 1
	if got := LaneSum(x); got != 1<<24 {
		t.Errorf("ones in the lane of 2^24: %v", got)
	}
	x[16], x[32], x[17], x[33] = 0, 0, 1, 1
	if got := LaneSum(x); got != 1<<24+2 {
		t.Errorf("two ones in a lane of their own: %v", got)
	}
	// The tree: lane 0 takes 8 first; then 4 with 12; so -2^24 in lane 8 frees lane 4's one, in lane 1 it comes last.
	x = make([]float32, 16)
	x[0], x[8], x[4] = 1<<24, -1<<24, 1
	if got := LaneSum(x); got != 1 {
		t.Errorf("lane 8 meets lane 0 first: %v", got)
	}
	x[8], x[1] = 0, -1<<24
	if got := LaneSum(x); got != 0 {
		t.Errorf("lane 1 meets lane 0 last: %v", got)
	}
	if got := LaneSum(nil); got != 0 {
		t.Errorf("nothing sums to %v", got)
	}
}
