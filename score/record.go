package score

import (
	"encoding/json"
	"io"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
)

// Recorder writes the log of a scorer as a data set of kind log: every event that was folded, in the order it
// was folded or set aside by the engine, with its seq; what could not be read goes to rejects.jsonl beside it. `onmart
// features` on such a log gives the features that were scored, to the last bit.
type Recorder struct {
	w       *datasets.Writer
	rejects io.WriteCloser
	enc     *json.Encoder
	schema  *datasets.Schema
	seq     int64
}

// NewRecorder begins a log directory; it appears whole when Close succeeds.
func NewRecorder(dir string, events *datasets.Schema, force bool) (*Recorder, error) {
	schema := &datasets.Schema{Fields: append([]datasets.Field{{Name: datasets.Seq, Type: datasets.Int64}}, events.Fields...)}
	w, err := datasets.Create(dir, datasets.KindLog, schema, force)
	if err != nil {
		return nil, err
	}
	return &Recorder{w: w, schema: schema}, nil
}

// Manifest to fill in what made the log, before Close.
func (r *Recorder) Manifest() *datasets.Manifest { return r.w.Manifest() }

// start keeps the state that the log begins from beside it, and the tables that the features join, so that its features
// can be computed again from the log alone.
func (r *Recorder) start(e *features.Engine, tables *features.Tables) error {
	if err := tables.WriteBeside(r.w); err != nil {
		return err
	}
	f, err := r.w.SideFile(features.StartStateFile)
	if err != nil {
		return err
	}
	if err := e.Snapshot(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// Close completes the directory. Abort removes it instead; it does nothing after Close.
func (r *Recorder) Close() error {
	if r.rejects != nil {
		if err := r.rejects.Close(); err != nil {
			return err
		}
	}
	return r.w.Commit()
}

// Abort removes what was written.
func (r *Recorder) Abort() { r.w.Abort() }

func (r *Recorder) write(b *datasets.Batch, status []features.Status, rejects []Reject) error {
	log := datasets.NewBatch(r.schema, b.N)
	for i := range b.N {
		if status[i] == features.Duplicate {
			continue
		}
		log.Columns[0].Ints = append(log.Columns[0].Ints, r.seq)
		r.seq++
		log.N++
		for c := range b.Columns {
			appendCell(&log.Columns[c+1], &b.Columns[c], i, log.N)
		}
	}
	if log.N > 0 {
		if err := r.w.Write(log); err != nil {
			return err
		}
	}
	for i := range rejects {
		if err := r.reject(&rejects[i].Reject); err != nil {
			return err
		}
	}
	return nil
}

func (r *Recorder) reject(x *datasets.Reject) error {
	if r.rejects == nil {
		f, err := r.w.SideFile("rejects.jsonl")
		if err != nil {
			return err
		}
		r.rejects, r.enc = f, json.NewEncoder(f)
	}
	return r.enc.Encode(x)
}

// appendRow copies row i of src, which has the same schema, to the end of dst.
func appendRow(dst, src *datasets.Batch, i int) {
	dst.N++
	for c := range src.Columns {
		appendCell(&dst.Columns[c], &src.Columns[c], i, dst.N)
	}
}

// appendCell copies one cell to the end of dst, which then has n rows.
func appendCell(dst, src *datasets.Column, i, n int) {
	switch {
	case src.Strings != nil:
		dst.Strings = append(dst.Strings, src.Strings[i])
	case src.Floats != nil:
		dst.Floats = append(dst.Floats, src.Floats[i])
	default:
		dst.Ints = append(dst.Ints, src.Ints[i])
	}
	if src.IsNull(i) && dst.Null == nil {
		dst.Null = make([]bool, n-1, cap(dst.Ints)+cap(dst.Floats)+cap(dst.Strings))
	}
	if dst.Null != nil {
		dst.Null = append(dst.Null, src.IsNull(i))
	}
}
