//go:build (linux || darwin) && !nocuda && !cu

package cuda

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ebitengine/purego"
)

// candidates are the names to open, in order. WSL keeps the driver's library out of the loader's path.
func candidates(override string) []string {
	if override != "" {
		return []string{override}
	}
	return []string{"libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"}
}

// open finds the driver library and binds it: all of it, or as much as Probe asks. It stays open: a driver
// that was initialised does not survive being closed.
func open(override string, all bool) (Driver, *unavailable) {
	names := candidates(override)
	var why []string
	for _, name := range names {
		handle, err := purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_LOCAL)
		if err != nil {
			why = append(why, err.Error())
			continue
		}
		lib := &library{name: name}
		if missing := lib.bind(handle, all); len(missing) > 0 {
			return nil, &unavailable{state: NotUsable, library: name,
				reason: "the library lacks " + strings.Join(missing, ", ") + ", so it is no CUDA driver, or one too old",
				remedy: "install NVIDIA driver 520 or newer" + overrideHint(override)}
		}
		return lib, nil
	}
	u := &unavailable{state: NoLibrary, reason: "no CUDA driver library: " + strings.Join(why, "; ")}
	for _, name := range names { // it is there and cannot be loaded: another fault than absence
		if _, err := os.Stat(name); err == nil && filepath.IsAbs(name) {
			u.state, u.library = NotUsable, name
			u.reason = "the driver library cannot be loaded: " + strings.Join(why, "; ")
		}
	}
	u.remedy = "install NVIDIA's driver (the CUDA toolkit is not needed); in a container pass the GPU in (--gpus all)" +
		overrideHint(override)
	return nil, u
}

func overrideHint(override string) string {
	if override == "" {
		return ""
	}
	return fmt.Sprintf("; or correct or unset %s (now %s)", LibraryVariable, override)
}

// bind looks up the symbols that Probe needs or all of them, and returns the names that are not there.
func (l *library) bind(handle uintptr, all bool) (missing []string) {
	names := symbols[:probeSymbols]
	if all {
		names = symbols[:]
	}
	for i, name := range names {
		address, err := purego.Dlsym(handle, name)
		if err != nil {
			missing = append(missing, name)
			continue
		}
		l.address[i] = address
	}
	return missing
}
