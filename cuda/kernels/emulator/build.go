package emulator

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/cpu"

	"github.com/onmart/onmart/cuda/kernels"
)

//go:embed native
var native embed.FS

// ErrNoCompiler is that the library cannot be built on this machine for want of a C++ compiler.
var ErrNoCompiler = errors.New("no C++ compiler")

// jobs is how many files are compiled at once: a compiler takes up to 300 MB, and tests share the machine.
const jobs = 2

// recipe is to be raised where what compile does changes in a way that the flags do not show, so that no older
// library is taken.
const recipe = 1

// keep is for how long a library that another one has replaced stays in the cache.
const keep = 30 * 24 * time.Hour

// Build returns the path of the library with the kernels of package kernels, which it compiles where the cache
// (onmart in the user's cache folder, else in the folder for temporary files) does not have it. Several
// processes may build at once. The error is ErrNoCompiler where there is no compiler, or says which file does
// not compile.
func Build() (string, error) { return BuildFrom(kernels.Sources()) }

// BuildFrom is Build for other kernels: each .cu file at the root of sources, with the .cuh files beside it, is
// compiled by itself. A kernel is extern "C" __global__ void, with or without __launch_bounds__, and its name
// occurs once in all files.
func BuildFrom(sources fs.FS) (string, error) {
	b, err := newBuild(sources)
	if err != nil {
		return "", fmt.Errorf("emulator: %w", err)
	}
	if err := b.library(); err != nil {
		return "", fmt.Errorf("emulator: build %s: %w", b.path, err)
	}
	return b.path, nil
}

// file is one source.
type file struct {
	name string
	text []byte
}

// build is one library on its way.
type build struct {
	compiler string
	version  []byte // what it says of itself
	flags    []string
	checks   []string // more flags, for kernels
	native   []file   // emu.h and what the library is made of
	kernels  []file   // .cu and .cuh
	path     string   // of the library
}

func newBuild(sources fs.FS) (*build, error) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("%w that makes the emulator for %s/%s: it is written for linux/amd64",
			ErrNoCompiler, runtime.GOOS, runtime.GOARCH)
	}
	name := os.Getenv("CXX")
	if name == "" {
		name = "g++"
	}
	compiler, err := exec.LookPath(name)
	if err != nil {
		return nil, fmt.Errorf("%w: %s is not there: install g++ (Debian and Ubuntu: apt install g++), "+
			"or name a compiler in CXX", ErrNoCompiler, name)
	}
	version, err := exec.Command(compiler, "--version").Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s --version: %v", ErrNoCompiler, compiler, err)
	}
	b := &build{compiler: compiler, version: version, flags: flags(), checks: checks()}
	nativeFiles, err := fs.Sub(native, "native")
	if err != nil {
		return nil, err
	}
	if b.native, err = read(nativeFiles, ".h", ".cpp"); err != nil {
		return nil, err
	}
	if b.kernels, err = read(sources, ".cu", ".cuh"); err != nil {
		return nil, err
	}
	key := b.key(b.checks, slices.Concat(b.native, b.kernels))
	b.path = filepath.Join(cacheDir(), fmt.Sprintf("libcuda-emulator-%s.so", key))
	return b, nil
}

// flags of the compiler. Products and sums are rounded as they are written, and fmaf is one instruction where
// the machine has it.
func flags() []string {
	f := []string{"-std=c++17", "-O2", "-fPIC", "-fvisibility=hidden",
		"-ffp-contract=off", "-fno-math-errno", "-fno-strict-aliasing", "-pthread"}
	if cpu.X86.HasAVX2 && cpu.X86.HasFMA && cpu.X86.HasBMI1 && cpu.X86.HasBMI2 {
		f = append(f, "-mavx2", "-mfma", "-mbmi", "-mbmi2")
	}
	return f
}

// checks of kernels while they run; native/checks.cpp says what they find. They cost about a third of the time.
func checks() []string {
	return []string{"-fsanitize=alignment,bounds,shift-exponent,signed-integer-overflow,integer-divide-by-zero",
		"-fno-sanitize-recover=all"}
}

func cacheDir() string {
	if dir, err := os.UserCacheDir(); err == nil {
		dir = filepath.Join(dir, "onmart")
		if os.MkdirAll(dir, 0o755) == nil {
			return dir
		}
	}
	return filepath.Join(os.TempDir(), "onmart")
}

// read returns the files at the root with one of the endings, sorted by name.
func read(from fs.FS, endings ...string) ([]file, error) {
	entries, err := fs.ReadDir(from, ".")
	if err != nil {
		return nil, err
	}
	var files []file
	for _, e := range entries {
		if !slices.Contains(endings, filepath.Ext(e.Name())) {
			continue
		}
		text, err := fs.ReadFile(from, e.Name())
		if err != nil {
			return nil, err
		}
		files = append(files, file{e.Name(), text})
	}
	return files, nil
}

// library makes the library if it is not there. It appears whole or not at all.
func (b *build) library() error {
	if _, err := os.Stat(b.path); err == nil {
		return nil
	}
	dir := filepath.Dir(b.path)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	unlock, err := lock(b.path + ".lock")
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(b.path); err == nil { // another process has made it meanwhile
		return nil
	}
	work, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	made, err := b.compile(work)
	if err != nil {
		return err
	}
	if err := os.Rename(made, b.path); err != nil {
		return err
	}
	sweep(dir)
	return nil
}

// sweep removes what was made long ago. What cannot be removed does no harm.
func sweep(dir string) {
	old, err := filepath.Glob(filepath.Join(dir, "*cuda-emulator-*"))
	if err != nil {
		return
	}
	for _, path := range old {
		if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > keep {
			os.Remove(path)
		}
	}
}

// unit is one file to compile.
type unit struct {
	args   []string // but for the output
	object string   // in the cache, under a name that stands for all that goes into it
}

// compile makes the library in the folder dir and returns its path.
func (b *build) compile(dir string) (string, error) {
	for _, f := range slices.Concat(b.native, b.kernels) {
		if err := os.WriteFile(filepath.Join(dir, f.name), f.text, 0o644); err != nil {
			return "", err
		}
	}
	units, err := b.units(dir)
	if err != nil {
		return "", err
	}
	faults := make([]error, len(units))
	var failed atomic.Bool
	var wait sync.WaitGroup
	free := make(chan struct{}, jobs)
	for i, u := range units {
		free <- struct{}{}
		if failed.Load() {
			break
		}
		wait.Go(func() {
			defer func() { <-free }()
			if faults[i] = b.object(dir, u); faults[i] != nil {
				failed.Store(true)
			}
		})
	}
	wait.Wait()
	if err := errors.Join(faults...); err != nil {
		return "", err
	}
	const name = "libcuda.so"
	args := slices.Concat(b.flags, []string{"-shared", "-Wl,-Bsymbolic", "-Wl,--no-undefined", "-o", name})
	for _, u := range units {
		args = append(args, u.object)
	}
	_, err = b.run(dir, args)
	return filepath.Join(dir, name), err
}

// units lists what is compiled, the kernels first: they change more often, and take longest.
func (b *build) units(dir string) ([]unit, error) {
	var kernelUnits, nativeUnits []unit
	var headers []file
	owner := map[string]string{} // of a kernel: the file
	for _, f := range b.kernels {
		if filepath.Ext(f.name) != ".cu" {
			headers = append(headers, f)
		}
	}
	for _, f := range b.native {
		if filepath.Ext(f.name) == ".cpp" {
			nativeUnits = append(nativeUnits, unit{[]string{f.name}, b.objectPath([]string{f.name}, b.native)})
		}
	}
	for _, f := range b.kernels {
		if filepath.Ext(f.name) != ".cu" {
			continue
		}
		list, err := b.kernelsOf(dir, f.name)
		if err != nil {
			return nil, err
		}
		var wrapper strings.Builder
		fmt.Fprintf(&wrapper, "#include %q\n", f.name)
		for _, k := range list {
			if other, ok := owner[k.name]; ok {
				return nil, fmt.Errorf("%s: kernel %s is in %s too", f.name, k.name, other)
			}
			owner[k.name] = f.name
			fmt.Fprintf(&wrapper, "EMU_KERNEL(%s)\n", strings.Join(append([]string{k.name}, k.bounds...), ", "))
		}
		w := file{f.name + ".cc", []byte(wrapper.String())}
		if err := os.WriteFile(filepath.Join(dir, w.name), w.text, 0o644); err != nil {
			return nil, err
		}
		args := slices.Concat(b.checks, []string{"-w", "-include", "emu.h", w.name})
		kernelUnits = append(kernelUnits, unit{args, b.objectPath(args, slices.Concat(b.native, headers, []file{f, w}))})
	}
	return slices.Concat(kernelUnits, nativeUnits), nil
}

// objectPath names an object by what goes into it.
func (b *build) objectPath(args []string, files []file) string {
	return filepath.Join(filepath.Dir(b.path), fmt.Sprintf("cuda-emulator-%s.o", b.key(args, files)))
}

// key stands for a compiler, its flags and files.
func (b *build) key(args []string, files []file) string {
	key := sha256.New()
	fmt.Fprintf(key, "%d\n%s\n%q\n%q\n", recipe, b.version, b.flags, args)
	for _, f := range files {
		fmt.Fprintf(key, "%s %d\n", f.name, len(f.text))
		key.Write(f.text)
	}
	return fmt.Sprintf("%x", key.Sum(nil)[:12])
}

// object compiles a unit where the cache does not have it.
func (b *build) object(dir string, u unit) error {
	if _, err := os.Stat(u.object); err == nil {
		return nil
	}
	made := filepath.Base(u.object)
	if _, err := b.run(dir, slices.Concat(b.flags, u.args, []string{"-c", "-o", made})); err != nil {
		return err
	}
	return os.Rename(filepath.Join(dir, made), u.object)
}

// run calls the compiler in dir; the error has what it said.
func (b *build) run(dir string, args []string) ([]byte, error) {
	cmd := exec.Command(b.compiler, args...)
	cmd.Dir = dir
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", b.compiler, strings.Join(args, " "), err, said.Bytes())
	}
	return out, nil
}

// kernelsOf finds the kernels of a .cu file after its macros have been expanded.
func (b *build) kernelsOf(dir, name string) ([]kernel, error) {
	text, err := b.run(dir, []string{"-std=c++17", "-x", "c++", "-E", "-P", "-w", "-DONMART_EMULATOR", name})
	if err != nil {
		return nil, err
	}
	list, err := findKernels(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return list, nil
}
