package kernels

import (
	"fmt"
	"strings"

	"github.com/onmart/onmart/cuda"
)

const mapBlock = 256 // threads, of four elements each

// mapAccesses is the chain of an elementwise operation: it reads, then writes.
const mapAccesses = 2

// kernel is that of an Op that was checked.
func (kind MapKind) kernel() string {
	return [...]string{"map_activate", "map_act_grad", "map_add", "map_scale", "map_fill", "map_dropout"}[kind]
}

func (kind MapKind) name() string {
	if kind < MapActivate || kind > MapDropout {
		return fmt.Sprintf("unknown(%d)", int(kind))
	}
	return strings.TrimPrefix(kind.kernel(), "map_")
}

// Kernel is such as "map activate silu 16384".
func (o *Map) Kernel() string {
	s := "map " + o.Kind.name()
	if o.Kind == MapActivate || o.Kind == MapActGrad {
		s += " " + o.Act.name()
	}
	return fmt.Sprintf("%s %d", s, o.N)
}

// second says whether B is read.
func (o *Map) second() bool { return o.Kind == MapAdd || o.Kind == MapActGrad && o.Act != None }

func (o *Map) check() error {
	var f faults
	f.between("Kind", int(o.Kind), int(MapActivate), int(MapDropout))
	f.between("N", o.N, 1, 1<<40)
	if o.Kind != MapFill {
		f.ptr("A", o.A, 4)
	}
	if o.second() {
		f.ptr("B", o.B, 4)
	}
	f.ptr("Y", o.Y, 4)
	f.act("Act", o.Act)
	if o.Kind == MapDropout {
		f.drop(o.Drop)
	}
	return f.of(o)
}

func (o *Map) plan() launch {
	args := func(a *cuda.Args) {
		if o.Kind == MapFill {
			a.Ptr(o.Y).I64(int64(o.N)).I32(flag(aligned(o.Y))).F32(o.Scale)
			return
		}
		b := cuda.DevicePtr(0)
		if o.second() {
			b = o.B
		}
		a.Ptr(o.A).Ptr(o.Y).I64(int64(o.N)).I32(flag(aligned(o.A, b, o.Y)))
		switch o.Kind {
		case MapActivate:
			a.I32(int32(o.Act))
		case MapActGrad:
			a.Ptr(b).I32(int32(o.Act))
		case MapAdd:
			a.Ptr(b)
		case MapScale:
			a.F32(o.Scale)
		case MapDropout:
			a.Ptr(o.Drop.State)
			o.Drop.args(a)
		}
	}
	return launch{kernel: o.Kind.kernel(), grid: line(int64(o.N), 4*mapBlock), block: mapBlock, args: args}
}

// Launch does the operation in one launch.
func (o *Map) Launch(s *cuda.Stream, k *Set) error {
	if err := o.check(); err != nil {
		return err
	}
	return k.put(s, o, o.plan())
}

// Cost counts an operation an element, an activation as 20.
func (o *Map) Cost(t *Tuning) Cost {
	operands, flops := int64(2), int64(1)
	if o.Kind == MapFill {
		operands, flops = 1, 0
	}
	if o.second() {
		operands++
	}
	if o.Act == Silu && (o.Kind == MapActivate || o.Kind == MapActGrad) {
		flops = 20
	}
	bytes := 4 * operands * int64(o.N)
	return Cost{
		Launches: 1, Blocks: o.plan().blocks(), Bytes: bytes, FLOPs: flops * int64(o.N),
		Seconds: t.chainSeconds(mapAccesses*memoryCycles, bytes),
	}
}
