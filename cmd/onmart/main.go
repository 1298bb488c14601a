// Command onmart turns a stream of purchases into features, models and live scores.
//
// Each subcommand has a file of its own that binds flags, wires the parts, calls a library and prints.
// What all of them share is here: config.go (where settings come from), console.go (what is printed
// where), interrupt.go (Ctrl-C) and root.go (the list of commands and the exit codes).
package main

import (
	"context"
	"os"
)

func main() {
	ctx, stop := interruptible(context.Background(), os.Stderr)
	code := run(ctx, newRoot(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
