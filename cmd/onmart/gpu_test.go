package main

import (
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/onmart/onmart/cuda/kernels/kerneltest"
)

// onDevice lets the commands find the device that kerneltest has.
func onDevice(t *testing.T) {
	t.Helper()
	if library := kerneltest.Library(t); library != "" {
		t.Setenv("ONMART_LIBCUDA", library)
	}
}

func TestTrainFraudOnCUDA(t *testing.T) {
	onDevice(t)
	t.Chdir(t.TempDir())
	makeCards(t)
	train := func(args ...string) (stdout, stderr string) {
		t.Helper()
		args = append([]string{"train", "fraud", "--data", "cards", "--set", "epochs=8", "--set", "hidden=16", "--set", "towers=1", "--set", "learning_rate=.02", "--json"}, args...)
		code, stdout, stderr := cli(t, args...)
		if code != exitGood {
			t.Fatalf("exit %d: %s", code, stderr)
		}
		return stdout, stderr
	}
	var made struct {
		Backend    string
		Validation map[string]float64
	}
	stdout, stderr := train("--out", "model", "--device", "cuda")
	if err := json.Unmarshal([]byte(stdout), &made); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(made.Backend, "cuda sm_") || !strings.Contains(stderr, "device: "+made.Backend) {
		t.Errorf("trained on %q:\n%s", made.Backend, stderr)
	}
	onGPU := made.Validation
	stdout, _ = train("--out", "model-cpu", "--device", "cpu")
	if err := json.Unmarshal([]byte(stdout), &made); err != nil {
		t.Fatal(err)
	}
	for k, v := range made.Validation {
		if got := onGPU[k]; !(got-v < .01 && v-got < .01) {
			t.Errorf("%s is %v on the GPU and %v on the CPU", k, got, v)
		}
	}
	// auto takes the device and says so; so little memory that nothing fits is an error, not another device.
	if _, stderr := train("--out", "model-auto"); !strings.Contains(stderr, "it was found (--device cpu trains on the processor)") {
		t.Errorf("auto says:\n%s", stderr)
	}
	code, _, stderr := cli(t, "train", "fraud", "--data", "cards", "--out", "model-small", "--gpu-memory", "2MiB", "--set", "hidden=1024,1024")
	if code != exitFailed || !strings.Contains(stderr, "CUDA_ERROR_OUT_OF_MEMORY") || !strings.Contains(stderr, "--gpu-memory") {
		t.Errorf("without memory: exit %d: %s", code, stderr)
	}
	if _, err := os.Stat("model-small"); err == nil {
		t.Error("a training without memory left an artifact")
	}
}

func TestPredictionOfACard(t *testing.T) {
	t.Chdir(t.TempDir())
	makeCards(t)
	code, stdout, stderr := cli(t, "train", "fraud", "--data", "cards", "--explain", "--device", "model:rtx2060")
	if code != exitGood || !strings.Contains(stderr, "nothing was trained") {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	for _, want := range []string{"a step of 256 rows on rtx2060, predicted from its plan and not measured", "launches", "predicted: ", "matmul 256x64x15 nn", "adamw"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
	if names, _ := os.ReadDir("."); len(names) != 2 { // cards and its features
		t.Errorf("left behind %v", names)
	}
}

func TestDevicesCheckAndBenchGPU(t *testing.T) {
	if testing.Short() {
		t.Skip("every kernel over all sizes takes long under the race detector; without -short it is tested")
	}
	onDevice(t)
	t.Chdir(t.TempDir())
	code, stdout, stderr := cli(t, "devices", "--check")
	if code != exitGood || !strings.Contains(stdout, "matmul") || strings.Contains(stdout, "  NO ") {
		t.Errorf("exit %d: %s\n%s", code, stderr, stdout)
	}
	code, _, stderr = cli(t, "bench", "gpu", "--program", "fraud", "--steps", "3", "--repeat", "1", "--out", "gpu.json")
	if code != exitGood {
		t.Fatalf("exit %d: %s", code, stderr)
	}
	text, err := os.ReadFile("gpu.json")
	if err != nil {
		t.Fatal(err)
	}
	var r benchGPUResult
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	if !r.OK || len(r.Kernels) < 20 || len(r.Programs) != 1 || !r.Programs[0].Repeats || r.Emulated == kerneltest.Hardware() {
		t.Errorf("got ok %v, %d kernels, %d programs, emulated %v", r.OK, len(r.Kernels), len(r.Programs), r.Emulated)
	}
	if code, _, stderr = cli(t, "bench", "gpu", "--out", "gpu.json"); code != exitUsage || !strings.Contains(stderr, "gpu.json exists") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

func TestCheckWithoutADevice(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("ONMART_LIBCUDA", t.TempDir()+"/libcuda.so.1")
	if code, _, stderr := cli(t, "devices", "--check"); code != exitFailed || !strings.Contains(stderr, "there is no CUDA device to check") {
		t.Errorf("exit %d: %s", code, stderr)
	}
}

func TestParseBytes(t *testing.T) {
	for text, want := range map[string]int64{"": 0, "4GiB": 4 << 30, "1.5 GiB": 3 << 29, "512MiB": 512 << 20, "6000000000": 6e9, "2GB": 2e9, "10kB": 1e4, "7B": 7} {
		if got, err := parseBytes(text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"0", "-1", "much", "4 TiB", "1e300GiB", "NaN", "Inf", "GiB"} {
		if got, err := parseBytes(text); err == nil {
			t.Errorf("%q: %d", text, got)
		}
	}
}
