package kernels

import (
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestTuningNamed(t *testing.T) {
	for _, name := range []string{"rtx2060", "t4", "rtx3060", "rtx4070", "a100", "h100"} {
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
		{120, 170, "h100 scaled to 170 multiprocessors of 12.0"}, {61, 20, "gtx1660ti scaled to 20 multiprocessors of 6.1"},
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

// Small products take small tiles, large ones large tiles.
func TestTileChoice(t *testing.T) {
	d, _ := TuningNamed("rtx2060")
	for _, c := range []struct {
		m, n, k int
		want    []string
	}{
		{8192, 1024, 1024, []string{"matmul_128x64_nn", "matmul_64x64_nn"}},
		{64, 64, 64, []string{"matmul_32x32_nn", "matmul_16x64_nn"}},
		{256, 1, 64, []string{"matvec_n"}},
		{1, 256, 64, []string{"matvec_t"}},
		{256, 64, 1, []string{"outer"}},
	} {
		o := &MatMul{M: c.m, N: c.n, K: c.k}
		if got := o.plan(o.way(d)).kernel; !slices.Contains(c.want, got) {
			t.Errorf("%dx%dx%d takes %s, want one of %v", c.m, c.n, c.k, got, c.want)
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
		micro := map[int]string{64: "8, 8", 32: "8, 4", 16: "4, 4", 8: "2, 4"}[shape.rows*shape.columns/shape.threads]
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
