//go:build (linux || darwin) && !nocuda && !cu

package cuda

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fake builds a driver library with the given macros.
func fake(t testing.TB, macros ...string) string {
	t.Helper()
	compiler := ""
	for _, name := range []string{"cc", "gcc", "clang"} {
		if path, err := exec.LookPath(name); err == nil {
			compiler = path
			break
		}
	}
	if compiler == "" {
		t.Skip("needs a C compiler (cc, gcc or clang) for a stand-in of libcuda.so.1")
	}
	lib := filepath.Join(t.TempDir(), "libcuda.so.1")
	args := []string{"-shared", "-fPIC", "-o", lib, "testdata/fakecuda.c"}
	for _, m := range macros {
		args = append(args, "-D"+m)
	}
	if out, err := exec.Command(compiler, args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return lib
}

func TestProbeOfAFakeDriver(t *testing.T) {
	if set, ok := os.LookupEnv("CUDA_VISIBLE_DEVICES"); ok {
		os.Unsetenv("CUDA_VISIBLE_DEVICES")
		t.Cleanup(func() { os.Setenv("CUDA_VISIBLE_DEVICES", set) })
	}
	for _, c := range []struct {
		name   string
		macros []string
		state  State
		text   string // of String, @ stands for the library's path
	}{
		{"one device", nil, Ready,
			"CUDA: ready, driver for CUDA 12.4 (@)\n  cuda:0  Fake RTX 2060, compute capability 7.5, 6.0 GiB, 30 multiprocessors\n"},
		{"three devices", []string{"DEVICES=3", "VERSION=11080", "MAJOR=9", "MINOR=0"}, Ready,
			"CUDA: ready, driver for CUDA 11.8 (@)\n  cuda:0  Fake RTX 2060, compute capability 9.0, 6.0 GiB, 30 multiprocessors\n" +
				"  cuda:1  Fake RTX 2060, compute capability 9.0, 6.0 GiB, 30 multiprocessors\n  cuda:2  Fake RTX 2060, compute capability 9.0, 6.0 GiB, 30 multiprocessors\n"},
		{"no device by cuInit", []string{"INIT=100"}, NotUsable,
			"CUDA: no device, driver for CUDA 12.4 (@)\n  why: the driver is installed but sees no GPU\n  what to do: check that nvidia-smi lists a GPU; in a container pass one in (--gpus all)\n"},
		{"no device by count", []string{"DEVICES=0"}, NotUsable,
			"CUDA: no device, driver for CUDA 12.4 (@)\n  why: the driver is installed but sees no GPU\n  what to do: check that nvidia-smi lists a GPU; in a container pass one in (--gpus all)\n"},
		{"driver too old", []string{"VERSION=11040"}, NotUsable,
			"CUDA: no device, driver for CUDA 11.4 (@)\n  why: the driver is too old: it serves CUDA 11.4, onmart needs 11.8\n  what to do: install NVIDIA driver 520 or newer\n"},
		{"device too old", []string{"MAJOR=6", "MINOR=1"}, NotUsable,
			"CUDA: no device, driver for CUDA 12.4 (@)\n  cuda:0  Fake RTX 2060, compute capability 6.1, 6.0 GiB, 30 multiprocessors; not usable: its compute capability 6.1 is below 7.5\n" +
				"  why: no device can be used: its compute capability 6.1 is below 7.5\n  what to do: check that nvidia-smi works, use a GPU of compute capability 7.5 or newer (Turing: RTX 20, T4), or go on with --device cpu\n"},
		{"stub", []string{"INIT=34"}, NotUsable,
			"CUDA: no device, driver for CUDA 12.4 (@)\n  why: the driver library is the toolkit's stub, which has no driver behind it\n  what to do: take the toolkit's stubs folder off LD_LIBRARY_PATH, and install NVIDIA's driver\n"},
		{"mismatch", []string{"INIT=803"}, NotUsable,
			"CUDA: no device, driver for CUDA 12.4 (@)\n  why: the driver library and the kernel module are of different versions (CUDA error 803)\n  what to do: restart the machine after a driver update, or reinstall the driver\n"},
		{"unknown", []string{"INIT=999"}, NotUsable,
			"CUDA: no device, driver for CUDA 12.4 (@)\n  why: cuInit failed with CUDA error 999 (unknown)\n  what to do: check that nvidia-smi works; a suspended laptop may need `modprobe -r nvidia_uvm && modprobe nvidia_uvm`\n"},
		{"any other", []string{"INIT=2"}, NotUsable,
			"CUDA: no device, driver for CUDA 12.4 (@)\n  why: cuInit failed with CUDA error 2\n  what to do: check that nvidia-smi works, and reinstall NVIDIA's driver where it does not\n"},
		{"count fails", []string{"COUNT=801"}, NotUsable,
			"CUDA: no device, driver for CUDA 12.4 (@)\n  why: cuDeviceGetCount failed with CUDA error 801\n  what to do: check that nvidia-smi works, and reinstall NVIDIA's driver where it does not\n"},
		{"missing symbol", []string{"LACKS_NAME"}, NotUsable,
			"CUDA: no device (@)\n  why: the library lacks cuDeviceGetName, so it is no CUDA driver, or one too old\n  what to do: install NVIDIA driver 520 or newer; or correct or unset ONMART_LIBCUDA (now @)\n"},
		{"device not described", []string{"NAMECODE=4"}, NotUsable,
			"CUDA: no device, driver for CUDA 12.4 (@)\n  cuda:0  not usable: the driver does not describe it (CUDA error 4)\n" +
				"  why: no device can be used: the driver does not describe it (CUDA error 4)\n  what to do: check that nvidia-smi works, use a GPU of compute capability 7.5 or newer (Turing: RTX 20, T4), or go on with --device cpu\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			lib := fake(t, c.macros...)
			r := Probe(Options{Library: lib})
			if want := strings.ReplaceAll(c.text, "@", lib); r.State != c.state || r.String() != want {
				t.Errorf("got %q\n%swant %q\n%s", r.State, r, c.state, want)
			}
		})
	}
}

func TestVariableChoosesTheLibrary(t *testing.T) {
	lib := fake(t, "DEVICES=2")
	t.Setenv(LibraryVariable, lib)
	if r := Probe(Options{}); r.Library != lib || len(r.Devices) != 2 {
		t.Errorf("got %+v", r)
	}
}

func TestHiddenDevicesAreNamed(t *testing.T) {
	t.Setenv("CUDA_VISIBLE_DEVICES", "")
	if r := Probe(Options{Library: fake(t, "INIT=100")}); !strings.Contains(r.Reason, `CUDA_VISIBLE_DEVICES=""`) || !strings.Contains(r.Remedy, "unset") {
		t.Errorf("got %+v", r)
	}
}

func TestNoLibrary(t *testing.T) {
	path := filepath.Join(t.TempDir(), "libcuda.so.1")
	r := Probe(Options{Library: path})
	if r.State != NoLibrary || !strings.Contains(r.Reason, path) || !strings.Contains(r.Remedy, "install NVIDIA's driver") || !strings.Contains(r.Remedy, LibraryVariable) {
		t.Errorf("got %+v", r)
	}
	if text, err := json.Marshal(r); err != nil || !bytes.Contains(text, []byte(`"devices":[]`)) {
		t.Errorf("%s %v", text, err)
	}
	if err := os.WriteFile(path, []byte("not a library"), 0o666); err != nil {
		t.Fatal(err)
	}
	if r := Probe(Options{Library: path}); r.State != NotUsable || !strings.Contains(r.Reason, "cannot be loaded") {
		t.Errorf("a file that is no library: %+v", r)
	}
}

func TestSystemLibraryIsLookedForInWSLToo(t *testing.T) {
	if got := candidates(""); !slices.Equal(got, []string{"libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"}) {
		t.Errorf("got %q", got)
	}
	t.Setenv(LibraryVariable, "")
	r := Probe(Options{}) // whatever this machine has: a report, no panic, no exit
	if (r.State == Ready) != (r.Reason == "") || r.Devices == nil {
		t.Errorf("got %+v", r)
	}
	t.Log(r)
}

// faulty is a driver whose answer is a panic.
type faulty struct{ Driver }

func TestPanicBecomesAReport(t *testing.T) {
	r := probe(Options{}, func(string, bool) (Driver, *unavailable) { return faulty{}, nil })
	if r.State != NotUsable || !strings.Contains(r.Reason, "could not be used") {
		t.Errorf("got %+v", r)
	}
}

// BenchmarkProbeWithoutADriver is what a start costs more on a machine without one.
func BenchmarkProbeWithoutADriver(b *testing.B) {
	b.Setenv(LibraryVariable, "")
	if r := Probe(Options{}); r.State != NoLibrary {
		b.Skip("this machine has a driver: " + r.String())
	}
	b.ReportAllocs()
	for b.Loop() {
		Probe(Options{})
	}
}
