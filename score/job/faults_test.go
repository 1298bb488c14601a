package job

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/deadletter"
	"github.com/onmart/onmart/score/monitor"
)

// one is a broker with one partition, and a purchase a minute.
func one(n int) *broker {
	b := newBroker()
	b.create("kafka:in/0", "a")
	for i := range n {
		b.produce("kafka:in/0", 0, fmt.Appendf(nil, "k%d", i), purchase(i, i*60))
	}
	return b
}

func purchase(id, at int) []byte {
	return fmt.Appendf(nil, `{"id":%d,"ts":%d,"customer":%d,"terminal":%d,"amount":2.5}`, id, 1_600_000_000+at, id%3, id%2)
}

// overTopics is a job from a broker to it, with transactions.
func overTopics(b *broker) func(*Options) {
	return func(o *Options) {
		o.Source = &memorySource{b: b, rng: rand.New(rand.NewPCG(1, 2)), stop: true}
		o.Sink = &memorySink{b: b, commits: true}
		o.CheckpointEvery = time.Hour
	}
}

// runs opens a job, runs it to the end of its log, and closes it.
func runs(t *testing.T, dir string, change func(*Options)) *process {
	t.Helper()
	p, err := start(t, dir, change)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.j.Run(context.Background()); err != nil {
		t.Fatal(err)
	}
	p.close(t)
	return p
}

// TestDeadLetters sends what cannot be scored in between what can: each becomes a letter with its cause, and the others get
// their lines.
func TestDeadLetters(t *testing.T) {
	b := one(3)
	bad := []struct {
		event, column, reason string
		noEvent               bool
	}{
		{event: `{"id":`, reason: "end"},
		{event: `not JSON`, reason: ""},
		{event: strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000), reason: ""},
		{event: `{"id":7,"ts":"never","customer":1,"terminal":1,"amount":1}`, column: "ts"},
		{event: `{"id":8,"ts":1600000000,"customer":1,"terminal":1,"amount":"much"}`, column: "amount"},
		{event: string(purchase(1, 60)), column: "trans_id", reason: "was scored before"},
		{event: `{"id":9,"ts":4102444800,"customer":1,"terminal":1,"amount":1}`, reason: "has not come yet"},
		{event: `{"id":10,"ts":1600000000,"customer":1,"terminal":1,"amount":1,"note":"` + strings.Repeat("x", 10<<20) + `"}`, noEvent: true},
	}
	for i, x := range bad {
		b.produce("kafka:in/0", 0, fmt.Appendf(nil, "bad%d", i), []byte(x.event))
	}
	b.produce("kafka:in/0", 0, []byte("extra"), []byte(`{"id":11,"ts":1600000500,"customer":1,"terminal":1,"amount":1,"unknown":[1,{"a":2}]}`))
	var m *monitor.Monitor
	runs(t, t.TempDir(), func(o *Options) {
		overTopics(b)(o)
		o.DeadLetters = true
		o.Sink = &refusing{memorySink{b: b, commits: true}, 1 << 20}
		m = o.Monitor
	})
	letters := map[string]deadletter.Letter{}
	var scored []string
	for _, l := range b.lines {
		if !l.Dead {
			scored = append(scored, string(l.Key))
			continue
		}
		x, err := deadletter.Parse(l.Value)
		if err != nil && !strings.Contains(err.Error(), "was too large for a letter") {
			t.Fatalf("%s: %v", l.Value, err)
		}
		letters[string(l.Key)] = x
	}
	if want := []string{"k0", "k1", "k2", "extra"}; !slices.Equal(scored, want) {
		t.Errorf("scored %v, want %v", scored, want)
	}
	for i, x := range bad {
		l, ok := letters[fmt.Sprintf("bad%d", i)]
		switch {
		case !ok:
			t.Errorf("%.60s has no letter", x.event)
		case x.noEvent:
			if l.Event != nil {
				t.Errorf("a letter carries an event of %d bytes", len(l.Event))
			}
		case string(l.Event) != x.event || l.Source != "kafka:in/0" || l.Position != int64(3+i):
			t.Errorf("letter %d: %s %d, event of %d bytes", i, l.Source, l.Position, len(l.Event))
		case l.Column != x.column && x.column != "" || !strings.Contains(l.Reason, x.reason):
			t.Errorf("letter of %.60s: %s: %s", x.event, l.Column, l.Reason)
		}
	}
	var text bytes.Buffer
	families, err := m.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "onmart_dead_letters_total" {
			fmt.Fprint(&text, f)
		}
	}
	for _, cause := range []string{"malformed", "duplicate", "too_early", "too_large"} {
		if !strings.Contains(text.String(), cause) {
			t.Errorf("no metric of %s", cause)
		}
	}
}

// refusing is a sink that takes no lines over a size.
type refusing struct {
	memorySink
	most int
}

func (k *refusing) Deliver(ctx context.Context, lines []Line, next map[string]int64, ready func() error) error {
	var large []int
	for i, l := range lines {
		if len(l.Value) > k.most {
			large = append(large, i)
		}
	}
	if large != nil {
		return &Refused{large, errors.New("the topic takes less")}
	}
	return k.memorySink.Deliver(ctx, lines, next, ready)
}

// TestLinesTooLargeForTheSink are replaced by ones that say so, and the others are delivered.
func TestLinesTooLargeForTheSink(t *testing.T) {
	b := one(2)
	b.produce("kafka:in/0", 0, []byte("large"), []byte(`{"id":9,"ts":1600000500,"customer":1,"terminal":1,"amount":1,"note":"`+strings.Repeat("x", 5000)+`"}`))
	runs(t, t.TempDir(), func(o *Options) {
		overTopics(b)(o)
		o.Sink = &refusing{memorySink{b: b, commits: true}, 2000}
	})
	if len(b.lines) != 3 || !strings.Contains(string(b.lines[2].Value), `"position":2,"reason":"its line has`) || string(b.lines[2].Key) != "large" {
		t.Errorf("%d lines, the last %.300s", len(b.lines), b.lines[len(b.lines)-1].Value)
	}
}

// TestRefusals are starts that would leave events out or score them twice: each says what to do.
func TestRefusals(t *testing.T) {
	fresh := func(t *testing.T) (*broker, string) {
		b, dir := one(50), t.TempDir()
		runs(t, dir, overTopics(b))
		return b, dir
	}
	// killed leaves a journal of lines that were delivered.
	killed := func(t *testing.T) (*broker, string) {
		b, dir := one(50), t.TempDir()
		p, err := start(t, dir, func(o *Options) {
			overTopics(b)(o)
			o.Sink = &memorySink{b: b, commits: true, after: func(l []Line) error {
				if len(l) > 0 {
					return errCrash
				}
				return nil
			}}
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.j.Run(context.Background()); !errors.Is(err, errCrash) {
			t.Fatal(err)
		}
		p.close(t)
		return b, dir
	}
	for _, c := range []struct {
		name string
		do   func(t *testing.T) (dir string, change func(*Options))
		want string
	}{
		{"offsets set back", func(t *testing.T) (string, func(*Options)) {
			b, dir := fresh(t)
			b.committed["kafka:in/0"] = 20
			return dir, overTopics(b)
		}, "set it to 50, or start with a new --state"},
		{"offsets forgotten", func(t *testing.T) (string, func(*Options)) {
			b, dir := killed(t)
			clear(b.committed)
			return dir, overTopics(b)
		}, "offsets.retention.minutes"},
		{"log made again", func(t *testing.T) (string, func(*Options)) {
			b, dir := fresh(t)
			b.partitions["kafka:in/0"].id = "b"
			return dir, overTopics(b)
		}, "its id was a and is b"},
		{"log trimmed", func(t *testing.T) (string, func(*Options)) {
			b, dir := killed(t)
			b.trim("kafka:in/0", 10)
			return dir, overTopics(b)
		}, "0 is not in 10..50"},
		{"log compacted", func(t *testing.T) (string, func(*Options)) {
			b, dir := killed(t)
			l := b.partitions["kafka:in/0"]
			l.events = slices.DeleteFunc(l.events, func(e Event) bool { return e.Position == 3 })
			for i := range l.events {
				l.events[i].Position += 0
			}
			return dir, func(o *Options) { overTopics(b)(o) }
		}, ""}, // of one partition all that is there is folded again: order says nothing about numbers
		{"source left out", func(t *testing.T) (string, func(*Options)) {
			b, dir := killed(t)
			b.partitions["kafka:other/0"] = b.partitions["kafka:in/0"]
			delete(b.partitions, "kafka:in/0")
			b.committed["kafka:other/0"] = 0
			return dir, overTopics(b)
		}, "start once with all sources it had"},
		{"state lost and log trimmed", func(t *testing.T) (string, func(*Options)) {
			b, _ := fresh(t)
			b.trim("kafka:in/0", 10)
			return t.TempDir(), overTopics(b)
		}, "start from a backfill with its positions (--warm-from)"},
		{"state lost", func(t *testing.T) (string, func(*Options)) {
			b, _ := fresh(t)
			return t.TempDir(), overTopics(b)
		}, "start once with --rebuild"},
		{"file with lines and a new state", func(t *testing.T) (string, func(*Options)) {
			b, path := one(5), filepath.Join(t.TempDir(), "out")
			if err := os.WriteFile(path, []byte("{}\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			return t.TempDir(), toFile(t, b, path)
		}, "move the file away"},
		{"file cut off", func(t *testing.T) (string, func(*Options)) {
			b, path, dir := one(5), filepath.Join(t.TempDir(), "out"), t.TempDir()
			runs(t, dir, toFile(t, b, path))
			if err := os.Truncate(path, 10); err != nil {
				t.Fatal(err)
			}
			return dir, toFile(t, b, path)
		}, "it was cut off or replaced"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, change := c.do(t)
			p, err := start(t, dir, change)
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				p.close(t)
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("%v, want %q", err, c.want)
			}
		})
	}
}

func toFile(t *testing.T, b *broker, path string) func(*Options) {
	return func(o *Options) {
		overTopics(b)(o)
		f, err := File(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		o.Sink = f
	}
}

// TestALostStateIsMadeAgain folds what was delivered without lines, and gives the others the lines they would have had.
func TestALostStateIsMadeAgain(t *testing.T) {
	b := one(40)
	runs(t, t.TempDir(), overTopics(b))
	for i := 40; i < 60; i++ {
		b.produce("kafka:in/0", 0, fmt.Appendf(nil, "k%d", i), purchase(i, i*60))
	}
	p := runs(t, t.TempDir(), func(o *Options) { overTopics(b)(o); o.Rebuild = true })
	if _, checks := p.j.monitor.Health.Ready(); !slices.ContainsFunc(checks, func(c monitor.Check) bool { return c.Name == catchUp && c.OK }) {
		t.Errorf("it never came to be ready: %v", checks)
	}
	answered(t, b, 60, b.lines)
	want, wantState := again(t, b, b.lines, p.j.numbers)
	for i := range want {
		if !bytes.Equal(b.lines[i].Value, want[i]) {
			t.Fatalf("line %d is\n%s\nwant\n%s", i, b.lines[i].Value, want[i])
		}
	}
	if !bytes.Equal(stateOf(t, p.scorer), wantState) {
		t.Error("the state is another")
	}
}

// TestDirectEventsOutliveTheProcess answers events beside those of a log, is killed, and folds both again, once.
func TestDirectEventsOutliveTheProcess(t *testing.T) {
	b, dir := one(30), t.TempDir()
	change := func(o *Options) { overTopics(b)(o); o.Stay = true }
	var states [][]byte
	direct := func(p *process, id int, raw string) {
		t.Helper()
		m, _ := mappingOf(t)
		d, err := m.NewEventDecoder(score.HTTPSource)
		if err != nil {
			t.Fatal(err)
		}
		at := p.scorer.Position(score.HTTPSource)
		rows := datasets.NewBatch(score.Placed(m.LogSchema()), 1)
		if r := d.Append(rows, []byte(raw), at); r != nil {
			t.Fatal(r.Reason)
		}
		var lines score.Lines
		counts, err := p.j.Direct(score.Events{Sources: []string{score.HTTPSource}, Rows: rows, Positions: []int64{at}, Raw: [][]byte{[]byte(raw)}},
			false, &lines)
		if err != nil || len(lines.Lines) != 1 || counts.Rejected+counts.Duplicates > 0 {
			t.Fatalf("direct %d: %v %+v %s", id, err, counts, lines.Bytes)
		}
	}
	for life := range 3 {
		p, err := start(t, dir, change)
		if err != nil {
			t.Fatal(err)
		}
		if life > 0 && !bytes.Equal(stateOf(t, p.scorer), states[life-1]) {
			t.Fatalf("life %d begins with another state", life)
		}
		ctx, stop := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- p.j.Run(ctx) }()
		for i := range 5 {
			direct(p, i, string(purchase(1000+10*life+i, 2000+100*life+i)))
		}
		until(t, p.hasRead)
		// Killed: no checkpoint is saved.
		p.j.checkpoints.entry = p.j.last
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if at := p.scorer.Position(score.HTTPSource); at != int64(5*(life+1)) {
			t.Errorf("position %d after life %d: places are used twice or lost", at, life)
		}
		states = append(states, stateOf(t, p.scorer))
		p.close(t)
	}
	answered(t, b, 30, b.lines)
}

// TestNewPartitions come while the job runs, and keep their number over a crash.
func TestNewPartitions(t *testing.T) {
	b, dir := one(10), t.TempDir()
	ctx, stop := context.WithCancel(context.Background())
	p, err := start(t, dir, func(o *Options) {
		overTopics(b)(o)
		o.Source = &memorySource{b: b, rng: rand.New(rand.NewPCG(3, 4))}
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- p.j.Run(ctx) }()
	b.create("kafka:in/1", "a")
	b.produce("kafka:in/1", 0, []byte("k10"), purchase(10, 601))
	until(t, func() bool { b.mu.Lock(); defer b.mu.Unlock(); return len(b.lines) == 11 })
	p.j.fold.Lock()
	before := maps.Clone(p.j.numbers)
	p.j.checkpoints.entry = p.j.last // killed: no checkpoint
	p.j.fold.Unlock()
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	p.close(t)
	again := runs(t, dir, overTopics(b))
	if !maps.Equal(before, again.j.numbers) || before["kafka:in/1"] != 2 {
		t.Errorf("numbers %v, then %v", before, again.j.numbers)
	}
	answered(t, b, 11, b.lines)
}

// hasRead tells whether all of a source that ends was read and folded.
func (p *process) hasRead() bool {
	p.j.reading.mu.Lock()
	defer p.j.reading.mu.Unlock()
	return p.j.reading.end && p.j.reading.held == 0
}

func until(t *testing.T, f func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it does not happen")
		}
	}
}

// TestMergeByEventTime reads one partition far ahead of another: nothing comes late that is not late in the merged log.
func TestMergeByEventTime(t *testing.T) {
	b := newBroker()
	b.create("kafka:in/0", "a")
	b.create("kafka:in/1", "a")
	for i := range 4000 {
		b.produce(fmt.Sprintf("kafka:in/%d", i%2), 0, fmt.Appendf(nil, "k%d", i), purchase(i, i*600))
	}
	runs(t, t.TempDir(), func(o *Options) {
		overTopics(b)(o)
		o.Source = &oneAfterTheOther{memorySource{b: b, rng: rand.New(rand.NewPCG(5, 6)), stop: true}}
	})
	for i, l := range b.lines {
		if string(l.Key) != fmt.Sprintf("k%d", i) {
			t.Fatalf("line %d is of %s: %s", i, l.Key, l.Value)
		}
		if bytes.Contains(l.Value, []byte(`"late":true`)) {
			t.Fatalf("late: %s", l.Value)
		}
	}
	if len(b.lines) != 4000 {
		t.Errorf("%d lines", len(b.lines))
	}
}

// oneAfterTheOther gives all of one partition before anything of the other.
type oneAfterTheOther struct{ memorySource }

func (s *oneAfterTheOther) Poll(ctx context.Context, _ int) ([]Records, error) {
	for _, name := range []string{"kafka:in/1", "kafka:in/0"} {
		l := s.b.partitions[name]
		if at := s.next[name]; at < l.next {
			s.next[name] = l.next
			return []Records{{Source: name, Events: l.events[at:], Next: l.next, End: l.next}}, nil
		}
	}
	return s.memorySource.Poll(ctx, 1)
}

// TestASinkThatIsDownHoldsUpTheReading: what is read and not delivered is bounded.
func TestASinkThatIsDownHoldsUpTheReading(t *testing.T) {
	b := one(1)
	note := strings.Repeat("x", 20_000)
	for i := 1; i < 12_000; i++ { // 240 MB
		b.produce("kafka:in/0", 0, fmt.Appendf(nil, "k%d", i), fmt.Appendf(nil,
			`{"id":%d,"ts":%d,"customer":1,"terminal":1,"amount":1,"note":"%s"}`, i, 1_600_000_000+i, note))
	}
	release := make(chan struct{})
	p, err := start(t, t.TempDir(), func(o *Options) {
		overTopics(b)(o)
		o.Batch = 50
		o.Sink = &memorySink{b: b, commits: true, before: func(l []Line) error {
			if len(l) > 0 {
				<-release
			}
			return nil
		}}
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- p.j.Run(context.Background()) }()
	settled := func() (read int64) {
		for same := 0; same < 20; time.Sleep(10 * time.Millisecond) {
			p.j.reading.mu.Lock()
			now := p.j.reading.all[0].read
			p.j.reading.mu.Unlock()
			if same++; now != read {
				read, same = now, 0
			}
		}
		return read
	}
	if read := settled(); read > 9000 {
		t.Errorf("%d events of 20 kB were read while the sink was down", read)
	}
	close(release)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	p.close(t)
	if len(b.lines) != 12_000 {
		t.Errorf("%d lines", len(b.lines))
	}
}

// TestASinkThatHangsAtTheEnd: the job ends after its time to drain, and the next start delivers what is missing.
func TestASinkThatHangsAtTheEnd(t *testing.T) {
	b, dir := one(20), t.TempDir()
	p, err := start(t, dir, func(o *Options) {
		overTopics(b)(o)
		o.Drain = 50 * time.Millisecond
		o.Sink = &hanging{memorySink{b: b, commits: true}}
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	time.AfterFunc(20*time.Millisecond, stop)
	if err := p.j.Run(ctx); err == nil || !strings.Contains(err.Error(), "delivered at the next start") {
		t.Fatal(err)
	}
	p.close(t)
	runs(t, dir, overTopics(b))
	answered(t, b, 20, b.lines)
}

// hanging takes positions and no lines.
type hanging struct{ memorySink }

func (k *hanging) Deliver(ctx context.Context, lines []Line, next map[string]int64, ready func() error) error {
	if len(lines) == 0 {
		return k.memorySink.Deliver(ctx, lines, next, ready)
	}
	<-ctx.Done()
	return ctx.Err()
}

// TestCheckpointsAreNotAheadOfTheSink: one that was captured is saved only when its lines are delivered.
func TestCheckpointsAreNotAheadOfTheSink(t *testing.T) {
	b, dir := one(400), t.TempDir()
	p, err := start(t, dir, func(o *Options) {
		overTopics(b)(o)
		o.CheckpointEvery, o.Batch, o.Drain = 1, 10, 50*time.Millisecond
		o.Sink = &hanging{memorySink{b: b, commits: true}}
	})
	if err != nil {
		t.Fatal(err)
	}
	p.j.checkpoints.paused = 0
	ctx, stop := context.WithCancel(context.Background())
	time.AfterFunc(100*time.Millisecond, stop)
	p.j.Run(ctx)
	captured := p.j.checkpoints.entry
	c, err := p.store.Checkpoint()
	if err != nil || c.Entry != 0 || captured == 0 {
		t.Errorf("captured at entry %d, saved %d: %v", captured, c.Entry, err)
	}
	p.close(t)
}

// TestTopicsWithFieldsOfTheirOwn brings events of other names into the columns of all.
func TestTopicsWithFieldsOfTheirOwn(t *testing.T) {
	b := one(3)
	b.create("kafka:shop/0", "a")
	b.produce("kafka:shop/0", 0, []byte("k3"), []byte(`{"nr":3,"when":1600000300,"card":1,"shop":1,"eur":2.5}`))
	own, err := datasets.ParseMapping("shop", []byte(strings.NewReplacer("from: id", "from: nr", "from: ts", "from: when",
		"from: customer", "from: card", "from: terminal", "from: shop", "from: amount", "from: eur").Replace(testMapping)))
	if err != nil {
		t.Fatal(err)
	}
	m, _ := mappingOf(t)
	if err := CheckMapping(m, own); err != nil {
		t.Fatal(err)
	}
	text, err := datasets.ParseMapping("text", []byte(strings.Replace(testMapping, "from: customer, type: int64", "from: customer, type: string", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckMapping(m, text); err == nil || !strings.Contains(err.Error(), "user_id is int64 there and string here") {
		t.Errorf("a mapping of other types: %v", err)
	}
	runs(t, t.TempDir(), func(o *Options) {
		overTopics(b)(o)
		o.Mappings = func(source string) *datasets.Mapping {
			if strings.HasPrefix(source, "kafka:shop/") {
				return own
			}
			return nil
		}
	})
	answered(t, b, 4, b.lines)
	last := b.lines[len(b.lines)-1].Value
	if !bytes.Contains(last, []byte(`"n1d":2`)) || !bytes.HasPrefix(last, []byte(`{"nr":3,`)) { // the second of customer 1
		t.Errorf("%s", last)
	}
}

// TestMarkersBehindTheLastEvent: a checkpoint that was made when the position had moved over markers, and the sink had not been
// told, is no state ahead of the sink.
func TestMarkersBehindTheLastEvent(t *testing.T) {
	b, dir := one(5), t.TempDir()
	p, err := start(t, dir, func(o *Options) {
		overTopics(b)(o)
		o.Source = &memorySource{b: b, rng: rand.New(rand.NewPCG(3, 4))}
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.j.Run(ctx) }()
	until(t, func() bool { b.mu.Lock(); defer b.mu.Unlock(); return len(b.lines) == 5 })
	b.mark("kafka:in/0")
	b.mark("kafka:in/0")
	until(t, func() bool { return p.j.reading.next()["kafka:in/0"] == 7 })
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	p.close(t)
	b.produce("kafka:in/0", 0, []byte("k5"), purchase(5, 300))
	runs(t, dir, overTopics(b))
	answered(t, b, 6, b.lines)
}
