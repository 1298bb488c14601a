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

// openFeatures opens what --data names. A features data set is taken as it is. Of transactions, or a recorded
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
	switch kind := d.Manifest().Kind; kind {
	case datasets.KindFeatures:
		return d, nil
	case datasets.KindTransactions, datasets.KindLog:
	default:
		return nil, fmt.Errorf("%s holds %s: --data wants features or transactions, a directory of onmart features, onmart import or onmart score --record", dir, kind)
	}
	plan, err := spec.Plan(d.Schema())
	if err != nil {
		return nil, fmt.Errorf("%s: its features cannot be computed: %w", dir, err)
	}
	kept := filepath.Clean(dir) + ".features-" + plan.Fingerprint()[:8]
	if old, err := datasets.Open(kept); err == nil {
		if made, err := features.MadeFrom(old); err == nil && made.Data == d.ID() && made.Fingerprint == plan.Fingerprint() && made.Range == (datasets.Range{}).String() {
			con.notef("features of %s: taken from %s", dir, kept)
			return old, nil
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		con.notef("%v: computed again", err)
	}
	con.notef("features of %s: computed into %s", dir, kept)
	bar := con.bar("features", d.Manifest().Rows, "rows")
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
