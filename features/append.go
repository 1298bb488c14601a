package features

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/onmart/onmart/datasets"
)

// goOn takes up the state of StateIn, if there is one, and checks that the input comes after it.
func (b *backfill) goOn() error {
	if b.StateIn == "" {
		if b.Append {
			return errors.New("rows can be appended only where the state is that followed the last one: give --state-in")
		}
		return nil
	}
	began, err := b.startState()
	if err != nil {
		return err
	}
	if b.positions, err = LoadState(b.StateIn, b.engine); err != nil {
		return err
	}
	if b.positions == nil {
		b.positions = map[string]int64{}
	}
	b.before = b.engine.Counts()
	if began != "" {
		sum := sha256.New()
		if err := b.engine.Snapshot(sum); err != nil {
			return err
		}
		if hex.EncodeToString(sum.Sum(nil)) != began {
			return fmt.Errorf("%s was recorded from another state than %s: leave out --state-in, the log has its own in %s",
				b.In.Dir(), b.StateIn, StartStateFile)
		}
	}
	if _, ok := b.positions[dataPosition(b.In.ID())]; ok {
		return fmt.Errorf("the state %s has folded %s already: name the data that come after it", b.StateIn, b.In.Dir())
	}
	m, w := b.In.Manifest(), b.engine.Watermark()
	if m.Kind == datasets.KindTransactions && m.Rows > 0 && w != beginning && m.From < w {
		return fmt.Errorf("%s begins at %s, before the end of what the state %s has folded, %s: import the rows from then "+
			"on, or compute everything anew from the whole data",
			b.In.Dir(), datasets.FormatTime(m.From), b.StateIn, datasets.FormatTime(w))
	}
	return nil
}

// startState is the checksum of the state that a log began from, "" where it has none.
func (b *backfill) startState() (string, error) {
	if b.In.Manifest().Kind != datasets.KindLog {
		return "", nil
	}
	text, err := os.ReadFile(filepath.Join(b.In.Dir(), StartStateFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:]), err
}

// openOld starts an output with the rows, and the rejects, of the data set that is appended to.
func (b *backfill) openOld() error {
	if b.Resume {
		return errors.New("--resume: rows that are appended have no checkpoint; run without --resume")
	}
	old, err := datasets.Open(b.Out)
	if err != nil {
		return err
	}
	made, err := MadeFrom(old)
	if err != nil {
		return err
	}
	if err := b.refuseAppend(old, made); err != nil {
		return err
	}
	whole, err := datasets.ParseRange(made.Range)
	if err != nil {
		return fmt.Errorf("%s: its range: %w", b.Out, err)
	}
	b.from, _ = whole.Bounds()
	if b.w, err = datasets.Append(old, b.Out, true); err != nil {
		return err
	}
	b.old, b.oldMade, b.rejects.base = old, made, old.Manifest().Counts["folded"]
	f, err := os.Open(filepath.Join(b.Out, RejectsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		defer f.Close()
		err = b.rejects.carry(f, false)
	}
	if err != nil {
		b.w.Abort()
	}
	return err
}

// refuseAppend finds what keeps the rows of the input from following those of the data set that is appended to.
func (b *backfill) refuseAppend(old *datasets.Dataset, made *Made) error {
	dir := old.Dir()
	if made.Shape != Events && made.Shape != "" {
		return fmt.Errorf("%s holds a %s: only features of transactions can be appended to; compute it anew", dir, made.Shape)
	}
	if err := b.plan.sameNodes(made.Nodes, nil); err != nil {
		return fmt.Errorf("%s cannot be appended to: %w; give the spec it was made of, or compute it anew", dir, err)
	}
	if made.Fingerprint != b.plan.Fingerprint() && slices.Equal(old.Schema().Fields, b.plan.out.Fields) {
		return fmt.Errorf("%s cannot be appended to: the tables that the spec joins have changed since it was made, and its "+
			"rows were computed with those of then; compute it anew", dir)
	}
	if !slices.Equal(old.Schema().Fields, b.plan.out.Fields) {
		return fmt.Errorf("%s cannot be appended to: it has the columns %s, and with %s they would be %s; compute it "+
			"anew", dir,
			strings.Join(columnNames(old.Schema()), ", "), b.In.Dir(), strings.Join(columnNames(b.plan.out), ", "))
	}
	if b.Range != (datasets.Range{}) {
		return errors.New("--range: all of the input is appended; leave it out")
	}
	if b.plan.event >= 0 && b.plan.label >= 0 && slices.Contains(b.plan.kept, b.plan.label) {
		return fmt.Errorf("%s is a log with labels, which may be of rows that %s has already: compute it anew from the "+
			"logs", b.In.Dir(), dir)
	}
	return b.sameInputs(dir, made)
}

// sameInputs checks that the state has folded what the data set was made of, no more and no less.
func (b *backfill) sameInputs(dir string, made *Made) error {
	inputs := made.inputs()
	if slices.Contains(inputs, b.In.ID()) {
		return fmt.Errorf("%s has the rows of %s already; where only the state is behind, --in %s --state-in %s "+
			"--state-out DIR without --append makes it",
			dir, b.In.Dir(), b.In.Dir(), b.StateIn)
	}
	var want []string
	for _, id := range inputs {
		want = append(want, dataPosition(id))
	}
	slices.Sort(want)
	if got := slices.Sorted(maps.Keys(b.positions)); !slices.Equal(want, got) {
		return fmt.Errorf("the state %s is not the one that followed the last row of %s: it has folded %s, the features "+
			"were made of %s; give the state that was written with them",
			b.StateIn, dir, shortPositions(got), shortPositions(want))
	}
	return nil
}

// shortPositions lists sources with ids cut to what tells them apart.
func shortPositions(names []string) string {
	var short []string
	for _, n := range names {
		short = append(short, n[:min(len(n), len("data:")+12)])
	}
	return "(" + strings.Join(short, ", ") + ")"
}

// inputs are the ids of the data sets that features were computed of, in order.
func (m *Made) inputs() []string {
	if len(m.Inputs) > 0 {
		return m.Inputs
	}
	return []string{m.Data}
}

// dataOf is the id of several data sets one after the other; of one its own.
func dataOf(inputs []string) string {
	if len(inputs) == 1 {
		return inputs[0]
	}
	sum := sha256.Sum256([]byte(strings.Join(inputs, "\n")))
	return hex.EncodeToString(sum[:])
}
