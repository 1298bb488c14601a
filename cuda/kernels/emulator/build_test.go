package emulator

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/onmart/onmart/cuda/kernels"
)

func TestFindKernels(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       []kernel
		fault      string
	}{
		{"none", "int f(int x) { return x; }", nil, ""},
		{"plain", `extern "C" __global__ void a(int x) {}`, []kernel{{"a", nil}}, ""},
		{"bounds after void", `extern "C" __global__ void __launch_bounds__(256) a(int x) {}`, []kernel{{"a", []string{"256"}}}, ""},
		{"bounds before void", `extern "C" __global__ __launch_bounds__(128, 4) void a() {}`, []kernel{{"a", []string{"128", "4"}}}, ""},
		{"over lines", "extern \"C\"\n__global__\nvoid\n__launch_bounds__(\n 2 * (3 + 4),\n max(1, 2))\nab_1\n(int x)\n{\n}\n",
			[]kernel{{"ab_1", []string{"2 * (3 + 4)", "max(1, 2)"}}}, ""},
		{"two", `extern "C" __global__ void a() {} extern "C" __global__ void b() {}`, []kernel{{"a", nil}, {"b", nil}}, ""},
		{"declared first", `extern "C" __global__ void a(); extern "C" __global__ void a() {}`, []kernel{{"a", nil}}, ""},
		{"mangled", `__global__ void a() {}`, nil, `not extern "C"`},
		{"template", `template <int N> __global__ void a() {}`, nil, `not extern "C"`},
		{"nameless", `extern "C" __global__ void (int x);`, nil, "no kernel's name"},
		{"open bounds", `extern "C" __global__ void __launch_bounds__(256 a;`, nil, "__launch_bounds__ without"},
		{"variable", `extern "C" __global__ void *a;`, nil, "no kernel's name"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := findKernels(c.text)
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(kernel{})); diff != "" {
				t.Errorf("kernels (-want +got):\n%s", diff)
			}
			if (c.fault == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), c.fault) {
				t.Errorf("error %v, want %q", err, c.fault)
			}
		})
	}
}

// buildFrom builds in a cache of the test's own.
func buildFrom(t *testing.T, files map[string]string) (string, error) {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	sources := fstest.MapFS{}
	for name, text := range files {
		sources[name] = &fstest.MapFile{Data: []byte(text)}
	}
	path, err := BuildFrom(sources)
	if errors.Is(err, ErrNoCompiler) {
		t.Skip(err)
	}
	return path, err
}

func TestBuildNamesWhatIsWrong(t *testing.T) {
	const good = `extern "C" __global__ void a(int *x) { x[0] = 1; }`
	for _, c := range []struct {
		name  string
		files map[string]string
		want  []string
	}{
		{"no C++", map[string]string{"k.cu": good + "\n\nint f( { }"}, []string{"k.cu:3:", "exit status 1"}},
		{"kernel twice", map[string]string{"j.cu": good, "k.cu": good}, []string{"k.cu: kernel a is in j.cu too"}},
		{"no header", map[string]string{"k.cu": "#include \"gone.cuh\"\n" + good}, []string{"k.cu:1:", "gone.cuh"}},
		{"mangled", map[string]string{"k.cu": "__global__ void a() {}"}, []string{"k.cu: a kernel is not extern"}},
		{"textures", map[string]string{"k.cu": `extern "C" __global__ void a(unsigned *x) { x[0] = __activemask(); }`}, []string{"k.cu:1:", "__activemask"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := buildFrom(t, c.files)
			for _, w := range c.want {
				if err == nil || !strings.Contains(err.Error(), w) {
					t.Errorf("error %v, want %q in it", err, w)
				}
			}
			left, globErr := filepath.Glob(filepath.Join(os.Getenv("XDG_CACHE_HOME"), "onmart", "*.so"))
			if globErr != nil || len(left) != 0 {
				t.Errorf("left in the cache: %v (%v)", left, globErr)
			}
		})
	}
}

// TestBuildIsCached builds from several goroutines at once, which agree, and again, which compiles nothing.
func TestBuildIsCached(t *testing.T) {
	files := map[string]string{"k.cu": `#include "k.cuh"` + "\nextern \"C\" __global__ void a(int *x) { x[0] = VALUE; }", "k.cuh": "#define VALUE 1\n"}
	first, err := buildFrom(t, files)
	if err != nil {
		t.Fatal(err)
	}
	cache := filepath.Dir(first)
	if filepath.Dir(cache) != os.Getenv("XDG_CACHE_HOME") {
		t.Errorf("the library is %s, want it in the cache %s", first, os.Getenv("XDG_CACHE_HOME"))
	}
	before, err := os.Stat(first)
	if err != nil {
		t.Fatal(err)
	}
	sources := fstest.MapFS{}
	for name, text := range files {
		sources[name] = &fstest.MapFile{Data: []byte(text)}
	}
	again, err := BuildFrom(sources)
	if err != nil || again != first {
		t.Fatalf("again: %s, %v, want %s", again, err, first)
	}
	if after, err := os.Stat(first); err != nil || !os.SameFile(before, after) {
		t.Errorf("the library was made again (%v)", err)
	}
	sources["k.cuh"] = &fstest.MapFile{Data: []byte("#define VALUE 2\n")} // a header counts
	paths := make([]string, 3)
	errs := make([]error, 3)
	var wait sync.WaitGroup
	for i := range paths {
		wait.Go(func() { paths[i], errs[i] = BuildFrom(sources) })
	}
	wait.Wait()
	for i, p := range paths {
		if errs[i] != nil || p == first || p != paths[0] {
			t.Errorf("build %d of a changed header: %s, %v", i, p, errs[i])
		}
	}
	made, err := filepath.Glob(filepath.Join(cache, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range made {
		if path != first && path != paths[0] && !strings.HasSuffix(path, ".lock") && !strings.HasSuffix(path, ".o") {
			t.Errorf("left in the cache: %s", path)
		}
	}
}

func TestNoCompiler(t *testing.T) {
	t.Setenv("CXX", filepath.Join(t.TempDir(), "no-such-compiler"))
	_, err := Build()
	if !errors.Is(err, ErrNoCompiler) {
		t.Fatalf("error %v, want ErrNoCompiler", err)
	}
	if want := "install g++"; !strings.Contains(fmt.Sprint(err), want) {
		t.Errorf("error %v does not say what to install", err)
	}
}

// TestKernelsBuild builds the product's kernels.
func TestKernelsBuild(t *testing.T) {
	path, err := Build()
	if errors.Is(err, ErrNoCompiler) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if other, err := BuildFrom(kernels.Sources()); err != nil || other != path {
		t.Errorf("built from the kernels' sources: %s, %v, want %s", other, err, path)
	}
}
