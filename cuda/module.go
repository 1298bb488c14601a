package cuda

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
)

// LoadedModule is code on the device.
type LoadedModule struct {
	device *Device
	name   string
	id     Module // 0 once closed
}

// LoadModule compiles PTX text for the device and loads it; name is for errors. The driver keeps what it
// compiled in a cache of its own, so that the second start is faster. The error says whether the PTX is too
// new for the driver (and which driver it needs), refused by its compiler (with the first lines of what that
// said), for another device, or too large for the memory.
func (d *Device) LoadModule(name string, ptx []byte) (*LoadedModule, error) {
	image := ptx
	if len(image) == 0 || image[len(image)-1] != 0 {
		image = append(bytes.Clone(ptx), 0)
	}
	id, log, code := d.driver.ModuleLoad(image)
	if code != Success {
		return nil, d.fail("cuModuleLoadDataEx of "+name, code, d.refusal(ptx, log, code))
	}
	d.count("module", 1)
	return &LoadedModule{device: d, name: name, id: id}, nil
}

// refusal says what is known of why a module was not loaded.
func (d *Device) refusal(ptx []byte, log string, code Result) string {
	switch code {
	case UnsupportedPTX:
		text := "this driver serves CUDA " + versionText(d.version)
		if isa := directive(ptx, ".version"); isa != "" {
			text = fmt.Sprintf("the PTX is of version %s%s; %s", isa, driverFor(isa), text)
		}
		return text + ": update NVIDIA's driver"
	case NoBinaryForGPU:
		target := directive(ptx, ".target")
		return fmt.Sprintf("the PTX is for %s, and the device has compute capability %s", target, d.info.Capability)
	case JITNotFound:
		return "in a container, NVIDIA_DRIVER_CAPABILITIES must include compute; else reinstall NVIDIA's driver"
	case OutOfMemory:
		if free, total, code := d.driver.MemInfo(); code == Success {
			return fmt.Sprintf("%s of the device's %s are free; close other programs that use the GPU", size(free), size(total))
		}
	}
	return firstLines(log, 3)
}

// directive is the first argument of a PTX directive, "" where there is none.
func directive(ptx []byte, name string) string {
	m := regexp.MustCompile(`(?m)^\s*` + regexp.QuoteMeta(name) + `\s+([\w.]+)`).FindSubmatch(ptx)
	if m == nil {
		return ""
	}
	return string(m[1])
}

// driverFor names what the driver must serve for a version of PTX: the table "PTX ISA version history" of
// NVIDIA's PTX manual, and the driver branch that came with that CUDA.
func driverFor(isa string) string {
	known := map[string]string{
		"7.0": "11.0 (driver 450", "7.1": "11.1 (driver 455", "7.2": "11.2 (driver 460", "7.3": "11.3 (driver 465",
		"7.4": "11.4 (driver 470", "7.5": "11.5 (driver 495", "7.6": "11.6 (driver 510", "7.7": "11.7 (driver 515",
		"7.8": "11.8 (driver 520", "8.0": "12.0 (driver 525", "8.1": "12.1 (driver 530", "8.2": "12.2 (driver 535",
		"8.3": "12.3 (driver 545", "8.4": "12.4 (driver 550", "8.5": "12.5 (driver 555", "8.6": "12.7 (driver 565",
		"8.7": "12.8 (driver 570", "8.8": "12.9 (driver 575", "9.0": "13.0 (driver 580",
	}
	if k, ok := known[isa]; ok {
		return ", for which the driver must serve CUDA " + k + " or newer)"
	}
	return ""
}

// firstLines is the start of a log, on one line.
func firstLines(log string, most int) string {
	var lines []string
	for line := range strings.Lines(log) {
		if line = strings.TrimSpace(line); line != "" && len(lines) < most {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, " | ")
}

// untilZero is the C string in a buffer.
func untilZero(text []byte) string {
	text, _, _ = bytes.Cut(text, []byte{0})
	return string(text)
}

// Function finds a kernel by its name in the PTX. It is good until the module is closed.
func (m *LoadedModule) Function(name string) (Function, error) {
	f, code := m.device.driver.ModuleFunction(m.id, name)
	if code != Success {
		return 0, m.device.fail(fmt.Sprintf("cuModuleGetFunction of %s in %s", name, m.name), code, "")
	}
	return f, nil
}

// Close unloads the module; its kernels must not be running. Closing twice does nothing.
func (m *LoadedModule) Close() error {
	if m.id == 0 {
		return nil
	}
	id := m.id
	m.id = 0
	m.device.count("module", -1)
	if code := m.device.driver.ModuleUnload(id); code != Success {
		return m.device.fail("cuModuleUnload of "+m.name, code, "")
	}
	return nil
}

// logBytes is room for what the driver's compiler says: a line of some 100 bytes a fault.
const logBytes = 8 << 10
