package main

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/cuda/kernels/internal/ptxfile"
)

// What ptxas 11.8 and 12.9 print for one file with a kernel that calls a function and one that spills.
const report11 = `ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'caller' for 'sm_75'
ptxas info    : Function properties for caller
    256 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 72 registers, 128 bytes smem, 372 bytes cmem[0]
ptxas info    : Function properties for _Z6helperPKfi
    0 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Compiling entry function 'spiller' for 'sm_75'
ptxas info    : Function properties for spiller
    472 bytes stack frame, 1056 bytes spill stores, 1060 bytes spill loads
ptxas info    : Used 64 registers, 372 bytes cmem[0]
`

const report12 = `ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'caller' for 'sm_75'
ptxas info    : Function properties for caller
    256 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 72 registers, used 1 barriers, 256 bytes cumulative stack size, 128 bytes smem, 372 bytes cmem[0]
ptxas info    : Compile time = 62.519 ms
ptxas info    : Function properties for _Z6helperPKfi
    0 bytes stack frame, 8 bytes spill stores, 12 bytes spill loads
ptxas info    : Compiling entry function 'spiller' for 'sm_75'
ptxas info    : Function properties for spiller
    472 bytes stack frame, 1056 bytes spill stores, 1060 bytes spill loads
ptxas info    : Used 64 registers, used 0 barriers, 472 bytes cumulative stack size, 372 bytes cmem[0]
ptxas info    : Compile time = 45.968 ms
`

func TestReadReport(t *testing.T) {
	want := []usage{
		{name: "caller", entry: true, registers: 72, shared: 128, stack: 256},
		{name: "_Z6helperPKfi", spillStore: 8, spillLoad: 12},
		{name: "spiller", entry: true, registers: 64, stack: 472, spillStore: 1056, spillLoad: 1060},
	}
	for version, said := range map[string]string{"11.8": report11, "12.9": report12} {
		got, err := readReport(said)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("ptxas %s: %+v %v, want %+v", version, got, err, want)
		}
	}
	if _, err := readReport(strings.ReplaceAll(report11, "Used", "Took")); err == nil || !strings.Contains(err.Error(), "how many registers caller takes") {
		t.Errorf("a report in other words: %v", err)
	}
}

func TestThreadBounds(t *testing.T) {
	got := threadBounds(`
.visible .entry flat(
	.param .u64 flat_param_0,
	.param .align 4 .b8 flat_param_1[16]
)
.maxntid 256, 1, 1
{
	ret;
}
.visible .entry block(
	.param .u32 block_param_0
)
.maxntid 16, 8, 2
.minnctapersm 2
{
}
.entry fixed() .reqntid 64
{
}
.visible .entry loose(
	.param .u32 loose_param_0
)
{
	// .maxntid 1 in a body is no bound
}
.entry bare
{
}
`)
	want := map[string]int{"flat": 256, "block": 256, "fixed": 64, "loose": 0, "bare": 0}
	if !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if names := unbounded(got); !slices.Equal(names, []string{"bare", "loose"}) {
		t.Errorf("without a bound: %v", names)
	}
}

// Figures of NVIDIA's occupancy calculator.
func TestOccupancy(t *testing.T) {
	for _, c := range []struct {
		arch                       string
		threads, registers, shared int
		blocks, percent            int
	}{
		{"sm_75", 256, 64, 8448, 4, 100},
		{"sm_75", 256, 65, 0, 3, 75},        // 72 registers a thread after rounding: 28 warps, 24 of them in whole blocks
		{"sm_75", 256, 32, 0, 4, 100},       // by threads
		{"sm_75", 32, 16, 0, 16, 50},        // by blocks
		{"sm_75", 128, 32, 33 << 10, 1, 12}, // by shared memory
		{"sm_75", 33, 32, 0, 16, 100},       // a started warp counts whole
		{"sm_75", 1024, 65, 0, 0, 0},        // does not fit
		{"sm_80", 256, 64, 8448, 4, 50},
		{"sm_80", 1024, 32, 81 << 10, 2, 100}, // 82 KiB with what the driver keeps: two fit 164 KiB exactly
		{"sm_80", 1024, 32, 81<<10 + 1, 1, 50},
		{"sm_86", 256, 48, 8448, 5, 83},
		{"sm_89", 64, 32, 0, 24, 100},
		{"sm_90", 256, 48, 8448, 5, 62},
	} {
		m, known := multiprocessorOf(c.arch)
		if !known {
			t.Fatalf("%s is not known", c.arch)
		}
		n := m.residentBlocks(c.threads, c.registers, c.shared)
		if n != c.blocks || m.occupancy(c.threads, n) != c.percent {
			t.Errorf("%+v: %d blocks, %d %%", c, n, m.occupancy(c.threads, n))
		}
	}
}

// folder is a kernels' folder with one source and PTX of it that names its kernels, and a ptxas that prints a report for it.
func folder(t *testing.T, body, ptxas string) (dir string, tools *toolbox) {
	t.Helper()
	dir = t.TempDir()
	write(t, filepath.Join(dir, "spill.cu"), "source")
	sources, err := ptxfile.Read(os.DirFS(dir))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "ptx", "spill.ptx"), sources.Head(sources.Kernels[0])+body)
	bin := t.TempDir()
	write(t, filepath.Join(bin, "ptxas"), "#!/bin/sh\nif [ \"$1\" = --version ]; then echo 'release 11.8, V11.8.89'; exit; fi\n"+ptxas)
	return dir, &toolbox{override: bin, log: &bytes.Buffer{}}
}

func write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
}

const twoKernels = ".entry caller()\n.maxntid 32, 1, 1\n{\n}\n.entry spiller()\n.maxntid 1024, 1, 1\n{\n}\n"

func TestCheck(t *testing.T) {
	says := func(report string) string { return "cat <<'END'\n" + report + "END\n" }
	clean := strings.NewReplacer("1056 bytes", "0 bytes", "1060 bytes", "0 bytes", "8 bytes spill", "0 bytes spill", "12 bytes spill", "0 bytes spill").Replace(report11)
	allowAll := map[string]string{"spiller": "reason", "_Z6helperPKfi": "reason"}
	for _, c := range []struct {
		about, body, ptxas string
		archs              []string
		allowed            map[string]string
		want               []string // parts of the error, none for success
	}{
		{"clean", twoKernels, says(clean), []string{"sm_75", "sm_80"}, nil, nil},
		{"spills", twoKernels, says(report11), []string{"sm_75"}, nil, []string{
			"spiller spills on sm_75: 1056 bytes stored, 1060 loaded", "_Z6helperPKfi spills on sm_75: 8 bytes stored, 12 loaded"}},
		{"spills elsewhere", twoKernels, says(report11), []string{"sm_90"}, nil, nil},
		{"spills allowed", twoKernels, says(report11), []string{"sm_75"}, allowAll, nil},
		{"allowed for nothing", twoKernels, says(clean), []string{"sm_75"}, map[string]string{"gone": "reason"}, []string{"allowedSpills names gone (reason)"}},
		{"allowed, not asked", twoKernels, says(clean), []string{"sm_80"}, map[string]string{"gone": "reason"}, nil},
		{"no bound", strings.ReplaceAll(twoKernels, ".maxntid 32, 1, 1", ""), says(clean), []string{"sm_75"}, nil, []string{"spill.ptx: kernel caller has no .maxntid"}},
		{"kernel missing from the report", twoKernels + ".entry third() .maxntid 1 { }", says(clean), []string{"sm_75"}, nil, []string{"spill.ptx for sm_75: ptxas reports nothing of kernel third"}},
		{"kernel missing from the PTX", ".entry caller() .maxntid 1 { }", says(clean), []string{"sm_75"}, nil, []string{"reports a kernel spiller that was not found"}},
		{"does not assemble", twoKernels, "echo 'line 3: syntax error' >&2; exit 255", []string{"sm_75", "sm_80"}, nil, []string{
			"spill.ptx for sm_75: ptxas: exit status 255\nline 3: syntax error", "spill.ptx for sm_80"}},
	} {
		dir, tools := folder(t, c.body, c.ptxas)
		var out bytes.Buffer
		err := check(dir, tools, []assembly{{ptxas11, c.archs}}, c.allowed, &out)
		if len(c.want) == 0 && err != nil {
			t.Errorf("%s: %v", c.about, err)
		}
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v, want %q", c.about, err, want)
			}
		}
	}

	dir, tools := folder(t, twoKernels, says(report11))
	var out bytes.Buffer
	if err := check(dir, tools, []assembly{{ptxas11, []string{"sm_75", "sm_90"}}}, allowAll, &out); err != nil {
		t.Fatal(err)
	}
	want := `ptxas cu11==11.8.89
kernel                    arch   registers  shared B  stack B  spill B st/ld  threads  blocks/SM  occupancy
_Z6helperPKfi (function)  sm_75  -          -         0        8/12           -        -          -
_Z6helperPKfi (function)  sm_90  -          -         0        8/12           -        -          -
caller                    sm_75  72         128       256      0/0            32       16         50%
caller                    sm_90  72         128       256      0/0            32       28         43%
spiller                   sm_75  64         0         472      1056/1060      1024     1          100%
spiller                   sm_90  64         0         472      1056/1060      1024     1          50%
`
	if out.String() != want {
		t.Errorf("table:\n%swant\n%s", &out, want)
	}

	write(t, filepath.Join(dir, "spill.cu"), "source, changed")
	if err := check(dir, tools, []assembly{{ptxas11, []string{"sm_75"}}}, allowAll, &out); err == nil || !strings.Contains(err.Error(), "spill.ptx is out of date") {
		t.Errorf("out-of-date PTX: %v", err)
	}
	if err := check(dir, tools, []assembly{{ptxas12, []string{"sm_120"}}}, nil, &out); err == nil || !strings.Contains(err.Error(), "is not ptxas V12.9.86") {
		t.Errorf("another version of ptxas: %v", err)
	}
}
