package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/onmart/onmart/cuda/kernels/internal/ptxfile"
)

// assembly is one version of ptxas and the architectures to assemble for with it.
type assembly struct {
	ptxas wheel
	archs []string
}

// usage is what ptxas says that a function takes on an architecture.
type usage struct {
	name                  string
	entry                 bool // else a function that was not inlined, which has a stack but no registers of its own
	registers             int
	shared, stack         int // bytes; shared memory given at launch is not in it
	spillStore, spillLoad int // bytes
}

// module is one PTX file to assemble.
type module struct {
	path   string
	bounds map[string]int // threads of a block at most, by kernel; 0 where the PTX does not say
}

func (m module) name() string { return filepath.Base(m.path) }

// check assembles the PTX below dir and prints what each kernel takes. It returns every fault at once: PTX that is not
// of the sources beside it, what ptxas refuses, a kernel without a bound on its threads, a spill on sm_75 that is not
// allowed, and an allowance that nothing needs.
func check(dir string, tools *toolbox, runs []assembly, allowed map[string]string, out io.Writer) error {
	sources, err := ptxfile.Read(os.DirFS(dir))
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	var faults []error
	for _, fault := range sources.Faults(os.DirFS(filepath.Join(dir, "ptx"))) {
		faults = append(faults, errors.New(fault))
	}
	modules, err := readModules(filepath.Join(dir, "ptx"))
	if err != nil {
		return err
	}
	for _, m := range modules {
		for _, kernel := range unbounded(m.bounds) {
			faults = append(faults, fmt.Errorf("%s: kernel %s has no .maxntid: give it __launch_bounds__", m.name(), kernel))
		}
	}
	for _, run := range runs {
		ptxas, err := tools.ptxas(run.ptxas)
		if err != nil {
			return err
		}
		rows, wrong := assembleAll(ptxas, run.archs, modules)
		faults = append(faults, wrong...)
		if slices.Contains(run.archs, checkedArch) {
			faults = append(faults, spills(rows, allowed)...)
		}
		fmt.Fprintf(out, "ptxas %s\n", strings.TrimPrefix(run.ptxas.requirement, "nvidia-cuda-nvcc-"))
		if err := printTable(out, rows); err != nil {
			return err
		}
	}
	return errors.Join(faults...)
}

// readModules reads the PTX files of a folder, in the order of their names.
func readModules(dir string) (modules []module, err error) {
	paths, err := filepath.Glob(filepath.Join(dir, "*.ptx"))
	if err != nil {
		return nil, err
	}
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		modules = append(modules, module{path, threadBounds(string(text))})
	}
	return modules, nil
}

// assembleAll assembles every module for every architecture.
func assembleAll(ptxas string, archs []string, modules []module) (rows []row, faults []error) {
	for _, arch := range archs {
		for _, m := range modules {
			used, err := assemble(ptxas, m.path, arch)
			if err != nil {
				faults = append(faults, err)
				continue
			}
			faults = append(faults, compareKernels(m, arch, used)...)
			for _, u := range used {
				rows = append(rows, row{u, m.name(), arch, m.bounds[u.name]})
			}
		}
	}
	return rows, faults
}

// spills reports the functions that spill on the architecture that is checked for it and are not allowed to, and the
// reverse.
func spills(rows []row, allowed map[string]string) (faults []error) {
	needed := map[string]bool{}
	for _, r := range rows {
		if r.arch != checkedArch || r.spillStore+r.spillLoad == 0 {
			continue
		}
		needed[r.name] = true
		if allowed[r.name] == "" {
			faults = append(faults, fmt.Errorf("%s: %s spills on %s: %d bytes stored, %d loaded; it needs fewer registers, "+
				"or a place in allowedSpills with the reason", r.file, r.name, r.arch, r.spillStore, r.spillLoad))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(allowed)) {
		if !needed[name] {
			faults = append(faults, fmt.Errorf("allowedSpills names %s (%s), which does not spill on %s: take it out",
				name, allowed[name], checkedArch))
		}
	}
	return faults
}

var entryPattern = regexp.MustCompile(`(?s)\.entry\s+([\w$]+)\s*(?:\([^)]*\))?([^{;]*)[{;]`)
var boundPattern = regexp.MustCompile(`\.(?:maxntid|reqntid)\s+(\d+)(?:\s*,\s*(\d+))?(?:\s*,\s*(\d+))?`)

// threadBounds gives the most threads that a block of each kernel may have, by what __launch_bounds__ left in the PTX;
// 0 where there is none.
func threadBounds(ptx string) map[string]int {
	bounds := map[string]int{}
	for _, entry := range entryPattern.FindAllStringSubmatch(ptx, -1) {
		bounds[entry[1]] = 0
		if sizes := boundPattern.FindStringSubmatch(entry[2]); sizes != nil {
			threads := 1
			for _, size := range sizes[1:] {
				if n, err := strconv.Atoi(size); err == nil { // "" where a size is left out
					threads *= n
				}
			}
			bounds[entry[1]] = threads
		}
	}
	return bounds
}

// unbounded lists the kernels without a bound.
func unbounded(bounds map[string]int) (kernels []string) {
	for kernel, threads := range bounds {
		if threads == 0 {
			kernels = append(kernels, kernel)
		}
	}
	slices.Sort(kernels)
	return kernels
}

// compareKernels reports kernels of the PTX that ptxas did not speak of, and the reverse: a sign that one of the two
// texts was misread here, and that the figures mean nothing.
func compareKernels(m module, arch string, used []usage) (faults []error) {
	seen := map[string]bool{}
	for _, u := range used {
		if !u.entry {
			continue
		}
		seen[u.name] = true
		if _, known := m.bounds[u.name]; !known {
			faults = append(faults, fmt.Errorf("%s for %s: ptxas reports a kernel %s that was not found in the PTX",
				m.name(), arch, u.name))
		}
	}
	for _, kernel := range slices.Sorted(maps.Keys(m.bounds)) {
		if !seen[kernel] {
			faults = append(faults, fmt.Errorf("%s for %s: ptxas reports nothing of kernel %s", m.name(), arch, kernel))
		}
	}
	return faults
}

// assemble runs ptxas on a file and gives what it reports of each function.
func assemble(ptxas, file, arch string) ([]usage, error) {
	command := exec.Command(ptxas, "--verbose", "--gpu-name="+arch, "--output-file="+os.DevNull, file)
	said, err := command.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s for %s: ptxas: %w\n%s", filepath.Base(file), arch, err, bytes.TrimSpace(said))
	}
	return readReport(string(said))
}

var (
	entryLine     = regexp.MustCompile(`Compiling entry function '([^']+)' for`)
	functionLine  = regexp.MustCompile(`Function properties for (\S+)`)
	stackLine     = regexp.MustCompile(`(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads`)
	registersLine = regexp.MustCompile(`Used (\d+) registers`)
	sharedLine    = regexp.MustCompile(`(\d+) bytes smem`)
)

// readReport reads what ptxas --verbose prints. For each kernel that is a line naming it, "Function properties for" it
// and for the functions it calls that were not inlined, each with a line of stack and spills, and a line of registers
// and shared memory. A function that is reported several times is kept once.
func readReport(said string) ([]usage, error) {
	var used []usage
	at := func(name string) *usage {
		i := slices.IndexFunc(used, func(u usage) bool { return u.name == name })
		if i < 0 {
			i, used = len(used), append(used, usage{name: name})
		}
		return &used[i]
	}
	var kernel, function string
	for line := range strings.Lines(said) {
		if m := entryLine.FindStringSubmatch(line); m != nil {
			kernel, function = m[1], ""
			at(kernel).entry = true
			at(kernel).registers = -1
		} else if m := functionLine.FindStringSubmatch(line); m != nil {
			function = m[1]
		} else if m := stackLine.FindStringSubmatch(line); m != nil && function != "" {
			u := at(function)
			u.stack = max(u.stack, number(m[1]))
			u.spillStore, u.spillLoad = max(u.spillStore, number(m[2])), max(u.spillLoad, number(m[3]))
		} else if m := registersLine.FindStringSubmatch(line); m != nil && kernel != "" {
			u := at(kernel)
			u.registers = number(m[1])
			if m := sharedLine.FindStringSubmatch(line); m != nil {
				u.shared = number(m[1])
			}
		}
	}
	for _, u := range used {
		if u.entry && u.registers < 0 {
			return nil, fmt.Errorf("ptxas did not say how many registers %s takes; its output:\n%s", u.name, said)
		}
	}
	return used, nil
}

// number reads digits that a pattern has found.
func number(digits string) int {
	n, err := strconv.Atoi(digits)
	if err != nil {
		panic(err) // a pattern of ours let something else through
	}
	return n
}

// row is one line of the table.
type row struct {
	usage
	file    string
	arch    string
	threads int // of a block, at most
}

// printTable prints rows by kernel, and in the order given within one.
func printTable(out io.Writer, rows []row) error {
	slices.SortStableFunc(rows, func(a, b row) int { return strings.Compare(a.name, b.name) })
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "kernel\tarch\tregisters\tshared B\tstack B\tspill B st/ld\tthreads\tblocks/SM\toccupancy")
	for _, r := range rows {
		if !r.entry {
			fmt.Fprintf(w, "%s (function)\t%s\t-\t-\t%d\t%d/%d\t-\t-\t-\n", r.name, r.arch, r.stack, r.spillStore, r.spillLoad)
			continue
		}
		blocks, occupancy := "?", "?"
		if m, known := multiprocessorOf(r.arch); known && r.threads > 0 {
			n := m.residentBlocks(r.threads, r.registers, r.shared)
			blocks, occupancy = strconv.Itoa(n), fmt.Sprint(m.occupancy(r.threads, n), "%")
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d/%d\t%d\t%s\t%s\n",
			r.name, r.arch, r.registers, r.shared, r.stack, r.spillStore, r.spillLoad, r.threads, blocks, occupancy)
	}
	return w.Flush()
}
