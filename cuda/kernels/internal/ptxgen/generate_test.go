//go:build linux && amd64 && !nocuda

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/cuda/kernels/internal/ptxfile"
)

// compilerHere gives the tools of this machine, and skips the test where there are none: tests download nothing.
func compilerHere(t *testing.T) *toolbox {
	t.Helper()
	tools := &toolbox{override: os.Getenv(toolsVariable), log: &bytes.Buffer{}}
	if tools.override == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Skip(err)
		}
		tools.override = filepath.Join(cache, "onmart", nvrtc11.folder)
	}
	if _, missing := locate(tools.override, nvrtc11); missing != "" {
		t.Skipf("%s has no %s: go generate ./cuda/... gets it", tools.override, missing)
	}
	return tools
}

const kernel = `#include "scale.cuh"
extern "C" __global__ void __launch_bounds__(128) scaled(float* y, const float* x, int n) {
  int i = blockIdx.x * 128 + threadIdx.x;
  if (i < n) y[i] = scale(x[i]);
}
`

const header = "__device__ inline float scale(float x) { return x * 3.0f + 1.0f; }\n"

func TestGenerate(t *testing.T) {
	tools := compilerHere(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.cu"), kernel)
	write(t, filepath.Join(dir, "b.cu"), kernel)
	write(t, filepath.Join(dir, "scale.cuh"), header)
	write(t, filepath.Join(dir, "ptx", "gone.ptx"), "left over")
	write(t, filepath.Join(dir, "ptx", "README"), "stays")
	var log bytes.Buffer
	if err := generate(dir, tools, &log); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "2 PTX files compiled") || !strings.Contains(log.String(), "gone.ptx removed") {
		t.Errorf("log: %s", &log)
	}
	sources, err := ptxfile.Read(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	if faults := sources.Faults(os.DirFS(filepath.Join(dir, "ptx"))); len(faults) > 0 {
		t.Errorf("what was just made: %q", faults)
	}
	if _, err := os.Stat(filepath.Join(dir, "ptx", "README")); err != nil {
		t.Error(err)
	}
	first := read(t, filepath.Join(dir, "ptx", "a.ptx"))
	for _, want := range []string{".version 7.8", ".target sm_75", ".entry scaled(", ".maxntid 128"} {
		if !strings.Contains(first, want) {
			t.Errorf("PTX lacks %q", want)
		}
	}
	if strings.Contains(first, "fma.rn") || !strings.Contains(first, "mul.f32") && !strings.Contains(first, "mul.rn.f32") {
		t.Errorf("x * 3 + 1 was contracted:\n%s", first)
	}
	if strings.Contains(first, dir) {
		t.Error("the PTX names the folder it was made in")
	}

	// Text changed below a head that is current is made right again, byte for byte.
	write(t, filepath.Join(dir, "ptx", "a.ptx"), first+"// changed\n")
	if err := generate(dir, tools, &log); err != nil {
		t.Fatal(err)
	}
	if read(t, filepath.Join(dir, "ptx", "a.ptx")) != first {
		t.Error("two runs made different PTX")
	}
}

// An error names file and line, of headers too, and leaves the old PTX as it was.
func TestGenerateFaults(t *testing.T) {
	tools := compilerHere(t)
	for _, c := range []struct {
		about, kernel, header string
		want                  string
	}{
		{"in the kernel", strings.Replace(kernel, "scale(x[i])", "scale(x[i]) + unknown", 1), header, "b.cu(4): error: identifier \"unknown\" is undefined"},
		{"in the header", kernel, "\n" + strings.Replace(header, "1.0f", "unknown", 1), "scale.cuh(2): error: identifier \"unknown\" is undefined"},
		{"a header of the machine's", "#include <stdio.h>\n" + kernel, header, "b.cu(1): catastrophic error: could not open source file \"stdio.h\""},
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "a.cu"), strings.ReplaceAll(kernel, "scaled", "first"))
		write(t, filepath.Join(dir, "b.cu"), c.kernel)
		write(t, filepath.Join(dir, "scale.cuh"), c.header)
		write(t, filepath.Join(dir, "ptx", "a.ptx"), "old")
		err := generate(dir, tools, &bytes.Buffer{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.about, err, c.want)
		}
		if text := read(t, filepath.Join(dir, "ptx", "a.ptx")); text != "old" {
			t.Errorf("%s: a failed run wrote %q", c.about, text)
		}
	}
}

func TestDiffering(t *testing.T) {
	const ptx = ".version 7.8\n\n\t// .globl\ta\n.entry a() { one; }\n\t// .globl\tb\n.entry b() { two; }\n"
	for _, c := range []struct {
		other string
		want  []string
	}{
		{ptx, nil},
		{strings.Replace(ptx, "one", "1", 1), []string{"a"}},
		{strings.NewReplacer("one", "1", "two", "2").Replace(ptx), []string{"a", "b"}},
		{strings.Replace(ptx, "7.8", "7.7", 1), []string{"the head"}},
		{ptx + "\n\t// .globl\tc\n.entry c() { }\n", []string{"c"}},
		{strings.Replace(ptx, "globl\ta", "globl\tz", 1), []string{"a", "z"}},
	} {
		if got := differing(ptx, c.other); !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, want %q", c.other, got, c.want)
		}
	}
}

// PTX that wavers is refused, and only the kernel files that waver are named.
func TestCompileAllRefusesWavering(t *testing.T) {
	sources := ptxfile.Sources{Kernels: []ptxfile.File{{Name: "steady.cu"}, {Name: "wavering.cu"}, {Name: "failing.cu"}}}
	calls := 0
	_, err := compileAll(func(k ptxfile.File, _ []ptxfile.File, _ []string) ([]byte, string, error) {
		calls++
		switch k.Name {
		case "steady.cu":
			return []byte("\n\t// .globl\tsteady\n{ }"), "", nil
		case "wavering.cu":
			return fmt.Appendf(nil, "\n\t// .globl\tfirm\n{ }\n\t// .globl\tshaky\n{ %d }", calls), "", nil
		}
		return nil, "", errors.New("wrong")
	}, sources, &bytes.Buffer{})
	if err == nil || !strings.HasPrefix(err.Error(), "wavering.cu: two compilations made different PTX of shaky: write") || !strings.HasSuffix(err.Error(), "\nfailing.cu: wrong") {
		t.Errorf("%v", err)
	}
}

func TestWarningsAreShown(t *testing.T) {
	tools := compilerHere(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "a.cu"), strings.Replace(kernel, "int i", "int unused; int i", 1))
	write(t, filepath.Join(dir, "scale.cuh"), header)
	var log bytes.Buffer
	if err := generate(dir, tools, &log); err != nil || !strings.Contains(log.String(), "a.cu(3): warning") {
		t.Errorf("%v, log: %s", err, &log)
	}
}

func TestNoNVRTC(t *testing.T) {
	dir := t.TempDir()
	for _, want := range nvrtc11.wanted {
		write(t, filepath.Join(dir, filepath.Base(want)), "no library")
	}
	write(t, filepath.Join(dir, "a.cu"), kernel)
	err := generate(dir, &toolbox{override: dir, log: &bytes.Buffer{}}, &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "open NVRTC's builtins") {
		t.Errorf("%v", err)
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
