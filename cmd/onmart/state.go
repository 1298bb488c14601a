package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
	"github.com/onmart/onmart/score"
	"github.com/onmart/onmart/score/state"
)

func newStateCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "state",
		Short: "Look at a scoring job's state, take it out and put one in",
		Long: `state works on the directory that a scoring job is to keep: its checkpoint and the journal since. Each command
refuses a directory that another process holds. "onmart score --state" keeps such a directory.`,
	}
	cmd.AddCommand(newStateInspectCmd(), newStateExportCmd(), newStateImportCmd())
	return cmd
}

func newStateInspectCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "inspect DIR",
		Short: "Say what a scoring job's state is and how far it goes",
		Long: `inspect prints the job, the features with their fingerprints, the event time the checkpoint goes up to, the next
position of each source, and how much the journal holds since. It reads every piece of the checkpoint, and so
finds damage.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runStateInspect(cmd, args[0]) },
	}
}

// stateFacts is what inspect prints with --json.
type stateFacts struct {
	*state.Facts
	Watermark string `json:"watermark,omitempty"` // of the checkpoint
}

func runStateInspect(cmd *cobra.Command, dir string) (err error) {
	con := consoleOf(cmd)
	s, err := state.OpenReadOnly(dir, state.Options{Context: cmd.Context()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	f := stateFacts{}
	if f.Facts, err = s.Facts(); err != nil {
		return err
	}
	c, err := s.Checkpoint()
	if err != nil {
		return err
	}
	if c != nil {
		for _, name := range slices.Sorted(maps.Keys(c.Parts)) {
			if _, err := io.Copy(io.Discard, c.Parts[name].Reader()); err != nil {
				return err
			}
		}
		w, err := stateWatermark(c)
		if err != nil {
			return fmt.Errorf("state %s: %w", dir, err)
		}
		if w != math.MinInt64 {
			f.Watermark = datasets.FormatTime(w)
		}
	}
	if con.json {
		return con.result(f, nil)
	}
	return f.write(cmd.OutOrStdout(), dir)
}

// stateWatermark is the event time that a checkpoint goes up to.
func stateWatermark(c *state.Checkpoint) (int64, error) {
	p, ok := c.Parts[state.Engine]
	if !ok {
		return 0, errors.New("its checkpoint has no state of features")
	}
	return features.SnapshotWatermark(p.Reader())
}

func (f *stateFacts) write(w io.Writer, dir string) error {
	var b strings.Builder
	fmt.Fprintf(&b, "state %s of job %s\n", dir, f.Job)
	if f.Saved.IsZero() {
		b.WriteString("checkpoint: none yet\n")
	} else {
		fmt.Fprintf(&b, "checkpoint: %s, of entry %d", f.Saved.Format(time.RFC3339), f.Entry)
		if f.Watermark != "" {
			fmt.Fprintf(&b, ", events up to %s", f.Watermark)
		}
		b.WriteString("\n")
	}
	for _, name := range slices.Sorted(maps.Keys(f.Parts)) {
		fmt.Fprintf(&b, "  %s: %d bytes\n", name, f.Parts[name])
	}
	fmt.Fprintf(&b, "journal: %d entries since, %d of them with events of their own\n", f.Entries, f.Inline)
	fmt.Fprintf(&b, "on disk: %d bytes\n", f.Bytes)
	for _, source := range slices.Sorted(maps.Keys(f.Positions)) {
		fmt.Fprintf(&b, "next of %s: %d\n", source, f.Positions[source])
	}
	fmt.Fprintf(&b, "%d features:\n", len(f.Nodes))
	for _, n := range f.Nodes {
		fmt.Fprintf(&b, "  %s %s\n", n.Name, n.Fingerprint)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func newStateExportCmd() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "export DIR --out STATEDIR",
		Short: "Write the checkpoint as a state directory, which score --warm-from reads",
		Long: `export writes the newest checkpoint, its positions and the followers' states to a directory like those of
"onmart features --state-out". Entries of the journal that name what a source can give again are left out: a scorer
that starts from the directory reads those events again. Events that the journal alone has would be lost, and
export refuses then: start the scorer and stop it, which makes a checkpoint.`,
		Args: cobra.ExactArgs(1),
	}
	cmd.Flags().StringVar(&out, "out", "", "`directory` for the state")
	force := addForce(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return runStateExport(cmd, args[0], out, *force) }
	return cmd
}

func runStateExport(cmd *cobra.Command, dir, out string, force bool) (err error) {
	if out == "" {
		return usagef("--out is missing: name a directory for the state")
	}
	if err := replaces("--out", out, force, features.StateKind); err != nil {
		return usage(err)
	}
	s, err := state.OpenReadOnly(dir, state.Options{Context: cmd.Context()})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	c, err := s.Checkpoint()
	if err != nil {
		return err
	}
	if c == nil {
		return fmt.Errorf("state %s has no checkpoint yet: start the scorer and stop it, which makes one", dir)
	}
	f, err := s.Facts()
	if err != nil {
		return err
	}
	if f.Inline > 0 {
		return fmt.Errorf("state %s has %d entries since its checkpoint with events that no source can give again: start the scorer and stop it, "+
			"which makes a checkpoint, then export", dir, f.Inline)
	}
	watermark, err := stateWatermark(c)
	if err != nil {
		return fmt.Errorf("state %s: %w", dir, err)
	}
	contents := features.StateContents{
		Nodes: f.Nodes, Watermark: watermark, Positions: c.Next, Partitions: c.Partitions, Counts: c.Counts,
		Beside: map[string]func(io.Writer) error{},
	}
	for name, p := range c.Parts {
		write := func(w io.Writer) error {
			_, err := io.Copy(w, p.Reader())
			return err
		}
		if name == state.Engine {
			contents.State = write
		} else {
			contents.Beside[name] = write
		}
	}
	if err := contents.Write(out, force); err != nil {
		return err
	}
	con := consoleOf(cmd)
	if f.Entries > 0 {
		con.notef("%d entries since the checkpoint are not in it: their events are read again from the positions", f.Entries)
	}
	return con.result(struct {
		Out       string           `json:"out"`
		Positions map[string]int64 `json:"positions"`
		Entries   int              `json:"entries_left_out"`
	}{out, c.Next, f.Entries}, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s: the state of job %s\n", out, f.Job)
		return err
	})
}

type stateImportFlags struct {
	state, job string
	models     []string
	positions  []string
}

func newStateImportCmd() *cobra.Command {
	var f stateImportFlags
	cmd := &cobra.Command{
		Use:   "import STATEDIR --state DIR --model MODEL",
		Short: "Begin a scoring job's state from a state directory",
		Long: `import makes the state of a scoring job from what "onmart features --state-out", "onmart score --state-out" or
"onmart state export" wrote: this is how a backfill hands over to a scorer. The features must be those of the
model. --position says where the scorer goes on in each source: the first event that the backfill had not seen,
such as --position kafka:transactions/0=81230. Followers without a state keep what their models carry.`,
		Args: cobra.ExactArgs(1),
	}
	fl := cmd.Flags()
	fl.StringVar(&f.state, "state", "", "`directory` for the job's state, new or empty")
	fl.StringVar(&f.job, "job", "score", "the job's `name`, as for onmart score")
	fl.StringArrayVar(&f.models, "model", nil, "artifact `directory` that the job scores with; once for each task")
	fl.StringArrayVar(&f.positions, "position", nil, "next position of a source, `SOURCE=N`; once for each (default: those in the state)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return runStateImport(cmd, args[0], &f) }
	return cmd
}

// parsePositions reads SOURCE=N. A source's name may have a = in it.
func parsePositions(list []string, into map[string]int64) error {
	for _, p := range list {
		i := strings.LastIndexByte(p, '=')
		if i < 1 {
			return usagef("--position %s: want SOURCE=N, such as kafka:transactions/0=81230", p)
		}
		n, err := strconv.ParseInt(p[i+1:], 10, 64)
		if err != nil || n < 0 {
			return usagef("--position %s: %s is not a position", p, p[i+1:])
		}
		into[p[:i]] = n
	}
	return nil
}

func runStateImport(cmd *cobra.Command, from string, f *stateImportFlags) (err error) {
	switch {
	case f.state == "":
		return usagef("--state is missing: name a directory for the job's state")
	case len(f.models) == 0:
		return usagef("--model is missing: name the directory that onmart train wrote")
	}
	manifest, err := features.OpenState(from)
	if err != nil {
		return err
	}
	c := &state.Checkpoint{
		Next: map[string]int64{}, Partitions: manifest.Partitions, Counts: manifest.Counts, Parts: map[string]*state.Part{state.Engine: {}},
	}
	maps.Copy(c.Next, manifest.Positions)
	maps.DeleteFunc(c.Next, func(name string, _ int64) bool { return features.IsDataPosition(name) })
	if err := parsePositions(f.positions, c.Next); err != nil {
		return err
	}
	models, err := openScored(f.models, 1)
	if err != nil {
		return err
	}
	without, err := models.warmFrom(from)
	if err != nil {
		return err
	}
	con := consoleOf(cmd)
	for _, task := range without {
		con.notef("%s has no state of task %s: it goes on from what its model carries", from, task)
	}
	if err := features.CopyState(from, c.Parts[state.Engine]); err != nil {
		return err
	}
	id := state.Identity{Job: f.job, Nodes: manifest.Nodes}
	for _, m := range models.followers {
		p := &state.Part{}
		if err := m.Snapshot(p); err != nil {
			return err
		}
		c.Parts[m.Task()] = p
		id.Followers = append(id.Followers, m.Task())
	}
	for _, name := range manifest.Beside() {
		if c.Parts[name] != nil {
			continue // of a follower
		}
		c.Parts[name] = &state.Part{}
		if err := features.CopyBeside(from, name, c.Parts[name]); err != nil {
			return err
		}
	}
	s, err := state.Open(f.state, id, state.Options{Context: cmd.Context(), OnSpace: func(x state.Space) {
		if x.Short {
			con.notef("%s: the disk is full: waiting for %d bytes, there are %d", f.state, x.Needs, x.Free)
		}
	}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	old, err := s.Checkpoint()
	if err != nil {
		return err
	}
	if old != nil || s.Last() > 0 {
		return fmt.Errorf("%s has a state already: name a directory that is empty or does not exist", f.state)
	}
	if err := s.Save(c); err != nil {
		return err
	}
	return con.result(struct {
		State     string           `json:"state"`
		Job       string           `json:"job"`
		Positions map[string]int64 `json:"positions"`
	}{f.state, f.job, c.Next}, func(w io.Writer) error {
		var b strings.Builder
		fmt.Fprintf(&b, "%s: the state of job %s\n", f.state, f.job)
		for _, source := range slices.Sorted(maps.Keys(c.Next)) {
			fmt.Fprintf(&b, "  goes on in %s at %d\n", source, c.Next[source])
		}
		_, err := io.WriteString(w, b.String())
		return err
	})
}

// warmFrom gives a scorer of these models the state of a directory, which checks it, and its followers with it. It returns
// the tasks that the directory has no state for.
func (m *scored) warmFrom(dir string) (without []string, err error) {
	schema, err := m.input()
	if err != nil {
		return nil, err
	}
	mapping, err := datasets.MappingFor(schema)
	if err != nil {
		return nil, err
	}
	s, err := score.New(score.Options{Artifact: m.classifier, Followers: m.followers, Schema: mapping.LogSchema()})
	if err != nil {
		return nil, err
	}
	return s.Warm(dir)
}
