//go:build linux

package atomicdir

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/onmart/onmart/internal/testkit"
)

// write makes a directory with one part and the manifest text.
func write(t *testing.T, final, text string, force bool) error {
	t.Helper()
	d, err := Create(final, force)
	if err != nil {
		return err
	}
	defer d.Abort()
	f, err := d.Create("parts/0.parquet")
	if err != nil {
		return err
	}
	f.WriteString("part of " + text)
	f.Close()
	return d.Commit(ManifestName, []byte(text))
}

// want checks that final holds text and that its folder holds final alone.
func want(t *testing.T, final, text string) {
	t.Helper()
	got, err := os.ReadFile(filepath.Join(final, ManifestName))
	if err != nil || string(got) != text {
		t.Errorf("manifest is %q (%v), want %q", got, err, text)
	}
	part, _ := os.ReadFile(filepath.Join(final, "parts", "0.parquet"))
	if string(part) != "part of "+text {
		t.Errorf("part is %q", part)
	}
	if names := testkit.Names(t, filepath.Dir(final)); !slices.Equal(names, []string{filepath.Base(final)}) {
		t.Errorf("left beside it: %q", names)
	}
}

func TestDirectoryAppearsWhole(t *testing.T) {
	root := t.TempDir()
	final := filepath.Join(root, "out")
	d, err := Create(final, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.Path("a"), []byte("x"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(final); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("visible before Commit: %v", err)
	}
	if err := d.Commit(ManifestName, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	d.Abort()
	d.Abort()
	if names := testkit.Names(t, final); !slices.Equal(names, []string{"a", ManifestName}) {
		t.Errorf("got %q", names)
	}
	if err := d.Commit(ManifestName, nil); err == nil {
		t.Error("a second Commit went through")
	}
}

func TestAbortLeavesNothing(t *testing.T) {
	root := t.TempDir()
	d, err := Create(filepath.Join(root, "a", "b", "out"), false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Create("x/y/z"); err != nil {
		t.Fatal(err)
	}
	d.Abort()
	if names := testkit.Names(t, root); len(names) != 0 {
		t.Errorf("left %q", names)
	}
	if err := d.Commit(ManifestName, nil); err == nil {
		t.Error("Commit after Abort went through")
	}
}

func TestExistingNeedsForce(t *testing.T) {
	final := filepath.Join(t.TempDir(), "out")
	if err := write(t, final, "one", false); err != nil {
		t.Fatal(err)
	}
	err := write(t, final, "two", false)
	if !errors.Is(err, ErrExists) || !strings.Contains(err.Error(), "--force") {
		t.Errorf("got %v", err)
	}
	want(t, final, "one")
	if err := write(t, final, "two", true); err != nil {
		t.Fatal(err)
	}
	want(t, final, "two")
}

func TestForceKeepsWhatOnmartDidNotMake(t *testing.T) {
	root := t.TempDir()
	testkit.WriteFile(t, root, "home/letter.txt", "dear")
	if _, err := Create(filepath.Join(root, "home"), true); err == nil || !strings.Contains(err.Error(), "remove it yourself") {
		t.Errorf("directory without a manifest: %v", err)
	}
	if _, err := Create(filepath.Join(root, "home", "letter.txt"), true); err == nil {
		t.Error("replaced a file by a directory")
	}
	if _, err := CreateFile(filepath.Join(root, "home"), true); err == nil {
		t.Error("replaced a directory by a file")
	}
	if _, err := Create("", true); err == nil {
		t.Error("took an empty name")
	}
	if err := os.Mkdir(filepath.Join(root, "empty"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := write(t, filepath.Join(root, "empty"), "one", true); err != nil {
		t.Errorf("empty directory: %v", err)
	}
}

// Two runs that write one name: the second to finish is refused, and the first one's output stands.
func TestSecondWriterIsRefused(t *testing.T) {
	final := filepath.Join(t.TempDir(), "out")
	slow, err := Create(final, false)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Abort()
	if err := write(t, final, "first", false); err != nil {
		t.Fatal(err)
	}
	if err := slow.Commit(ManifestName, []byte("slow")); !errors.Is(err, ErrExists) {
		t.Errorf("got %v", err)
	}
	slow.Abort()
	want(t, final, "first")
	// And where it appears after the check, between the last look and the rename.
	if err := renameNew(testkit.WriteFile(t, t.TempDir(), "x", ""), final); err == nil {
		t.Error("renamed over an existing directory")
	}
}

func TestLinkToADirectoryStays(t *testing.T) {
	root := t.TempDir()
	if err := write(t, filepath.Join(root, "real", "out"), "one", false); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(root, "link")
	if err := os.Symlink(filepath.Join(root, "real", "out"), link); err != nil {
		t.Fatal(err)
	}
	if err := write(t, link, "two", true); err != nil {
		t.Fatal(err)
	}
	want(t, filepath.Join(root, "real", "out"), "two")
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is gone: %v %v", info, err)
	}
}

// The swap of file systems without an exchange, whole and cut in the middle.
func TestMoveAside(t *testing.T) {
	final := filepath.Join(t.TempDir(), "out")
	if err := write(t, final, "one", false); err != nil {
		t.Fatal(err)
	}
	d, err := Create(final, true)
	if err != nil {
		t.Fatal(err)
	}
	testkit.WriteFile(t, d.temp, "parts/0.parquet", "part of two")
	testkit.WriteFile(t, d.temp, ManifestName, "two")
	if err := d.moveAside(); err != nil {
		t.Fatal(err)
	}
	want(t, final, "two")
	d.done = true
	d.lock.Close() // the writer dies, and its lock with it

	if err := os.Rename(final, sibling(final, oldKind)); err != nil { // died between the two renames
		t.Fatal(err)
	}
	if err := write(t, final, "three", false); !errors.Is(err, ErrExists) {
		t.Errorf("after recovery the old one must be there: %v", err)
	}
	want(t, final, "two")

	if err := os.CopyFS(sibling(final, oldKind), os.DirFS(final)); err != nil { // died before the removal
		t.Fatal(err)
	}
	if err := write(t, final, "three", true); err != nil {
		t.Fatal(err)
	}
	want(t, final, "three")
}

func TestSingleFile(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "sub", "report.html")
	if err := WriteFile(path, []byte("one"), false); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(path, []byte("two"), false); !errors.Is(err, ErrExists) {
		t.Errorf("got %v", err)
	}
	if err := WriteFile(path, []byte("three"), true); err != nil {
		t.Fatal(err)
	}
	f, err := CreateFile(filepath.Join(root, "new", "x"), false)
	if err != nil {
		t.Fatal(err)
	}
	f.WriteString("half")
	f.Abort()
	got, _ := os.ReadFile(path)
	if string(got) != "three" {
		t.Errorf("got %q", got)
	}
	if names := append(testkit.Names(t, root), testkit.Names(t, filepath.Dir(path))...); !slices.Equal(names, []string{"sub", "report.html"}) {
		t.Errorf("left %q", names)
	}
}

func TestNamesStayInside(t *testing.T) {
	d, err := Create(filepath.Join(t.TempDir(), "out"), false)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Abort()
	for _, name := range []string{"../x", "/etc/x", "a/../../x", ""} {
		if f, err := d.Create(name); err == nil {
			f.Close()
			t.Errorf("created %q", name)
		}
	}
}

// child runs this test binary again as a writer of the given mode; see TestMain.
func child(t *testing.T, mode, final string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), "ATOMICDIR_CHILD="+mode, "ATOMICDIR_FINAL="+final)
	return cmd
}

func TestMain(m *testing.M) {
	mode, final := os.Getenv("ATOMICDIR_CHILD"), os.Getenv("ATOMICDIR_FINAL")
	if mode == "" {
		os.Exit(m.Run())
	}
	if err := childWrite(mode, final); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

func childWrite(mode, final string) error {
	switch mode {
	case "limit": // a file may not pass 64 KiB
		signal.Ignore(syscall.SIGXFSZ)
		if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 64 << 10, Max: 64 << 10}); err != nil {
			return err
		}
	case "tmpfs": // a file system of 64 KiB over the folder of final, in a mount namespace of our own
		if err := unix.Mount("tmpfs", filepath.Dir(final), "tmpfs", 0, "size=64k"); err != nil {
			return fmt.Errorf("cannot mount: %w", err)
		}
	}
	d, err := Create(final, true)
	if err != nil {
		return err
	}
	defer d.Abort()
	if mode == "hang" {
		if _, err := d.Create("half"); err != nil {
			return err
		}
		fmt.Println("writing")
		time.Sleep(time.Hour)
	}
	f, err := d.Create("part")
	if err != nil {
		return err
	}
	for range 100 {
		if _, err = f.Write(bytes.Repeat([]byte("x"), 4096)); err != nil {
			break
		}
	}
	err = d.Err(errors.Join(err, f.Close()))
	d.Abort()
	for _, name := range leftIn(filepath.Dir(final)) {
		fmt.Println("left:", name)
	}
	return err
}

func leftIn(dir string) (names []string) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestKilledWriterIsCleanedUpAndALiveOneIsNot(t *testing.T) {
	final := filepath.Join(t.TempDir(), "out")
	cmd := child(t, "hang", final)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 8)); err != nil {
		t.Fatal(err)
	}
	if err := write(t, final, "one", false); err != nil {
		t.Fatal(err)
	}
	if temps := siblings(final, tempKind); len(temps) != 1 {
		t.Errorf("the living writer's temporary: %q", temps)
	}
	cmd.Process.Kill()
	cmd.Wait()
	if err := write(t, final, "two", true); err != nil {
		t.Fatal(err)
	}
	want(t, final, "two")
}

func TestFileSizeLimitLeavesNothing(t *testing.T) {
	final := filepath.Join(t.TempDir(), "out")
	full(t, child(t, "limit", final), final)
}

func TestFullDiskLeavesNothing(t *testing.T) {
	final := filepath.Join(t.TempDir(), "out")
	cmd := child(t, "tmpfs", final)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}}
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	}
	full(t, cmd, final)
}

func full(t *testing.T, cmd *exec.Cmd, final string) {
	t.Helper()
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("the child wrote more than there is room for:\n%s", out)
	}
	if _, ran := errors.AsType[*exec.ExitError](err); !ran || bytes.Contains(out, []byte("cannot mount")) {
		t.Skipf("no mount namespace here (%v %s); the file-size limit covers the path", err, out)
	}
	msg := string(out)
	for _, part := range []string{"no space left on device: ", final + " needs more than the ", "free some space"} {
		if !strings.Contains(msg, part) {
			t.Errorf("no %q in %q", part, msg)
		}
	}
	if strings.Contains(msg, "left:") {
		t.Error(msg)
	}
	if names := testkit.Names(t, filepath.Dir(final)); len(names) != 0 {
		t.Errorf("left %q", names)
	}
}

func TestFullDeviceInASingleFile(t *testing.T) {
	dev, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer dev.Close()
	root := t.TempDir()
	f, err := CreateFile(filepath.Join(root, "x"), false)
	if err != nil {
		t.Fatal(err)
	}
	_, werr := dev.Write([]byte("x"))
	if err := f.Err(werr); !isFull(err) || !strings.Contains(err.Error(), "no space left on device: "+f.Final()+" needs more") {
		t.Errorf("got %v", err)
	}
	f.Abort()
	if names := testkit.Names(t, root); len(names) != 0 {
		t.Errorf("left %q", names)
	}
	if f.Err(nil) != nil || f.Err(os.ErrClosed) != os.ErrClosed {
		t.Error("other errors must pass through")
	}
}
