package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/onmart/onmart/internal/atomicdir"
)

// replaces refuses --force for a directory of another kind than the one that is to be made there: a data set
// must not go because a model was given its name.
func replaces(flag, dir string, force bool, kind string) error {
	if !force || dir == "" {
		return nil
	}
	text, err := os.ReadFile(filepath.Join(dir, atomicdir.ManifestName))
	if err != nil {
		return nil // not there, or none of ours: making it says so
	}
	var m struct{ Kind string }
	if err := json.Unmarshal(text, &m); err != nil || m.Kind == "" || m.Kind == kind {
		return nil
	}
	return usagef("%s: %s holds %s, and here --force replaces %s only: name another directory", flag, dir, inWords(m.Kind), inWords(kind))
}

// inWords is a kind of directory in a sentence.
func inWords(kind string) string {
	if kind == "transactions" || kind == "features" || kind == "predictions" || kind == "interactions" {
		return kind
	}
	return fmt.Sprintf("a %s", kind)
}
