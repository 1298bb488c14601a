package train

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// LogFormat is the version of the run log's records, in the record that begins a run.
const LogFormat = 1

// LogFile is where the log of a training to out is kept where nothing else is said.
func LogFile(out string) string { return filepath.Clean(out) + ".runlog.jsonl" }

// record is one line of a run log: what happened, when, and its values, in that order in the line.
type record struct {
	event string
	part  string // of the training, "" where it is about all of it
	value any    // marshals to a JSON object, or nil
}

// runLog appends records to a file, each with one write of a whole line, so that a reader never sees half of one but
// behind a kill of the process or of the machine, which the next opening cuts off. A nil runLog writes nothing. The first
// error is kept and told once, at the end: a training is not lost to its log.
type runLog struct {
	mu  sync.Mutex
	f   *os.File
	err error
	now func() time.Time
	// epochs is the last epoch of each part that the run in the file has, so that none is written twice.
	epochs map[string]int
}

// openLog opens path to append, where resume is set to the run that it ends with. It refuses a file that is no run log.
func openLog(path string, resume bool) (*runLog, error) {
	fail := func(err error) (*runLog, error) {
		return nil, fmt.Errorf("run log %s: %w; give another --log", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return fail(err)
	}
	if s, err := os.Stat(path); err == nil && !s.Mode().IsRegular() {
		return fail(errors.New("it is no regular file"))
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o666)
	if err != nil {
		return fail(err)
	}
	l := &runLog{f: f, now: time.Now, epochs: map[string]int{}}
	text, err := io.ReadAll(f)
	if err == nil {
		err = l.take(text, resume)
	}
	if err != nil {
		return fail(errors.Join(err, f.Close()))
	}
	return l, nil
}

// take reads what is in the file, and cuts off half a line at its end.
func (l *runLog) take(text []byte, resume bool) error {
	whole := bytes.LastIndexByte(text, '\n') + 1
	for i, line := range bytes.Split(text[:whole], []byte("\n")) {
		if len(line) == 0 {
			continue
		}
		var r struct {
			Event string
			Part  string
			Epoch int
		}
		if err := json.Unmarshal(line, &r); err != nil || r.Event == "" {
			return fmt.Errorf("line %d is no record of a run", i+1)
		}
		switch r.Event {
		case "run":
			clear(l.epochs)
		case "epoch":
			l.epochs[r.Part] = max(l.epochs[r.Part], r.Epoch)
		}
	}
	if whole == 0 && len(text) > 0 {
		return errors.New("it is no run log")
	}
	if !resume {
		clear(l.epochs)
	}
	if whole < len(text) {
		return l.f.Truncate(int64(whole))
	}
	return nil
}

// write appends one record.
func (l *runLog) write(r record) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	line, err := r.line(l.now())
	if err == nil {
		_, err = l.f.Write(line)
	}
	l.err = err
}

// line is a record as the log has it.
func (r *record) line(now time.Time) ([]byte, error) {
	head, err := json.Marshal(struct {
		Time  string `json:"time"`
		Event string `json:"event"`
		Part  string `json:"part,omitempty"`
	}{now.UTC().Format("2006-01-02T15:04:05.000Z07:00"), r.event, r.part})
	if err != nil || r.value == nil {
		return append(head, '\n'), err
	}
	value, err := json.Marshal(r.value)
	if err != nil {
		return nil, fmt.Errorf("record %q: %w", r.event, err)
	}
	if len(value) > 2 && value[0] == '{' {
		head = append(append(head[:len(head)-1], ','), value[1:]...)
	}
	return append(head, '\n'), nil
}

// writeEpoch appends the record of an epoch, unless the run in the file has it.
func (l *runLog) writeEpoch(part string, epoch int, value any) {
	if l == nil {
		return
	}
	l.mu.Lock()
	there := l.epochs[part] >= epoch
	l.epochs[part] = max(epoch, l.epochs[part])
	l.mu.Unlock()
	if there {
		return
	}
	l.write(record{"epoch", part, value})
}

// close flushes the file and returns the first error there was.
func (l *runLog) close() error {
	if l == nil {
		return nil
	}
	err := errors.Join(l.err, l.f.Sync(), l.f.Close())
	if errors.Is(err, fs.ErrClosed) {
		return nil
	}
	return err
}
