package kernels

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/onmart/onmart/cuda"
)

func TestTuningNamed(t *testing.T) {
	for _, name := range []string{"rtx2060", "t4", "rtx3060", "rtx4070", "a100", "h100", "b200", "rtx5060", "rtx5070", "rtx5080", "rtx5090", "gb10"} {
		got, err := TuningNamed(name)
		if err != nil || got.Name != name || got.SMs == 0 || got.Bandwidth == 0 || got.FLOPs == 0 || got.LaunchSeconds == 0 {
			t.Errorf("TuningNamed(%q) = %+v, %v", name, got, err)
		}
	}
	_, err := TuningNamed("voodoo2")
	if err == nil || !strings.Contains(err.Error(), "voodoo2") || !strings.Contains(err.Error(), "rtx2060, t4") {
		t.Errorf("an unknown name: %v", err)
	}
}

func TestTuningFor(t *testing.T) {
	for _, c := range []struct {
		capability, sms int
		name            string
	}{
		{75, 30, "rtx2060"}, {75, 40, "t4"}, {75, 34, "rtx2060 scaled to 34 multiprocessors of 7.5"}, {80, 108, "a100"},
		{86, 28, "rtx3060"}, {87, 16, "rtx3060 scaled to 16 multiprocessors of 8.7"}, {89, 46, "rtx4070"}, {90, 132, "h100"},
		{90, 114, "h100 scaled to 114 multiprocessors of 9.0"},
		{100, 148, "b200"}, {103, 148, "b200 scaled to 148 multiprocessors of 10.3"}, {120, 170, "rtx5090"},
		{120, 36, "rtx5060 scaled to 36 multiprocessors of 12.0"}, {121, 48, "gb10"}, {61, 20, "gtx1660ti scaled to 20 multiprocessors of 6.1"},
	} {
		got := TuningFor(c.capability, c.sms)
		if got.Name != c.name || got.SMs != c.sms || got.Capability != c.capability {
			t.Errorf("TuningFor(%d, %d) = %+v, want %s", c.capability, c.sms, got, c.name)
		}
	}
	if !slices.IsSortedFunc(tunings, func(a, b Tuning) int { return a.Capability - b.Capability }) {
		t.Error("tunings are not in order of capability, on which TuningFor relies")
	}
}

// A device that is not in the table has the rates that its driver tells, and scaled ones where it tells none.
func TestTuningOfDevice(t *testing.T) {
	told := cuda.DeviceInfo{SMs: 36, ClockKHz: 2_500_000, MemoryClockKHz: 14_001_000, MemoryBusBits: 128}
	got := tuningOf(120, told)
	if want := 2.0 * 36 * 128 * 2.5e9; got.FLOPs != want || got.Bandwidth != told.Bandwidth() || got.SMs != 36 ||
		got.Name != "rtx5060 scaled to 36 multiprocessors of 12.0, memory as its driver tells, clock as its driver tells" {
		t.Errorf("a device of 36 multiprocessors at 2.5 GHz and 448 GB/s: %+v", got)
	}
	if got, want := tuningOf(120, cuda.DeviceInfo{SMs: 36}), TuningFor(120, 36); *got != *want {
		t.Errorf("a device whose driver tells nothing: %+v, want %+v", got, want)
	}
	told.SMs = 30
	if got, want := tuningOf(120, told), TuningFor(120, 30); *got != *want || got.Name != "rtx5060" {
		t.Errorf("a device of the table: %+v, want its own figures %+v", got, want)
	}
}

// A multiprocessor of 12.x holds less than one of 9.0 and 10.0.
func TestLimits(t *testing.T) {
	for _, c := range []struct{ capability, threads, shared int }{{75, 1024, 64}, {89, 1536, 100}, {90, 2048, 228}, {100, 2048, 228}, {120, 1536, 100}, {121, 1536, 100}} {
		l := (&Tuning{Capability: c.capability}).limits()
		if l.threads != c.threads || l.bytes != c.shared<<10 {
			t.Errorf("capability %d: %d threads and %d bytes, want %d and %d KiB", c.capability, l.threads, l.bytes, c.threads, c.shared)
		}
	}
}

// Multiply-adds and reads of shared memory go side by side: a step of the largest tile is long for its multiply-adds, one
// of the smallest for its reads.
func TestTileCycles(t *testing.T) {
	turing, hopper := (&Tuning{Capability: 75}).limits(), (&Tuning{Capability: 90}).limits()
	for _, c := range []struct {
		tile  int
		of    limits
		steps int
		want  float64
	}{
		{0, turing, 8, 128 * 64 * 8 / (64 * 0.9)}, {0, hopper, 8, 128 * 64 * 8 / (128 * 0.9)},
		{1, hopper, 1, 4 * (8 + 4)}, {3, turing, 32, 32 * 4 * (2 + 4)}, {3, hopper, 32, 32 * 4 * (2 + 4)},
	} {
		if got := tiles[c.tile].cycles(c.of, c.steps); math.Abs(got-c.want) > 1e-9*c.want {
			t.Errorf("%d steps of tile %s with %d lanes: %v cycles, want %v", c.steps, tiles[c.tile].name(), c.of.lanes, got, c.want)
		}
	}
}

// Slices cover k, none is empty, and they fill a device where rows and columns alone do not.
func TestSlices(t *testing.T) {
	for i := range tunings {
		d := &tunings[i]
		for _, s := range []shape3{{64, 64, 256}, {15, 500, 8192}, {1, 1, 1}, {64, 1, 256}, {1024, 1024, 8192}, {128, 128, 1000}, {17, 3, 33}} {
			n := d.MatMulSlices(s.m, s.n, s.k)
			if run := sliceRun(s.k, n); n < 1 || n > maxSlices || run*(n-1) >= s.k || run*n < s.k {
				t.Errorf("%s: %v in %d slices of %d", d.Name, s, n, run)
			}
			n = d.ColSumSlices(s.k, s.n)
			if run := ceilDiv(s.k, n); n < 1 || n > maxSlices || run*(n-1) >= s.k {
				t.Errorf("%s: the columns of %dx%d in %d slices of %d", d.Name, s.k, s.n, n, run)
			}
		}
	}
	d, _ := TuningNamed("rtx2060")
	for _, s := range []shape3{{64, 64, 1024}, {15, 500, 8192}, {128, 1, 8192}} {
		if n := d.MatMulSlices(s.m, s.n, s.k); n < 4 {
			t.Errorf("%v on an rtx2060 is cut into %d slices only", s, n)
		}
	}
	if n := d.MatMulSlices(1024, 1024, 256); n != 1 {
		t.Errorf("1024x1024x256 fills an rtx2060 and is cut into %d slices", n)
	}
}

// Small products take small tiles, large ones large tiles, where the device is not full before.
func TestTileChoice(t *testing.T) {
	small := []string{"matmul_32x32_nn", "matmul_16x64_nn"}
	for _, c := range []struct {
		device  string
		m, n, k int
		want    []string
	}{
		{"rtx2060", 64, 64, 64, small},
		{"rtx2060", 256, 64, 64, small},
		{"rtx2060", 1024, 128, 128, []string{"matmul_64x32_nn"}},
		{"rtx2060", 8192, 128, 128, []string{"matmul_64x64_nn", "matmul_64x32_nn"}},
		{"rtx2060", 8192, 500, 15, []string{"matmul_128x64_nn"}},
		{"rtx2060", 8192, 1024, 1024, []string{"matmul_128x64_nn"}},
		{"h100", 256, 64, 64, small},
		{"h100", 1024, 128, 128, small},
		{"h100", 8192, 128, 128, []string{"matmul_128x64_nn"}},
		{"h100", 8192, 500, 15, []string{"matmul_128x64_nn"}},
		{"h100", 8192, 1024, 1024, []string{"matmul_128x64_nn"}},
		{"rtx2060", 256, 1, 64, []string{"matvec_lanes"}},
		{"rtx2060", 1, 256, 64, []string{"matvec_t"}},
		{"rtx2060", 256, 64, 1, []string{"outer"}},
	} {
		d, err := TuningNamed(c.device)
		if err != nil {
			t.Fatal(err)
		}
		o := &MatMul{M: c.m, N: c.n, K: c.k}
		if got := o.plan(o.way(d)).kernel; !slices.Contains(c.want, got) {
			t.Errorf("%s: %dx%dx%d takes %s, want one of %v", c.device, c.m, c.n, c.k, got, c.want)
		}
	}
}

// Of tiles that the model cannot tell apart the largest is taken that has enough blocks, or the one with most.
func TestTilesThatTie(t *testing.T) {
	d, err := TuningNamed("rtx2060")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		m, n, k int
		want    string
	}{{1024, 1024, 8192, "64x64"}, {8192, 1024, 1024, "128x64"}, {1024, 128, 128, "64x32"}} {
		at := d.tile(c.m, c.n, c.k, 1, false, false)
		if tiles[at].name() != c.want {
			t.Errorf("%dx%dx%d took %s, want %s", c.m, c.n, c.k, tiles[at].name(), c.want)
		}
		chosen := d.tileSeconds(tiles[at], c.m, c.n, c.k, 1)
		for i, shape := range tiles {
			s := d.tileSeconds(shape, c.m, c.n, c.k, 1)
			if chosen > s*(1+tied) {
				t.Errorf("%s takes %g s, and %s %g s", tiles[at].name(), chosen, shape.name(), s)
			}
			if tie := s <= chosen; tie && i < at && shape.blocks(c.m, c.n) >= enough*d.SMs {
				t.Errorf("%s was taken, and %s is level, larger, and has blocks enough", tiles[at].name(), shape.name())
			}
		}
	}
}

// The measured buffers do not fit twice into the cache.
func TestBeyondCache(t *testing.T) {
	for _, c := range []struct{ least, cache, want int }{
		{8192 * 512, 0, 8192 * 512}, {8192 * 512, 3 << 20, 8192 * 512}, {8192 * 512, 50 << 20, 25<<20 + 4096}, {4096, 96<<20 + 1, 48<<20 + 4096},
	} {
		if got := beyondCache(c.least, c.cache); got != c.want || got*4 <= 2*c.cache {
			t.Errorf("beside a cache of %d bytes %d elements, want %d", c.cache, got, c.want)
		}
	}
}

// The tiles of the table are those of the source.
func TestTilesAreInTheSource(t *testing.T) {
	source, err := sources.ReadFile("matmul.cu")
	if err != nil {
		t.Fatal(err)
	}
	for i, shape := range tiles {
		micro := fmt.Sprintf("%d, %d", shape.ownRows, shape.ownColumns)
		if shape.ownRows*shape.ownColumns*shape.threads != shape.rows*shape.columns {
			t.Errorf("tile %s: %d threads of %s do not make it", shape.name(), shape.threads, micro)
		}
		want := strings.NewReplacer(
			"R", strconv.Itoa(shape.rows), "C", strconv.Itoa(shape.columns), "D", strconv.Itoa(shape.depth), "M", micro,
		).Replace("_RxC R, C, D, M\n")
		if !strings.Contains(string(source), "#define TILE"+want) {
			t.Errorf("matmul.cu has no tile%s", want)
		}
		bounds := "__launch_bounds__(" + strconv.Itoa(shape.threads) + ", "
		for line := range strings.Lines(string(source)) {
			if strings.Contains(line, " matmul_"+shape.name()+"_") && !strings.Contains(line, bounds) {
				t.Errorf("tile %d: want %s in %s", i, bounds, line)
			}
		}
	}
}
