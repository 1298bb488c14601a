package slab

const (
	// pageBits: keys by number lie in pages of 2^13 entries, which are never copied. Only the first page begins
	// small and doubles.
	pageBits = 13
	pageMask = 1<<pageBits - 1
	pageMin  = 16
)

// pages is entries of some words each by number.
type pages struct {
	a     *Arena
	words int // of an entry
	all   [][]int64
	refs  []Ref
}

// reach makes room for the entry with a number, which is at most one more than those there have been.
func (p *pages) reach(id uint32) {
	i := int(id >> pageBits)
	if i < len(p.all) && int(id&pageMask)*p.words < len(p.all[i]) {
		return
	}
	switch full := p.words << pageBits; {
	case i == 0 && len(p.all) == 0:
		p.add(pageMin * p.words)
	case i == 0:
		old := len(p.all[0])
		size := min(2*old, full)
		r, _ := p.a.Grow(p.refs[0], old, old, size)
		p.refs[0], p.all[0] = r, p.a.Words(r, size)
	default:
		p.add(full)
	}
}

func (p *pages) add(words int) {
	r, _ := p.a.Alloc(words)
	p.refs = append(p.refs, r)
	p.all = append(p.all, p.a.Words(r, words))
}

func (p *pages) free() {
	for i, r := range p.refs {
		p.a.Free(r, len(p.all[i]))
	}
	p.all, p.refs = nil, nil
}
