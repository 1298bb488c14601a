package datasets

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// FuzzShortWays holds a decoder with short ways to one without, over any events: the same rows and the same rejects. The
// events go through both twice, so that the second time keys are guessed and words known.
func FuzzShortWays(f *testing.F) {
	for which := range uint8(4) {
		f.Add(which, `{"id":1,"ts":1522540831,"customer":596,"terminal":3156,"amount":57.16}`+"\n"+`{"ts":1522540831.5,"id":"2","customer":-1,"terminal":1e3,"amount":57.167}`)
		f.Add(which, string(longEvents(1)[0])+"\n"+`{"trans_id":"","trans_datetime":"2018-04-01 00:00:31","line":null,"amount":-4,"channel":""}`)
		f.Add(which, `{"trans_id":12,"id":"x","event":"label","is_fraud":1,"known_at":"2018-04-01T00:00:31Z"}`+"\n"+`{"trans_id":"a\u00e9","is_fraud":true,"known_at":7,"event_id":"\ud800","ts":99999999999999999}`)
		f.Add(which, `{"is_fraud":2,"id":017,"id":1}`+"\n"+`{"amount" : 00.1, "amount":1234567890123456789, "quantity":0.0, "ts":-3}`)
	}
	names := []string{streamMapping, canonicalMapping, streamMapping + "  shelf: {from: channel, type: string, null_values: [NA, ''], upper: true}\n  known: {from: known_at, type: time, layout: [unix_ms, \"2006-01-02 15:04:05\"], optional: true}\n", ""}
	f.Fuzz(func(t *testing.T, which uint8, in string) {
		m := preset(t, "fraud-handbook")
		if src := names[which%4]; src != "" {
			var err error
			if m, err = ParseMapping("m.yaml", []byte(src)); err != nil {
				t.Fatal(err)
			}
		}
		text := func(whole bool) string {
			d, err := m.NewEventDecoder("in")
			if err != nil {
				t.Fatal(err)
			}
			d.d.whole = whole
			b := NewBatch(m.LogSchema(), 2)
			var out strings.Builder
			for range 2 {
				b.Reset()
				for i, e := range strings.Split(in, "\n") {
					r := d.Append(b, []byte(e), int64(i))
					fmt.Fprintf(&out, "%d %+v\n", b.N, r)
					if err := checkColumns(b); err != nil {
						t.Fatal(err)
					}
				}
				for i := range b.Columns {
					c := &b.Columns[i]
					fmt.Fprintf(&out, "%s %v %v %q", b.Schema.Fields[i].Name, c.Ints, c.Floats, c.Strings)
					for r := range b.N {
						fmt.Fprint(&out, c.IsNull(r))
					}
				}
			}
			return out.String() + fmt.Sprint(d.d.rounded)
		}
		if short, whole := text(false), text(true); short != whole {
			t.Errorf("short ways:\n%s\nwhole way:\n%s", short, whole)
		}
	})
}

func TestEventsDecodeWithoutAllocating(t *testing.T) {
	m, err := ParseMapping("m.yaml", []byte(streamMapping))
	if err != nil {
		t.Fatal(err)
	}
	d, err := m.NewEventDecoder("in")
	if err != nil {
		t.Fatal(err)
	}
	events := shortEvents(64)
	b := NewBatch(m.LogSchema(), len(events))
	decode := func() {
		b.Reset()
		for _, e := range events {
			if r := d.Append(b, e, 0); r != nil {
				t.Fatal(r)
			}
		}
	}
	decode()
	if n := testing.AllocsPerRun(10, decode); n != 0 {
		t.Errorf("%v allocations for %d events", n, len(events))
	}
}

func TestRepeatingRefusesNamesTwice(t *testing.T) {
	m, err := ParseMapping("m.yaml", []byte(streamMapping))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"amount", "ts", "event_id"} {
		if _, err := m.Repeating([]string{"n1", name}); err == nil {
			t.Errorf("a field %s that the mapping reads may be added", name)
		}
	}
	if m, err = m.Repeating([]string{"n1", "a1"}); err != nil {
		t.Fatal(err)
	}
	in := string(shortEvents(1)[0]) + "\n" + `{"id":2,"ts":1,"customer":1,"terminal":2,"amount":3,"a1":4}` + "\n  " + string(shortEvents(2)[1])
	d, err := m.NewDecoder(strings.NewReader(in), "in", JSONL)
	if err != nil {
		t.Fatal(err)
	}
	b := NewBatch(m.LogSchema(), 3)
	want := []string{string(shortEvents(1)[0]), "  " + string(shortEvents(2)[1])}
	var got []string
	var rejects []Reject
	for err == nil {
		_, err = d.Next(b, 10)
		rejects = append(rejects, d.Rejects()...)
		for _, raw := range d.Raw() {
			got = append(got, string(raw))
		}
	}
	if len(rejects) != 1 || rejects[0].Column != "a1" || rejects[0].Line != 2 {
		t.Errorf("rejects %+v", rejects)
	}
	if !slices.Equal(got, want) {
		t.Errorf("raw %q, want %q", got, want)
	}
}

func TestAppendTimeIsFormatTime(t *testing.T) {
	for _, us := range []int64{0, -1, 1, 1522540831 * Second, 1522540831*Second + 120, 951782400 * Second, -62_135_596_800 * Second,
		-62_135_596_800*Second - 1, 253_402_300_800*Second - 1, 253_402_300_800 * Second, -86400*Second - 500_000, 4107542399 * Second, 1 << 62, -(1 << 62)} {
		if got, want := string(AppendTime(nil, us)), FormatTime(us); got != want {
			t.Errorf("%d: %s, want %s", us, got, want)
		}
	}
	us := int64(-9e15)
	for range 200_000 {
		us += 1234567*Second/10 + 7
		if got, want := string(AppendTime(nil, us)), FormatTime(us); got != want {
			t.Fatalf("%d: %s, want %s", us, got, want)
		}
	}
}
