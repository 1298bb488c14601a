package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/onmart/onmart/cuda/kernels/internal/ptxfile"
)

// compilerMark is how NVRTC names its version in the PTX it makes: another patch release may make other bytes.
const compilerMark = "release 11.8, V11.8.89"

// generate makes dir/ptx/NAME.ptx of every dir/NAME.cu and removes PTX whose source is gone. It always compiles: a
// head that is current does not show that the text below it was left alone. Nothing is written unless every file
// compiles, to the same text twice.
func generate(dir string, tools *toolbox, log io.Writer) error {
	sources, err := ptxfile.Read(os.DirFS(dir))
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	builtins, library, err := tools.nvrtc()
	if err != nil {
		return err
	}
	nvrtc, err := openNVRTC(builtins, library)
	if err != nil {
		return err
	}
	texts, err := compileAll(nvrtc.compile, sources, log)
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	made := map[string][]byte{}
	for i, k := range sources.Kernels {
		if !bytes.Contains(texts[i], []byte(compilerMark)) {
			return fmt.Errorf("%s is not %s, which makes the committed PTX: its output does not say %q; "+
				"unset %s to let the right one be downloaded", library, ptxfile.Compiler, compilerMark, toolsVariable)
		}
		made[k.Module()+".ptx"] = append([]byte(sources.Head(k)), texts[i]...)
	}
	return replace(filepath.Join(dir, "ptx"), made, log)
}

// compiler makes PTX of a kernel file that may include the headers, and says its warnings.
type compiler func(kernel ptxfile.File, headers []ptxfile.File, flags []string) (text []byte, said string, err error)

// compileAll compiles the kernel files, each twice. NVRTC 11.8 does not always make the same text of the same source:
// where a kernel reads many neighbours from shared memory, the pass that merges loads into vectors sometimes reads a
// part twice, depending on addresses in the compiler's own memory. Such PTX is right, but slower by chance, and nobody
// could show that it is that of its source. So it is refused, with what to do about it. (NVRTC compiles one program at
// a time, so threads would gain nothing.)
func compileAll(compile compiler, sources ptxfile.Sources, log io.Writer) (texts [][]byte, err error) {
	var faults []error
	for _, k := range sources.Kernels {
		text, said, err := compile(k, sources.Headers, ptxfile.Flags())
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", k.Name, err))
			continue
		}
		if said != "" {
			fmt.Fprintln(log, said)
		}
		again, _, err := compile(k, sources.Headers, ptxfile.Flags())
		if err != nil {
			faults = append(faults, fmt.Errorf("%s, compiled again: %w", k.Name, err))
		} else if kernels := differing(string(text), string(again)); len(kernels) > 0 {
			faults = append(faults, fmt.Errorf("%s: two compilations made different PTX of %s: write their reads of vectors from "+
				`shared memory as asm volatile("ld.shared.v4.f32 ..." : ... : "memory"), so that the compiler has no loads to merge`,
				k.Name, strings.Join(kernels, ", ")))
		}
		texts = append(texts, text)
	}
	return texts, errors.Join(faults...)
}

// differing names the functions of which two texts of PTX have different bodies; "the head" is what comes before the first.
func differing(a, b string) (names []string) {
	bodiesA, bodiesB := bodies(a), bodies(b)
	for name, body := range bodiesA {
		if bodiesB[name] != body {
			names = append(names, name)
		}
	}
	for name := range bodiesB {
		if _, both := bodiesA[name]; !both {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// bodies cuts PTX at the comments with which NVRTC begins each function.
func bodies(ptx string) map[string]string {
	found := map[string]string{}
	for i, part := range strings.Split(ptx, "\n\t// .globl\t") {
		name := "the head"
		if i > 0 {
			name, part, _ = strings.Cut(part, "\n")
		}
		found[name] += part
	}
	return found
}

// replace makes dir hold exactly the files given, of those that end in .ptx.
func replace(dir string, files map[string][]byte, log io.Writer) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	present, err := filepath.Glob(filepath.Join(dir, "*.ptx"))
	if err != nil {
		return err
	}
	changed := 0
	for _, path := range present {
		if _, stays := files[filepath.Base(path)]; !stays {
			changed++
			fmt.Fprintf(log, "ptxgen: %s removed, its source is gone\n", filepath.Base(path))
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, text) {
			continue
		}
		changed++
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return err
		}
	}
	fmt.Fprintf(log, "ptxgen: %d PTX files compiled with %s %s, %d changed\n",
		len(files), ptxfile.Compiler, strings.Join(ptxfile.Flags(), " "), changed)
	return nil
}
