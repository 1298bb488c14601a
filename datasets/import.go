package datasets

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"os"
	"slices"
	"sync/atomic"

	"github.com/onmart/onmart/internal/atomicdir"
)

// ImportOptions says what to import and where to.
type ImportOptions struct {
	Mapping *Mapping
	Format  Format   // "" is the mapping's, or by the files' names
	Files   []string // in this order; "-" is standard input
	Out     string   // the data set's directory
	Force   bool     // replace Out
	Created Created  // stands in the manifest; Time is set where it is zero

	// Continue, for a mapping of wide files, is a data set of one: each series goes on where it ends there.
	Continue *Dataset

	// MaxRejects is the share of rows, duplicates among them, that may be unusable: 0.001 is one in a thousand.
	MaxRejects float64
	// Progress, where given, is called now and then with the rows read and the bytes of the files done
	// so far; total is 0 where it is not known.
	Progress func(rows, done, total int64)
}

// Names in Manifest.Counts of an import. Read is the sum of kept, rejected and duplicates.
const (
	CountRead       = "read"
	CountKept       = "kept"
	CountRejected   = "rejected"   // could not be read; rejects.jsonl has them
	CountDuplicates = "duplicates" // repeat a row; rejects.jsonl has them too
	CountRounded    = "rounded"    // values with more decimals than their column keeps
	CountOutOfOrder = "out_of_order"
)

// RejectsFile is the file of a data set with the rows that were not imported, one JSON object a line.
const RejectsFile = "rejects.jsonl"

// hopeless is after how many rows an import stops where most of them are rejects: the mapping is wrong.
const hopeless = 10_000

// Import reads files into a new data set, sorted by event time, rows of equal time in the order of the
// files. The directory appears whole or not at all. Where more than the allowed share of rows cannot be
// used the error says so, and the rejects are kept beside, as OUT.rejects.jsonl.
//
// All rows are held in memory until they are sorted: about 10 bytes a number and row, 80 MiB for a
// million rows of eight columns.
func Import(ctx context.Context, o ImportOptions) (*Manifest, error) {
	if o.Mapping == nil || len(o.Files) == 0 || o.Out == "" {
		return nil, errors.New("import: want a mapping, at least one file and an output directory")
	}
	// Checked first, and once more on commit: an hour of reading must not end in a name that is taken.
	probe, err := atomicdir.Create(o.Out, o.Force)
	if err != nil {
		return nil, err
	}
	probe.Abort()
	im := &importer{o: o, rows: NewBatch(o.Mapping.schema, 1<<16)}
	if err := im.read(ctx); err != nil {
		return nil, err
	}
	if err := im.number(); err != nil {
		return nil, err
	}
	if err := im.checkRejects(true); err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	if im.rows.N == 0 {
		return nil, errors.New("import: none of the rows can be used")
	}
	im.sort()
	im.dropEmpty()
	return im.write(ctx)
}

// importer is an import under way.
type importer struct {
	o       ImportOptions
	rows    *Batch
	lines   []int64 // the line of each row in its file
	ends    []int   // of each file, one past its last row
	sources []Source
	rejects []Reject

	rejected, duplicates, rounded, outOfOrder int64
	wideValues, missing                       int64
	done                                      atomic.Int64 // bytes read
	total                                     int64
}

// readRows is the rows so far, or of wide files the values.
func (im *importer) readRows() int64 { return int64(im.rows.N) + im.rejected + im.duplicates }

// read decodes the files one after the other.
func (im *importer) read(ctx context.Context) error {
	if err := noneTwice(im.o.Files); err != nil {
		return err
	}
	for _, path := range im.o.Files {
		info, err := os.Stat(path)
		if path == "-" || err == nil && !info.Mode().IsRegular() {
			im.total = 0
			break
		}
		if err != nil {
			return fmt.Errorf("import: %w", err)
		}
		im.total += info.Size()
	}
	if im.o.Mapping.wide != nil {
		return im.readWide(ctx)
	}
	if im.o.Continue != nil {
		return errors.New("import: only series of wide files go on where those of another data set end")
	}
	for _, path := range im.o.Files {
		if err := im.readFile(ctx, path); err != nil {
			return err
		}
		im.ends = append(im.ends, im.rows.N)
	}
	return nil
}

// noneTwice refuses a file that is named twice, under whatever names: where the mapping numbers lines, each of
// its purchases would count twice.
func noneTwice(files []string) error {
	infos := make([]os.FileInfo, len(files))
	for i, path := range files {
		if path != "-" {
			infos[i], _ = os.Stat(path) // opening it says what is wrong
		}
		for j := range i {
			if path == "-" && files[j] == "-" || infos[i] != nil && infos[j] != nil && os.SameFile(infos[i], infos[j]) {
				return fmt.Errorf("import: %s and %s are one file: name it once", files[j], path)
			}
		}
	}
	return nil
}

// counted hashes and counts the bytes of a file as they are read.
type counted struct {
	r    io.Reader
	h    hash.Hash
	done *atomic.Int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.h.Write(b[:n])
	c.done.Add(int64(n))
	return n, err
}

func (im *importer) readFile(ctx context.Context, path string) error {
	format := im.o.Format
	if format == "" {
		format = im.o.Mapping.format
	}
	if format == "" {
		format = formatOf(path)
	}
	if format == "" {
		return fmt.Errorf("import: cannot tell the format of %s: give format in the mapping or --format csv or jsonl", path)
	}
	f, err := openRaw(path)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	// A read that waits for a terminal outlives its context; the file is then left to the process's end.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if path != "-" {
		defer f.Close()
	}
	raw := &counted{r: f, h: sha256.New(), done: &im.done}
	z, err := uncompress(raw, path)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	d, err := im.o.Mapping.NewDecoder(newReadAhead(ctx, z), path, format)
	if err != nil {
		return fmt.Errorf("import: %w", err)
	}
	before := im.readRows()
	for {
		n, err := d.Next(im.rows, readRows)
		im.lines = append(im.lines, d.Lines()...)
		rejects := d.Rejects()
		im.rejected += int64(len(rejects))
		im.rejects = append(im.rejects, rejects...)
		if im.o.Progress != nil {
			im.o.Progress(im.readRows(), im.done.Load(), im.total)
		}
		if err == io.EOF && n == 0 {
			break
		}
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = im.checkRejects(false)
		}
		if err != nil {
			return fmt.Errorf("import: %w", err)
		}
	}
	if im.readRows() == before {
		if format == JSONL {
			return fmt.Errorf("import: %s is empty: want one JSON object a line", path)
		}
		return fmt.Errorf("import: %s has a header and no rows", path)
	}
	im.rounded += d.Rounded()
	made := Source{Path: path, SHA256: hex.EncodeToString(raw.h.Sum(nil)), Rows: im.readRows() - before}
	for _, s := range im.sources {
		if s.SHA256 == made.SHA256 {
			return fmt.Errorf("import: %s and %s hold the same bytes: name one of them", s.Path, path)
		}
	}
	im.sources = append(im.sources, made)
	return nil
}

// place names the file and line of a row.
func (im *importer) place(row int) (file string, line int64) {
	at, _ := slices.BinarySearchFunc(im.ends, row, func(end, row int) int {
		if end <= row {
			return -1
		}
		return 1
	})
	return im.o.Files[at], im.lines[row]
}

// checkRejects fails where too many rows were unusable: at the end, or early where it cannot get better.
func (im *importer) checkRejects(last bool) error {
	bad, all := im.rejected+im.duplicates, im.readRows()
	if float64(bad) <= im.o.MaxRejects*float64(all) || !last && (bad < hopeless || 2*bad < all || im.o.MaxRejects >= 0.5) {
		return nil
	}
	kept := im.o.Out + ".rejects.jsonl"
	if im.o.Out == "" || len(im.rejects) == 0 {
		return nil
	}
	text, err := rejectLines(im.rejects)
	if err == nil {
		err = atomicdir.WriteFile(kept, text, true)
	}
	where := "they are in " + kept
	if err != nil {
		where = fmt.Sprintf("they could not be written to %s (%v)", kept, err)
	}
	first := im.rejects[0]
	what := fmt.Sprintf("%d of %d rows cannot be used", bad, all)
	if !last {
		what += " so far, and reading was stopped"
	}
	column := ""
	if first.Column != "" {
		column = first.Column + ": "
	}
	return fmt.Errorf("%s, more than --max-rejects %g allows; the first is %s:%d: %s%s; %s; nothing was imported",
		what, im.o.MaxRejects, first.File, first.Line, column, first.Reason, where)
}

func rejectLines(rejects []Reject) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	for i := range rejects {
		if err := enc.Encode(&rejects[i]); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), nil
}

// number takes out duplicates and gives a line to the rows that have none.
func (im *importer) number() error {
	id := im.rows.Column(TransID)
	if id.Strings != nil {
		return numberBy(im, id.Strings)
	}
	return numberBy(im, id.Ints)
}

// purchase is what is known of a trans_id while its lines are numbered.
type purchase struct {
	next  int64 // line for the next row without one
	first int32 // its first row
}

func numberBy[K int64 | string](im *importer, ids []K) error {
	if len(ids) > math.MaxInt32 {
		return fmt.Errorf("import: more than %d rows at once: import them in parts", math.MaxInt32)
	}
	line := im.rows.Column(Line)
	if line == nil && ascending(ids) {
		return nil // a unique id that only rises needs no table of what was seen
	}
	type key struct {
		id   K
		line int64
	}
	seen := make(map[K]purchase, len(ids))
	given := map[key]int32{} // rows that brought their line
	var drop []int32
	for i, id := range ids {
		p, again := seen[id]
		if !again {
			p.first = int32(i)
		}
		duplicateOf := int32(-1)
		switch {
		case line == nil && again:
			duplicateOf = p.first
		case line == nil:
		case line.IsNull(i):
			line.Ints[i], line.Null[i] = p.next, false
			p.next++
		default:
			k := key{id, line.Ints[i]}
			if at, ok := given[k]; ok {
				duplicateOf = at
				break
			}
			given[k] = int32(i)
			p.next = max(p.next, k.line+1)
		}
		seen[id] = p
		if duplicateOf >= 0 {
			drop = append(drop, int32(i))
			im.duplicate(i, int(duplicateOf))
		}
	}
	if line != nil {
		line.Null = nil
	}
	im.drop(drop)
	return nil
}

func ascending[K int64 | string](ids []K) bool {
	for i := 1; i < len(ids); i++ {
		if ids[i] <= ids[i-1] {
			return false
		}
	}
	return true
}

// duplicate records row i as a repetition of an earlier one.
func (im *importer) duplicate(i, of int) {
	file, at := im.place(i)
	firstFile, firstAt := im.place(of)
	where := fmt.Sprintf("line %d", firstAt)
	if firstFile != file {
		where = fmt.Sprintf("%s:%d", firstFile, firstAt)
	}
	column := TransID
	im.rejects = append(im.rejects, Reject{File: file, Line: at, Column: column,
		Reason: "is a duplicate of " + where, Row: bounded(rowText(im.rows, i), rejectRowLimit)})
	im.duplicates++
}

// rowText shows a row by its canonical names, where the source's text is gone.
func rowText(b *Batch, row int) []byte {
	out := []byte{'{'}
	for i, f := range b.Schema.Fields {
		if b.Columns[i].IsNull(row) {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		value, err := json.Marshal(FormatValue(&f, &b.Columns[i], row))
		if err != nil {
			value = []byte(`""`)
		}
		out = fmt.Appendf(out, "%q:%s", f.Name, value)
	}
	return append(out, '}')
}

// drop takes rows out. The rows count among the duplicates already.
func (im *importer) drop(rows []int32) {
	if len(rows) == 0 {
		return
	}
	keep := make([]int32, 0, im.rows.N-len(rows))
	next := 0
	for i := range int32(im.rows.N) {
		if next < len(rows) && rows[next] == i {
			next++
			continue
		}
		keep = append(keep, i)
	}
	im.rows = im.rows.gather(keep)
}

// sort orders the rows by event time, those of equal time as they were read.
func (im *importer) sort() {
	t := im.rows.Column(TransDatetime).Ints
	latest := t[0]
	for _, us := range t {
		if us < latest {
			im.outOfOrder++
		}
		latest = max(latest, us)
	}
	if im.outOfOrder == 0 {
		return
	}
	order := make([]int32, len(t))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int {
		switch {
		case t[a] < t[b]:
			return -1
		case t[a] > t[b]:
			return 1
		}
		return 0
	})
	im.rows = im.rows.gather(order)
}

// dropEmpty leaves out optional columns without any value, and settles that lines have no nulls.
func (im *importer) dropEmpty() {
	b := &Batch{Schema: &Schema{}, N: im.rows.N}
	for i, f := range im.rows.Schema.Fields {
		c := im.rows.Columns[i]
		if im.o.Mapping.columns[i].optional && c.Null != nil && !slices.Contains(c.Null, false) {
			continue
		}
		if f.Name == Line {
			f.Nullable = false
		}
		b.Schema.Fields = append(b.Schema.Fields, f)
		b.Columns = append(b.Columns, c)
	}
	im.rows = b
}

func (im *importer) write(ctx context.Context) (*Manifest, error) {
	w, err := Create(im.o.Out, KindTransactions, im.rows.Schema, im.o.Force)
	if err != nil {
		return nil, err
	}
	defer w.Abort()
	for at := 0; at < im.rows.N; at += readRows {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("import: %w", err)
		}
		if err := w.Write(im.rows.Slice(at, min(at+readRows, im.rows.N))); err != nil {
			return nil, err
		}
	}
	if err := im.writeRejects(w); err != nil {
		return nil, err
	}
	m := w.Manifest()
	now := m.Created.Time
	m.Created = im.o.Created
	if m.Created.Time.IsZero() {
		m.Created.Time = now
	}
	m.Sources = im.sources
	m.Counts = map[string]int64{
		CountRead: im.readRows(), CountKept: int64(im.rows.N), CountRejected: im.rejected,
		CountDuplicates: im.duplicates, CountRounded: im.rounded, CountOutOfOrder: im.outOfOrder,
	}
	if im.o.Mapping.wide != nil {
		delete(m.Counts, CountOutOfOrder) // the rows of a wide file have no order in time
		m.Counts[CountMissing] = im.missing
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	if err := w.Commit(); err != nil {
		return nil, err
	}
	return m, nil
}

func (im *importer) writeRejects(w *Writer) error {
	if len(im.rejects) == 0 {
		return nil
	}
	text, err := rejectLines(im.rejects)
	if err != nil {
		return err
	}
	f, err := w.SideFile(RejectsFile)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}
