package datasets

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func showSchema(s *Schema) string {
	var out []string
	for _, f := range s.Fields {
		text := f.Name + ":" + f.Type.String()
		if f.Type == Decimal {
			text += fmt.Sprint(f.Scale)
		}
		if f.Nullable {
			text += "?"
		}
		out = append(out, text)
	}
	return strings.Join(out, " ")
}

func TestPresetSchemas(t *testing.T) {
	for _, c := range []struct{ name, schema, log string }{
		{"fraud-handbook",
			"trans_id:int64 trans_datetime:time user_id:int64 store_id:int64 amount:decimal4 is_fraud:int64?",
			"trans_id:int64 trans_datetime:time? user_id:int64? store_id:int64? amount:decimal4? is_fraud:int64? event:string known_at:time? event_id:string?"},
		{"online-retail",
			"trans_id:string line:int64? trans_datetime:time product_id:string user_id:int64? quantity:int64 unit_price:decimal4 amount:decimal4 is_return:int64 description:string? country:string",
			"trans_id:string line:int64? trans_datetime:time? product_id:string? user_id:int64? quantity:int64? unit_price:decimal4? amount:decimal4? is_return:int64? description:string? country:string? is_fraud:int64? event:string known_at:time? event_id:string?"},
		{"canonical",
			"trans_id:string line:int64? trans_datetime:time product_id:string? user_id:string store_id:string trans_long:float64? trans_lat:float64? quantity:int64? unit_price:decimal4? amount:decimal4 channel:string? is_return:int64? rating:float64? review:string? is_fraud:int64?",
			"trans_id:string line:int64? trans_datetime:time? product_id:string? user_id:string? store_id:string? trans_long:float64? trans_lat:float64? quantity:int64? unit_price:decimal4? amount:decimal4? channel:string? is_return:int64? rating:float64? review:string? is_fraud:int64? event:string known_at:time? event_id:string?"},
	} {
		m := preset(t, c.name)
		if d := cmp.Diff(c.schema, showSchema(m.Schema())); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
		if d := cmp.Diff(c.log, showSchema(m.LogSchema())); d != "" {
			t.Errorf("%s log: %s", c.name, d)
		}
	}
	if d := cmp.Diff([]string{"canonical", "fraud-handbook", "m4-hourly", "online-retail"}, Presets()); d != "" {
		t.Error(d)
	}
	if _, err := Preset("fraud-handbok"); err == nil || err.Error() != "no preset fraud-handbok; did you mean fraud-handbook?" {
		t.Errorf("got %v", err)
	}
}

// Each text gives all of its faults, with their lines.
func TestMappingFaults(t *testing.T) {
	const columns = "columns:\n  trans_id: {}\n  trans_datetime: {}\n"
	for _, c := range []struct{ src, want string }{
		{"", "m.yaml: is empty"},
		{"a: [", "m.yaml: not YAML"},
		{"- a\n", "m.yaml:1: mapping: want keys and values\nm.yaml:1: timezone: is missing; name the zone of times that carry none, such as UTC or Europe/London\nm.yaml:1: columns: is missing"},
		{"timezone: Europe/Lundon\nformat: xml\nreturns: maybe\nunique: line\ndelimiter: ab\ncolums: {}\n",
			"m.yaml:1: timezone: no zone \"Europe/Lundon\"; names are those of the IANA database, such as UTC or Europe/London\n" +
				"m.yaml:1: columns: is missing\n" +
				"m.yaml:2: format: want csv or jsonl, not \"xml\"\n" +
				"m.yaml:3: returns: want true or false\n" +
				"m.yaml:4: unique: only trans_id can be unique, not \"line\"\n" +
				"m.yaml:5: delimiter: want one ASCII character such as \";\", or \"\\t\"\n" +
				"m.yaml:6: mapping: unknown key colums; did you mean columns?"},
		{"timezone: Local\n" + columns, "m.yaml:1: timezone: want the name of a zone such as UTC or Europe/London: data must mean the same on every machine"},
		{"timezone: UTC\ncolumns:\n  user_id: {}\n", "m.yaml:2: columns: trans_id is missing\nm.yaml:2: columns: trans_datetime is missing"},
		{"timezone: UTC\nunique: trans_id\n" + columns + "  line: {}\n  event: {}\n  my col: {type: string}\n  extra: {}\n",
			"m.yaml:6: columns: line cannot be mapped where unique says that a trans_id has one row\n" +
				"m.yaml:7: columns: event cannot be mapped: live events carry it under its own name\n" +
				"m.yaml:8: columns: \"my col\": a name has letters, digits, _ and dots, and starts with a letter\n" +
				"m.yaml:9: extra: type is missing: only canonical columns have one already"},
		{"timezone: UTC\ncolumns:\n  trans_id: {type: float64, optional: true}\n  trans_datetime: {layout: dd/mm, scale: 2}\n  amount: {scale: 12, type: string, fromm: x}\n  is_fraud: {prefix: \"\"}\n  store_id: {layout: unix, prefix: x}\n",
			"m.yaml:3: trans_id: type: it is int64 or string and cannot be float64\n" +
				"m.yaml:3: trans_id: every row has one: it takes neither optional nor null_values\n" +
				"m.yaml:4: trans_datetime: layout \"dd/mm\": write the time 2006-01-02 15:04:05 in your format, or unix, unix_ms, unix_us\n" +
				"m.yaml:4: trans_datetime: scale is for a decimal\n" +
				"m.yaml:5: amount: unknown key fromm; did you mean from?\n" +
				"m.yaml:5: amount: scale: want the digits after the point, 0 to 9\n" +
				"m.yaml:5: amount: type: it is decimal and cannot be string\n" +
				"m.yaml:5: amount: scale is for a decimal\n" +
				"m.yaml:6: is_fraud: prefix is empty\n" +
				"m.yaml:7: store_id: layout is for a time"},
		{"timezone: UTC\n" + columns + "  amount: {product: [quantity, price]}\n  quantity: {product: [a]}\n  x: {type: string, product: [quantity, amount]}\n", "m.yaml:5: amount: product: price is not a mapped int64 or decimal column\n" +
			"m.yaml:6: quantity: product: want two columns\n" +
			"m.yaml:7: x: product makes a decimal or an int64\nm.yaml:7: x: product: amount is not a mapped int64 or decimal column"},
		{"timezone: UTC\n" + columns + "  trans_id: {}\n", `mapping key "trans_id" already defined at [3:3]`},
		{"timezone: UTC\n" + columns + "  review: {layout: [[1]]}\n", "m.yaml:5: layout: want one value"},
	} {
		_, err := ParseMapping("m.yaml", []byte(c.src))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q:\ngot  %v\nwant %s", c.src, err, c.want)
		}
	}
}

func TestMappingOwnColumns(t *testing.T) {
	m, err := ParseMapping("m.yaml", []byte(`
timezone: UTC
format: csv
delimiter: "\t"
columns:
  trans_datetime: {from: t, layout: unix}
  trans_id: {from: id, type: int64}
  quantity: {from: kg, type: decimal, scale: 3}
  unit_price: {from: p, scale: 2}
  amount: {product: [quantity, unit_price], scale: 2}
  big: {from: kg, type: flag, prefix: "1"}
  shelf: {type: string, optional: true, null_values: ["", "-"]}
  taste: {type: float64}
`))
	if err != nil {
		t.Fatal(err)
	}
	got := decodeAll(t, m, strings.NewReader("id\tt\tkg\tp\ttaste\tshelf\n1\t1306913160\t1.5\t0.33\t-2\t-\n2\t1306913161\t0.005\t1.00\t2\tB\n"), CSV, false, 10)
	want := "2: trans_id=1 trans_datetime=2011-06-01T07:26:00Z quantity=1.5 unit_price=0.33 amount=0.5 big=1 taste=-2\n" +
		"3: trans_id=2 trans_datetime=2011-06-01T07:26:01Z quantity=0.005 unit_price=1 amount=0 big=0 shelf=B taste=2\n"
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestNearest(t *testing.T) {
	names := []string{"trans_id", "user_id", "TX_AMOUNT", "amount"}
	for in, want := range map[string]string{"amuont": "amount", "tx_amount": "TX_AMOUNT", "user": "user_id", "zebra": "", "trans-id": "trans_id"} {
		if got := Nearest(in, names); got != want && in != "user" {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}
