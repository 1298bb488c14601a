package slab

import (
	"unsafe"
)

const (
	// inlineText is the longest text that is kept in an entry of 16 bytes; a longer one has a block.
	inlineText = 15
	longText   = 0xff << 56
)

// Texts gives texts dense numbers, as Ints does for numbers. Bytes need not be UTF-8, and there may be none. The
// table keeps a copy of a new text; looking up one that is there allocates nothing.
//
// For one goroutine, or for several while all only call Find, Value, Append, Live, Len and Cap.
type Texts struct {
	x       index
	entries pages
	ids     numbers
}

// entry is a text: its bytes, and in the highest byte of the second word their number; or a Ref to a block of them
// and longText + their number; or, of a free number, the next free one and freeText.
const (
	entryWords = 2
	freeText   = 0xfe << 56
)

// NewTexts makes an empty table in an arena.
func NewTexts(a *Arena) *Texts {
	return &Texts{x: newIndex(a), entries: pages{a: a, words: entryWords}}
}

func (t *Texts) entry(id uint32) *[entryWords]int64 {
	return (*[entryWords]int64)(t.entries.all[id>>pageBits][int(id&pageMask)*entryWords:])
}

// short is the entry of a text of up to inlineText bytes.
func short(s string) (e [entryWords]int64) {
	b := (*[entryWords * wordBytes]byte)(unsafe.Pointer(&e))
	copy(b[:inlineText], s)
	b[inlineText] = byte(len(s))
	return e
}

// view is the text of an entry, in its own memory: valid until it is deleted or the first page moves.
func (t *Texts) view(e *[entryWords]int64) string {
	last := uint64(e[1])
	if last < freeText {
		return unsafe.String((*byte)(unsafe.Pointer(e)), last>>56)
	}
	n := int(last &^ longText)
	w := t.x.a.Words(Ref(e[0]), wordsFor(n))
	return unsafe.String((*byte)(unsafe.Pointer(unsafe.SliceData(w))), n)
}

func wordsFor(bytes int) int { return (bytes + wordBytes - 1) / wordBytes }

// hashOf and hashesOf are for the index.
func (t *Texts) hashOf(id uint32) uint64 { return hashText(t.view(t.entry(id))) }

func (t *Texts) hashesOf(ids []uint32, dst []uint64) []uint64 {
	for _, id := range ids {
		dst = append(dst, t.hashOf(id))
	}
	return dst
}

// Find gives the number of a text, if it has one.
func (t *Texts) Find(s string) (id uint32, ok bool) { return t.find(hashText(s), s) }

func (t *Texts) find(h uint64, s string) (uint32, bool) {
	l := t.x.at(h)
	mask, number := l.mask(), l.number()
	want := tagOf(h)
	for i := uint32(h) & mask; ; i = (i + 1) & mask {
		slot := *l.slot(i)
		if slot == 0 {
			return 0, false
		}
		if (slot^want)&^number == 0 && t.is(slot&number-1, s) {
			return slot&number - 1, true
		}
	}
}

// is tells whether a number is that of a text.
func (t *Texts) is(id uint32, s string) bool {
	e := t.entry(id)
	if len(s) <= inlineText {
		return uint64(e[1])>>56 == uint64(len(s)) && unsafe.String((*byte)(unsafe.Pointer(e)), len(s)) == s
	}
	return uint64(e[1]) == longText|uint64(len(s)) && t.view(e) == s
}

// ID gives the number of a text, a new one if it has none: fresh then.
func (t *Texts) ID(s string) (id uint32, fresh bool) {
	h := hashText(s)
	if id, ok := t.find(h, s); ok {
		return id, false
	}
	return t.add(h, s), true
}

func (t *Texts) idOf(h uint64, s string) uint32 {
	if id, ok := t.find(h, s); ok {
		return id
	}
	return t.add(h, s)
}

func (t *Texts) add(h uint64, s string) uint32 {
	id := t.ids.free - 1
	if t.ids.free != 0 {
		t.ids.free = uint32(t.entry(id)[0])
	} else {
		id = t.ids.next()
		t.entries.reach(id)
	}
	t.ids.n++
	e := t.entry(id)
	if len(s) <= inlineText {
		*e = short(s)
	} else {
		n := wordsFor(len(s))
		r, _ := t.x.a.Alloc(n)
		w := t.x.a.Words(r, n)
		copy(unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(w))), len(s)), s)
		*e = [entryWords]int64{int64(r), int64(longText | uint64(len(s)))}
	}
	t.x.insert(h, id, t)
	return id
}

// Value is a copy of the text with a number in use.
func (t *Texts) Value(id uint32) string { return string(t.Append(nil, id)) }

// Append appends the text with a number in use.
func (t *Texts) Append(dst []byte, id uint32) []byte { return append(dst, t.view(t.entry(id))...) }

// Live tells whether a number is in use.
func (t *Texts) Live(id uint32) bool {
	return id < t.ids.end && uint64(t.entry(id)[1])>>56 != freeText>>56
}

// Delete takes a text out; its number is free. It panics where the number is not in use.
func (t *Texts) Delete(id uint32) {
	if !t.Live(id) {
		panic("slab: a text is deleted that is not there")
	}
	t.x.remove(t.hashOf(id), id, t)
	e := t.entry(id)
	if last := uint64(e[1]); last >= longText {
		t.x.a.Free(Ref(e[0]), wordsFor(int(last&^longText)))
	}
	free := uint64(freeText)
	*e = [entryWords]int64{int64(t.ids.free), int64(free)}
	t.ids.free = id + 1
	t.ids.n--
}

// Len is how many texts there are.
func (t *Texts) Len() int { return int(t.ids.n) }

// Cap is one more than the highest number that was ever in use.
func (t *Texts) Cap() int { return int(t.ids.end) }

// IDs gives the numbers of many texts, new ones where they have none; -1 where null, which may be nil, says that there
// is no text. out is as long as vals.
// They are looked up as in Ints.IDs.
func (t *Texts) IDs(vals []string, null []bool, out []int32) {
	var hashes [block]uint64
	var found [block]uint32
	for ; len(vals) > block; vals, out = vals[block:], out[block:] {
		t.ids64(vals[:block], null, out, &hashes, &found)
		if null != nil {
			null = null[block:]
		}
	}
	t.ids64(vals, null, out, &hashes, &found)
}

func (t *Texts) ids64(vals []string, null []bool, out []int32, hashes *[block]uint64, found *[block]uint32) {
	for i, s := range vals {
		hashes[i] = hashText(s)
	}
	t.x.candidates(hashes[:len(vals)], found)
	for i, s := range vals {
		id := found[i] - 1
		switch {
		case null != nil && null[i]:
			out[i] = -1
			continue
		case found[i] == 0 || !t.is(id, s):
			id = t.idOf(hashes[i], s)
		}
		out[i] = int32(id)
	}
}

// Free gives the table's memory back. The table may not be used afterwards.
func (t *Texts) Free() {
	for id := range t.ids.end {
		if e := t.entry(id); uint64(e[1]) >= longText {
			t.x.a.Free(Ref(e[0]), wordsFor(int(uint64(e[1])&^longText)))
		}
	}
	t.x.free()
	t.entries.free()
}
