package kernels

import (
	"fmt"
	"unsafe"

	"github.com/onmart/onmart/cuda"
)

const (
	columnsBlock = 256
	gatherBlock  = 64
	gatherRows   = 16 // of a block: eight a warp

	// gatherAccesses is the chain of a gather: the step, the table, the row, and the write.
	gatherAccesses = 4
)

// Kernel is such as "columns 256x16 of 64 to 128".
func (o *Columns) Kernel() string {
	return fmt.Sprintf("columns %dx%d of %d to %d", o.M, o.N, o.LdX, o.LdY)
}

func (o *Columns) check() error {
	var f faults
	f.size("M", o.M)
	f.size("N", o.N)
	f.size("LdX", o.LdX)
	f.size("LdY", o.LdY)
	f.between("From", o.From, 0, max(0, o.LdX-o.N))
	f.between("To", o.To, 0, max(0, o.LdY-o.N))
	if o.N > o.LdX || o.N > o.LdY {
		f.addf("N is %d, more than the width of x, %d, or of y, %d", o.N, o.LdX, o.LdY)
	}
	f.ptr("X", o.X, 4)
	f.ptr("Y", o.Y, 4)
	return f.of(o)
}

// written is the columns of y that are written.
func (o *Columns) written() int {
	if o.Zero {
		return o.LdY
	}
	return o.N
}

func (o *Columns) plan() launch {
	return launch{kernel: "columns", grid: line(int64(o.M)*int64(o.written()), columnsBlock), block: columnsBlock,
		args: func(a *cuda.Args) {
			a.Ptr(o.X).Ptr(o.Y).I32(int32(o.M)).I32(int32(o.N)).I32(int32(o.LdX)).I32(int32(o.From))
			a.I32(int32(o.LdY)).I32(int32(o.To)).I32(flag(o.Zero))
		}}
}

// Launch does the copy in one launch.
func (o *Columns) Launch(s *cuda.Stream, k *Set) error {
	if err := o.check(); err != nil {
		return err
	}
	return k.put(s, o, o.plan())
}

// Cost is that of the copied and the cleared elements.
func (o *Columns) Cost(t *Tuning) Cost {
	bytes := 4 * int64(o.M) * int64(o.N+o.written())
	return Cost{Launches: 1, Blocks: o.plan().blocks(), Bytes: bytes, Seconds: t.chainSeconds(mapAccesses*memoryCycles, bytes)}
}

// columnEntry is Source of rows.cu.
type columnEntry struct {
	src, dst     cuda.DevicePtr
	width, start int32
}

// Kernel is such as "gather 256 rows of 3 columns, 34 wide".
func (o *Gather) Kernel() string {
	return fmt.Sprintf("gather %d rows of %d columns, %d wide", o.Rows, len(o.Columns), o.width())
}

func (o *Gather) width() (w int) {
	for _, c := range o.Columns {
		w += c.Width
	}
	return w
}

func (o *Gather) check() error {
	var f faults
	f.columns(o.Columns)
	f.ptr("State", o.State, 4)
	f.ptr("Table", o.Table, 8)
	f.size("Rows", o.Rows)
	f.size("Batch", o.Batch)
	f.size("PerEpoch", o.PerEpoch)
	f.between("Base", o.Base, 0, 1<<40)
	if !o.Staged {
		// The last step of an epoch may begin at N-1; more rows than N has would leave the permutation.
		if uint64(o.A)*uint64(o.B) < uint64(o.N) || o.N == 0 || o.N > 1<<31-1 {
			f.addf("N is %d on a grid of %d x %d, want 1 to 2147483647 within the grid", o.N, o.A, o.B)
		} else if last := int64(o.PerEpoch-1) * int64(o.Batch); last >= int64(o.N) {
			f.addf("PerEpoch is %d and Batch %d: the last batch begins at row %d of %d", o.PerEpoch, o.Batch, last, o.N)
		}
	}
	return f.of(o)
}

func (f *faults) columns(columns []GatherColumn) {
	if len(columns) == 0 {
		f.addf("Columns is empty")
	}
	for i, c := range columns {
		f.ptr(fmt.Sprintf("Columns[%d].Src", i), c.Src, 4)
		f.ptr(fmt.Sprintf("Columns[%d].Dst", i), c.Dst, 4)
		f.size(fmt.Sprintf("Columns[%d].Width", i), c.Width)
	}
}

// TableBytes is the size of Table.
func (o *Gather) TableBytes() int64 {
	return int64(len(o.Columns)) * int64(unsafe.Sizeof(columnEntry{}))
}

// FillTable puts the columns in Table.
func (o *Gather) FillTable(s *cuda.Stream) error {
	var f faults
	f.columns(o.Columns)
	f.ptr("Table", o.Table, 8)
	if err := f.of(o); err != nil {
		return err
	}
	table := make([]columnEntry, len(o.Columns))
	start := 0
	for i, c := range o.Columns {
		table[i] = columnEntry{src: c.Src, dst: c.Dst, width: int32(c.Width), start: int32(start)}
		start += c.Width
	}
	return fill(s, o, o.Table, table)
}

func (o *Gather) plan() launch {
	return launch{kernel: "gather", grid: line(int64(o.Rows), gatherRows), block: gatherBlock, args: func(a *cuda.Args) {
		a.Ptr(o.State).Ptr(o.Table).I32(int32(len(o.Columns))).I32(int32(o.width())).I32(int32(o.Rows))
		a.U32(uint32(o.Batch)).U32(uint32(o.PerEpoch)).I64(int64(o.Base))
		a.U32(o.N).U32(o.A).U32(o.B).U32(o.Site).U32(o.Key[0]).U32(o.Key[1]).I32(flag(o.Staged))
	}}
}

// Launch fills the batch in one launch.
func (o *Gather) Launch(s *cuda.Stream, k *Set) error {
	if err := o.check(); err != nil {
		return err
	}
	return k.put(s, o, o.plan())
}

// Cost is that of reading and writing the rows.
func (o *Gather) Cost(t *Tuning) Cost {
	bytes := 8 * int64(o.Rows) * int64(o.width())
	return Cost{Launches: 1, Blocks: o.plan().blocks(), Bytes: bytes, Seconds: t.chainSeconds(gatherAccesses*memoryCycles, bytes)}
}

// fill copies a table to the device.
func fill[T any](s *cuda.Stream, op Op, to cuda.DevicePtr, table []T) error {
	if err := cuda.ToDevice(s, to, table); err != nil {
		return fmt.Errorf("kernels: table of %s: %w", op.Kernel(), err)
	}
	return nil
}
