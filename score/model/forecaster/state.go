package forecaster

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/onmart/onmart/datasets"
)

// A state is the engine's snapshot and the history as Parquet, each with its length before it.
const (
	stateMagic = "onmartF1"
	stateLimit = 4 << 30
)

func (f *Forecaster) snapshot(w io.Writer) error {
	if f.engine == nil {
		return ErrNoState
	}
	var engine, history bytes.Buffer
	if err := f.engine.Snapshot(&engine); err != nil {
		return err
	}
	p := f.prepared().p
	if err := WriteHistory(&history, p, f.columns, len(p.Times)); err != nil {
		return err
	}
	if _, err := io.WriteString(w, stateMagic); err != nil {
		return err
	}
	for _, part := range []*bytes.Buffer{&engine, &history} {
		if err := binary.Write(w, binary.LittleEndian, uint64(part.Len())); err != nil {
			return err
		}
		if _, err := part.WriteTo(w); err != nil {
			return err
		}
	}
	return nil
}

func (f *Forecaster) restore(r io.Reader) error {
	if f.engine == nil {
		return ErrNoState
	}
	damaged := func(err error) error { return fmt.Errorf("the state of the forecaster cannot be read: %w", err) }
	magic := make([]byte, len(stateMagic))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != stateMagic {
		return damaged(fmt.Errorf("it does not begin as one (%v)", err))
	}
	parts := make([][]byte, 2)
	for i := range parts {
		var n uint64
		if err := binary.Read(r, binary.LittleEndian, &n); err != nil {
			return damaged(err)
		}
		if n > stateLimit {
			return damaged(fmt.Errorf("a part of %d bytes", n))
		}
		var b bytes.Buffer
		if m, err := io.CopyN(&b, r, int64(n)); err != nil {
			return damaged(fmt.Errorf("a part ends after %d of %d bytes: %w", m, n, err))
		}
		parts[i] = b.Bytes()
	}
	rows, err := datasets.DecodeTable(parts[1])
	if err != nil {
		return damaged(err)
	}
	h := NewHistory(f.history.step, f.history.zone, f.columns, f.history.repeat)
	if err := h.Append(rows); err != nil {
		return damaged(err)
	}
	engine := f.plan.NewPanel()
	if err := engine.Restore(bytes.NewReader(parts[0])); err != nil {
		return damaged(err)
	}
	f.engine, f.history = engine, h
	f.grown()
	return nil
}
