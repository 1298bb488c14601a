package recommender

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score/model"
)

// ErrNoState is returned by Fold where the artifact carries no state of the engine.
var ErrNoState = errors.New("the model carries no state of its interactions, so that it cannot follow transactions: train it where the transactions of its interactions are")

// Task is the name of the state among others'.
func (r *Recommender) Task() string { return model.Recommend }

// Append takes rows of interactions that came after training, as the engine makes them.
func (r *Recommender) Append(rows *datasets.Batch) error {
	h := r.fitted.History
	for i := range rows.N {
		one := rows.Slice(i, i+1)
		before := len(h.Log.User)
		if err := h.Append(one); err != nil {
			return err
		}
		if len(h.Log.User) == before {
			continue // a return
		}
		user, _ := h.Users.Find(h.Users.text(&one.Columns[columnUser], 0))
		item, _ := h.Items.Find(h.Items.text(&one.Columns[columnItem], 0))
		trans, _ := h.trans.Find(h.trans.text(&one.Columns[columnTrans], 0))
		r.lines[user] = append(r.lines[user], line{item: item, basket: h.baskets[basket{user, trans}],
			time: one.Columns[columnTime].Ints[0], number: before})
		for k := range r.tail.Columns {
			to, from := &r.tail.Columns[k], &one.Columns[k]
			to.Ints, to.Floats, to.Strings = append(to.Ints, from.Ints...), append(to.Floats,
				from.Floats...), append(to.Strings, from.Strings...)
		}
		r.tail.N++
	}
	return nil
}

// Fold takes transactions in the order of the log. A purchase counts once the spec's hold has passed.
func (r *Recommender) Fold(b *datasets.Batch) error {
	if r.engine == nil {
		return ErrNoState
	}
	err := r.engine.Process(b, r.out)
	if err == nil {
		err = r.Append(r.out)
	}
	r.out = datasets.NewBatch(r.plan.Schema(), 0)
	return err
}

// A state is the engine's snapshot and the purchases since training as Parquet, each with its length before it.
const (
	stateMagic = "onmartR1"
	stateLimit = 4 << 30
)

// Snapshot writes the engine's state and the purchases that came after training.
func (r *Recommender) Snapshot(w io.Writer) error {
	if r.engine == nil {
		return ErrNoState
	}
	var engine, since bytes.Buffer
	if err := r.engine.Snapshot(&engine); err != nil {
		return err
	}
	if err := datasets.WriteTable(&since, r.tail); err != nil {
		return err
	}
	if _, err := io.WriteString(w, stateMagic); err != nil {
		return err
	}
	for _, part := range []*bytes.Buffer{&engine, &since} {
		if err := binary.Write(w, binary.LittleEndian, uint64(part.Len())); err != nil {
			return err
		}
		if _, err := part.WriteTo(w); err != nil {
			return err
		}
	}
	return nil
}

// Restore takes up what Snapshot wrote of a recommender of the same artifact.
func (r *Recommender) Restore(from io.Reader) error {
	if r.engine == nil {
		return ErrNoState
	}
	damaged := func(err error) error { return fmt.Errorf("the state of the recommender cannot be read: %w", err) }
	magic := make([]byte, len(stateMagic))
	if _, err := io.ReadFull(from, magic); err != nil || string(magic) != stateMagic {
		return damaged(fmt.Errorf("it does not begin as one (%v)", err))
	}
	parts := make([][]byte, 2)
	for i := range parts {
		var n uint64
		if err := binary.Read(from, binary.LittleEndian, &n); err != nil {
			return damaged(err)
		}
		if n > stateLimit {
			return damaged(fmt.Errorf("a part of %d bytes", n))
		}
		var b bytes.Buffer
		if m, err := io.CopyN(&b, from, int64(n)); err != nil {
			return damaged(fmt.Errorf("a part ends after %d of %d bytes: %w", m, n, err))
		}
		parts[i] = b.Bytes()
	}
	rows, err := datasets.DecodeTable(parts[1])
	if err != nil {
		return damaged(err)
	}
	fitted, err := read(r.artifact)
	if err != nil {
		return err
	}
	now := newRecommender(fitted, r.threads)
	now.artifact, now.plan, now.engine = r.artifact, r.plan, r.plan.NewInteractions()
	now.out = datasets.NewBatch(r.plan.Schema(), 0)
	if err := now.engine.Restore(bytes.NewReader(parts[0])); err != nil {
		return damaged(err)
	}
	if err := now.Append(rows); err != nil {
		return damaged(err)
	}
	if err := now.refresh(now.latest()); err != nil {
		return err
	}
	*r = *now
	return nil
}
