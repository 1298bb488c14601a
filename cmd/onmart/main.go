// Command onmart turns a stream of purchases into features, models and live scores.
//
// Each subcommand has a file of its own that binds flags, wires the parts, calls a library and prints.
// What all of them share is here: config.go (where settings come from), console.go (what is printed
// where), interrupt.go (Ctrl-C) and root.go (the list of commands and the exit codes).
package main

import (
	"context"
	"math"
	"os"
	"runtime"
	"runtime/debug"
)

// heapFloor is what the collector takes for live from the start, so that the first tens of MB that a command makes are not
// collected six times over. It is never touched, and so takes no memory.
const heapFloor = 64 << 20

// floor is that memory. Who has set how the collector works (GOGC, GOMEMLIMIT, which counts it as used) gets what was set.
func floor() []byte {
	if debug.SetMemoryLimit(-1) != math.MaxInt64 || os.Getenv("GOGC") != "" {
		return nil
	}
	return make([]byte, heapFloor)
}

func main() {
	low := floor()
	ctx, stop := interruptible(context.Background(), os.Stderr)
	code := run(ctx, newRoot(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	runtime.KeepAlive(low)
	stop()
	os.Exit(code)
}
