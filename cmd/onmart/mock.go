package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/datasets"
	"github.com/onmart/onmart/datasets/mock"
)

func newMockCmd() *cobra.Command {
	var o mock.Options
	var dir string
	cmd := &cobra.Command{
		Use:   "mock --out DIR",
		Short: "Generate a card stream with planted frauds",
		Long: `mock writes a data set of purchases (users, stores, products, several lines a purchase) in which three kinds
of fraud are planted: large amounts, compromised stores, stolen cards. truth.json beside it says where. The same
size and seed give the same rows.`,
		Args: cobra.NoArgs,
	}
	fl := cmd.Flags()
	fl.StringVar(&dir, "out", "", "data set `directory` to make")
	fl.IntVar(&o.Rows, "rows", 300_000, "purchase lines, about")
	fl.Uint64Var(&o.Seed, "seed", 1, "seed")
	fl.IntVar(&o.Days, "days", 90, "days, from 2026-01-05")
	force := addForce(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if dir == "" {
			return usagef("--out is missing: name the directory to make")
		}
		if o.Rows == 0 || o.Days == 0 { // which the library takes as its defaults
			return usagef("--rows %d --days %d: want 1 or more of each", o.Rows, o.Days)
		}
		if err := replaces("--out", dir, *force, string(datasets.KindTransactions)); err != nil {
			return err
		}
		con := consoleOf(cmd)
		bar := con.bar("mock", int64(o.Days), "days")
		s, err := mock.New(o)
		if err != nil {
			return usage(err)
		}
		m, err := s.Write(cmd.Context(), dir, *force,
			datasets.Created{Command: "mock", Version: buildVersion(), Args: os.Args[1:]},
			func(done, _ int) { bar.Set(int64(done), "") })
		if err != nil {
			return err
		}
		bar.Done()
		truth := s.Truth()
		result := struct {
			Out  string `json:"out"`
			Rows int64  `json:"rows"`
			mock.Truth
		}{dir, m.Rows, truth}
		return con.result(result, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "%s: %d lines of %d purchases, %s\n", dir, m.Rows, truth.Purchases, plantedText(&truth))
			return err
		})
	}
	return cmd
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
