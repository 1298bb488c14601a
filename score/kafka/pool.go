package kafka

import (
	"math/bits"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// recordPool keeps the memory of fetched records for the next ones, as far as Source.Recycle gives it back.
type recordPool struct {
	records sync.Pool
	bytes   [32]sync.Pool // by the power of two that a slice has at least
}

func newRecordPool() *recordPool { return &recordPool{} }

// GetRecords is franz-go's: a slice with capacity n.
func (p *recordPool) GetRecords(n int) []kgo.Record {
	if r, ok := p.records.Get().(*[]kgo.Record); ok && cap(*r) >= n {
		return *r
	}
	return make([]kgo.Record, n)
}

// PutRecords is franz-go's: the last record of the slice was recycled.
func (p *recordPool) PutRecords(r []kgo.Record) { p.records.Put(&r) }

// GetDecompressBytes is franz-go's: memory for a batch. Lines of JSON shrink to about a quarter; a guess too small
// is grown, and kept as grown.
func (p *recordPool) GetDecompressBytes(compressed []byte, _ kgo.CompressionCodecType) []byte {
	class := bits.Len(uint(4 * len(compressed)))
	if class >= len(p.bytes) {
		return make([]byte, 0, 4*len(compressed))
	}
	if b, ok := p.bytes[class].Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, 0, 1<<class)
}

// PutDecompressBytes is franz-go's: no record of the batch is in use any more.
func (p *recordPool) PutDecompressBytes(b []byte) {
	if class := bits.Len(uint(cap(b))) - 1; class >= 0 && class < len(p.bytes) {
		p.bytes[class].Put(&b)
	}
}
