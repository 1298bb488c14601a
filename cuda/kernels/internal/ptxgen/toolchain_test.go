package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// testWheel is a wheel with one tool in it, and its bytes.
func testWheel(t *testing.T) (wheel, []byte) {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for name, text := range map[string]string{"nvidia/tool/bin/tool": "#!/bin/sh\n", "nvidia/tool/other": "unwanted"} {
		f, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return wheel{requirement: "tool==1", file: "tool-1.whl", sha256: fmt.Sprintf("%x", sha256.Sum256(b.Bytes())), size: "1 kB",
		folder: "cuda-1", wanted: []string{"nvidia/tool/bin/tool"}}, b.Bytes()
}

// onlyPython makes a python3 of that script the only program on the path beside the shell's, and an empty cache; it returns
// the cache's folder of a wheel.
func onlyPython(t *testing.T, script string, w wheel) string {
	t.Helper()
	bin := t.TempDir()
	if script != "" {
		write(t, filepath.Join(bin, "python3"), "#!/bin/sh\n"+script)
	}
	t.Setenv("PATH", bin)
	t.Setenv("HOME", t.TempDir())
	t.Setenv("XDG_CACHE_HOME", filepath.Join(os.Getenv("HOME"), "cache"))
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(cache, "onmart", w.folder)
}

// servesFile is a python3 whose pip "downloads" a file.
func servesFile(t *testing.T, name string, data []byte) string {
	t.Helper()
	source := filepath.Join(t.TempDir(), "data")
	write(t, source, string(data))
	cp := ""
	for _, at := range []string{"/bin/cp", "/usr/bin/cp"} {
		if _, err := os.Stat(at); err == nil {
			cp = at
		}
	}
	if cp == "" {
		t.Skip("no cp in /bin or /usr/bin")
	}
	return fmt.Sprintf(`while [ $# -gt 0 ]; do
	if [ "$1" = --dest ]; then %s '%s' "$2/%s"; fi
	shift
done
`, cp, source, name)
}

func TestDownload(t *testing.T) {
	w, data := testWheel(t)
	folder := onlyPython(t, servesFile(t, w.file, data), w)
	var log bytes.Buffer
	tools := &toolbox{log: &log}
	for range 2 { // the second finds it in the cache
		paths, err := tools.find(w)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(paths[0])
		if err != nil || paths[0] != filepath.Join(folder, "tool") || info.Mode().Perm()&0o100 == 0 {
			t.Fatalf("%v: %v %v", paths, info, err)
		}
	}
	if n := strings.Count(log.String(), "downloading tool==1 (1 kB)"); n != 1 {
		t.Errorf("%d downloads:\n%s", n, &log)
	}
	entries, err := os.ReadDir(folder)
	if err != nil || len(entries) != 1 {
		t.Errorf("the cache holds %v %v, want the tool alone", entries, err)
	}
}

// Every fault is an error that says what to do, and leaves nothing in the cache.
func TestDownloadFaults(t *testing.T) {
	w, data := testWheel(t)
	tampered := bytes.Clone(data)
	tampered[len(tampered)/2] ^= 1
	lacking := w
	lacking.wanted = []string{"nvidia/tool/bin/absent"}
	for _, c := range []struct {
		about, python string
		wheel         wheel
		want          []string
	}{
		{"no python", "", w, []string{"download of tool==1", "python3", "install it", toolsVariable}},
		{"neither pip nor venv", "echo No module named \"$2\" >&2; exit 1", w, []string{"neither pip nor venv", "python3-pip", "No module named venv"}},
		{"no network", "[ \"$3\" = --version ] && exit 0; echo 'Could not find a version' >&2; exit 1", w, []string{
			"pip download", "Could not find a version", "network", "tool-1.whl", toolsVariable}},
		{"wrong hash", servesFile(t, w.file, tampered), w, []string{"tool-1.whl is not the file that was pinned", w.sha256, "nothing of it was used"}},
		{"another file", servesFile(t, "tool-1-arm.whl", data), w, []string{"another file than tool-1.whl"}},
		{"a wheel without the tool", servesFile(t, w.file, data), lacking, []string{"unpack tool-1.whl", "absent"}},
	} {
		folder := onlyPython(t, c.python, c.wheel)
		_, err := (&toolbox{log: &bytes.Buffer{}}).find(c.wheel)
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", c.about, err, want)
			}
		}
		if entries, err := os.ReadDir(folder); err != nil || len(entries) > 0 {
			t.Errorf("%s left %v %v in the cache", c.about, entries, err)
		}
	}
}

// Debian's python3 has venv and no pip: one is made, with a pip in it.
func TestPipOfAVenv(t *testing.T) {
	w, _ := testWheel(t)
	onlyPython(t, "[ \"$2\" = venv ]", w)
	work := t.TempDir()
	pip, err := findPip(work)
	if err != nil || strings.Join(pip, " ") != filepath.Join(work, "venv", "bin", "python")+" -m pip" {
		t.Errorf("%v %v", pip, err)
	}
}

func TestOverride(t *testing.T) {
	for _, layout := range []string{"tool", "nvidia/tool/bin/tool", "bin/tool", "lib64/tool", "cuda-1/tool"} {
		w, _ := testWheel(t)
		onlyPython(t, "", w)
		dir := t.TempDir()
		write(t, filepath.Join(dir, layout), "x")
		paths, err := (&toolbox{override: dir, log: &bytes.Buffer{}}).find(w)
		if err != nil || len(paths) != 1 || paths[0] != filepath.Join(dir, layout) {
			t.Errorf("%s: %v %v", layout, paths, err)
		}
	}
	w, _ := testWheel(t)
	dir := t.TempDir()
	_, err := (&toolbox{override: dir, log: &bytes.Buffer{}}).find(w) // never a download where a folder was named
	if err == nil || !strings.Contains(err.Error(), toolsVariable+"="+dir+" has no tool") {
		t.Errorf("%v", err)
	}
}
