// Package deadletter is the form in which events that could not be scored are kept: one JSON object a line, in a file or
// as the records of a topic, with the cause and the event as it came, so that it can be sent again.
package deadletter

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// Letter is an event with the reason it stands here.
type Letter struct {
	Source   string    // as the state calls it: kafka:TOPIC/PARTITION, file:NAME#DIGEST, http
	Position int64     // in the source: an offset, a line
	Column   string    // that was at fault; empty where the event as a whole was
	Reason   string    // what was wrong
	Key      []byte    // the record's; nil where there was none
	Event    []byte    // as it came; nil where it is too large to be carried: it stands at the position
	Time     time.Time // when it was put here
}

// wire is the JSON: text where bytes are UTF-8, base64 under another name where not.
type wire struct {
	Source   string  `json:"source"`
	Position int64   `json:"position"`
	Column   string  `json:"column,omitempty"`
	Reason   string  `json:"reason"`
	Key      *string `json:"key,omitempty"`
	Key64    []byte  `json:"key_base64,omitempty"`
	Event    *string `json:"event,omitempty"`
	Event64  []byte  `json:"event_base64,omitempty"`
	Time     string  `json:"time"`
}

// Append appends the letter as one line of JSON, without the line's end.
func Append(dst []byte, l *Letter) []byte {
	w := wire{Source: l.Source, Position: l.Position, Column: l.Column, Reason: l.Reason, Time: l.Time.UTC().Format(time.RFC3339Nano)}
	text := func(b []byte) (*string, []byte) {
		if !utf8.Valid(b) {
			return nil, b
		}
		s := string(b)
		return &s, nil
	}
	if l.Key != nil {
		w.Key, w.Key64 = text(l.Key)
	}
	if l.Event != nil {
		w.Event, w.Event64 = text(l.Event)
	}
	b, err := json.Marshal(&w)
	if err != nil { // of strings and numbers: a bug of ours
		panic(err)
	}
	return append(dst, b...)
}

// Parse reads a line that Append wrote.
func Parse(line []byte) (Letter, error) {
	var w wire
	if err := json.Unmarshal(line, &w); err != nil {
		var bad base64.CorruptInputError
		if errors.As(err, &bad) {
			return Letter{}, fmt.Errorf("event_base64 or key_base64 is not base64: %w", err)
		}
		return Letter{}, fmt.Errorf("not a dead letter: %w", err)
	}
	l := Letter{Source: w.Source, Position: w.Position, Column: w.Column, Reason: w.Reason, Key: w.Key64, Event: w.Event64}
	if w.Key != nil {
		l.Key = []byte(*w.Key)
	}
	switch {
	case w.Event != nil && w.Event64 != nil:
		return Letter{}, errors.New("not a dead letter: both event and event_base64")
	case w.Event != nil:
		l.Event = []byte(*w.Event)
	case w.Event64 == nil && w.Source != "":
		return Letter{}, fmt.Errorf("its event was too large for a letter: it stands in %s at position %d", w.Source, w.Position)
	case w.Event64 == nil:
		return Letter{}, errors.New("not a dead letter: it has no event")
	}
	var err error
	if l.Time, err = time.Parse(time.RFC3339Nano, w.Time); err != nil {
		return Letter{}, fmt.Errorf("not a dead letter: time: %w", err)
	}
	return l, nil
}
