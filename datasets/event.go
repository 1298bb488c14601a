package datasets

import "fmt"

// MaxEvent bounds one live event in bytes: 10,000 times what a purchase's line has.
const MaxEvent = 1 << 20

var errEventSize = fmt.Errorf("is larger than %d bytes, which no event is", MaxEvent)

// EventDecoder decodes live events, JSON objects that come one at a time with a position in their log. It is used by
// one goroutine.
type EventDecoder struct{ d *Decoder }

// NewEventDecoder decodes events of a source, whose name stands in rejects.
func (m *Mapping) NewEventDecoder(source string) (*EventDecoder, error) {
	d, err := m.newDecoder(source, JSONL)
	if err != nil {
		return nil, err
	}
	d.nameCells()
	return &EventDecoder{d}, nil
}

// LabelsOnly makes the decoder take every event for a label, named so or not; another one is a reject.
func (e *EventDecoder) LabelsOnly() { e.d.LabelsOnly() }

// StockOnly makes the decoder take every event for one of stock, named so or not; another one is a reject. The mapping
// HasStock.
func (e *EventDecoder) StockOnly() { e.d.only = ofStock }

// Append appends one event to b, whose first columns are those of the mapping's LogSchema; the values of further columns
// are the caller's to append. What cannot be read is returned instead, and b is as it was. Texts are copied: event may
// be used again.
func (e *EventDecoder) Append(b *Batch, event []byte, position int64) *Reject {
	var column string
	err := errEventSize
	if len(event) <= MaxEvent {
		column, err = e.d.row(event, b, true)
	}
	if err == nil {
		return nil
	}
	return &Reject{File: e.d.file, Line: position, Column: column, Reason: err.Error(), Row: bounded(event, rejectRowLimit)}
}
