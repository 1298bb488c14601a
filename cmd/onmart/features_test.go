package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/internal/testkit"
	"github.com/onmart/onmart/train/fraud/fraudtest"
)

// Comparing outputs, going on from a state and appending, as a user does it.
func TestFeaturesDayByDay(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	const head = "trans_id,trans_datetime,user_id,store_id,amount\n"
	rows := []string{"1,2026-03-02 09:00:00,u1,s1,20\n2,2026-03-02 10:00:00,u1,s2,30\n", "3,2026-03-03 " +
		"09:00:00,u1,s1,40\n4,2026-03-03 09:00:00,u2,s1,50\n"}
	testkit.WriteFile(t, dir, "1.csv", head+rows[0])
	testkit.WriteFile(t, dir, "2.csv", head+rows[1])
	testkit.WriteFile(t, dir, "12.csv", head+rows[0]+rows[1])
	testkit.WriteFile(t, dir, "s.yaml", "name: s\nkeep: [trans_id, trans_datetime]\nfeatures:\n  - {name: x, kind: "+
		"value, of: amount}\n"+
		"  - {name: n, kind: count, key: user_id, windows: [7d]}\n")
	testkit.WriteFile(t, dir, "other.yaml", "name: s\nkeep: [trans_id, trans_datetime]\nfeatures:\n  - {name: x, kind: "+
		"value, of: amount}\n"+
		"  - {name: n, kind: count, key: user_id, windows: [1h]}\n")
	for _, c := range []struct {
		args string
		code int
		want string // of stdout, or of stderr
	}{
		{"import --preset canonical --out d1 1.csv", 0, ""},
		{"import --preset canonical --out d2 2.csv", 0, ""},
		{"import --preset canonical --out d12 12.csv", 0, ""},
		{"features --spec ./s.yaml --in d12 --out whole --state-out wholestate", 0, "^whole: 2 features of s for 4 " +
			"transactions"},
		{"features --spec ./s.yaml --in d1 --out f --state-out s", 0, ""},
		{"features --spec ./s.yaml --in d1 --append f --state-in s", 1, "the state s has folded d1 already"},
		{"features --spec ./s.yaml --in d2 --append f --state-in s --state-out s", 1, "s exists already: give --force"},
		{"features --spec ./s.yaml --in d2 --append f --state-in s --state-out s --force", 0, "^f: 2 features of s for 4 " +
			"transactions, 2026-03-02T09:00:00Z to 2026-03-03T09:00:00Z\n" +
			"s: the state after the last of them\n  2 rows folded"},
		{"features --diff whole f", 0, "^A is whole, 4 rows\nB is f, 4 rows\n  4 rows are in both, compared by trans_id, " +
			"line: all 3 columns are equal to the bit\n$"},
		{"features --diff wholestate f", 1, "wholestate"},
		{"features --spec ./other.yaml --in d12 --out other", 0, ""},
		{"features --diff whole other", 1, "^onmart features: whole and other differ\n$"},
		{"features --skew whole other", 0, `(?s)^A, the reference, is whole, 4 rows.*\nn +[0-9.]+ +[0-9.]+ +too few rows +0.75 +0 +50.00 % +100.00 %`},
		{"features --skew whole other --range 2020-01-01..2020-01-02", 1, "no rows of whole are in 2020-01-01..2020-01-02"},
		{"features --skew whole other --range x..y", 2, "--range: "},
		{"features --diff whole", 2, "--diff A B: name two outputs"},
		{"features --diff a --skew b c", 2, "--diff, --skew, --explain and --verify: give one of them"},
		{"features d12", 2, `unknown argument "d12"`},
		{"features --in d2 --append f --out g --state-in s", 2, "--append f and --out g"},
		{"features --in d2 --append f", 2, "--state-in is missing"},
		{"features --spec shop-interactions --in d2 --out g --resume", 2, "is of interactions: --state-in, --append, --resume, " +
			"--memory and --max-rejects are for"},
		{"features --spec ./s.yaml --in d2 --out g --resume", 1, "there is nothing to resume"},
		{"features --spec ./s.yaml --in d2 --out g --spill x", 2, "--memory is missing"},
		{"features --spec ./s.yaml --in d2 --out g --memory much", 2, "--memory much: want a size"},
		{"features --spec ./s.yaml --in d2 --out g --memory 1MiB --spill .", 0, "^g: 2 features"},
		{"features --spec ./s.yaml --in d2 --out g --max-rejects 2", 2, "want a share between 0 and 1"},
	} {
		code, stdout, stderr := cli(t, append(strings.Fields(c.args), "-q")...)
		if code != c.code || !regexp.MustCompile(c.want).MatchString(map[bool]string{true: stdout,
			false: stderr}[code == 0]) {
			t.Errorf("onmart %s: exit %d\n%s%s\nwant %d\n%s", c.args, code, stdout, stderr, c.code, c.want)
		}
	}
	a, err := os.ReadFile("wholestate/state.bin")
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile("s/state.bin")
	if err != nil || !bytes.Equal(a, b) {
		t.Errorf("the state that was gone on from is not that of one run: %v", err)
	}
	code, stdout, _ := cli(t, "features", "--diff", "whole", "other", "--json", "-q")
	var d struct {
		A, B      string
		Equal     bool
		Redefined []string
		Columns   []struct {
			Name   string
			Differ int
			FirstA string `json:"first_a"`
		}
	}
	if err := json.Unmarshal([]byte(stdout), &d); err != nil || code != 1 || d.Equal || d.A != "whole" || len(d.Redefined) != 1 || len(d.Columns) != 3 ||
		d.Columns[2].Name != "n" || d.Columns[2].Differ != 2 || d.Columns[2].FirstA != "1" {
		t.Errorf("exit %d, %v: %s", code, err, stdout)
	}
}

// Panels and interactions are compared by what names their rows.
func TestFeaturesDiffOtherShapes(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	testkit.WriteFile(t, dir, "lines.csv", shopLines)
	testkit.WriteFile(t, dir, "more.csv", shopLines+"6,2026-03-05 10:00:00,u9,s1,lamp,4,10,40,0\n")
	testkit.WriteFile(t, dir, "panel.yaml", shopPanel)
	testkit.WriteFile(t, dir, "baskets.yaml", "name: baskets\nlateness: 0s\ninteractions:\n  user: user_id\n  item: product_id\n")
	for _, name := range []string{"lines", "more"} {
		good(t, "import --preset canonical --out tx-"+name+" "+name+".csv")
		good(t, "features --spec ./panel.yaml --in tx-"+name+" --out panel-"+name)
		good(t, "features --spec ./baskets.yaml --in tx-"+name+" --out baskets-"+name)
	}
	good(t, "features --spec ./panel.yaml --in tx-lines --out part --range 2026-03-03..2026-03-04")
	for _, c := range []struct {
		args string
		code int
		want string
	}{
		{"panel-lines panel-more", 1, `(?s)8 rows are in both, compared by product_id, step: [1-9] of [0-9]+ columns differ.*product_id "lamp", step 2026-03-05T00:00:00Z`},
		{"panel-lines part", 1, `4 rows are in both, compared by product_id, step: all [0-9]+ columns are equal to the bit\n  4 rows are only in A, the first product_id "lamp", step 2026-03-02T00:00:00Z`},
		{"panel-lines panel-lines", 0, "8 rows are in both"},
		{"baskets-lines baskets-more", 1, `compared by user_id, product_id, time: all [0-9]+ columns are equal to the bit\n  1 rows are only in B, the first user_id "u9", product_id "lamp", time 2026-03-05T10:00:00Z`},
		{"baskets-lines panel-lines", 1, "^$"},
	} {
		code, stdout, stderr := cli(t, strings.Fields("features -q --diff "+c.args)...)
		if code != c.code || !regexp.MustCompile(c.want).MatchString(stdout) {
			t.Errorf("%s: exit %d\n%s%s\nwant %d\n%s", c.args, code, stdout, stderr, c.code, c.want)
		}
	}
}

// Features explained and computed anew, as a user asks for it.
func TestFeaturesExplainAndVerify(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := fraudtest.Write("cards", 20, 500); err != nil {
		t.Fatal(err)
	}
	good(t, "features --in cards --out f -q")
	good(t, "features --in cards --out late --delay 3d -q")
	for _, c := range []struct {
		args string
		code int
		want string // of stdout, or of stderr
	}{
		{"features --explain", 0, `(?s)^fraud-handbook: 15 features\n.*\nCUSTOMER_ID_AVG_AMOUNT_7DAY_WINDOW +mean of amount over the user's purchases of the latest 7 days, this one included +amount, user_id, trans_datetime +user_id\n.*--in DIR adds`},
		{"features --explain --in cards --against f", 0, `(?s)\n +1  user_id +6 +[0-9]+ +[0-9]+ +31 days +[0-9.]+ .*\ncost of an event, of [0-9,]+ events .*\nstate after 10,000 rows, predicted from a run over all keys: .*\nthe run that made f took up .*\n$`},
		{"features --explain --in cards --against cards", 1, "onmart features did not make"},
		{"features --explain --spec shop-daily", 2, "the spec shop-daily is of a panel"},
		{"features --verify 200 --in cards", 0, `^200 rows of cards computed anew from the 10,000 rows before them, by the definition of fraud-handbook, against what the engine gives\n  all 3,000 values are equal to the bit\n$`},
		{"features --verify 200 --in cards --against late", 0, "against late\n  all 3,000 values are equal"},
		{"features --verify 200 --in cards --against late --spec fraud-handbook", 1, "give the spec that it was made of"},
		{"features --verify 200 --in cards --range 2018-01-01..2018-01-02", 1, "no transaction to verify"},
		{"features --verify 0 --in cards", 2, "want 1 row or more"},
		{"features --verify 5", 2, "--in is missing"},
		{"features --in cards --out g --against f", 2, "it goes with --verify or --explain"},
	} {
		code, stdout, stderr := cli(t, append(strings.Fields(c.args), "-q")...)
		if code != c.code || !regexp.MustCompile(c.want).MatchString(map[bool]string{true: stdout,
			false: stderr}[code == 0]) {
			t.Errorf("onmart %s: exit %d\n%s%s\nwant %d\n%s", c.args, code, stdout, stderr, c.code, c.want)
		}
	}
	_, stdout, _ := cli(t, "features", "--explain", "--in", "cards", "--json", "-q")
	var x struct {
		Features []struct{ Names []string }
		Groups   []struct {
			NsPerEvent float64 `json:"ns_per_event"`
		}
		Memory struct {
			State int64 `json:"state_bytes"`
		}
	}
	if err := json.Unmarshal([]byte(stdout), &x); err != nil || len(x.Features) != 15 || len(x.Groups) < 2 || x.Groups[0].NsPerEvent <= 0 || x.Memory.State <= 0 {
		t.Errorf("%v: %s", err, stdout)
	}
}

// Of features without times no period is told, but what that means.
func TestFeaturesWithoutTimes(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	testkit.WriteFile(t, dir, "s.yaml", "name: s\nkeep: [trans_id]\nfeatures: [{name: x, kind: value, of: amount}]\n")
	if err := fraudtest.Write("cards", 5, 20); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := cli(t, "features", "--spec", "s.yaml", "--in", "cards", "--out", "f")
	if want := "f: 1 features of s for 100 transactions\n  without trans_datetime: what is to be trained on or cut by time needs it among the spec's keep\n"; code != 0 || !strings.HasPrefix(stdout, want) {
		t.Errorf("exit %d\n%s%s\nwant %s", code, stdout, stderr, want)
	}
}

// A row without an amount is listed, and too many end the run.
func TestFeaturesRejects(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	testkit.WriteFile(t, dir, "s.yaml", "name: s\nkeep: [trans_id]\nfeatures: [{name: x, kind: value, of: amount}]\n")
	schema := &datasets.Schema{Fields: []datasets.Field{{Name: datasets.TransID, Type: datasets.Int64},
		{Name: datasets.TransDatetime, Type: datasets.Time}, {Name: datasets.Amount, Type: datasets.Decimal, Scale: 4,
			Nullable: true}}}
	w, err := datasets.Create("d", datasets.KindTransactions, schema, false)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	at := time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC).UnixMicro()
	err = w.Write(&datasets.Batch{Schema: schema, N: 2, Columns: []datasets.Column{{Ints: []int64{1, 2}},
		{Ints: []int64{at, at + datasets.Hour}}, {Ints: []int64{200_000, 0}, Null: []bool{false, true}}}})
	if err := errors.Join(err, w.Commit()); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := cli(t, strings.Fields("features --spec ./s.yaml --in d --out f --max-rejects 0.1 -q")...)
	if code != 1 || !strings.Contains(stderr, "1 of 2 rows are invalid, more than --max-rejects 0.1 allows; the first "+
		"is row 2 of d: amount has no value") {
		t.Errorf("exit %d: %s", code, stderr)
	}
	if names := testkit.Names(t, "."); strings.Join(names, " ") != "d f.rejects.jsonl s.yaml" {
		t.Errorf("there are %v", names)
	}
	if out := good(t, "features --spec ./s.yaml --in d --out f"); !strings.Contains(out, "those that were left out are "+
		"in "+filepath.Join("f", "rejects.jsonl")) {
		t.Error(out)
	}
	text, err := os.ReadFile(filepath.Join("f", "rejects.jsonl"))
	if want := `{"position":1,"trans_id":2,"trans_datetime":"2026-03-02T10:00:00Z","status":"invalid","column":"amount","reason":"amount has no value, and the features need it"}` + "\n"; err != nil || string(text) != want {
		t.Errorf("%v: %s", err, text)
	}
}

// Ctrl-C in a long run leaves a checkpoint and says how to go on; what comes of it is what comes of a run without a
// break.
func TestFeaturesInterrupted(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := fraudtest.Write("cards", 40, 8000); err != nil {
		t.Fatal(err)
	}
	good(t, "features --in cards --out whole -q")
	line := strings.Fields("try features --in cards --out f")
	stderr := ""
	for range 5 { // it may end before it is stopped
		cmd := exec.Command(os.Args[0], line...)
		cmd.Env = append(os.Environ(), "ONMART_TEST_CHILD=1")
		var errs bytes.Buffer
		cmd.Stderr = &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		checkpoint := filepath.Join(".f.onmart-checkpoint", "checkpoint.json")
		for stop := false; !stop; {
			select {
			case <-ended:
				stop = true
			case <-time.After(time.Millisecond):
				if _, err := os.Stat(checkpoint); err == nil {
					cmd.Process.Signal(unix.SIGINT)
					<-ended
					stop = true
				}
			}
		}
		if stderr = errs.String(); cmd.ProcessState.ExitCode() == exitFailed {
			break
		}
		os.RemoveAll("f")
	}
	if !regexp.MustCompile(`the run to f was stopped \(interrupted\); what was made of the first [0-9]+ of 320000 rows is kept: the same command with --resume goes on from there`).MatchString(stderr) {
		t.Fatal(stderr)
	}
	if names := testkit.Names(t, "."); slices.Contains(names, "f") {
		t.Errorf("there are %v", names)
	}
	code, _, text := cli(t, line...)
	if code != exitFailed || !strings.Contains(text, "--resume goes on with it, --force starts anew") {
		t.Errorf("exit %d: %s", code, text)
	}
	if code, _, text := cli(t, append(line, "--resume", "-q")...); code != 0 {
		t.Errorf("exit %d: %s", code, text)
	}
	good(t, "features --diff whole f -q")
	if names := testkit.Names(t, "."); !slices.Equal(names, []string{"cards", "f", "whole"}) {
		t.Errorf("there are %v", names)
	}
}
