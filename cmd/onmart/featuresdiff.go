package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/internal/progress"
)

// diffReport is what features --diff prints with --json.
type diffReport struct {
	A string `json:"a"`
	B string `json:"b"`
	*features.Difference
}

// runDiff compares two outputs; that they differ is an error after the result.
func runDiff(cmd *cobra.Command, a, b string, threads int) error {
	con := consoleOf(cmd)
	x, y, err := openTwo(a, b)
	if err != nil {
		return err
	}
	bar := con.bar("diff", x.Rows+y.Rows, "rows")
	d, err := features.Diff(cmd.Context(), x, y, threads, func(done, _ int64) { bar.Set(done, "") })
	if err != nil {
		return err
	}
	bar.Done()
	if err := con.result(diffReport{a, b, d}, func(w io.Writer) error { return writeDiff(w, a, b, d) }); err != nil {
		return err
	}
	if !d.Equal {
		return fmt.Errorf("%s and %s differ", a, b)
	}
	return nil
}

func openTwo(a, b string) (x, y *features.Source, err error) {
	if x, err = features.OpenSource(a); err != nil {
		return nil, nil, err
	}
	y, err = features.OpenSource(b)
	return x, y, err
}

func writeDiff(w io.Writer, a, b string, d *features.Difference) error {
	how := "by position"
	if len(d.Identity) > 0 {
		how = "by " + strings.Join(d.Identity, ", ")
	}
	var differ []*features.ColumnDiff
	for i := range d.Columns {
		if d.Columns[i].Differ > 0 {
			differ = append(differ, &d.Columns[i])
		}
	}
	var s strings.Builder
	fmt.Fprintf(&s, "A is %s, %s rows\nB is %s, %s rows\n", a, progress.Count(d.RowsA), b, progress.Count(d.RowsB))
	fmt.Fprintf(&s, "  %s rows are in both, compared %s: ", progress.Count(d.Compared), how)
	if len(differ) == 0 {
		fmt.Fprintf(&s, "all %d columns are equal to the bit\n", len(d.Columns))
	} else {
		fmt.Fprintf(&s, "%d of %d columns differ\n", len(differ), len(d.Columns))
	}
	only := func(n int64, side, first string) {
		if n > 0 {
			fmt.Fprintf(&s, "  %s rows are only in %s, the first %s\n", progress.Count(n), side, first)
		}
	}
	only(d.RowsOnlyA, "A", d.FirstOnlyA)
	only(d.RowsOnlyB, "B", d.FirstOnlyB)
	list := func(what string, names []string) {
		if len(names) > 0 {
			fmt.Fprintf(&s, "  %s: %s\n", what, strings.Join(names, ", "))
		}
	}
	list("columns only in A", d.OnlyA)
	list("columns only in B", d.OnlyB)
	list("of another type and not compared", d.Types)
	list("defined otherwise in B", d.Redefined)
	if len(differ) > 0 {
		s.WriteString("\n")
		t := newTable("column", "rows", "greatest |a-b|", "relative", "first row", "A", "B")
		for _, c := range differ {
			t.add(c.Name, progress.Count(c.Differ), fourDigits(c.MaxAbs), fourDigits(c.MaxRel), c.Row, c.A, c.B)
		}
		if err := t.write(&s); err != nil {
			return err
		}
		for _, c := range differ {
			if c.NaN > 0 {
				fmt.Fprintf(&s, "%s: %s rows with a NaN or an infinity\n", c.Name, progress.Count(c.NaN))
			}
		}
	}
	_, err := io.WriteString(w, s.String())
	return err
}

// fourDigits is a number in a table, to four digits.
func fourDigits(v float64) string { return strconv.FormatFloat(v, 'g', 4, 64) }

// skewReport is what features --skew prints with --json.
type skewReport struct {
	A string `json:"a"`
	B string `json:"b"`
	*features.Skewness
}

// runSkew compares the spread of two outputs' columns.
func runSkew(cmd *cobra.Command, a, b, rangeA, rangeB string, threads int) error {
	con := consoleOf(cmd)
	var ranges [2]datasets.Range
	var bad error
	for i, r := range []struct{ flag, text string }{{"--range", rangeA}, {"--range-b", rangeB}} {
		if r.text == "" {
			continue
		}
		var err error
		if ranges[i], err = datasets.ParseRange(r.text); err != nil {
			bad = errors.Join(bad, fmt.Errorf("%s: %w", r.flag, err))
		}
	}
	if bad != nil {
		return usage(bad)
	}
	x, y, err := openTwo(a, b)
	if err != nil {
		return err
	}
	bar := con.bar("skew", 2*x.Rows+y.Rows, "rows")
	s, err := features.Skew(cmd.Context(), x, y, ranges, threads, func(done, _ int64) { bar.Set(done, "") })
	if err != nil {
		return err
	}
	bar.Done()
	return con.result(skewReport{a, b, s}, func(w io.Writer) error { return writeSkew(w, a, b, s) })
}

func writeSkew(w io.Writer, a, b string, s *features.Skewness) error {
	fmt.Fprintf(w, "A, the reference, is %s, %s rows\nB is %s, %s rows\n\n", a, progress.Count(s.RowsA), b,
		progress.Count(s.RowsB))
	t := newTable("column", "psi", "by chance", "verdict", "mean A", "mean B", "zero A", "zero B", "null A", "null B")
	for i := range s.Columns {
		c := &s.Columns[i]
		t.add(c.Name, psiText(c.PSI), psiText(c.Chance), c.Words, fourDigits(c.MeanA), fourDigits(c.MeanB),
			shareText(c.ZeroA), shareText(c.ZeroB),
			shareText(c.NullA), shareText(c.NullB))
	}
	if err := t.write(w); err != nil {
		return err
	}
	fmt.Fprintf(w, `
psi is the population stability index over ten quantiles of A: below 0.1 stable, up to 0.25 moved, above shifted;
"by chance" is what equal populations with so few rows exceed in one case of twenty.
`)
	for _, only := range []struct {
		side  string
		names []string
	}{{"A", s.OnlyA}, {"B", s.OnlyB}} {
		if len(only.names) > 0 {
			fmt.Fprintf(w, "only in %s: %s\n", only.side, strings.Join(only.names, ", "))
		}
	}
	return nil
}

func psiText(v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	return strconv.FormatFloat(v, 'f', 4, 64)
}

// shareText is a share, blank where it is nothing.
func shareText(v float64) string {
	if v == 0 {
		return "-"
	}
	return strconv.FormatFloat(100*v, 'f', 2, 64) + " %"
}
