//go:build (linux || darwin) && !nocuda && !cu

package cuda

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/ebitengine/purego"
)

// library is the driver opened at run time.
type library struct {
	init      func(flags uint32) int32
	getVer    func(version *int32) int32
	getCount  func(n *int32) int32
	get       func(device *int32, ordinal int32) int32
	getName   func(name *byte, size int32, device int32) int32
	totalMem  func(bytes *uintptr, device int32) int32
	attribute func(value *int32, attribute, device int32) int32
}

// CUdevice_attribute values of cuda.h.
const (
	attrMultiprocessors = 16
	attrMajor           = 75
	attrMinor           = 76
)

// candidates are the names to open, in order. WSL keeps the driver's library out of the loader's path.
func candidates(override string) []string {
	if override != "" {
		return []string{override}
	}
	return []string{"libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"}
}

// open finds and binds the driver library. It stays open: a driver that was initialised does not survive
// being closed.
func open(override string) (driver, string, *absent) {
	names := candidates(override)
	var why []string
	for _, name := range names {
		handle, err := purego.Dlopen(name, purego.RTLD_NOW|purego.RTLD_LOCAL)
		if err != nil {
			why = append(why, err.Error())
			continue
		}
		lib, missing := bind(handle)
		if len(missing) > 0 {
			return nil, "", &absent{NoDevice, name,
				fmt.Sprintf("the library lacks %s, so it is no CUDA driver, or one too old", strings.Join(missing, ", ")),
				"install NVIDIA driver 520 or newer" + overrideHint(override)}
		}
		return lib, name, nil
	}
	a := &absent{state: NoLibrary, reason: "no CUDA driver library: " + strings.Join(why, "; ")}
	for _, name := range names { // it is there and cannot be loaded: another fault than absence
		if _, err := os.Stat(name); err == nil && filepath.IsAbs(name) {
			a.state, a.library = NoDevice, name
			a.reason = "the driver library cannot be loaded: " + strings.Join(why, "; ")
		}
	}
	a.remedy = "install NVIDIA's driver (the CUDA toolkit is not needed); in a container pass the GPU in (--gpus all)" + overrideHint(override)
	return nil, "", a
}

func overrideHint(override string) string {
	if override == "" {
		return ""
	}
	return fmt.Sprintf("; or correct or unset %s (now %s)", LibraryVariable, override)
}

// bind looks every symbol up before registering it, because registering a missing one panics.
func bind(handle uintptr) (*library, []string) {
	lib := &library{}
	var missing []string
	for _, f := range []struct {
		name string
		fn   any
	}{
		{"cuInit", &lib.init}, {"cuDriverGetVersion", &lib.getVer}, {"cuDeviceGetCount", &lib.getCount}, {"cuDeviceGet", &lib.get},
		{"cuDeviceGetName", &lib.getName}, {"cuDeviceTotalMem_v2", &lib.totalMem}, {"cuDeviceGetAttribute", &lib.attribute},
	} {
		symbol, err := purego.Dlsym(handle, f.name)
		if err != nil {
			missing = append(missing, f.name)
			continue
		}
		purego.RegisterFunc(f.fn, symbol)
	}
	return lib, missing
}

func (l *library) initialize() int { return int(l.init(0)) }

func (l *library) version() (int, int) {
	var v int32
	code := l.getVer(&v)
	return int(v), int(code)
}

func (l *library) deviceCount() (int, int) {
	var n int32
	code := l.getCount(&n)
	return int(n), int(code)
}

func (l *library) device(i int) (name string, capability, sms int, memory int64, code int) {
	var dev int32
	if code := l.get(&dev, int32(i)); code != 0 {
		return "", 0, 0, 0, int(code)
	}
	text := make([]byte, 256)
	if code := l.getName(&text[0], int32(len(text)), dev); code != 0 {
		return "", 0, 0, 0, int(code)
	}
	name, _, _ = strings.Cut(string(text), "\x00")
	var bytes uintptr
	if code := l.totalMem(&bytes, dev); code != 0 {
		return name, 0, 0, 0, int(code)
	}
	var values [3]int32
	for at, attribute := range []int32{attrMajor, attrMinor, attrMultiprocessors} {
		if code := l.attribute(&values[at], attribute, dev); code != 0 {
			return name, 0, 0, int64(bytes), int(code)
		}
	}
	return name, int(10*values[0] + values[1]), int(values[2]), int64(bytes), 0
}
