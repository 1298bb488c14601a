//go:build linux && !nocuda && !cu

package emulator

import (
	"fmt"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/cuda"
)

func inAllOrders(d *device, f func(o uint32)) {
	d.Helper()
	for _, o := range orders {
		d.order(o)
		f(o)
	}
	d.order(0)
}

func same[T comparable](d *device, what string, o uint32, got, want []T) {
	d.Helper()
	for i := range want {
		if got[i] != want[i] {
			d.Fatalf("%s in order %d: element %d is %v, want %v", what, o, i, got[i], want[i])
		}
	}
}

func TestTiledProduct(t *testing.T) {
	d := open(t)
	r := rand.New(rand.NewPCG(1, 2))
	for _, shape := range [][3]int{{1, 1, 1}, {17, 33, 19}, {64, 48, 50}} {
		m, n, k := shape[0], shape[1], shape[2]
		a, b := make([]float32, m*k), make([]float32, k*n)
		for _, v := range [][]float32{a, b} {
			for i := range v {
				v[i] = float32(r.IntN(17) - 8) // products and sums are exact
			}
		}
		want := make([]float32, m*n)
		for i := range m {
			for j := range n {
				for l := range k {
					want[i*n+j] += a[i*k+l] * b[l*n+j]
				}
			}
		}
		inAllOrders(d, func(o uint32) {
			y := d.alloc(4 * m * n)
			d.ok(d.launch(d.stream, "tiled", dim(uint32(n+15)/16, uint32(m+15)/16, 1), dim(16, 16, 1),
				put(d, a), put(d, b), y, int32(m), int32(n), int32(k)))
			same(d, fmt.Sprintf("product %v", shape), o, get[float32](d, y, m*n), want)
		})
	}
}

func TestWarpSums(t *testing.T) {
	d := open(t)
	for _, block := range []int{32, 96, 1024} {
		const blocks = 5
		n := blocks*block - 7
		x := make([]int32, n)
		want := make([]int32, blocks)
		for i := range x {
			x[i] = int32(i*i%1001 - 300)
			want[i/block] += x[i]
		}
		inAllOrders(d, func(o uint32) {
			y := d.alloc(4 * blocks)
			d.ok(d.launch(d.stream, "block_sums", line(blocks), line(uint32(block)), put(d, x), y, int32(n)))
			same(d, fmt.Sprintf("sums of %d", block), o, get[int32](d, y, blocks), want)
		})
	}
}

func TestWarpWords(t *testing.T) {
	d := open(t)
	want := make([]int32, 320)
	threes := uint32(0)
	for l := 0; l < 32; l += 3 {
		threes |= 1 << l
	}
	for l := range int32(32) {
		row := want[10*l:]
		row[0] = 15
		row[1] = 3 * (l/8*8 + 1)
		row[2] = l - 3
		if l < 3 {
			row[2] = l
		}
		row[3] = l - 3
		if l%16 < 3 {
			row[3] = l
		}
		row[4] = l + 5
		if l%8 > 2 {
			row[4] = l
		}
		row[5] = l ^ 9 // bit 3 leads into a later segment (own value) or an earlier one
		if l&8 == 0 {
			row[5] = l
		}
		row[6] = int32(threes)
		row[7] = 11
		row[8] = l ^ 1
		if l >= 16 {
			row[8] = l ^ 2
		}
		row[9] = 2*(l+1) + 1
		if l == 31 {
			row[9] = 2*l + 1
		}
	}
	inAllOrders(d, func(o uint32) {
		y := d.alloc(4 * 320)
		d.ok(d.launch(d.stream, "warp_words", line(1), line(32), y))
		same(d, "warp words", o, get[int32](d, y, 320), want)
	})
}

func TestVotesAndAtomics(t *testing.T) {
	d := open(t)
	x := make([]int32, 200)
	want := []int32{0, 1, 1}
	for i := range x {
		x[i] = int32(i%7 + 1)
		want[0] += x[i] & 1
	}
	bins := make([]uint32, 20)
	bins[17], bins[18] = 9, 7
	wantBins := slices.Clone(bins)
	for _, v := range x {
		wantBins[v&15]++
	}
	wantBins[16], wantBins[17], wantBins[18], wantBins[19] = 2, 0, 8, 5
	inAllOrders(d, func(o uint32) {
		y := d.alloc(12)
		d.ok(d.launch(d.stream, "votes", line(1), line(200), put(d, x), y))
		same(d, "votes", o, get[int32](d, y, 3), want)
		h := put(d, bins)
		d.ok(d.launch(d.stream, "histogram", line(3), line(40), put(d, x), h, int32(len(x))))
		same(d, "histogram", o, get[uint32](d, h, len(bins)), wantBins)
	})
}

func TestSharedMemoryAndParameters(t *testing.T) {
	d := open(t)
	x := make([]float32, 100)
	want := make([]float32, 100)
	for i := range x {
		x[i], want[99-i] = float32(i), float32(i)
	}
	inAllOrders(d, func(o uint32) {
		y := d.alloc(400)
		d.ok(d.Launch(d.function("reversed"), line(1), line(100), 400, d.stream, pointers(t, []any{put(d, x), y})))
		same(d, "reversed", o, get[float32](d, y, 100), want)
		z := d.alloc(400)
		d.ok(d.launch(d.stream, "plain_shared", line(2), line(100), put(d, x), z))
		same(d, "plain shared memory", o, get[float32](d, z, 100), want)
	})
	y := d.alloc(64)
	d.ok(d.launch(d.stream, "parameters", line(1), line(1), y, int8(-1), int16(-2), int32(-3), int64(1)<<40, float32(0.5), 0.25,
		&mixed{c: [3]int8{1, 2, 3}, d: 1e300}))
	same(d, "parameters", 0, get[float64](d, y, 8), []float64{-1, -2, -3, 1 << 40, 0.5, 0.25, 3, 1e300})
	d.ok(d.launch(d.stream, "nothing", line(3), line(1024)))
	d.ok(d.StreamSync(d.stream))
}

// TestMemoryIsUndefined wants NaN where nothing was written.
func TestMemoryIsUndefined(t *testing.T) {
	d := open(t)
	for _, v := range get[float32](d, d.alloc(128), 32) {
		if !math.IsNaN(float64(v)) {
			t.Fatalf("fresh device memory holds %v", v)
		}
	}
	y := d.alloc(128)
	for range 2 { // also in the second block that uses the array
		d.ok(d.launch(d.stream, "undefined_shared", line(2), line(32), y))
		for _, v := range get[float32](d, y, 32) {
			if !math.IsNaN(float64(v)) {
				t.Fatalf("fresh shared memory holds %v", v)
			}
		}
	}
}

// exposed lists the orders in which the result of run is another one than in order 0.
func exposed[T comparable](d *device, run func() []T) []uint32 {
	d.Helper()
	var first []T
	var different []uint32
	inAllOrders(d, func(o uint32) {
		v := run()
		if first == nil {
			first = v
		}
		if !slices.Equal(v, first) {
			different = append(different, o)
		}
	})
	return different
}

func TestOrdersExposeRaces(t *testing.T) {
	d := open(t)
	x := make([]float32, 256)
	for i := range x {
		x[i] = float32(i)
	}
	if got := exposed(d, func() []float32 {
		y := d.alloc(1024)
		d.ok(d.launch(d.stream, "missing_barrier", line(1), line(256), put(d, x), y))
		v := get[float32](d, y, 256)
		for i := range v { // NaN differs from itself
			if v[i] != v[i] {
				v[i] = -1
			}
		}
		return v
	}); !slices.Equal(got, orders[1:]) {
		t.Errorf("a missing barrier changes results in orders %d, want all but 0", got)
	}
	if got := exposed(d, func() []float32 {
		y := d.alloc(1024)
		d.ok(d.launch(d.stream, "missing_second_barrier", line(1), line(256), put(d, x), y, int32(3)))
		return get[float32](d, y, 256)
	}); !slices.Equal(got, orders[1:]) {
		t.Errorf("a missing barrier before the next round changes results in orders %d, want all but 0", got)
	}
	if got := exposed(d, func() []int32 {
		y := d.alloc(4)
		d.ok(d.launch(d.stream, "block_race", line(8), line(32), y))
		return get[int32](d, y, 1)
	}); !slices.Contains(got, 1) || len(got) < 2 {
		t.Errorf("a race between blocks changes the result in orders %d, want 1 and a seed", got)
	}
}

// TestKernelFaults wants each fault as the launch's error in every order, with a line that says where it is,
// and a context that is lost until it is released.
func TestKernelFaults(t *testing.T) {
	const illegal, misaligned, failed = cuda.Result(700), cuda.Result(716), cuda.Result(719)
	type setting struct {
		*device
		small, large cuda.DevicePtr // 400 bytes, and 4096
		gone         cuda.DevicePtr
	}
	for _, c := range []struct {
		name   string
		kernel string
		grid   uint32
		block  uint32
		args   func(s setting) []any
		code   cuda.Result
		line   string // a regular expression
	}{
		{"read past the end", "read_at", 1, 1, func(s setting) []any { return []any{s.small, s.large, int64(1100)} }, illegal,
			`kernel read_at, block \(0,0,0\), thread \(0,0,0\): read of 0x[0-9a-f]+, 4000 bytes past the end of the allocation of 400 bytes`},
		{"write past the end", "write_at", 2, 4, func(s setting) []any { return []any{s.small, int64(100)} }, illegal,
			`kernel write_at, block \(1,0,0\), thread \(2,0,0\): write of 0x[0-9a-f]+, 0 bytes past the end of the allocation of 400 bytes`},
		{"write before", "write_at", 2, 4, func(s setting) []any { return []any{s.large, int64(-1)} }, illegal,
			`kernel write_at.*write of 0x[0-9a-f]+, 4 bytes before the allocation of 4096 bytes`},
		{"write just before", "write_at", 2, 4, func(s setting) []any { return []any{s.small, int64(-1)} }, illegal,
			`wrote just before the allocation of 400 bytes at 0x[0-9a-f]+; found after kernel write_at`},
		{"freed", "read_at", 1, 1, func(s setting) []any { return []any{s.gone, s.large, int64(3)} }, illegal,
			`kernel read_at.*byte 12 of the allocation of 64 bytes at 0x[0-9a-f]+, which was freed`},
		{"null", "read_at", 1, 1, func(s setting) []any { return []any{cuda.DevicePtr(0), s.large, int64(1)} }, illegal, `read of 0x4, near address 0`},
		{"misaligned vector", "read_vector", 1, 1, func(s setting) []any { return []any{s.small, s.large, int32(1)} }, misaligned,
			`misaligned address in kernel read_vector, block .*wrong.cu:\d+: 'const struct float4' at 0x[0-9a-f]+4, which is no multiple of 16`},
		{"misaligned number", "read_byte_address", 1, 1, func(s setting) []any { return []any{s.small, s.large, int64(6)} }, misaligned,
			`misaligned address in kernel read_byte_address.*no multiple of 4`},
		{"index of shared memory", "shared_index", 1, 1, func(s setting) []any { return []any{s.large, int32(64)} }, illegal,
			`illegal address in kernel shared_index.*wrong.cu:\d+: index 64 of an array of type 'float \[64\]'`},
		{"index of a local array", "local_index", 1, 1, func(s setting) []any { return []any{s.large, int32(-1)} }, illegal,
			`illegal address in kernel local_index.*wrong.cu:\d+: index -1 of an array of type 'float \[4\]'`},
		{"overflow", "overflows", 1, 1, func(s setting) []any { return []any{s.large, int32(1 << 16)} }, failed,
			`kernel overflows.*wrong.cu:\d+: a product overflows`},
		{"shift", "shifts", 1, 1, func(s setting) []any { return []any{s.large, int32(32)} }, failed, `kernel shifts.*wrong.cu:\d+: a shift by more`},
		{"shared memory past the end", "shared_write_at", 1, 32, func(s setting) []any { return []any{s.large, int32(32)} }, illegal,
			`kernel shared_write_at.*: write of 0x[0-9a-f]+, 8 bytes past the end of shared array first of 120 bytes`},
		{"shared memory just past the end", "shared_write_at", 1, 32, func(s setting) []any { return []any{s.large, int32(31)} }, illegal,
			`kernel shared_write_at, block \(0,0,0\): a thread wrote just past the end of shared array first of 120 bytes`},
		{"shared memory just before", "shared_write_at", 1, 32, func(s setting) []any { return []any{s.large, int32(-1)} }, illegal,
			`kernel shared_write_at, block \(0,0,0\): a thread wrote just before shared array first of 120 bytes`},
		{"shared memory read", "shared_read_at", 1, 1, func(s setting) []any { return []any{s.large, int32(64)} }, illegal,
			`kernel shared_read_at.*: read of 0x[0-9a-f]+, 0 bytes past the end of shared array array of 256 bytes`},
		{"too much shared memory", "shared_too_large", 1, 1, func(s setting) []any { return []any{s.large} }, failed,
			`kernel shared_too_large.*takes 49168 bytes of shared memory with array`},
		{"mask without the caller", "mask_without_caller", 1, 32, func(s setting) []any { return []any{s.large} }, failed,
			`kernel mask_without_caller.*__shfl_xor_sync at wrong.cu:\d+: the mask 0x0000ffff leaves out the calling lane`},
		{"lane outside the mask", "lane_outside_mask", 1, 32, func(s setting) []any { return []any{s.large} }, failed,
			`kernel lane_outside_mask.*with mask 0x0000ffff: lane 15 reads lane 16, which is outside its mask`},
		{"lane that returned", "lane_returned", 1, 32, func(s setting) []any { return []any{s.large, int32(20)} }, failed,
			`kernel lane_returned.*lane 19 reads lane 20, which has returned`},
		{"lane that is not there", "lane_returned", 1, 24, func(s setting) []any { return []any{s.large, int32(32)} }, failed,
			`kernel lane_returned.*lane 23 reads lane 24, which the block does not have`},
		{"lanes at two shuffles", "lanes_apart", 1, 32, func(s setting) []any { return []any{s.large} }, failed,
			`kernel lanes_apart.*deadlock: it waits in __shfl_sync at wrong.cu:\d+ with mask 0xffffffff for lane`},
		{"width of a shuffle", "bad_width", 1, 32, func(s setting) []any { return []any{s.large} }, failed, `kernel bad_width.*width of a shuffle`},
		{"two barriers", "two_barriers", 1, 64, func(s setting) []any { return []any{s.large} }, failed,
			`kernel two_barriers.*diverged barrier: it waits in __syncthreads at wrong.cu:\d+, others wait in __syncthreads at wrong.cu:\d+`},
		{"early return", "returns_early", 1, 64, func(s setting) []any { return []any{s.large, int32(40)} }, failed,
			`kernel returns_early.*diverged barrier: 40 of 64 threads wait in __syncthreads at wrong.cu:\d+, and thread \(40,0,0\) has returned`},
		{"barrier against shuffle", "barrier_in_warp", 1, 32, func(s setting) []any { return []any{s.large} }, failed,
			`kernel barrier_in_warp.*deadlock: it waits in __shfl_sync at wrong.cu:\d+ with mask 0xffffffff for lane 0, which waits in __syncthreads`},
		{"division by zero", "divides", 1, 1, func(s setting) []any { return []any{s.large, int32(0)} }, failed, `kernel divides.*wrong.cu:\d+: an integer is divided by zero`},
		{"trap", "traps", 1, 1, func(s setting) []any { return []any{s.large} }, failed, `kernel traps.*__trap`},
		{"stack", "too_much_stack", 1, 1, func(s setting) []any { return []any{s.large, int32(500)} }, failed, `kernel too_much_stack.*local variables take more than 64 KiB`},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, o := range orders[:3] {
				t.Run(fmt.Sprint(o), func(t *testing.T) {
					d := open(t)
					s := setting{device: d, gone: d.alloc(64), small: d.alloc(400), large: d.alloc(4096)}
					d.ok(d.Fill32(s.large, 1, 1024, d.stream))
					d.ok(d.MemFree(s.gone))
					d.order(o)
					said := stderr(t, func() {
						r := d.launch(d.stream, c.kernel, line(c.grid), line(c.block), c.args(s)...)
						if r == cuda.Success {
							r = d.StreamSync(d.stream)
						}
						d.want(c.code, r)
					})
					if !regexp.MustCompile(c.line).MatchString(said) || strings.Count(said, "\n") != 1 {
						t.Errorf("stderr:\n%swant one line with %s", said, c.line)
					}
					_, r := d.MemAlloc(4)
					d.want(c.code, r)
					d.want(c.code, d.StreamSync(d.stream))
				})
			}
		})
	}
}

// TestAfterAFault wants a new context to work as if nothing had been.
func TestAfterAFault(t *testing.T) {
	t.Run("fault", func(t *testing.T) {
		d := open(t)
		stderr(t, func() {
			d.want(700, d.launch(d.stream, "read_at", line(1), line(1), d.alloc(16), d.alloc(16), int64(1<<20)))
		})
	})
	d := open(t)
	x := put(d, []float32{1, 2, 3})
	d.ok(d.launch(d.stream, "increment", line(1), line(32), x, int32(3)))
	same(d, "increment", 0, get[float32](d, x, 3), []float32{2, 3, 4})
}
