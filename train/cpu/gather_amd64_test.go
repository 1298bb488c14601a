package cpu

import (
	"math/rand/v2"
	"testing"
)

// TestGatherTiles: every path that this processor has the instructions of, AVX-512's copies being AVX2's, on tiles of
// all heights.
func TestGatherTiles(t *testing.T) {
	if !hasAVX2() {
		t.Skip("this processor has no AVX2")
	}
	r := rand.New(rand.NewPCG(1, 2))
	for rows := 1; rows <= 12; rows++ {
		for _, tiles := range []int{1, 2, 7} {
			for _, k := range []int{1, 2, 3, 33} {
				ld, next := tiles*rows+r.IntN(5), tileNext(rows, k)
				src := random(r, (k-1)*ld+tiles*rows)
				want := make([]float32, tiles*next+16)
				gatherTilesPortable(want, src, rows, tiles, k, next, ld)
				for name, gather := range map[string]func(dst, src []float32, rows, tiles, k, next, ld int){
					"AVX2": gatherTilesAVX2, "AVX-512": gatherTilesAVX512,
				} {
					if name == "AVX2" && rows > 8 {
						continue // a panel of its has six at most
					}
					got := make([]float32, len(want))
					gather(got, src, rows, tiles, k, next, ld)
					for i := range tiles {
						if err := same(got[i*next:i*next+rows*k], want[i*next:i*next+rows*k]); err != nil {
							t.Fatalf("%s, %d rows, %d tiles, k %d: tile %d: %v", name, rows, tiles, k, i, err)
						}
					}
				}
			}
		}
	}
}
