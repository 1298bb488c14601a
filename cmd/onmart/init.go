package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/onmart/onmart/internal/atomicdir"
)

func newInitCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "init [DIR]",
		Short: "Write a commented onmart.yaml",
		Long: `init writes onmart.yaml into DIR (the current directory without one): every setting of every command,
commented out, with its meaning and its default. Commands run in that directory read it.`,
		Args: cobra.MaximumNArgs(1),
	}
	force := addForce(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		dir := "."
		if len(args) == 1 {
			dir = args[0]
		}
		path := filepath.Join(dir, configName)
		if info, err := os.Stat(dir); err == nil && !info.IsDir() {
			return fmt.Errorf("%s is a file: name a directory", dir)
		}
		if err := atomicdir.WriteFile(path, configTemplate(cmd.Root()), *force); err != nil {
			return err
		}
		result := struct {
			Path string `json:"path"`
		}{path}
		return consoleOf(cmd).result(result, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "wrote %s: take the # off a setting to change it\n", path)
			return err
		})
	}
	return cmd
}

// configTemplate is onmart.yaml with every setting commented out, in the order of the commands. A "#"
// before a letter hides a setting, one before a space starts prose.
func configTemplate(root *cobra.Command) []byte {
	var b bytes.Buffer
	b.WriteString(`# Settings of onmart. Flags win over ONMART_* variables, which win over this file.
# A key may stand at the top (for every command that has such a flag) or in the section of a command,
# where it wins. Unknown keys are errors.

`)
	root.PersistentFlags().VisitAll(func(f *pflag.Flag) { templateFlag(&b, "", f) })
	for _, cmd := range root.Commands() {
		templateSection(&b, "", cmd)
	}
	return b.Bytes()
}

func templateSection(b *bytes.Buffer, indent string, cmd *cobra.Command) {
	if cmd.Hidden || cmd.Name() == "help" || !hasSettings(cmd) {
		return
	}
	if indent == "" {
		b.WriteByte('\n')
	}
	fmt.Fprintf(b, "%s# %s\n%s%s:\n", indent, cmd.Short, indent, cmd.Name())
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if cmd.Root().PersistentFlags().Lookup(f.Name) == nil {
			templateFlag(b, indent+"  ", f)
		}
	})
	for _, sub := range cmd.Commands() {
		templateSection(b, indent+"  ", sub)
	}
}

// hasSettings reports whether a command or one below it has a flag that the file may set.
func hasSettings(cmd *cobra.Command) bool {
	found := false
	cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if cmd.Root().PersistentFlags().Lookup(f.Name) == nil && !slices.Contains(notSettable, f.Name) && !f.Hidden {
			found = true
		}
	})
	return found || slices.ContainsFunc(cmd.Commands(), hasSettings)
}

func templateFlag(b *bytes.Buffer, indent string, f *pflag.Flag) {
	if slices.Contains(notSettable, f.Name) || f.Hidden {
		return
	}
	_, text := pflag.UnquoteUsage(f)
	fmt.Fprintf(b, "%s# %s\n", indent, strings.ReplaceAll(text, "\n", " "))
	fmt.Fprintf(b, "%s#%s: %s\n", indent, f.Name, templateValue(f))
}

// templateValue is a flag's default in YAML.
func templateValue(f *pflag.Flag) string {
	if _, list := f.Value.(pflag.SliceValue); list {
		return "[" + strings.Trim(f.DefValue, "[]") + "]"
	}
	if f.Value.Type() == "string" || f.DefValue == "" {
		return fmt.Sprintf("%q", f.DefValue)
	}
	return f.DefValue
}
