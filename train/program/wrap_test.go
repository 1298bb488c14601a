package program

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

// linear is one matrix product, x [8,3] to logits [8,1], through a temp.
func linear() (*Program, []TensorSpec) {
	p := &Program{Name: "linear", Rows: 8, Arena: 64, Buffers: []Buffer{
		{Name: "x", Kind: Input, DType: F32, Shape: []int{8, 3}, PerRow: true},
		{Name: "w", Kind: Param, DType: F32, Shape: []int{3, 1}},
		{Name: "t", Kind: Temp, DType: F32, Shape: []int{8, 1}, PerRow: true},
		{Name: "output", Kind: Output, DType: F32, Shape: []int{8, 1}, PerRow: true},
	}, Instrs: []Instr{
		{Op: MatMul, Args: []int{0, 1}, Outs: []int{2}},
		{Op: Scale, Args: []int{2}, Outs: []int{3}, Attr: Attr{Scale: .5}},
	}}
	return p, []TensorSpec{{Name: "w", Shape: []int{3, 1}}}
}

func mustValidate(t *testing.T, p *Program, params []TensorSpec) {
	t.Helper()
	if err := (&Set{Params: params, Consts: p.Consts(), Forward: p}).Validate(); err != nil {
		t.Fatal(err)
	}
}

func TestWraps(t *testing.T) {
	p, params := linear()
	before, _ := linear()
	mustValidate(t, p, params)

	standardized, err := WrapStandardize(p, "x", 3)
	if err != nil {
		t.Fatal(err)
	}
	mustValidate(t, standardized, params)
	whole, err := WrapCalibrate(standardized)
	if err != nil {
		t.Fatal(err)
	}
	mustValidate(t, whole, params)
	want := `linear: 8 rows, 4 instructions, arena 256 bytes
  0 t0[8 3] = standardize x[8 3] standardize.mean[3] standardize.scale[3] standardize.log[3]  # standardize
  1 t2[8 1] = matmul t0[8 3] w[3 1]
  2 t3[8 1] = scale t2[8 1] {"scale":0.5}
  3 probability[8 1] = calibrate t3[8 1] calibrate.ab[2]  # calibrate
`
	if got := whole.String(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	var names []string
	for _, c := range whole.Consts() {
		names = append(names, c.Name)
	}
	if !slices.Equal(names, []string{StandardizeMean, StandardizeScale, StandardizeLog, CalibrateAB}) {
		t.Errorf("consts %v", names)
	}
	if i := whole.Input("x"); whole.Buffers[i].DType != F64 {
		t.Errorf("input is %s, want F64", whole.Buffers[i].DType)
	}
	if !reflect.DeepEqual(p, before) {
		t.Error("wrapping changed the program")
	}
	other, err := WrapCalibrate(p) // the other way round gives an equal computation
	if err != nil {
		t.Fatal(err)
	}
	if other, err = WrapStandardize(other, "x", 3); err != nil {
		t.Fatal(err)
	}
	mustValidate(t, other, params)
	mustValidate(t, StandardizeOnly(15, 256), nil)
}

func TestWrapErrors(t *testing.T) {
	p, _ := linear()
	wide, _ := linear()
	wide.Buffers[3].Shape = []int{8, 2}
	done, err := WrapCalibrate(p)
	if err != nil {
		t.Fatal(err)
	}
	for want, f := range map[string]func() (*Program, error){
		`no input "y"`:                           func() (*Program, error) { return WrapStandardize(p, "y", 3) },
		`input "x" is F32 [8 3], want F32 [8 4]`: func() (*Program, error) { return WrapStandardize(p, "x", 4) },
		`output "output" is F32 [8 2]`:           func() (*Program, error) { return WrapCalibrate(wide) },
		`output "probability" is F64 [8 1]`:      func() (*Program, error) { return WrapCalibrate(done) },
		"it has no output":                       func() (*Program, error) { return WrapCalibrate(&Program{Name: "empty"}) },
	} {
		q, err := f()
		if err == nil || q != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
