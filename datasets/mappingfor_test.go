package datasets

import (
	"io"
	"strings"
	"testing"
)

func TestMappingForKeepsTypes(t *testing.T) {
	m, err := Preset("fraud-handbook")
	if err != nil {
		t.Fatal(err)
	}
	own, err := MappingFor(m.Schema())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range m.Schema().Fields {
		i := own.Schema().Index(f.Name)
		if i < 0 || own.Schema().Fields[i].Type != f.Type || own.Schema().Fields[i].Scale != f.Scale {
			t.Errorf("%s: %v is not %v", f.Name, own.Schema().Fields[max(i, 0)], f)
		}
	}
	d, err := own.NewDecoder(strings.NewReader(`{"trans_id":7,"trans_datetime":"2018-08-01T10:00:00Z","user_id":"12","store_id":3,"amount":4.25}`), "events", JSONL)
	if err != nil {
		t.Fatal(err)
	}
	b := NewBatch(own.LogSchema(), 1)
	if _, err := d.Next(b, 10); err != nil && err != io.EOF {
		t.Fatal(err)
	}
	if b.N != 1 || b.Column(Amount).Ints[0] != 42500 || b.Column(UserID).Ints[0] != 12 {
		t.Errorf("%d rows %v, rejects %v", b.N, b.Columns, d.Rejects())
	}
}

func TestMappingForRefusesNegativeAmountsWithoutReturns(t *testing.T) {
	event := `{"trans_id":7,"trans_datetime":"2018-08-01T10:00:00Z","user_id":1,"store_id":3,"amount":-4.25}`
	for _, returns := range []bool{false, true} {
		s := &Schema{Fields: []Field{{Name: TransID, Type: Int64}, {Name: TransDatetime, Type: Time}, {Name: UserID, Type: Int64},
			{Name: StoreID, Type: Int64}, {Name: Amount, Type: Decimal, Scale: AmountScale}}}
		if returns {
			s.Fields = append(s.Fields, Field{Name: IsReturn, Type: Int64})
		}
		m, err := MappingFor(s)
		if err != nil {
			t.Fatal(err)
		}
		d, err := m.NewDecoder(strings.NewReader(event), "events", JSONL)
		if err != nil {
			t.Fatal(err)
		}
		b := NewBatch(m.LogSchema(), 1)
		if _, err := d.Next(b, 10); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		if rejects := d.Rejects(); (b.N == 1) != returns || (len(rejects) == 1) == returns {
			t.Errorf("returns %v: %d rows, rejects %v", returns, b.N, rejects)
		}
	}
}
