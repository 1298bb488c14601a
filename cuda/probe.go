// Package cuda finds CUDA devices from Go without a toolkit and without cgo.
//
// What enters: nothing but the machine. What leaves: a Report that says which devices there are or why
// there is none, and what to do about it. Nothing is looked for before Probe is called, and Probe makes
// no context, so it needs no OS thread of its own; what makes a context later must lock its thread,
// because the current context belongs to the thread.
//
// Three builds: the default opens the driver's libcuda at run time; the tag nocuda leaves that out, and
// the binary is static; the tag cu goes through gorgonia.org/cu instead, which needs cgo and cuda.h and
// ends the process at start where there is no device, so it is for machines that have one.
//
// The package knows nothing of retail and imports nothing of ours.
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
	NoDevice  State = "no device" // a library, but no device that can be used through it
	Ready     State = "ready"     // at least one usable device
)

// Options of a probe; the zero value probes this machine.
type Options struct {
	// Library is the driver library to open; "" takes $ONMART_LIBCUDA, and where that is unset the
	// system's libcuda.so.1, also in WSL's place.
	Library string
}

// Report is what a probe found. Reason and Remedy are empty when State is Ready.
type Report struct {
	State   State    `json:"state"`
	Library string   `json:"library,omitempty"` // what was opened
	Driver  string   `json:"driver,omitempty"`  // newest CUDA version that the driver serves, such as 12.4
	Devices []Device `json:"devices"`
	Reason  string   `json:"reason,omitempty"`
	Remedy  string   `json:"remedy,omitempty"`
}

// Device is one GPU as its driver describes it.
type Device struct {
	Index      int    `json:"index"`
	Name       string `json:"name"`
	Capability string `json:"compute_capability"` // such as 7.5
	Memory     int64  `json:"memory_bytes"`
	SMs        int    `json:"multiprocessors"`
	Usable     bool   `json:"usable"`
	Reason     string `json:"reason,omitempty"` // why not
}

// driver is what a probe asks of the CUDA driver. Codes are CUresult; 0 is success.
type driver interface {
	initialize() int
	version() (cuda, code int)
	deviceCount() (n, code int)
	// device describes device i: capability is 10*major + minor, memory is in bytes.
	device(i int) (name string, capability, sms int, memory int64, code int)
}

// absent says why there is no driver to ask.
type absent struct {
	state          State
	library        string
	reason, remedy string
}

// Probe looks for CUDA devices. It never fails: what goes wrong is in the report.
func Probe(o Options) Report { return probe(o, open) }

func probe(o Options, open func(library string) (driver, string, *absent)) (r Report) {
	if o.Library == "" {
		o.Library = os.Getenv(LibraryVariable)
	}
	defer func() {
		if p := recover(); p != nil {
			r = Report{State: NoDevice, Library: o.Library, Devices: []Device{},
				Reason: fmt.Sprintf("the driver library could not be used: %v", p), Remedy: "reinstall NVIDIA's driver, or go on with --device cpu"}
		}
	}()
	d, library, missing := open(o.Library)
	if missing != nil {
		return Report{State: missing.state, Library: missing.library, Devices: []Device{}, Reason: missing.reason, Remedy: missing.remedy}
	}
	r = Report{State: NoDevice, Library: library, Devices: []Device{}}
	ask(d, &r)
	return r
}

// ask fills the report from a driver that was opened.
func ask(d driver, r *Report) {
	version, versionCode := d.version() // may be asked before cuInit, and tells most when that fails
	if versionCode == 0 {
		r.Driver = fmt.Sprintf("%d.%d", version/1000, version%1000/10)
	}
	if code := d.initialize(); code != 0 {
		r.Reason, r.Remedy = explain("cuInit", code)
		return
	}
	if versionCode != 0 {
		r.Reason, r.Remedy = explain("cuDriverGetVersion", versionCode)
		return
	}
	if version < minDriver {
		r.Reason = fmt.Sprintf("the driver is too old: it serves CUDA %s, onmart needs %d.%d", r.Driver, minDriver/1000, minDriver%1000/10)
		r.Remedy = "install NVIDIA driver 520 or newer"
		return
	}
	n, code := d.deviceCount()
	if code != 0 {
		r.Reason, r.Remedy = explain("cuDeviceGetCount", code)
		return
	}
	if n == 0 {
		r.Reason, r.Remedy = explain("cuDeviceGetCount", 100)
		return
	}
	for i := range n {
		r.Devices = append(r.Devices, describe(d, i))
	}
	for _, dev := range r.Devices {
		if dev.Usable {
			r.State = Ready
			return
		}
	}
	r.Reason = "no device can be used: " + r.Devices[0].Reason
	r.Remedy = "check that nvidia-smi works, use a GPU of compute capability 7.5 or newer (Turing: RTX 20, T4), or go on with --device cpu"
}

// describe asks for one device.
func describe(d driver, i int) Device {
	name, capability, sms, memory, code := d.device(i)
	dev := Device{Index: i, Name: name, Capability: fmt.Sprintf("%d.%d", capability/10, capability%10), Memory: memory, SMs: sms}
	switch {
	case code != 0:
		dev.Capability = ""
		dev.Reason = fmt.Sprintf("the driver does not describe it (CUDA error %d)", code)
	case capability < minCapability:
		dev.Reason = fmt.Sprintf("its compute capability %s is below %d.%d", dev.Capability, minCapability/10, minCapability%10)
	default:
		dev.Usable = true
	}
	return dev
}

// explain turns a CUresult into a reason and a remedy. Codes are those of cuda.h.
func explain(call string, code int) (reason, remedy string) {
	switch code {
	case 34: // CUDA_ERROR_STUB_LIBRARY
		return "the driver library is the toolkit's stub, which has no driver behind it",
			"take the toolkit's stubs folder off LD_LIBRARY_PATH, and install NVIDIA's driver"
	case 100: // CUDA_ERROR_NO_DEVICE
		reason = "the driver is installed but sees no GPU"
		if hidden, set := os.LookupEnv("CUDA_VISIBLE_DEVICES"); set {
			return reason + fmt.Sprintf("; CUDA_VISIBLE_DEVICES=%q hides some or all", hidden), "unset CUDA_VISIBLE_DEVICES, or name a device that exists"
		}
		return reason, "check that nvidia-smi lists a GPU; in a container pass one in (--gpus all)"
	case 802: // CUDA_ERROR_SYSTEM_NOT_READY
		return "the GPU system is not ready (CUDA error 802)", "start nvidia-fabricmanager, then try again"
	case 803: // CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
		return "the driver library and the kernel module are of different versions (CUDA error 803)", "restart the machine after a driver update, or reinstall the driver"
	case 999: // CUDA_ERROR_UNKNOWN
		return call + " failed with CUDA error 999 (unknown)", "check that nvidia-smi works; a suspended laptop may need `modprobe -r nvidia_uvm && modprobe nvidia_uvm`"
	}
	return fmt.Sprintf("%s failed with CUDA error %d", call, code), "check that nvidia-smi works, and reinstall NVIDIA's driver where it does not"
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
			fmt.Fprintf(&s, "%s, compute capability %s, %.1f GiB, %d multiprocessors", d.Name, d.Capability, float64(d.Memory)/(1<<30), d.SMs)
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
