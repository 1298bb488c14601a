package datasets

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"time"

	"github.com/onmart/onmart/internal/atomicdir"
)

// Kind is what the rows of a data set are.
type Kind string

const (
	KindTransactions Kind = "transactions" // sorted by event time
	KindLog          Kind = "log"          // transactions and labels in the order in which they arrived
	KindFeatures     Kind = "features"     // transactions with the features computed for them
	KindPredictions  Kind = "predictions"  // transactions with scores
	KindPanel        Kind = "panel"        // series by steps of time, ordered by step and series
	KindInteractions Kind = "interactions" // items of purchases
)

const (
	// formatVersion is the version of the manifest and the parts that this code writes and the newest it reads.
	formatVersion = 1
	// readRows is the most rows Read hands out at once.
	readRows = pageRows
	// manifestLimit bounds what Open reads of a manifest: one of 100,000 parts has about 20 MiB.
	manifestLimit = 64 << 20
)

// Manifest is manifest.json of a data set: what it holds and what made it. It is written last.
type Manifest struct {
	FormatVersion int    `json:"format_version"`
	Kind          Kind   `json:"kind"`
	ID            string `json:"id"` // digest of schema, rows and parts; see Dataset.ID
	Schema        Schema `json:"schema"`
	Rows          int64  `json:"rows"`
	From          int64  `json:"from_us"` // first and last event time, microseconds since 1970 UTC; 0 without rows
	To            int64  `json:"to_us"`
	Parts         []Part `json:"parts"`

	Created Created                    `json:"created"`
	Sources []Source                   `json:"sources,omitempty"`
	Counts  map[string]int64           `json:"counts,omitempty"`
	Extra   map[string]json.RawMessage `json:"extra,omitempty"` // of the package that wrote the data set
}

// Part is one Parquet file of a data set, holding consecutive rows.
type Part struct {
	File   string `json:"file"`
	Rows   int64  `json:"rows"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
	From   int64  `json:"from_us"` // least and greatest event time
	To     int64  `json:"to_us"`
}

// Created says what made a data set.
type Created struct {
	Command string    `json:"command"`
	Version string    `json:"version,omitempty"`
	Args    []string  `json:"args,omitempty"`
	Time    time.Time `json:"time"`
}

// Source is a file that a data set was made from.
type Source struct {
	Path   string `json:"path"`
	SHA256 string `json:"sha256,omitempty"` // of the file's bytes as they are, compressed or not
	Rows   int64  `json:"rows"`
}

// digest covers what makes two data sets the same data: not when, where or by which command.
func (m *Manifest) digest() string {
	h := sha256.New()
	fmt.Fprintf(h, "onmart %d %s %d\n", m.FormatVersion, m.Kind, m.Rows)
	for _, f := range m.Schema.Fields {
		fmt.Fprintf(h, "%q %s %d %t\n", f.Name, f.Type, f.Scale, f.Nullable)
	}
	for _, p := range m.Parts {
		fmt.Fprintf(h, "%q %d %d %s %d %d\n", p.File, p.Rows, p.Bytes, p.SHA256, p.From, p.To)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// check finds what no manifest of this code can hold.
func (m *Manifest) check() error {
	switch m.Kind {
	case KindTransactions, KindLog, KindFeatures, KindPredictions, KindPanel, KindInteractions:
	default:
		return fmt.Errorf("it holds %q, not a data set", m.Kind)
	}
	if m.FormatVersion > formatVersion {
		return fmt.Errorf("it has format %d, newer than the %d this onmart reads: update onmart", m.FormatVersion, formatVersion)
	}
	if m.FormatVersion < 1 {
		return fmt.Errorf("its format %d does not exist", m.FormatVersion)
	}
	if err := m.Schema.check(); err != nil {
		return err
	}
	var rows int64
	for _, p := range m.Parts {
		if !filepath.IsLocal(p.File) || filepath.Base(p.File) != p.File {
			return fmt.Errorf("part %q is not a file of this directory", p.File)
		}
		if p.Rows <= 0 || p.Rows > math.MaxInt32 || p.Bytes <= 0 || len(p.SHA256) != 2*sha256.Size {
			return fmt.Errorf("part %s: rows, bytes or checksum cannot be", p.File)
		}
		rows += p.Rows
	}
	if rows != m.Rows {
		return fmt.Errorf("%d rows in its parts, %d in all", rows, m.Rows)
	}
	if m.ID != m.digest() {
		return errors.New("its contents do not match its id: the manifest was changed or damaged")
	}
	return nil
}

// columnName is what a column may be called: no commas, quotes or spaces, so that a name can be used in
// SQL, flags and file formats as it is. Features of published methods have capitals.
var columnName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.]{0,127}$`)

func (s *Schema) check() error {
	if len(s.Fields) == 0 {
		return errors.New("the schema has no columns")
	}
	seen := map[string]bool{}
	for _, f := range s.Fields {
		switch {
		case !columnName.MatchString(f.Name):
			return fmt.Errorf("column %q: a name has letters, digits, _ and dots, and starts with a letter", f.Name)
		case seen[f.Name]:
			return fmt.Errorf("column %s is there twice", f.Name)
		case f.Type < Int64 || f.Type > String:
			return fmt.Errorf("column %s: %s does not exist", f.Name, f.Type)
		case f.Scale < 0 || f.Scale > decimalPrecision || f.Scale != 0 && f.Type != Decimal:
			return fmt.Errorf("column %s: scale %d does not fit a %s", f.Name, f.Scale, f.Type)
		}
		seen[f.Name] = true
	}
	return nil
}

func (s *Schema) equal(o *Schema) bool { return s == o || slices.Equal(s.Fields, o.Fields) }

// checkBatch finds rows that the schema does not allow.
func checkBatch(b *Batch, s *Schema) error {
	if !b.Schema.equal(s) {
		return fmt.Errorf("the batch has columns %v, the data set %v", fieldNames(b.Schema), fieldNames(s))
	}
	for i := range b.Columns {
		f, c := &s.Fields[i], &b.Columns[i]
		if c.length(f.Type) != b.N || c.Null != nil && len(c.Null) != b.N {
			return fmt.Errorf("column %s has %d values for %d rows", f.Name, c.length(f.Type), b.N)
		}
		if !f.Nullable {
			if at := slices.Index(c.Null, true); at >= 0 {
				return fmt.Errorf("column %s has no value in row %d, and may not be null", f.Name, at)
			}
		}
		if at := notFinite(c.Floats); at >= 0 {
			return fmt.Errorf("column %s is %v in row %d: only finite numbers are stored", f.Name, c.Floats[at], at)
		}
	}
	return nil
}

// notFinite is the place of the first NaN or infinity, or -1. x-x is zero of every other number, and NaN stays NaN in
// a sum; four sums at a time, because each waits for the one before.
func notFinite(v []float64) int {
	var a, b, c, d float64
	i := 0
	for ; i+4 <= len(v); i += 4 {
		w := v[i : i+4 : i+4]
		a += w[0] - w[0]
		b += w[1] - w[1]
		c += w[2] - w[2]
		d += w[3] - w[3]
	}
	for _, x := range v[i:] {
		a += x - x
	}
	if a+b+c+d == 0 {
		return -1
	}
	return slices.IndexFunc(v, func(x float64) bool { return x-x != 0 })
}

func fieldNames(s *Schema) []string {
	names := make([]string, len(s.Fields))
	for i := range s.Fields {
		names[i] = s.Fields[i].Name
	}
	return names
}

// truncate empties the batch and keeps its memory.
func (b *Batch) truncate() {
	b.N = 0
	for i := range b.Columns {
		c := &b.Columns[i]
		clear(c.Strings) // or the texts stay in memory
		*c = Column{Ints: c.Ints[:0], Floats: c.Floats[:0], Strings: c.Strings[:0]}
	}
}

// appendRows appends rows from..to of o, which has the same schema.
func (b *Batch) appendRows(o *Batch, from, to int) {
	for i := range b.Columns {
		dst, src := &b.Columns[i], &o.Columns[i]
		if src.Null != nil && dst.Null == nil {
			dst.Null = make([]bool, b.N, b.N+to-from)
		}
		if dst.Null != nil {
			if src.Null != nil {
				dst.Null = append(dst.Null, src.Null[from:to]...)
			} else {
				dst.Null = append(dst.Null, make([]bool, to-from)...)
			}
		}
		switch b.Schema.Fields[i].Type {
		case Float64:
			dst.Floats = append(dst.Floats, src.Floats[from:to]...)
		case String:
			dst.Strings = append(dst.Strings, src.Strings[from:to]...)
		default:
			dst.Ints = append(dst.Ints, src.Ints[from:to]...)
		}
	}
	b.N += to - from
}

// gather is the given rows of the batch, in that order.
func (b *Batch) gather(rows []int32) *Batch {
	out := &Batch{Schema: b.Schema, N: len(rows), Columns: make([]Column, len(b.Columns))}
	for i := range b.Columns {
		src, dst := &b.Columns[i], &out.Columns[i]
		dst.Ints = pick(src.Ints, rows)
		dst.Floats = pick(src.Floats, rows)
		dst.Strings = pick(src.Strings, rows)
		dst.Null = pick(src.Null, rows)
	}
	return out
}

func pick[T any](v []T, rows []int32) []T {
	if v == nil {
		return nil
	}
	out := make([]T, len(rows))
	for i, r := range rows {
		out[i] = v[r]
	}
	return out
}

// HasTime tells whether rows can be chosen by time.
func (s *Schema) HasTime() bool { return s.timeColumn() >= 0 }

// timeColumn is the place of the column that a schema's rows are ordered and chosen by, or -1.
func (s *Schema) timeColumn() int {
	for _, name := range []string{TransDatetime, StepTime, InteractionTime} {
		if i := s.Index(name); i >= 0 && s.Fields[i].Type == Time {
			return i
		}
	}
	return -1
}

// rowTimes gives the times by which a batch's rows are placed in a Range: event time, or for a label,
// which has none of its own, when it was known. Null where the batch has neither.
func rowTimes(b *Batch) []int64 {
	at := b.Schema.timeColumn()
	if at < 0 {
		return nil
	}
	t, k := &b.Columns[at], b.Column(KnownAt)
	if k == nil || t.Null == nil {
		return t.Ints
	}
	out := slices.Clone(t.Ints)
	for i, null := range t.Null {
		if null {
			out[i] = k.Ints[i]
		}
	}
	return out
}

func timeBounds(b *Batch) (from, to int64) {
	t := rowTimes(b)
	if len(t) == 0 {
		return 0, 0
	}
	return slices.Min(t), slices.Max(t)
}

// Dataset is a data set on disk, opened for reading. It may be used by several goroutines.
type Dataset struct {
	dir      string
	manifest Manifest
}

// Open reads and checks the manifest and that each part is there with its size. The contents are
// checked by Read and Verify.
func Open(dir string) (*Dataset, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("open data set: %w", err)
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("open data set: %s is a file: give the directory that onmart import or onmart features wrote", dir)
	}
	text, err := readManifest(filepath.Join(dir, atomicdir.ManifestName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open data set: %s has no %s: it is not a data set, or not a whole one; make it again", dir, atomicdir.ManifestName)
	}
	if err != nil {
		return nil, fmt.Errorf("open data set: %w", err)
	}
	m, err := parseManifest(text)
	if err != nil {
		return nil, fmt.Errorf("open data set: %s: %w", filepath.Join(dir, atomicdir.ManifestName), err)
	}
	for _, p := range m.Parts {
		path := filepath.Join(dir, p.File)
		info, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("open data set: %s is missing: restore it, or make %s again", path, dir)
		}
		if err != nil {
			return nil, fmt.Errorf("open data set: %w", err)
		}
		if info.Size() != p.Bytes {
			return nil, fmt.Errorf("open data set: %s has %d bytes, the manifest says %d: it was cut or changed; make %s again", path, info.Size(), p.Bytes, dir)
		}
	}
	return &Dataset{dir: dir, manifest: *m}, nil
}

func readManifest(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, manifestLimit+1))
	if err != nil {
		return nil, err
	}
	if len(text) > manifestLimit {
		return nil, fmt.Errorf("%s is larger than any manifest", path)
	}
	return text, nil
}

func parseManifest(text []byte) (*Manifest, error) {
	// The kind and version first: a manifest of another kind need not have the same fields.
	var head struct {
		FormatVersion int    `json:"format_version"`
		Kind          string `json:"kind"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, fmt.Errorf("it cannot be read: %w", err)
	}
	probe := Manifest{Kind: Kind(head.Kind), FormatVersion: head.FormatVersion}
	var m Manifest
	if err := json.Unmarshal(text, &m); err != nil {
		if perr := probe.check(); head.FormatVersion > formatVersion || head.FormatVersion < 1 {
			return nil, perr
		}
		return nil, fmt.Errorf("it cannot be read: %w", err)
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	return &m, nil
}

// Manifest is what the data set says of itself. It is not to be changed.
func (d *Dataset) Manifest() *Manifest { return &d.manifest }

// Dir is the directory as it was given to Open.
func (d *Dataset) Dir() string { return d.dir }

// Schema is the columns of the data set.
func (d *Dataset) Schema() *Schema { return &d.manifest.Schema }

// ID is a digest of schema, rows and checksums: equal data have equal ids, whenever and from whatever
// they were made.
func (d *Dataset) ID() string { return d.manifest.ID }

// ReadOptions says what of a data set to read.
type ReadOptions struct {
	Columns []string // in this order; nil is all
	Range   Range    // of event time; a label of a log is placed by when it was known
	Threads int      // decoding goroutines; 0 is one a core
	// Reuse says that f is done with a batch when it returns, so that its memory serves again: without it, making and
	// clearing memory is a third of the work.
	Reuse bool
}

// Read hands the rows to f in log order, in batches of at most 65,536 rows which f may keep. Checksums are
// verified on the way: what f sees is what was written. Parts outside the range are not read. Batches are decoded
// ahead while f is at work.
func (d *Dataset) Read(ctx context.Context, o ReadOptions, f func(*Batch) error) error {
	read, drop, err := d.columns(&o)
	if err != nil {
		return err
	}
	threads := o.Threads
	if threads <= 0 {
		threads = runtime.GOMAXPROCS(0)
	}
	from, to := o.Range.Bounds()
	var parts []Part
	for _, p := range d.manifest.Parts {
		if d.Schema().timeColumn() < 0 || p.To >= from && p.From < to {
			parts = append(parts, p)
		}
	}
	r := &reading{d: d, columns: read, keep: len(read) - drop, cut: o.Range, reuse: o.Reuse}
	return r.run(ctx, parts, threads, f)
}

// columns resolves the names asked for and adds, at the end, those that only the range needs.
func (d *Dataset) columns(o *ReadOptions) (read []int, drop int, err error) {
	s := d.Schema()
	if o.Columns == nil {
		for i := range s.Fields {
			read = append(read, i)
		}
	}
	for _, name := range o.Columns {
		i := s.Index(name)
		if i < 0 {
			return nil, 0, fmt.Errorf("%s has no column %s%s", d.dir, name, didYouMean(name, fieldNames(s)))
		}
		read = append(read, i)
	}
	if o.Range == (Range{}) {
		return read, 0, nil
	}
	at := s.timeColumn()
	if at < 0 {
		return nil, 0, fmt.Errorf("%s has no column %s to choose a range by", d.dir, TransDatetime)
	}
	for _, i := range []int{at, s.Index(KnownAt)} {
		if i >= 0 && !slices.Contains(read, i) {
			read = append(read, i)
			drop++
		}
	}
	return read, drop, nil
}

// cut is the rows of the batch inside the range.
func cut(b *Batch, r Range) *Batch {
	if r == (Range{}) {
		return b
	}
	var rows []int32
	for i, t := range rowTimes(b) {
		if r.Contains(t) {
			rows = append(rows, int32(i))
		}
	}
	if n := len(rows); n > 0 && int(rows[n-1]-rows[0]) == n-1 {
		return b.Slice(int(rows[0]), int(rows[0])+n)
	}
	return b.gather(rows)
}

// first is the batch with its first n columns.
func (b *Batch) first(n int) *Batch {
	if n == len(b.Columns) {
		return b
	}
	return &Batch{Schema: &Schema{Fields: b.Schema.Fields[:n]}, N: b.N, Columns: b.Columns[:n]}
}

// Verify reads everything and reports the first thing that is not as the manifest says.
func (d *Dataset) Verify(ctx context.Context) error {
	var rows int64
	if err := d.Read(ctx, ReadOptions{}, func(b *Batch) error { rows += int64(b.N); return nil }); err != nil {
		return err
	}
	if rows != d.manifest.Rows {
		return fmt.Errorf("%s holds %d rows, the manifest says %d", d.dir, rows, d.manifest.Rows)
	}
	return nil
}
