//go:build !linux

package atomicdir

import (
	"errors"
	"os"
)

// renameNew renames a to b; a directory that appeared at b meanwhile makes it fail.
func renameNew(a, b string) error { return os.Rename(a, b) }

// exchange is not used here: the old directory is moved aside instead.
func exchange(a, b string) error { return errors.ErrUnsupported }
