package main

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
)

// TestCrashOracle holds the oracle of the crash tests against a run without faults, in which it must find none, and against
// the same run with a fault of each kind.
func TestCrashOracle(t *testing.T) {
	for _, model := range []string{"", filepath.Join(t.TempDir(), "model")} {
		job := newCrashJob(t, "crash", model, true)
		pretended := func(forgets func(i int, x *record) bool) *crashRun {
			return newCrashStream(1).fill(12000).pretended(t, job, rand.New(rand.NewPCG(2, 2)), forgets)
		}
		run := pretended(func(int, *record) bool { return false })
		found, figures := examine(t, run, 100)
		if len(found) > 0 {
			t.Fatalf("a run without faults:\n%s", found)
		}
		if figures.lines < 11500 || figures.letters < 150 || figures.labels < 800 || figures.late < 50 ||
			figures.defined != 100 {
			t.Errorf("%+v", figures)
		}
		if model != "" {
			continue // the faults are told alike
		}
		line := func(r *crashRun, n int) *record { return &r.lines[n] }
		for _, c := range []struct {
			name string
			harm func(r *crashRun)
			want string
		}{
			{"a line that is not there", func(r *crashRun) { r.lines = slices.Delete(r.lines, 700, 701) }, missing},
			{"the last line is not there", func(r *crashRun) { r.lines = r.lines[:len(r.lines)-1] }, missing},
			{"a letter that is not there", func(r *crashRun) { r.letters = r.letters[1:] }, missing},
			{"a line that is there twice", func(r *crashRun) { r.lines = slices.Insert(r.lines, 900, r.lines[899]) }, twice},
			{"a letter that is there twice", func(r *crashRun) { r.letters = append(r.letters, r.letters[3]) }, twice},
			{"a line of another stream", func(r *crashRun) {
				line(r, 800).value = regexp.MustCompile(`"n":\d+`).ReplaceAll(line(r, 800).value, []byte(`"n":99999999`))
			}, unknown},
			{"a line under another key", func(r *crashRun) { line(r, 800).key = []byte("x") }, unknown},
			{"a letter with another event", func(r *crashRun) {
				r.letters[2].value = bytes.Replace(r.letters[2].value, []byte(`product_id\":1`), []byte(`product_id\":2`), 1)
			}, unknown},
			{"lines in another order", func(r *crashRun) { r.lines[60], r.lines[61] = r.lines[61], r.lines[60] }, disorder},
			{"a value of a line", func(r *crashRun) {
				line(r, 9876).value = regexp.MustCompile(`"store_mean_1d":\d`).ReplaceAll(line(r, 9876).value, []byte(`"store_mean_1d":7`))
			}, wrong},
			{"a value, and its definition", func(r *crashRun) {
				for i := range r.lines {
					line(r, i).value = regexp.MustCompile(`"user_count_1h":\d+`).ReplaceAll(line(r, i).value, []byte(`"user_count_1h":77`))
				}
			}, otherness},
			{"an event that is not in the state", func(r *crashRun) {
				n := 0
				*r = *pretended(func(_ int, x *record) bool {
					if x.want == wantLine {
						n++
					}
					return x.want == wantLine && n == 9000
				})
			}, disorder},
			{"a label that is not in the state", func(r *crashRun) {
				n := 0
				*r = *pretended(func(_ int, x *record) bool {
					if x.want == wantLabel {
						n++
					}
					return x.want == wantLabel && n == 500
				})
			}, wrong},
			{"the state is an older one", func(r *crashRun) { r.state = bytes.Clone(r.state); r.state[len(r.state)/2] ^= 1 }, drifted},
			{"partitions have changed numbers", func(r *crashRun) {
				r.numbers = maps.Clone(r.numbers)
				r.numbers["kafka:in/0"], r.numbers["kafka:in/1"] = r.numbers["kafka:in/1"], r.numbers["kafka:in/0"]
			}, wrong},
			{"a transaction that was not scored", func(r *crashRun) {
				r.letters[0].value = bytes.Replace(r.letters[0].value, []byte(`"position":`), []byte(`"position":1`), 1)
			}, missing},
		} {
			harmed := *run
			harmed.lines, harmed.letters = slices.Clone(run.lines), slices.Clone(run.letters)
			c.harm(&harmed)
			found, _ := examine(t, &harmed, 100)
			if len(found[c.want]) == 0 {
				t.Errorf("%s: not found: %s", c.name, found)
			}
		}
	}
}
