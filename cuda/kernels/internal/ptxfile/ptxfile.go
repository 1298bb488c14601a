// Package ptxfile is the form of a committed PTX file: what a compiler made of NAME.cu, below comment lines that
// name the tool, the compiler, its flags and the SHA-256 of the sources. So whoever has the sources can tell
// whether the PTX is theirs, without a compiler.
//
// A folder of .cu and .cuh files enters; expected heads, and findings about PTX files, leave. A head says what
// the PTX was made from, not that the text below it was left alone: only compiling again shows that.
package ptxfile

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

const (
	// toolVersion counts up when the tool that makes the files makes them differently.
	toolVersion = 1
	// Compiler makes the PTX. NVRTC of CUDA 11.8 writes PTX ISA 7.8, which drivers from 520 on load; a newer one
	// raises the driver that users need (12.9: 575).
	Compiler = "NVRTC 11.8.89"
)

// Remake tells how out-of-date PTX is made current.
const Remake = "run go generate ./cuda/..."

// Flags are the compiler's. compute_75 (Turing) is the oldest device served, and its PTX runs on all newer ones.
// Without contraction a*b+c stays two roundings unless the source says fma, as in the Go code that kernels are
// compared with. A function without __device__ is one all the same, so that helpers read as C++ on the host too.
func Flags() []string {
	return []string{"-arch=compute_75", "-std=c++17", "-default-device", "-fmad=false"}
}

// File is one source file.
type File struct {
	Name string // without folder: "matmul.cu"
	Text []byte
}

// Module is the name without its ending: "matmul".
func (f File) Module() string { return strings.TrimSuffix(f.Name, path.Ext(f.Name)) }

// Sources are the kernels of a folder, in the order of their names. Every kernel may include every header.
type Sources struct {
	Kernels []File // *.cu
	Headers []File // *.cuh
}

// Read reads the sources at the root of a folder. It is an error if there is no kernel.
func Read(folder fs.FS) (Sources, error) {
	entries, err := fs.ReadDir(folder, ".")
	if err != nil {
		return Sources{}, err
	}
	var s Sources
	for _, e := range entries {
		ext := path.Ext(e.Name())
		if ext != ".cu" && ext != ".cuh" {
			continue
		}
		text, err := fs.ReadFile(folder, e.Name())
		if err != nil {
			return Sources{}, err
		}
		if bytes.IndexByte(text, 0) >= 0 {
			return Sources{}, fmt.Errorf("%s has a zero byte, at which a compiler would stop reading", e.Name())
		}
		if file := (File{e.Name(), text}); ext == ".cu" {
			s.Kernels = append(s.Kernels, file)
		} else {
			s.Headers = append(s.Headers, file)
		}
	}
	if len(s.Kernels) == 0 {
		return Sources{}, errors.New("no .cu file")
	}
	for _, files := range [][]File{s.Kernels, s.Headers} {
		slices.SortFunc(files, func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
	}
	return s, nil
}

// Head is the comment lines with which the PTX of a kernel file begins.
func (s Sources) Head(kernel File) string {
	return fmt.Sprintf("// Made from %s by ptxgen %d with %s. Do not edit: %s\n// %s\n%s%s\n",
		kernel.Name, toolVersion, Compiler, Remake, strings.Join(Flags(), " "), digestMark, s.digest(kernel))
}

const digestMark = "// sources sha256 "

// digest covers all that decides what the compiler makes of a kernel file: its text, every header, the flags, the
// compiler and the tool.
func (s Sources) digest(kernel File) string {
	h := sha256.New()
	fmt.Fprintf(h, "ptxgen %d, %s\n%q\n", toolVersion, Compiler, Flags())
	for _, f := range append([]File{kernel}, s.Headers...) {
		fmt.Fprintf(h, "%q %d\n%s", f.Name, len(f.Text), f.Text)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Faults compares the *.ptx at the root of a folder with the sources: one line for every file that is missing,
// out of date or left over, each with what to do.
func (s Sources) Faults(ptx fs.FS) []string {
	var faults []string
	made := map[string]bool{}
	for _, k := range s.Kernels {
		name := k.Module() + ".ptx"
		made[name] = true
		text, err := fs.ReadFile(ptx, name)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			faults = append(faults, fmt.Sprintf("%s is missing, %s is there: %s", name, k.Name, Remake))
		case err != nil:
			faults = append(faults, err.Error())
		case !bytes.HasPrefix(text, []byte(s.Head(k))):
			faults = append(faults, fmt.Sprintf("%s is out of date: it is made from sources %s, and %s with the headers now "+
				"gives %s: %s", name, digestIn(text), k.Name, s.digest(k)[:12], Remake))
		}
	}
	names, err := fs.Glob(ptx, "*.ptx")
	if err != nil {
		return append(faults, err.Error())
	}
	for _, name := range names {
		if !made[name] {
			faults = append(faults, fmt.Sprintf("%s is left over, its .cu is gone: %s", name, Remake))
		}
	}
	return faults
}

// digestIn is the beginning of the digest that PTX text names, for messages.
func digestIn(text []byte) string {
	_, after, found := strings.Cut(string(text[:min(len(text), 4096)]), digestMark)
	if !found || len(after) < 12 {
		return "that it does not name"
	}
	return after[:12]
}
