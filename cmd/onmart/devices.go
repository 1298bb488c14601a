package main

import (
	"github.com/spf13/cobra"
)

func newDevicesCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "devices", Short: "Show what can run programs, and why not the rest", Args: cobra.NoArgs}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return nil }
	return cmd
}
