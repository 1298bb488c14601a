package kernels

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/onmart/onmart/cuda"
	"github.com/onmart/onmart/cuda/cudatest"
	"github.com/onmart/onmart/cuda/kernels/internal/ptxfile"
)

// The committed PTX is that of the sources beside it. This compares what its head says; that the text below the head
// is the compiler's, CI shows by compiling again.
func TestPTXIsCurrent(t *testing.T) {
	sources, err := ptxfile.Read(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	for _, fault := range sources.Faults(os.DirFS("ptx")) {
		t.Error(fault)
	}
	var names []string
	for _, k := range sources.Kernels {
		names = append(names, k.Module())
	}
	if !slices.Equal(Modules(), names) {
		t.Errorf("the binary has modules %v, the folder kernels %v", Modules(), names)
	}
}

// Every module asks of a driver and a device what the constants say and no more.
func TestPTXNeedsWhatItSays(t *testing.T) {
	for _, name := range Modules() {
		text, err := ptx(name)
		if err != nil {
			t.Fatal(err)
		}
		if at := bytes.IndexByte(text, 0); at != len(text)-1 {
			t.Errorf("%s: the first zero byte is at %d of %d", name, at, len(text))
		}
		for directive, want := range map[string]string{"version": ISA, "target": fmt.Sprintf("sm_%d", MinCapability), "address_size": "64"} {
			found := regexp.MustCompile(`(?m)^\.`+directive+` (.*)$`).FindAllSubmatch(text, -1)
			if len(found) != 1 || string(found[0][1]) != want {
				t.Errorf("%s: .%s %q, want one, %s", name, directive, found, want)
			}
		}
	}
}

// Package cuda, which stands below this one, refuses exactly the drivers that cannot load the PTX.
func TestOlderDriverIsRefused(t *testing.T) {
	for _, c := range []struct {
		version int
		open    bool
	}{{MinCUDA - 10, false}, {MinCUDA, true}} {
		d, err := cuda.Open(cuda.Options{Driver: cudatest.NewFake(cudatest.FakeOptions{Version: c.version})})
		if (err == nil) != c.open {
			t.Errorf("a driver for CUDA %d: %v", c.version, err)
		}
		if err == nil {
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		} else if !strings.Contains(err.Error(), fmt.Sprint(MinDriver)) {
			t.Errorf("the error does not name driver %d: %v", MinDriver, err)
		}
	}
}

// Kernels are looked up by their names in the source: none is mangled or in two modules.
func TestKernelNames(t *testing.T) {
	module := map[string]string{}
	for _, name := range Modules() {
		text, err := ptx(name)
		if err != nil {
			t.Fatal(err)
		}
		entries := regexp.MustCompile(`(?m)^\.visible \.entry (\S+)\(`).FindAllSubmatch(text, -1)
		if len(entries) == 0 {
			t.Errorf("%s has no kernel", name)
		}
		for _, entry := range entries {
			kernel := string(entry[1])
			if strings.HasPrefix(kernel, "_Z") {
				t.Errorf("%s: kernel %s is mangled: declare it extern \"C\"", name, kernel)
			}
			if module[kernel] != "" {
				t.Errorf("kernel %s is in %s and in %s", kernel, module[kernel], name)
			}
			module[kernel] = name
		}
	}
}

func TestUnknownModule(t *testing.T) {
	if _, err := ptx("absent"); err == nil || !strings.Contains(err.Error(), `no PTX module "absent"; there are `+Modules()[0]) {
		t.Errorf("%v", err)
	}
}
