package program

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"sort"
)

// Tensor is a named dense array: F32 or F64 holds its elements, row-major, by DType.
type Tensor struct {
	Name  string
	DType DType
	Shape []int
	F32   []float32
	F64   []float64
}

// Tensors are sorted by name.
type Tensors []Tensor

// Find returns the tensor of that name, or nil.
func (ts Tensors) Find(name string) *Tensor {
	i := sort.Search(len(ts), func(i int) bool { return ts[i].Name >= name })
	if i < len(ts) && ts[i].Name == name {
		return &ts[i]
	}
	return nil
}

// Sort puts the tensors into the order that Find needs.
func (ts Tensors) Sort() { sort.Slice(ts, func(i, j int) bool { return ts[i].Name < ts[j].Name }) }

// Initial makes the weights that a training starts from: a function of the set and the seed alone.
// Optimizer state starts at zero.
func (s *Set) Initial(seed uint64) Tensors {
	var ts Tensors
	for _, p := range append(append([]TensorSpec(nil), s.Params...), s.State...) {
		n := 1
		for _, d := range p.Shape {
			n *= d
		}
		t := Tensor{Name: p.Name, DType: F32, Shape: p.Shape, F32: make([]float32, n)}
		limit := 0.0
		switch p.Init {
		case "one":
			for i := range t.F32 {
				t.F32[i] = 1
			}
		case "he_uniform":
			limit = math.Sqrt(6 / float64(p.FanIn))
		case "fan_in_uniform":
			limit = 1 / math.Sqrt(float64(p.FanIn))
		case "glorot_uniform":
			limit = math.Sqrt(6 / float64(p.FanIn+p.FanOut))
		case "uniform":
			limit = p.Scale
		case "normal":
			for i := 0; i < n; i += 4 {
				z := normals(Philox(key(seed), [4]uint32{uint32(i / 4), uint32(uint64(i/4) >> 32), p.Site, siteInit}))
				for k, x := range z[:min(4, n-i)] {
					t.F32[i+k] = float32(x * p.Scale)
				}
			}
		}
		if limit > 0 {
			for i := range t.F32 {
				r := Philox(key(seed), [4]uint32{uint32(i), uint32(uint64(i) >> 32), p.Site, siteInit})
				t.F32[i] = float32((float64(r[0]>>8)*0x1p-23 - 1) * limit)
			}
		}
		ts = append(ts, t)
	}
	ts.Sort()
	return ts
}

// normals makes four standard normal numbers of random bits, two of each pair of uniforms (Box & Muller 1958); the first
// of a pair is never 0.
func normals(r [4]uint32) (z [4]float64) {
	for k := 0; k < 4; k += 2 {
		radius := math.Sqrt(-2 * math.Log((float64(r[k])+0.5)*0x1p-32))
		sin, cos := math.Sincos(2 * math.Pi * float64(r[k+1]) * 0x1p-32)
		z[k], z[k+1] = radius*cos, radius*sin
	}
	return z
}

type safetensorsEntry struct {
	DType   DType     `json:"dtype"`
	Shape   []int     `json:"shape"`
	Offsets [2]uint64 `json:"data_offsets"`
}

// maxHeader bounds what is allocated for a header that a file claims to have; the safetensors
// reference implementation has the same bound.
const maxHeader = 100 << 20

// WriteSafetensors writes the tensors in the safetensors format (eight bytes of header length, a JSON
// header, little-endian data), in name order, so equal tensors give equal bytes.
func WriteSafetensors(w io.Writer, ts Tensors, metadata map[string]string) error {
	ts = append(Tensors(nil), ts...)
	ts.Sort()
	header := map[string]any{}
	if len(metadata) > 0 {
		header["__metadata__"] = metadata
	}
	var at uint64
	for i, t := range ts {
		shape := t.Shape
		if shape == nil {
			shape = []int{}
		}
		elems := 1
		for _, d := range shape {
			elems *= d
		}
		if t.Name == "__metadata__" || i > 0 && ts[i-1].Name == t.Name {
			return fmt.Errorf("safetensors: %s: the name is taken", t.Name)
		}
		if t.DType == F32 && (len(t.F32) != elems || t.F64 != nil) || t.DType == F64 && (len(t.F64) != elems || t.F32 != nil) || t.DType != F32 && t.DType != F64 {
			return fmt.Errorf("safetensors: %s: %d F32 and %d F64 elements for shape %v of %q", t.Name, len(t.F32), len(t.F64), shape, t.DType)
		}
		n := uint64(len(t.F32)*4 + len(t.F64)*8)
		header[t.Name] = safetensorsEntry{t.DType, shape, [2]uint64{at, at + n}}
		at += n
	}
	h, err := json.Marshal(header)
	if err != nil {
		return err
	}
	for len(h)%8 != 0 {
		h = append(h, ' ')
	}
	buf := binary.LittleEndian.AppendUint64(nil, uint64(len(h)))
	if _, err := w.Write(append(buf, h...)); err != nil {
		return err
	}
	for _, t := range ts {
		buf = buf[:0]
		for _, x := range t.F32 {
			buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(x))
		}
		for _, x := range t.F64 {
			buf = binary.LittleEndian.AppendUint64(buf, math.Float64bits(x))
		}
		if _, err := w.Write(buf); err != nil {
			return err
		}
	}
	return nil
}

// ReadSafetensors reads a whole safetensors file of F32 and F64 tensors. Anything else in it, overlapping or
// missing bytes and trailing data are errors that name the tensor.
func ReadSafetensors(r io.Reader) (Tensors, map[string]string, error) {
	var n [8]byte
	if _, err := io.ReadFull(r, n[:]); err != nil {
		return nil, nil, fmt.Errorf("safetensors: header length: %w", err)
	}
	size := binary.LittleEndian.Uint64(n[:])
	if size > maxHeader {
		return nil, nil, fmt.Errorf("safetensors: header of %d bytes, more than %d: not a safetensors file", size, maxHeader)
	}
	// Read as it comes: the length is a claim, and memory is taken for what is there only.
	h, err := io.ReadAll(io.LimitReader(r, int64(size)))
	if err == nil && uint64(len(h)) < size {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, nil, fmt.Errorf("safetensors: header: %w", err)
	}
	var raw map[string]json.RawMessage
	if err := json.Unmarshal(h, &raw); err != nil {
		return nil, nil, fmt.Errorf("safetensors: header: %w", err)
	}
	var metadata map[string]string
	type placed struct {
		name string
		safetensorsEntry
	}
	var entries []placed
	for name, m := range raw {
		if name == "__metadata__" {
			if err := json.Unmarshal(m, &metadata); err != nil {
				return nil, nil, fmt.Errorf("safetensors: __metadata__: %w", err)
			}
			continue
		}
		var e safetensorsEntry
		if err := json.Unmarshal(m, &e); err != nil {
			return nil, nil, fmt.Errorf("safetensors: %s: %w", name, err)
		}
		entries = append(entries, placed{name, e})
	}
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, nil, fmt.Errorf("safetensors: data: %w", err)
	}
	sort.Slice(entries, func(i, j int) bool {
		a, b := entries[i], entries[j]
		if a.Offsets != b.Offsets {
			return a.Offsets[0] < b.Offsets[0] || a.Offsets[0] == b.Offsets[0] && a.Offsets[1] < b.Offsets[1]
		}
		return a.name < b.name // a fault names the same tensor every time
	})
	var ts Tensors
	var at uint64
	for _, e := range entries {
		if e.DType != F32 && e.DType != F64 {
			return nil, nil, fmt.Errorf("safetensors: %s: type %s, want F32 or F64", e.name, e.DType)
		}
		elems := 1
		if slices.Contains(e.Shape, 0) {
			elems = 0
		}
		for _, d := range e.Shape {
			if d < 0 || d > 0 && elems > len(data)/d {
				return nil, nil, fmt.Errorf("safetensors: %s: shape %v of %s in a file with %d bytes of data", e.name, e.Shape, e.DType, len(data))
			}
			elems *= d
		}
		if e.Offsets[0] != at || e.Offsets[1] < at || e.Offsets[1] > uint64(len(data)) || e.Offsets[1]-at != uint64(elems*e.DType.Size()) {
			return nil, nil, fmt.Errorf("safetensors: %s: bytes %v of %d do not fit shape %v of %s", e.name, e.Offsets, len(data), e.Shape, e.DType)
		}
		t := Tensor{Name: e.name, DType: e.DType, Shape: e.Shape}
		b := data[at:e.Offsets[1]]
		if e.DType == F32 {
			t.F32 = make([]float32, elems)
			for i := range t.F32 {
				t.F32[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
			}
		} else {
			t.F64 = make([]float64, elems)
			for i := range t.F64 {
				t.F64[i] = math.Float64frombits(binary.LittleEndian.Uint64(b[8*i:]))
			}
		}
		ts = append(ts, t)
		at = e.Offsets[1]
	}
	if at != uint64(len(data)) {
		return nil, nil, fmt.Errorf("safetensors: %d bytes after the last tensor", uint64(len(data))-at)
	}
	ts.Sort()
	return ts, metadata, nil
}
