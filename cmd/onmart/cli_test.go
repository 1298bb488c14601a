package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/internal/atomicdir"
	"github.com/onmart/onmart/internal/testkit"
)

// TestMain lets the test binary stand in for onmart where a test needs a process of its own.
func TestMain(m *testing.M) {
	if os.Getenv("ONMART_TEST_CHILD") == "" {
		os.Exit(m.Run())
	}
	os.Unsetenv("ONMART_TEST_CHILD")
	if err := limitFiles(os.Getenv("ONMART_TEST_FILE_LIMIT")); err != nil {
		panic(err)
	}
	os.Unsetenv("ONMART_TEST_FILE_LIMIT")
	ctx, stop := interruptible(context.Background(), os.Stderr)
	code := run(ctx, testRoot(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// testRoot is the real tree with two commands that only tests have: one that shows its settings, one that
// writes until it is stopped.
func testRoot() *cobra.Command {
	root := newRoot()
	group := &cobra.Command{Use: "try", Short: "Commands of the tests"}
	show := &cobra.Command{Use: "show", Short: "Show the settings", Args: cobra.NoArgs}
	f := show.Flags()
	f.String("delay", "7d", "a `duration`")
	f.Int("max-rows", 10, "a number")
	f.StringArray("set", nil, "a list")
	f.String("needed", "", "required")
	show.MarkFlagRequired("needed")
	force := addForce(show)
	show.RunE = func(cmd *cobra.Command, _ []string) error {
		delay, _ := f.GetString("delay")
		rows, _ := f.GetInt("max-rows")
		set, _ := f.GetStringArray("set")
		needed, _ := f.GetString("needed")
		switch needed {
		case "fail":
			return errors.New("it broke, here, do that")
		case "usage":
			return usagef("--needed usage is not sensible")
		}
		v := map[string]any{"delay": delay, "max_rows": rows, "set": set, "needed": needed, "force": *force}
		return consoleOf(cmd).result(v, func(w io.Writer) error {
			_, err := fmt.Fprintln(w, delay, rows, set, needed, *force)
			return err
		})
	}
	slow := &cobra.Command{Use: "slow OUT", Short: "Write until stopped", Args: cobra.ExactArgs(1)}
	deaf := slow.Flags().Bool("deaf", false, "do not listen to the context")
	slow.RunE = func(cmd *cobra.Command, args []string) error {
		d, err := atomicdir.Create(args[0], false)
		if err != nil {
			return err
		}
		defer d.Abort()
		if _, err := d.Create("half"); err != nil {
			return err
		}
		fmt.Fprintln(cmd.OutOrStdout(), "writing")
		if *deaf {
			select {}
		}
		<-cmd.Context().Done()
		return cmd.Context().Err()
	}
	group.AddCommand(show, slow, featuresCmd(1, 0)) // features with a checkpoint after every batch
	root.AddCommand(group)
	prepare(group)
	return root
}

// cli runs a command line in a fresh directory and returns what it printed.
func cli(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(context.Background(), testRoot(), args, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func TestExitCodesAndErrors(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, c := range []struct {
		args   string
		code   int
		stderr string // regular expression over all of it
	}{
		{"", 2, `(?s)^Usage:.*\nonmart: name a command \(onmart --help shows how\)\n$`},
		{"devcies", 2, `^onmart: unknown command "devcies", did you mean devices\? \(onmart --help shows how\)\n$`},
		{"try shw", 2, `^onmart try: unknown command "shw", did you mean show\? \(onmart try --help shows how\)\n$`},
		{"try", 2, `(?s)^Usage:.*\nonmart try: name one of features, show, slow .*\n$`},
		{"try show", 2, `^onmart try show: required flag\(s\) "needed" not set .*\n$`},
		{"try show --nedeed x", 2, `^onmart try show: unknown flag: --nedeed, did you mean --needed\? .*\n$`},
		{"try show --needed x --max-rows many", 2, `^onmart try show: invalid argument "many" for "--max-rows" flag: .*\n$`},
		{"try show --needed x extra", 2, `^onmart try show: unknown command "extra".*\n$`},
		{"try show --needed usage", 2, `^onmart try show: --needed usage is not sensible .*\n$`},
		{"try show --needed fail", 1, `^onmart try show: it broke, here, do that\n$`},
		{"try show --needed x", 0, `^$`},
		{"--version", 0, `^$`},
		{"try show --help", 0, `^$`},
	} {
		code, _, stderr := cli(t, strings.Fields(c.args)...)
		if code != c.code || !regexp.MustCompile(c.stderr).MatchString(stderr) {
			t.Errorf("onmart %s: exit %d, want %d; stderr %q, want %s", c.args, code, c.code, stderr, c.stderr)
		}
	}
}

func TestSettingsComeInLayers(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	t.Setenv("ONMART_MAX_ROWS", "30") // the environment wins over a more specific key of the file
	testkit.WriteFile(t, dir, "onmart.yaml", `
delay: 1d          # for every command
try:
  max-rows: 20
  show:
    delay: 2d
    needed: from the file
    set: [a=1, "b=x, y"]
`)
	for _, c := range []struct{ args, want string }{
		{"", `{"delay":"2d","force":false,"max_rows":30,"needed":"from the file","set":["a=1","b=x, y"]}`},
		{"--delay 7d --set c=3", `{"delay":"7d","force":false,"max_rows":30,"needed":"from the file","set":["c=3"]}`},
		{"--max-rows 40 --force", `{"delay":"2d","force":true,"max_rows":40,"needed":"from the file","set":["a=1","b=x, y"]}`},
	} {
		code, stdout, stderr := cli(t, append([]string{"try", "show", "--json"}, strings.Fields(c.args)...)...)
		if code != 0 || stdout != c.want+"\n" || stderr != "" {
			t.Errorf("%s: exit %d, got %s want %s stderr %q", c.args, code, stdout, c.want, stderr)
		}
	}
	t.Setenv("ONMART_TRY_SHOW_MAX_ROWS", "35")
	if _, stdout, _ := cli(t, "try", "show"); stdout != "2d 35 [a=1 b=x, y] from the file false\n" {
		t.Errorf("specific variable: %q", stdout)
	}
	t.Setenv("ONMART_JSON", "true")
	if _, stdout, _ := cli(t, "try", "show"); !json.Valid([]byte(stdout)) {
		t.Errorf("a global flag from the environment: %q", stdout)
	}
}

func TestSettingsFaults(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	for _, c := range []struct{ yaml, want string }{
		{"try:\n  show:\n    dealy: 2d\n", `onmart.yaml:3: unknown setting try.show.dealy, did you mean delay?`},
		{"needed: x\nquiett: true\ntry:\n  shwo:\n    delay: 1d\n", "onmart.yaml:2: unknown setting quiett, did you mean quiet?\nonmart.yaml:4: unknown setting try.shwo, did you mean show?"},
		{"try:\n  slow:\n    max-rows: 2\n", `onmart.yaml:3: unknown setting try.slow.max-rows; it is known as try.max-rows, try.show.max-rows`},
		{"try:\n  show:\n    force: true\n", `onmart.yaml:3: try.show.force is given on the command line only`},
		{"max-rows: many\n", `onmart.yaml:1: max-rows: invalid argument "many" for "--max-rows" flag`},
		{"\nmax-rows: [1, 2]\n", `onmart.yaml:2: max-rows takes one value, not a list`},
		{"max-rows: {a: 1}\n", `onmart.yaml:1: max-rows: expected a value`},
		{"max-rows:\n", `onmart.yaml:1: max-rows: expected a value`},
		{"just text\n", "onmart.yaml:1: expected settings, one `name: value` a line"},
		{"a: [1, 2\n", `onmart.yaml:1:`},
		{"max-rows: 1\nmax-rows: 2\n", `onmart.yaml:2:1: mapping key "max-rows" already defined`},
	} {
		testkit.WriteFile(t, dir, "onmart.yaml", c.yaml)
		code, _, stderr := cli(t, "try", "show", "--needed", "x")
		if code != 2 || !strings.HasPrefix(stderr, "onmart try show: "+c.want) && !strings.Contains(strings.ReplaceAll(stderr, "\n  ", "\n"), c.want) {
			t.Errorf("%q: exit %d, stderr %q, want %q", c.yaml, code, stderr, c.want)
		}
	}
	if code, _, stderr := cli(t, "try", "show", "--needed", "x", "--config", "none.yaml"); code != 2 || !strings.Contains(stderr, "none.yaml") {
		t.Errorf("missing --config: exit %d, %q", code, stderr)
	}
	testkit.WriteFile(t, dir, "onmart.yaml", "# nothing but a comment\n")
	t.Setenv("ONMART_DELYA", "3d")
	if code, _, stderr := cli(t, "try", "show", "--needed", "x"); code != 0 || stderr != "onmart: the variable ONMART_DELYA is no setting and is ignored, did you mean ONMART_DELAY?\n" {
		t.Errorf("misspelt variable: exit %d, %q", code, stderr)
	}
}

// Any text gives settings or errors that name the file, never a panic.
func FuzzParseConfig(f *testing.F) {
	for _, seed := range []string{"", "a: b", "try:\n  show:\n    delay: 2d\n    set: [a, b]\n", "- x", "max-rows: &a 1\nneeded: *a", "? [a]\n: b", "try: {show: {set: [[1]]}}", "{", "a: |\n  b", "<<: {delay: 1d}", "null: 1", "---\n...\n---\ndelay: 1"} {
		f.Add([]byte(seed))
	}
	known := settable(testRoot())
	f.Fuzz(func(t *testing.T, src []byte) {
		found, err := parseConfig("onmart.yaml", src, known)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "onmart.yaml:") {
				t.Errorf("no place in %q", err)
			}
			return
		}
		for key := range found {
			if _, ok := known[key]; !ok {
				t.Errorf("unknown key %q went through", key)
			}
		}
	})
}

// What init writes must load, as it is and with every setting taken out of its comment.
func TestInitWritesSettingsThatLoad(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if code, stdout, stderr := cli(t, "init", "shop"); code != 0 || !strings.Contains(stdout, filepath.Join("shop", "onmart.yaml")) {
		t.Fatalf("exit %d, %q %q", code, stdout, stderr)
	}
	if code, _, stderr := cli(t, "init", "shop"); code != 1 || !strings.Contains(stderr, "--force") {
		t.Errorf("overwrite: exit %d, %q", code, stderr)
	}
	if code, _, _ := cli(t, "init", "shop", "--force"); code != 0 {
		t.Error("--force refused")
	}
	src, err := os.ReadFile(filepath.Join("shop", "onmart.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	known := settable(testRoot())
	if _, err := parseConfig("onmart.yaml", src, known); err != nil {
		t.Error(err)
	}
	live := regexp.MustCompile(`(?m)^( *)#([a-z])`).ReplaceAll(src, []byte("$1$2")) // prose has a space after #
	found, err := parseConfig("onmart.yaml", live, known)
	if err != nil {
		t.Fatalf("%v in\n%s", err, live)
	}
	for _, key := range []string{"json", "try.show.delay", "try.show.set"} {
		if _, ok := found[key]; !ok {
			t.Errorf("%s is missing in\n%s", key, live)
		}
	}
}

func TestCLIReference(t *testing.T) {
	testkit.GoldenFile(t, filepath.Join(testkit.Root(t), "docs", "CLI.md"), cliReference(newRoot()))
}

// A settings key must not be a command's flag and a command at once.
func TestFlagsAndSectionsDoNotClash(t *testing.T) {
	known := settable(newRoot())
	for key := range known {
		for other := range known {
			if strings.HasPrefix(other, key+".") {
				t.Errorf("%s is a setting and %s makes it a section", key, other)
			}
		}
	}
}

func TestTable(t *testing.T) {
	tab := newTable("model", "auc", "note")
	tab.add("Träger", ".874", "best")
	tab.add("b", "-", "")
	tab.add("c", "1,234")
	var out bytes.Buffer
	tab.write(&out)
	want := "model     auc  note\n------  -----  ----\nTräger   .874  best\nb           -\nc       1,234\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
}

func TestQuietSilencesProgress(t *testing.T) {
	var errs bytes.Buffer
	c := &console{err: &errs, quiet: true}
	bar := c.bar("x", 10, "rows")
	bar.Set(5, "")
	bar.Done()
	c.notef("note")
	if errs.Len() != 0 {
		t.Errorf("printed %q", &errs)
	}
}

// child starts the test binary as onmart in dir and waits for its first line.
func child(t *testing.T, dir string, args ...string) (*exec.Cmd, *bufio.Reader) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "ONMART_TEST_CHILD=1")
	errs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	if _, err := io.ReadFull(out, make([]byte, len("writing\n"))); err != nil {
		text, _ := io.ReadAll(errs)
		t.Fatalf("%v: %s", err, text)
	}
	return cmd, bufio.NewReader(errs)
}

func TestCtrlCLeavesNothing(t *testing.T) {
	for _, sig := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		dir := t.TempDir()
		cmd, errs := child(t, dir, "try", "slow", "out")
		cmd.Process.Signal(sig)
		text, _ := io.ReadAll(errs)
		cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != exitFailed || !strings.HasSuffix(string(text), "onmart try slow: interrupted\n") {
			t.Errorf("%v: exit %d, stderr %q", sig, code, text)
		}
		if names := testkit.Names(t, dir); len(names) != 0 {
			t.Errorf("%v left %q", sig, names)
		}
	}
}

func TestSecondCtrlCStopsAtOnce(t *testing.T) {
	dir := t.TempDir()
	cmd, errs := child(t, dir, "try", "slow", "out", "--deaf")
	cmd.Process.Signal(os.Interrupt)
	for { // the first one must be seen before the second is sent
		line, err := errs.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(line, "stopping") {
			break
		}
	}
	time.Sleep(2 * sameSignal) // sooner it would be the same request
	cmd.Process.Signal(os.Interrupt)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitFailed {
		t.Errorf("exit %d", code)
	}
	// What it left is hidden and goes with the next run.
	if names := testkit.Names(t, dir); slices.Contains(names, "out") {
		t.Errorf("half-made output: %q", names)
	}
	if err := makeEmpty(filepath.Join(dir, "out")); err != nil {
		t.Fatal(err)
	}
	if names := testkit.Names(t, dir); !slices.Equal(names, []string{"out"}) {
		t.Errorf("left %q", names)
	}
}

func makeEmpty(final string) error {
	d, err := atomicdir.Create(final, false)
	if err != nil {
		return err
	}
	defer d.Abort()
	return d.Commit(atomicdir.ManifestName, []byte("{}"))
}
