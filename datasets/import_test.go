package datasets

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/onmart/onmart/internal/atomicdir"
	"github.com/onmart/onmart/internal/testkit"
)

func preset(t testing.TB, name string) *Mapping {
	t.Helper()
	m, err := Preset(name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestImportSharedData(t *testing.T) {
	for _, c := range []struct {
		preset string
		rows   int64
	}{{"fraud-handbook", 1303778}, {"online-retail", 431673}} {
		t.Run(c.preset, func(t *testing.T) {
			file := testkit.SharedData(t, c.preset+"/transactions.csv.gz")
			out := filepath.Join(t.TempDir(), "out")
			m, err := Import(context.Background(), ImportOptions{Mapping: preset(t, c.preset), Files: []string{file}, Out: out, MaxRejects: 0.001})
			if err != nil {
				t.Fatal(err)
			}
			if m.Rows != c.rows {
				t.Errorf("%d rows, want %d: %v", m.Rows, c.rows, m.Counts)
			}
			d, err := Open(out)
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Verify(context.Background()); err != nil {
				t.Fatal(err)
			}
		})
	}
}

const handbookHeader = "TRANSACTION_ID,TX_DATETIME,CUSTOMER_ID,TERMINAL_ID,TX_AMOUNT,TX_FRAUD\n"

// handbookRow is one row of a card export: purchase id at minute minute of 2018-04-01.
func handbookRow(id, minute int) string {
	return fmt.Sprintf("%d,2018-04-01 %02d:%02d:00,%d,7,%d.5,0\n", id, minute/60, minute%60, id%5, id)
}

// importText imports files given by their contents and returns the error's text with the folder cut out.
func importText(t *testing.T, ctx context.Context, dir, presetName string, maxRejects float64, files ...string) (*Manifest, string) {
	t.Helper()
	o := ImportOptions{Mapping: preset(t, presetName), Format: CSV, Out: filepath.Join(dir, "out"), MaxRejects: maxRejects}
	for i, text := range files {
		o.Files = append(o.Files, testkit.WriteFile(t, t.TempDir(), fmt.Sprintf("in%d", i), text))
	}
	m, err := Import(ctx, o)
	if err == nil {
		return m, ""
	}
	text := err.Error()
	for i, f := range o.Files {
		text = strings.ReplaceAll(text, f, fmt.Sprintf("in%d", i))
	}
	return m, strings.ReplaceAll(text, dir, "DIR")
}

func gz(t testing.TB, text string) string {
	t.Helper()
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.String()
}

func rowsOf(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(handbookRow(i, i%1440))
	}
	return b.String()
}

// Each kind of bad input: a message with place and remedy, and nothing half-made.
func TestImportRefuses(t *testing.T) {
	whole := gz(t, handbookHeader+rowsOf(50_000))
	utf16 := "\xff\xfeT\x00R\x00\n\x00"
	for _, c := range []struct {
		name  string
		files []string
		want  string   // regular expression
		left  []string // beside out
	}{
		{"empty file", []string{""}, `^import: in0 is empty: want a header line and rows$`, nil},
		{"only a header", []string{handbookHeader}, `^import: in0 has a header and no rows$`, nil},
		{"empty gz", []string{gz(t, "")}, `^import: in0 is empty: `, nil},
		{"truncated gz", []string{whole[:len(whole)/2]}, `^import: in0 is cut off: it ends in the middle of its compressed data, after \d{4,} rows \(line \d{4,}\): get the file again: `, nil},
		{"truncated gz header", []string{whole[:5]}, `^import: in0 is cut off: it ends in the header`, nil},
		{"damaged gz", []string{whole[:len(whole)-8] + "xxxxxxxx"}, `^import: read in0 after 50000 rows \(line 50002\): in0: uncompress: gzip: invalid checksum$`, nil},
		{"second file cut off", []string{handbookHeader + handbookRow(0, 0), whole[:5000]}, `in1 is cut off`, nil},
		{"wrong delimiter", []string{strings.ReplaceAll(handbookHeader+handbookRow(0, 0), ",", ";")}, `^import: in0:1: no column TRANSACTION_ID: the fields seem to be separated by ';', not ',': .*--delimiter ";"; the header is: TRANSACTION_ID;TX_`, nil},
		{"missing column", []string{strings.Replace(handbookHeader, "TX_AMOUNT", "TX_AMUONT", 1)}, `^import: in0:1: the header lacks TX_AMOUNT \(is it TX_AMUONT\?\), which preset fraud-handbook maps`, nil},
		{"utf-16", []string{utf16}, `is UTF-16: convert it`, nil},
		{"text in a number", []string{handbookHeader + "0,2018-04-01 00:00:00,1,7,much,0\n" + rowsOf(10)}, `^import: 1 of 11 rows cannot be used, more than --max-rejects 0.05 allows; the first is in0:2: TX_AMOUNT: "much" is not a number; they are in DIR/out.rejects.jsonl; nothing was imported$`, []string{"out.rejects.jsonl"}},
		{"duplicate purchases", []string{handbookHeader + rowsOf(10) + handbookRow(3, 700)}, `^import: 1 of 11 rows .*the first is in0:12: trans_id: is a duplicate of line 5; `, []string{"out.rejects.jsonl"}},
		{"duplicate in another file", []string{handbookHeader + rowsOf(10), handbookHeader + handbookRow(3, 700)}, `the first is in1:2: trans_id: is a duplicate of in0:5; `, []string{"out.rejects.jsonl"}},
		{"negative amount", []string{handbookHeader + "0,2018-04-01 00:00:00,1,7,-5,0\n"}, `TX_AMOUNT: "-5" is negative; returns: true in the mapping allows it`, []string{"out.rejects.jsonl"}},
		{"NaN", []string{handbookHeader + "0,2018-04-01 00:00:00,1,7,NaN,0\n"}, `TX_AMOUNT: "NaN" is not a finite number`, []string{"out.rejects.jsonl"}},
		{"hopeless", []string{handbookHeader + strings.Repeat("x\n", 100_000)}, `^import: \d{5} of \d{5} rows cannot be used so far, and reading was stopped, more than`, []string{"out.rejects.jsonl"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			_, got := importText(t, context.Background(), dir, "fraud-handbook", 0.05, c.files...)
			if !regexp.MustCompile(c.want).MatchString(got) {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if left := testkit.Names(t, dir); !slices.Equal(left, c.left) && len(left)+len(c.left) > 0 {
				t.Errorf("left %q, want %q", left, c.left)
			}
		})
	}
}

func TestImportOptionsAreChecked(t *testing.T) {
	dir := t.TempDir()
	file := testkit.WriteFile(t, dir, "tx.csv", handbookHeader+rowsOf(5))
	m := preset(t, "fraud-handbook")
	for _, c := range []struct {
		o    ImportOptions
		want string
	}{
		{ImportOptions{}, "want a mapping"},
		{ImportOptions{Mapping: m, Files: []string{filepath.Join(dir, "none.csv")}, Out: filepath.Join(dir, "out")}, "no such file"},
		{ImportOptions{Mapping: m, Files: []string{dir}, Out: filepath.Join(dir, "out")}, "is a directory"},
		{ImportOptions{Mapping: preset(t, "canonical"), Files: []string{testkit.WriteFile(t, dir, "x.data", "")}, Out: filepath.Join(dir, "out")}, "cannot tell the format"},
		{ImportOptions{Mapping: m, Format: JSONL, Files: []string{testkit.WriteFile(t, dir, "x.jsonl", "\n")}, Out: filepath.Join(dir, "out")}, "is empty"},
		{ImportOptions{Mapping: m, Files: []string{file}, Out: file, Force: true}, "is a file"},
		{ImportOptions{Mapping: m, Files: []string{file}, Out: dir, Force: true}, "onmart did not make it"},
	} {
		if _, err := Import(context.Background(), c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
	o := ImportOptions{Mapping: m, Files: []string{file}, Out: filepath.Join(dir, "out")}
	first, err := Import(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Import(context.Background(), o); !errors.Is(err, atomicdir.ErrExists) {
		t.Errorf("second import: %v", err)
	}
	o.Force = true
	second, err := Import(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	if first.ID != second.ID {
		t.Error("the same rows have another id")
	}
}

func TestImportSortsNumbersAndCounts(t *testing.T) {
	dir := t.TempDir()
	head := "trans_id,trans_datetime,user_id,store_id,amount,line\n"
	a := head + "p,2018-04-01 02:00:00,u,s,1.00005,\nq,2018-04-01 01:00:00,u,s,2,\np,2018-04-01 02:00:00,u,s,3,\nbad\n"
	b := head + "p,2018-04-01 01:00:00,u,s,4,\nr,2018-04-01 02:00:00,u,s,5,7\nr,2018-04-01 02:00:00,u,s,6,\nr,2018-04-01 02:00:00,u,s,6,7\n"
	m, text := importText(t, context.Background(), dir, "canonical", 0.5, a, b)
	if text != "" {
		t.Fatal(text)
	}
	want := map[string]int64{"read": 8, "kept": 6, "rejected": 1, "duplicates": 1, "rounded": 1, "out_of_order": 2}
	if d := cmp.Diff(want, m.Counts); d != "" {
		t.Error(d)
	}
	if len(m.Sources) != 2 || m.Sources[0].Rows != 4 || m.Sources[1].Rows != 4 || len(m.Sources[0].SHA256) != 64 {
		t.Errorf("sources %+v", m.Sources)
	}
	d, err := Open(filepath.Join(dir, "out"))
	if err != nil {
		t.Fatal(err)
	}
	all := collect(t, d, ReadOptions{})
	var rows []string
	for i := range all.N {
		rows = append(rows, showRow(all, i))
	}
	if d := cmp.Diff([]string{
		" trans_id=q line=0 trans_datetime=2018-04-01T01:00:00Z user_id=u store_id=s amount=2",
		" trans_id=p line=2 trans_datetime=2018-04-01T01:00:00Z user_id=u store_id=s amount=4",
		" trans_id=p line=0 trans_datetime=2018-04-01T02:00:00Z user_id=u store_id=s amount=1",
		" trans_id=p line=1 trans_datetime=2018-04-01T02:00:00Z user_id=u store_id=s amount=3",
		" trans_id=r line=7 trans_datetime=2018-04-01T02:00:00Z user_id=u store_id=s amount=5",
		" trans_id=r line=8 trans_datetime=2018-04-01T02:00:00Z user_id=u store_id=s amount=6",
	}, rows); d != "" {
		t.Error(d)
	}
	rejects, err := os.ReadFile(filepath.Join(dir, "out", RejectsFile))
	if err != nil {
		t.Fatal(err)
	}
	got := regexp.MustCompile(`"file":"[^"]*`).ReplaceAllString(string(rejects), `"file":"F`)
	if d := cmp.Diff(`{"file":"F","line":5,"reason":"1 fields, where the header has 6","row":"bad"}
{"file":"F","line":5,"column":"trans_id","reason":"is a duplicate of line 3","row":"{\"trans_id\":\"r\",\"line\":\"7\",\"trans_datetime\":\"2018-04-01T02:00:00Z\",\"user_id\":\"u\",\"store_id\":\"s\",\"amount\":\"6\"}"}
`, got); d != "" {
		t.Error(d)
	}
}

// However the rows are cut into files, compressed or shuffled, the data set is the one that sorting gives.
func TestImportIsIndifferentToFiles(t *testing.T) {
	const n = 3000
	rows := make([]string, n)
	for i := range rows {
		rows[i] = handbookRow(i, i%1440)
	}
	rand.New(rand.NewPCG(1, 1)).Shuffle(n, func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	text := strings.Join(rows, "")
	var zst bytes.Buffer
	w, err := zstd.NewWriter(&zst)
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(w, handbookHeader+text)
	w.Close()
	half := strings.Index(text[len(text)/2:], "\n") + len(text)/2 + 1
	var ids []string
	for _, files := range [][]string{
		{handbookHeader + text}, {gz(t, handbookHeader+text)}, {zst.String()},
		{handbookHeader + text[:half], gz(t, handbookHeader+text[half:])},
		{gz(t, handbookHeader+text[:half]) + gz(t, text[half:])}, // two members
	} {
		dir := t.TempDir()
		m, fault := importText(t, context.Background(), dir, "fraud-handbook", 0, files...)
		if fault != "" {
			t.Fatal(fault)
		}
		ids = append(ids, m.ID)
		d, err := Open(filepath.Join(dir, "out"))
		if err != nil {
			t.Fatal(err)
		}
		// The oracle: the same rows sorted by the time's text.
		want := slices.Clone(rows)
		slices.SortStableFunc(want, func(a, b string) int { return strings.Compare(strings.Split(a, ",")[1], strings.Split(b, ",")[1]) })
		all := collect(t, d, ReadOptions{})
		for i, r := range want {
			if got := FormatValue(&all.Schema.Fields[0], &all.Columns[0], i); got != strings.Split(r, ",")[0] {
				t.Fatalf("row %d is %s, want %s", i, got, r)
			}
		}
	}
	if len(slices.Compact(ids)) != 1 {
		t.Errorf("ids %v", ids)
	}
}

func TestImportStdin(t *testing.T) {
	dir := t.TempDir()
	f, err := os.Open(testkit.WriteFile(t, dir, "in", handbookHeader+rowsOf(10)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	stdin := os.Stdin
	os.Stdin = f
	defer func() { os.Stdin = stdin }()
	m, err := Import(context.Background(), ImportOptions{Mapping: preset(t, "fraud-handbook"), Files: []string{"-"}, Out: filepath.Join(dir, "out")})
	if err != nil || m.Rows != 10 {
		t.Errorf("%+v, %v", m, err)
	}
}

// Cancelled before the first read, during each, and between reading and writing: nothing is left.
func TestImportCancelled(t *testing.T) {
	text := handbookHeader + rowsOf(30_000)
	for stop := range 12 {
		dir := t.TempDir()
		ctx, cancel := context.WithCancel(context.Background())
		calls := 0
		if stop == 0 {
			cancel()
		}
		o := ImportOptions{Mapping: preset(t, "fraud-handbook"), Format: CSV, Out: filepath.Join(dir, "a", "out"), Files: []string{testkit.WriteFile(t, t.TempDir(), "in", text)},
			Progress: func(_, _, _ int64) {
				if calls++; calls == stop {
					cancel()
				}
			}}
		_, err := Import(ctx, o)
		cancel()
		if err == nil && calls >= stop {
			t.Errorf("stopped at call %d of %d and went through", stop, calls)
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("stop %d: %v", stop, err)
		}
		if left := testkit.Names(t, dir); err != nil && len(left) > 0 {
			t.Errorf("stop %d: left %q", stop, left)
		}
	}
}

// A source that never ends its line does not hold a cancelled import.
func TestImportCancelledWhileWaiting(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	stdin := os.Stdin
	os.Stdin = r
	defer func() { os.Stdin = stdin }()
	ctx, cancel := context.WithCancel(context.Background())
	dir := t.TempDir()
	done := make(chan error)
	go func() {
		_, err := Import(ctx, ImportOptions{Mapping: preset(t, "fraud-handbook"), Files: []string{"-"}, Out: filepath.Join(dir, "out")})
		done <- err
	}()
	io.WriteString(w, handbookHeader+rowsOf(3))
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if left := testkit.Names(t, dir); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}
