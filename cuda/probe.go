package cuda

import (
	"fmt"
	"os"
	"strings"
)

// LibraryVariable names the environment variable with the path of the driver library to use instead of
// the system's.
const LibraryVariable = "ONMART_LIBCUDA"

// minDriver is the oldest CUDA version of a driver that loads our PTX: ISA 7.8, which is CUDA 11.8 (driver
// 520).
const minDriver = 11080

// minCapability is the oldest device our PTX runs on: compute_75, Turing (RTX 20, T4).
const minCapability = 75

// State is what was found.
type State string

const (
	NoLibrary State = "no driver" // no driver library
	NotUsable State = "no device" // a library, but no device that can be used through it
	Ready     State = "ready"     // at least one usable device
)

// Report is what a probe found. Reason and Remedy are empty when State is Ready.
type Report struct {
	State   State        `json:"state"`
	Library string       `json:"library,omitempty"` // what was opened
	Driver  string       `json:"driver,omitempty"`  // newest CUDA version that the driver serves, such as 12.4
	Devices []DeviceInfo `json:"devices"`
	Reason  string       `json:"reason,omitempty"`
	Remedy  string       `json:"remedy,omitempty"`

	code Result // of the call that failed, if one did
}

// DeviceInfo is one GPU as its driver describes it. What the driver does not tell is 0.
type DeviceInfo struct {
	Index      int    `json:"index"`
	Name       string `json:"name"`
	Capability string `json:"compute_capability"` // such as 7.5
	Memory     int64  `json:"memory_bytes"`
	SMs        int    `json:"multiprocessors"`
	Usable     bool   `json:"usable"`
	Reason     string `json:"reason,omitempty"` // why not

	ClockKHz        int `json:"clock_khz,omitempty"` // the highest
	MemoryClockKHz  int `json:"memory_clock_khz,omitempty"`
	MemoryBusBits   int `json:"memory_bus_bits,omitempty"`
	L2Bytes         int `json:"l2_bytes,omitempty"`
	SharedPerBlock  int `json:"shared_bytes_per_block,omitempty"` // that a launch may ask for without more ado
	SharedPerSM     int `json:"shared_bytes_per_multiprocessor,omitempty"`
	RegistersPerSM  int `json:"registers_per_multiprocessor,omitempty"` // of 32 bits
	ThreadsPerBlock int `json:"max_threads_per_block,omitempty"`
}

// Bandwidth is what the memory can move at most, in bytes a second; 0 where the driver does not tell. Memory
// of GPUs moves two words a clock.
func (d DeviceInfo) Bandwidth() float64 {
	return 2 * float64(d.MemoryClockKHz) * 1e3 * float64(d.MemoryBusBits) / 8
}

// emulatorName is what the host emulation (package cuda/kernels/emulator) calls its device.
const emulatorName = "Onmart emulator (no GPU)"

// Emulated tells whether the device is the host emulation: its results are those of the kernels, its times say
// nothing of a GPU.
func (d DeviceInfo) Emulated() bool { return d.Name == emulatorName }

// unavailable says why there is no driver to ask or no device to use.
type unavailable struct {
	state          State
	library        string
	code           Result // Success where no call said it
	reason, remedy string
}

func (u *unavailable) Error() string {
	return fmt.Sprintf("CUDA: %s: %s; what to do: %s", u.state, u.reason, u.remedy)
}

// Is makes errors.Is(err, cuda.NoDevice) hold. It is no Unwrap: nothing is lost when nothing was opened.
func (u *unavailable) Is(target error) bool { return u.code != Success && target == u.code }

// Probe looks for CUDA devices; of the options it takes Library and Driver. It never fails: what goes wrong
// is in the report. It makes no context, and looks for nothing before it is called.
func Probe(o Options) Report { return probe(o, open) }

func probe(o Options, open func(library string, all bool) (Driver, *unavailable)) (r Report) {
	library := o.library()
	defer func() {
		if p := recover(); p != nil {
			r = Report{State: NotUsable, Library: library, Devices: []DeviceInfo{},
				Reason: fmt.Sprintf("the driver library could not be used: %v", p),
				Remedy: "reinstall NVIDIA's driver, or go on with --device cpu"}
		}
	}()
	d := o.Driver
	if d == nil {
		var missing *unavailable
		if d, missing = open(library, false); missing != nil {
			return Report{State: missing.state, Library: missing.library, Devices: []DeviceInfo{},
				Reason: missing.reason, Remedy: missing.remedy}
		}
	}
	return ask(d)
}

// ask makes the report of a driver that was opened.
func ask(d Driver) Report {
	r := Report{State: NotUsable, Library: d.Name(), Devices: []DeviceInfo{}}
	version, versionCode := d.Version() // may be asked before cuInit, and tells most when that fails
	if versionCode == Success {
		r.Driver = versionText(version)
	}
	refuse := func(call string, code Result) Report {
		r.Reason, r.Remedy = explain(call, code)
		r.code = code
		return r
	}
	if code := d.Init(); code != Success {
		return refuse("cuInit", code)
	}
	if versionCode != Success {
		return refuse("cuDriverGetVersion", versionCode)
	}
	if version < minDriver {
		r.Reason = fmt.Sprintf("the driver is too old: it serves CUDA %s, onmart needs %s", r.Driver, versionText(minDriver))
		r.Remedy = "install NVIDIA driver 520 or newer"
		return r
	}
	n, code := d.DeviceCount()
	if code != Success {
		return refuse("cuDeviceGetCount", code)
	}
	if n == 0 {
		return refuse("cuDeviceGetCount", NoDevice)
	}
	for i := range n {
		r.Devices = append(r.Devices, describe(d, i))
	}
	for _, dev := range r.Devices {
		if dev.Usable {
			r.State = Ready
			return r
		}
	}
	r.Reason = "no device can be used: " + r.Devices[0].Reason
	r.Remedy = unusableRemedy
	return r
}

const unusableRemedy = "check that nvidia-smi works, use a GPU of compute capability 7.5 or newer (Turing: RTX 20, T4), " +
	"or go on with --device cpu"

// versionText is the driver's number of a CUDA version as people write it: 12.4.
func versionText(version int) string { return fmt.Sprintf("%d.%d", version/1000, version%1000/10) }

// describe asks for one device.
func describe(d Driver, ordinal int) DeviceInfo {
	dev := DeviceInfo{Index: ordinal}
	name, code := d.DeviceName(ordinal)
	if code == Success {
		dev.Name = name
		dev.Memory, code = d.DeviceMemory(ordinal)
	}
	var major, minor int
	for _, a := range []struct {
		attribute Attribute
		value     *int
	}{{AttrMajor, &major}, {AttrMinor, &minor}, {AttrMultiprocessors, &dev.SMs}} {
		if code == Success {
			*a.value, code = d.DeviceAttribute(ordinal, a.attribute)
		}
	}
	if code != Success {
		dev.Reason = fmt.Sprintf("the driver does not describe it (CUDA error %d)", int32(code))
		return dev
	}
	dev.Capability = fmt.Sprintf("%d.%d", major, minor)
	if 10*major+minor < minCapability {
		dev.Reason = fmt.Sprintf("its compute capability %s is below %d.%d", dev.Capability, minCapability/10, minCapability%10)
	} else {
		dev.Usable = true
	}
	for _, a := range []struct {
		attribute Attribute
		value     *int
	}{{AttrClockKHz, &dev.ClockKHz}, {AttrMemoryClockKHz, &dev.MemoryClockKHz}, {AttrMemoryBusBits, &dev.MemoryBusBits},
		{AttrL2Bytes, &dev.L2Bytes}, {AttrSharedPerBlock, &dev.SharedPerBlock}, {AttrSharedPerSM, &dev.SharedPerSM},
		{AttrRegistersPerSM, &dev.RegistersPerSM}, {AttrMaxThreadsPerBlock, &dev.ThreadsPerBlock}} {
		if v, code := d.DeviceAttribute(ordinal, a.attribute); code == Success { // not told: 0, and nothing depends on it
			*a.value = v
		}
	}
	return dev
}

// explain turns a code of a call that looks for devices into a reason and a remedy.
func explain(call string, code Result) (reason, remedy string) {
	switch code {
	case StubLibrary:
		return "the driver library is the toolkit's stub, which has no driver behind it",
			"take the toolkit's stubs folder off LD_LIBRARY_PATH, and install NVIDIA's driver"
	case NoDevice:
		reason = "the driver is installed but sees no GPU"
		if hidden, set := os.LookupEnv("CUDA_VISIBLE_DEVICES"); set {
			return reason + fmt.Sprintf("; CUDA_VISIBLE_DEVICES=%q hides some or all", hidden),
				"unset CUDA_VISIBLE_DEVICES, or name a device that exists"
		}
		return reason, "check that nvidia-smi lists a GPU; in a container pass one in (--gpus all)"
	case SystemNotReady:
		return "the GPU system is not ready (CUDA error 802)", "start nvidia-fabricmanager, then try again"
	case DriverMismatch:
		return "the driver library and the kernel module are of different versions (CUDA error 803)",
			"restart the machine after a driver update, or reinstall the driver"
	case Unknown:
		return call + " failed with CUDA error 999 (unknown)",
			"check that nvidia-smi works; a suspended laptop may need `modprobe -r nvidia_uvm && modprobe nvidia_uvm`"
	}
	return fmt.Sprintf("%s failed with CUDA error %d", call, int32(code)),
		"check that nvidia-smi works, and reinstall NVIDIA's driver where it does not"
}

// String is the report for people, one line a fact.
func (r Report) String() string {
	var s strings.Builder
	fmt.Fprintf(&s, "CUDA: %s", r.State)
	if r.Driver != "" {
		fmt.Fprintf(&s, ", driver for CUDA %s", r.Driver)
	}
	if r.Library != "" {
		fmt.Fprintf(&s, " (%s)", r.Library)
	}
	s.WriteByte('\n')
	for _, d := range r.Devices {
		fmt.Fprintf(&s, "  cuda:%d  ", d.Index)
		if d.Capability != "" {
			fmt.Fprintf(&s, "%s, compute capability %s, %.1f GiB, %d multiprocessors", d.Name, d.Capability,
				float64(d.Memory)/(1<<30), d.SMs)
		}
		if d.Capability != "" && !d.Usable {
			s.WriteString("; ")
		}
		if !d.Usable {
			s.WriteString("not usable: " + d.Reason)
		}
		s.WriteByte('\n')
	}
	if r.Reason != "" {
		fmt.Fprintf(&s, "  why: %s\n  what to do: %s\n", r.Reason, r.Remedy)
	}
	return s.String()
}
