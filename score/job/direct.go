package job

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/internal/varint"
	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/monitor"
	"github.com/onmart/onmart/score/state"
)

// inline reads events out of entries.
type inline struct {
	events, labels *datasets.EventDecoder
	rows           *datasets.Batch
}

const (
	inlineEvents = 1
	inlineLabels = 2 // decoded as labels alone
)

// Direct scores events that no source can give again: their bytes go into the journal. It returns once they are safe there.
// The scorer's lines are in out.
func (j *Job) Direct(ev score.Events, labels bool, out *score.Lines) (score.Counts, error) {
	counts, err := j.foldDirect(ev, labels, out)
	if err != nil || ev.Rows.N == 0 {
		return counts, err
	}
	return counts, j.safe()
}

func (j *Job) foldDirect(ev score.Events, labels bool, out *score.Lines) (score.Counts, error) {
	j.fold.Lock()
	defer j.fold.Unlock()
	score.Place(ev.Rows, j.number(score.HTTPSource), ev.Positions)
	counts, err := j.scorer.ProcessLines(ev, out)
	if err != nil || ev.Rows.N == 0 {
		return counts, err
	}
	j.last++
	e := state.Entry{N: j.last, Inline: appendInline(nil, &ev, labels), Sink: j.length, Partitions: j.fresh}
	if err := j.store.Append(&e); err != nil {
		j.monitor.Error(monitor.StateFault)
		return counts, err
	}
	clear(j.fresh)
	return counts, nil
}

// appendInline writes the events as they came, with their positions.
func appendInline(dst []byte, ev *score.Events, labels bool) []byte {
	kind := byte(inlineEvents)
	if labels {
		kind = inlineLabels
	}
	dst = append(dst, kind)
	for i, raw := range ev.Raw {
		dst = binary.AppendVarint(dst, ev.Positions[i])
		dst = binary.AppendUvarint(dst, uint64(len(raw)))
		dst = append(dst, raw...)
	}
	return dst
}

// directAgain folds an entry's own events. It returns how many there are.
func (j *Job) directAgain(e *state.Entry) (int, error) {
	if len(e.Inline) == 0 {
		return 0, nil
	}
	if j.direct == nil {
		d := &inline{rows: datasets.NewBatch(j.schema, 1)}
		var errs [2]error
		d.events, errs[0] = j.o.Mapping.NewEventDecoder(score.HTTPSource)
		d.labels, errs[1] = j.o.Mapping.NewEventDecoder(score.HTTPSource)
		if err := errors.Join(errs[:]...); err != nil {
			return 0, err
		}
		d.labels.LabelsOnly()
		j.direct = d
	}
	d := j.direct
	decoder := d.events
	if e.Inline[0] == inlineLabels {
		decoder = d.labels
	}
	d.rows.Reset()
	ev := score.Events{Sources: []string{score.HTTPSource}, Rows: d.rows}
	r := varint.Reader{B: e.Inline[1:], Bad: e.Inline[0] != inlineEvents && e.Inline[0] != inlineLabels}
	for len(r.B) > 0 && !r.Bad {
		at := r.Int()
		raw := r.Bytes()
		if r.Bad {
			break
		}
		if reject := decoder.Append(d.rows, raw, at); reject != nil {
			return 0, fmt.Errorf("an event that was scored before cannot be read by this mapping: %s: %s; start once with the mapping it had",
				reject.Column, reject.Reason)
		}
		ev.Positions, ev.Raw = append(ev.Positions, at), append(ev.Raw, raw)
	}
	if r.Bad {
		return 0, errors.New("it cannot be read: the state is damaged; move it away and start from a backfill")
	}
	score.Place(d.rows, j.number(score.HTTPSource), ev.Positions)
	j.scratch.Reset()
	return len(ev.Positions), j.scorer.Again(ev, &j.scratch)
}
