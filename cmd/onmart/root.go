package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Exit codes of the process.
const (
	exitGood   = 0
	exitFailed = 1 // the run failed
	exitUsage  = 2 // onmart was called wrongly: flags, arguments, onmart.yaml
)

// commands lists the subcommands in the order of help and of docs/CLI.md. After adding one, run
// `go test ./cmd/onmart -run TestCLIReference -update`.
func commands() []*cobra.Command {
	return []*cobra.Command{
		newDemoCmd(),
		newInitCmd(),
		newMockCmd(),
		newImportCmd(),
		newInspectCmd(),
		newFeaturesCmd(),
		newTrainCmd(),
		newEvaluateCmd(),
		newPredictCmd(), newForecastCmd(), newRecommendCmd(),
		newScoreCmd(), newTokenCmd(),
		newStateCmd(),
		newRedriveCmd(),
		newBenchCmd(),
		newDevicesCmd(),
		newDocsCmd(),
	}
}

// newRoot makes the whole command tree.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "onmart",
		Short: "Purchases to features, models and live scores",
		Long: `onmart turns a stream of purchases, or an export of it, into features that are right in time,
trains models on them and scores live events with the same features and models.

Every flag may also be set in onmart.yaml (or the file of --config) and by an environment variable:
the flag --delay of "onmart train fraud" is train.fraud.delay in the file, or train.delay, or delay for
every command that has it; and ONMART_TRAIN_FRAUD_DELAY, ONMART_TRAIN_DELAY or ONMART_DELAY. Flags win over
variables, variables over the file. --force is given on the command line only.`,
		Args:              cobra.NoArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Version:           buildVersion(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintln(cmd.ErrOrStderr(), cmd.UsageString())
			return usagef("name a command")
		},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return applyConfig(cmd) },
	}
	root.SetVersionTemplate("onmart {{.Version}}\n")
	f := root.PersistentFlags()
	f.String("config", "", "settings `file` (default onmart.yaml where it exists)")
	f.Bool("json", false, "print one JSON object on standard output at the end")
	f.BoolP("quiet", "q", false, "no progress and no log, errors only")
	f.BoolP("verbose", "v", false, "log details")
	root.AddCommand(commands()...)
	prepare(root)
	return root
}

// prepare gives every command below root what all share: errors found before a command runs are usage
// errors, a command that only groups others shows its help, and flags keep the order in which they were
// added.
func prepare(cmd *cobra.Command) {
	cmd.Flags().SortFlags = false
	cmd.PersistentFlags().SortFlags = false
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return &usageError{err: err} })
	if cmd.HasSubCommands() && cmd.RunE == nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return fmt.Errorf("unknown command %q%s", args[0], suggest(args[0], childNames(cmd)))
		}
		cmd.RunE = func(cmd *cobra.Command, _ []string) error {
			fmt.Fprintln(cmd.ErrOrStderr(), cmd.UsageString())
			return usagef("name one of %s", strings.Join(childNames(cmd), ", "))
		}
	}
	if inner := cmd.RunE; inner != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			if err := inner(cmd, args); err != nil {
				return &runError{err}
			}
			return nil
		}
	}
	for _, sub := range cmd.Commands() {
		prepare(sub)
	}
}

// childNames lists the visible commands below cmd.
func childNames(cmd *cobra.Command) []string {
	var names []string
	for _, sub := range cmd.Commands() {
		if !sub.Hidden {
			names = append(names, sub.Name())
		}
	}
	return names
}

// runError marks an error of a command that did start; any other error is one of usage.
type runError struct{ err error }

func (e *runError) Error() string { return e.err.Error() }
func (e *runError) Unwrap() error { return e.err }

// usageError marks an error of usage found after the command started, such as a range that does not parse.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// usagef is an error that ends the process with exit code 2.
func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// usage marks err, where it is not nil, as one of usage.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return &usageError{err}
}

// run executes the command line and returns the exit code.
func run(ctx context.Context, root *cobra.Command, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitGood
	}
	name := strings.TrimPrefix(strings.TrimPrefix(cmd.CommandPath(), "onmart"), " ")
	where := "onmart"
	if name != "" {
		where += " " + name
	}
	if errors.Is(err, context.Canceled) && errors.Is(context.Cause(ctx), errInterrupted) {
		fmt.Fprintf(stderr, "%s: interrupted\n", where)
		return exitFailed
	}
	_, ran := errors.AsType[*runError](err)
	_, wrong := errors.AsType[*usageError](err)
	if ran && !wrong {
		fmt.Fprintf(stderr, "%s: %s\n", where, strings.TrimPrefix(err.Error(), cmd.Name()+": "))
		return exitFailed
	}
	fmt.Fprintf(stderr, "%s: %v (%s --help shows how)\n", where, strings.TrimPrefix(describe(cmd, err), cmd.Name()+": "), where)
	return exitUsage
}

// describe puts pflag's and cobra's errors into our form: what is wrong, and the nearest right thing.
func describe(cmd *cobra.Command, err error) string {
	if e, ok := errors.AsType[*pflag.NotExistError](err); ok {
		var flags []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { flags = append(flags, "--"+f.Name) })
		return err.Error() + suggest("--"+e.GetSpecifiedName(), flags)
	}
	rest, ok := strings.CutPrefix(err.Error(), `unknown command "`)
	if ok && !strings.Contains(rest, "did you mean") { // cobra's own, with its suggestions in paragraphs
		typed, _, _ := strings.Cut(rest, `"`)
		return fmt.Sprintf("unknown command %q%s", typed, suggest(typed, childNames(cmd)))
	}
	return err.Error()
}
