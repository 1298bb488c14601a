// Package modeltest makes small models by hand, so that tests of what uses an artifact need no training.
//
// A feature spec and a seed enter; an artifact leaves, whose weights are noise but whose scores spread over
// (0,1) and depend on every feature. Nothing of the product may import this package.
package modeltest

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/score/model"
	"github.com/onmart/onmart/train/program"
)

// Tile is the number of rows of the models' programs: small, so that tests cross it.
const Tile = 32

// hidden is no multiple of a vector's width.
const hidden = 21

// Schema is of transactions that carry their label, enough for the built-in spec fraud-handbook.
func Schema() *datasets.Schema {
	return &datasets.Schema{Fields: []datasets.Field{
		{Name: datasets.TransID, Type: datasets.Int64},
		{Name: datasets.TransDatetime, Type: datasets.Time},
		{Name: datasets.UserID, Type: datasets.Int64},
		{Name: datasets.StoreID, Type: datasets.Int64},
		{Name: datasets.Amount, Type: datasets.Decimal, Scale: datasets.AmountScale},
		{Name: datasets.IsFraud, Type: datasets.Int64, Nullable: true},
	}}
}

// Contents is a model over the spec's features; in is the schema of its transactions, tables are those that the spec
// joins. Equal arguments give equal contents.
func Contents(t testing.TB, spec *features.Spec, in *datasets.Schema, seed uint64,
	tables ...*features.Tables) model.Contents {
	t.Helper()
	plan, err := spec.Plan(in, tables...)
	if err != nil {
		t.Fatal(err)
	}
	fs := plan.Features()
	set, weights := Program(fs, seed)
	typical := make([]float64, len(fs))
	for i, f := range fs {
		if f.Log {
			typical[i] = float64(2 + 3*i)
		}
	}
	from, err := datasets.ParseRange("2018-07-25..2018-07-31")
	if err != nil {
		t.Fatal(err)
	}
	c := model.Contents{
		Manifest: model.Manifest{
			Task:    "fraud",
			Created: model.Created{Command: "test", Onmart: "test", Time: "2018-08-01T00:00:00Z", Backend: "test"},
			Typical: typical,
			Lineage: model.Lineage{Data: "test", Train: model.Span{Range: from}, Delay: model.Duration(7 * datasets.Day), Rows: 1000, Seen: 10},
			Seed:    seed, Threshold: 0.5, AlertsPerDay: 100, Calibration: model.Calibration{A: 0.9, B: -0.3},
		},
		Spec: spec, Input: in, Program: set, Weights: weights,
	}
	if len(tables) > 0 {
		c.Tables = tables[0]
	}
	return c
}

// Save writes the model of Contents for the built-in spec fraud-handbook and Schema to dir and opens it.
func Save(t testing.TB, dir string, seed uint64) *model.Artifact {
	t.Helper()
	spec, err := features.Builtin("fraud-handbook")
	if err != nil {
		t.Fatal(err)
	}
	if err := model.Save(dir, Contents(t, spec, Schema(), seed), false); err != nil {
		t.Fatal(err)
	}
	return Open(t, dir)
}

// Artifact is Save into a folder of the test.
func Artifact(t testing.TB) *model.Artifact {
	t.Helper()
	return Save(t, filepath.Join(t.TempDir(), "model"), 1)
}

// Open opens an artifact that has to be good.
func Open(t testing.TB, dir string) *model.Artifact {
	t.Helper()
	a, err := model.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Program is standardise, one hidden layer, two outputs of it averaged, calibrate, by hand, with its weights.
func Program(fs []features.Feature, seed uint64) (*program.Set, program.Tensors) {
	width := len(fs)
	p := &program.Program{Name: "forward", Rows: Tile}
	buffer := func(name string, kind program.Kind, dtype program.DType, shape ...int) int {
		b := program.Buffer{Name: name, Kind: kind, DType: dtype, Shape: shape,
			PerRow: kind == program.Input || kind == program.Output || kind == program.Temp}
		if kind == program.Temp {
			b.Offset = p.Arena
			p.Arena += (b.Len()*dtype.Size() + 63) / 64 * 64
		}
		p.Buffers = append(p.Buffers, b)
		return len(p.Buffers) - 1
	}
	instr := func(op program.Op, attr program.Attr, out int, args ...int) {
		p.Instrs = append(p.Instrs, program.Instr{Op: op, Args: args, Outs: []int{out}, Attr: attr})
	}
	x := buffer("x", program.Input, program.F64, Tile, width)
	mean := buffer("standardize.mean", program.Const, program.F64, width)
	scale := buffer("standardize.scale", program.Const, program.F64, width)
	log := buffer("standardize.log", program.Const, program.F64, width)
	u := buffer("u", program.Temp, program.F32, Tile, width)
	w1 := buffer("hidden.weight", program.Param, program.F32, width, hidden)
	b1 := buffer("hidden.bias", program.Param, program.F32, hidden)
	h := buffer("h", program.Temp, program.F32, Tile, hidden)
	w2 := buffer("out.weight", program.Param, program.F32, hidden, 1)
	b2 := buffer("out.bias", program.Param, program.F32, 1)
	w3 := buffer("other.weight", program.Param, program.F32, hidden, 1)
	b3 := buffer("other.bias", program.Param, program.F32, 1)
	z := buffer("z", program.Temp, program.F32, Tile, 1)
	z2 := buffer("z2", program.Temp, program.F32, Tile, 1)
	sum := buffer("sum", program.Temp, program.F32, Tile, 1)
	half := buffer("half", program.Temp, program.F32, Tile, 1)
	ab := buffer("calibrate.ab", program.Const, program.F64, 2)
	y := buffer("probability", program.Output, program.F64, Tile, 1)
	instr(program.Standardize, program.Attr{}, u, x, mean, scale, log)
	instr(program.MatMul, program.Attr{Act: program.Relu}, h, u, w1, b1)
	instr(program.MatMul, program.Attr{}, z, h, w2, b2)
	instr(program.MatMul, program.Attr{}, z2, h, w3, b3)
	instr(program.Add, program.Attr{}, sum, z, z2)
	instr(program.Scale, program.Attr{Scale: 0.5}, half, sum)
	instr(program.Calibrate, program.Attr{}, y, half, ab)

	set := &program.Set{Forward: p}
	weights := program.Tensors{}
	n := uint64(0)
	noise := func() float64 {
		n++
		v := program.Uniforms4(seed, 0, 0, n)
		return float64(v[0]+v[1]+v[2]+v[3]) - 2 // about normal, standard deviation 0.58
	}
	for _, b := range p.Buffers {
		spec := program.TensorSpec{Name: b.Name, Shape: b.Shape}
		t := program.Tensor{Name: b.Name, DType: b.DType, Shape: b.Shape}
		switch b.Kind {
		case program.Param:
			set.Params = append(set.Params, spec)
			size := 5 / math.Sqrt(float64(b.Shape[0]))
			for range b.Len() {
				t.F32 = append(t.F32, float32(noise()*size))
			}
		case program.Const:
			set.Consts = append(set.Consts, spec)
			for i := range b.Len() {
				v := 0.0
				switch b.Name {
				case "standardize.mean":
					v = 0.3 + noise()/4
				case "standardize.scale":
					v = 0.8 + noise()/4
				case "standardize.log":
					if fs[i].Log {
						v = 1
					}
				case "calibrate.ab":
					v = [2]float64{0.9, -0.3}[i]
				}
				t.F64 = append(t.F64, v)
			}
		default:
			continue
		}
		weights = append(weights, t)
	}
	weights.Sort()
	return set, weights
}
