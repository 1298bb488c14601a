package kernels

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unsafe"

	"github.com/onmart/onmart/cuda"
)

// CheckOptions says what Check does.
type CheckOptions struct {
	Oracle Oracle
	// Sizes are mixed into shapes; nil takes 1, 3, 17, 255, 257 and 1023. Multiples of 4 and whole tiles, which go other
	// ways through the kernels, are always added.
	Sizes []int
	Time  bool   // also measure, at sizes of real models: for a GPU, not for an emulation
	Only  string // kernels whose name contains it; "" is all
}

// Oracle is the arithmetic that the kernels share with the rest of a program that uses them; package cuda imports nothing
// of it.
type Oracle struct {
	Philox func(key [2]uint32, ctr [4]uint32) [4]uint32
	// Permute is the i-th row of n that an epoch visits under a seed.
	Permute func(seed uint64, epoch uint32, n, i int) int
}

// CheckResult is one variant of one kernel: over all shapes that were tried, or (Cases is 0) one measurement.
type CheckResult struct {
	Kernel string `json:"kernel"`
	Case   string `json:"case"`  // the variant and, where it fails, the first shape that does; of a measurement its shape
	Cases  int    `json:"cases"` // outputs that were compared
	// Error is the largest difference from the reference in units in the last place of the output's type, Tolerance the
	// largest that is right; 0 is the same bits. A NaN on one side only is +Inf, given as MaxFloat64 for JSON's sake.
	Error     float64 `json:"error"`
	Tolerance float64 `json:"tolerance"`
	OK        bool    `json:"ok"`
	Seconds   float64 `json:"seconds"` // of one launch, when measured
	GFLOPs    float64 `json:"gflops"`
	GBs       float64 `json:"gbs"` // each operand counted once
}

// Check runs every kernel in every variant on the device against plain Go. Results come in the order of the step; an error
// means that the check could not be made, not that a kernel is wrong. It is called inside Device.Do.
func Check(d *cuda.Device, k *Set, o CheckOptions) ([]CheckResult, error) {
	return check(d, k, o, func(string, []byte) {})
}

// check is Check; observe is shown the bytes of every output with a name for it.
func check(d *cuda.Device, k *Set, o CheckOptions, observe func(name string, output []byte)) (results []CheckResult, err error) {
	if o.Oracle.Philox == nil || o.Oracle.Permute == nil {
		return nil, fmt.Errorf("kernels: Check needs both functions of CheckOptions.Oracle")
	}
	for _, n := range o.Sizes {
		if n < 1 || n > 1<<16 {
			return nil, fmt.Errorf("kernels: Check: size %d, want 1 to 65536", n)
		}
	}
	s, err := d.NewStream()
	if err != nil {
		return nil, err
	}
	c := &checker{d: d, k: k, s: s, o: o, observe: observe, random: 0x9E3779B97F4A7C15}
	c.sizes = o.Sizes
	if len(c.sizes) == 0 {
		c.sizes = []int{1, 3, 17, 255, 257, 1023}
	}
	c.all()
	c.release()
	if err := s.Close(); c.err == nil {
		c.err = err
	}
	return c.results, c.err
}

// all runs the checks in the order of the package comment.
func (c *checker) all() {
	c.checkGather()
	c.checkColumns()
	c.checkMatMul()
	c.checkMap()
	c.checkReduce()
	c.checkLookup()
	c.checkSample()
	c.checkRows()
	c.checkLoss()
	c.checkSoftmax()
	c.checkPinball()
	c.checkTable()
	c.checkAdamW()
	c.checkFinish()
	c.checkWrap()
	if c.o.Time {
		c.timeAll()
	}
}

// checker runs cases one after the other. Its first error of the device, not of a result, ends all that follows: err is
// looked at by whatever touches the device.
type checker struct {
	d       *cuda.Device
	k       *Set
	s       *cuda.Stream
	o       CheckOptions
	observe func(string, []byte)
	sizes   []int
	random  uint64
	memory  []*cuda.Mem
	results []CheckResult
	err     error
}

// wants says whether a kernel is to be checked.
func (c *checker) wants(kernel string) bool {
	return c.err == nil && strings.Contains(kernel, c.o.Only)
}

func (c *checker) note(err error) {
	if c.err == nil {
		c.err = err
	}
}

// guard is the bytes around every buffer: NaN, so that a read outside shows in the result and a write outside is seen.
const guard = 256

// alloc is memory for so many bytes with guards on both sides, all NaN.
func (c *checker) alloc(bytes int) cuda.DevicePtr {
	if c.err != nil {
		return 0
	}
	size := (bytes+3)/4*4 + 2*guard
	m, err := c.d.Alloc(int64(size))
	if err != nil {
		c.note(err)
		return 0
	}
	c.memory = append(c.memory, m)
	c.note(c.s.Fill32(m.Ptr, 0xFFFFFFFF, int64(size/4)))
	return m.Ptr + guard
}

// release frees what the last case took.
func (c *checker) release() {
	if len(c.memory) > 0 {
		c.note(c.s.Sync())
	}
	for _, m := range c.memory {
		c.note(m.Free())
	}
	c.memory = c.memory[:0]
}

// put is device memory that holds x; shift moves it by so many elements, out of alignment.
func put[T any](c *checker, x []T, shift int) cuda.DevicePtr {
	bytes := int(unsafe.Sizeof(x[0]))
	p := c.alloc((len(x) + shift) * bytes)
	if c.err != nil {
		return 0
	}
	p += cuda.DevicePtr(shift * bytes)
	c.note(cuda.ToDevice(c.s, p, x))
	return p
}

// get reads n elements at p, memory from alloc, and holds the guards against what they were. name is what observe is told.
func get[T any](c *checker, name string, p cuda.DevicePtr, n int) []T {
	if c.err != nil {
		return nil
	}
	var zero T
	size := int(unsafe.Sizeof(zero))
	raw := make([]T, n+2*guard/size)
	c.note(cuda.ToHost(c.s, raw, p-guard))
	c.note(c.s.Sync())
	out := raw[guard/size : guard/size+n]
	all := unsafe.Slice((*byte)(unsafe.Pointer(&raw[0])), len(raw)*size)
	for i, b := range all {
		if (i < guard || i >= guard+n*size) && b != 0xFF {
			c.note(fmt.Errorf("kernels: %s: a byte %d from its output of %d bytes was written", name, i-guard, n*size))
			return nil
		}
	}
	c.observe(name, all[guard:guard+n*size])
	return out
}

// do launches an Op.
func (c *checker) do(op Op) {
	if c.err != nil {
		return
	}
	if t, ok := op.(Tabled); ok && t.TableBytes() > 0 {
		c.note(t.FillTable(c.s))
	}
	if c.err == nil {
		c.note(op.Launch(c.s, c.k))
	}
}

// next is a random number (xorshift64*).
func (c *checker) next() uint64 {
	c.random ^= c.random >> 12
	c.random ^= c.random << 25
	c.random ^= c.random >> 27
	return c.random * 0x2545F4914F6CDD1D
}

// uniform is in [-1,1).
func (c *checker) uniform() float64 { return float64(int64(c.next())) * 0x1p-63 }

// values are n numbers of both signs, of sizes around 1, some of them 0.
func (c *checker) values(n int) []float32 {
	x := make([]float32, n)
	for i := range x {
		r := c.next()
		if r%16 == 0 {
			continue
		}
		x[i] = float32(int32(r>>32)) * 0x1p-30
	}
	return x
}

// wide are numbers as activations must bear them: of all sizes up to beyond 87, with both infinities and both zeros.
func (c *checker) wide(n int) []float32 {
	x := c.values(n)
	odd := []float32{0, float32(math.Copysign(0, -1)), float32(math.Inf(1)), float32(math.Inf(-1)), 87, -87, 88.5, -103, 1e-30, -1e-42, 3e38}
	for i := range x {
		switch r := c.next(); r % 8 {
		case 0:
			x[i] = odd[r>>8%uint64(len(odd))]
		case 1, 2, 3:
			x[i] *= 40
		}
	}
	return x
}

func (c *checker) doubles(n int) []float64 {
	x := make([]float64, n)
	for i := range x {
		x[i] = 2 * c.uniform()
	}
	return x
}

// ulps32 is how many float32 lie between got and want; zeros of different sign are one apart, two NaNs none.
func ulps32(got, want float32) float64 {
	if got != got || want != want {
		if got != got && want != want {
			return 0
		}
		return math.MaxFloat64
	}
	a, b := math.Float32bits(got), math.Float32bits(want)
	if a == b {
		return 0
	}
	return max(1, math.Abs(float64(order(int64(a&^(1<<31)), a>>31 != 0)-order(int64(b&^(1<<31)), b>>31 != 0))))
}

func ulps64(got, want float64) float64 {
	if got != got || want != want {
		if got != got && want != want {
			return 0
		}
		return math.MaxFloat64
	}
	a, b := math.Float64bits(got), math.Float64bits(want)
	if a == b {
		return 0
	}
	return max(1, math.Abs(float64(order(int64(a&^(1<<63)), a>>63 != 0)-order(int64(b&^(1<<63)), b>>63 != 0))))
}

// order maps a float's magnitude bits and sign to integers in the order of the floats.
func order(magnitude int64, negative bool) int64 {
	if negative {
		return -magnitude
	}
	return magnitude
}

// tally adds one compared output to the result of a kernel's variant. shape is named where it fails.
func (c *checker) tally(kernel, variant, shape string, tolerance float64, n int, diff func(i int) float64) {
	if c.err != nil {
		return
	}
	at := slices.IndexFunc(c.results, func(r CheckResult) bool {
		return r.Kernel == kernel && (r.Case == variant || strings.HasPrefix(r.Case, variant+": "))
	})
	if at < 0 {
		at = len(c.results)
		c.results = append(c.results, CheckResult{Kernel: kernel, Case: variant, Tolerance: tolerance, OK: true})
	}
	r := &c.results[at]
	r.Cases++
	for i := range n {
		e := diff(i)
		r.Error = max(r.Error, e)
		if !(e <= tolerance) && r.OK {
			r.OK = false
			r.Case = fmt.Sprintf("%s: %s, element %d", variant, shape, i)
		}
	}
}

func (c *checker) same32(kernel, variant, shape string, got, want []float32, tolerance float64) {
	c.sameLength(kernel, shape, len(got), len(want))
	c.tally(kernel, variant, shape, tolerance, len(want), func(i int) float64 { return ulps32(got[i], want[i]) })
}

func (c *checker) same64(kernel, variant, shape string, got, want []float64, tolerance float64) {
	c.sameLength(kernel, shape, len(got), len(want))
	c.tally(kernel, variant, shape, tolerance, len(want), func(i int) float64 { return ulps64(got[i], want[i]) })
}

func (c *checker) sameLength(kernel, shape string, got, want int) {
	if c.err == nil && got != want {
		c.note(fmt.Errorf("kernels: check of %s, %s: %d elements against %d of the reference", kernel, shape, got, want))
	}
}

// lengths are the sizes for kernels of one dimension.
func (c *checker) lengths() []int {
	n := slices.Clone(c.sizes)
	n = append(n, 4, 64, 4096, 2*c.sizes[len(c.sizes)-1]+3)
	slices.Sort(n)
	return slices.Compact(n)
}

// shape2 are M and N.
type shape2 struct{ m, n int }

func (s shape2) String() string { return fmt.Sprintf("%dx%d", s.m, s.n) }

// shapes2 are all pairs of sizes up to so many elements.
func (c *checker) shapes2(most int) (all []shape2) {
	sizes := append(slices.Clone(c.sizes), 4, 64)
	slices.Sort(sizes)
	sizes = slices.Compact(sizes)
	for _, m := range sizes {
		for _, n := range sizes {
			if m*n <= most {
				all = append(all, shape2{m, n})
			}
		}
	}
	return all
}

// state is the State of a training at a step.
func (c *checker) state(step uint32, shift int32) cuda.DevicePtr {
	return put(c, []uint32{step, 0, uint32(shift), 0}, 0)
}
