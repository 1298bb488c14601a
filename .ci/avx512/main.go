// Command avx512 is the first process of the emulated machine of .ci/avx512.sh: it runs the tests that lie beside it and
// turns the machine off. What it prints goes to the serial line.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"time"
)

func main() {
	for _, m := range [][2]string{{"proc", "/proc"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}} {
		if err := syscall.Mount(m[0], m[1], m[0], 0, ""); err != nil {
			fmt.Println(m, err)
		}
	}
	out, err := os.OpenFile("/dev/ttyS0", os.O_RDWR, 0)
	if err == nil {
		cmd := exec.Command("/bin/cpu.test", "-test.v", "-test.short", "-test.run", os.Getenv("TESTS"))
		cmd.Env = []string{"HOME=/tmp", "TMPDIR=/tmp", "ONMART_CPU=avx512"}
		cmd.Stdout, cmd.Stderr = out, out
		err = cmd.Run()
		fmt.Fprintln(out, "tests ended:", err)
	}
	time.Sleep(time.Second)
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
}
