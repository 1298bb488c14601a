package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/internal/atomicdir"
	"github.com/onmart/onmart/internal/progress"
	"github.com/onmart/onmart/score/model"
)

func newInspectCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect DIR",
		Short: "Show what a directory of onmart holds and whether it is whole",
		Long: `inspect reads a data set, features, a panel, interactions, a recorded log, a model or a saved state: what it is, what it was made
from, whether every file is as it was written, and for data what each column holds.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			con := consoleOf(cmd)
			kind, err := kindOf(args[0])
			if err != nil {
				return err
			}
			switch datasets.Kind(kind) {
			case datasets.KindTransactions, datasets.KindLog, datasets.KindFeatures, datasets.KindPredictions, datasets.KindPanel, datasets.KindInteractions:
				return inspectData(cmd, con, args[0])
			case model.Kind:
				return inspectModel(con, args[0])
			}
			return inspectOther(con, args[0], kind)
		},
	}
}

// kindOf reads what a directory's manifest says that it is.
func kindOf(dir string) (string, error) {
	info, err := os.Stat(dir)
	if err != nil {
		return "", err
	}
	if !info.IsDir() {
		return "", fmt.Errorf("%s is a file: give the directory that a command of onmart wrote", dir)
	}
	text, err := os.ReadFile(filepath.Join(dir, atomicdir.ManifestName))
	if os.IsNotExist(err) {
		return "", fmt.Errorf("%s has no %s: onmart did not make it, or it is not whole; make it again", dir, atomicdir.ManifestName)
	}
	if err != nil {
		return "", err
	}
	var head struct {
		Kind string `json:"kind"`
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return "", fmt.Errorf("%s cannot be read: %w", filepath.Join(dir, atomicdir.ManifestName), err)
	}
	return head.Kind, nil
}

// dataReport is what inspect prints of a data set with --json.
type dataReport struct {
	Whole bool `json:"whole"`
	*datasets.Summary
	Panel        *panelReport        `json:"panel,omitempty"`
	Interactions *interactionsReport `json:"interactions,omitempty"`
}

func inspectData(cmd *cobra.Command, con *console, dir string) error {
	d, err := datasets.Open(dir)
	if err != nil {
		return err
	}
	bar := con.bar("read", d.Manifest().Rows, "rows")
	s, err := datasets.Summarize(cmd.Context(), d, func(rows int64) { bar.Set(rows, "") })
	if err != nil {
		return err
	}
	bar.Done()
	r := dataReport{Whole: true, Summary: s}
	switch s.Kind {
	case datasets.KindPanel:
		r.Panel, err = inspectPanel(cmd.Context(), d)
		s.Days = nil // as many rows a day as series
	case datasets.KindInteractions:
		r.Interactions, err = inspectInteractions(cmd.Context(), d)
	}
	if err != nil {
		return err
	}
	return con.result(r, func(w io.Writer) error {
		err := writeSummary(w, s)
		if err == nil && r.Panel != nil {
			err = r.Panel.write(w)
		}
		if err == nil && r.Interactions != nil {
			err = r.Interactions.write(w)
		}
		return err
	})
}

// kindWords names the kinds for people.
func kindWords(k datasets.Kind) string {
	switch k {
	case datasets.KindTransactions:
		return "a data set of transactions"
	case datasets.KindLog:
		return "a recorded log of transactions and labels"
	case datasets.KindFeatures:
		return "a data set of features"
	case datasets.KindPanel:
		return "a panel"
	}
	return "a data set of " + string(k)
}

func writeSummary(w io.Writer, s *datasets.Summary) error {
	fmt.Fprintf(w, "%s is %s, and whole: every checksum agrees\n", s.Dir, kindWords(s.Kind))
	fmt.Fprintf(w, "  rows     %s in %d parts, %s\n", progress.Count(s.Rows), s.Parts, progress.Bytes(s.Bytes))
	if s.From != "" {
		fmt.Fprintf(w, "  time     %s to %s\n", s.From, s.To)
	}
	fmt.Fprintf(w, "  made     %s by onmart %s %s\n", s.Created.Time.Format("2006-01-02 15:04:05 MST"), s.Created.Command, s.Created.Version)
	for _, src := range s.Sources {
		fmt.Fprintf(w, "  from     %s, %s rows\n", src.Path, progress.Count(src.Rows))
	}
	names := slices.Sorted(maps.Keys(s.Counts))
	width := len("out of order") + 1
	for _, name := range names {
		width = max(width, len(name))
	}
	for _, name := range names {
		fmt.Fprintf(w, "  %-*s %s\n", width, strings.ReplaceAll(name, "_", " "), progress.Count(s.Counts[name]))
	}
	fmt.Fprintf(w, "  id       %s\n\n", s.ID)
	if err := columnTable(s).write(w); err != nil {
		return err
	}
	if len(s.Days) == 0 {
		return nil
	}
	fmt.Fprintln(w)
	return writeDays(w, s.Days)
}

func columnTable(s *datasets.Summary) *table {
	t := newTable("column", "type", "nulls", "distinct", "least", "mean", "greatest")
	for _, c := range s.Columns {
		kind := c.Type.String()
		if c.Type == datasets.Decimal {
			kind += " " + strconv.Itoa(c.Scale)
		}
		distinct, mean := "", ""
		if c.Distinct > 0 {
			distinct = progress.Count(c.Distinct)
		}
		if c.Distinct >= datasets.DistinctLimit {
			distinct += "+"
		}
		if c.Mean != nil {
			mean = strconv.FormatFloat(*c.Mean, 'g', 6, 64)
		}
		t.add(c.Name, kind, progress.Count(c.Nulls), distinct, strconv.QuoteToGraphic(c.Min)[1:len(strconv.QuoteToGraphic(c.Min))-1], mean,
			strconv.QuoteToGraphic(c.Max)[1:len(strconv.QuoteToGraphic(c.Max))-1])
	}
	return t
}

// daysWidth is the most columns of the chart of rows a day.
const daysWidth = 72

// writeDays draws the rows of each day, or of spans of days where there are many, as bars of eighths.
func writeDays(w io.Writer, days []datasets.DayCount) error {
	per := (len(days) + daysWidth - 1) / daysWidth
	var spans []int64
	least, most := days[0], days[0]
	for i, d := range days {
		if i%per == 0 {
			spans = append(spans, 0)
		}
		spans[len(spans)-1] += d.Rows
		if d.Rows < least.Rows {
			least = d
		}
		if d.Rows > most.Rows {
			most = d
		}
	}
	top := max(1, slices.Max(spans))
	bars := []rune(" ▁▂▃▄▅▆▇█")
	var line strings.Builder
	for _, n := range spans {
		at := (n*8 + top - 1) / top // a day with any row shows
		line.WriteRune(bars[at])
	}
	each := "a day"
	if per > 1 {
		each = fmt.Sprintf("%d days", per)
	}
	_, err := fmt.Fprintf(w, "rows a day, %s a column, %s to %s:\n%s\nleast %s on %s, most %s on %s\n", each, days[0].Day, days[len(days)-1].Day,
		line.String(), progress.Count(least.Rows), least.Day, progress.Count(most.Rows), most.Day)
	return err
}

// inspectModel opens an artifact, which checks every file and the program.
func inspectModel(con *console, dir string) error {
	a, err := model.Open(dir)
	if err != nil {
		return err
	}
	m := a.Manifest()
	report := struct {
		Whole bool   `json:"whole"`
		Dir   string `json:"dir"`
		*model.Manifest
	}{true, dir, m}
	return con.result(report, func(w io.Writer) error {
		fmt.Fprintf(w, "%s is a model for %s, version %s, and whole: every checksum agrees\n", dir, m.Task, m.Version)
		fmt.Fprintf(w, "  made       %s by onmart %s %s on %s\n", m.Created.Time, m.Created.Command, m.Created.Onmart, m.Created.Backend)
		positive := ""
		if m.Task == model.Fraud {
			positive = fmt.Sprintf(" (%s positive)", progress.Count(m.Lineage.Seen))
		}
		on := "on " + progress.Count(m.Lineage.Rows) + " rows" + positive + " of"
		if m.Lineage.Rows == 0 {
			on = "without a network, on"
		}
		fmt.Fprintf(w, "  trained    %s %s, seed %d\n", on, m.Lineage.Train.String(), m.Seed)
		if m.Task == model.Fraud {
			fmt.Fprintf(w, "  alerts     from probability %.4g, chosen for %g a day\n", m.Threshold, m.AlertsPerDay)
		}
		if m.Task == model.Demand {
			fmt.Fprintf(w, "  forecasts  %s steps ahead, of the spec %s\n", m.Settings["horizon"], a.Spec().Name())
		}
		if m.Context != nil {
			fmt.Fprintf(w, "  history    of the feature engine up to %s\n", datasets.FormatTime(m.Context.Watermark))
		}
		if len(m.Features) > 0 {
			fmt.Fprintf(w, "  features   %s\n", strings.Join(m.Features, ", "))
		}
		if m.Task == model.Recommend {
			if err := inspectRecommend(w, a); err != nil {
				return err
			}
		}
		for _, e := range []struct {
			name string
			e    *model.Evaluation
		}{{"validation", m.Validation}, {"test", m.Test}} {
			if e.e == nil {
				continue
			}
			fmt.Fprintf(w, "\n%s on %s:\n", e.name, e.e.Range.String())
			t := newTable("metric", "value")
			for _, k := range slices.Sorted(maps.Keys(e.e.Metrics)) {
				t.add(k, strconv.FormatFloat(e.e.Metrics[k], 'g', 6, 64))
			}
			if err := t.write(w); err != nil {
				return err
			}
		}
		return nil
	})
}

// inspectOther shows a manifest of another kind and checks the files that it lists with checksums.
func inspectOther(con *console, dir, kind string) error {
	text, err := os.ReadFile(filepath.Join(dir, atomicdir.ManifestName))
	if err != nil {
		return err
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		return fmt.Errorf("%s cannot be read: %w", filepath.Join(dir, atomicdir.ManifestName), err)
	}
	checked, err := checkFiles(dir, text)
	if err != nil {
		return err
	}
	report := map[string]any{"dir": dir, "manifest": m, "files_checked": checked}
	return con.result(report, func(w io.Writer) error {
		if kind == "" {
			kind = "directory of no named kind"
		}
		fmt.Fprintf(w, "%s is a %s; %d files agree with their checksums\n", dir, kind, checked)
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if k == "files" {
				continue
			}
			value, err := json.Marshal(m[k])
			if err != nil {
				return err
			}
			if len(value) > 200 {
				value = append(value[:200:200], "..."...)
			}
			fmt.Fprintf(w, "  %-16s %s\n", k, value)
		}
		return nil
	})
}

// checkFiles compares the files that a manifest lists under "files" with their sizes and checksums.
func checkFiles(dir string, manifest []byte) (int, error) {
	var m struct {
		Files map[string]struct {
			Bytes  int64  `json:"bytes"`
			SHA256 string `json:"sha256"`
		} `json:"files"`
	}
	if err := json.Unmarshal(manifest, &m); err != nil {
		return 0, nil // another shape of files: there is nothing to compare
	}
	checked := 0
	for _, name := range slices.Sorted(maps.Keys(m.Files)) {
		want := m.Files[name]
		if want.SHA256 == "" || !filepath.IsLocal(name) {
			continue
		}
		path := filepath.Join(dir, name)
		f, err := os.Open(path)
		if err != nil {
			return checked, fmt.Errorf("%s is not whole: %w", dir, err)
		}
		h := sha256.New()
		n, err := io.Copy(h, f)
		f.Close()
		if err != nil {
			return checked, err
		}
		if n != want.Bytes || hex.EncodeToString(h.Sum(nil)) != want.SHA256 {
			return checked, fmt.Errorf("%s is not as it was written: its checksum differs from the manifest's; make %s again", path, dir)
		}
		checked++
	}
	return checked, nil
}
