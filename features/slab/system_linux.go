package slab

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	chunkBytes = chunkWords * wordBytes

	// regionBytes is how much address space is taken at a time for chunks. Memory is used only as it is touched.
	regionBytes = 32 << 20

	// hugeFrom is the size from which an arena without a budget asks for huge pages (2 MiB): a table of 160 MiB
	// is then read without a miss of the page table for each key (10 % of a lookup among 10 million keys). Below, a
	// page that is touched in part would be a large part of the whole. The first touch of such a page clears 2 MiB,
	// which takes 0.3 ms, and 6 ms where the machine is virtual and its host has yet to find the memory.
	hugeFrom = 4 << 20
	hugePage = 2 << 20
)

// system is where chunks come from: anonymous memory and, where there is a budget, a file without a name. It does not
// know its arena, which may be collected before it.
type system struct {
	regions   []span
	next      uintptr // bytes of the last region in use
	bigs      map[unsafe.Pointer]uintptr
	anonymous int64 // bytes of chunks that are mapped without a file
	budget    bool

	file   *os.File
	size   int64 // of the file
	others int64 // bytes of shared memory of this process that are not the arena's
	pages  []byte
	err    error
}

// span is a range of addresses.
type span struct {
	at   unsafe.Pointer
	size uintptr
}

func newSystem(budget bool, dir string) *system {
	s := &system{budget: budget, bigs: map[unsafe.Pointer]uintptr{}}
	if !budget {
		return s
	}
	f, err := os.CreateTemp(dir, "onmart-state-*")
	if err == nil {
		err = os.Remove(f.Name())
	}
	if err != nil {
		if f != nil {
			f.Close()
		}
		s.err = fmt.Errorf("the part of the state beyond the memory budget has no file: %w: "+
			"name a folder that can be written to, or leave the budget out", err)
		return s
	}
	s.file = f
	s.others = sharedBytes()
	return s
}

func (s *system) fail(what string, err error) {
	if s.err != nil {
		return
	}
	remedy := "name another folder for it, or raise the memory budget"
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		remedy = "free space there, name another folder for it, or raise the memory budget"
	case errors.Is(err, unix.EFBIG):
		remedy = "raise the limit on the size of files (ulimit -f), or the memory budget"
	case errors.Is(err, unix.ENOMEM):
		remedy = "raise vm.max_map_count, or the memory budget"
	}
	s.err = fmt.Errorf("the state has outgrown its memory budget, and %s its file %s (%d MiB so far): %w: %s",
		what, s.file.Name(), s.size>>20, err, remedy)
}

// chunk gives chunkWords words of zeros.
func (s *system) chunk(beyond bool) ([]int64, kind) {
	if len(s.regions) == 0 || s.next == s.regions[len(s.regions)-1].size {
		at, err := anonymous(regionBytes)
		if err != nil {
			return make([]int64, chunkWords), kind{place: heap} // which ends the process if there is no memory
		}
		s.regions = append(s.regions, span{at, regionBytes})
		s.next = 0
		if !s.budget && (len(s.regions)-1)*regionBytes >= hugeFrom {
			huge(at, regionBytes)
		}
	}
	at := unsafe.Add(s.regions[len(s.regions)-1].at, s.next)
	s.next += chunkBytes
	k := kind{place: mapped}
	if beyond && s.err == nil {
		if off, ok := s.extend(chunkBytes); ok && s.mapFile(at, chunkBytes, off) {
			k = kind{place: filed, off: off}
		}
	}
	if k.place == mapped {
		s.anonymous += chunkBytes
	}
	return unsafe.Slice((*int64)(at), chunkWords), k
}

// big gives a chunk of its own to a block.
func (s *system) big(words int, beyond bool) ([]int64, kind) {
	bytes := uintptr(words) * wordBytes
	at, err := anonymous(bytes)
	if err != nil {
		return make([]int64, words), kind{place: heap}
	}
	s.bigs[at] = bytes
	k := kind{place: mapped}
	if beyond && s.err == nil {
		if off, ok := s.extend(int64(bytes)); ok && s.mapFile(at, bytes, off) {
			k = kind{place: filed, off: off}
		}
	}
	if k.place == mapped {
		s.anonymous += int64(bytes)
		if !s.budget && bytes >= hugeFrom {
			huge(at, bytes)
		}
	}
	return unsafe.Slice((*int64)(at), words), k
}

// enlarge moves the pages of a big block to a larger range of addresses: some microseconds a MiB less than copying,
// since only the tables of pages change.
func (s *system) enlarge(w []int64, words int) ([]int64, bool) {
	old := unsafe.Pointer(unsafe.SliceData(w))
	size, bytes := s.bigs[old], uintptr(words)*wordBytes
	at, err := anonymous(bytes)
	if err != nil {
		return nil, false
	}
	if !s.budget && bytes >= hugeFrom {
		huge(at, bytes)
	}
	if _, err := unix.MremapPtr(old, size, at, size, unix.MREMAP_MAYMOVE|unix.MREMAP_FIXED); err != nil {
		unix.MunmapPtr(at, bytes)
		return nil, false
	}
	delete(s.bigs, old)
	s.bigs[at] = bytes
	s.anonymous += int64(bytes - size)
	return unsafe.Slice((*int64)(at), words), true
}

// release gives the memory of a big block back.
func (s *system) release(w []int64, k kind) {
	at := unsafe.Pointer(unsafe.SliceData(w))
	bytes := s.bigs[at]
	delete(s.bigs, at)
	if k.place == filed {
		s.punch(k.off, int64(bytes))
	} else {
		s.anonymous -= int64(bytes)
	}
	if err := unix.MunmapPtr(at, bytes); err != nil {
		panic(fmt.Sprintf("slab: cannot give back %d bytes of memory: %v", bytes, err))
	}
}

func (s *system) close() {
	for _, r := range s.regions {
		unix.MunmapPtr(r.at, r.size)
	}
	for at, size := range s.bigs {
		unix.MunmapPtr(at, size)
	}
	s.regions, s.bigs, s.anonymous = nil, map[unsafe.Pointer]uintptr{}, 0
	if s.file != nil {
		s.file.Close()
		s.file = nil
		s.err = errors.New("the arena is closed")
	}
}

// anonymous maps memory that begins at a huge page.
func anonymous(bytes uintptr) (unsafe.Pointer, error) {
	at, err := unix.MmapPtr(-1, 0, nil, bytes+hugePage, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	page := uintptr(os.Getpagesize())
	bytes = (bytes + page - 1) &^ (page - 1)
	head := -uintptr(at) & (hugePage - 1)
	if head > 0 {
		unix.MunmapPtr(at, head)
	}
	if tail := hugePage - head; tail > 0 {
		unix.MunmapPtr(unsafe.Add(at, head+bytes), tail)
	}
	return unsafe.Add(at, head), nil
}

// huge asks for huge pages; a system that has none goes on without.
func huge(at unsafe.Pointer, bytes uintptr) { advise(at, bytes, unix.MADV_HUGEPAGE) }

func advise(at unsafe.Pointer, bytes uintptr, advice int) error {
	return unix.Madvise(unsafe.Slice((*byte)(at), bytes), advice)
}

// extend makes room at the end of the file, on the disk too, so that writing to the mapped memory cannot fail for
// want of space, which would end the process.
func (s *system) extend(bytes int64) (off int64, ok bool) {
	off = s.size
	fd := int(s.file.Fd())
	err := retry(func() error { return unix.Fallocate(fd, 0, off, bytes) })
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = s.writeZeros(off, bytes)
	}
	if err != nil {
		s.punch(off, bytes)
		s.fail("there is no room for", err)
		return 0, false
	}
	s.size += bytes
	return off, true
}

// writeZeros does what fallocate does where the file system has no such call.
func (s *system) writeZeros(off, bytes int64) error {
	zeros := make([]byte, min(bytes, chunkBytes))
	for end := off + bytes; off < end; off += int64(len(zeros)) {
		if _, err := s.file.WriteAt(zeros[:min(int64(len(zeros)), end-off)], off); err != nil {
			return err
		}
	}
	return nil
}

// punch gives the space of a part of the file back to the disk; where the file system cannot, the file keeps it.
func (s *system) punch(off, bytes int64) {
	unix.Fallocate(int(s.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, bytes)
}

// mapFile puts a part of the file at an address that is ours. On failure what was there stays.
func (s *system) mapFile(at unsafe.Pointer, bytes uintptr, off int64) bool {
	_, err := unix.MmapPtr(int(s.file.Fd()), off, at, bytes, unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_SHARED|unix.MAP_FIXED)
	if err != nil {
		s.punch(off, int64(bytes))
		s.fail("cannot map", err)
		return false
	}
	advise(at, bytes, unix.MADV_RANDOM) // keys come in no order: reading ahead would read what is not asked for
	return true
}

func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Trim brings the arena's memory near its budget, if it has one, and returns Err. To be called between batches. While
// the budget is kept it costs some 5 us, and nothing as long as all chunks together are within it.
//
// What is past the budget goes to the file chunk by chunk in turn, and its pages are unmapped: the system writes
// them to the disk at leisure and keeps them in its page cache as long as nothing else needs the memory, so a
// chunk that is used again soon comes back without a read. Which pages those are is thus decided by the system's
// own lists of recent use, which see accesses; counting accesses in Words would cost each of them more than
// a wrong guess here does.
//
// Between two calls memory grows by the pages that are touched, of 4 KiB and, where they are still in the page
// cache, their neighbours up to 64 KiB: the smaller the budget, the oftener Trim is needed. The page cache itself is
// the system's, and not counted.
func (a *Arena) Trim() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.sys
	if s.err != nil || a.budget == 0 || a.held <= a.budget {
		return s.err
	}
	if a.onHeap+s.anonymous+max(0, sharedBytes()-s.others) <= a.budget {
		return nil
	}
	table := *a.table.Load()
	ours := int64(0)
	for c, w := range table {
		if a.kinds[c].place == filed {
			ours += s.resident(w)
		}
	}
	if a.onHeap+s.anonymous+ours <= a.budget {
		s.others = sharedBytes() - ours // another part of the process has mapped files
		return nil
	}
	low := a.budget - a.budget/8 // so that not every batch pays
	for range table {
		if a.onHeap+s.anonymous+ours <= low {
			break
		}
		a.hand = (a.hand + 1) % len(table)
		w, k := table[a.hand], &a.kinds[a.hand]
		switch k.place {
		case mapped:
			s.toFile(w, k)
		case filed:
			if n := s.resident(w); n > 0 {
				at, bytes := unsafe.Pointer(unsafe.SliceData(w)), uintptr(len(w))*wordBytes
				if err := advise(at, bytes, unix.MADV_DONTNEED); err != nil {
					s.fail("cannot unmap a part of", err)
				}
				ours -= n
			}
		}
		if s.err != nil {
			break
		}
	}
	return s.err
}

// toFile moves a chunk from anonymous memory to the file, at the same address.
func (s *system) toFile(w []int64, k *kind) {
	at, bytes := unsafe.Pointer(unsafe.SliceData(w)), uintptr(len(w))*wordBytes
	off, ok := s.extend(int64(bytes))
	if !ok {
		return
	}
	if _, err := s.file.WriteAt(unsafe.Slice((*byte)(at), bytes), off); err != nil {
		s.punch(off, int64(bytes))
		s.fail("cannot write to", err)
		return
	}
	if s.mapFile(at, bytes, off) {
		*k = kind{place: filed, off: off}
		s.anonymous -= int64(bytes)
	}
}

// resident counts the bytes of words that are mapped to memory, by /proc/self/pagemap: 8 bytes a page, of which the
// highest bit says so. Where it cannot be read, all are taken to be.
func (s *system) resident(w []int64) int64 {
	bytes := int64(len(w)) * wordBytes
	if bytes == 0 {
		return 0
	}
	page := int64(os.Getpagesize())
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return bytes
	}
	defer f.Close()
	if s.pages == nil {
		s.pages = make([]byte, 64<<10)
	}
	at := int64(uintptr(unsafe.Pointer(unsafe.SliceData(w)))) / page * 8
	n := int64(0)
	for left := (bytes + page - 1) / page * 8; left > 0; {
		b := s.pages[:min(left, int64(len(s.pages)))]
		if _, err := f.ReadAt(b, at); err != nil {
			return bytes
		}
		for i := 7; i < len(b); i += 8 {
			n += int64(b[i]>>7) * page
		}
		at += int64(len(b))
		left -= int64(len(b))
	}
	return min(n, bytes)
}

// sharedBytes is how much file-backed memory this process has mapped and in memory, its program's own among it.
func sharedBytes() int64 {
	f, err := os.Open("/proc/self/statm")
	if err != nil {
		return 0
	}
	defer f.Close()
	var b [128]byte
	n, _ := f.Read(b[:])
	var size, all, shared int64
	if _, err := fmt.Sscan(string(b[:n]), &size, &all, &shared); err != nil {
		return 0
	}
	return shared * int64(os.Getpagesize())
}
