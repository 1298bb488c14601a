package datasets

import "io"

// WriteTable writes a batch as one Parquet file that stands by itself: a dimension table beside a data set, or
// predictions.
func WriteTable(w io.Writer, b *Batch) error {
	if err := b.Schema.check(); err != nil {
		return err
	}
	if err := checkBatch(b, b.Schema); err != nil {
		return err
	}
	return encodePart(w, b)
}
