package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/onmart/onmart/score/guard"
)

func newTokenCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Tokens for the HTTP requests of onmart score",
	}
	cmd.AddCommand(newTokenNewCmd())
	return cmd
}

func newTokenNewCmd() *cobra.Command {
	var name, scopes, out string
	cmd := &cobra.Command{
		Use:   "new --name NAME --scopes SCOPE,... [--out FILE]",
		Short: "Make a token",
		Long: `new makes a random token and prints it, once: it is stored nowhere. The line for the file of
"onmart score --tokens" holds its name, its scopes and its SHA-256; with --out it is added to that file, which is made where it is missing, and
without it is printed too. A scorer that runs takes the file up within seconds. To revoke a token, delete its line.

Scopes: score (POST /v1/score, forecasts, recommendations, stock), labels (POST /v1/labels), read (status page, models), admin
(change models, profiles), metrics (GET /metrics).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return newToken(consoleOf(cmd), name, scopes, out) },
	}
	fl := cmd.Flags()
	fl.StringVar(&name, "name", "", "`name` of who gets it, for logs")
	fl.StringVar(&scopes, "scopes", "", "`list` of what it allows, separated by commas")
	fl.StringVar(&out, "out", "", "tokens `file` to add it to")
	cmd.MarkFlagRequired("name")
	cmd.MarkFlagRequired("scopes")
	return cmd
}

func newToken(con *console, name, scopes, out string) error {
	allowed, err := guard.ParseScopes(scopes)
	if err != nil {
		return usage(fmt.Errorf("--scopes: %w", err))
	}
	token, line, err := guard.NewToken(name, allowed)
	if err != nil {
		return usage(fmt.Errorf("--name: %w", err))
	}
	if out != "" {
		if err := guard.AddToken(out, name, line); err != nil {
			return err
		}
	}
	if con.json {
		return con.result(
			map[string]string{"name": name, "scopes": allowed.String(), "token": token, "line": line[:len(line)-1]},
			nil,
		)
	}
	if out != "" {
		con.notef("added %s to %s; the token, which is shown once:", name, out)
	} else {
		con.notef("line for the tokens file:\n%stoken, which is shown once:", line)
	}
	_, err = fmt.Fprintln(con.out, token)
	return err
}
