package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/internal/progress"
)

// version is the release this source belongs to.
const version = "0.1.0-dev"

// buildVersion is the version, with the commit where the build knows it.
func buildVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return version
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return version + "+" + s.Value[:12]
		}
	}
	return version
}

// console is where a command prints: results on out, progress and log on err.
type console struct {
	out, err io.Writer
	json     bool
	quiet    bool
	log      *slog.Logger

	structured bool // notef's lines go to log
}

// consoleOf reads --json, --quiet and --verbose of the command. Call it in RunE.
func consoleOf(cmd *cobra.Command) *console {
	flag := func(name string) bool {
		on, _ := cmd.Flags().GetBool(name)
		return on
	}
	c := &console{out: cmd.OutOrStdout(), err: cmd.ErrOrStderr(), json: flag("json"), quiet: flag("quiet")}
	level := slog.LevelInfo
	switch {
	case c.quiet:
		level = slog.LevelError
	case flag("verbose"):
		level = slog.LevelDebug
	}
	c.log = slog.New(slog.NewTextHandler(c.err, &slog.HandlerOptions{Level: level}))
	return c
}

// bar starts a progress bar on standard error; with --quiet it is nil, which shows nothing.
func (c *console) bar(label string, total int64, unit string) *progress.Bar {
	if c.quiet {
		return nil
	}
	return progress.New(c.err, label, total, unit)
}

// notef prints one line for people on standard error, unless --quiet.
func (c *console) notef(format string, args ...any) {
	if c.structured {
		c.log.Info(fmt.Sprintf(format, args...))
	} else if !c.quiet {
		fmt.Fprintf(c.err, format+"\n", args...)
	}
}

// result ends a command: with --json it prints v as one JSON object (keys in snake_case), without it
// calls text to print for people on standard output.
func (c *console) result(v any, text func(w io.Writer) error) error {
	if !c.json {
		return text(c.out)
	}
	line, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.out, "%s\n", line)
	return err
}

// addForce adds --force, which every command that may overwrite has.
func addForce(cmd *cobra.Command) *bool {
	return cmd.Flags().Bool("force", false, "replace an output that exists already")
}

// table is text in aligned columns: the first row is the head, columns of numbers are set to the right.
type table struct{ rows [][]string }

func newTable(head ...string) *table { return &table{rows: [][]string{head}} }

// add appends a row; missing cells at its end are empty.
func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// write prints the table, two spaces between columns and a line below the head.
func (t *table) write(w io.Writer) error {
	width, right := t.columns()
	var s strings.Builder
	for i, row := range t.rows {
		t.line(&s, row, width, right)
		if i == 0 {
			rule := make([]string, len(width))
			for c := range rule {
				rule[c] = strings.Repeat("-", width[c])
			}
			t.line(&s, rule, width, right)
		}
	}
	_, err := io.WriteString(w, s.String())
	return err
}

// columns measures each column and says which hold numbers only.
func (t *table) columns() (width []int, right []bool) {
	for _, row := range t.rows {
		for len(width) < len(row) {
			width = append(width, 0)
			right = append(right, len(t.rows) > 1)
		}
	}
	for i, row := range t.rows {
		for c, cell := range row {
			width[c] = max(width[c], utf8.RuneCountInString(cell))
			if i > 0 && !numeric(cell) {
				right[c] = false
			}
		}
	}
	return width, right
}

func (t *table) line(s *strings.Builder, row []string, width []int, right []bool) {
	var line strings.Builder
	for c := range width {
		cell := ""
		if c < len(row) {
			cell = row[c]
		}
		pad := strings.Repeat(" ", width[c]-utf8.RuneCountInString(cell))
		if c > 0 {
			line.WriteString("  ")
		}
		if right[c] {
			line.WriteString(pad + cell)
		} else {
			line.WriteString(cell + pad)
		}
	}
	s.WriteString(strings.TrimRight(line.String(), " ") + "\n")
}

// numeric reports whether a cell reads as a number: 1,234, .874, 3.2 %, 41.2 MB, +0.004, -.
func numeric(cell string) bool {
	if cell == "" || cell == "-" {
		return true
	}
	rest := strings.TrimLeft(cell, "+-.~")
	return rest != "" && rest[0] >= '0' && rest[0] <= '9'
}
