package main

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newDocsCmd() *cobra.Command {
	return &cobra.Command{
		Use:    "docs",
		Short:  "Print docs/CLI.md",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(cliReference(cmd.Root()))
			return err
		},
	}
}

// cliReference is docs/CLI.md: every visible command with its flags, from the commands themselves.
func cliReference(root *cobra.Command) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# Commands of onmart\n\nMade from the commands by `go test ./cmd/onmart -run TestCLIReference -update`; do not edit.\n\n%s\n\n", root.Long)
	b.WriteString("Exit codes: 0 good, 1 failed, 2 used wrongly. Results go to standard output, progress, logs and errors to\nstandard error. Ctrl-C leaves the old output or none; a second one stops at once.\n\n")
	b.WriteString("## Flags of every command\n")
	referenceFlags(&b, root.PersistentFlags(), nil)
	for _, cmd := range root.Commands() {
		referenceCommand(&b, cmd)
	}
	return b.Bytes()
}

func referenceCommand(b *bytes.Buffer, cmd *cobra.Command) {
	if cmd.Hidden || cmd.Name() == "help" {
		return
	}
	if !cmd.HasSubCommands() {
		text := cmd.Long
		if text == "" {
			text = cmd.Short + "."
		}
		fmt.Fprintf(b, "\n## %s\n\n    %s\n\n%s\n", cmd.CommandPath(), useLine(cmd), text)
		if cmd.Example != "" {
			fmt.Fprintf(b, "\n```\n%s\n```\n", strings.Trim(cmd.Example, "\n"))
		}
		referenceFlags(b, cmd.Flags(), cmd.Root().PersistentFlags())
	}
	for _, sub := range cmd.Commands() {
		referenceCommand(b, sub)
	}
}

// useLine is the command with its arguments. Cobra's own depends on whether the command has run, because
// it adds --help then.
func useLine(cmd *cobra.Command) string {
	line := cmd.Use
	if parent := cmd.Parent(); parent != nil {
		line = parent.CommandPath() + " " + line
	}
	own := false
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		own = own || !f.Hidden && f.Name != "help" && cmd.Root().PersistentFlags().Lookup(f.Name) == nil
	})
	if own {
		line += " [flags]"
	}
	return line
}

// referenceFlags prints a table of the flags that are not in except.
func referenceFlags(b *bytes.Buffer, flags, except *pflag.FlagSet) {
	first := true
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" || f.Name == "version" || except != nil && except.Lookup(f.Name) != nil {
			return
		}
		if first {
			b.WriteString("\n| flag | default | meaning |\n| --- | --- | --- |\n")
			first = false
		}
		arg, text := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if arg != "" {
			name += " " + strings.ToUpper(arg)
		}
		value := strings.Trim(f.DefValue, "[]")
		if value != "" {
			value = "`" + value + "`"
		}
		fmt.Fprintf(b, "| `%s` | %s | %s |\n", name, value, strings.ReplaceAll(strings.ReplaceAll(text, "\n", " "), "|", "\\|"))
	})
}
