package kernels

import (
	"fmt"
	"math"
	"math/bits"
	"unsafe"

	"github.com/onmart/onmart/cuda"
)

const (
	lookupBlock     = 128
	sampleBlock     = 64
	dotBlock        = 32
	rowScaleBlock   = 256
	sortBlock       = 256
	sortTile        = 2048 // indices of a block
	sortBits        = 8    // of a pass
	shareBlock      = 128
	adamRowsBlock   = 128 // threads, of which a warp has one index
	adamRowsColumns = 64  // of a warp at once

	// PairBytes is the size of an index as RowSort sorts it.
	PairBytes = 8

	// The chains of accesses: a lookup reads an index, then a row, and writes; so does row_adam, after the pair and
	// the use.
	lookupAccesses  = 3
	rowAdamAccesses = 6
	lookupAhead     = 8 // rows that are on the way at once
	// cachedCycles is an access to what the second-level cache holds: about 200 to 270 cycles on Turing to Hopper.
	cachedCycles = 250
	// sortAccesses is the chain of a pass: the keys and their counts, then the keys and their places.
	sortAccesses = 4
	// sortCycles is how long a block ranks its pairs: eight times eight ballots a warp and what hangs on them.
	// Counted, not measured.
	sortCycles = 1200
)

// maxIndex is the most rows a table has: a float32 counts them exactly.
const maxIndex = 1 << 24

// indexable demands that a product of sizes is an index of 32 bits.
func (f *faults) indexable(name string, sizes ...int) {
	n := 1
	for _, s := range sizes {
		if n *= max(s, 0); n > math.MaxInt32 {
			f.addf("%s has over %d elements", name, math.MaxInt32)
			return
		}
	}
}

// Kernel is such as "lookup 256x64 of 1000, 1 each".
func (o *Lookup) Kernel() string {
	return fmt.Sprintf("lookup %dx%d of %d, %d each", o.M, o.D, o.N, o.W)
}

func (o *Lookup) check() error {
	var f faults
	f.size("M", o.M)
	f.size("W", o.W)
	f.size("D", o.D)
	f.between("N", o.N, 1, maxIndex)
	f.indexable("Y", o.M, o.D)
	f.ptr("Table", o.Table, 4)
	f.ptr("Idx", o.Idx, 4)
	f.ptr("Y", o.Y, 4)
	return f.of(o)
}

func (o *Lookup) plan() launch {
	return launch{
		kernel: "lookup",
		grid:   line(int64(o.M)*int64(o.D), lookupBlock),
		block:  lookupBlock,
		args: func(a *cuda.Args) {
			a.Ptr(o.Table).Ptr(o.Idx).Ptr(o.Y).I32(int32(o.M)).I32(int32(o.W)).I32(int32(o.N)).I32(int32(o.D))
		},
	}
}

// Launch does it in one launch.
func (o *Lookup) Launch(s *cuda.Stream, k *Set) error {
	if err := o.check(); err != nil {
		return err
	}
	return k.put(s, o, o.plan())
}

// Cost is that of the rows that are read, if every index names one.
func (o *Lookup) Cost(t *Tuning) Cost {
	rows, elements := int64(o.M)*int64(o.W), int64(o.M)*int64(o.D)
	bytes := 4 * (rows + rows*int64(o.D) + elements)
	chain := float64(lookupAccesses)*memoryCycles + 2*memoryCycles*float64(ceilDiv(o.W, lookupAhead)-1)
	return Cost{
		Launches: 1,
		Blocks:   o.plan().blocks(),
		Bytes:    bytes,
		FLOPs:    (rows - int64(o.M)) * int64(o.D),
		Seconds:  t.chainSeconds(chain, bytes),
	}
}

// Kernel is such as "sample 512 of 1000".
func (o *Sample) Kernel() string { return fmt.Sprintf("sample %d of %d", o.K, o.N) }

func (o *Sample) check() error {
	var f faults
	f.size("K", o.K)
	f.between("N", o.N, 1, maxIndex)
	f.ptr("State", o.State, 4)
	f.ptr("CDF", o.CDF, 4)
	f.ptr("Idx", o.Idx, 4)
	return f.of(o)
}

func (o *Sample) plan() launch {
	return launch{kernel: "sample", grid: line(int64(o.K), sampleBlock), block: sampleBlock, args: func(a *cuda.Args) {
		a.Ptr(o.State).Ptr(o.CDF).Ptr(o.Idx).I32(int32(o.K)).I32(int32(o.N)).I64(int64(o.Seed)).U32(o.Site)
	}}
}

// Launch does it in one launch.
func (o *Sample) Launch(s *cuda.Stream, k *Set) error {
	if err := o.check(); err != nil {
		return err
	}
	return k.put(s, o, o.plan())
}

// Cost is that of the steps of each search, which wait for each other.
func (o *Sample) Cost(t *Tuning) Cost {
	steps := int64(bits.Len(uint(o.N - 1)))
	bytes := 4 * int64(o.K) * (steps + 1)
	return Cost{
		Launches: 1,
		Blocks:   o.plan().blocks(),
		Bytes:    bytes,
		Seconds:  t.chainSeconds(mapAccesses*memoryCycles+float64(steps)*cachedCycles, bytes),
	}
}

// Kernel is such as "row_dot 256x64".
func (o *RowDot) Kernel() string { return fmt.Sprintf("row_dot %dx%d", o.M, o.D) }

func (o *RowDot) check() error {
	var f faults
	f.size("M", o.M)
	f.size("D", o.D)
	f.ptr("A", o.A, 4)
	f.ptr("B", o.B, 4)
	f.ptr("S", o.S, 4)
	return f.of(o)
}

func (o *RowDot) plan() launch {
	return launch{kernel: "row_dot", grid: line(int64(o.M), dotBlock), block: dotBlock, args: func(a *cuda.Args) {
		a.Ptr(o.A).Ptr(o.B).Ptr(o.S).I32(int32(o.M)).I32(int32(o.D))
	}}
}

// Launch does it in one launch.
func (o *RowDot) Launch(s *cuda.Stream, k *Set) error {
	if err := o.check(); err != nil {
		return err
	}
	return k.put(s, o, o.plan())
}

// Cost is that of both operands; 32 columns are on the way at once.
func (o *RowDot) Cost(t *Tuning) Cost {
	elements := int64(o.M) * int64(o.D)
	bytes := 8*elements + 4*int64(o.M)
	chain := memoryCycles + float64(ceilDiv(o.D, dotBlock))*memoryCycles + float64(o.D)*addCycles
	return Cost{
		Launches: 1,
		Blocks:   o.plan().blocks(),
		Bytes:    bytes,
		FLOPs:    2 * elements,
		Seconds:  t.chainSeconds(chain, bytes),
	}
}

// Kernel is such as "row_scale 256x64".
func (o *RowScale) Kernel() string { return fmt.Sprintf("row_scale %dx%d", o.M, o.D) }

func (o *RowScale) check() error {
	var f faults
	f.size("M", o.M)
	f.size("D", o.D)
	f.indexable("Y", o.M, o.D)
	f.ptr("X", o.X, 4)
	f.ptr("S", o.S, 4)
	f.ptr("Y", o.Y, 4)
	return f.of(o)
}

func (o *RowScale) plan() launch {
	return launch{
		kernel: "row_scale",
		grid:   line(int64(o.M)*int64(o.D), rowScaleBlock),
		block:  rowScaleBlock,
		args: func(a *cuda.Args) {
			a.Ptr(o.X).Ptr(o.S).Ptr(o.Y).I32(int32(o.M)).I32(int32(o.D))
		},
	}
}

// Launch does it in one launch.
func (o *RowScale) Launch(s *cuda.Stream, k *Set) error {
	if err := o.check(); err != nil {
		return err
	}
	return k.put(s, o, o.plan())
}

// Cost is that of reading and writing the rows.
func (o *RowScale) Cost(t *Tuning) Cost {
	elements := int64(o.M) * int64(o.D)
	bytes := 8*elements + 4*int64(o.M)
	return Cost{
		Launches: 1,
		Blocks:   o.plan().blocks(),
		Bytes:    bytes,
		FLOPs:    elements,
		Seconds:  t.chainSeconds(mapAccesses*memoryCycles, bytes),
	}
}

// useEntry is Use of table.cu.
type useEntry struct {
	idx, dy              cuda.DevicePtr
	w, rows, start, base int32
}

// Indices is how many indices the uses have together, Rows how many rows.
func Indices(uses []TableUse) (indices, rows int) {
	for _, u := range uses {
		indices += u.Rows * u.W
		rows += u.Rows
	}
	return indices, rows
}

func (f *faults) uses(uses []TableUse, gradients bool) {
	if len(uses) == 0 {
		f.addf("Uses is empty")
	}
	total := 0
	for i, u := range uses {
		name := fmt.Sprintf("Uses[%d].", i)
		f.ptr(name+"Idx", u.Idx, 4)
		if gradients {
			f.ptr(name+"DY", u.DY, 4)
		}
		f.between(name+"Rows", u.Rows, 1, maxIndex)
		f.between(name+"W", u.W, 1, maxIndex)
		total = min(total+max(0, u.Rows)*max(0, u.W), 1<<40)
	}
	if total > maxIndex {
		f.addf("%d indices, want %d at most", total, maxIndex)
	}
}

func useBytes(uses []TableUse) int64 { return int64(len(uses)) * int64(unsafe.Sizeof(useEntry{})) }

func fillUses(s *cuda.Stream, o Op, table cuda.DevicePtr, uses []TableUse, gradients bool) error {
	var f faults
	f.uses(uses, gradients)
	f.ptr("Table", table, 8)
	if err := f.of(o); err != nil {
		return err
	}
	entries := make([]useEntry, len(uses))
	start, base := 0, 0
	for i, u := range uses {
		entries[i] = useEntry{
			idx:   u.Idx,
			dy:    u.DY,
			w:     int32(u.W),
			rows:  int32(u.Rows),
			start: int32(start),
			base:  int32(base),
		}
		start, base = start+u.Rows*u.W, base+u.Rows
	}
	return fill(s, o, table, entries)
}

// Kernel is such as "row_sort 1536 of 1000 in 2 uses".
func (o *RowSort) Kernel() string {
	n, _ := Indices(o.Uses)
	return fmt.Sprintf("row_sort %d of %d in %d uses", n, o.N, len(o.Uses))
}

func (o *RowSort) check() error {
	var f faults
	f.uses(o.Uses, false)
	f.between("N", o.N, 1, maxIndex)
	f.ptr("Table", o.Table, 8)
	f.ptr("Pairs[0]", o.Pairs[0], 8)
	f.ptr("Pairs[1]", o.Pairs[1], 8)
	f.ptr("Counts", o.Counts, 4)
	f.ptr("Share", o.Share, 4)
	return f.of(o)
}

// passes is how many digits the greatest key has: N itself, the key of an index that is none.
func (o *RowSort) passes() int { return ceilDiv(bits.Len(uint(o.N)), sortBits) }

// tiles is how many blocks sort.
func (o *RowSort) tiles() int {
	total, _ := Indices(o.Uses)
	return ceilDiv(total, sortTile)
}

// CountBytes is the size of Counts.
func (o *RowSort) CountBytes() int64 { return int64(o.tiles()) << sortBits * 4 }

// Sorted is the one of Pairs that holds the result.
func (o *RowSort) Sorted() cuda.DevicePtr { return o.Pairs[(o.passes()+1)%2] }

// TableBytes is the size of Table.
func (o *RowSort) TableBytes() int64 { return useBytes(o.Uses) }

// FillTable puts the uses in Table.
func (o *RowSort) FillTable(s *cuda.Stream) error { return fillUses(s, o, o.Table, o.Uses, false) }

func (o *RowSort) plan() (all []launch) {
	total, shares := Indices(o.Uses)
	grid := cuda.Dim{X: clampU32(int64(o.tiles())), Y: 1, Z: 1}
	from := cuda.DevicePtr(0) // the uses
	for pass := range o.passes() {
		source, to := from, o.Pairs[pass%2]
		keys := func(a *cuda.Args) *cuda.Args { return a.Ptr(o.Table).I32(int32(len(o.Uses))).Ptr(source).Ptr(o.Counts) }
		sizes := func(a *cuda.Args) { a.I32(int32(total)).I32(int32(o.N)).I32(int32(pass * sortBits)) }
		all = append(all,
			launch{kernel: "row_sort_count", grid: grid, block: sortBlock, args: func(a *cuda.Args) { sizes(keys(a)) }},
			launch{kernel: "row_sort_place", grid: grid, block: sortBlock, args: func(a *cuda.Args) { sizes(keys(a).Ptr(to)) }})
		from = to
	}
	return append(
		all,
		launch{kernel: "row_share", grid: line(int64(shares), shareBlock), block: shareBlock, args: func(a *cuda.Args) {
			a.Ptr(o.Table).I32(int32(len(o.Uses))).Ptr(o.Share).I32(int32(shares)).I32(int32(o.N))
		}},
	)
}

// Launch sorts in two launches for each 8 bits of N, and one for Share.
func (o *RowSort) Launch(s *cuda.Stream, k *Set) error {
	if err := o.check(); err != nil {
		return err
	}
	return k.putAll(s, o, o.plan())
}

// Cost is that of the launches one after the other. Each pass reads all indices twice, and every block the counts of
// all.
func (o *RowSort) Cost(t *Tuning) Cost {
	total, shares := Indices(o.Uses)
	passes, tiles := o.passes(), o.tiles()
	pass := float64(sortAccesses)*memoryCycles + 2*sortCycles + float64(ceilDiv(tiles, 8))*cachedCycles
	bytes := int64(total)*int64(8+3*PairBytes*passes) + 4*int64(shares)
	return Cost{Launches: 2*passes + 1, Blocks: tiles, Bytes: bytes,
		Seconds: t.chainSeconds(float64(passes)*pass+lookupAccesses*memoryCycles, bytes)}
}

// Kernel is such as "row_adam 1536 of 1000x64 in 2 uses".
func (o *RowAdam) Kernel() string {
	n, _ := Indices(o.Uses)
	return fmt.Sprintf("row_adam %d of %dx%d in %d uses", n, o.N, o.D, len(o.Uses))
}

func (o *RowAdam) check() error {
	var f faults
	f.uses(o.Uses, true)
	f.between("N", o.N, 1, maxIndex)
	f.size("D", o.D)
	f.ptr("State", o.State, 4)
	f.ptr("Rates", o.Rates, 4)
	f.ptr("C1", o.C1, 4)
	f.ptr("C2", o.C2, 4)
	f.ptr("Table", o.Table, 8)
	f.ptr("Pairs", o.Pairs, 8)
	f.ptr("Share", o.Share, 4)
	f.ptr("P", o.P, 4)
	f.ptr("M", o.M, 4)
	f.ptr("V", o.V, 4)
	return f.of(o)
}

// TableBytes is the size of Table.
func (o *RowAdam) TableBytes() int64 { return useBytes(o.Uses) }

// FillTable puts the uses in Table.
func (o *RowAdam) FillTable(s *cuda.Stream) error { return fillUses(s, o, o.Table, o.Uses, true) }

func (o *RowAdam) plan() launch {
	total, _ := Indices(o.Uses)
	return launch{
		kernel: "row_adam",
		grid:   line(int64(total), adamRowsBlock/32),
		block:  adamRowsBlock,
		args: func(a *cuda.Args) {
			a.Ptr(o.State).Ptr(o.Rates).Ptr(o.C1).Ptr(o.C2).Ptr(o.Table).I32(int32(len(o.Uses))).Ptr(o.Pairs).Ptr(o.Share)
			a.Ptr(o.P).Ptr(o.M).Ptr(o.V).I32(int32(total)).I32(int32(o.N)).I32(int32(o.D))
			a.F32(o.B1).F32(o.OB1).F32(o.B2).F32(o.OB2).F32(o.Eps).F32(o.Decay)
		},
	}
}

// Launch updates the rows in one launch.
func (o *RowAdam) Launch(s *cuda.Stream, k *Set) error {
	if err := o.check(); err != nil {
		return err
	}
	return k.put(s, o, o.plan())
}

// Cost counts every index as a row of its own, as most are where a table is large. A row with many takes longer: some
// 1,000 cycles for each 16 of them.
func (o *RowAdam) Cost(t *Tuning) Cost {
	total, _ := Indices(o.Uses)
	elements := int64(total) * int64(o.D)
	bytes := 4*elements*7 + 2*PairBytes*int64(total)
	return Cost{
		Launches: 1, Blocks: o.plan().blocks(), Bytes: bytes, FLOPs: 17 * elements,
		Seconds: t.chainSeconds(rowAdamAccesses*memoryCycles*float64(ceilDiv(o.D, adamRowsColumns)), bytes),
	}
}
