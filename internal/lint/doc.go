// Package lint holds the rules of the house as tests: who may import whom, over transitive imports; where
// cgo, gorgonia, golearn and broker clients may appear; and that no file names a path of one machine.
//
// The source of this module enters; findings leave. The rules hold for whatever packages exist.
package lint
