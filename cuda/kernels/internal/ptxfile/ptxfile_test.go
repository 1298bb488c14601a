package ptxfile

import (
	"slices"
	"strings"
	"testing"
	"testing/fstest"
)

func folder(files map[string]string) fstest.MapFS {
	m := fstest.MapFS{}
	for name, text := range files {
		m[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return m
}

func sources(t *testing.T, files map[string]string) Sources {
	t.Helper()
	s, err := Read(folder(files))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// compile stands for the compiler: current PTX of every kernel.
func compile(s Sources) fstest.MapFS {
	m := fstest.MapFS{}
	for _, k := range s.Kernels {
		m[k.Module()+".ptx"] = &fstest.MapFile{Data: []byte(s.Head(k) + ".version 7.8\n")}
	}
	return m
}

func TestRead(t *testing.T) {
	s := sources(t, map[string]string{"b.cu": "b", "a.cu": "a", "z.cuh": "z", "y.cuh": "y", "x.go": "x", "ptx/q.cu": "q"})
	var names []string
	for _, f := range append(s.Kernels, s.Headers...) {
		names = append(names, f.Name+"="+string(f.Text))
	}
	if want := []string{"a.cu=a", "b.cu=b", "y.cuh=y", "z.cuh=z"}; !slices.Equal(names, want) {
		t.Errorf("read %v, want %v", names, want)
	}
	if _, err := Read(folder(map[string]string{"a.cuh": "a"})); err == nil || !strings.Contains(err.Error(), "no .cu file") {
		t.Errorf("a folder without kernels: %v", err)
	}
	if _, err := Read(folder(map[string]string{"a.cu": "a\x00b"})); err == nil || !strings.Contains(err.Error(), "a.cu has a zero byte") {
		t.Errorf("a zero byte: %v", err)
	}
}

// What was made from the sources is current; every change that could change the PTX is seen, and no other.
func TestFaults(t *testing.T) {
	old := map[string]string{"a.cu": "kernel a", "b.cu": "kernel b", "h.cuh": "header", "ops.go": "package kernels"}
	ptx := compile(sources(t, old))
	for _, c := range []struct {
		about  string
		change func(files map[string]string)
		want   []string // beginnings
	}{
		{"nothing", func(map[string]string) {}, nil},
		{"a Go file", func(f map[string]string) { f["ops.go"] += "\n" }, nil},
		{"one kernel", func(f map[string]string) { f["a.cu"] += " " }, []string{"a.ptx is out of date"}},
		{"a header", func(f map[string]string) { f["h.cuh"] += " " }, []string{"a.ptx is out of date", "b.ptx is out of date"}},
		{"a header's name", func(f map[string]string) { f["i.cuh"] = f["h.cuh"]; delete(f, "h.cuh") }, []string{"a.ptx is out of date", "b.ptx is out of date"}},
		{"a new header", func(f map[string]string) { f["i.cuh"] = "" }, []string{"a.ptx is out of date", "b.ptx is out of date"}},
		{"text moved between files", func(f map[string]string) { f["a.cu"] += "header"; f["h.cuh"] = "" }, []string{"a.ptx is out of date", "b.ptx is out of date"}},
		{"a new kernel", func(f map[string]string) { f["c.cu"] = "kernel c" }, []string{"c.ptx is missing"}},
		{"a kernel that went", func(f map[string]string) { delete(f, "b.cu") }, []string{"b.ptx is left over"}},
		{"a kernel under another name", func(f map[string]string) { f["c.cu"] = f["b.cu"]; delete(f, "b.cu") }, []string{"c.ptx is missing", "b.ptx is left over"}},
	} {
		files := map[string]string{}
		for name, text := range old {
			files[name] = text
		}
		c.change(files)
		got := sources(t, files).Faults(ptx)
		if !slices.EqualFunc(got, c.want, strings.HasPrefix) {
			t.Errorf("%s: %q, want %q", c.about, got, c.want)
		}
		for _, fault := range got {
			if !strings.Contains(fault, "go generate ./cuda/...") {
				t.Errorf("%s: %q does not say what to do", c.about, fault)
			}
		}
	}
}

func TestPTXWithoutHeadIsOutOfDate(t *testing.T) {
	s := sources(t, map[string]string{"a.cu": "kernel a"})
	for _, text := range []string{"", ".version 7.8\n", digestMark + "12", s.Head(s.Kernels[0])[1:]} {
		if got := s.Faults(folder(map[string]string{"a.ptx": text})); len(got) != 1 || !strings.HasPrefix(got[0], "a.ptx is out of date") {
			t.Errorf("%q: %q", text, got)
		}
	}
}
