package kernels

import (
	"fmt"
	"math"
	"strings"

	"github.com/onmart/onmart/cuda"
)

// Tuning is what the choice of shapes knows of a device. Figures are published ones; those of a device that is not in
// the table are what its driver tells, or scaled from its nearest relative. Nothing here changes the bits of a product
// that is not sliced; the number of slices (MatMulSlices, ColSumSlices) depends on the Tuning, and with it the last bits
// of what is summed.
type Tuning struct {
	Name          string
	Capability    int     // 75 is 7.5
	SMs           int     // multiprocessors
	Bandwidth     float64 // of device memory, bytes/s
	FLOPs         float64 // float32 operations/s at boost clock, a multiply-add being two
	LaunchSeconds float64 // between two kernels of a captured graph that depend on each other, an estimate
}

// The estimate of a launch is NVIDIA's figure for CUDA graphs of straight lines, 1.3 us on an A100, rounded up for
// cards with slower clocks and desktops; it has not been measured with these kernels.
const (
	launchTuring = 2.0e-6
	launchNewer  = 1.5e-6
)

// tunings are published figures (NVIDIA's data sheets and architecture white papers), in order of capability, then size.
var tunings = []Tuning{
	{"gtx1660ti", 75, 24, 288e9, 5.44e12, launchTuring},
	{"rtx2060", 75, 30, 336e9, 6.45e12, launchTuring},
	{"t4", 75, 40, 320e9, 8.1e12, launchTuring},
	{"rtx2080ti", 75, 68, 616e9, 13.45e12, launchTuring},
	{"a100", 80, 108, 1555e9, 19.5e12, launchNewer},
	{"rtx3060", 86, 28, 360e9, 12.7e12, launchNewer},
	{"rtx3090", 86, 82, 936e9, 35.6e12, launchNewer},
	{"rtx4060", 89, 24, 272e9, 15.1e12, launchNewer},
	{"rtx4070", 89, 46, 504e9, 29.1e12, launchNewer},
	{"l4", 89, 58, 300e9, 30.3e12, launchNewer},
	{"rtx4090", 89, 128, 1008e9, 82.6e12, launchNewer},
	{"h100", 90, 132, 3350e9, 66.9e12, launchNewer},
	{"b200", 100, 148, 8000e9, 75e12, launchNewer},
	{"rtx5060", 120, 30, 448e9, 19.2e12, launchNewer},
	{"rtx5070", 120, 48, 672e9, 30.9e12, launchNewer},
	{"rtx5080", 120, 84, 960e9, 56.3e12, launchNewer},
	{"rtx5090", 120, 170, 1792e9, 104.8e12, launchNewer},
	{"gb10", 121, 48, 273e9, 31e12, launchNewer},
}

// TuningFor is the entry of that capability (75 is 7.5) and number of multiprocessors, or the nearest: the highest
// capability not above the device's, then the nearest size, with rates scaled by the number of multiprocessors.
func TuningFor(capability, sms int) *Tuning {
	t, _ := nearest(capability, sms)
	return &t
}

// tuningOf is TuningFor with the rates that the driver tells of a device that is not in the table: those of a card, which
// may differ from its relatives in memory and clock, are better than scaled ones. What the driver does not tell stays.
func tuningOf(capability int, d cuda.DeviceInfo) *Tuning {
	t, listed := nearest(capability, d.SMs)
	if listed {
		return &t
	}
	if bandwidth := d.Bandwidth(); bandwidth > 0 {
		t.Bandwidth = bandwidth
		t.Name += ", memory as its driver tells"
	}
	if d.ClockKHz > 0 && d.SMs > 0 {
		t.FLOPs = 2 * float64(d.SMs*t.limits().lanes) * float64(d.ClockKHz) * 1e3
		t.Name += ", clock as its driver tells"
	}
	return &t
}

// nearest is the entry of TuningFor, and whether it is the device's own.
func nearest(capability, sms int) (best Tuning, listed bool) {
	generation := tunings[0].Capability
	for _, t := range tunings {
		if t.Capability <= capability {
			generation = t.Capability
		}
	}
	for _, t := range tunings {
		if t.Capability == generation && (best.SMs == 0 || abs(t.SMs-sms) < abs(best.SMs-sms)) {
			best = t
		}
	}
	listed = sms == best.SMs && capability == best.Capability
	if sms > 0 && !listed {
		scale := float64(sms) / float64(best.SMs)
		best.Name = fmt.Sprintf("%s scaled to %d multiprocessors of %d.%d", best.Name, sms, capability/10, capability%10)
		best.Capability, best.SMs = capability, sms
		best.FLOPs *= scale
		best.Bandwidth *= scale
	}
	return best, listed
}

// TuningNamed is the entry of that name; the error lists the names.
func TuningNamed(name string) (*Tuning, error) {
	var names []string
	for _, t := range tunings {
		if t.Name == name {
			return &t, nil
		}
		names = append(names, t.Name)
	}
	return nil, fmt.Errorf("kernels: no figures of a device %q; there are %s", name, strings.Join(names, ", "))
}

func abs(n int) int { return max(n, -n) }

// limits of a multiprocessor, from the CUDA programming guide's table of compute capabilities.
type limits struct {
	lanes                             int // float32 multiply-adds a cycle
	threads, blocks, registers, bytes int // bytes of shared memory
}

func (t *Tuning) limits() limits {
	switch {
	case t.Capability < 80:
		return limits{64, 1024, 16, 65536, 64 << 10}
	case t.Capability < 86:
		return limits{64, 2048, 32, 65536, 164 << 10}
	case t.Capability < 89:
		return limits{128, 1536, 16, 65536, 100 << 10}
	case t.Capability < 90 || t.Capability >= 120:
		return limits{128, 1536, 24, 65536, 100 << 10}
	}
	return limits{128, 2048, 32, 65536, 228 << 10}
}

// tile is a shape of matmul.cu. A block of threads computes rows x columns of the product in slabs of depth steps; each
// thread owns ownRows x ownColumns of it.
type tile struct {
	rows, columns, depth int
	ownRows, ownColumns  int
	threads              int
	registers, shared    int // of a thread; bytes of a block: what ptxas 11.8 reports for sm_75, the most of the transpositions
}

var tiles = [...]tile{
	{128, 64, 8, 8, 8, 128, 128, 12800},
	{64, 64, 16, 8, 4, 128, 103, 17408},
	{64, 32, 16, 4, 4, 128, 79, 13312},
	{32, 32, 32, 2, 4, 128, 79, 18432},
	{16, 64, 32, 2, 4, 128, 96, 22528},
}

// tileTT is the one shape for both operands transposed.
const tileTT = 2

func (t tile) name() string { return fmt.Sprintf("%dx%d", t.rows, t.columns) }

// blocks is how many tiles a product of m x n takes.
func (t tile) blocks(m, n int) int { return ceilDiv(m, t.rows) * ceilDiv(n, t.columns) }

// tileKernels are the kernels of tiles, by their place there and their letters, so that a launch makes no name.
var tileKernels = func() (all []map[string]string) {
	for _, t := range tiles {
		names := map[string]string{}
		for _, letters := range []string{"nn", "nt", "tn", "tt"} {
			names[letters] = "matmul_" + t.name() + "_" + letters
		}
		all = append(all, names)
	}
	return all
}()

// multiplyRate is the part of the lanes that multiply-adds keep busy in the inner loop. Counted, not measured: in the SASS
// about one in ten loses its cycle to two operands in one bank of the registers.
const multiplyRate = 0.9

// cycles is how long a block of a tile is at work on so many steps of k with a multiprocessor of its own, counted and not
// measured. Multiply-adds and reads of shared memory have a pipe each, and the longer queue counts: a warp's read of four
// floats a thread takes 4 cycles, one of two floats 2, as 128 bytes pass in a cycle.
func (t tile) cycles(l limits, steps int) float64 {
	multiply := float64(t.rows*t.columns*steps) / (float64(l.lanes) * multiplyRate)
	warps := t.threads / 32
	return max(multiply, float64(warps*steps*(t.ownRows+t.ownColumns)))
}

// resident is how many blocks of a tile a multiprocessor holds at once.
func (l limits) resident(t tile) int {
	perWarp := ceilDiv(t.registers*32, 256) * 256
	return max(1, min(l.blocks, l.threads/t.threads, l.registers/(perWarp*t.threads/32), l.bytes/(ceilDiv(t.shared, 1024)*1024)))
}

// memoryCycles is how long a load from device memory takes, and what a block spends before its first step and after
// its last: about 400 to 600 cycles on Turing to Hopper in published micro-benchmarks (Jia et al. 2019 for the T4).
const memoryCycles = 500

// cycle is the length of one clock in seconds.
func (t *Tuning) cycle() float64 { return 2 * float64(t.SMs*t.limits().lanes) / t.FLOPs }

// tileSeconds predicts a product of k steps a slice, to rank shapes: waves of blocks times the time of a block. A
// block's slab takes as long as its work, with all blocks that share the multiprocessor, or as long as the memory's
// latency, whichever is more; and all of it not less than what passes the second-level cache, at three times the
// memory's rate. Every block has four warps, one for each scheduler, so that one alone can fill the pipes.
func (t *Tuning) tileSeconds(shape tile, m, n, run, slices int) float64 {
	l := t.limits()
	blocks := shape.blocks(m, n) * slices
	perSM := ceilDiv(blocks, t.SMs)
	slabs := float64(ceilDiv(run, shape.depth))
	work := shape.cycles(l, min(run, shape.depth))
	wave := func(resident int) float64 {
		return 2*memoryCycles + slabs*max(work*float64(resident), memoryCycles)
	}
	resident := l.resident(shape)
	cycles := float64(perSM/resident) * wave(resident)
	if rest := perSM % resident; rest > 0 {
		cycles += wave(rest)
	}
	traffic := 4 * float64(run*slices) * (float64(ceilDiv(n, shape.columns))*float64(m) + float64(ceilDiv(m, shape.rows))*float64(n))
	return max(cycles*t.cycle(), traffic/(3*t.Bandwidth))
}

// tied is how far apart two predictions are that say the same: the model is not good to this.
const tied = 0.02

// enough blocks for each multiprocessor, among tied shapes: a larger tile then reads less.
const enough = 4

// tile is the quickest shape for a product, by its place in tiles. Of those that tie with the quickest it is the largest that
// has enough blocks, or the one with most, which leaves less to one multiprocessor.
func (t *Tuning) tile(m, n, run, slices int, transA, transB bool) int {
	if transA && transB {
		return tileTT
	}
	var seconds [len(tiles)]float64
	least := math.Inf(1)
	for i, shape := range tiles {
		seconds[i] = t.tileSeconds(shape, m, n, run, slices)
		least = min(least, seconds[i])
	}
	best, most := 0, 0
	for i, shape := range tiles {
		if blocks := shape.blocks(m, n); seconds[i] <= least*(1+tied) && blocks > most && most < enough*t.SMs {
			best, most = i, blocks
		}
	}
	return best
}

// vectorSeconds predicts a product with one row or column, of length m.
func (t *Tuning) vectorSeconds(m, run, slices int) float64 {
	blocks := ceilDiv(m, vectorBlock) * slices
	// A thread keeps 16 loads in flight and then needs a multiply-add's latency for each.
	block := 2*memoryCycles + float64(ceilDiv(run, 16))*(memoryCycles+16*4)
	const resident = 8
	waves := ceilDiv(ceilDiv(blocks, t.SMs), resident)
	return max(float64(waves)*block*t.cycle(), 4*float64(m)*float64(run*slices)/t.Bandwidth)
}

// maxSlices bounds the slices, and so the memory and the chain of whoever sums them; minRun is the shortest slice. One
// more slice must be worth it: the prediction is not good to a twentieth.
const (
	maxSlices = 64
	minRun    = 32
	worth     = 0.95
)

// MatMulSlices is how many slices of k make a product with no epilogue and its later summation quickest, 1 for none:
// few rows and columns and a long k (the gradient of weights) leave most of a device idle otherwise. No slice is
// empty. It depends on the device, and the bits of the sum on it.
func (t *Tuning) MatMulSlices(m, n, k int) int {
	best, least := 1, math.Inf(1)
	for s := 1; s <= maxSlices; s++ {
		run := sliceRun(k, s)
		if s > 1 && (run < minRun || ceilDiv(k, run) != s) {
			continue
		}
		var seconds float64
		if m == 1 || n == 1 {
			seconds = t.vectorSeconds(m*n, run, s)
		} else {
			seconds = math.Inf(1)
			for _, shape := range tiles {
				seconds = min(seconds, t.tileSeconds(shape, m, n, run, s))
			}
		}
		if s > 1 {
			// Written once, read once.
			seconds += 2*4*float64(m)*float64(n)*float64(s-1)/t.Bandwidth + sliceCycles(s)*t.cycle()
		}
		if seconds < worth*least {
			best, least = s, seconds
		}
	}
	return best
}

// ColSumSlices is the same for ColSum: no slice is empty, and the bits of the sum depend on it.
func (t *Tuning) ColSumSlices(m, n int) int {
	best, least := 1, math.Inf(1)
	for s := 1; s <= maxSlices; s++ {
		run := ceilDiv(m, s)
		if s > 1 && (run < minRun || ceilDiv(m, run) != s) {
			continue
		}
		seconds := columnCycles(run, n) * t.cycle()
		if s > 1 {
			seconds += sliceCycles(s) * t.cycle()
		}
		if seconds < worth*least {
			best, least = s, seconds
		}
	}
	return best
}

// addCycles is one read of shared memory and one addition to a sum, after another.
const addCycles = 8

// columnCycles is how long a block of ColSum takes for its rows of n columns.
func columnCycles(run, n int) float64 {
	if n <= narrow {
		return 2*memoryCycles + float64(run)*addCycles
	}
	return float64(ceilDiv(run, 16)) * memoryCycles
}

// sliceCycles is how long a thread waits for the further slices that it sums: it has eight in flight.
func sliceCycles(slices int) float64 { return float64(ceilDiv(max(slices, 1)-1, 8)) * memoryCycles }

// chainSeconds is a floor for an Op that is not a product: its longest chain of accesses to memory of which one waits for
// the last, in cycles, and then its bytes at the memory's rate. Counted, not measured.
func (t *Tuning) chainSeconds(cycles float64, bytes int64) float64 {
	return cycles*t.cycle() + float64(bytes)/t.Bandwidth
}

// sliceRun is how many steps of k a slice has: ceil(k/slices) rounded up to a multiple of 16.
func sliceRun(k, slices int) int {
	if slices <= 1 {
		return k
	}
	return ceilDiv(ceilDiv(k, slices), 16) * 16
}
