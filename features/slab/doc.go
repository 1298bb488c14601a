// Package slab holds the state of a feature engine: blocks of 64-bit words in an arena, and on top of it tables
// that give keys dense numbers (Ints, Texts), multisets, sets that turn into sketches, and minima and maxima over
// stretches of a ring (Extremes).
//
// What enters are words and keys; what leaves are numbers and views of words. A block is named by a Ref, a number
// that can itself stand in a block: the state has no Go pointers, so that the garbage collector has nothing to
// scan and a state of ten million keys is a handful of objects to it. On Linux all but the first MiB lies outside
// the Go heap, so that it does not delay collections either, and a budget can be given: what lies beyond it is kept
// in an unlinked temporary file that is mapped into memory, and Trim, called between batches, hands memory back.
// State is never dropped and results never depend on the budget.
//
// What may not be assumed: that a Ref means anything in another arena or another process (snapshots are made of
// contents, never of Refs); that two structures are safe for concurrent use (only Arena is; a table or a block is
// for one goroutine at a time, or for many that only read); that hashes withstand an opponent who knows them: they
// have no secret seed, since results must be the same everywhere. Sequential, strided and sparse keys are fine.
//
// Reading order: arena.go (blocks), system_linux.go (where chunks come from), index.go (the hash index that Ints and
// Texts share), ints.go, texts.go, multiset.go, set.go, extremes.go.
package slab
