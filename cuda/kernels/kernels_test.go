package kernels_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/onmart/onmart/cuda"
	"github.com/onmart/onmart/cuda/kernels"
	"github.com/onmart/onmart/cuda/kernels/emulator"
	"github.com/onmart/onmart/cuda/kernels/kerneltest"
	"github.com/onmart/onmart/train/program"
)

// oracle is the arithmetic of the CPU.
var oracle = kernels.Oracle{
	Philox: program.Philox,
	Permute: func(seed uint64, epoch uint32, n, i int) int {
		p := program.NewPermutation(seed, epoch, n)
		return p.At(i)
	},
}

// with loads the kernels on the device of the tests.
func with(t *testing.T, f func(d *cuda.Device, k *kernels.Set) error) {
	t.Helper()
	d := kerneltest.Open(t, cuda.Options{NoCache: true})
	err := d.Do(func() error {
		k, err := kernels.Load(d)
		if err != nil {
			return err
		}
		// A second Close is no error.
		return errors.Join(f(d, k), k.Close(), k.Close())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Every kernel against its reference; on the emulator with the threads of a block in several orders, which must not
// change a bit of any output.
func TestEveryKernel(t *testing.T) {
	orders := []uint32{0, 1, 20261126}
	if testing.Short() || kerneltest.Hardware() {
		orders = orders[:1]
	}
	with(t, func(d *cuda.Device, k *kernels.Set) error {
		first := map[string][32]byte{}
		for i, order := range orders {
			if !kerneltest.Hardware() {
				if _, err := emulator.SetOrder(d.Driver(), order); err != nil {
					return err
				}
			}
			seen := 0
			results, err := kernels.CheckObserved(d, k, kernels.CheckOptions{Oracle: oracle}, func(name string, output []byte) {
				sum := sha256.Sum256(output)
				name = fmt.Sprint(seen, " ", name)
				seen++
				if was, ok := first[name]; !ok && i > 0 || ok && was != sum {
					t.Errorf("%s: the output with thread order %d is not that with order %d", name, order, orders[0])
				}
				first[name] = sum
			})
			if err != nil {
				return err
			}
			cases := 0
			for _, r := range results {
				cases += r.Cases
				if !r.OK || r.Cases == 0 {
					t.Errorf("order %d: %s, %s: %v units off, want %v at most, over %d outputs", order, r.Kernel, r.Case, r.Error, r.Tolerance, r.Cases)
				}
			}
			if seen != len(first) {
				t.Errorf("order %d gave %d outputs, another order %d", order, seen, len(first))
			}
			t.Logf("order %d: %d variants, %d outputs", order, len(results), cases)
			everyKernelIsIn(t, results)
		}
		return nil
	})
}

// entry is a kernel in a source.
var entry = regexp.MustCompile(`(?s)extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\(`)

// everyKernelIsIn demands a result for each kernel in the sources.
func everyKernelIsIn(t *testing.T, results []kernels.CheckResult) {
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !strings.HasSuffix(f.Name(), ".cu") {
			continue
		}
		source, err := os.ReadFile(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		found := entry.FindAllSubmatch(source, -1)
		if len(found) == 0 || len(found) != strings.Count(string(source), "__global__") {
			t.Errorf("%s: %d kernels recognised of %d", f.Name(), len(found), strings.Count(string(source), "__global__"))
		}
		for _, m := range found {
			if !slices.ContainsFunc(results, func(r kernels.CheckResult) bool {
				return slices.Contains(strings.Split(r.Kernel, ", "), string(m[1]))
			}) {
				t.Errorf("%s of %s is not checked", m[1], f.Name())
			}
		}
	}
}

func TestCheckOptions(t *testing.T) {
	with(t, func(d *cuda.Device, k *kernels.Set) error {
		only, err := kernels.Check(d, k, kernels.CheckOptions{Oracle: oracle, Only: "sum_slices", Sizes: []int{5, 8}, Time: true})
		if err != nil {
			return err
		}
		var timed, compared int
		for _, r := range only {
			if r.Kernel != "sum_slices" || !r.OK {
				t.Errorf("Only sum_slices gave %+v", r)
			}
			if r.Cases > 0 {
				compared += r.Cases
			} else if r.Seconds > 0 && r.GBs > 0 {
				timed++
			}
		}
		if timed != 1 || compared != 4*6 { // slices of 5, 8 and the four lengths that are always added
			t.Errorf("%d measurements and %d comparisons in %+v", timed, compared, only)
		}
		if _, err := kernels.Check(d, k, kernels.CheckOptions{}); err == nil {
			t.Error("Check without an Oracle is no error")
		}
		if _, err := kernels.Check(d, k, kernels.CheckOptions{Oracle: oracle, Sizes: []int{0}}); err == nil {
			t.Error("Check at size 0 is no error")
		}
		// An oracle that lies shows that a wrong result is reported.
		lie := oracle
		lie.Permute = func(_ uint64, _ uint32, n, i int) int { return (i + 1) % n }
		wrong, err := kernels.Check(d, k, kernels.CheckOptions{Oracle: lie, Only: "gather"})
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(wrong, func(r kernels.CheckResult) bool {
			return !r.OK && r.Error > 0 && strings.Contains(r.Case, "shuffled: ")
		}) {
			t.Errorf("another permutation is not noticed: %+v", wrong)
		}
		return nil
	})
}

// bound is a driver whose graphs or launches do what a test wants; what it does not bind is the driver's.
type bound struct {
	cuda.Driver
	capture func(cuda.StreamID) cuda.Result
	launch  func() cuda.Result
}

func (b bound) CaptureBegin(s cuda.StreamID) cuda.Result {
	if b.capture == nil {
		return b.Driver.CaptureBegin(s)
	}
	return b.capture(s)
}

func (b bound) Launch(f cuda.Function, grid, block cuda.Dim, sharedBytes uint32, s cuda.StreamID, params []unsafe.Pointer) cuda.Result {
	if b.launch == nil {
		return b.Driver.Launch(f, grid, block, sharedBytes, s, params)
	}
	return b.launch()
}

// withBound is with on such a driver.
func withBound(t *testing.T, b bound, f func(d *cuda.Device, k *kernels.Set) error) {
	t.Helper()
	b.Driver = kerneltest.Driver(t)
	d := kerneltest.Open(t, cuda.Options{Driver: b, NoCache: true})
	if err := d.Do(func() error {
		k, err := kernels.Load(d)
		if err != nil {
			return err
		}
		return errors.Join(f(d, k), k.Close())
	}); err != nil {
		t.Fatal(err)
	}
}

// Without graphs launches are measured one by one, and the result says so; another fault of a capture is an error.
func TestTimeWithoutGraphs(t *testing.T) {
	o := kernels.CheckOptions{Oracle: oracle, Only: "calibrate", Sizes: []int{5}, Time: true}
	timed := func(code cuda.Result) (cases []string, err error) {
		b := bound{}
		if code != cuda.Success {
			b.capture = func(cuda.StreamID) cuda.Result { return code }
		}
		withBound(t, b, func(d *cuda.Device, k *kernels.Set) error {
			var results []kernels.CheckResult
			results, err = kernels.Check(d, k, o)
			for _, r := range results {
				if r.Seconds > 0 {
					cases = append(cases, r.Case)
				}
			}
			return nil
		})
		return cases, err
	}
	if cases, err := timed(cuda.Success); err != nil || len(cases) != 1 || strings.Contains(cases[0], "one by one") {
		t.Errorf("with graphs: %q, %v", cases, err)
	}
	if cases, err := timed(cuda.NotSupported); err != nil || len(cases) != 1 || !strings.Contains(cases[0], "one by one") {
		t.Errorf("without graphs: %q, %v", cases, err)
	}
	if cases, err := timed(cuda.OutOfMemory); !errors.Is(err, cuda.OutOfMemory) || len(cases) > 0 {
		t.Errorf("with graphs that fail: %q, %v", cases, err)
	}
}

// The error of a launch names the Op and the kernel; a launch that succeeds makes no names, only its arguments.
func TestLaunchNames(t *testing.T) {
	code := cuda.InvalidValue
	withBound(t, bound{launch: func() cuda.Result { return code }}, func(d *cuda.Device, k *kernels.Set) error {
		s, err := d.NewStream()
		if err != nil {
			return err
		}
		defer s.Close()
		const address = 1 << 20 // nothing looks at it
		for _, c := range []struct {
			op          kernels.Op
			name        string
			kernel      string
			allocations float64
		}{
			{&kernels.MatMul{A: address, B: address, Y: address, M: 64, N: 32, K: 16, TransB: true},
				"matmul 64x32x16 nt", "matmul_16x64_nt", 3},
			{&kernels.Map{Kind: kernels.MapScale, A: address, Y: address, N: 100}, "map scale 100", "map_scale", 2},
		} {
			code = cuda.InvalidValue
			err := c.op.Launch(s, k)
			if !errors.Is(err, cuda.InvalidValue) || !strings.HasPrefix(err.Error(), "kernels: "+c.name+": ") ||
				!strings.Contains(err.Error(), " of "+c.kernel+":") {
				t.Errorf("a launch that fails: %v, want it to name %s and %s", err, c.name, c.kernel)
			}
			code = cuda.Success
			if got := testing.AllocsPerRun(100, func() { err = c.op.Launch(s, k) }); got > c.allocations || err != nil {
				t.Errorf("%s: %v allocations at a launch, want %v at most; %v", c.name, got, c.allocations, err)
			}
		}
		return nil
	})
}

// memory is device memory of floats.
func memory(t *testing.T, d *cuda.Device, s *cuda.Stream, x []float32) cuda.DevicePtr {
	t.Helper()
	m, err := d.Alloc(int64(4 * len(x)))
	if err == nil {
		err = cuda.ToDevice(s, m.Ptr, x)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Do(m.Free); err != nil {
			t.Error(err)
		}
	})
	return m.Ptr
}

// A NaN in an operand reaches the outputs that depend on it, through every activation and gradient that keeps it, and no
// other; the way that is chosen, and each other way, gives the same.
func TestNaN(t *testing.T) {
	const m, n, k = 40, 36, 33
	with(t, func(d *cuda.Device, set *kernels.Set) error {
		s, err := d.NewStream()
		if err != nil {
			return err
		}
		defer s.Close()
		a, b := make([]float32, m*k), make([]float32, k*n)
		for i := range a {
			a[i] = float32(i%7) - 3
		}
		for i := range b {
			b[i] = float32(i%5) - 2
		}
		const badRow, badColumn = 17, 35
		a[badRow*k+k-1] = float32(math.NaN())
		b[badColumn] = float32(math.Inf(1)) // times a 0 in a's first column: NaN too
		for _, act := range []kernels.Act{kernels.None, kernels.Relu, kernels.Silu} {
			o := &kernels.MatMul{A: memory(t, d, s, a), B: memory(t, d, s, b), M: m, N: n, K: k, Act: act}
			o.Y = memory(t, d, s, make([]float32, m*n))
			var first []float32
			names, ways := o.Ways()
			for i, launch := range append(ways, o.Launch) {
				if err := launch(s, set); err != nil {
					return err
				}
				y := make([]float32, m*n)
				if err := cuda.ToHost(s, y, o.Y); err != nil {
					return err
				}
				if err := s.Sync(); err != nil {
					return err
				}
				if i == 0 {
					first = y
				}
				for j, v := range y {
					row, column := j/n, j%n
					want := row == badRow || column == badColumn && a[row*k] == 0
					if (v != v) != want {
						t.Fatalf("act %d, way %d of %v: element (%d,%d) is %v, NaN wanted: %v", act, i, names, row, column, v, want)
					}
					if v == v && math.Float32bits(v) != math.Float32bits(first[j]) {
						t.Fatalf("act %d: element (%d,%d) is %x, another way gave %x", act, row, column, v, first[j])
					}
				}
			}
		}
		return nil
	})
}

// A wrong Op is an error that names it and what is wrong, before anything is launched.
func TestArguments(t *testing.T) {
	tensor := kernels.AdamWTensor{P: 64, M: 64, V: 64, G: 64, C1: 64, C2: 64, N: 10}
	cases := []struct {
		op   kernels.Op
		want []string
	}{
		{&kernels.MatMul{A: 64, B: 64, Y: 64, M: 0, N: 2, K: 3}, []string{"matmul 0x2x3 nn", "M is 0"}},
		{&kernels.MatMul{A: 64, B: 0, Y: 66, M: 1, N: 2, K: 1 << 31, TransB: true},
			[]string{"nt", "B is missing", "Y, at 0x42", "K is 2147483648"}},
		{&kernels.MatMul{A: 64, B: 64, Y: 64, M: 1, N: 2, K: 3, Slices: 2, Act: kernels.Relu}, []string{"2 slices", "no epilogue"}},
		{&kernels.MatMul{A: 64, B: 64, Y: 64, M: 1, N: 2, K: 3, Slices: -1}, []string{"Slices is -1"}},
		{&kernels.MatMul{A: 64, B: 64, Y: 64, M: 1, N: 2, K: 3, Act: 9}, []string{"Act is 9"}},
		{&kernels.MatMul{A: 64, B: 64, Y: 64, M: 1, N: 2, K: 3, Drop: kernels.Drop{Rate: 1}},
			[]string{"Drop.Rate is 1", "Drop.State is missing"}},
		{&kernels.MatMul{A: 64, B: 64, Y: 64, M: 1, N: 2, K: 3, Drop: kernels.Drop{Rate: float32(math.NaN()), State: 64}},
			[]string{"Drop.Rate is NaN"}},
		{&kernels.MatMul{A: 64, B: 64, Y: 64, M: 2, N: 1 << 30, K: 3}, []string{"matmul 2x1073741824x3", "grid"}},
		{&kernels.MatMul{A: 64, B: 64, Y: 64, M: 2, N: 1 << 30, K: 5}, []string{"B has 5 x 1073741824 elements"}},
		{&kernels.MatMul{A: 64, B: 64, Y: 64, M: 2, N: 3, K: 5, GradAct: kernels.Silu}, []string{"GradAct is silu and Of is missing"}},
		{&kernels.ColSum{X: 64, M: 3, N: 0}, []string{"col_sum 3x0", "N is 0", "Y is missing"}},
		{&kernels.SumSlices{X: 64, Y: 64, N: 3}, []string{"sum_slices 0x3", "Slices is 0"}},
		{&kernels.Map{Kind: kernels.MapAdd, A: 64, Y: 64, N: 3}, []string{"map add 3", "B is missing"}},
		{&kernels.Map{Kind: 77, A: 64, Y: 64, N: 3}, []string{"Kind is 77"}},
		{&kernels.Map{Kind: kernels.MapDropout, A: 64, Y: 64, N: 0, Drop: kernels.Drop{Rate: -1, State: 64}},
			[]string{"N is 0", "Rate is -1"}},
		{&kernels.Columns{X: 64, Y: 64, M: 2, N: 3, LdX: 4, LdY: 3, From: 2}, []string{"columns 2x3", "From is 2, want 0 to 1"}},
		{&kernels.Columns{X: 64, Y: 64, M: 2, N: 5, LdX: 4, LdY: 9}, []string{"N is 5, more than the width"}},
		{&kernels.Gather{State: 64, Table: 64, Rows: 1, Batch: 1, PerEpoch: 1, N: 1, A: 1, B: 1},
			[]string{"gather", "Columns is empty"}},
		{&kernels.Gather{State: 64, Table: 64, Rows: 1, Batch: 4, PerEpoch: 3, N: 8, A: 3, B: 3, Columns: []kernels.GatherColumn{{Src: 64, Dst: 64, Width: 1}}},
			[]string{"begins at row 8 of 8"}},
		{&kernels.Gather{State: 64, Table: 64, Rows: 1, Batch: 4, PerEpoch: 2, N: 10, A: 3, B: 3, Columns: []kernels.GatherColumn{{Src: 64, Width: 0}}},
			[]string{"N is 10 on a grid of 3 x 3", "Columns[0].Dst is missing", "Columns[0].Width is 0"}},
		{&kernels.BCE{Z: 64, T: 64, W: 64, Loss: 64, Terms: 64, M: -1}, []string{"bce -1", "M is -1"}},
		{&kernels.BCE{M: 1}, []string{"Z is missing", "T is missing", "W is missing", "Loss is missing", "Terms is missing"}},
		{&kernels.BCEGrad{Z: 64, T: 64, W: 64, DLoss: 64, M: 3}, []string{"bce_grad 3", "DZ is missing"}},
		{&kernels.Lookup{Table: 64, Idx: 64, Y: 64, M: 1 << 20, W: 0, D: 1 << 12, N: 1<<24 + 1},
			[]string{"lookup 1048576x4096", "W is 0", "N is 16777217", "Y has over 2147483647 elements"}},
		{&kernels.Sample{State: 64, CDF: 64, K: 0, N: 3}, []string{"sample 0 of 3", "K is 0", "Idx is missing"}},
		{&kernels.RowDot{A: 64, B: 66, M: 3}, []string{"row_dot 3x0", "D is 0", "B, at 0x42", "S is missing"}},
		{&kernels.RowScale{X: 64, S: 64, M: 3, D: 2}, []string{"row_scale 3x2", "Y is missing"}},
		{&kernels.RowSort{Table: 64, Counts: 64, Share: 64, Pairs: [2]cuda.DevicePtr{64, 64}, N: 5}, []string{"row_sort 0 of 5", "Uses is empty"}},
		{&kernels.RowSort{Table: 64, Counts: 64, Share: 64, Pairs: [2]cuda.DevicePtr{64, 68}, N: 0, Uses: []kernels.TableUse{{Idx: 64, Rows: 1 << 23, W: 3}, {Rows: 1}}},
			[]string{"N is 0", "Pairs[1], at 0x44", "25165824 indices", "Uses[1].Idx is missing", "Uses[1].W is 0"}},
		{&kernels.RowAdam{Table: 64, N: 5, D: 2, Uses: []kernels.TableUse{{Idx: 64, Rows: 1, W: 1}}},
			[]string{"row_adam 1 of 5x2 in 1 uses", "Uses[0].DY is missing", "State is missing", "Pairs is missing", "V is missing"}},
		{&kernels.SampledSoftmax{M: 2, N: 3}, []string{"sampled_softmax 2x0", "K is 0", "Neg is missing", "Terms is missing"}},
		{&kernels.SampledSoftmaxGrad{SampledSoftmax: kernels.SampledSoftmax{M: 2, K: 5}}, []string{"sampled_softmax_grad 2x5", "N is 0", "DNeg is missing"}},
		{&kernels.Pinball{M: 2, H: 7}, []string{"pinball 2x7 at 0 levels", "0 Levels", "Sums is missing", "Table is missing"}},
		{&kernels.PinballGrad{Pinball: kernels.Pinball{M: 1 << 30, H: 7, Levels: []float32{.5}}},
			[]string{"pinball_grad 1073741824x7 at 1 levels", "Y has over 2147483647 elements", "DLoss is missing"}},
		{&kernels.AdamW{State: 64, Rates: 64, Table: 68}, []string{"adamw", "Tensors is empty", "Table, at 0x44"}},
		{&kernels.AdamW{State: 64, Rates: 64, Table: 64, Tensors: []kernels.AdamWTensor{tensor, {P: 64}}},
			[]string{"Tensors[1].G is missing", "Tensors[1].N is 0"}},
		{&kernels.Finish{State: 64, Slots: 64, Table: 64, NSlots: 1, Accumulations: []kernels.Accumulation{{Slot: 1}}},
			[]string{"finish 1", "Slot is 1 of 1"}},
		{&kernels.Finish{NSlots: 1}, []string{"State is missing", "Slots is missing"}},
		{&kernels.Standardize{X: 64, Mean: 64, Scale: 64, Log: 68, Y: 64, M: 1, N: 1},
			[]string{"standardize 1x1", "Log, at 0x44, is not a multiple of 8"}},
		{&kernels.Calibrate{Z: 64, AB: 64, M: 1}, []string{"calibrate 1", "P is missing"}},
	}
	with(t, func(d *cuda.Device, k *kernels.Set) error {
		s, err := d.NewStream()
		if err != nil {
			return err
		}
		defer s.Close()
		for _, c := range cases {
			err := c.op.Launch(s, k)
			if err == nil {
				t.Errorf("%s was launched, want an error with %q", c.op.Kernel(), c.want)
				continue
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%v, want it to say %q", err, want)
				}
			}
			if op, ok := c.op.(kernels.Tabled); ok && op.TableBytes() > 0 && !strings.Contains(err.Error(), "begins at row") {
				if err := op.FillTable(s); err == nil {
					t.Errorf("the table of %s was filled", c.op.Kernel())
				}
			}
		}
		if err := s.Sync(); err != nil {
			t.Errorf("after nothing but refused launches: %v", err)
		}
		closed := &kernels.Set{}
		if err := (&kernels.Map{Kind: kernels.MapFill, Y: 64, N: 1}).Launch(s, closed); err == nil || !strings.Contains(err.Error(), "was closed") {
			t.Errorf("launch from a closed Set: %v", err)
		}
		return nil
	})
}

// A price needs no device and no address.
func TestCost(t *testing.T) {
	d, err := kernels.TuningNamed("rtx2060")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		op   kernels.Op
		want kernels.Cost
	}{
		{&kernels.MatMul{M: 256, N: 64, K: 32}, kernels.Cost{Launches: 1, Blocks: 16, Bytes: 4 * (256*32 + 32*64 + 256*64), FLOPs: 2 * 256 * 64 * 32}},
		{&kernels.MatMul{M: 256, N: 1, K: 32}, kernels.Cost{Launches: 1, Blocks: 4, Bytes: 4 * (256*32 + 32 + 256), FLOPs: 2 * 256 * 32}},
		{&kernels.Map{Kind: kernels.MapAdd, N: 4096}, kernels.Cost{Launches: 1, Blocks: 4, Bytes: 12 * 4096, FLOPs: 4096}},
		{&kernels.ColSum{M: 256, N: 64, Slices: 4}, kernels.Cost{Launches: 1, Blocks: 4, Bytes: 4 * (256*64 + 4*64), FLOPs: 256 * 64}},
		{&kernels.BCE{M: 5000}, kernels.Cost{Launches: 2, Blocks: 40, Bytes: 20*5000 + 4, FLOPs: 40 * 5000}},
		{&kernels.AdamW{Tensors: []kernels.AdamWTensor{{N: 200, Slices: 2}, {N: 3}}}, kernels.Cost{Launches: 1, Blocks: 3, Bytes: 4*200*8 + 4*3*7, FLOPs: 200*17 + 3*16}},
		{&kernels.Lookup{M: 256, W: 2, N: 1000, D: 64}, kernels.Cost{Launches: 1, Blocks: 128, Bytes: 4 * (512 + 512*64 + 256*64), FLOPs: 256 * 64}},
		{&kernels.RowScale{M: 256, D: 64}, kernels.Cost{Launches: 1, Blocks: 64, Bytes: 4 * (2*256*64 + 256), FLOPs: 256 * 64}},
		{&kernels.RowDot{M: 256, D: 64}, kernels.Cost{Launches: 1, Blocks: 8, Bytes: 4 * (2*256*64 + 256), FLOPs: 2 * 256 * 64}},
		{&kernels.PinballGrad{Pinball: kernels.Pinball{M: 100, H: 4, Levels: []float32{.5, .9}}}, kernels.Cost{Launches: 1, Blocks: 7, Bytes: 8*800 + 8*400, FLOPs: 3200}},
	} {
		got := c.op.Cost(d)
		if floor := float64(got.Bytes) / d.Bandwidth; !(got.Seconds >= floor && got.Seconds < floor+20e-6) {
			t.Errorf("%s takes %g s, and moving its bytes alone takes %g s", c.op.Kernel(), got.Seconds, floor)
		}
		if got.Seconds = 0; got != c.want {
			t.Errorf("%s costs %+v, want %+v", c.op.Kernel(), got, c.want)
		}
	}
	// More work of the same kind takes longer.
	for _, c := range []struct{ less, more kernels.Op }{
		{&kernels.MatMul{M: 256, N: 64, K: 64}, &kernels.MatMul{M: 8192, N: 64, K: 64}},
		{&kernels.MatMul{M: 256, N: 1, K: 64}, &kernels.MatMul{M: 256, N: 1, K: 4096}},
		{&kernels.MatMul{M: 256, N: 64, K: 1}, &kernels.MatMul{M: 8192, N: 64, K: 1}},
		{&kernels.Map{N: 256}, &kernels.Map{N: 1 << 22}},
		{&kernels.ColSum{M: 256, N: 64, Slices: 8}, &kernels.ColSum{M: 256, N: 64, Slices: 1}},
		{&kernels.ColSum{M: 256, N: 1}, &kernels.ColSum{M: 1024, N: 1}},
		{&kernels.SumSlices{N: 64, Slices: 2}, &kernels.SumSlices{N: 64, Slices: 33}},
		{&kernels.Columns{M: 16, N: 4, LdX: 8, LdY: 8}, &kernels.Columns{M: 1 << 16, N: 4, LdX: 8, LdY: 8}},
		{&kernels.Map{Kind: kernels.MapFill, N: 256}, &kernels.Gather{Rows: 8, Columns: []kernels.GatherColumn{{Width: 1}}}},
		{&kernels.BCE{M: 256}, &kernels.BCE{M: 2048}}, {&kernels.BCE{M: 2048}, &kernels.BCE{M: 2049}},
		{&kernels.BCEGrad{M: 256}, &kernels.BCEGrad{M: 1 << 20}},
		{&kernels.AdamW{Tensors: []kernels.AdamWTensor{{N: 200}}}, &kernels.AdamW{Tensors: []kernels.AdamWTensor{{N: 200, Slices: 16}}}},
		{&kernels.Map{Kind: kernels.MapFill, N: 256}, &kernels.Finish{NSlots: 1}},
		{&kernels.Lookup{M: 256, W: 1, N: 9, D: 64}, &kernels.Lookup{M: 256, W: 50, N: 9, D: 64}},
		{&kernels.Sample{K: 64, N: 2}, &kernels.Sample{K: 64, N: 1 << 20}}, {&kernels.RowDot{M: 256, D: 8}, &kernels.RowDot{M: 256, D: 512}},
		{&kernels.RowScale{M: 256, D: 8}, &kernels.RowScale{M: 1 << 16, D: 64}},
		{&kernels.RowSort{N: 9, Uses: []kernels.TableUse{{Rows: 1024, W: 1}}}, &kernels.RowSort{N: 900, Uses: []kernels.TableUse{{Rows: 1024, W: 1}}}},
		{&kernels.RowSort{N: 9, Uses: []kernels.TableUse{{Rows: 1024, W: 1}}}, &kernels.RowSort{N: 9, Uses: []kernels.TableUse{{Rows: 1024, W: 20}}}},
		{&kernels.RowAdam{N: 9, D: 64, Uses: []kernels.TableUse{{Rows: 64, W: 1}}}, &kernels.RowAdam{N: 9, D: 64, Uses: []kernels.TableUse{{Rows: 1 << 20, W: 1}}}},
		{&kernels.SampledSoftmax{M: 64, K: 64}, &kernels.SampledSoftmax{M: 64, K: 4096}}, {&kernels.SampledSoftmax{M: 8, K: 64}, &kernels.SampledSoftmax{M: 8192, K: 64}},
		{&kernels.SampledSoftmaxGrad{SampledSoftmax: kernels.SampledSoftmax{M: 64, K: 64}}, &kernels.SampledSoftmaxGrad{SampledSoftmax: kernels.SampledSoftmax{M: 64, K: 4096}}},
		{&kernels.Pinball{M: 64, H: 1, Levels: []float32{.5}}, &kernels.Pinball{M: 1 << 16, H: 28, Levels: []float32{.5, .9}}},
		{&kernels.Standardize{M: 16, N: 4}, &kernels.Standardize{M: 1 << 16, N: 4}}, {&kernels.Calibrate{M: 16}, &kernels.Calibrate{M: 1 << 20}},
	} {
		if less, more := c.less.Cost(d).Seconds, c.more.Cost(d).Seconds; !(less > 0 && less < more) {
			t.Errorf("%s takes %g s, %s %g s", c.less.Kernel(), less, c.more.Kernel(), more)
		}
	}
	if got := kernels.AdamWTableBytes([]kernels.AdamWTensor{{N: 200}, {N: 3}}); got != 2*88+3*4 {
		t.Errorf("the table of two tensors in three blocks is %d bytes", got)
	}
}
