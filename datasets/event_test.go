package datasets

import (
	"strings"
	"testing"
)

func TestEventDecoder(t *testing.T) {
	m, err := Preset("fraud-handbook")
	if err != nil {
		t.Fatal(err)
	}
	d, err := m.NewEventDecoder("kafka:in/0")
	if err != nil {
		t.Fatal(err)
	}
	schema := &Schema{Fields: append(m.LogSchema().Fields, Field{Name: Seq, Type: Int64})}
	b := NewBatch(schema, 2)
	good := `{"TRANSACTION_ID":7,"TX_DATETIME":"2018-04-01 00:00:31","CUSTOMER_ID":596,"TERMINAL_ID":3156,"TX_AMOUNT":57.16}`
	for i, event := range []string{good, `{"TRANSACTION_ID":`, strings.Repeat("x", MaxEvent+1), good} {
		r := d.Append(b, []byte(event), int64(40+i))
		if (r == nil) != (event == good) {
			t.Fatalf("event %d: reject %v", i, r)
		}
		if r == nil {
			b.Columns[len(schema.Fields)-1].Ints = append(b.Columns[len(schema.Fields)-1].Ints, int64(40+i))
		} else if r.File != "kafka:in/0" || r.Line != int64(40+i) || len(r.Row) > rejectRowLimit+3 {
			t.Errorf("event %d: %+v", i, r)
		}
	}
	if seq := b.Columns[len(schema.Fields)-1].Ints; b.N != 2 || len(seq) != 2 || seq[1] != 43 {
		t.Errorf("%d rows with seq %v, want 2 with 40 and 43", b.N, seq)
	}
	if amounts := b.Columns[schema.Index(Amount)].Ints; amounts[1] != 571600 {
		t.Errorf("amounts %v", amounts)
	}
}
