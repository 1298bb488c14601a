package cpu

import (
	"slices"
	"sync/atomic"

	"github.com/klauspost/cpuid/v2"

	"github.com/onmart/onmart/train/program"
)

// Fusion. The steps of a program that keep to the rows of the batch, from Gather to the gradient of the first layer,
// are a region: they are run a block of rows at a time, so that what one leaves is in the cache when the next one reads
// it. What a region leaves to itself is never held for the whole batch: its buffers are rings of a few blocks. The sums
// over rows that read the blocks, the gradients of weights, are part of the region: after a block they take up its
// rows, in ascending order, so that each stays one chain.
//
//	for each block:   rows: gather, products, activations, loss, gradients     each worker its blocks
//	                  sums: gradients of weights and biases over these rows    in turn, block after block
//
// A worker's rows are its own from beginning to end; what goes from one worker to the next is the sums, which are much
// smaller. They are cut into pieces, and each piece passes from block to block in the order of the rows, so that a
// worker waits for the first piece at most. Steps outside of regions run one after the other over all rows, with a
// barrier where what one leaves is read in another division of the work.
//
// A buffer that is used outside of its region too lies there as a whole. The region then has a twin of it in its ring,
// which is filled from it or copied to it, block by block.

// cacheBytes is how much of a worker's second-level cache the rows of a block may take up; the weights and their
// gradients need some too.
var cacheBytes = blockBytes(cpuid.CPU.Cache.L2)

// blockBytes is five eighths of a cache of so many bytes, -1 being unknown, but not below three quarters of the 512 KiB of
// a core of Zen 3. BenchmarkTrain on two of them, rows/s of 32-128-128-1 at batch 8192 and of 15-500-1 there, on a machine
// with other work: 128 KiB 1.25M and 2.43M, 256 KiB 1.29M and 2.51M, 384 KiB 1.28M to 1.34M and 2.62M to 2.85M, 512 KiB
// 1.16M to 1.29M and 2.01M to 2.67M. On two of Zen 5, which have 1 MiB: 384 KiB 3.80M and 6.97M, 512 KiB 3.79M and
// 7.26M, 640 KiB 3.96M and 7.31M, 768 KiB 3.90M and 6.87M.
func blockBytes(l2 int) int { return max(384<<10, l2/8*5) }

// Sizes of a block.
const (
	// minBlock is the rows of a block at least: fewer leave the sums over rows more loads and stores than
	// multiply-adds.
	minBlock = 8 * rowQuantum
	// maxBlock is the rows of a block at most: no product gets faster by more.
	maxBlock = 64 * rowQuantum
)

// phase is a region, or one step outside of regions.
type phase struct {
	step
	rows, sums []step // of a region
	pieces     []piece
	waiting    *sleepers // for their turn at a piece
	block      int       // rows of a block, at most
	ring       int       // rows of the region's buffers
	barrier    bool      // before it
}

// layout says which steps are regions and where buffers lie. A row i of a ring is row i + base of the batch, base being
// a worker's at the time.
type layout struct {
	items   []item
	bytes   int    // of the arena
	offset  []int  // by buffer, in the arena; -1 for what lies elsewhere
	rows    []int  // by buffer: of its ring, 0 for one that is there as a whole
	twins   []twin // of buffers that are there as a whole, for the steps of a region
	twinsOf [][]int
}

// item is a phase as indices of steps.
type item struct {
	step       int
	rows, sums []int
	block      int
	ring       int
}

func (it *item) region() bool { return it.rows != nil }

// twin is the ring that a region has of a buffer that lies elsewhere as a whole.
type twin struct {
	buffer, item, offset int
	fill, spill          bool // copied from the buffer before the region's steps, to it behind them
}

// dry resolves buffers to memory that is never written, which is enough to see what steps there will be: pages that
// nobody touches cost nothing.
func (m *machine) dry() {
	n := 0
	for i := range m.p.Buffers {
		b := &m.p.Buffers[i]
		n = max(n, b.Len()*b.DType.Size())
	}
	for i := range m.p.Buffers {
		if m.varying && m.p.Buffers[i].Kind == program.Input {
			m.in = append(m.in, m.feedOf(i))
		}
		if b := &m.p.Buffers[i]; b.Kind == program.Output {
			m.out = drain{buf: i, width: b.Len() / b.Shape[0]}
		}
	}
	none := aligned(n)
	m.mem, m.place = nil, nil
	for i := range m.p.Buffers {
		b := &m.p.Buffers[i]
		m.mem = append(m.mem, view(none, b.DType, 0, b.Len()))
		m.place = append(m.place, access{space: 1 + i, hi: b.Len() * b.DType.Size()})
		if b.Kind == program.Param || b.Kind == program.State || b.Kind == program.Const {
			m.mem[i] = m.store.find(b.Name).tensor // a weight that does not change is packed now
		}
	}
}

// bufferOf is the buffer of an access in a dry run, or -1.
func (m *machine) bufferOf(a access) int {
	if i := a.space - 1; i >= 0 && i < len(m.p.Buffers) {
		return i
	}
	return -1
}

// rowBytes is the size of one row of a buffer.
func (m *machine) rowBytes(id int) int {
	b := &m.p.Buffers[id]
	return b.Len() / b.Shape[0] * b.DType.Size()
}

// byRows tells whether an access is one of rows of the batch, each worker keeping to its own.
func (m *machine) byRows(a access) bool {
	id := m.bufferOf(a)
	return id >= 0 && m.p.Buffers[id].PerRow && a.unitBytes == m.rowBytes(id)
}

// The group that a step belongs to while the steps are sorted into phases.
const (
	before = iota // of the region
	ofRows
	ofSums
	after
)

// group sorts the steps into phases: those that the region does not depend on, the region, and of the others in turn.
func (m *machine) group(plainly []bool) []item {
	var items []item
	rest := make([]int, len(m.steps))
	for i := range rest {
		rest[i] = i
	}
	in := make([]int, len(m.steps))
	for len(rest) > 0 {
		it := item{}
		var later []int
		for k, i := range rest {
			in[i] = m.groupOf(i, rest[:k], in, plainly[i])
			switch in[i] {
			case before:
				items = append(items, item{step: i})
			case ofRows:
				it.rows = append(it.rows, i)
			case ofSums:
				it.sums = append(it.sums, i)
			case after:
				later = append(later, i)
			}
		}
		if it.region() {
			items = append(items, it)
		}
		rest = later
	}
	return items
}

// groupOf finds the group of step i by the steps before it that it must come after.
func (m *machine) groupOf(i int, earlier, in []int, plainly bool) int {
	s := &m.steps[i]
	rowwise, sum := s.rowwise && !plainly, s.over != nil && !plainly
	behind := false // a step of the region, in the way of rows
	for _, j := range earlier {
		if in[j] == before {
			continue
		}
		if in[j] == ofRows && m.sameRows(s, &m.steps[j]) {
			behind = behind || m.depends(s, &m.steps[j])
			continue
		}
		if m.depends(s, &m.steps[j]) {
			return after
		}
	}
	switch {
	case rowwise:
		return ofRows
	case sum && behind:
		return ofSums
	case behind:
		return after
	}
	return before
}

// depends tells whether two steps must stay in their order.
func (m *machine) depends(a, b *step) bool {
	for _, x := range a.touches {
		for _, y := range b.touches {
			if x.meets(y) {
				return true
			}
		}
	}
	return false
}

// sameRows tells whether two steps meet only where both keep to the rows that a worker has.
func (m *machine) sameRows(a, b *step) bool {
	for _, x := range a.touches {
		for _, y := range b.touches {
			if x.meets(y) && (x.unitBytes == 0 || x.unitBytes != y.unitBytes) {
				return false
			}
		}
	}
	return true
}

// planLayout chooses regions and places.
func (m *machine) planLayout() layout {
	plainly := slices.Repeat([]bool{m.single}, len(m.steps))
	items := m.group(plainly)
	for m.demote(items, plainly) {
		items = m.group(plainly)
	}
	l := layout{items: items, twinsOf: make([][]int, len(m.p.Instrs))}
	m.rings(&l)
	for m.demoteDoors(&l, plainly) {
		l = layout{items: m.group(plainly), twinsOf: make([][]int, len(m.p.Instrs))}
		m.rings(&l)
	}
	m.blocks(&l)
	m.placeAll(&l)
	return l
}

// demoteDoors takes the steps that fill an input or empty an output out of a region that has not got that buffer to
// itself.
func (m *machine) demoteDoors(l *layout, plainly []bool) (any bool) {
	for k := range l.items {
		for _, i := range l.items[k].rows {
			for _, a := range m.steps[i].touches {
				if id := m.bufferOf(a); m.steps[i].instr < 0 && id >= 0 && l.rows[id] == 0 {
					plainly[i], any = true, true
				}
			}
		}
	}
	return any
}

// demote takes steps out of the regions that cannot be there: those of an instruction that would see one buffer in two
// places; and regions of one step, which have nothing to keep in the cache. It says whether there were any.
func (m *machine) demote(items []item, plainly []bool) (any bool) {
	home := make([]int, len(m.steps)) // by step: the region it is in, or -1
	for i := range home {
		home[i] = -1
	}
	for k := range items {
		for _, i := range slices.Concat(items[k].rows, items[k].sums) {
			home[i] = k
		}
	}
	for k := range items {
		it := &items[k]
		if it.region() && len(it.rows) == 1 && it.sums == nil && !m.varying {
			plainly[it.rows[0]], any = true, true
			continue
		}
		for _, i := range slices.Concat(it.rows, it.sums) {
			if m.torn(i, home) {
				plainly[i], any = true, true
			}
		}
	}
	return any
}

// torn tells whether the instruction of step i sees a buffer by rows in the step and otherwise there or elsewhere.
func (m *machine) torn(i int, home []int) bool {
	for _, x := range m.steps[i].touches {
		if !m.byRows(x) {
			continue
		}
		for j := range m.steps {
			if m.steps[j].instr != m.steps[i].instr || m.steps[i].instr < 0 {
				continue
			}
			for _, y := range m.steps[j].touches {
				if y.space == x.space && (home[j] != home[i] || !m.byRows(y)) {
					return true
				}
			}
		}
	}
	return false
}

// rings finds the buffers that one region has to itself, and the twins of the others.
func (m *machine) rings(l *layout) {
	l.rows, l.offset = make([]int, len(m.p.Buffers)), make([]int, len(m.p.Buffers))
	of := make([]int, len(m.p.Buffers)) // the item that has the buffer by rows to itself; -1 none yet, -2 several
	for id := range of {
		of[id] = -1
		if !m.moves(id) {
			of[id] = -2
		}
	}
	for k := range l.items {
		m.eachTouch(&l.items[k], func(_ int, a access) {
			id := m.bufferOf(a)
			switch {
			case id < 0 || of[id] == k && m.byRows(a):
			case of[id] == -1 && l.items[k].region() && m.byRows(a):
				of[id] = k
			default:
				of[id] = -2
			}
		})
	}
	for id, k := range of {
		if k >= 0 {
			l.rows[id] = 1 + k // the region for now; blocks makes rows of it
		}
	}
	for k := range l.items {
		if l.items[k].region() {
			m.twinsIn(l, k)
		}
	}
}

// moves tells whether a buffer lies in the arena.
func (m *machine) moves(id int) bool {
	switch m.p.Buffers[id].Kind {
	case program.Temp, program.Input, program.Output:
		return true
	}
	return false
}

// eachTouch goes through the accesses of an item, in the order of its steps.
func (m *machine) eachTouch(it *item, do func(step int, a access)) {
	steps := []int{it.step}
	if it.region() {
		steps = slices.Concat(it.rows, it.sums)
	}
	for _, i := range steps {
		for _, a := range m.steps[i].touches {
			do(i, a)
		}
	}
}

// twinsIn lists the twins of region k.
func (m *machine) twinsIn(l *layout, k int) {
	at := map[int]int{}
	m.eachTouch(&l.items[k], func(i int, a access) {
		id := m.bufferOf(a)
		if id < 0 || l.rows[id] > 0 || !m.moves(id) || !m.byRows(a) {
			return
		}
		t, seen := at[id]
		if !seen {
			t = len(l.twins)
			at[id] = t
			l.twins = append(l.twins, twin{buffer: id, item: k, fill: !a.write})
		}
		l.twins[t].spill = l.twins[t].spill || a.write
		if n := m.steps[i].instr; n >= 0 && !slices.Contains(l.twinsOf[n], t) {
			l.twinsOf[n] = append(l.twinsOf[n], t)
		}
	})
}

// blocks sizes the blocks of each region and with them its rings.
func (m *machine) blocks(l *layout) {
	for k := range l.items {
		it := &l.items[k]
		if !it.region() {
			continue
		}
		row := 0
		for id, r := range l.rows {
			if r == 1+k {
				row += m.rowBytes(id)
			}
		}
		for _, t := range l.twins {
			if t.item == k {
				row += m.rowBytes(t.buffer)
			}
		}
		it.block = cacheBytes / max(1, row) / rowQuantum * rowQuantum
		it.block = max(minBlock, min(it.block, maxBlock))
		if m.most > 0 {
			it.block = m.most
		}
		it.ring = m.workers * it.block
		if !m.varying {
			it.ring = min(it.ring, m.p.Rows)
		}
	}
	for id, r := range l.rows {
		if r > 0 {
			l.rows[id] = l.items[r-1].ring
		}
	}
}

// smallBytes is below what two buffers never share a place: it would only make one wait for the other.
const smallBytes = 4 << 10

// placed is something that the arena holds from one item to another.
type placed struct {
	to                *int
	size, first, last int
}

// placeAll gives what is alive at the same time disjoint places in the arena, the largest first, each at the lowest
// offset that fits (as train/graph does for programs).
func (m *machine) placeAll(l *layout) {
	var all []placed
	where := make([]int, len(m.p.Buffers))
	for id := range where {
		l.offset[id], where[id] = -1, -1
		if !m.moves(id) {
			continue
		}
		b := &m.p.Buffers[id]
		size := b.Len() * b.DType.Size()
		if l.rows[id] > 0 {
			size = l.rows[id] * m.rowBytes(id)
		}
		where[id] = len(all)
		all = append(all, placed{&l.offset[id], size, len(l.items), -1})
	}
	for k := range l.items {
		m.eachTouch(&l.items[k], func(_ int, a access) {
			if id := m.bufferOf(a); id >= 0 && m.moves(id) {
				p := &all[where[id]]
				if !a.write && p.last < 0 {
					p.first = 0 // what is read first was there before
				}
				p.first, p.last = min(p.first, k), max(p.last, k)
			}
		})
	}
	for i := range l.twins {
		t := &l.twins[i]
		all = append(all, placed{&t.offset, l.items[t.item].ring * m.rowBytes(t.buffer), t.item, t.item})
	}
	for i := range all {
		if all[i].size < smallBytes || all[i].last < 0 || m.single {
			all[i].first, all[i].last = 0, len(l.items)
		}
	}
	l.bytes = arrange(all)
}

// arrange sets the places and returns the bytes that they need together.
func arrange(all []placed) (bytes int) {
	slices.SortStableFunc(all, func(a, b placed) int { return b.size - a.size })
	for i := range all {
		p := &all[i]
		var taken []placed
		for _, t := range all[:i] {
			if t.first <= p.last && p.first <= t.last {
				taken = append(taken, t)
			}
		}
		slices.SortFunc(taken, func(a, b placed) int { return *a.to - *b.to })
		at := 0
		for _, t := range taken {
			if at+p.size <= *t.to {
				break
			}
			at = max(at, *t.to+ceilDiv(t.size, lineBytes)*lineBytes)
		}
		*p.to = at
		bytes = max(bytes, at+p.size)
	}
	return ceilDiv(bytes, lineBytes) * lineBytes
}

// allocate gives every buffer its memory and its place.
func (m *machine) allocate(arena []float64, slotNames []string) {
	for i := range m.p.Buffers {
		b := &m.p.Buffers[i]
		switch b.Kind {
		case program.Param, program.State, program.Const: // found before
		case program.Slot:
			m.mem[i] = tensor{f64: m.slots[slices.Index(slotNames, b.Name):][:1]}
		default:
			m.mem[i] = tensor{}
			if at := m.plan.offset[i]; at >= 0 {
				n := b.Len()
				if r := m.plan.rows[i]; r > 0 {
					n = r * (n / b.Shape[0])
				}
				m.mem[i] = view(arena, b.DType, at, n)
				m.place[i] = access{space: spaceArena, lo: at, hi: at + n*b.DType.Size()}
			}
		}
	}
	m.whole = slices.Clone(m.mem)
	m.wholePlace = slices.Clone(m.place)
	m.twinMem, m.twinPlace = nil, nil
	for _, t := range m.plan.twins {
		b := &m.p.Buffers[t.buffer]
		n := m.plan.items[t.item].ring * (b.Len() / b.Shape[0])
		m.twinMem = append(m.twinMem, view(arena, b.DType, t.offset, n))
		m.twinPlace = append(m.twinPlace, access{space: spaceArena, lo: t.offset, hi: t.offset + n*b.DType.Size()})
	}
}

// enter lets instruction i see the twins of its region, until leave.
func (m *machine) enter(i int) {
	if m.plan.twinsOf == nil {
		return
	}
	for _, t := range m.plan.twinsOf[i] {
		id := m.plan.twins[t].buffer
		m.mem[id], m.place[id] = m.twinMem[t], m.twinPlace[t]
	}
}

func (m *machine) leave(i int) {
	if m.plan.twinsOf == nil {
		return
	}
	for _, t := range m.plan.twinsOf[i] {
		id := m.plan.twins[t].buffer
		m.mem[id], m.place[id] = m.whole[id], m.wholePlace[id]
	}
}

// assemble makes phases of the steps.
func (m *machine) assemble() {
	m.phases = nil
	regions := 0
	for k := range m.plan.items {
		it := &m.plan.items[k]
		if !it.region() {
			m.phases = append(m.phases, phase{step: m.steps[it.step]})
			continue
		}
		regions++
		ph := phase{block: it.block, ring: it.ring, rows: m.copies(k, true)}
		for _, i := range it.rows {
			ph.rows = append(ph.rows, m.steps[i])
		}
		ph.rows = append(ph.rows, m.copies(k, false)...)
		for i := range ph.rows {
			ph.rows[i].region = regions
		}
		for _, i := range it.sums {
			ph.sums = append(ph.sums, m.steps[i])
			ph.sums[len(ph.sums)-1].region = regions
		}
		m.phases = append(m.phases, ph)
	}
	m.stream = m.varying && len(m.phases) == 1 && regions == 1
	for i := range m.phases {
		m.phases[i].cut()
	}
	m.planBarriers()
	m.number()
	m.steps = nil
}

// number gives every step its number, for the stopwatch.
func (m *machine) number() {
	m.ids = 0
	for i := range m.phases {
		ph := &m.phases[i]
		own := []*step{&ph.step}
		for k := range ph.rows {
			own = append(own, &ph.rows[k])
		}
		for k := range ph.sums {
			own = append(own, &ph.sums[k])
		}
		for _, s := range own {
			s.id = m.ids
			m.ids++
		}
	}
}

// copies are the steps that fill the twins of region k, or those that copy them back.
func (m *machine) copies(k int, fill bool) (steps []step) {
	for i, t := range m.plan.twins {
		if t.item != k || fill && !t.fill || !fill && !t.spill {
			continue
		}
		ring, whole, n := m.twinMem[i], m.whole[t.buffer], m.rowBytes(t.buffer)/m.p.Buffers[t.buffer].DType.Size()
		near, far := m.twinPlace[i], m.wholePlace[t.buffer]
		near.unitBytes, far.unitBytes = m.rowBytes(t.buffer), m.rowBytes(t.buffer)
		near.write, far.write = fill, !fill
		s := step{partition: partition{units: m.p.Rows, quantum: rowQuantum}, instr: instrCopy, touches: []access{near, far}}
		s.run = func(w *worker, lo, hi int) {
			at := lo + w.base
			if fill {
				copyRows(ring, whole, lo, at, hi-lo, n)
			} else {
				copyRows(whole, ring, at, lo, hi-lo, n)
			}
		}
		steps = append(steps, s)
	}
	return steps
}

// copyRows copies rows of n elements.
func copyRows(dst, src tensor, to, from, rows, n int) {
	if dst.f64 != nil {
		copy(dst.f64[to*n:(to+rows)*n], src.f64[from*n:])
		return
	}
	copy(dst.f32[to*n:(to+rows)*n], src.f32[from*n:])
}

// planBarriers marks the phases that must wait: those that touch what an earlier one since the last barrier has touched
// in another division of the work, one of the two writing.
func (m *machine) planBarriers() {
	var since []*step
	for i := range m.phases {
		ph := &m.phases[i]
		var own []*step
		if ph.rows == nil {
			own = []*step{&ph.step}
		}
		for k := range ph.rows {
			own = append(own, &ph.rows[k])
		}
		for k := range ph.sums {
			own = append(own, &ph.sums[k])
		}
		for _, a := range own {
			for _, b := range since {
				ph.barrier = ph.barrier || conflict(a, b)
			}
		}
		if ph.barrier {
			since = nil
		}
		since = append(since, own...)
	}
}

// eachRow does a worker's rows of a region without sums.
func (m *machine) eachRow(w *worker, ph *phase, c *clock) {
	lo, hi := ph.rows[0].split(w.rows, w.id, w.of)
	slot := w.id * ph.block
	if w.rows <= ph.ring {
		slot = lo
	}
	for at := lo; at < hi; at += ph.block {
		n := min(ph.block, hi-at)
		w.base = at - slot
		m.block(w, ph.rows, slot, slot+n, c)
		if w.rows <= ph.ring {
			slot += n
		}
	}
	w.base = 0
}

// eachBlock does a worker's share of a region with sums.
func (m *machine) eachBlock(w *worker, ph *phase, c *clock) {
	turns := ceilDiv(w.rows, w.of*ph.block) * w.of
	rows := ceilDiv(ceilDiv(w.rows, turns), rowQuantum) * rowQuantum
	for turn := w.id; turn*rows < w.rows; turn += w.of {
		at := turn * rows
		n := min(rows, w.rows-at)
		from := at
		if w.rows > ph.ring {
			from = w.id * ph.block
		}
		w.base = at - from
		m.block(w, ph.rows, from, from+n, c)
		w.base = 0
		next := int32(turn + 1)
		if at+n == w.rows {
			next = 0 // for the first turn of another run
		}
		for i := range ph.pieces {
			p := &ph.pieces[i]
			if w.of > 1 {
				p.await(int32(turn), w.barrier.spins, ph.waiting)
				if c != nil {
					c.waited()
				}
			}
			p.over(w, p.lo, p.hi, from, from+n, at == 0)
			if w.of > 1 {
				p.pass(next, ph.waiting)
			}
			if c != nil {
				c.lap(p.step, float64(p.hi-p.lo)/float64(p.units)*float64(n)/float64(w.rows))
			}
		}
	}
}

// piece is a part of a sum, and whose turn it is to take it further.
type piece struct {
	*step
	lo, hi int
	turn   atomic.Int32
	_      [64]byte // two pieces' turns are not in one line
}

// await returns when it is the turn; waiting are those who sleep until one of the region's pieces is theirs.
func (p *piece) await(turn int32, spins int, waiting *sleepers) {
	for range spins {
		if p.turn.Load() == turn {
			return
		}
		pause(spinPauses)
	}
	waiting.until(func() bool { return p.turn.Load() == turn })
}

// pass lets whoever has the next turn go on.
func (p *piece) pass(next int32, waiting *sleepers) {
	p.turn.Store(next)
	waiting.wake()
}

// maxPieces is about the number of pieces of all sums of a region: the more, the sooner a worker's turn comes; the
// fewer, the larger are the products.
const maxPieces = 12

// cut makes the pieces of a region's sums, of about the same number of results.
func (ph *phase) cut() {
	if len(ph.sums) == 0 {
		return
	}
	ph.waiting = &sleepers{}
	ph.waiting.init()
	results := func(s *step) (n int) {
		for _, a := range s.touches {
			if a.write {
				n += a.hi - a.lo
			}
		}
		return n
	}
	total := 0
	for i := range ph.sums {
		total += results(&ph.sums[i])
	}
	type span struct{ i, lo, hi int }
	var spans []span
	for i := range ph.sums {
		s := &ph.sums[i]
		n := max(1, results(s)*maxPieces/max(total, 1))
		for k := range n {
			if lo, hi := s.split(s.units, k, n); lo < hi {
				spans = append(spans, span{i, lo, hi})
			}
		}
	}
	ph.pieces = make([]piece, len(spans))
	for k, p := range spans {
		ph.pieces[k].step, ph.pieces[k].lo, ph.pieces[k].hi = &ph.sums[p.i], p.lo, p.hi
	}
}

// block runs the steps of a region over rows lo..hi of its rings.
func (m *machine) block(w *worker, steps []step, lo, hi int, c *clock) {
	for i := range steps {
		steps[i].run(w, lo, hi)
		if c != nil {
			c.lap(&steps[i], float64(hi-lo)/float64(w.rows))
		}
	}
}
