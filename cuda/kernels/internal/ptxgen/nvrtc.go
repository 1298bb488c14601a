//go:build linux && amd64 && !nocuda

package main

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"github.com/ebitengine/purego"

	"github.com/onmart/onmart/cuda/kernels/internal/ptxfile"
)

// nvrtc is NVIDIA's run-time compiler, opened. Every function returns an nvrtcResult, 0 being success.
type nvrtc struct {
	errorString   func(result int32) string
	createProgram func(program *uintptr, source, name *byte, headers int32, texts, names unsafe.Pointer) int32
	destroy       func(program *uintptr) int32
	compileIt     func(program uintptr, options int32, values unsafe.Pointer) int32
	ptxSize       func(program uintptr, bytes *uintptr) int32
	ptx           func(program uintptr, text *byte) int32
	logSize       func(program uintptr, bytes *uintptr) int32
	log           func(program uintptr, text *byte) int32
}

// openNVRTC opens the compiler's two libraries. The builtins come first: the compiler opens them by name alone, which
// succeeds anywhere once they are there.
func openNVRTC(builtins, library string) (*nvrtc, error) {
	if _, err := purego.Dlopen(builtins, purego.RTLD_NOW|purego.RTLD_GLOBAL); err != nil {
		return nil, fmt.Errorf("open NVRTC's builtins: %w", err)
	}
	handle, err := purego.Dlopen(library, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return nil, fmt.Errorf("open NVRTC: %w", err)
	}
	n := &nvrtc{}
	for _, f := range []struct {
		name string
		fn   any
	}{
		{"nvrtcGetErrorString", &n.errorString}, {"nvrtcCreateProgram", &n.createProgram}, {"nvrtcDestroyProgram", &n.destroy},
		{"nvrtcCompileProgram", &n.compileIt}, {"nvrtcGetPTXSize", &n.ptxSize}, {"nvrtcGetPTX", &n.ptx},
		{"nvrtcGetProgramLogSize", &n.logSize}, {"nvrtcGetProgramLog", &n.log},
	} {
		symbol, err := purego.Dlsym(handle, f.name)
		if err != nil {
			return nil, fmt.Errorf("%s is no NVRTC: %w", library, err)
		}
		purego.RegisterFunc(f.fn, symbol)
	}
	return n, nil
}

// compile makes PTX of a kernel file, which may include the headers by their names. said is the compiler's warnings,
// each with file and line; an error carries its messages likewise.
func (n *nvrtc) compile(kernel ptxfile.File, headers []ptxfile.File, flags []string) (text []byte, said string, err error) {
	var names, texts, options []*byte
	for _, h := range headers {
		names, texts = append(names, cString(h.Name)), append(texts, cString(string(h.Text)))
	}
	for _, f := range flags {
		options = append(options, cString(f))
	}
	var program uintptr
	code := n.createProgram(&program, cString(string(kernel.Text)), cString(kernel.Name), int32(len(headers)),
		unsafe.Pointer(unsafe.SliceData(texts)), unsafe.Pointer(unsafe.SliceData(names)))
	if code != 0 {
		return nil, "", n.fault("nvrtcCreateProgram", code)
	}
	defer n.destroy(&program)
	compiled := n.compileIt(program, int32(len(options)), unsafe.Pointer(unsafe.SliceData(options)))
	runtime.KeepAlive(names)
	runtime.KeepAlive(texts)
	runtime.KeepAlive(options)

	log, err := n.read("nvrtcGetProgramLog", program, n.logSize, n.log)
	if err != nil {
		return nil, "", errors.Join(n.fault("nvrtcCompileProgram", compiled), err)
	}
	said = strings.TrimSpace(string(log))
	if compiled != 0 {
		return nil, "", fmt.Errorf("%w:\n%s", n.fault("nvrtcCompileProgram", compiled), said)
	}
	text, err = n.read("nvrtcGetPTX", program, n.ptxSize, n.ptx)
	return text, said, err
}

// read gets a text of a program, without the zero byte that ends it.
func (n *nvrtc) read(call string, program uintptr, size func(uintptr, *uintptr) int32,
	get func(uintptr, *byte) int32) ([]byte, error) {
	var length uintptr
	if code := size(program, &length); code != 0 {
		return nil, n.fault(call+"Size", code)
	}
	if length == 0 {
		return nil, nil
	}
	text := make([]byte, length)
	if code := get(program, &text[0]); code != 0 {
		return nil, n.fault(call, code)
	}
	return bytes.TrimRight(text, "\x00"), nil
}

func (n *nvrtc) fault(call string, code int32) error {
	if code == 0 {
		return nil
	}
	return fmt.Errorf("%s: %s (%d)", call, n.errorString(code), code)
}

func cString(s string) *byte { return unsafe.SliceData(append([]byte(s), 0)) }
