package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/internal/atomicdir"
	"github.com/onmart/onmart/score/deadletter"
	"github.com/onmart/onmart/score/kafka"
)

type redriveFlags struct {
	from, to, cause, group string
	limit                  int
	dryRun                 bool
}

func newRedriveCmd() *cobra.Command {
	var f redriveFlags
	cmd := &cobra.Command{
		Use:   "redrive --from LETTERS --to WHERE",
		Short: "Send the events of dead letters again",
		Long: `redrive takes the events out of dead letters, which onmart score writes for events that it could not score, and
sends them as they came: after a mapping was mended, say, to the topic they came from.

Letters are read from a topic (kafka://HOST:PORT/TOPIC, with the parameters of a source) or a file; events go to a
topic, the end of a file, or standard output (-). It stops at the last letter that was there when it began, and
remembers how far it went, so that the next call goes on from there: in a topic as the offsets of a group, beside
a file as FILE.redriven-GROUP. Each --cause remembers for itself, since it passes over the letters of other causes.
From topic to topic of one cluster every event is sent exactly once; otherwise a crash may send the last ones twice.`,
		Args: cobra.NoArgs,
	}
	fl := cmd.Flags()
	fl.StringVar(&f.from, "from", "", "dead letters: a Kafka `URL` or a file")
	fl.StringVar(&f.to, "to", "", "where their events go: a Kafka `URL`, a file, or -")
	fl.StringVar(&f.cause, "cause", "", "only letters whose column and reason, as COLUMN: REASON, match this `regexp`")
	fl.StringVar(&f.group, "group", "", "`name` under which it is remembered how far this went (default onmart-redrive, with a digest of --cause)")
	fl.IntVar(&f.limit, "limit", 0, "send at most this many; 0 is all")
	fl.BoolVar(&f.dryRun, "dry-run", false, "count only: send nothing and remember nothing")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return runRedrive(cmd, &f) }
	return cmd
}

// letterAt is a line of the letters with what to remember once it is dealt with.
type letterAt struct {
	line      []byte
	where     string
	partition kafka.Partition // of a topic
	next      int64           // offset, or byte of the file
}

// letters are read to the end they had at the start: an empty batch.
type letters interface {
	read(ctx context.Context, most int) ([]letterAt, error)
	// remember notes how far it went; in a file and, where the sink does not do so itself, in a topic.
	remember(next map[kafka.Partition]int64) error
	close() error
}

type redriven struct {
	Letters    int            `json:"letters"`
	Sent       int            `json:"sent"`
	Passed     int            `json:"passed"`
	Unreadable int            `json:"unreadable"`
	Causes     map[string]int `json:"causes"`
}

const (
	redriveBatch = 1000
	// Reasons that quote values differ from letter to letter: past this many they are counted together.
	redriveCauses = 20
)

func runRedrive(cmd *cobra.Command, f *redriveFlags) error {
	if f.from == "" || f.to == "" && !f.dryRun {
		return usagef("redrive needs --from and --to")
	}
	if f.limit < 0 {
		return usagef("--limit %d: want 0 or more", f.limit)
	}
	cause, err := regexp.Compile(f.cause)
	if err != nil {
		return usagef("--cause: %w", err)
	}
	if f.group == "" {
		f.group = "onmart-redrive"
		if f.cause != "" {
			sum := sha256.Sum256([]byte(f.cause))
			f.group += "-" + hex.EncodeToString(sum[:4])
		}
	}
	con := consoleOf(cmd)
	if con.json && f.to == "-" {
		return usagef("--json and --to - both want standard output: send the events to a file")
	}
	ctx := cmd.Context()
	out, err := openRedriveSink(ctx, f, cmd.OutOrStdout(), con)
	if err != nil {
		return err
	}
	defer out.close()
	in, err := openLetters(ctx, f, con)
	if err != nil {
		return err
	}
	r := &redriven{Causes: map[string]int{}}
	if err := errors.Join(f.run(ctx, con, in, out, cause, r), in.close()); err != nil {
		return err
	}
	if f.to == "-" {
		con.notef("%s", r)
		return nil
	}
	return con.result(r, func(w io.Writer) error { _, err := fmt.Fprintln(w, r); return err })
}

func (r *redriven) String() string {
	return fmt.Sprintf("%d letters: %d sent, %d passed over, %d that cannot be read", r.Letters, r.Sent, r.Passed, r.Unreadable)
}

func (f *redriveFlags) run(ctx context.Context, con *console, in letters, out redriveSink, cause *regexp.Regexp, r *redriven) error {
	for f.limit == 0 || r.Sent < f.limit {
		batch, err := in.read(ctx, redriveBatch)
		if err != nil || len(batch) == 0 {
			return err
		}
		var lines []kafka.Line
		next := map[kafka.Partition]int64{}
		for _, at := range batch {
			if f.limit > 0 && r.Sent == f.limit {
				break
			}
			r.Letters++
			next[at.partition] = at.next
			l, err := deadletter.Parse(at.line)
			if err != nil {
				if r.Unreadable++; r.Unreadable == 1 {
					con.notef("%s: %v", at.where, err)
				}
				continue
			}
			why := strings.TrimPrefix(l.Column+": "+l.Reason, ": ")
			if !cause.MatchString(why) {
				r.Passed++
				continue
			}
			r.Sent++
			if _, known := r.Causes[why]; !known && len(r.Causes) >= redriveCauses {
				why = "others"
			}
			r.Causes[why]++
			lines = append(lines, kafka.Line{Key: l.Key, Value: l.Event})
		}
		if f.dryRun {
			continue
		}
		if err := out.deliver(ctx, lines, next); err != nil {
			return err
		}
		if !out.remembers() {
			if err := in.remember(next); err != nil {
				return err
			}
		}
	}
	return nil
}

func openLetters(ctx context.Context, f *redriveFlags, con *console) (letters, error) {
	if strings.HasPrefix(f.from, "kafka://") {
		return openTopicLetters(ctx, f, con)
	}
	return openFileLetters(f.from, f.group)
}

// topicLetters are the records of a topic.
type topicLetters struct {
	s    *kafka.Source
	ends map[kafka.Partition]int64 // of partitions not read to their end yet
}

func kafkaNotes(con *console) func(kafka.Note) {
	return func(n kafka.Note) { con.notef("%s", n.Text) }
}

func openTopicLetters(ctx context.Context, f *redriveFlags, con *console) (*topicLetters, error) {
	c, err := kafka.Parse(f.from)
	if err != nil {
		return nil, usagef("--from: %w", err)
	}
	s, err := kafka.NewSource(ctx, c, f.group, kafkaNotes(con))
	if err != nil {
		return nil, fmt.Errorf("--from: %w", err)
	}
	at, err := s.Committed(ctx)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	l := &topicLetters{s, map[kafka.Partition]int64{}}
	next := map[kafka.Partition]int64{}
	for _, p := range s.Partitions() {
		from, ok := at[p.Partition]
		if ok && from < p.Start {
			con.notef("%s: letters before offset %d have expired", p.Partition, p.Start)
		}
		next[p.Partition] = max(from, p.Start)
		if next[p.Partition] < p.End {
			l.ends[p.Partition] = p.End
		}
	}
	if err := s.Seek(ctx, next); err != nil {
		return nil, errors.Join(fmt.Errorf("--from: %w; or go on under another --group", err), s.Close())
	}
	return l, nil
}

func (l *topicLetters) read(ctx context.Context, most int) ([]letterAt, error) {
	for len(l.ends) > 0 {
		all, err := l.s.Poll(ctx, most)
		if err != nil {
			return nil, err
		}
		var batch []letterAt
		for _, x := range all {
			end, open := l.ends[x.Partition]
			for _, r := range x.Records {
				if open && r.Offset < end {
					batch = append(batch, letterAt{r.Value, fmt.Sprintf("%s, offset %d", x.Partition, r.Offset), x.Partition, r.Offset + 1})
				}
			}
			if open && x.Next >= end {
				delete(l.ends, x.Partition)
			}
		}
		if len(batch) > 0 {
			return batch, nil
		}
	}
	return nil, nil
}

func (l *topicLetters) remember(next map[kafka.Partition]int64) error { return l.s.Commit(next) }
func (l *topicLetters) close() error                                  { return l.s.Close() }

// fileLetters are the lines of a file; the sidecar holds the byte that comes next, and a digest of the first line, by
// which another file of the same name is told.
type fileLetters struct {
	f       *os.File
	in      *bufio.Reader
	at, end int64
	sidecar string
	digest  string
}

type redriveSidecar struct {
	Next   int64  `json:"next_byte"`
	Digest string `json:"first_line"`
}

func openFileLetters(path, group string) (*fileLetters, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("--from: %w", err)
	}
	l := &fileLetters{f: file, in: bufio.NewReaderSize(file, 1<<20), sidecar: path + ".redriven-" + group}
	if err := l.begin(); err != nil {
		return nil, errors.Join(fmt.Errorf("--from: %w", err), file.Close())
	}
	return l, nil
}

func (l *fileLetters) begin() error {
	info, err := l.f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no file whose place can be remembered: letters are in a file or a topic", l.f.Name())
	}
	l.end = info.Size()
	first, err := l.in.ReadBytes('\n')
	if err != nil && err != io.EOF {
		return err
	}
	sum := sha256.Sum256(first)
	l.digest = hex.EncodeToString(sum[:8])
	b, err := os.ReadFile(l.sidecar)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return err
	default:
		var s redriveSidecar
		if err := json.Unmarshal(b, &s); err != nil || s.Next < 0 || s.Next > l.end || s.Digest != l.digest {
			return fmt.Errorf("%s is not of this file: where its letters are to be sent from the beginning, remove it", l.sidecar)
		}
		l.at = s.Next
	}
	_, err = l.f.Seek(l.at, io.SeekStart)
	l.in.Reset(l.f)
	return err
}

func (l *fileLetters) read(ctx context.Context, most int) ([]letterAt, error) {
	var batch []letterAt
	for len(batch) < most && l.at < l.end {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		line, err := l.in.ReadBytes('\n')
		if err == io.EOF { // a line that is being written: the next call takes it
			return batch, nil
		}
		if err != nil {
			return nil, err
		}
		where := fmt.Sprintf("%s, byte %d", l.f.Name(), l.at)
		l.at += int64(len(line))
		if line = bytes.TrimSpace(line); len(line) > 0 {
			batch = append(batch, letterAt{line, where, kafka.Partition{}, l.at})
		}
	}
	return batch, nil
}

func (l *fileLetters) remember(next map[kafka.Partition]int64) error {
	b, err := json.Marshal(redriveSidecar{next[kafka.Partition{}], l.digest})
	if err != nil {
		return err
	}
	f, err := atomicdir.CreateFile(l.sidecar, true)
	if err != nil {
		return err
	}
	defer f.Abort()
	if _, err := f.Write(b); err != nil {
		return err
	}
	return f.Commit()
}

func (l *fileLetters) close() error { return l.f.Close() }

// redriveSink takes events away. What deliver returned nil for is there.
type redriveSink interface {
	deliver(ctx context.Context, lines []kafka.Line, next map[kafka.Partition]int64) error
	remembers() bool // how far it went, by itself
	close() error
}

func openRedriveSink(ctx context.Context, f *redriveFlags, stdout io.Writer, con *console) (redriveSink, error) {
	switch {
	case f.dryRun:
		return streamSink{w: io.Discard}, nil
	case f.to == "-":
		return streamSink{w: stdout}, nil
	case !strings.HasPrefix(f.to, "kafka://"):
		if a, err := filepath.Abs(f.from); err == nil {
			if b, err := filepath.Abs(f.to); err == nil && a == b {
				return nil, usagef("--to is the file of --from")
			}
		}
		file, err := os.OpenFile(f.to, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return nil, fmt.Errorf("--to: %w", err)
		}
		return streamSink{w: file, file: file}, nil
	}
	c, err := kafka.Parse(f.to)
	if err != nil {
		return nil, usagef("--to: %w", err)
	}
	o := kafka.SinkOptions{Note: kafkaNotes(con)}
	if strings.HasPrefix(f.from, "kafka://") {
		same, err := sameCluster(ctx, f, con)
		if err != nil {
			return nil, err
		}
		if same {
			o.ExactlyOnce, o.TransactionalID, o.Group = true, f.group, f.group
		}
	}
	k, err := kafka.NewSink(ctx, c, o)
	if err != nil {
		return nil, fmt.Errorf("--to: %w", err)
	}
	return topicSink{k, o.ExactlyOnce}, nil
}

// sameCluster asks both ends for the id of their cluster: offsets and events can be one transaction only there.
func sameCluster(ctx context.Context, f *redriveFlags, con *console) (bool, error) {
	ids := map[string]bool{}
	for _, end := range []struct{ flag, url string }{{"--from", f.from}, {"--to", f.to}} {
		c, err := kafka.Parse(end.url)
		if err != nil {
			return false, usagef("%s: %w", end.flag, err)
		}
		s, err := kafka.NewSource(ctx, c, f.group, kafkaNotes(con))
		if err != nil {
			return false, fmt.Errorf("%s: %w", end.flag, err)
		}
		id, err := s.ClusterID(ctx)
		if err := errors.Join(err, s.Close()); err != nil {
			return false, fmt.Errorf("%s: %w", end.flag, err)
		}
		ids[id] = true
	}
	return len(ids) == 1 && !ids[""], nil
}

type topicSink struct {
	k       *kafka.Sink
	exactly bool
}

func (s topicSink) deliver(ctx context.Context, lines []kafka.Line, next map[kafka.Partition]int64) error {
	if !s.exactly {
		next = nil
	}
	err := s.k.Deliver(ctx, lines, maps.Clone(next), nil)
	var large *kafka.LineError
	if errors.As(err, &large) {
		return fmt.Errorf("%w: raise the topic's max.message.bytes, or leave that cause out with --cause", err)
	}
	return err
}

func (s topicSink) remembers() bool { return s.exactly }
func (s topicSink) close() error    { return s.k.Close() }

// streamSink writes an event a line. Ends of lines inside of an event, which in JSON can only be between its parts,
// become blanks.
type streamSink struct {
	w    io.Writer
	file *os.File
}

func (s streamSink) deliver(_ context.Context, lines []kafka.Line, _ map[kafka.Partition]int64) error {
	var b []byte
	for _, l := range lines {
		at := len(b)
		b = append(b, l.Value...)
		for i := at; i < len(b); i++ {
			if b[i] == '\n' || b[i] == '\r' {
				b[i] = ' '
			}
		}
		b = append(b, '\n')
	}
	if _, err := s.w.Write(b); err != nil {
		return err
	}
	if s.file != nil {
		return s.file.Sync()
	}
	return nil
}

func (s streamSink) remembers() bool { return false }

func (s streamSink) close() error {
	if s.file != nil {
		return s.file.Close()
	}
	return nil
}
