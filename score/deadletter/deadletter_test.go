package deadletter

import (
	"bytes"
	"testing"
	"time"
)

func TestLettersComeBackAsTheyWere(t *testing.T) {
	at := time.Date(2026, 11, 27, 8, 0, 0, 123456789, time.UTC)
	for _, l := range []Letter{
		{Source: "kafka:t/3", Position: 7, Column: "amount", Reason: `"x" is no number`, Key: []byte("k"), Event: []byte("{\"a\": 1}\n"), Time: at},
		{Source: "http", Reason: "not JSON", Event: []byte("\xff\x00binary"), Key: []byte{0xfe}, Time: at},
		{Source: "file:a#0", Position: 1, Reason: "empty", Event: []byte{}, Key: []byte{}, Time: at},
	} {
		line := Append(nil, &l)
		if bytes.IndexByte(line, '\n') >= 0 {
			t.Errorf("more than a line: %s", line)
		}
		got, err := Parse(line)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		if got.Source != l.Source || got.Position != l.Position || got.Column != l.Column || got.Reason != l.Reason || !got.Time.Equal(l.Time) ||
			!bytes.Equal(got.Event, l.Event) || !bytes.Equal(got.Key, l.Key) || (got.Key == nil) != (l.Key == nil) {
			t.Errorf("%s: got %+v, want %+v", line, got, l)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"source":"http","position":1,"reason":"r","event":"e","time":"2026-11-27T08:00:00Z"}`))
	f.Add([]byte(`{"event_base64":"/w==","key_base64":"!"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		l, err := Parse(line)
		if err != nil {
			return
		}
		again, err := Parse(Append(nil, &l))
		if err != nil || !bytes.Equal(again.Event, l.Event) || !bytes.Equal(again.Key, l.Key) {
			t.Errorf("%q: %+v, then %+v, %v", line, l, again, err)
		}
	})
}
