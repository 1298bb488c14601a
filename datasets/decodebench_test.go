package datasets

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// streamMapping reads the short events of docs/bench/streams.
const streamMapping = `
format: jsonl
timezone: UTC
unique: trans_id
columns:
  trans_id: {from: id, type: int64}
  trans_datetime: {from: ts, layout: unix}
  user_id: {from: customer, type: int64}
  store_id: {from: terminal, type: int64}
  amount: {from: amount}
`

// canonicalMapping reads purchases under their canonical names, ids as text.
const canonicalMapping = `
timezone: UTC
columns:
  trans_id: {}
  line: {}
  trans_datetime: {}
  product_id: {}
  user_id: {}
  store_id: {}
  quantity: {}
  unit_price: {}
  amount: {}
  channel: {}
`

// shortEvents are of about 75 bytes, longEvents of about 200.
func shortEvents(n int) (out [][]byte) {
	r := rand.New(rand.NewPCG(1, 1))
	for i := range n {
		out = append(out, fmt.Appendf(nil, `{"id":%d,"ts":%d,"customer":%d,"terminal":%d,"amount":%d.%02d}`,
			i, 1522540831+9*i, r.IntN(5000), r.IntN(10000), r.IntN(300), r.IntN(100)))
	}
	return out
}

func longEvents(n int) (out [][]byte) {
	r := rand.New(rand.NewPCG(1, 1))
	for i := range n {
		out = append(out, fmt.Appendf(nil, `{"trans_id":"T%08d","line":%d,"trans_datetime":%q,"product_id":"P%04d","user_id":"U%05d",`+
			`"store_id":"S%03d","quantity":%d,"unit_price":%d.%02d,"amount":%d.%02d,"channel":"till"}`,
			i, i%4, FormatTime(1522540831*Second+9*Second*int64(i)), r.IntN(3000), r.IntN(9000), r.IntN(300), 1+r.IntN(4), r.IntN(60), r.IntN(100), r.IntN(200), r.IntN(100)))
	}
	return out
}

// BenchmarkDecodeEvents is the decoder over single events into a batch that is used again.
func BenchmarkDecodeEvents(b *testing.B) {
	for _, c := range []struct {
		name, mapping string
		events        [][]byte
	}{{"short", streamMapping, shortEvents(1024)}, {"long", canonicalMapping, longEvents(1024)}} {
		b.Run(c.name, func(b *testing.B) {
			m, err := ParseMapping("m.yaml", []byte(c.mapping))
			if err != nil {
				b.Fatal(err)
			}
			d, err := m.NewEventDecoder("in")
			if err != nil {
				b.Fatal(err)
			}
			rows := NewBatch(m.LogSchema(), len(c.events))
			size := 0
			for _, e := range c.events {
				size += len(e)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				rows.Reset()
				for _, e := range c.events {
					if r := d.Append(rows, e, 0); r != nil {
						b.Fatal(r)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(c.events)), "ns/event")
		})
	}
}
