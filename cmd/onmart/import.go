package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/internal/progress"
)

// importReport is what import prints with --json.
type importReport struct {
	Out           string  `json:"out"`
	ID            string  `json:"id"`
	Rows          int64   `json:"rows"`
	From          string  `json:"from"`
	To            string  `json:"to"`
	Read          int64   `json:"read"`
	Rejected      int64   `json:"rejected"`
	Duplicates    int64   `json:"duplicates"`
	Rounded       int64   `json:"rounded"`
	OutOfOrder    int64   `json:"out_of_order"`
	Missing       int64   `json:"missing,omitempty"` // of wide files: values missing inside series
	Seconds       float64 `json:"seconds"`
	RowsPerSecond float64 `json:"rows_per_second"`
}

func newImportCmd() *cobra.Command {
	var mapFile, preset, format, delimiter, after string
	var wide wideFlags
	o := datasets.ImportOptions{}
	cmd := &cobra.Command{
		Use:   "import --preset NAME|--map FILE|--wide --out DIR FILE...",
		Short: "Make a data set of an export (CSV or JSON lines)",
		Long: `import maps the columns of an export to canonical ones and writes a data set: Parquet sorted by event time,
with a manifest. Files may be compressed with gzip or zstd; - is standard input.

A mapping is a YAML file, or a built-in one by --preset: ` + strings.Join(datasets.Presets(), ", ") + `.
docs/MAPPING.md has all of its keys; most files look like this:

    timezone: Europe/London
    unique: trans_id
    columns:
      trans_id: {from: Order}
      trans_datetime: {from: Booked, layout: "2006-01-02 15:04:05"}
      user_id: {from: Card}
      store_id: {from: Shop}
      amount: {from: Total}
      is_fraud: {from: Chargeback}
      note: {from: Note, type: string, optional: true}

With --wide, or a mapping that has it, a row of a file is a whole series: its name, then one value for each hour, day
or week from --start on. Every value becomes a transaction. Files that are given together go on from one to the next;
--after continues the series of a data set that was imported before.

Rows that cannot be read are counted and kept in rejects.jsonl with their place and the reason. Past --max-rejects
the import fails, and the rejects are kept in OUT.rejects.jsonl instead.`,
		Args: cobra.MinimumNArgs(1),
	}
	fl := cmd.Flags()
	fl.StringVar(&preset, "preset", "", "built-in mapping: "+strings.Join(datasets.Presets(), ", "))
	fl.StringVar(&mapFile, "map", "", "mapping `file` of the export's columns to canonical ones")
	fl.StringVar(&o.Out, "out", "", "data set `directory` to make")
	fl.StringVar(&format, "format", "", "csv or jsonl (default by the mapping or the file's name)")
	fl.StringVar(&delimiter, "delimiter", "", "the `character` between fields, where it is not the mapping's")
	fl.BoolVar(&wide.on, "wide", false, "a row of a file is a series: its name, then its values")
	fl.StringVar(&wide.start, "start", "", "of --wide: `time` of the first value, such as 2000-01-01 or \"2000-01-01 06:00:00\"")
	fl.StringVar(&wide.step, "step", "", "of --wide: what a value is of: hour, day or week")
	fl.StringVar(&wide.series, "series", "", "of --wide: `column` with the name of the series (default the first)")
	fl.StringVar(&wide.align, "align", "start", "of --wide: all series begin (start) or end (end) together")
	fl.StringVar(&wide.timezone, "timezone", "UTC", "of --wide: `zone` of --start and of days and weeks")
	fl.IntVar(&wide.scale, "scale", datasets.AmountScale, "of --wide: `decimals` that values keep, 0 to 9; more are rounded and counted")
	fl.StringVar(&after, "after", "", "data set `directory` of a wide file whose series the files continue")
	fl.Float64Var(&o.MaxRejects, "max-rejects", 0.001, "largest `share` of rows that may be unusable")
	force := addForce(cmd)
	cmd.RunE = func(cmd *cobra.Command, files []string) error {
		var err error
		if err := wide.check(cmd, mapFile+preset); err != nil {
			return err
		}
		if wide.on {
			o.Mapping, err = wide.mapping()
		} else {
			o.Mapping, err = loadMapping(mapFile, preset)
		}
		if err != nil {
			return err
		}
		if o.Mapping, err = withDelimiter(o.Mapping, delimiter); err != nil {
			return err
		}
		switch o.Format = datasets.Format(format); {
		case o.Out == "":
			return usagef("--out is missing: name the directory to make")
		case o.Format != "" && o.Format != datasets.CSV && o.Format != datasets.JSONL:
			return usagef("--format %s: want csv or jsonl", format)
		case !(o.MaxRejects >= 0 && o.MaxRejects <= 1):
			return usagef("--max-rejects %v: want a share between 0 and 1", o.MaxRejects)
		}
		o.Files, o.Force = files, *force
		if err := replaces("--out", o.Out, o.Force, string(datasets.KindTransactions)); err != nil {
			return err
		}
		if after != "" {
			if !o.Mapping.Wide() {
				return usagef("--after is for files with a series on each row: --wide, or a mapping that has it")
			}
			if o.Continue, err = datasets.Open(after); err != nil {
				return err
			}
		}
		o.Created = datasets.Created{Command: "import", Version: buildVersion(), Args: os.Args[1:]}
		return runImport(cmd, o)
	}
	return cmd
}

// wideFlags are the flags of a wide file without a mapping.
type wideFlags struct {
	on                                   bool
	start, step, series, align, timezone string
	scale                                int
}

// check refuses flags that do nothing together.
func (f *wideFlags) check(cmd *cobra.Command, mapping string) error {
	if f.on && mapping != "" {
		return usagef("--wide stands in place of --map and --preset: give one of them")
	}
	if f.on && (f.start == "" || f.step == "") {
		return usagef("--wide needs --start, the time of the first value, and --step: hour, day or week")
	}
	for _, name := range []string{"start", "step", "series", "align", "timezone", "scale"} {
		if !f.on && cmd.Flags().Changed(name) {
			return usagef("--%s is for --wide; a mapping says it under wide", name)
		}
	}
	if f.align != "start" && f.align != "end" {
		return usagef("--align %s: want start or end", f.align)
	}
	return nil
}

func (f *wideFlags) mapping() (*datasets.Mapping, error) {
	loc, err := time.LoadLocation(f.timezone)
	if err != nil || f.timezone == "Local" || f.timezone == "" {
		return nil, usagef("--timezone %q: want the name of a zone such as UTC or Europe/London", f.timezone)
	}
	m, err := datasets.WideMapping(datasets.WideOptions{Series: f.series, Start: f.start, Step: f.step, AlignEnd: f.align == "end", Scale: f.scale, Location: loc})
	if err != nil {
		return nil, usagef("--wide: %w", err)
	}
	return m, nil
}

func runImport(cmd *cobra.Command, o datasets.ImportOptions) error {
	con := consoleOf(cmd)
	bar := con.bar("import", 0, "rows")
	o.Progress = func(rows, done, total int64) {
		if done > 0 {
			bar.SetTotal(int64(float64(rows) * float64(total) / float64(done)))
		}
		bar.Set(rows, "")
	}
	start := time.Now()
	m, err := datasets.Import(cmd.Context(), o)
	if err != nil {
		return err
	}
	bar.Done()
	seconds := time.Since(start).Seconds()
	r := importReport{
		Out: o.Out, ID: m.ID, Rows: m.Rows, From: datasets.FormatTime(m.From), To: datasets.FormatTime(m.To),
		Read: m.Counts[datasets.CountRead], Rejected: m.Counts[datasets.CountRejected],
		Duplicates: m.Counts[datasets.CountDuplicates], Rounded: m.Counts[datasets.CountRounded],
		OutOfOrder: m.Counts[datasets.CountOutOfOrder], Missing: m.Counts[datasets.CountMissing], Seconds: seconds, RowsPerSecond: float64(m.Rows) / seconds,
	}
	return con.result(r, func(w io.Writer) error {
		_, err := io.WriteString(w, r.text())
		return err
	})
}

func (r *importReport) text() string {
	s := fmt.Sprintf("%s: %s transactions, %s to %s\n", r.Out, progress.Count(r.Rows), r.From, r.To)
	if n := r.Rejected + r.Duplicates; n > 0 {
		s += fmt.Sprintf("  of %s rows, %s could not be used and %s repeat others: see %s\n", progress.Count(r.Read),
			progress.Count(r.Rejected), progress.Count(r.Duplicates), filepath.Join(r.Out, datasets.RejectsFile))
	}
	if r.Rounded > 0 {
		s += fmt.Sprintf("  %s values had more decimals than their column keeps and were rounded half to even\n", progress.Count(r.Rounded))
	}
	if r.Missing > 0 {
		s += fmt.Sprintf("  %s values are missing inside series\n", progress.Count(r.Missing))
	}
	if r.OutOfOrder > 0 {
		s += fmt.Sprintf("  %s rows were not in the order of their times and were sorted\n", progress.Count(r.OutOfOrder))
	}
	return s
}

// loadMapping takes a mapping from a file or, without one, from a preset.
func loadMapping(mapFile, preset string) (*datasets.Mapping, error) {
	if mapFile == "" {
		if preset == "" {
			return nil, usagef("name a mapping: --map FILE, or --preset %s", strings.Join(datasets.Presets(), "|"))
		}
		m, err := datasets.Preset(preset)
		return m, usage(err)
	}
	src, err := os.ReadFile(mapFile)
	if err != nil {
		return nil, fmt.Errorf("--map: %w", err)
	}
	m, err := datasets.ParseMapping(mapFile, src)
	return m, usage(err)
}

func withDelimiter(m *datasets.Mapping, delimiter string) (*datasets.Mapping, error) {
	if delimiter == `\t` || delimiter == "tab" {
		delimiter = "\t"
	}
	switch {
	case delimiter == "":
		return m, nil
	case len(delimiter) != 1 || strings.ContainsAny(delimiter, "\"\r\n") || delimiter[0] >= 0x80:
		return nil, usagef(`--delimiter %q: want one ASCII character, such as ";" or "\t"`, delimiter)
	}
	return m.WithDelimiter(delimiter[0]), nil
}
