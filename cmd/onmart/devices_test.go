package main

import (
	"encoding/json"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func TestDevicesSaysWhyNot(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	lib := filepath.Join(dir, "libcuda.so.1")
	t.Setenv("ONMART_LIBCUDA", lib)
	t.Setenv("ONMART_CPU", "portable")
	code, stdout, stderr := cli(t, "devices", "--json")
	if code != 0 || stderr != "" {
		t.Fatalf("exit %d, %q", code, stderr)
	}
	var r struct {
		CPU struct {
			Cores        int
			Path, Forced string
		}
		CUDA struct {
			State, Reason, Remedy string
			Devices               []any
		}
	}
	if err := json.Unmarshal([]byte(stdout), &r); err != nil {
		t.Fatal(err)
	}
	if r.CPU.Cores != runtime.NumCPU() || r.CPU.Path != "cpu-portable" || r.CPU.Forced != "portable" {
		t.Errorf("got %+v", r.CPU)
	}
	if r.CUDA.State != "no driver" || r.CUDA.Reason == "" || r.CUDA.Remedy == "" || r.CUDA.Devices == nil {
		t.Errorf("got %+v", r.CUDA)
	}
	_, stdout, _ = cli(t, "devices")
	for _, part := range []string{"CPU: ready", "programs run with the kernels cpu-portable (forced by ONMART_CPU=portable)", "CUDA: no driver", "  why: ", "  what to do: "} {
		if !strings.Contains(stdout, part) {
			t.Errorf("no %q in\n%s", part, stdout)
		}
	}
}

func TestDevicesRefusesAnUnknownPath(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("ONMART_CPU", "sse9")
	if code, _, stderr := cli(t, "devices"); code != exitUsage || !strings.Contains(stderr, "ONMART_CPU=sse9") {
		t.Errorf("exit %d, %q", code, stderr)
	}
}
