package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

func TestCommandLine(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"assemble"}, `no command "assemble"`},
		{[]string{"check", "a.ptx"}, `check takes no argument "a.ptx"`},
		{[]string{"-unknown"}, "-unknown"},
		{[]string{"-dir", t.TempDir()}, "no .cu file"},
		{[]string{"check", "-dir", t.TempDir()}, "no .cu file"},
	} {
		if err := run(c.args, &bytes.Buffer{}, &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.args, err, c.want)
		}
	}
}

func TestKernelsFolder(t *testing.T) {
	root := t.TempDir()
	write(t, filepath.Join(root, "go.mod"), "module m\n")
	write(t, filepath.Join(root, "a", "b", "file"), "")
	t.Chdir(filepath.Join(root, "a", "b"))
	got, err := kernelsFolder()
	if err != nil || !strings.HasSuffix(got, filepath.Join(filepath.Base(root), "cuda", "kernels")) {
		t.Errorf("%q %v", got, err)
	}
}
