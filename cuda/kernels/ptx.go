package kernels

import (
	"embed"
	"fmt"
	"strings"
)

//go:generate go run ./internal/ptxgen

// What a driver must be to load the PTX, and a device to run it. The PTX is made by NVRTC of CUDA 11.8, the oldest that
// the package registry has for every flag used here: it writes ISA 7.8, which the driver translates from CUDA 11.8 on,
// that is from driver 520 on. compute_75 is Turing (RTX 20, T4); newer devices run its PTX too.
const (
	ISA           = "7.8"
	MinCUDA       = 11080 // as the driver counts: 1000*major + 10*minor
	MinDriver     = 520
	MinCapability = 75
)

//go:embed ptx/*.ptx
var ptxFiles embed.FS

// Modules are the names of the PTX modules, sorted: "matmul" is made from matmul.cu.
func Modules() []string {
	entries, err := ptxFiles.ReadDir("ptx")
	if err != nil {
		panic(err) // the folder is in the binary
	}
	var names []string
	for _, e := range entries { // in the order of their names
		names = append(names, strings.TrimSuffix(e.Name(), ".ptx"))
	}
	return names
}

// ptx is the text of a module as the driver takes it: ending in a zero byte.
func ptx(module string) ([]byte, error) {
	text, err := ptxFiles.ReadFile("ptx/" + module + ".ptx")
	if err != nil {
		return nil, fmt.Errorf("no PTX module %q; there are %s", module, strings.Join(Modules(), ", "))
	}
	return append(text, 0), nil
}
