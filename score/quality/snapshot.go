package quality

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
)

// A snapshot is the magic line; delay and budget; watermark and number of scorings; the versions with their rows and
// days; the waiting labels, oldest first. Numbers are little-endian words of 64 bits; a CRC-32C ends it.
const snapshotMagic = "onmart live quality 1\n"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Snapshot writes down what is known. Equal contents give equal bytes.
func (l *Live) Snapshot(to io.Writer) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	sum := crc32.New(castagnoli)
	b := bufio.NewWriterSize(io.MultiWriter(to, sum), 1<<16)
	w := &words{w: b}
	b.WriteString(snapshotMagic)
	w.ints(l.o.Delay, int64(l.o.Budget), l.watermark, l.number, int64(len(l.tracks)))
	bound := l.bound()
	for _, t := range l.tracks {
		w.text(t.version)
		w.float(t.threshold)
		w.ints(t.last, int64(t.keep))
		n := 0
		for i := t.head; i < t.rows.len(); i++ {
			if t.rows.at[i] > bound {
				n++
			}
		}
		w.ints(int64(n))
		for i := t.head; i < t.rows.len(); i++ {
			if t.rows.at[i] > bound {
				w.ints(int64(t.rows.id[i]), t.rows.line[i], t.rows.at[i])
				w.float(t.rows.score[i])
				w.ints(int64(t.rows.y[i]))
			}
		}
		w.ints(int64(len(t.days)))
		for _, d := range t.days {
			w.ints(d.start, int64(len(d.top)))
			for _, e := range d.top {
				w.ints(int64(e.id), e.line)
				w.float(e.score)
				w.ints(e.number, int64(e.y))
			}
		}
	}
	w.ints(int64(len(l.order)))
	for _, id := range l.order {
		w.ints(int64(id), int64(len(l.waiting[id])))
		for _, x := range l.waiting[id] {
			w.ints(x.line, int64(x.y))
		}
	}
	if err := b.Flush(); err != nil {
		return err
	}
	_, err := to.Write(binary.LittleEndian.AppendUint32(nil, sum.Sum32()))
	return err
}

// Restore takes up what Snapshot wrote, instead of what is known; after an error nothing has changed. Another window
// and another number of rows to keep are fine. Of another delay or budget it is refused.
func (l *Live) Restore(from io.Reader) error {
	sum := crc32.New(castagnoli)
	r := &words{r: io.TeeReader(bufio.NewReaderSize(from, 1<<16), sum)}
	magic := make([]byte, len(snapshotMagic))
	r.read(magic)
	if r.err == nil && string(magic) != snapshotMagic {
		return errors.New("live quality: not a state of it, or of another version of onmart")
	}
	n := New(l.o)
	if delay, budget := r.int(), r.int(); r.err == nil && (delay != l.o.Delay || budget != int64(l.o.Budget)) {
		return &Other{budget, l.o.Budget, delay, l.o.Delay}
	}
	n.watermark, n.number = r.int(), r.int()
	for range r.count(maxTracks) {
		t := newTrack(r.string())
		t.threshold, t.last, t.keep = r.float64(), r.int(), uint64(r.int())
		for n := r.count(math.MaxInt32); n > 0 && r.err == nil; n-- {
			x := Scored{ID: uint64(r.int()), Line: r.int(), Time: r.int()}
			score := r.float64()
			if x.Label = r.label(); r.err == nil && x.ID <= t.keep {
				t.rows.push(x, score)
			}
		}
		t.index.rebuild(&t.rows)
		for range r.count(1 << 20) {
			d := day{start: r.int()}
			for range r.count(maxBudget) {
				d.top = append(d.top, top{uint64(r.int()), r.int(), r.float64(), r.int(), r.label()})
			}
			t.days = append(t.days, d)
		}
		n.tracks = append(n.tracks, t)
	}
	for range r.count(maxWaiting) {
		id := uint64(r.int())
		n.order = append(n.order, id)
		for range r.count(1 << 16) {
			n.waiting[id] = append(n.waiting[id], waitingLabel{r.int(), r.label()})
		}
	}
	want := sum.Sum32()
	var tail [4]byte
	r.read(tail[:])
	if r.err == nil && binary.LittleEndian.Uint32(tail[:]) != want {
		r.err = errors.New("its checksum is wrong")
	}
	if r.err != nil {
		return fmt.Errorf("live quality: its state is damaged: %w", r.err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watermark, l.number, l.tracks, l.waiting, l.order = n.watermark, n.number, n.tracks, n.waiting, n.order
	return nil
}

// Other is the error of Restore where the state was made with another delay or alert budget: what was kept does not
// fit. Figures begin anew then.
type Other struct {
	budget int64
	have   int
	delay  int64
	mine   int64
}

func (e *Other) Error() string {
	return fmt.Sprintf("live quality: its state is of %d alerts a day and a delay of %d s, and this is of %d and %d s",
		e.budget, e.delay/1e6, e.have, e.mine/1e6)
}

// words writes or reads; the first error stays.
type words struct {
	w   *bufio.Writer
	r   io.Reader
	buf [8]byte
	err error
}

func (w *words) ints(list ...int64) {
	for _, v := range list {
		binary.LittleEndian.PutUint64(w.buf[:], uint64(v))
		w.w.Write(w.buf[:]) // Flush returns its error
	}
}

func (w *words) float(v float64) { w.ints(int64(math.Float64bits(v))) }

func (w *words) text(s string) {
	w.ints(int64(len(s)))
	w.w.WriteString(s)
}

func (w *words) read(b []byte) {
	if w.err == nil {
		_, w.err = io.ReadFull(w.r, b)
	}
}

func (w *words) int() int64 {
	w.read(w.buf[:])
	if w.err != nil {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(w.buf[:]))
}

func (w *words) float64() float64 { return math.Float64frombits(uint64(w.int())) }

// label is one of the label values.
func (w *words) label() int8 {
	y := w.int()
	if w.err == nil && (y < int64(Unlabelled) || y > int64(Fraud)) {
		w.err = fmt.Errorf("a label of %d", y)
	}
	return int8(y)
}

// count is a number of things, 0 after an error.
func (w *words) count(most int64) int64 {
	n := w.int()
	if w.err == nil && (n < 0 || n > most) {
		w.err = fmt.Errorf("%d things, want at most %d", n, most)
	}
	if w.err != nil {
		return 0
	}
	return n
}

func (w *words) string() string {
	b := make([]byte, w.count(1<<10))
	w.read(b)
	return string(b)
}
