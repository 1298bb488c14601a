package features

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/internal/atomicdir"
)

// RejectsFile is the file of a features data set with the rows of the input that were set aside.
const RejectsFile = datasets.RejectsFile

// Reject is one line of rejects.jsonl: a row that was neither computed nor folded.
type Reject struct {
	Position int64  `json:"position"` // row of the input, from 0; of data sets that were appended, of all of them in order
	TransID  any    `json:"trans_id"` // null where the row has none
	Line     *int64 `json:"line,omitempty"`
	Time     string `json:"trans_datetime,omitempty"`
	Status   string `json:"status"` // invalid, duplicate, future or late_skipped
	Column   string `json:"column,omitempty"`
	Reason   string `json:"reason"`
}

const (
	// rejectsHopeless is after how many rows a run stops where most of them are invalid, as an import does.
	rejectsHopeless = 10_000
	// rejectsKept is how many rejects a run that fails for them leaves beside its output; reading goes on past none of
	// these limits in memory.
	rejectsKept = 10_000
)

// rejectLog writes down the rows that are set aside.
type rejectLog struct {
	b       *backfill
	limit   *float64 // share of invalid rows, nil for no limit
	invalid int64
	first   []Reject // the first invalid rows
	base    int64    // position of the input's first row
	file    io.WriteCloser
	buf     bytes.Buffer
	fresh   bytes.Buffer // what no checkpoint has
}

// add lists what a batch set aside; at is the position of its first row.
func (l *rejectLog) add(in *datasets.Batch, out *Rows, at int64) error {
	if out.N == in.N {
		return nil
	}
	next := 0 // of out.Input
	for i, s := range out.Status {
		if next < out.N && int(out.Input[next]) == i {
			next++
			continue
		}
		if !s.setAside() {
			continue
		}
		r := l.reject(in, i, l.base+at+int64(i), s)
		if s == Invalid {
			l.invalid++
		}
		l.remember(r)
		if err := l.write(&r); err != nil {
			return err
		}
	}
	return l.check(at+int64(in.N), false)
}

// setAside tells the ends of a row that was neither computed nor folded, nor is a label that found its place.
func (s Status) setAside() bool {
	return s == Invalid || s == Duplicate || s == LateSkipped || s == FutureEvent
}

func (l *rejectLog) reject(in *datasets.Batch, i int, position int64, s Status) Reject {
	p := l.b.plan
	r := Reject{Position: position, Status: s.String()}
	if id, line, _ := p.identity(in, i, none); !in.Columns[p.id].IsNull(i) {
		if r.TransID = any(id.number); p.idText {
			r.TransID = id.text
		}
		if line != none {
			r.Line = &line
		}
	}
	if c := &in.Columns[p.time]; !c.IsNull(i) && c.Ints[i] <= maxTime && c.Ints[i] >= -maxTime {
		r.Time = datasets.FormatTime(c.Ints[i])
	}
	switch s {
	case Invalid:
		column, reason := p.Fault(in, i)
		r.Column, r.Reason = column, column+" "+reason
	case Duplicate:
		r.Reason = "its trans_id and line were there already"
	case LateSkipped:
		r.Reason = fmt.Sprintf("it is more than the lateness of %s behind the newest before it, and the spec skips such rows",
			datasets.FormatDuration(p.lateness))
	case FutureEvent:
		r.Reason = fmt.Sprintf("it is more than %s after the newest before it, and none before it agrees",
			datasets.FormatDuration(p.spec.future))
	}
	return r
}

// remember keeps the first invalid rows, for a run that fails for them.
func (l *rejectLog) remember(r Reject) {
	if r.Status == Invalid.String() && l.limit != nil && len(l.first) < rejectsKept {
		l.first = append(l.first, r)
	}
}

// write appends a line to rejects.jsonl.
func (l *rejectLog) write(r *Reject) error {
	if l.b.w == nil {
		return nil
	}
	l.buf.Reset()
	if err := encodeReject(&l.buf, r); err != nil {
		return err
	}
	if l.b.CheckpointEvery > 0 && !l.b.Append {
		l.fresh.Write(l.buf.Bytes())
	}
	return l.put(l.buf.Bytes())
}

// put writes to rejects.jsonl, which is made with the first line.
func (l *rejectLog) put(lines []byte) error {
	if l.file == nil {
		f, err := l.b.w.SideFile(RejectsFile)
		if err != nil {
			return err
		}
		l.file = f
	}
	_, err := l.file.Write(lines)
	return err
}

// carry puts the lines of an earlier rejects.jsonl at the start of this one. Those of this run are remembered.
func (l *rejectLog) carry(from io.Reader, own bool) error {
	in := bufio.NewReader(from)
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			if own {
				var r Reject
				if err := json.Unmarshal(line, &r); err != nil {
					return fmt.Errorf("%s: %w", RejectsFile, err)
				}
				l.remember(r)
			}
			if err := l.put(line); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func encodeReject(w io.Writer, r *Reject) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(r)
}

// check fails where too many rows are invalid: at the end, or early where it cannot get better.
func (l *rejectLog) check(rows int64, last bool) error {
	if l.limit == nil || float64(l.invalid) <= *l.limit*float64(rows) ||
		!last && (l.invalid < rejectsHopeless || 2*l.invalid < rows || *l.limit >= 0.5) {
		return nil
	}
	what := fmt.Sprintf("%d of %d rows are invalid", l.invalid, rows)
	if !last {
		what += " so far, and the run was stopped"
	}
	where := ""
	if l.b.Out != "" {
		kept := l.b.Out + "." + RejectsFile
		if err := l.keep(kept); err != nil {
			where = fmt.Sprintf("; they could not be written to %s (%v)", kept, err)
		} else if where = "; they are in " + kept; int64(len(l.first)) < l.invalid {
			where = fmt.Sprintf("; the first %d are in %s", len(l.first), kept)
		}
	}
	first := l.first[0]
	return &tooManyRejects{fmt.Sprintf("%s, more than --max-rejects %g allows; the first is row %d of %s: %s%s; "+
		"nothing was written: mend the data, or allow more",
		what, *l.limit, first.Position-l.base+1, l.b.In.Dir(), first.Reason, where)}
}

// tooManyRejects ends a run for good.
type tooManyRejects struct{ text string }

func (e *tooManyRejects) Error() string { return e.text }

func (l *rejectLog) keep(path string) error {
	var text bytes.Buffer
	for i := range l.first {
		if err := encodeReject(&text, &l.first[i]); err != nil {
			return err
		}
	}
	return atomicdir.WriteFile(path, text.Bytes(), true)
}

// end closes the list of a run of so many rows.
func (l *rejectLog) end(rows int64) error {
	if err := l.check(rows, true); err != nil {
		return err
	}
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}
