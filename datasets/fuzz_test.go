package datasets

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
)

// FuzzDecode feeds any bytes to the decoder of each preset and format: no panic, columns of one length, and
// the same rows however the bytes arrive.
func FuzzDecode(f *testing.F) {
	if src, err := os.ReadFile("testdata/decode.txt"); err == nil {
		for _, part := range bytes.Split(src, []byte("\n== ")) {
			_, body, _ := bytes.Cut(part, []byte("\n"))
			in, _, _ := bytes.Cut(body, []byte("--\n"))
			for which := range uint8(6) {
				f.Add(which, in)
			}
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, in []byte) {
		names := Presets()
		m := preset(t, names[int(which/2)%len(names)])
		format := CSV
		if which%2 == 1 {
			format = JSONL
		}
		whole := decodeAll(t, m, bytes.NewReader(in), format, true, 100)
		if len(in) < 2000 {
			if pieces := decodeAll(t, m, iotest.HalfReader(bytes.NewReader(in)), format, true, 3); pieces != whole {
				t.Errorf("whole:\n%s\nin pieces:\n%s", whole, pieces)
			}
		}
	})
}

// FuzzMapping parses any text as a mapping: no panic, and a mapping that is taken can decode.
func FuzzMapping(f *testing.F) {
	for _, name := range Presets() {
		src, err := presetFiles.ReadFile("presets/" + name + ".yaml")
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	f.Add([]byte(small))
	f.Fuzz(func(t *testing.T, src []byte) {
		m, err := ParseMapping("m.yaml", src)
		if err != nil {
			return
		}
		if err := m.Schema().check(); err != nil {
			t.Error(err)
		}
		if err := m.LogSchema().check(); err != nil {
			t.Error(err)
		}
		decodeAll(t, m, bytes.NewReader([]byte(`{"trans_id":1,"trans_datetime":"2018-04-01T00:00:31Z"}`)), JSONL, true, 1)
	})
}

// FuzzManifest reads any text as a manifest: no panic, and one that is taken says the same after a round trip.
func FuzzManifest(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "set")
	writeSet(f, dir, mixed, 10)
	text, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := parseManifest(text)
		if err != nil {
			return
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if m2, err := parseManifest(again); err != nil || m2.ID != m.ID {
			t.Errorf("%v", err)
		}
	})
}

// FuzzPart puts any bytes in the place of a part's pages: no panic, and never another number of rows. The
// footer stays as it was written: the Parquet library allocates what a footer asks for, so that one may
// be read only after the checksum.
func FuzzPart(f *testing.F) {
	var buf bytes.Buffer
	if err := encodePart(&buf, randomBatch(mixed, 0, 50)); err != nil {
		f.Fatal(err)
	}
	good := buf.Bytes()
	footer := len(good) - 8 - int(binary.LittleEndian.Uint32(good[len(good)-8:]))
	f.Add(good[4:footer])
	f.Fuzz(func(t *testing.T, pages []byte) {
		data := bytes.Clone(good)
		copy(data[4:footer], pages)
		b, err := decodePart(data, mixed, 50, []int{0, 3, 4, 8})
		if err == nil && (b.N != 50 || checkColumns(b) != nil) {
			t.Errorf("%d rows", b.N)
		}
	})
}
