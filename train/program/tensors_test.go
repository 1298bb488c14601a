package program

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func someTensors() Tensors {
	return Tensors{
		{Name: "a", DType: F32, Shape: []int{2, 3}, F32: []float32{1, -2, 3.5, float32(math.Inf(1)), 0, math.SmallestNonzeroFloat32}},
		{Name: "b/π", DType: F64, Shape: []int{2}, F64: []float64{math.Pi, -1e300}},
		{Name: "c", DType: F32, Shape: []int{1}, F32: []float32{7}},
	}
}

func TestSafetensorsRoundTrip(t *testing.T) {
	ts := someTensors()
	meta := map[string]string{"made_by": "test"}
	var one, two bytes.Buffer
	if err := WriteSafetensors(&one, ts, meta); err != nil {
		t.Fatal(err)
	}
	if err := WriteSafetensors(&two, Tensors{ts[2], ts[0], ts[1]}, meta); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("the order of the tensors changes the bytes")
	}
	got, gotMeta, err := ReadSafetensors(&one)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(ts, got); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(meta, gotMeta); d != "" {
		t.Error(d)
	}
	if got.Find("c") == nil || got.Find("c").F32[0] != 7 || got.Find("bb") != nil || got.Find("zz") != nil {
		t.Error("Find does not find")
	}
}

// TestSafetensorsBytes pins the format, which Python reads too.
func TestSafetensorsBytes(t *testing.T) {
	var b bytes.Buffer
	if err := WriteSafetensors(&b, Tensors{{Name: "w", DType: F32, Shape: []int{1, 2}, F32: []float32{1, -2}}}, nil); err != nil {
		t.Fatal(err)
	}
	header := `{"w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}`
	want := fmt.Sprintf("%c\x00\x00\x00\x00\x00\x00\x00%s\x00\x00\x80\x3f\x00\x00\x00\xc0", len(header), header)
	if len(header)%8 != 0 {
		t.Fatalf("the header of this test is %d bytes, so it would be padded", len(header))
	}
	if b.String() != want {
		t.Errorf("%q\nwant\n%q", b.String(), want)
	}
}

func file(header string, data int) []byte {
	return append(append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...), make([]byte, data)...)
}

func TestReadSafetensorsRefuses(t *testing.T) {
	entry := func(dtype, shape, offsets string) string {
		return fmt.Sprintf(`{"w":{"dtype":"%s","shape":%s,"data_offsets":%s}}`, dtype, shape, offsets)
	}
	for _, c := range []struct {
		in   []byte
		want string
	}{
		{nil, "header length"},
		{[]byte("\xff\xff\xff\xff\xff\xff\xff\xff"), "not a safetensors file"},
		{[]byte("\x00\x00\x00\x06\x00\x00\x00\x00{}"), "header: unexpected EOF"},
		{file(`{"w":3}`, 0), "w: "},
		{file(`[]`, 0), "header: "},
		{file(`{"__metadata__":{"a":1}}`, 0), "__metadata__"},
		{file(entry("F16", "[2]", "[0,4]"), 4), "w: type F16"},
		{file(entry("F32", "[2]", "[0,4]"), 8), "w: bytes"},
		{file(entry("F32", "[2]", "[0,8]"), 4), "w: bytes"},
		{file(entry("F32", "[1]", "[4,8]"), 8), "w: bytes"},
		{file(entry("F32", "[1]", "[0,4]"), 5), "1 bytes after the last tensor"},
		{file(entry("F32", "[-1,-1]", "[0,4]"), 4), "w: shape"},
		{file(entry("F64", "[2147483648,2147483648]", "[0,0]"), 0), "w: shape"},
		{file(entry("F64", "[2147483648,4294967296,2]", "[0,0]"), 64), "w: shape"},
		{file(`{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}`, 4), "b: bytes"},
	} {
		_, _, err := ReadSafetensors(bytes.NewReader(c.in))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.in, err, c.want)
		}
	}
	var whole bytes.Buffer
	if err := WriteSafetensors(&whole, someTensors(), nil); err != nil {
		t.Fatal(err)
	}
	for n := range whole.Len() {
		if _, _, err := ReadSafetensors(bytes.NewReader(whole.Bytes()[:n])); err == nil {
			t.Fatalf("a file cut to %d of %d bytes was read", n, whole.Len())
		}
	}
}

func TestWriteSafetensorsRefuses(t *testing.T) {
	for what, ts := range map[string]Tensors{
		"a name used twice":    {{Name: "a", DType: F32, Shape: []int{1}, F32: []float32{1}}, {Name: "a", DType: F32, Shape: []int{1}, F32: []float32{1}}},
		"the reserved name":    {{Name: "__metadata__", DType: F32, Shape: []int{1}, F32: []float32{1}}},
		"a missing element":    {{Name: "a", DType: F32, Shape: []int{2}, F32: []float32{1}}},
		"elements of the rest": {{Name: "a", DType: F32, Shape: []int{1}, F64: []float64{1}}},
		"no type":              {{Name: "a", Shape: []int{1}, F32: []float32{1}}},
	} {
		if err := WriteSafetensors(io.Discard, ts, nil); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
}

func FuzzReadSafetensors(f *testing.F) {
	var b bytes.Buffer
	if err := WriteSafetensors(&b, someTensors(), map[string]string{"k": "v"}); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Add(file(`{"w":{"dtype":"F64","shape":[0,3],"data_offsets":[0,0]}}`, 0))
	f.Fuzz(func(t *testing.T, in []byte) {
		ts, meta, err := ReadSafetensors(bytes.NewReader(in))
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := WriteSafetensors(&out, ts, meta); err != nil {
			t.Fatalf("read, but cannot be written: %v", err)
		}
		again, _, err := ReadSafetensors(&out)
		if err != nil || len(again) != len(ts) {
			t.Fatalf("written, but cannot be read: %v", err)
		}
	})
}

// TestInitialIsPinned: a seed gives the same start for ever, or a training cannot be repeated.
func TestInitialIsPinned(t *testing.T) {
	s := &Set{
		Params: []TensorSpec{
			{Name: "w", Shape: []int{50, 40}, Init: "he_uniform", FanIn: 50, Site: 1},
			{Name: "g", Shape: []int{2, 2}, Init: "glorot_uniform", FanIn: 2, FanOut: 4, Site: 2},
			{Name: "b", Shape: []int{3}, Init: "zero"},
			{Name: "p", Shape: []int{500}, Init: "fan_in_uniform", FanIn: 25, Site: 3},
		},
		State: []TensorSpec{{Name: "m", Shape: []int{2}}},
	}
	ts := s.Initial(42)
	names := ""
	for _, x := range ts {
		names += x.Name
	}
	if names != "bgmpw" {
		t.Errorf("tensors %s, want sorted b g m p w", names)
	}
	if got, want := fmt.Sprint(ts.Find("g").F32), "[-0.88526213 -0.09691405 -0.8340192 0.022609591]"; got != want {
		t.Errorf("g is %s, want %s", got, want)
	}
	limit := math.Sqrt(6.0 / 50)
	var square float64
	for _, x := range ts.Find("w").F32 {
		if !(math.Abs(float64(x)) <= limit) {
			t.Fatalf("%v is past the limit %v", x, limit)
		}
		square += float64(x) * float64(x) / 2000
	}
	if want := limit * limit / 3; !(math.Abs(square-want) < 0.1*want) {
		t.Errorf("variance %v, want %v = 2/fan_in", square, want)
	}
	lo, hi := float32(0), float32(0)
	for _, x := range ts.Find("p").F32 {
		lo, hi = min(lo, x), max(hi, x)
	}
	if !(lo >= -0.2 && lo < -0.19 && hi <= 0.2 && hi > 0.19) {
		t.Errorf("p lies in %v..%v, want nearly all of -0.2..0.2 = 1/sqrt(fan_in)", lo, hi)
	}
	for _, name := range []string{"b", "m"} {
		for _, x := range ts.Find(name).F32 {
			if x != 0 {
				t.Errorf("%s begins at %v", name, x)
			}
		}
	}
	if s.Initial(43).Find("w").F32[0] == ts.Find("w").F32[0] {
		t.Error("another seed gives the same weights")
	}
}

// TestNormalInit: the moments and the tails of a normal distribution, the same numbers again, others for another site.
func TestNormalInit(t *testing.T) {
	set := &Set{Params: []TensorSpec{
		{Name: "a", Shape: []int{40000, 5}, Init: "normal", Scale: 0.5, Site: 1},
		{Name: "b", Shape: []int{40000, 5}, Init: "normal", Scale: 0.5, Site: 2},
		{Name: "odd", Shape: []int{7}, Init: "normal", Scale: 1},
		{Name: "u", Shape: []int{1000}, Init: "uniform", Scale: 0.1},
	}}
	ts := set.Initial(3)
	var sum, square, beyond float64
	for _, x := range ts.Find("a").F32 {
		z := float64(x) / 0.5
		sum += z
		square += z * z
		if math.Abs(z) > 1.959964 {
			beyond++
		}
	}
	n := 200000.0
	var neighbours float64
	for x := ts.Find("a").F32; len(x) > 1; x = x[1:] {
		neighbours += float64(x[0]) * float64(x[1]) / 0.25
	}
	if !(math.Abs(neighbours/n) < 0.01) {
		t.Errorf("neighbours are correlated by %v", neighbours/n)
	}
	if !(math.Abs(sum/n) < 0.01) || !(math.Abs(square/n-1) < 0.015) || !(math.Abs(beyond/n-0.05) < 0.003) {
		t.Errorf("mean %v, mean square %v, %v beyond 1.96: want 0, 1, 0.05", sum/n, square/n, beyond/n)
	}
	if !slices.Equal(ts.Find("a").F32, set.Initial(3).Find("a").F32) {
		t.Error("the same seed gives other numbers")
	}
	if ts.Find("a").F32[7] == ts.Find("b").F32[7] || ts.Find("a").F32[7] == set.Initial(4).Find("a").F32[7] {
		t.Error("another site or seed gives the same number")
	}
	for _, x := range ts.Find("u").F32 {
		if !(x >= -0.1 && x <= 0.1) {
			t.Fatalf("uniform of 0.1 gave %v", x)
		}
	}
}
