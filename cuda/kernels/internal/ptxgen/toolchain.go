package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// toolsVariable names the folder to take the tools from instead of the cache.
const toolsVariable = "ONMART_CUDA_TOOLS"

// wheel is a Python package of NVIDIA's that carries a piece of the toolkit.
type wheel struct {
	requirement string   // name==version, for pip
	file        string   // what pip downloads, for linux/amd64
	sha256      string   // of that file
	size        string   // for the message before the download
	folder      string   // in the cache
	version     string   // as the tool prints its own; "" where it is asked in another way
	wanted      []string // paths in the wheel, which are kept under their last names
}

var (
	nvrtc11 = wheel{
		requirement: "nvidia-cuda-nvrtc-cu11==11.8.89",
		file:        "nvidia_cuda_nvrtc_cu11-11.8.89-py3-none-manylinux2014_x86_64.whl",
		sha256:      "a8d02f3cba345be56b1ffc3e74d8f61f02bb758dd31b0f20e12277a5a244f756",
		size:        "23 MB",
		folder:      "cuda-11.8",
		wanted:      []string{"nvidia/cuda_nvrtc/lib/libnvrtc-builtins.so.11.8", "nvidia/cuda_nvrtc/lib/libnvrtc.so.11.2"},
	}
	// ptxas11 refuses PTX newer than ISA 7.8 and so holds the least driver; it knows sm_35 to sm_90.
	ptxas11 = wheel{
		requirement: "nvidia-cuda-nvcc-cu11==11.8.89",
		file:        "nvidia_cuda_nvcc_cu11-11.8.89-py3-none-manylinux2014_x86_64.whl",
		sha256:      "f8e1e995166c884f2f5bf94975d7abb89175363b8712f7f81cd38d0df1b2cd85",
		size:        "20 MB",
		folder:      "cuda-11.8",
		version:     "V11.8.89",
		wanted:      []string{"nvidia/cuda_nvcc/bin/ptxas"},
	}
	// ptxas12 knows sm_50 to sm_121.
	ptxas12 = wheel{
		requirement: "nvidia-cuda-nvcc-cu12==12.9.86",
		file:        "nvidia_cuda_nvcc_cu12-12.9.86-py3-none-manylinux2010_x86_64.manylinux_2_12_x86_64.whl",
		sha256:      "5d6a0d32fdc7ea39917c20065614ae93add6f577d840233237ff08e9a38f58f0",
		size:        "41 MB",
		folder:      "cuda-12.9",
		version:     "V12.9.86",
		wanted:      []string{"nvidia/cuda_nvcc/bin/ptxas"},
	}
)

// toolbox finds the tools.
type toolbox struct {
	override string // $ONMART_CUDA_TOOLS; "" uses the cache
	log      io.Writer
}

// nvrtc gives the paths of the compiler's two libraries.
func (t *toolbox) nvrtc() (builtins, library string, err error) {
	paths, err := t.find(nvrtc11)
	if err != nil {
		return "", "", fmt.Errorf("NVRTC 11.8: %w", err)
	}
	return paths[0], paths[1], nil
}

// ptxas gives the path of an assembler, which has the version wanted.
func (t *toolbox) ptxas(w wheel) (string, error) {
	paths, err := t.find(w)
	if err != nil {
		return "", fmt.Errorf("ptxas: %w", err)
	}
	said, err := exec.Command(paths[0], "--version").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s cannot be run: %w\n%s", paths[0], err, bytes.TrimSpace(said))
	}
	if !bytes.Contains(said, []byte(w.version)) {
		return "", fmt.Errorf("%s is not ptxas %s, whose figures are wanted; unset %s to let it be downloaded. It says:\n%s",
			paths[0], w.version, toolsVariable, bytes.TrimSpace(said))
	}
	return paths[0], nil
}

// find gives the paths of the files wanted of a wheel, in its order, and says where they came from.
func (t *toolbox) find(w wheel) ([]string, error) {
	if t.override != "" {
		paths, missing := locate(t.override, w)
		if missing != "" {
			return nil, fmt.Errorf("%s=%s has no %s: it should be a folder with the files of %s, or a CUDA 11.8 toolkit; "+
				"unset it to let them be downloaded", toolsVariable, t.override, missing, w.requirement)
		}
		fmt.Fprintf(t.log, "ptxgen: using %s\n", strings.Join(paths, ", "))
		return paths, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("no folder to keep the tools in: %w; set %s", err, toolsVariable)
	}
	folder := filepath.Join(cache, "onmart", w.folder)
	if _, missing := locate(folder, w); missing != "" {
		if err := download(w, folder, t.log); err != nil {
			return nil, fmt.Errorf("download of %s: %w", w.requirement, err)
		}
	}
	paths, missing := locate(folder, w)
	if missing != "" {
		return nil, fmt.Errorf("%s has no %s after the download", folder, missing)
	}
	fmt.Fprintf(t.log, "ptxgen: using %s\n", strings.Join(paths, ", "))
	return paths, nil
}

// locate looks for the files wanted of a wheel in a folder: in its own below it, alone, as in the unpacked wheel, and
// as in a toolkit. missing is the name of the first that is not there.
func locate(folder string, w wheel) (paths []string, missing string) {
	for _, want := range w.wanted {
		name := path.Base(want)
		found := ""
		for _, candidate := range []string{path.Join(w.folder, name), name, want, "lib64/" + name, "bin/" + name} {
			full := filepath.Join(folder, filepath.FromSlash(candidate))
			if info, err := os.Stat(full); err == nil && info.Mode().IsRegular() {
				found = full
				break
			}
		}
		if found == "" {
			return nil, name
		}
		paths = append(paths, found)
	}
	return paths, ""
}

// download gets a wheel by pip, compares its SHA-256, and puts the files wanted into the folder, each complete or not
// at all.
func download(w wheel, folder string, log io.Writer) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(folder, ".download-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	start := time.Now()
	fmt.Fprintf(log, "ptxgen: downloading %s (%s) with pip into %s\n", w.requirement, w.size, folder)
	pip, err := findPip(work)
	if err != nil {
		return err
	}
	args := append(pip[1:], "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:",
		"--dest", work, w.requirement)
	if out, err := exec.Command(pip[0], args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s\nIs there a network, or a package index in pip's settings? "+
			"Else put the files of the wheel %s into a folder and set %s to it",
			pip[0], strings.Join(args, " "), err, bytes.TrimSpace(out), w.file, toolsVariable)
	}
	data, err := os.ReadFile(filepath.Join(work, w.file))
	if err != nil {
		return fmt.Errorf("pip downloaded another file than %s, which is for linux/amd64: %w", w.file, err)
	}
	if got := sha256.Sum256(data); hex.EncodeToString(got[:]) != w.sha256 {
		return fmt.Errorf("%s is not the file that was pinned: its SHA-256 is %x, not %s; nothing of it was used. "+
			"Ask whoever serves the package index why", w.file, got, w.sha256)
	}
	if err := unpack(data, w, work, folder); err != nil {
		return fmt.Errorf("unpack %s: %w", w.file, err)
	}
	fmt.Fprintf(log, "ptxgen: downloaded, SHA-256 as pinned, %.1f s\n", time.Since(start).Seconds())
	return nil
}

// findPip gives the command that runs pip: python3's own, or, where Python comes without it as Debian's does, one in an
// environment made for it below work.
func findPip(work string) ([]string, error) {
	python, err := exec.LookPath("python3")
	if err != nil {
		return nil, fmt.Errorf("python3, whose pip downloads it, is not on the path: install it, "+
			"or unpack the wheel into a folder and set %s to it", toolsVariable)
	}
	if exec.Command(python, "-m", "pip", "--version").Run() == nil {
		return []string{python, "-m", "pip"}, nil
	}
	venv := filepath.Join(work, "venv")
	if out, err := exec.Command(python, "-m", "venv", venv).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("%s has neither pip nor venv: install one of them (Debian: python3-pip), "+
			"or unpack the wheel into a folder and set %s to it: %w\n%s", python, toolsVariable, err, bytes.TrimSpace(out))
	}
	return []string{filepath.Join(venv, "bin", "python"), "-m", "pip"}, nil
}

// unpack puts the files wanted of a wheel into a folder, by way of work, which lies in the same file system.
func unpack(data []byte, w wheel, work, folder string) error {
	archive, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return err
	}
	for _, want := range w.wanted {
		in, err := archive.Open(want)
		if err != nil {
			return err
		}
		name := path.Base(want)
		partial := filepath.Join(work, name)
		err = errors.Join(writeFile(partial, in), in.Close())
		if err != nil {
			return fmt.Errorf("%s: %w", want, err)
		}
		if err := os.Rename(partial, filepath.Join(folder, name)); err != nil {
			return err
		}
	}
	return nil
}

// writeFile writes an executable file, which a wheel does not mark as such.
func writeFile(name string, in io.Reader) error {
	out, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
