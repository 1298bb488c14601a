package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"

	"github.com/onmart/onmart/train/cpu"
	"github.com/onmart/onmart/train/program"
)

// instructionRate is what all instructions of one operation reach in a step of a program, on one thread.
type instructionRate struct {
	Op      string  `json:"op"`
	Program string  `json:"program"`
	Count   int     `json:"instructions"`
	Seconds float64 `json:"seconds"` // of a step
	Share   float64 `json:"share"`   // of the step
	GFLOPs  float64 `json:"gflops"`
	GBs     float64 `json:"gb_s"`
	Peak    float64 `json:"share_of_peak"` // the greater of the shares of one thread's multiply-adds and of its memory
}

// instructionRates profiles the six networks and the programs of bench gpu and sums their steps by operation.
func instructionRates(backend *cpu.Backend) ([]instructionRate, error) {
	programs := append(mlpPrograms(), benchPrograms()...)
	var out []instructionRate
	for i, p := range programs {
		if slices.ContainsFunc(programs[:i], func(q benchProgram) bool { return q.name == p.name }) {
			continue
		}
		rows := max(4*p.batch, 1<<14)
		set, err := p.compile(rows)
		if err != nil {
			return nil, err
		}
		profile, err := backend.Profile(set, p.data(rows, rows/p.batch))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
		out = append(out, sumByOp(p.name, set.Train, profile)...)
	}
	return out, nil
}

// sumByOp adds the lines of a profile up by operation, the longest first.
func sumByOp(name string, p *program.Program, profile *cpu.Profile) []instructionRate {
	sums, seen := map[program.Op]*instructionRate{}, map[int]bool{}
	for _, l := range profile.Lines {
		op := program.Op("packing and copying")
		if l.Instruction >= 0 {
			op = p.Instrs[l.Instruction].Op
		}
		s := sums[op]
		if s == nil {
			s = &instructionRate{Op: string(op), Program: name}
			sums[op] = s
		}
		if !seen[l.Instruction] {
			seen[l.Instruction] = true
			s.Count++
		}
		s.Seconds += l.Seconds
		s.Share += l.Share
		s.GFLOPs += l.GFLOPS * l.Seconds
		s.GBs += l.GBs * l.Seconds
	}
	var out []instructionRate
	for _, s := range sums {
		if s.Seconds > 0 {
			s.GFLOPs, s.GBs = s.GFLOPs/s.Seconds, s.GBs/s.Seconds
		}
		s.Peak = s.GBs / profile.PeakGBs
		if profile.PeakGFLOPS > 0 {
			s.Peak = max(s.Peak, s.GFLOPs/profile.PeakGFLOPS)
		}
		out = append(out, *s)
	}
	slices.SortFunc(out, func(a, b instructionRate) int {
		return cmp.Or(-cmp.Compare(a.Seconds, b.Seconds), cmp.Compare(a.Op, b.Op))
	})
	return out
}

// printInstructions is a table of each operation in the program where it takes the greatest share.
func printInstructions(w io.Writer, rates []instructionRate) error {
	best := map[string]instructionRate{}
	for _, r := range rates {
		if r.Share > best[r.Op].Share {
			best[r.Op] = r
		}
	}
	t := newTable("operation", "in a step of", "instructions", "us", "of the step", "GFLOP/s", "GB/s", "of the peak")
	ops := slices.SortedFunc(func(yield func(instructionRate) bool) {
		for _, r := range best {
			if !yield(r) {
				return
			}
		}
	}, func(a, b instructionRate) int { return cmp.Compare(a.Op, b.Op) })
	for _, r := range ops {
		t.add(r.Op, r.Program, fmt.Sprint(r.Count), fmt.Sprintf("%.2f", r.Seconds*1e6), fmt.Sprintf("%.1f%%", 100*r.Share),
			fmt.Sprintf("%.1f", r.GFLOPs), fmt.Sprintf("%.1f", r.GBs), fmt.Sprintf("%.0f%%", 100*r.Peak))
	}
	return t.write(w)
}
