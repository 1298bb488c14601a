// Command ptxgen makes the PTX of the kernels and checks it, with a piece of the CUDA toolkit and without a GPU,
// its driver or the rest of the toolkit.
//
//	ptxgen [gen] [-dir DIR]                          ptx/NAME.ptx from every NAME.cu of DIR, with NVRTC 11.8
//	ptxgen check [-dir DIR] [-archs A,B] [-newer]    assembles ptx/*.ptx with ptxas and prints what each kernel takes
//
// DIR is the repository's cuda/kernels. The .cu and .cuh files in it enter; PTX whose head names what it was made from
// leaves, in the same bytes every time. The compiler sees these files and nothing else: no header of the machine's
// can be included.
//
// NVRTC and ptxas are looked for in $ONMART_CUDA_TOOLS (a folder with the files, or a CUDA 11.8 toolkit), else in the
// user's cache, else downloaded into it by pip, at pinned versions with pinned SHA-256.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			os.Exit(2)
		}
		fmt.Fprintln(os.Stderr, "ptxgen:", err)
		os.Exit(1)
	}
}

// run carries a command out: results go to out, what was done and the compiler's warnings to log.
func run(args []string, out, log io.Writer) error {
	command := "gen"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		command, args = args[0], args[1:]
	}
	flags := flag.NewFlagSet("ptxgen "+command, flag.ContinueOnError)
	flags.SetOutput(log)
	dir := flags.String("dir", "", "the folder of the .cu files, with ptx/ in it (default: the repository's cuda/kernels)")
	archs := flags.String("archs", "sm_75,sm_80,sm_86,sm_89,sm_90", "check: real architectures, with a comma between")
	newer := flags.Bool("newer", false, "check: also assemble for sm_100 and sm_120, with ptxas 12.9")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%s takes no argument %q", command, flags.Arg(0))
	}
	if *dir == "" {
		found, err := kernelsFolder()
		if err != nil {
			return err
		}
		*dir = found
	}
	tools := toolbox{override: os.Getenv(toolsVariable), log: log}
	switch command {
	case "gen":
		return generate(*dir, &tools, log)
	case "check":
		runs := []assembly{{ptxas11, strings.Split(*archs, ",")}}
		if *newer {
			runs = append(runs, assembly{ptxas12, []string{"sm_100", "sm_120"}})
		}
		return check(*dir, &tools, runs, allowedSpills(), out)
	}
	return fmt.Errorf("no command %q: gen or check", command)
}

// kernelsFolder is cuda/kernels of the module that the working directory lies in.
func kernelsFolder() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for at := start; ; at = filepath.Dir(at) {
		if _, err := os.Stat(filepath.Join(at, "go.mod")); err == nil {
			return filepath.Join(at, "cuda", "kernels"), nil
		}
		if at == filepath.Dir(at) {
			return "", fmt.Errorf("%s lies in no Go module: name the folder of the .cu files with -dir", start)
		}
	}
}
