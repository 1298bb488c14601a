package main

import (
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/datasets/mock"
)

func newMockCmd() *cobra.Command {
	m := &mocked{}
	cmd := &cobra.Command{
		Use:   "mock --out DIR | mock --check [DIR]",
		Short: "Generate a shop with planted truths, or measure them back",
		Long: `mock writes a shop: a data set of purchases, and beside it users, stores, products, prices, calendar,
promotions and stock. What is true of it is planted and written beside it: seasons, trend, promotion lift, elasticity,
tastes, products that are bought together or again, friends who buy what friends bought, returns, stock-outs, and three
kinds of fraud. truth.json has the numbers. The same options and seed give the same bytes.

With --check it measures what was planted from the data, prints both with a verdict, and fails where an effect is not
found: in the shop DIR, or in the one that it has just made in --out, or without both in one that is not kept.`,
		Args: cobra.MaximumNArgs(1),
	}
	fl := cmd.Flags()
	fl.StringVar(&m.out, "out", "", "data set `directory` to make")
	fl.IntVar(&m.o.Rows, "rows", 350_000, "purchase lines, about")
	fl.Uint64Var(&m.o.Seed, "seed", 1, "seed")
	fl.IntVar(&m.o.Days, "days", 548, "days")
	fl.StringVar(&m.start, "start", "", "first day, such as 2026-01-05; without it the last day is 2026-04-04")
	fl.IntVar(&m.o.Users, "users", 0, "users; 0 is by rows and days, a thousand for the defaults")
	fl.IntVar(&m.o.Products, "products", 0, "products; 0 is by rows, 312 for the default")
	fl.IntVar(&m.o.Stores, "stores", 0, "stores, the first three of them online; 0 is by users")
	fl.BoolVar(&m.check, "check", false, "measure what was planted from the data")
	force := addForce(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		m.force, m.con = *force, consoleOf(cmd)
		return m.run(cmd, args)
	}
	return cmd
}

// mocked is one run of mock.
type mocked struct {
	o          mock.Options
	out, start string
	check      bool
	force      bool
	con        *console
}

// mockResult is what --json prints: what was made, and what the check found.
type mockResult struct {
	Out   string       `json:"out,omitempty"`
	Rows  int64        `json:"rows"`
	Truth *mock.Truth  `json:"truth,omitempty"`
	Check *mock.Report `json:"check,omitempty"`
}

func (m *mocked) run(cmd *cobra.Command, args []string) error {
	if err := m.validate(cmd, args); err != nil {
		return err
	}
	result := mockResult{Out: m.out}
	dir := m.out
	if len(args) == 1 {
		dir = args[0]
	} else {
		if dir == "" {
			scratch, err := os.MkdirTemp("", "onmart-mock-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(scratch)
			dir = filepath.Join(scratch, "shop")
		}
		truth, err := m.generate(cmd, dir)
		if err != nil {
			return err
		}
		result.Rows, result.Truth = truth.Lines, truth
	}
	if m.check {
		report, err := mock.Check(cmd.Context(), dir)
		if err != nil {
			return err
		}
		result.Rows, result.Check = report.Lines, report
	}
	if err := m.con.result(result, func(w io.Writer) error { return printMock(w, &result) }); err != nil {
		return err
	}
	if c := result.Check; c != nil && c.NotFound > 0 {
		return fmt.Errorf("%d of %d planted effects were not found", c.NotFound, len(c.Effects))
	}
	return nil
}

// validate finds flags that contradict each other or are out of range, before anything is made.
func (m *mocked) validate(cmd *cobra.Command, args []string) error {
	making := []string{"out", "rows", "seed", "days", "start", "users", "products", "stores", "force"}
	switch {
	case len(args) == 1 && !m.check:
		return usagef("%s: a shop is made in --out %[1]s, or checked with --check %[1]s", args[0])
	case len(args) == 1:
		for _, name := range making {
			if cmd.Flags().Changed(name) {
				return usagef("--check %s --%s: a shop that exists is only measured: leave one of them out", args[0], name)
			}
		}
		return nil
	case m.out == "" && !m.check:
		return usagef("--out is missing: name the directory to make")
	}
	for _, f := range []struct {
		name  string
		value int
		given bool
	}{{"rows", m.o.Rows, true}, {"days", m.o.Days, true}, {"users", m.o.Users, cmd.Flags().Changed("users")},
		{"products", m.o.Products, cmd.Flags().Changed("products")}, {"stores", m.o.Stores, cmd.Flags().Changed("stores")}} {
		if f.given && f.value == 0 { // which the library takes as its default
			return usagef("--%s 0: want 1 or more", f.name)
		}
	}
	if m.start != "" {
		t, err := time.Parse(time.DateOnly, m.start)
		if err != nil {
			return usagef("--start %q: want a day such as 2026-01-05", m.start)
		}
		m.o.Start = t.UnixMicro()
	}
	return replaces("--out", m.out, m.force, string(datasets.KindTransactions))
}

func (m *mocked) generate(cmd *cobra.Command, dir string) (*mock.Truth, error) {
	s, err := mock.New(m.o)
	if err != nil {
		return nil, usage(err)
	}
	bar := m.con.bar("mock", int64(m.o.Days), "days")
	_, err = s.Write(cmd.Context(), dir, m.force, datasets.Created{Command: "mock", Version: buildVersion(),
		Args: os.Args[1:]},
		func(done, _ int) { bar.Set(int64(done), "") })
	if err != nil {
		return nil, err
	}
	bar.Done()
	truth := s.Truth()
	return &truth, nil
}

func printMock(w io.Writer, r *mockResult) error {
	if t := r.Truth; t != nil && r.Out != "" {
		fmt.Fprintf(w, "%s: %d lines of %d purchases, %s to %s, by %d users of %d products in %d stores\n  %s\n",
			r.Out, t.Lines, t.Purchases, t.FirstDay, t.LastDay, t.Users, t.Products, t.Stores, plantedText(t))
	}
	c := r.Check
	if c == nil {
		return nil
	}
	t := newTable("effect", "", "planted", "measured", "between", "and", "verdict", "")
	group := ""
	for _, f := range c.Effects {
		head := f.Group
		if head == group {
			head = ""
		}
		group = f.Group
		t.add(head, f.Name, number(f.Planted), number(f.Measured), number(f.Low), number(f.High), string(f.Verdict), f.Note)
	}
	if err := t.write(w); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%d effects found in %d lines, %d not found, %d unclear for want of data\n", c.Found,
		c.Lines, c.NotFound, c.Unclear)
	return err
}

// number writes a figure with three digits behind the first, whole numbers without.
func number(v float64) string {
	switch {
	case v == math.Trunc(v) && math.Abs(v) < 1e9:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case math.Abs(v) >= 100:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}

// plantedText is "1,024 fraud lines (123 large_amount, ...)".
func plantedText(t *mock.Truth) string {
	var parts []string
	var total int64
	for kind, n := range t.FraudLines {
		parts = append(parts, fmt.Sprintf("%d %s", n, kind))
		total += n
	}
	slices.Sort(parts)
	return fmt.Sprintf("%d of them fraud (%s)", total, strings.Join(parts, ", "))
}
