package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/internal/progress"
)

// runExplain says what a spec's features are; with --in also what they cost.
func (f *featuresFlags) runExplain(cmd *cobra.Command) error {
	con := consoleOf(cmd)
	spec, err := loadSpec(f.spec, f.delay)
	if err != nil {
		return err
	}
	if spec.Shape() != features.Events {
		return usagef("--explain: the spec %s is of %s, and features of transactions are explained; onmart inspect shows "+
			"the columns of what was made",
			spec.Name(), inWords(string(spec.Shape().Kind())))
	}
	var x *features.Explanation
	if f.in == "" {
		x, err = features.Explain(spec)
	} else {
		x, err = f.explainFor(cmd, con, spec)
	}
	if err != nil {
		return err
	}
	return con.result(x, func(w io.Writer) error { return writeExplanation(w, x) })
}

func (f *featuresFlags) explainFor(cmd *cobra.Command, con *console, spec *features.Spec) (*features.Explanation,
	error) {
	in, err := datasets.Open(f.in)
	if err != nil {
		return nil, err
	}
	var made *features.Made
	if f.against != "" {
		d, err := datasets.Open(f.against)
		if err == nil {
			made, err = features.MadeFrom(d)
		}
		if err != nil {
			return nil, err
		}
		if made.Memory == nil || made.Data != in.ID() {
			return nil, fmt.Errorf("--against %s: it was not made of %s in one run: what it took up is not known", f.against,
				f.in)
		}
	}
	bars := newBars(con)
	defer bars.end()
	x, err := features.ExplainFor(cmd.Context(), spec, in, bars.set)
	if err == nil && made != nil {
		x.Memory.RunOf, x.Memory.Run = f.against, made.Memory
	}
	return x, err
}

// bars shows one bar after the other, by name.
type bars struct {
	con  *console
	name string
	bar  *progress.Bar
}

func newBars(con *console) *bars { return &bars{con: con} }

func (b *bars) set(name string, done, total int64) {
	if b.name != name {
		b.end()
		b.name, b.bar = name, b.con.bar(name, total, "rows")
	}
	b.bar.Set(done, "")
}

func (b *bars) end() {
	if b.name != "" {
		b.bar.Done()
		b.name = ""
	}
}

func writeExplanation(w io.Writer, x *features.Explanation) error {
	fmt.Fprintf(w, "%s: %d features\n\n", x.Spec, x.VisibleFeatures())
	head := []string{"feature", "is", "of", "key"}
	if len(x.Groups) > 0 {
		head = append(head, "group")
	}
	t := newTable(head...)
	for i := range x.Features {
		e := &x.Features[i]
		name := e.Names[0]
		if n := len(e.Names); n > 1 {
			name += fmt.Sprintf(" to %s", e.Names[n-1])
		}
		if e.Hidden {
			name += " (hidden)"
		}
		of := strings.Join(e.Columns, ", ")
		if len(e.Tables) > 0 {
			of += "; table " + strings.Join(e.Tables, ", ")
		}
		row := []string{name, e.Words, of, strings.Join(e.Key, ", ")}
		if len(x.Groups) > 0 {
			group := ""
			if e.Group > 0 {
				group = fmt.Sprint(e.Group)
			}
			row = append(row, group)
		}
		t.add(row...)
	}
	if err := t.write(w); err != nil {
		return err
	}
	if x.Memory == nil {
		_, err := fmt.Fprintln(w, "\n--in DIR adds what the engine holds for a key, the cost of an event and the memory "+
			"for a data set")
		return err
	}
	return writeCosts(w, x)
}

func writeCosts(w io.Writer, x *features.Explanation) error {
	fmt.Fprintf(w, "\nFeatures of one group share the entries of a key, its state and the time of an event:\n\n")
	t := newTable("group", "key", "features", "bytes a key", "bytes an entry", "entries kept", "ns an event", "in the "+
		"mean a key", "state")
	for i := range x.Groups {
		g := &x.Groups[i]
		entry, kept := "", "none"
		if g.EntryBytes > 0 {
			entry, kept = fmt.Sprint(g.EntryBytes), g.Kept
		}
		if g.Tables != "" {
			kept += "; " + g.Tables
		}
		t.add(fmt.Sprint(g.Number), strings.Join(g.Key, ", "), fmt.Sprint(len(g.Features)), fmt.Sprint(g.HeadBytes),
			entry, kept,
			fmt.Sprintf("%.1f", g.NsPerEvent), progress.Bytes(int64(g.BytesPerKey)), progress.Bytes(g.StateBytes))
	}
	if err := t.write(w); err != nil {
		return err
	}
	if c := x.Cost; c != nil {
		fmt.Fprintf(w, "\ncost of an event, of %s events on one thread by the engine's own clock: %s\n",
			progress.Count(c.Rows), ns(c.Total))
		fmt.Fprintf(w, "  %s groups, %s row features, %s numbers of keys, %s order of rows, %s features of features, %s "+
			"forgetting\n",
			ns(c.Groups), ns(c.Row), ns(c.Keys), ns(c.Order), ns(c.Last), ns(c.Forget))
	}
	m := x.Memory
	for _, k := range m.Keys {
		fmt.Fprintf(w, "%s different %s: %s to number them\n", progress.Count(k.Distinct), strings.Join(k.Columns, ", "),
			progress.Bytes(k.Bytes))
	}
	how := fmt.Sprintf("from a run over the keys of 1 in %.0f", 1/m.Share)
	if m.Share == 1 {
		how = "from a run over all keys"
	}
	_, err := fmt.Fprintf(w, "state after %s rows, predicted %s: %s, with %s of it left behind by growth; recent "+
		"events beside it, with --state-out and live: %s\n",
		progress.Count(m.Rows), how, progress.Bytes(m.State), progress.Bytes(m.Free), progress.Bytes(m.Records))
	if err == nil && m.Run != nil {
		_, err = fmt.Fprintf(w, "the run that made %s took up %s, and %s for recent events\n", m.RunOf,
			progress.Bytes(m.Run.State-m.Run.Records), progress.Bytes(m.Run.Records))
	}
	return err
}

func ns(v float64) string { return fmt.Sprintf("%.0f ns", v) }

// verifyReport is what features --verify prints with --json.
type verifyReport struct {
	In      string `json:"in"`
	Against string `json:"against,omitempty"`
	Spec    string `json:"spec"`
	*features.Verification
	Seconds float64 `json:"seconds"`
}

// runVerify computes a sample anew; mismatches are an error after the result.
func (f *featuresFlags) runVerify(cmd *cobra.Command) error {
	con := consoleOf(cmd)
	o := features.VerifyOptions{Sample: f.verify, Seed: f.seed, Threads: f.threads}
	switch {
	case f.in == "":
		return usagef("--verify: --in is missing: name the transactions or the log")
	case f.verify < 1:
		return usagef("--verify %d: want 1 row or more", f.verify)
	}
	var err error
	if o.In, err = datasets.Open(f.in); err != nil {
		return err
	}
	if f.against != "" {
		if o.Against, err = datasets.Open(f.against); err != nil {
			return err
		}
	}
	if o.Spec, err = f.verifiedSpec(cmd, o.Against); err != nil {
		return err
	}
	if f.rows != "" {
		if o.Range, err = datasets.ParseRange(f.rows); err != nil {
			return usagef("--range: %w", err)
		}
	}
	bars := newBars(con)
	o.Progress = bars.set
	start := time.Now()
	v, err := features.Verify(cmd.Context(), o)
	if err != nil {
		return err
	}
	bars.end()
	r := verifyReport{f.in, f.against, o.Spec.Name(), v, time.Since(start).Seconds()}
	if err := con.result(r, func(w io.Writer) error { return writeVerification(w, &r) }); err != nil {
		return err
	}
	if v.Mismatched > 0 {
		return fmt.Errorf("%d of %d values are not those of the definition", v.Mismatched, v.Values)
	}
	return nil
}

// verifiedSpec is that of --spec, or where none is given, the one that the features were made of.
func (f *featuresFlags) verifiedSpec(cmd *cobra.Command, against *datasets.Dataset) (*features.Spec, error) {
	if against == nil || cmd.Flags().Changed("spec") || f.delay != "" {
		return loadSpec(f.spec, f.delay)
	}
	made, err := features.MadeFrom(against)
	if err != nil {
		return nil, err
	}
	return features.Parse(f.against, []byte(made.Spec))
}

func writeVerification(w io.Writer, r *verifyReport) error {
	given := "what the engine gives"
	if r.Against != "" {
		given = r.Against
	}
	fmt.Fprintf(w, "%s rows of %s computed anew from the %s rows before them, by the definition of %s, against %s\n",
		progress.Count(r.Checked), r.In, progress.Count(r.Rows), r.Spec, given)
	if r.Mismatched == 0 {
		_, err := fmt.Fprintf(w, "  all %s values are equal to the bit\n", progress.Count(r.Values))
		return err
	}
	fmt.Fprintf(w, "  %s of %s values differ\n\n", progress.Count(r.Mismatched), progress.Count(r.Values))
	t := newTable("position", "trans_id", "feature", "defined", "given")
	for _, m := range r.Mismatches {
		id := m.TransID
		if m.Line != nil {
			id += fmt.Sprintf(" line %d", *m.Line)
		}
		t.add(progress.Count(m.Position), id, m.Feature, m.Defined, m.Given)
	}
	return t.write(w)
}
