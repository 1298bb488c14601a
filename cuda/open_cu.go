//go:build cu && !nocuda

package cuda

import (
	"reflect"

	"gorgonia.org/cu"
)

// library asks through gorgonia.org/cu, which is linked to libcuda and has called cuInit before main;
// where that failed the process has ended.
type library struct{}

func open(string) (driver, string, *absent) { return library{}, "gorgonia.org/cu", nil }

func (library) initialize() int { return 0 }

func (library) version() (int, int) {
	v := cu.Version()
	if v < 0 {
		return 0, 999
	}
	return v, 0
}

func (library) deviceCount() (int, int) {
	n, err := cu.NumDevices()
	return n, code(err)
}

func (library) device(i int) (name string, capability, sms int, memory int64, fault int) {
	dev, err := cu.GetDevice(i)
	if err != nil {
		return "", 0, 0, 0, code(err)
	}
	if name, err = dev.Name(); err != nil {
		return "", 0, 0, 0, code(err)
	}
	if memory, err = dev.TotalMem(); err != nil {
		return name, 0, 0, 0, code(err)
	}
	var values [3]int
	for at, attribute := range []cu.DeviceAttribute{cu.ComputeCapabilityMajor, cu.ComputeCapabilityMinor, cu.MultiprocessorCount} {
		if values[at], err = dev.Attribute(attribute); err != nil {
			return name, 0, 0, memory, code(err)
		}
	}
	return name, 10*values[0] + values[1], values[2], memory, 0
}

// code is the CUresult inside an error of cu, whose type is not exported; 999 (unknown) for another.
func code(err error) int {
	if err == nil {
		return 0
	}
	if v := reflect.ValueOf(err); v.CanInt() {
		return int(v.Int())
	}
	return 999
}
