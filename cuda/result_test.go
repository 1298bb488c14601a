package cuda

import (
	"errors"
	"fmt"
	"testing"
)

func TestErrorTexts(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{&Error{Call: "cuMemAlloc of " + size(3<<29), Code: OutOfMemory, Detail: "this process holds 4 GiB"},
			"cuMemAlloc of 1.5 GiB: CUDA_ERROR_OUT_OF_MEMORY (2): not enough memory; this process holds 4 GiB"},
		{&Error{Call: "cuStreamSynchronize", Code: IllegalAddress},
			"cuStreamSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS (700): a kernel read or wrote outside its memory; " +
				"the device is lost to this process: start it again, and resume what was checkpointed"},
		{&Error{Call: "cuInit", Code: 12345},
			"cuInit: CUDA error 12345: a code that this program does not know; the driver is newer than it"},
		{Success, "CUDA_SUCCESS (0): no error"},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}

func TestEveryCodeHasANameAndAMeaning(t *testing.T) {
	names := map[string]Result{}
	for r := range results {
		if r.Name() == "CUDA_ERROR_" || r.Meaning() == "" {
			t.Errorf("%d: %q %q", r, r.Name(), r.Meaning())
		}
		if other, twice := names[r.Name()]; twice {
			t.Errorf("%d and %d are both %s", other, r, r.Name())
		}
		names[r.Name()] = r
	}
	for r, name := range map[Result]string{OutOfMemory: "OUT_OF_MEMORY", InvalidPTX: "INVALID_PTX",
		UnsupportedPTX:  "UNSUPPORTED_PTX_VERSION",
		CaptureUnjoined: "STREAM_CAPTURE_UNJOINED", ECCUncorrectable: "ECC_UNCORRECTABLE", Unknown: "UNKNOWN"} {
		if got := r.Name(); got != "CUDA_ERROR_"+name {
			t.Errorf("%d is %s, want %s", r, got, name)
		}
	}
}

func TestLost(t *testing.T) {
	lost := &Error{Call: "cuCtxSetCurrent", Code: LaunchFailed}
	for _, c := range []struct {
		err  error
		want bool
	}{
		{nil, false}, {errors.New("x"), false}, {OutOfMemory, false}, {LaunchTimeout, true}, {lost, true},
		{&Error{Call: "x", Code: InvalidContext}, false},
		{fmt.Errorf("step 3: %w", lost), true},
		{errors.Join(&Error{Call: "x", Code: OutOfMemory}, lost), true},
		{fmt.Errorf("%w, %w", OutOfMemory, fmt.Errorf("y: %w", lost)), true},
		{errors.Join(OutOfMemory, NotSupported), false},
		{&unavailable{code: Unknown}, false}, // nothing was opened, so nothing is lost
	} {
		if got := Lost(c.err); got != c.want {
			t.Errorf("Lost(%v) = %v", c.err, got)
		}
	}
	var e *Error
	if err := fmt.Errorf("step 3: %w", lost); !errors.Is(err, LaunchFailed) || errors.Is(err, OutOfMemory) ||
		!errors.As(err, &e) || e.Call != lost.Call {
		t.Errorf("%v does not unwrap", err)
	}
}

func TestSize(t *testing.T) {
	for bytes, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 1 << 20: "1 MiB",
		6 << 30: "6 GiB", 1<<30 + 1<<29: "1.5 GiB",
		10 << 20: "10 MiB", 100 << 30: "100 GiB"} {
		if got := size(bytes); got != want {
			t.Errorf("%d: %q, want %q", bytes, got, want)
		}
	}
}
