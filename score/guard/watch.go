package guard

import (
	"context"
	"os"
	"time"
)

// lookEvery is how often files are looked at: a stat each, a few microseconds.
const lookEvery = 2 * time.Second

// Watch calls changed when one of the files has another time, size or place than before, and when again receives. It
// follows symbolic links, so that a directory that is swapped as a whole, as secrets in containers are, is noticed.
// It returns when ctx ends.
func Watch(ctx context.Context, files []string, again <-chan os.Signal, changed func()) {
	seen := look(files)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again:
			seen = look(files)
			changed()
		case <-tick.C:
			if now := look(files); !same(seen, now) {
				seen = now
				changed()
			}
		}
	}
}

func look(files []string) []os.FileInfo {
	out := make([]os.FileInfo, len(files))
	for i, f := range files {
		out[i], _ = os.Stat(f) // nil where it is gone
	}
	return out
}

func same(a, b []os.FileInfo) bool {
	for i := range a {
		if (a[i] == nil) != (b[i] == nil) {
			return false
		}
		if a[i] != nil && !(os.SameFile(a[i], b[i]) && a[i].ModTime().Equal(b[i].ModTime()) && a[i].Size() == b[i].Size()) {
			return false
		}
	}
	return true
}
