package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/onmart/onmart/internal/testkit"
)

const cards = `TRANSACTION_ID,TX_DATETIME,CUSTOMER_ID,TERMINAL_ID,TX_AMOUNT,TX_FRAUD
1,2018-04-01 00:02:10,4961,3412,81.51,0
0,2018-04-01 00:00:31,596,3156,57.16,0
2,2018-04-02 00:07:56,2,1365,146.00005,1
`

func TestImportAndInspect(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	testkit.WriteFile(t, dir, "tx.csv", cards)
	code, stdout, stderr := cli(t, "import", "--preset", "fraud-handbook", "--out", "tx", "tx.csv")
	want := "tx: 3 transactions, 2018-04-01T00:00:31Z to 2018-04-02T00:07:56Z\n" +
		"  1 values had more decimals than their column keeps and were rounded half to even\n" +
		"  1 rows were not in the order of their times and were sorted\n"
	if code != 0 || stdout != want {
		t.Fatalf("exit %d, %q, %q", code, stdout, stderr)
	}
	code, stdout, stderr = cli(t, "inspect", "tx", "-q")
	if code != 0 || stderr != "" {
		t.Fatalf("exit %d, %q", code, stderr)
	}
	for _, part := range []string{
		"tx is a data set of transactions, and whole: every checksum agrees\n  rows     3 in 1 parts, ",
		"\n  time     2018-04-01T00:00:31Z to 2018-04-02T00:07:56Z\n",
		"\n  from     tx.csv, 3 rows\n", "\n  out of order  1\n",
		"\namount          decimal 4      0                           57.16     94.89                   146\n",
		"\nrows a day, a day a column, 2018-04-01 to 2018-04-02:\n█▄\nleast 1 on 2018-04-02, most 2 on 2018-04-01\n",
	} {
		if !strings.Contains(stdout, part) {
			t.Errorf("no %q in\n%s", part, stdout)
		}
	}
	code, stdout, _ = cli(t, "inspect", "tx", "--json")
	var report struct {
		Whole   bool
		Kind    string
		Rows    int
		Columns []struct{ Name string }
		Counts  map[string]int
	}
	if err := json.Unmarshal([]byte(stdout), &report); err != nil || code != 0 || !report.Whole || report.Rows != 3 || report.Kind != "transactions" ||
		len(report.Columns) != 6 || report.Counts["rounded"] != 1 {
		t.Errorf("exit %d, %v, %s", code, err, stdout)
	}
	part := filepath.Join("tx", "part-00000.parquet")
	data, err := os.ReadFile(part)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(part, data, 0o666); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr = cli(t, "inspect", "tx", "-q")
	if code != 1 || stdout != "" || !strings.Contains(stderr, part+": the checksum differs") {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
}

func TestImportFlags(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	testkit.WriteFile(t, dir, "tx.csv", cards)
	testkit.WriteFile(t, dir, "semi.txt", strings.ReplaceAll(cards, ",", ";"))
	testkit.WriteFile(t, dir, "bad.csv", cards+"x\n")
	testkit.WriteFile(t, dir, "m.yaml", "columns: {}\n")
	for _, c := range []struct {
		args   string
		code   int
		stderr string
	}{
		{"import", 2, "requires at least 1 arg"},
		{"import --out a tx.csv", 2, "name a mapping: --map FILE, or --preset canonical\\|fraud-handbook\\|m4-hourly\\|online-retail"},
		{"import --preset fraud tx.csv --out a", 2, "no preset fraud; "},
		{"import --preset fraud-handbook tx.csv", 2, "--out is missing: name the directory to make"},
		{"import --preset fraud-handbook tx.csv --out a --max-rejects 2", 2, "want a share between 0 and 1"},
		{"import --preset fraud-handbook tx.csv --out a --format xml", 2, "--format xml: want csv or jsonl"},
		{"import --preset fraud-handbook tx.csv --out a --delimiter ab", 2, "want one ASCII character"},
		{"import --map none.yaml tx.csv --out a", 1, "--map: open none.yaml: no such file"},
		{"import --map m.yaml tx.csv --out a", 2, `(?s)m.yaml:1: timezone: is missing.*\nm.yaml:1: columns: trans_id is missing\n`},
		{"import --preset fraud-handbook none.csv --out a", 1, "none.csv: no such file"},
		{"import --preset fraud-handbook semi.txt --out a", 1, `seem to be separated by ';'.*--delimiter ";"`},
		{"import --preset fraud-handbook semi.txt --out a --delimiter ;", 0, ""},
		{"import --preset fraud-handbook tx.csv --out a", 1, "a exists already: give --force"},
		{"import --preset fraud-handbook tx.csv --out a --force", 0, ""},
		{"import --preset fraud-handbook bad.csv --out b", 1, "1 of 4 rows cannot be used, more than --max-rejects 0.001 allows; the first is bad.csv:5: 1 fields, where the header has 6; they are in b.rejects.jsonl; nothing was imported"},
		{"import --preset fraud-handbook bad.csv --out b --max-rejects 0.25", 0, ""},
		{"inspect", 2, "accepts 1 arg"},
		{"inspect none", 1, "none: no such file"},
		{"inspect tx.csv", 1, "tx.csv is a file: give the directory"},
		{"inspect .", 1, ". has no manifest.json: onmart did not make it, or it is not whole"},
	} {
		code, _, stderr := cli(t, append(strings.Fields(c.args), "-q")...)
		if code != c.code || !regexp.MustCompile(c.stderr).MatchString(stderr) {
			t.Errorf("onmart %s: exit %d, %s; want %d, %s", c.args, code, stderr, c.code, c.stderr)
		}
	}
}

func TestInspectOtherDirectories(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	testkit.WriteFile(t, dir, "state/state.bin", "abc")
	manifest := `{"kind":"state","format_version":1,"watermark":5,"files":{"state.bin":{"bytes":3,"sha256":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}}}`
	testkit.WriteFile(t, dir, "state/manifest.json", manifest)
	code, stdout, stderr := cli(t, "inspect", "state")
	if code != 0 || !strings.HasPrefix(stdout, "state is a state; 1 files agree with their checksums\n") || !strings.Contains(stdout, "watermark        5\n") {
		t.Errorf("exit %d, %q, %q", code, stdout, stderr)
	}
	testkit.WriteFile(t, dir, "state/state.bin", "abd")
	code, _, stderr = cli(t, "inspect", "state")
	if code != 1 || !strings.Contains(stderr, filepath.Join("state", "state.bin")+" is not as it was written") {
		t.Errorf("exit %d, %q", code, stderr)
	}
	testkit.WriteFile(t, dir, "state/manifest.json", `{"kind":"model"}`)
	if code, _, stderr = cli(t, "inspect", "state"); code != 1 || stderr == "" {
		t.Errorf("exit %d, %q", code, stderr)
	}
}
