package datasets

import "math/bits"

// numberDict gives numbers their place in order of first appearance. It is an open-addressing table of places beside
// the values themselves, so that a lookup touches two small arrays.
type numberDict struct {
	values []uint64
	table  []uint16 // place + 1 by hash; 0 is free
	shift  uint     // of the hash, so that it is below len(table)
}

// dictTable is the size of a new table.
const dictTable = 1 << 10

func (d *numberDict) len() int { return len(d.values) }

// reset empties the dictionary and keeps its memory.
func (d *numberDict) reset() {
	d.values = d.values[:0]
	d.table = nil
}

// sample tells whether an evenly spread sample of v has at most limit distinct values, and leaves the dictionary
// empty.
func (d *numberDict) sample(v []uint64, limit int) bool {
	d.reset()
	step := max(1, len(v)/sampleValues)
	var one [1]int32
	for i := 0; i < len(v); i += step {
		if !d.find(one[:], v[i:i+1]) || len(d.values) > limit {
			d.reset()
			return false
		}
	}
	d.reset()
	return true
}

// find sets dst to the places of v, adding what is new. Where there would be more than dictLimit values it says no,
// and the dictionary is as it was before.
func (d *numberDict) find(dst []int32, v []uint64) bool {
	if d.table == nil {
		d.rehash(dictTable)
	}
	before := len(d.values)
	dst = dst[:len(v)]
	for i := 0; i < len(v); {
		i = d.findKnown(dst, v, i)
		if i == len(v) {
			break
		}
		if len(d.values) == dictLimit {
			d.values = d.values[:before]
			d.rehash(len(d.table))
			return false
		}
		d.add(v[i])
	}
	return true
}

// findKnown sets dst from i on, up to the first value that is not there, and returns its index.
func (d *numberDict) findKnown(dst []int32, v []uint64, i int) int {
	table, values, shift, mask := d.table, d.values, d.shift&63, len(d.table)-1
	dst = dst[:len(v)]
	for ; i < len(v); i++ {
		x := v[i]
		h := int(hashNumber(x) >> shift)
		for {
			p := int(table[h&mask]) - 1
			if p < 0 {
				return i
			}
			if values[p] == x {
				dst[i] = int32(p)
				break
			}
			h++
		}
	}
	return i
}

// add appends a value that is not there.
func (d *numberDict) add(x uint64) {
	d.values = append(d.values, x)
	if 3*len(d.values) > len(d.table) {
		d.rehash(2 * len(d.table))
		return
	}
	d.place(x, len(d.values))
}

func (d *numberDict) place(x uint64, at int) {
	mask := len(d.table) - 1
	h := int(hashNumber(x)>>d.shift) & mask
	for d.table[h] != 0 {
		h = (h + 1) & mask
	}
	d.table[h] = uint16(at)
}

func (d *numberDict) rehash(size int) {
	d.table = make([]uint16, size)
	d.shift = uint(64 - bits.TrailingZeros(uint(size)))
	for i, x := range d.values {
		d.place(x, i+1)
	}
}

// hashNumber spreads numbers over its upper bits: of floating point numbers with a short fraction too, whose lower
// bits are zero.
func hashNumber(x uint64) uint64 { return x * 0x9E3779B97F4A7C15 }

// textDict gives texts their place in order of first appearance.
type textDict struct {
	values []string
	places map[string]int32
}

func (d *textDict) reset() {
	clear(d.values) // or their memory stays
	d.values, d.places = d.values[:0], nil
}

// sample tells whether an evenly spread sample of v has at most dictTexts distinct values.
func (d *textDict) sample(v []string) bool {
	step := max(1, len(v)/sampleValues)
	seen := make(map[string]struct{}, dictTexts)
	for i := 0; i < len(v); i += step {
		seen[v[i]] = struct{}{}
		if len(seen) > dictTexts {
			return false
		}
	}
	return true
}

// find is like that of numberDict. The texts are kept past the page that they came with.
func (d *textDict) find(dst []int32, v []string) bool {
	if d.places == nil {
		d.places = map[string]int32{}
	}
	before := len(d.values)
	for i, s := range v {
		p, ok := d.places[s]
		if !ok {
			if len(d.values) == dictLimit {
				for _, s := range d.values[before:] {
					delete(d.places, s)
				}
				d.values = d.values[:before]
				return false
			}
			p = int32(len(d.values))
			d.values = append(d.values, s)
			d.places[s] = p
		}
		dst[i] = p
	}
	return true
}

// bitWidth is the bits of an index below n.
func bitWidth(n int) int { return bits.Len(uint(max(0, n-1))) }
