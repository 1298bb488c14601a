package state

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// Space is told to Options.OnSpace: writing of something began to wait for space on the disk (Short), or goes on.
type Space struct {
	// For is "journal", without which no event can be folded, or "checkpoint", without which the journal grows.
	For   string
	Short bool
	Free  int64 // bytes that the disk has
	Needs int64 // bytes from which on it is written
}

// The database blocks for ever, or ends the process, where it meets a full disk. So space is looked at before anything is
// given to it, and a ballast file is there for the case that somebody else fills the disk in between.
type disk struct {
	ctx         context.Context
	fs          vfs.FS // does not wait
	dir         string
	o           *Options
	journal     gate
	checkpoints gate
	watchers    sync.WaitGroup

	mu      sync.Mutex
	ballast bool // is there
}

func newDisk(ctx context.Context, dir string, o *Options) *disk {
	d := &disk{ctx: ctx, fs: o.fs, dir: dir, o: o}
	d.journal = gate{d: d, what: "journal"}
	d.checkpoints = gate{d: d, what: "checkpoint"}
	return d
}

// wait ends what watches the disk; the context has ended.
func (d *disk) wait() { d.watchers.Wait() }

// free is the space that is left; ok is false where the system does not tell.
func (d *disk) free() (bytes int64, ok bool) {
	u, err := d.fs.GetDiskUsage(d.dir)
	if err != nil {
		return 0, false
	}
	return int64(min(u.AvailBytes, 1<<62)), true
}

func (d *disk) path() string { return d.fs.PathJoin(d.dir, ballastFile) }

// makeBallast puts the ballast in place, where there is space for it and it is not there. A disk too small for it does
// without.
func (d *disk) makeBallast() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ballast || d.o.Ballast < 0 {
		return
	}
	if free, ok := d.free(); !ok || free < 2*d.o.Ballast+d.o.MinFree {
		if _, err := d.fs.Stat(d.path()); err == nil {
			d.ballast = true // one of before
		}
		return
	}
	f, err := d.fs.Create(d.path(), vfs.WriteCategoryUnspecified)
	if err != nil {
		d.o.Log.Warn("no ballast file for a full disk", "dir", d.dir, "error", err)
		return
	}
	defer f.Close()
	d.ballast = true
	if err := f.Preallocate(0, d.o.Ballast); err != nil {
		d.o.Log.Warn("no ballast file for a full disk", "dir", d.dir, "error", err)
	}
}

// dropBallast gives its space to the database.
func (d *disk) dropBallast() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.ballast {
		return
	}
	d.ballast = false
	if err := d.fs.Remove(d.path()); err != nil {
		d.o.Log.Warn("the ballast file cannot be removed", "dir", d.dir, "error", err)
	}
}

// full is called when a write has found no space, while all writes wait. The write is tried again when it returns, once:
// it returns when there is some space, or nobody waits for it any more.
func (d *disk) full() {
	d.dropBallast()
	d.journal.shut(0)
	tick := time.NewTicker(d.o.poll)
	defer tick.Stop()
	for {
		if free, ok := d.free(); ok && free >= d.o.MinFree/8 {
			return
		}
		select {
		case <-tick.C:
			if _, ok := d.free(); !ok {
				return // nobody tells: try
			}
		case <-d.ctx.Done():
			return
		}
	}
}

// gate lets writes through while the disk has space.
type gate struct {
	d    *disk
	what string

	mu    sync.Mutex
	seen  time.Time     // when space was looked at last
	needs int64         // while shut: bytes it opens at
	opens chan struct{} // while shut: closed when it opens
}

// lookEvery is how long an answer about space is believed. A journal grows by some MiB in that time.
const lookEvery = 200 * time.Millisecond

// pass waits until the disk has size bytes beside those that are left to others. 0 is a small write.
func (g *gate) pass(size int64) error {
	g.mu.Lock()
	opens := g.opens
	if opens == nil {
		if now := time.Now(); size > 0 || now.Sub(g.seen) >= lookEvery {
			g.seen = now
			if free, ok := g.d.free(); ok && free < size+g.d.o.MinFree {
				opens = g.close(size, free)
			}
		}
	}
	g.mu.Unlock()
	if opens == nil {
		return nil
	}
	select {
	case <-opens:
		return nil
	case <-g.d.ctx.Done():
		return fmt.Errorf("%s: the disk has no space, and the wait for it was ended: %w", g.d.dir, g.d.ctx.Err())
	}
}

// shut closes the gate although nobody asks to pass.
func (g *gate) shut(size int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opens == nil {
		free, _ := g.d.free()
		g.close(size, free)
	}
}

// close shuts the gate and has the disk watched. The caller holds mu.
func (g *gate) close(size, free int64) chan struct{} {
	g.needs = size + g.d.o.MinFree
	g.opens = make(chan struct{})
	g.tell(true, free)
	g.d.watchers.Go(g.watch)
	return g.opens
}

func (g *gate) tell(short bool, free int64) {
	if short {
		g.d.o.Log.Warn("the disk is full: writing waits", "for", g.what, "dir", g.d.dir, "free", free, "needs", g.needs)
	} else {
		g.d.o.Log.Info("the disk has space again: writing goes on", "for", g.what, "dir", g.d.dir, "free", free)
	}
	g.d.o.OnSpace(Space{For: g.what, Short: short, Free: free, Needs: g.needs})
}

// watch opens the gate when there is space.
func (g *gate) watch() {
	tick := time.NewTicker(g.d.o.poll)
	defer tick.Stop()
	for {
		select {
		case <-g.d.ctx.Done():
			return
		case <-tick.C:
		}
		free, ok := g.d.free()
		if ok && free < g.needs {
			continue
		}
		g.d.makeBallast()
		g.mu.Lock()
		opens := g.opens
		g.opens = nil
		g.tell(false, free)
		g.mu.Unlock()
		close(opens)
		return
	}
}
