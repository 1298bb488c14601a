package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/features"
)

// openFeatures opens what --data names. A features data set, or of a spec of another shape a panel or interactions, is
// taken as it is. Of transactions, or a recorded
// log, the spec's features are computed first and kept beside them, as DIR.features-<fingerprint>: the next
// call with the same data and an equal spec takes those.
func openFeatures(ctx context.Context, con *console, dir string, spec *features.Spec, threads int) (*datasets.Dataset, error) {
	if dir == "" {
		return nil, usagef("--data is missing: name a directory of onmart features or onmart import")
	}
	d, err := datasets.Open(dir)
	if err != nil {
		return nil, err
	}
	want := spec.Shape().Kind()
	switch kind := d.Manifest().Kind; kind {
	case want:
		return d, nil
	case datasets.KindTransactions, datasets.KindLog:
	default:
		return nil, fmt.Errorf("%s holds %s: --data wants %s or transactions, a directory of onmart features, onmart import or onmart score --record", dir, kind, shapeWords(want))
	}
	tables, err := features.OpenTables(dir, spec)
	if err != nil {
		return nil, err
	}
	plan, err := spec.Plan(d.Schema(), tables)
	if err != nil {
		return nil, fmt.Errorf("%s: its features cannot be computed: %w", dir, err)
	}
	kept := filepath.Clean(dir) + "." + string(want) + "-" + plan.Fingerprint()[:8]
	if old, err := datasets.Open(kept); err == nil {
		if made, err := features.MadeFrom(old); err == nil && made.Data == d.ID() && made.Fingerprint == plan.Fingerprint() && made.Range == (datasets.Range{}).String() {
			con.notef("%s of %s: taken from %s", want, dir, kept)
			return old, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		con.notef("%v: computed again", err)
	}
	con.notef("%s of %s: computed into %s", want, dir, kept)
	bar := con.bar(string(want), d.Manifest().Rows, "rows")
	_, err = features.Run(ctx, features.RunOptions{
		Spec: spec, In: d, Out: kept, Force: true, Threads: threads,
		Created:  datasets.Created{Command: "features", Version: buildVersion(), Args: os.Args[1:]},
		Progress: func(done, _ int64) { bar.Set(done, "") },
	})
	if err != nil {
		return nil, err
	}
	bar.Done()
	return datasets.Open(kept)
}

// shapeWords is a kind that features makes, in a sentence.
func shapeWords(k datasets.Kind) string {
	if k == datasets.KindPanel {
		return "a panel"
	}
	return string(k)
}
