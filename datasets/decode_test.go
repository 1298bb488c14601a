package datasets

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	diff "github.com/google/go-cmp/cmp"

	"github.com/onmart/onmart/internal/testkit"
)

// decodeAll decodes everything and shows rows and rejects as text: what an f-test compares.
func decodeAll(t testing.TB, m *Mapping, r io.Reader, f Format, log bool, atOnce int) string {
	t.Helper()
	type event struct {
		line int64
		text string
	}
	var events []event
	show := func(end string) string {
		slices.SortStableFunc(events, func(a, b event) int { return cmp.Compare(a.line, b.line) })
		var out strings.Builder
		for _, e := range events {
			out.WriteString(e.text)
		}
		return out.String() + end
	}
	d, err := m.NewDecoder(r, "in", f)
	if err != nil {
		return "error " + err.Error() + "\n"
	}
	s := m.Schema()
	if log {
		s = m.LogSchema()
	}
	all := NewBatch(s, 0)
	for {
		n, err := d.Next(all, atOnce)
		if n > atOnce || n != len(d.Lines()) {
			t.Fatalf("%d rows, %d lines, %d asked for", n, len(d.Lines()), atOnce)
		}
		if cerr := checkColumns(all); cerr != nil {
			t.Fatal(cerr)
		}
		for i, line := range d.Lines() {
			events = append(events, event{line, fmt.Sprintf("%d:%s\n", line, showRow(all, all.N-n+i))})
		}
		for _, r := range d.Rejects() {
			events = append(events, event{r.Line, fmt.Sprintf("%d! %s: %s | %s\n", r.Line, r.Column, r.Reason, r.Row)})
		}
		if err == io.EOF {
			return show("")
		}
		if err != nil {
			return show("error " + err.Error() + "\n")
		}
	}
}

// checkColumns finds columns of unequal length, such as a reject half taken back leaves.
func checkColumns(b *Batch) error {
	for i := range b.Columns {
		c, f := &b.Columns[i], &b.Schema.Fields[i]
		if c.length(f.Type) != b.N || c.Null != nil && len(c.Null) != b.N {
			return fmt.Errorf("column %s: %d values, %d null marks, %d rows", f.Name, c.length(f.Type), len(c.Null), b.N)
		}
	}
	return nil
}

func showRow(b *Batch, row int) string {
	var out strings.Builder
	for i, f := range b.Schema.Fields {
		if !b.Columns[i].IsNull(row) {
			fmt.Fprintf(&out, " %s=%s", f.Name, FormatValue(&f, &b.Columns[i], row))
		}
	}
	return out.String()
}

// small is a mapping with names of its own, for CSV and events.
const small = `
timezone: UTC
columns:
  trans_id: {from: id}
  trans_datetime: {from: when, layout: "2006-01-02 15:04:05"}
  user_id: {from: user, type: int64, null_values: ["", NA]}
  amount: {from: price}
`

// TestDecode runs the cases of testdata/decode.txt: a line "== name / mapping / format [log]", the input,
// a line "--", and the rows and rejects in the order of their lines. -update writes the last.
func TestDecode(t *testing.T) {
	src, err := os.ReadFile("testdata/decode.txt")
	if err != nil {
		t.Fatal(err)
	}
	marks := strings.NewReplacer("<CR>", "\r", "<BOM>", "\ufeff", "<BAD>", "\xff", "<CUT>\n", "")
	var file strings.Builder
	for _, part := range strings.Split("\n"+string(src), "\n== ")[1:] {
		head, body, _ := strings.Cut(part+"\n", "\n")
		in, want, _ := strings.Cut(body, "--\n")
		f := strings.Split(head, " / ")
		if len(f) != 3 {
			t.Fatalf("head %q", head)
		}
		m, err := ParseMapping("small.yaml", []byte(small))
		if f[1] != "small" {
			m, err = Preset(f[1])
		}
		if err != nil {
			t.Fatal(err)
		}
		format, log, _ := strings.Cut(f[2], " ")
		decode := func(r io.Reader, atOnce int) string { return decodeAll(t, m, r, Format(format), log == "log", atOnce) }
		got := decode(strings.NewReader(marks.Replace(in)), 1000)
		for _, atOnce := range []int{1, 3} {
			if again := decode(iotest.OneByteReader(strings.NewReader(marks.Replace(in))), atOnce); again != got {
				t.Errorf("%s: other rows when read byte by byte:\n%s", head, diff.Diff(got, again))
			}
		}
		fmt.Fprintf(&file, "== %s\n%s--\n%s", head, in, got)
		if d := diff.Diff(strings.TrimSpace(want), strings.TrimSpace(got)); d != "" && !testkit.Update() {
			t.Errorf("%s:\n%s", head, d)
		}
	}
	if testkit.Update() {
		testkit.GoldenFile(t, "testdata/decode.txt", []byte(file.String()))
	}
}

// A live event is handed on as soon as its line is complete.
func TestNextDoesNotHoldEventsBack(t *testing.T) {
	m := preset(t, "canonical")
	r, w := io.Pipe()
	d, err := m.NewDecoder(r, "stdin", JSONL)
	if err != nil {
		t.Fatal(err)
	}
	b := NewBatch(m.LogSchema(), 0)
	event := `{"trans_id":"%d","trans_datetime":"2026-01-01T00:00:00Z","user_id":"u","store_id":"s","amount":1}` + "\n"
	for i := range 3 {
		go fmt.Fprintf(w, event, i)
		if n, err := d.Next(b, 1000); n != 1 || err != nil {
			t.Fatalf("%d rows, %v", n, err)
		}
	}
	go io.WriteString(w, "nonsense\n")
	if n, err := d.Next(b, 1000); n != 0 || err != nil || len(d.Rejects()) != 1 {
		t.Fatalf("%d rows, %v", n, err)
	}
	go w.Close()
	if n, err := d.Next(b, 1000); n != 0 || err != io.EOF {
		t.Fatalf("%d rows, %v", n, err)
	}
}

func TestLabelsOnly(t *testing.T) {
	m := preset(t, "canonical")
	d, err := m.NewDecoder(strings.NewReader(`{"trans_id":"1","is_fraud":1,"known_at":"2026-01-01T00:00:00Z"}
{"event":"label","trans_id":"2","is_fraud":0,"known_at":"2026-01-01T00:00:00Z"}
{"event":"transaction","trans_id":"3","is_fraud":0,"known_at":"2026-01-01T00:00:00Z"}
`), "in", JSONL)
	if err != nil {
		t.Fatal(err)
	}
	d.LabelsOnly()
	b := NewBatch(m.LogSchema(), 0)
	if n, err := d.Next(b, 10); n != 2 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	if r := d.Rejects(); len(r) != 1 || r[0].Line != 3 || r[0].Reason != "is a transaction, where only labels are read" {
		t.Errorf("%v", r)
	}
}

// TestStockEvents: an event of stock has its own columns, of which some must be there, and is read where it may come.
func TestStockEvents(t *testing.T) {
	m := preset(t, "canonical")
	d, err := m.NewEventDecoder("in")
	if err != nil {
		t.Fatal(err)
	}
	b := NewBatch(m.LogSchema(), 0)
	for i, x := range []struct{ event, column, reason string }{
		{`{"event":"stock","product_id":"milk","store_id":"s","quantity":4,"known_at":"2026-01-01T00:00:00Z"}`, "", ""},
		{`{"event":"stock","product_id":"milk","quantity":4,"known_at":"2026-01-01T00:00:00Z","event_id":"e","amount":3}`, "", ""},
		{`{"event":"stock","product_id":"milk","known_at":"2026-01-01T00:00:00Z"}`, "quantity", "is missing"},
		{`{"event":"stock","quantity":4,"known_at":"2026-01-01T00:00:00Z"}`, "product_id", "is missing"},
		{`{"event":"stock","product_id":"milk","quantity":4}`, "known_at", "is missing"},
		{`{"event":"stock","product_id":"milk","quantity":0.5,"known_at":"2026-01-01T00:00:00Z"}`, "quantity", `0.5 is not a whole number`},
		{`{"event":"stocks","product_id":"milk","quantity":4,"known_at":"2026-01-01T00:00:00Z"}`, "event",
			`"stocks" is not transaction, label or stock`},
	} {
		r := d.Append(b, []byte(x.event), int64(i))
		switch {
		case r == nil && x.reason != "":
			t.Errorf("%s: was read", x.event)
		case r != nil && (r.Column != x.column || r.Reason != x.reason):
			t.Errorf("%s: %s %s, want %s %s", x.event, r.Column, r.Reason, x.column, x.reason)
		}
	}
	if c := b.Column(Event).Strings; b.N != 2 || c[0] != EventStock || b.Column(ProductID).Strings[1] != "milk" || b.Column(Quantity).Ints[1] != 4 ||
		!b.Column(StoreID).IsNull(1) || b.Column(StoreID).IsNull(0) || !b.Column(TransID).IsNull(0) || !b.Column(Amount).IsNull(1) {
		t.Errorf("%d rows, %v", b.N, c)
	}
	d.StockOnly()
	if r := d.Append(b, []byte(`{"product_id":"milk","quantity":1,"known_at":"2026-01-01T00:00:00Z"}`), 9); r != nil {
		t.Error(r.Reason)
	}
	if r := d.Append(b, []byte(`{"event":"label","trans_id":"1","is_fraud":1,"known_at":"2026-01-01T00:00:00Z"}`), 10); r == nil ||
		r.Reason != "is a label, where only events of stock are read" {
		t.Errorf("%+v", r)
	}
	imported, err := m.NewDecoder(strings.NewReader(`{"event":"stock","product_id":"milk","quantity":1,"known_at":"2026-01-01T00:00:00Z"}`), "in", JSONL)
	if err != nil {
		t.Fatal(err)
	}
	imported.Next(NewBatch(m.Schema(), 0), 1)
	if r := imported.Rejects(); len(r) != 1 || r[0].Reason != "is an event of stock, where only transactions are read" {
		t.Errorf("%+v", r)
	}
	small := preset(t, "fraud-handbook")
	if d, err = small.NewEventDecoder("in"); err != nil {
		t.Fatal(err)
	}
	if r := d.Append(NewBatch(small.LogSchema(), 0), []byte(`{"event":"stock","product_id":"milk","quantity":1}`), 0); r == nil ||
		r.Reason != "is an event of stock, and the mapping lacks a column for its product_id or its quantity" || small.HasStock() {
		t.Errorf("%+v", r)
	}
}

func TestDecodeIntoForeignSchemaIsAnError(t *testing.T) {
	m := preset(t, "canonical")
	d, err := m.NewDecoder(strings.NewReader("{}"), "in", JSONL)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Next(NewBatch(mixed, 0), 1); err == nil || err == io.EOF {
		t.Errorf("got %v", err)
	}
}

func TestLongLinesAndStrayQuotes(t *testing.T) {
	m, err := ParseMapping("small.yaml", []byte(small))
	if err != nil {
		t.Fatal(err)
	}
	good := "%d,2026-01-01 00:00:00,1,2\n"
	long := strings.Repeat("x", recordLimit+readChunk)
	open := `1,"2026`
	var in strings.Builder
	in.WriteString("id,when,user,price\n")
	fmt.Fprintf(&in, good, 2)
	in.WriteString(long + "\n")
	fmt.Fprintf(&in, good, 4)
	in.WriteString(open + "\n")
	for i := range 4000 {
		fmt.Fprintf(&in, good, 6+i)
	}
	got := decodeAll(t, m, strings.NewReader(in.String()), CSV, false, 100)
	for _, want := range []string{"\n3! : " + errTooLong.Error(), "\n5! : " + errUnclosed.Error() + " | " + open + "\n",
		"\n4: trans_id=4 ", "\n6: trans_id=6 ", "\n4005: trans_id=4005 "} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q", want)
		}
	}
	if n := strings.Count(got, "\n"); n != 4004 {
		t.Errorf("%d lines", n)
	}
}

// The parser of events agrees with encoding/json on what is JSON.
func TestJSONAgainstStandardLibrary(t *testing.T) {
	m := preset(t, "canonical")
	d, err := m.NewDecoder(strings.NewReader(""), "in", JSONL)
	if err != nil {
		t.Fatal(err)
	}
	check := func(line []byte) {
		t.Helper()
		var std map[string]any
		stdErr := json.Unmarshal(line, &std)
		if stdErr == nil && std == nil {
			return // null
		}
		column, err := d.splitJSON(line)
		if err != nil && column != "" && strings.Contains(err.Error(), "twice") {
			return
		}
		if (err == nil) != (stdErr == nil) {
			t.Fatalf("%q: %v, encoding/json says %v", line, err, stdErr)
		}
		if err != nil {
			return
		}
		for name, i := range d.names {
			x := d.cells[i]
			v, there := std[name]
			if there != (x.kind != cellAbsent) {
				t.Fatalf("%q: %s is there: %t", line, name, there)
			}
			if s, ok := v.(string); ok && string(x.b) != s && utf8.Valid(line) {
				t.Fatalf("%q: %s is %q, want %q", line, name, x.b, s)
			}
		}
	}
	seeds := []string{
		`{}`, `{"trans_id":"a\n\"\\\/\b\f\r\té","amount":-1.5e+3,"x":[1,{"y":[]},null,true,false],"user_id":null}`,
		`{"a":0,"b":-0,"c":0.0,"d":1E5}`, `{"trans_id":"\ud83d\ude00 \ud83d x"}`, ` { "event" : "label" , "z" : { } } `,
	}
	r := rand.New(rand.NewPCG(7, 8))
	alphabet := []byte("{}[]\",:\\u0d8e1-+.truefalsn \x01\xff")
	for _, s := range seeds {
		check([]byte(s))
		for range 20_000 {
			b := []byte(s)
			for range 1 + r.IntN(3) {
				i := r.IntN(len(b))
				switch r.IntN(3) {
				case 0:
					b[i] = alphabet[r.IntN(len(alphabet))]
				case 1:
					b = append(b[:i:i], b[i+1:]...)
				default:
					b = append(b[:i:i], append([]byte{alphabet[r.IntN(len(alphabet))]}, b[i:]...)...)
				}
				if len(b) == 0 {
					b = []byte("{")
				}
			}
			check(b)
		}
	}
	deep := `{"x":` + strings.Repeat("[", jsonDepth+1) + strings.Repeat("]", jsonDepth+1) + `}`
	if _, err := d.splitJSON([]byte(deep)); err == nil || !strings.Contains(err.Error(), "nested more than 64 deep") {
		t.Errorf("deep: %v", err)
	}
}

// The excerpt holds cancellations, adjustments, postage, lines without a customer and quoted texts.
func TestOnlineRetailExcerpt(t *testing.T) {
	f, err := OpenInput(filepath.Join("testdata", "online-retail.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := decodeAll(t, preset(t, "online-retail"), f, CSV, false, 50)
	testkit.Golden(t, "online-retail.golden", []byte(got))
}

// The decoder allocates per batch and not per event.
func TestDecodingEventsDoesNotAllocate(t *testing.T) {
	m := preset(t, "fraud-handbook")
	event := []byte(`{"TRANSACTION_ID":1234567,"TX_DATETIME":"2018-04-01 00:00:31","CUSTOMER_ID":596,"TERMINAL_ID":3156,"TX_AMOUNT":57.16,"note":{"a":[1,2]}}`)
	d, err := m.NewDecoder(strings.NewReader(""), "in", JSONL)
	if err != nil {
		t.Fatal(err)
	}
	b := NewBatch(m.LogSchema(), 1)
	n := testing.AllocsPerRun(1000, func() {
		for i := range b.Columns {
			c := &b.Columns[i]
			c.Ints, c.Strings, c.Null = c.Ints[:0], c.Strings[:0], c.Null[:0]
		}
		b.N = 0
		if _, err := d.row(event, b, true); err != nil {
			t.Fatal(err)
		}
	})
	if n > 0 {
		t.Errorf("%v allocations an event", n)
	}
}

func BenchmarkDecodeJSON(b *testing.B) {
	m, err := Preset("fraud-handbook")
	if err != nil {
		b.Fatal(err)
	}
	event := []byte(`{"TRANSACTION_ID":1234567,"TX_DATETIME":"2018-04-01 00:00:31","CUSTOMER_ID":596,"TERMINAL_ID":3156,"TX_AMOUNT":57.16}` + "\n")
	benchmarkDecode(b, m, JSONL, m.LogSchema(), bytes.Repeat(event, 1000))
}

func BenchmarkDecodeCSV(b *testing.B) {
	m, err := Preset("fraud-handbook")
	if err != nil {
		b.Fatal(err)
	}
	row := []byte("1234567,2018-04-01 00:00:31,596,3156,57.16,0,0\n")
	header := []byte("TRANSACTION_ID,TX_DATETIME,CUSTOMER_ID,TERMINAL_ID,TX_AMOUNT,TX_FRAUD,TX_FRAUD_SCENARIO\n")
	benchmarkDecode(b, m, CSV, m.Schema(), append(header, bytes.Repeat(row, 1000)...))
}

func benchmarkDecode(b *testing.B, m *Mapping, f Format, s *Schema, in []byte) {
	b.ReportAllocs()
	for b.Loop() {
		d, err := m.NewDecoder(bytes.NewReader(in), "in", f)
		if err != nil {
			b.Fatal(err)
		}
		batch := NewBatch(s, 1000)
		for {
			if _, err := d.Next(batch, 1000); err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
		if batch.N != 1000 {
			b.Fatal(batch.N)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/row")
}
