package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/internal/atomicdir"
	"github.com/onmart/onmart/score/model/modeltest"
	"github.com/onmart/onmart/train/fraud/fraudtest"
)

// The tests of this file go through what may be wrong with what comes in, in this order: files, values,
// directories, the disk, and the moment at which a command is stopped. Each looks at the exit code, at the
// message (where, what, what to do) and at what is left. The packages have the finer cases.

// tree is all that lies in the test's directory, hidden files too.
func tree(t *testing.T) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		names = append(names, path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sorted(names)
}

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}

// refused runs a command line that must fail with the exit code and with a message that has every one of the
// parts, and leave nothing but the files named in left.
func refused(t *testing.T, line string, code int, parts []string, left ...string) {
	t.Helper()
	want := slices.Compact(sorted(append(tree(t), left...)))
	got, stdout, stderr := cli(t, strings.Fields(line)...)
	if got != code {
		t.Errorf("onmart %s: exit %d, want %d", line, got, code)
	}
	lacks(t, line, stderr, parts)
	if stdout != "" {
		t.Errorf("onmart %s: printed %q", line, stdout)
	}
	if now := tree(t); !slices.Equal(now, want) {
		t.Errorf("onmart %s: there are %q, want %q", line, now, want)
	}
}

func lacks(t *testing.T, line, text string, parts []string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("onmart %s: no %q in %q", line, p, text)
		}
	}
	if strings.Contains(text, "goroutine ") || strings.Contains(text, "panic:") {
		t.Errorf("onmart %s: %s", line, text)
	}
}

// good runs a command line that must succeed.
func good(t *testing.T, line string) (stdout string) {
	t.Helper()
	code, stdout, stderr := cli(t, strings.Fields(line)...)
	if code != 0 {
		t.Fatalf("onmart %s: exit %d: %s", line, code, stderr)
	}
	return stdout
}

func writeFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

func gzipped(t *testing.T, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	io.WriteString(z, text)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// event is one transaction of the schema that modeltest's models want.
func event(id int) string {
	return fmt.Sprintf(`{"trans_id":%d,"trans_datetime":%q,"user_id":%d,"store_id":%d,"amount":%d.5}`+"\n",
		id, datasets.FormatTime(fraudtest.Start+int64(id)*datasets.Minute), id%50, id%20, id%97)
}

func events(from, to int) string {
	var s strings.Builder
	for id := from; id < to; id++ {
		s.WriteString(event(id))
	}
	return s.String()
}

// outputs are all that score can write.
const outputs = " --sink scores.jsonl --record log --state-out state"

func TestTruncatedGz(t *testing.T) {
	t.Chdir(t.TempDir())
	modeltest.Save(t, "model", 1)
	csv := gzipped(t, cards+strings.Repeat("7,2018-04-03 00:00:00,1,2,3.00,0\n", 50_000))
	writeFile(t, "tx.csv.gz", csv[:len(csv)/2])
	refused(t, "import --preset fraud-handbook --out tx tx.csv.gz", 1, []string{"onmart import: tx.csv.gz is cut off", "line ", "get the file again"})
	jsonl := gzipped(t, events(0, 5000))
	writeFile(t, "tx.jsonl.gz", jsonl[:len(jsonl)/2])
	refused(t, "score --model model --source tx.jsonl.gz"+outputs, 1, []string{"onmart score: tx.jsonl.gz is cut off", "get the file again"})
}

func TestWrongDelimiter(t *testing.T) {
	t.Chdir(t.TempDir())
	modeltest.Save(t, "model", 1)
	writeFile(t, "tx.csv", strings.ReplaceAll(cards, ",", "\t"))
	for _, line := range []string{"import --out tx tx.csv", "score --model model --source tx.csv" + outputs} {
		refused(t, line+" --preset fraud-handbook", 1, []string{"tx.csv:1: ", `separated by '\t'`, "delimiter"})
	}
}

func TestMissingColumn(t *testing.T) {
	t.Chdir(t.TempDir())
	modeltest.Save(t, "model", 1)
	writeFile(t, "tx.csv", strings.Replace(cards, "TX_AMOUNT", "AMOUNT", 1))
	for _, line := range []string{"import --out tx tx.csv", "score --model model --source tx.csv" + outputs} {
		refused(t, line+" --preset fraud-handbook", 1, []string{"tx.csv:1: the header lacks TX_AMOUNT (is it AMOUNT?)"})
	}
	// A data set without a column that the features need.
	writeFile(t, "shops.yaml", "timezone: UTC\ncolumns:\n  trans_id: {from: TRANSACTION_ID}\n  trans_datetime: {from: TX_DATETIME, layout: \"2006-01-02 15:04:05\"}\n  user_id: {from: CUSTOMER_ID}\n  amount: {from: TX_AMOUNT}\n")
	writeFile(t, "good.csv", cards)
	good(t, "import --map shops.yaml --out tx good.csv")
	for _, line := range []string{"features --spec fraud-handbook --in tx --out f --state-out s", "train fraud --data tx --out m", "predict --model model --data tx --out p.parquet"} {
		refused(t, line, 1, []string{"tx: ", `keep: the data has no column "store_id"`, "11:43: "})
	}
}

func TestTextInANumber(t *testing.T) {
	t.Chdir(t.TempDir())
	writeFile(t, "tx.csv", strings.Replace(cards, "57.16", "fifty", 1))
	refused(t, "import --preset fraud-handbook --out tx tx.csv", 1,
		[]string{`onmart import: 1 of 3 rows cannot be used, more than --max-rejects 0.001 allows; the first is tx.csv:3: TX_AMOUNT: "fifty" is not a number; they are in tx.rejects.jsonl; nothing was imported`}, "tx.rejects.jsonl")
	var reject datasets.Reject
	text, err := os.ReadFile("tx.rejects.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &reject); err != nil || reject.Line != 3 || !strings.Contains(reject.Row, "fifty") {
		t.Errorf("%v in %s", err, text)
	}
	good(t, "import --preset fraud-handbook --out tx tx.csv --max-rejects 0.5") // what can be used, once that is wanted
}

func TestEmptyFile(t *testing.T) {
	t.Chdir(t.TempDir())
	modeltest.Save(t, "model", 1)
	writeFile(t, "tx.csv", "")
	writeFile(t, "head.csv", strings.SplitAfter(cards, "\n")[0])
	writeFile(t, "tx.jsonl", "")
	refused(t, "import --preset fraud-handbook --out tx tx.csv", 1, []string{"tx.csv is empty: want a header line and rows"})
	refused(t, "import --preset fraud-handbook --out tx head.csv", 1, []string{"head.csv has a header and no rows"})
	refused(t, "score --preset fraud-handbook --model model --source tx.csv"+outputs, 1, []string{"tx.csv is empty: want a header line"})
	good(t, "score --model model --source tx.jsonl"+outputs) // a stream on which nothing has happened
	good(t, "inspect log")
	good(t, "inspect state")
}

func TestDuplicatePurchases(t *testing.T) {
	t.Chdir(t.TempDir())
	modeltest.Save(t, "model", 1)
	writeFile(t, "tx.csv", cards+"1,2018-04-05 00:00:00,4961,3412,81.51,0\n")
	refused(t, "import --preset fraud-handbook --out tx tx.csv", 1, []string{"tx.csv:5: trans_id: is a duplicate of line 2"}, "tx.rejects.jsonl")
	refused(t, "import --preset fraud-handbook --out tx tx.csv ./tx.csv", 1, []string{"tx.csv and ./tx.csv are one file: name it once"})
	writeFile(t, "copy.csv", cards+"1,2018-04-05 00:00:00,4961,3412,81.51,0\n")
	refused(t, "import --preset fraud-handbook --out tx tx.csv copy.csv", 1, []string{"tx.csv and copy.csv hold the same bytes: name one of them"})
	writeFile(t, "tx.jsonl", event(1)+event(2)+event(1))
	got := good(t, "score --model model --source tx.jsonl")
	if strings.Count(got, `"score_id"`) != 2 || !strings.Contains(got, `"position":3,"column":"trans_id","reason":"transaction 1 was scored before; it is not counted again"`) {
		t.Error(got)
	}
}

func TestNaNAndNegativeAmounts(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, c := range []struct{ value, want string }{
		{"NaN", `tx.csv:3: TX_AMOUNT: "NaN" is not a finite number`},
		{"-Inf", `tx.csv:3: TX_AMOUNT: "-Inf" is not a finite number`},
		{"-57.16", `tx.csv:3: TX_AMOUNT: "-57.16" is negative; returns: true in the mapping allows it`},
	} {
		writeFile(t, "tx.csv", strings.Replace(cards, "57.16", c.value, 1))
		refused(t, "import --preset fraud-handbook --out tx tx.csv", 1, []string{c.want, "nothing was imported"}, "tx.rejects.jsonl")
	}
}

// Ranges and numbers that leave nothing to do.
func TestNothingToDo(t *testing.T) {
	t.Chdir(t.TempDir())
	modeltest.Save(t, "model", 1) // trained on 2018-07-25..2018-07-31
	writeFile(t, "tx.csv", strings.SplitAfter(cards, "\n")[0]+"1,2018-07-25 10:00:00,1,1,5.00,1\n2,2018-08-10 10:00:00,1,1,5.00,0\n")
	good(t, "import --preset fraud-handbook --out tx tx.csv")
	good(t, "features --spec fraud-handbook --in tx --out f")
	refused(t, "evaluate --model model --data f --test 2018-08-10..2018-08-11 --report r.html --json", 1,
		[]string{"all 1 transactions of f in 2018-08-10..2018-08-11 are of cards known to be compromised", "give --all-cards, or a longer --test"})
	refused(t, "evaluate --model model --data f --test 2019-08-10..2019-08-11 --report r.html", 1, []string{"f has no transactions in 2019-08-10..2019-08-11: it reaches from 2018-07-25"})
	refused(t, "features --spec fraud-handbook --in tx --out g --range 2017-01-01..2017-12-31", 1, []string{"no transactions in 2017-01-01..2017-12-31: tx reaches from 2018-07-25"})
	refused(t, "mock --out g --rows 0", 2, []string{"--rows 0: want 1 or more"})
	refused(t, "train fraud --data f --out m --train 2018-08-10..2018-08-11", 1, []string{"--train 2018-08-10..2018-08-11: none of the 1 rows is a fraud", "take a longer range"})
}

func TestArtifactWithOtherFeatures(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := fraudtest.Write("cards", 20, 20); err != nil {
		t.Fatal(err)
	}
	modeltest.Save(t, "model", 1)
	builtin, err := features.Builtin("fraud-handbook")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, "other.yaml", strings.ReplaceAll(string(builtin.YAML()), "30d]", "28d]"))
	good(t, "features --spec other.yaml --in cards --out other --state-out otherstate")
	for _, line := range []string{"predict --model model --data other --out p.parquet", "evaluate --model model --data other --report r.html"} {
		refused(t, line, 1, []string{"other: model model was trained on other features: ", "CUSTOMER_ID_NB_TX_30DAY_WINDOW", "make the features with the model's own spec, " + filepath.Join("model", "spec.yaml")})
	}
	writeFile(t, "tx.jsonl", event(1))
	refused(t, "score --model model --source tx.jsonl --warm-from otherstate"+outputs, 1, []string{"state otherstate cannot be taken up: it belongs to other features", "make it again with the spec fraud-handbook"})
	// A mapping that gives the ids as text.
	refused(t, "score --model model --source tx.jsonl --preset canonical"+outputs, 1, []string{"model model: the events' mapping gives columns of other types: ", "user_id is string here and was int64 in training", "give the mapping that"})
	// An artifact that was put together from two.
	spec, err := os.ReadFile("other.yaml")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, "model/spec.yaml", string(spec))
	refused(t, "score --model model --source tx.jsonl"+outputs, 1, []string{"onmart score: model model: spec.yaml"})
}

func TestHalfWrittenDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := fraudtest.Write("cards", 20, 20); err != nil {
		t.Fatal(err)
	}
	modeltest.Save(t, "model", 1)
	good(t, "features --spec fraud-handbook --in cards --out f --state-out s")
	writeFile(t, "tx.jsonl", event(1))
	for _, dir := range []string{"cards", "f", "s", "model"} {
		if err := os.Rename(filepath.Join(dir, "manifest.json"), dir+".manifest"); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"cards", "f", "s", "model"} {
		refused(t, "inspect "+dir, 1, []string{dir + " has no manifest.json: onmart did not make it, or it is not whole"})
	}
	for _, line := range []string{"features --spec fraud-handbook --in cards --out f2 --state-out s2", "train fraud --data cards --out m", "train fraud --data f --out m"} {
		refused(t, line, 1, []string{" has no manifest.json", "whole"})
	}
	for _, line := range []string{"predict --data f --out p.parquet", "evaluate --data f", "score --source tx.jsonl" + outputs} {
		refused(t, line+" --model model", 1, []string{"model model: ", "manifest.json"})
	}
	if err := os.Rename("model.manifest", "model/manifest.json"); err != nil {
		t.Fatal(err)
	}
	refused(t, "score --model model --source tx.jsonl --warm-from s"+outputs, 1, []string{"s is not a state: it has no manifest.json", "--state-out writes one"})
	// A part that is shorter than it was.
	if err := os.Rename("cards.manifest", "cards/manifest.json"); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate("cards/part-00000.parquet", 1000); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"inspect cards", "features --spec fraud-handbook --in cards --out f2", "train fraud --data cards --out m"} {
		refused(t, line, 1, []string{"part-00000.parquet", "1000 bytes"})
	}
	if err := os.Truncate("model/weights.safetensors", 100); err != nil {
		t.Fatal(err)
	}
	refused(t, "score --model model --source tx.jsonl"+outputs, 1, []string{"model model: ", "weights.safetensors"})
}

// limitFiles keeps this process from making a file of more than that many bytes, as a full disk would.
func limitFiles(bytes string) error {
	if bytes == "" {
		return nil
	}
	n, err := strconv.ParseUint(bytes, 10, 64)
	if err != nil {
		return err
	}
	signal.Ignore(syscall.SIGXFSZ)
	return unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: n, Max: n})
}

// process is onmart as a process of its own.
type process struct {
	*exec.Cmd
	out, err bytes.Buffer
}

func command(line string, env ...string) *process {
	p := &process{Cmd: exec.Command(os.Args[0], strings.Fields(line)...)}
	p.Env = append(append(os.Environ(), "ONMART_TEST_CHILD=1"), env...)
	p.Stdout, p.Stderr = &p.out, &p.err
	return p
}

func (p *process) code() int { return p.ProcessState.ExitCode() }

func TestFullDisk(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := fraudtest.Write("cards", 30, 200); err != nil {
		t.Fatal(err)
	}
	good(t, "features --spec fraud-handbook --in cards --out f")
	modeltest.Save(t, "model", 1)
	writeFile(t, "tx.jsonl", events(0, 3000))
	writeFile(t, "tx.csv", "TRANSACTION_ID,TX_DATETIME,CUSTOMER_ID,TERMINAL_ID,TX_AMOUNT,TX_FRAUD\n")
	f, err := os.OpenFile("tx.csv", os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for id := range 3000 {
		fmt.Fprintf(f, "%d,2018-04-01 00:00:00,%d,%d,%d.17,0\n", id, id*7919%5000, id*104729%9000, id*31%977)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	before := tree(t)
	for _, c := range []struct {
		line, at string
		keeps    []string
	}{
		{"import --preset fraud-handbook --out new tx.csv", "new", nil},
		{"mock --out new --rows 5000", "new", nil},
		{"features --spec fraud-handbook --in cards --out new", "new", nil},
		{"features --spec fraud-handbook --in cards --state-out new", "new", nil},
		{"train fraud --device cpu --data f --out new --set epochs=1", "new.checkpoint", []string{"new.runlog.jsonl"}},
		{"predict --model model --data f --out new.parquet", "new.parquet", nil},
		{"evaluate --model model --data f --test 2026-01-20..2026-01-30 --report new.html", "new.html", nil},
		{"score --model model --source tx.jsonl --sink new.jsonl", "new.jsonl", nil},
		{"score --model model --source tx.jsonl --sink - --record new", "new", nil},
		{"score --model model --source tx.jsonl --sink - --state-out new", "new", nil},
		{"demo --rows 5000 --out new", "new/shop", nil},
	} {
		p := command(c.line, "ONMART_TEST_FILE_LIMIT=1024")
		if err := p.Run(); err == nil || p.code() != exitFailed {
			t.Errorf("onmart %s: exit %d, %v", c.line, p.code(), err)
		}
		lacks(t, c.line, p.err.String(), []string{"no space left on device: ", "/" + c.at + " needs more than", "nothing was left behind: free some space"})
		if now := tree(t); !slices.Equal(now, sorted(append(c.keeps, before...))) {
			t.Errorf("onmart %s: there are %q", c.line, now)
		}
		for _, f := range c.keeps {
			os.Remove(f) // the log says how it ended
		}
	}
}

// stoppedAt starts the command, sends the signal when `when` has passed, and waits for its end.
func stoppedAt(t *testing.T, line string, sig os.Signal, when time.Duration) *process {
	t.Helper()
	p := command(line)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(when)
	p.Process.Signal(sig)
	p.Wait()
	return p
}

// Ctrl-C, or kill -9, at moments spread over a run: what a command makes is whole or absent, and after Ctrl-C
// nothing else is left.
func TestStoppedAtAnyMoment(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := fraudtest.Write("cards", 40, 500); err != nil {
		t.Fatal(err)
	}
	modeltest.Save(t, "model", 1)
	writeFile(t, "tx.jsonl", events(0, 12_000))
	writeFile(t, "m.yaml", "format: jsonl\ntimezone: UTC\nunique: trans_id\ncolumns:\n  trans_id: {type: int64}\n  trans_datetime: {}\n  user_id: {type: int64}\n  store_id: {type: int64}\n  amount: {}\n")
	good(t, "features --spec fraud-handbook --in cards --out f")
	before := tree(t)
	for _, c := range []struct {
		line string
		made []string // directories, checked by inspect, and files
	}{
		{"import --map m.yaml --out new tx.jsonl", []string{"new"}},
		{"features --spec fraud-handbook --in cards --out new --state-out newstate", []string{"new", "newstate"}},
		{"predict --model model --data f --out new.parquet", []string{"new.parquet"}},
		{"score --model model --source tx.jsonl --sink new.jsonl --record new --state-out newstate", []string{"new", "newstate", "new.jsonl"}},
	} {
		start := time.Now()
		p := command(c.line)
		if err := p.Run(); err != nil {
			t.Fatalf("onmart %s: %v %s", c.line, err, &p.err)
		}
		took := time.Since(start)
		for k := range 4 {
			sig := os.Signal(os.Interrupt)
			if k == 2 {
				sig = syscall.SIGKILL
			}
			for _, name := range c.made {
				os.RemoveAll(name)
			}
			p := stoppedAt(t, c.line, sig, took*time.Duration(2*k+2)/9)
			for _, name := range c.made {
				if info, err := os.Stat(name); err == nil && info.IsDir() {
					good(t, "inspect "+name)
				}
				os.RemoveAll(name)
			}
			switch {
			case p.code() == exitFailed:
				lacks(t, c.line, p.err.String(), []string{": interrupted\n"})
			case p.code() != 0 && p.code() != -1: // -1: by the signal, before onmart listened to it or by kill -9
				t.Errorf("onmart %s: exit %d: %s", c.line, p.code(), &p.err)
			}
			if now := tree(t); sig == os.Interrupt && !slices.Equal(now, before) {
				t.Errorf("onmart %s, stopped after %v of %v: there are %q", c.line, took*time.Duration(2*k+2)/9, took, now)
			}
		}
		// The next run clears what kill -9 left.
		if p := command(c.line); p.Run() != nil {
			t.Errorf("onmart %s: %s", c.line, &p.err)
		}
		for _, name := range c.made {
			os.RemoveAll(name)
		}
		if now := tree(t); !slices.Equal(now, before) {
			t.Errorf("onmart %s: in the end there are %q", c.line, now)
		}
	}
}

// waitFor waits until the condition holds, up to a minute on a busy machine.
func waitFor(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for range 6000 {
		if holds() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s has not come", what)
}

// A training that is stopped in both of its parts and resumed gives the artifact of one that was not.
func TestTrainingStoppedTwiceGivesTheSameArtifact(t *testing.T) {
	t.Chdir(t.TempDir())
	makeCards(t)
	good(t, "features --spec fraud-handbook --in cards --out f")
	line := "train fraud --device cpu --data f --json --set hidden=16 --set towers=1 --set epochs=15 --set patience=0 --set batch=64 --set learning_rate=0.02 --out "
	var whole, stopped struct {
		Version string
		Resumed bool
	}
	if err := json.Unmarshal([]byte(good(t, line+"whole")), &whole); err != nil {
		t.Fatal(err)
	}
	for i, part := range []string{"choose", "refit"} {
		args := line + "model"
		if i > 0 {
			args += " --resume"
		}
		p := command(args)
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		checkpoint := filepath.Join("model.checkpoint", part, "manifest.json")
		waitFor(t, checkpoint, func() bool { _, err := os.Stat(checkpoint); return err == nil })
		p.Process.Signal(os.Interrupt)
		p.Wait()
		if p.code() != exitFailed {
			t.Fatalf("it ended before it was stopped: exit %d %s", p.code(), &p.err)
		}
		lacks(t, args, p.err.String(), []string{"the training was stopped (interrupted)", "model.checkpoint", "--resume goes on from there"})
		if _, err := os.Stat("model"); err == nil {
			t.Error("there is a model already")
		}
	}
	if err := json.Unmarshal([]byte(good(t, line+"model --resume")), &stopped); err != nil {
		t.Fatal(err)
	}
	if !stopped.Resumed || whole.Resumed || stopped.Version != whole.Version {
		t.Errorf("%+v, without a stop %+v", stopped, whole)
	}
	a, b := modeltest.Open(t, "whole"), modeltest.Open(t, "model")
	for _, name := range []string{"weights.safetensors", "context/state.bin"} {
		if x, y := a.Manifest().Files[name], b.Manifest().Files[name]; x != y || x == (atomicdir.Written{}) {
			t.Errorf("%s: %v and %v", name, x, y)
		}
	}
	if _, err := os.Stat("model.checkpoint"); err == nil {
		t.Error("the checkpoint is still there")
	}
}

// What a stopped scorer wrote and what it writes when started again on the same file from its state are what one
// run writes.
func TestScoreStoppedAndStartedAgain(t *testing.T) {
	t.Chdir(t.TempDir())
	modeltest.Save(t, "model", 1)
	writeFile(t, "tx.jsonl", events(0, 10_000)+"nonsense\n")
	start := time.Now()
	p := command("score --model model --source tx.jsonl --batch 32")
	if err := p.Run(); err != nil {
		t.Fatal(err, &p.err)
	}
	took, want := time.Since(start), p.out.String()
	clean := func() {
		for _, name := range []string{"a.jsonl", "b.jsonl", "log", "log2", "state", "state2"} {
			if err := os.RemoveAll(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	parts := 0
	for k := range 3 {
		clean()
		first := stoppedAt(t, "score --model model --source tx.jsonl --batch 32 --sink a.jsonl --record log --state-out state", unix.SIGTERM, took*time.Duration(k+1)/4)
		if first.code() == -1 { // before onmart listened to signals, or when it was done and had stopped to
			continue
		}
		if first.code() != 0 {
			t.Fatalf("exit %d: %s", first.code(), &first.err)
		}
		second := command("score --model model --source tx.jsonl --batch 100 --sink b.jsonl --warm-from state --record log2 --state-out state2")
		if err := second.Run(); err != nil {
			t.Fatalf("%v: %s", err, &second.err)
		}
		a, err := os.ReadFile("a.jsonl")
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile("b.jsonl")
		if err != nil {
			t.Fatal(err)
		}
		if string(a)+string(b) != want {
			t.Errorf("%d lines and %d lines are not the %d of one run", bytes.Count(a, []byte("\n")), bytes.Count(b, []byte("\n")), strings.Count(want, "\n"))
		}
		if len(a) > 0 && len(b) > 0 {
			parts++
		}
	}
	if parts == 0 {
		t.Log("no signal came in the middle")
	}
}

// What cannot be kept at the end is found before the first event.
func TestScoreOutputsAreSeenToFirst(t *testing.T) {
	t.Chdir(t.TempDir())
	modeltest.Save(t, "model", 1)
	writeFile(t, "tx.jsonl", event(1))
	good(t, "score --model model --source tx.jsonl"+outputs)
	for _, out := range []string{"--sink scores.jsonl", "--record log", "--state-out state"} {
		refused(t, "score --model model --source tx.jsonl "+out, 1, []string{"exists already: give --force to replace it"})
	}
	refused(t, "score --model model --source tx.jsonl --record x --state-out ./x", 2, []string{"--record and --state-out are both ./x: give each a name of its own"})
	good(t, "score --model model --source tx.jsonl --force"+outputs)
}

// --force is for what a command made before, not for whatever has that name.
func TestForceReplacesItsOwnKindOnly(t *testing.T) {
	t.Chdir(t.TempDir())
	makeCards(t)
	modeltest.Save(t, "model", 1)
	good(t, "features --spec fraud-handbook --in cards --out f --state-out s")
	writeFile(t, "tx.csv", cards)
	writeFile(t, "tx.jsonl", event(1))
	for _, c := range []struct{ line, want string }{
		{"import --preset fraud-handbook --out model tx.csv", "--out: model holds a model, and here --force replaces transactions only"},
		{"mock --rows 100 --out f", "--out: f holds features, and here --force replaces transactions only"},
		{"features --spec fraud-handbook --in cards --out s", "--out: s holds a state, and here --force replaces features only"},
		{"features --spec fraud-handbook --in cards --state-out f", "--state-out: f holds features, and here --force replaces a state only"},
		{"train fraud --data cards --out cards", "--out: cards holds transactions, and here --force replaces a model only"},
		{"score --model model --source tx.jsonl --record model", "--record: model holds a model, and here --force replaces a log only"},
		{"score --model model --source tx.jsonl --state-out model", "--state-out: model holds a model, and here --force replaces a state only"},
		{"score --model model --source tx.jsonl --sink ./tx.jsonl", "--sink ./tx.jsonl is the --source: the scores would replace the events"},
	} {
		refused(t, c.line+" --force", 2, []string{c.want, "name another "})
	}
	for _, dir := range []string{"cards", "model", "f", "s"} {
		good(t, "inspect "+dir)
	}
	good(t, "features --spec fraud-handbook --in cards --out f --state-out s --force")
}

func TestDemoStopped(t *testing.T) {
	t.Chdir(t.TempDir())
	p := command("demo --out d --rows 20000")
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	checkpoint := filepath.Join("d", "fraud.checkpoint", "choose", "manifest.json")
	waitFor(t, checkpoint, func() bool { _, err := os.Stat(checkpoint); return err == nil })
	p.Process.Signal(os.Interrupt)
	p.Wait()
	if p.code() != exitFailed || !strings.HasSuffix(p.err.String(), "onmart demo: interrupted\n") {
		t.Errorf("exit %d: %s", p.code(), &p.err)
	}
	for _, dir := range []string{"shop", "features", "state"} {
		good(t, "inspect "+filepath.Join("d", dir))
	}
	entries, err := os.ReadDir("d")
	if err != nil || len(entries) != 3 {
		t.Errorf("%v, %v", entries, err)
	}
	if err := (&demo{out: "d"}).checkOut(); err != nil {
		t.Errorf("it cannot be run again: %v", err)
	}
}

// Standard input that stays open: every event is answered at once, a malformed one by an error object with its
// position, and Ctrl-C keeps the log and the state.
func TestMalformedEventsOnStandardInput(t *testing.T) {
	t.Chdir(t.TempDir())
	modeltest.Save(t, "model", 1)
	p := command("score --model model --record log --state-out state")
	p.Stdout = nil
	in, err := p.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	defer p.Process.Kill()
	answers := json.NewDecoder(out)
	for i, c := range []struct{ event, want string }{
		{event(1), "score"},
		{"{\n", "2  not JSON"},
		{strings.Replace(event(2), "2.5", "NaN", 1), "3 amount not JSON"},
		{strings.Replace(event(2), "2.5", `"two"`, 1), `4 amount "two" is not a number`},
		{"\n" + strings.Replace(event(2), "T", "X", 1), "6 trans_datetime "},
		{`{"trans_id":9}` + "\n", "7 trans_datetime is missing"},
		{`{"event":"label","trans_id":1,"is_fraud":7,"known_at":"2026-01-06T00:00:00Z"}` + "\n", "8 is_fraud 7 is not"},
		{strings.Repeat("x", 3<<20) + "\n", "9  "},
		{event(1), "10 trans_id transaction 1 was scored before"},
		{event(3), "score"},
	} {
		if _, err := io.WriteString(in, c.event); err != nil {
			t.Fatal(err)
		}
		var a answer
		if err := answers.Decode(&a); err != nil {
			t.Fatalf("event %d: %v %s", i, err, &p.err)
		}
		if got := a.String(); !strings.HasPrefix(got, c.want) {
			t.Errorf("event %d: %s, want %s", i, got, c.want)
		}
	}
	p.Process.Signal(os.Interrupt)
	p.Wait()
	if p.code() != 0 {
		t.Errorf("exit %d: %s", p.code(), &p.err)
	}
	lacks(t, "score", p.err.String(), []string{"2 scored", "1 duplicates, 7 rejected"})
	d, err := datasets.Open("log")
	if err != nil || d.Manifest().Rows != 2 {
		t.Errorf("the log: %v", err)
	}
	if !strings.Contains(good(t, "inspect state"), `{"stdin":12}`) {
		t.Error(good(t, "inspect state"))
	}
}

// answer is a line of score.
type answer struct {
	ScoreID string `json:"score_id"`
	Error   *struct {
		Position       int
		Column, Reason string
	}
}

func (a *answer) String() string {
	if a.Error == nil {
		return "score " + a.ScoreID
	}
	return fmt.Sprint(a.Error.Position, " ", a.Error.Column, " ", a.Error.Reason)
}

// HTTP: the same, and a scorer that was stopped goes on from its state with positions that were not used yet.
func TestMalformedEventsOverHTTP(t *testing.T) {
	t.Chdir(t.TempDir())
	modeltest.Save(t, "model", 1)
	type sent struct{ body, want string }
	ids := map[string]bool{}
	serve := func(line string, requests []sent) {
		t.Helper()
		p := command("score --model model --listen 127.0.0.1:0 " + line)
		p.Stderr = nil
		errs, err := p.StderrPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Start(); err != nil {
			t.Fatal(err)
		}
		defer p.Process.Kill()
		address := ""
		for b := make([]byte, 1); !strings.Contains(p.err.String(), "listening on ") || !strings.HasSuffix(p.err.String(), "\n"); {
			if _, err := errs.Read(b); err != nil {
				t.Fatal(err, &p.err)
			}
			p.err.Write(b)
		}
		_, address, _ = strings.Cut(strings.TrimSpace(p.err.String()), "listening on ")
		for i, s := range requests {
			r, err := http.Post("http://"+address+"/v1/score", "application/json", strings.NewReader(s.body))
			if err != nil {
				t.Fatal(err)
			}
			got := fmt.Sprint(r.StatusCode)
			d := json.NewDecoder(r.Body)
			for {
				var a answer
				if err := d.Decode(&a); err == io.EOF {
					break
				} else if err != nil {
					t.Fatal(err)
				}
				if a.ScoreID != "" && ids[a.ScoreID] {
					t.Errorf("request %d: score_id %s twice", i, a.ScoreID)
				}
				ids[a.ScoreID] = true
				if a.Error != nil {
					got += fmt.Sprintf(", %d %s", a.Error.Position, a.Error.Column)
				} else {
					got += ", score"
				}
			}
			r.Body.Close()
			if got != s.want {
				t.Errorf("request %d: %s, want %s", i, got, s.want)
			}
		}
		p.Process.Signal(unix.SIGTERM)
		rest, _ := io.ReadAll(errs)
		p.Wait()
		if p.code() != 0 || !bytes.Contains(rest, []byte(" scored, ")) {
			t.Errorf("exit %d: %s", p.code(), rest)
		}
	}
	serve("--record log --state-out state", []sent{
		{event(1), "200, score"},
		{"nonsense", "400, 1 "},
		{event(2) + "{\n" + strings.Replace(event(3), "3.5", `"x"`, 1) + event(4), "200, score, 3 , 4 amount, score"},
		{"", "400, 0 "},
		{event(5), "200, score"},
	})
	serve("--warm-from state --record log2 --state-out state2", []sent{
		{event(6), "200, score"},
		{event(5), "200, 8 trans_id"},
	})
	for dir, rows := range map[string]int64{"log": 4, "log2": 1} {
		d, err := datasets.Open(dir)
		if err != nil || d.Manifest().Rows != rows {
			t.Errorf("%s: %v", dir, err)
			continue
		}
		if err := d.Verify(context.Background()); err != nil {
			t.Error(err)
		}
	}
}
