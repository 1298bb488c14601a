package slab

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be a process that fills an arena in a folder, under a limit on file sizes or on a
// small file system of its own.
func TestMain(m *testing.M) {
	mode := os.Getenv("SLAB_CHILD")
	if mode == "" {
		os.Exit(m.Run())
	}
	os.Exit(fillChild(mode, os.Getenv("SLAB_CHILD_DIR")))
}

// mappedBytes is the size of the process's anonymous and file memory that is in use.
func mappedBytes() (int64, bool) {
	var size, all int64
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0, false
	}
	if _, err := fmt.Sscan(string(b), &size, &all); err != nil {
		return 0, false
	}
	return all * int64(os.Getpagesize()), true
}

// fileResident is what /proc/self/smaps says of the file: an answer that does not come from the code under test.
func fileResident(t *testing.T) int64 {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	total, ours := int64(0), false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if first, _, _ := strings.Cut(line, " "); !strings.HasSuffix(first, ":") { // a range of addresses
			ours = strings.Contains(line, "onmart-state-")
		}
		if rss, ok := strings.CutPrefix(line, "Rss:"); ok && ours {
			var kb int64
			fmt.Sscan(rss, &kb)
			total += kb << 10
		}
	}
	return total
}

// filled is a state of all structures, and what is to be found in it.
type filled struct {
	a     *Arena
	x     *Ints
	s     *Texts
	rings []ringOf
	multi []Multiset
	sets  []Set
}

type ringOf struct {
	r    Ref
	size int
	n    int
}

const filledKeys = 500

func newFilled(a *Arena) *filled {
	return &filled{a: a, x: NewInts(a), s: NewTexts(a), rings: make([]ringOf, filledKeys),
		multi: make([]Multiset, filledKeys), sets: make([]Set, filledKeys)}
}

// batch puts in n events from a number on.
func (f *filled) batch(from, n int64) {
	for i := from; i < from+n; i++ {
		h := int64(mix(uint64(i)))
		id, _ := f.x.ID(h)
		f.s.ID(string(appendInt(nil, i)))
		k := uint64(h) % filledKeys
		g := &f.rings[k]
		if g.n == g.size {
			if g.r == 0 {
				g.r, g.size = f.a.Alloc(4)
			} else {
				g.r, g.size = f.a.Grow(g.r, g.n, g.size, g.n+1)
			}
		}
		f.a.Words(g.r, g.size)[g.n] = int64(id)
		g.n++
		f.multi[k].Add(f.a, h%1000, 1)
		f.sets[k].Add(f.a, h)
	}
}

// digest is a number made of all contents.
func (f *filled) digest() uint64 {
	d := uint64(f.x.Len())<<32 | uint64(f.s.Len())
	add := func(v int64) { d = mix(d ^ uint64(v)) }
	for id := range uint32(f.x.Cap()) {
		add(f.x.Value(id))
		found, ok := f.x.Find(f.x.Value(id))
		add(int64(found))
		if !ok {
			add(-1)
		}
	}
	for id := range uint32(f.s.Cap()) {
		add(int64(hashText(f.s.Value(id))))
	}
	for k := range f.rings {
		for _, v := range f.a.Words(f.rings[k].r, f.rings[k].n) {
			add(v)
		}
		for _, c := range f.multi[k].Each(f.a, nil) {
			add(c.Value)
			add(int64(c.Count))
		}
		for _, v := range f.sets[k].Words(f.a, nil) {
			add(v)
		}
	}
	return d
}

// With a budget of a tenth of the state the contents are the same, and memory stays near the budget.
func TestBudget(t *testing.T) {
	const budget = 2 << 20
	events, batch := int64(350_000), int64(5000)
	plain := newFilled(New(0, ""))
	defer plain.a.Close()
	tight := newFilled(New(budget, t.TempDir()))
	defer tight.a.Close()
	if n := fileResident(t); n != 0 {
		t.Fatalf("%d bytes of a state's file are in memory before there is one", n)
	}
	most := int64(0)
	for i := int64(0); i < events; i += batch {
		plain.batch(i, batch)
		tight.batch(i, batch)
		if err := tight.a.Trim(); err != nil {
			t.Fatal(err)
		}
		if i/batch%4 != 0 && i+batch < events {
			continue
		}
		own, seen := tight.a.resident(), fileResident(t)
		if i > events/2 && fileBlocks(t, tight.a) < tight.a.Bytes()/2 {
			t.Fatalf("only %d bytes of a state of %d are in the file", fileBlocks(t, tight.a), tight.a.Bytes())
		}
		if seen > own {
			t.Errorf("smaps sees %d bytes of the file, Resident all of %d", seen, own)
		}
		most = max(most, own)
	}
	if plain.a.Bytes() < 10*budget {
		t.Fatalf("the state is only %d MiB", plain.a.Bytes()>>20)
	}
	if tight.a.Bytes() != plain.a.Bytes() {
		t.Errorf("%d bytes are in use with a budget, %d without", tight.a.Bytes(), plain.a.Bytes())
	}
	t.Logf("state %d MiB, budget %d MiB, after Trim never more than %.1f MiB",
		plain.a.Bytes()>>20, budget>>20, float64(most)/(1<<20))
	if most > budget+budget/10 {
		t.Errorf("%d bytes are in memory after Trim with a budget of %d", most, budget)
	}
	if plain.digest() != tight.digest() {
		t.Error("contents differ")
	}
	if err := tight.a.Trim(); err != nil {
		t.Fatal(err)
	}
	if n := tight.a.resident(); n > budget+budget/10 {
		t.Errorf("%d bytes are in memory after all was read, with a budget of %d", n, budget)
	}
}

// A block of its own that is larger than the budget goes to the file too, and comes back.
func TestBudgetOfALargeBlock(t *testing.T) {
	const budget = 4 << 20
	a := New(budget, t.TempDir())
	defer a.Close()
	r, size := a.Alloc(1000)
	n := 0
	for n < 5<<20 {
		if n == size {
			r, size = a.Grow(r, n, size, n+1)
		}
		for w := a.Words(r, size); n < size; n++ {
			w[n] = int64(n) * 3
		}
		if err := a.Trim(); err != nil {
			t.Fatal(err)
		}
	}
	if got := a.resident(); got > budget*11/10 {
		t.Errorf("%d bytes are in memory", got)
	}
	for i, v := range a.Words(r, n) {
		if v != int64(i)*3 {
			t.Fatalf("word %d is %d", i, v)
		}
	}
	if used := fileBlocks(t, a); used > 2*a.Held() {
		t.Errorf("the file takes %d bytes of disk for %d", used, a.Held())
	}
	a.Free(r, size)
	if used := fileBlocks(t, a); used > 8<<20 {
		t.Errorf("the file takes %d bytes of disk after the block was freed", used)
	}
}

func fileBlocks(t *testing.T, a *Arena) int64 {
	t.Helper()
	info, err := a.sys.file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

func TestBudgetLeavesNoFile(t *testing.T) {
	dir := t.TempDir()
	a := New(1<<20, dir)
	for range 8 {
		a.Alloc(chunkWords)
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) > 0 {
		t.Errorf("the folder has %v (%v)", names, err)
	}
	a.Close()
}

func TestBudgetWithoutAFolder(t *testing.T) {
	a := New(1<<20, "/nonexistent/folder")
	defer a.Close()
	for i := range 8 {
		r, size := a.Alloc(chunkWords)
		a.Words(r, size)[size-1] = int64(i)
	}
	for _, err := range []error{a.Err(), a.Trim()} {
		if text := fmt.Sprint(err); !strings.Contains(text, "/nonexistent/folder") || !strings.Contains(text, "name a folder") {
			t.Errorf("got %v", err)
		}
	}
}

// fillChild fills an arena until it reports that it cannot keep to its budget, goes on for a while, and checks that
// all is there.
func fillChild(mode, dir string) int {
	switch mode {
	case "limit":
		signal.Ignore(syscall.SIGXFSZ)
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 8 << 20, Max: 8 << 20}); err != nil {
			fmt.Println(err)
			return 2
		}
	case "tmpfs":
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m"); err != nil {
			fmt.Println("cannot mount:", err)
			return 3
		}
	}
	f := newFilled(New(2<<20, dir))
	var err error
	after := 0
	for i := int64(0); i < 300_000 && after < 10; i += 4000 {
		f.batch(i, 4000)
		if err = f.a.Trim(); err != nil {
			after++
		}
	}
	if err == nil {
		fmt.Println("it fitted")
		return 2
	}
	plain := newFilled(New(0, ""))
	for i := int64(0); plain.x.Len() < f.x.Len(); i += 4000 {
		plain.batch(i, 4000)
	}
	if plain.digest() != f.digest() {
		fmt.Println("contents differ")
		return 2
	}
	fmt.Println(err)
	return 1
}

// A full disk is an error that says what to do; the state stays whole in memory.
func TestBudgetOnFullDisk(t *testing.T) {
	for mode, want := range map[string]string{"limit": "ulimit -f", "tmpfs": "free space there"} {
		t.Run(mode, func(t *testing.T) {
			cmd := exec.Command(os.Args[0], "-test.run=^$")
			cmd.Env = append(os.Environ(), "SLAB_CHILD="+mode, "SLAB_CHILD_DIR="+t.TempDir())
			if mode == "tmpfs" {
				cmd.SysProcAttr = &syscall.SysProcAttr{
					Cloneflags:  unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
					UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
					GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
				}
			}
			out, err := cmd.CombinedOutput()
			code := cmd.ProcessState.ExitCode()
			if mode == "tmpfs" && (code == 3 || cmd.Process == nil) {
				t.Skipf("a small file system cannot be mounted here: %v %s", err, out)
			}
			told := bytes.Contains(out, []byte("has outgrown its memory budget")) && bytes.Contains(out, []byte(want))
			if code != 1 || !told {
				t.Errorf("exit %d, %v: %s", code, err, out)
			}
		})
	}
}

// resident is the bytes of the arena's chunks that are in memory. It asks the system about every page (some 20 ns
// each).
func (a *Arena) resident() int64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.onHeap
	for c, w := range *a.table.Load() {
		if a.kinds[c].place != heap {
			n += a.sys.resident(w)
		}
	}
	return n
}
