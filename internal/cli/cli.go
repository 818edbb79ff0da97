// Package cli is qgjob's command line: one file a command, each an options struct that is parsed from
// flags and run. It wires the packages together (it alone names concrete drivers) and decides nothing
// about jobs itself.
//
// It promises texts and exit codes that people script against: what stdout holds in plain mode is the
// contract's, one line a fact; everything else that is said to a person goes to stderr. Exit codes come from
// the one table in exit.go, and a command that waits for a test exits 0 only when that test passed. Plain
// mode is used whenever stdout is no terminal, in CI, and with --plain.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Environment is what the process was started with and what reaches it from outside.
type Environment struct {
	Vars    []string         // "NAME=value", as os.Environ gives them; of two with one name the last counts
	Signals <-chan os.Signal // interrupts; a command that does not ask first ends in order at the first one
}

// program is one invocation of the command line.
type program struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	vars           map[string]string
	signals        <-chan os.Signal

	logLevel slog.Level
	plain    bool
}

// Main runs one command line (without the program's name) and returns its exit code. It has ended
// everything that it started when it returns.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, env Environment) int {
	p := &program{stdin: stdin, stdout: stdout, stderr: stderr, vars: map[string]string{}, signals: env.Signals, logLevel: slog.LevelInfo}
	for _, v := range env.Vars {
		name, value, _ := strings.Cut(v, "=")
		p.vars[name] = value
	}
	root := p.rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	code := exitOf(err)
	if _, ours := errors.AsType[*commandError](err); err != nil && !ours {
		code = exitUsage // cobra itself refused the command line
	}
	if err != nil && err.Error() != "" {
		fmt.Fprintf(stderr, "qgjob: %s\n", strings.TrimSpace(err.Error()))
		if code == exitUsage {
			fmt.Fprintf(stderr, "Run '%s --help' for its flags and examples.\n", cmd.CommandPath())
		}
	}
	return int(code)
}

// commandError marks an error that came from a command of ours and not from cobra's parser.
type commandError struct{ error }

func (e *commandError) Unwrap() error { return e.error }

func (p *program) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "qgjob",
		Short: "Queue, group and run AppWright tests on the devices that a team has",
		Long: "qgjob queues, groups and runs AppWright end-to-end tests on phones, emulators and BrowserStack.\n" +
			"Submit a test with one command; it runs on the right device as soon as its priority allows.\n\n" + exitHelp(),
		Example: `  qgjob dev --phones 2
  qgjob submit --org-id=qualgent --app-version-id=xyz123 --test=tests/onboarding.spec.js --wait
  qgjob status --job-id=02c57c1a-2f47-4e3e-b264-b30a7e92e804`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          knownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	flags := root.PersistentFlags()
	flags.TextVar(&p.logLevel, "log-level", slog.LevelInfo, "least `level` of the log on stderr: debug, info, warn or error")
	flags.BoolVar(&p.plain, "plain", false, "no colours and no live line, as when the output is no terminal")
	for _, c := range []*cobra.Command{
		p.submitCommand(), p.runCommand(), p.appCommand(), p.statusCommand(), p.waitCommand(), p.listCommand(), p.cancelCommand(), p.retryCommand(), p.explainCommand(), p.queueCommand(), p.orgCommand(), p.flakyCommand(), p.webhookCommand(), p.logsCommand(), p.artifactsCommand(),
		p.workerCommand(), p.serverCommand(), p.devCommand(), p.devicesCommand(), p.phoneCommand(), p.simulateCommand(), p.exportCommand(), p.versionCommand(),
	} {
		root.AddCommand(c)
	}
	root.SetFlagErrorFunc(nearFlag)
	root.CompletionOptions.SetDefaultShellCompDirective(cobra.ShellCompDirectiveNoFileComp)
	return root
}

// knownCommand refuses what is no command, and says which one may have been meant.
func knownCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	root.SuggestionsMinimumDistance = 2
	if near := root.SuggestionsFor(args[0]); len(near) > 0 {
		return fmt.Errorf("unknown command %q: did you mean %s?", args[0], strings.Join(near, " or "))
	}
	return fmt.Errorf("unknown command %q", args[0])
}

// flagsOnly refuses arguments, and says which flag one may have been meant for.
func flagsOnly(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		return fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
	}
	for _, flag := range []string{"test", "job-id", "run-id"} {
		_, err := uuid.Parse(args[0])
		if cmd.Flags().Lookup(flag) != nil && (err == nil) == (flag != "test") {
			return fmt.Errorf("%q takes flags only: did you mean --%s=%s?", cmd.CommandPath(), flag, args[0])
		}
	}
	return fmt.Errorf("%q takes flags only, not %q", cmd.CommandPath(), args[0])
}

// oneArgument is for commands whose one argument Use names.
func oneArgument(cmd *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	_, name, _ := strings.Cut(cmd.Use, " ")
	return fmt.Errorf("%s takes one %s, and %d are given", cmd.CommandPath(), name, len(args))
}

// nearFlag adds to the error of a flag that is not known which one may have been meant.
func nearFlag(cmd *cobra.Command, err error) error {
	unknown, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok || unknown.GetSpecifiedShortnames() != "" {
		return err
	}
	near := &cobra.Command{Use: "flags", SuggestionsMinimumDistance: 2} // cobra compares the names of commands
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		near.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
	})
	if names := near.SuggestionsFor(unknown.GetSpecifiedName()); len(names) > 0 {
		return fmt.Errorf("%w: did you mean --%s?", err, strings.Join(names, " or --"))
	}
	return err
}

// completeWords lets the shell complete a flag's value.
func completeWords[T ~string](cmd *cobra.Command, flag string, words ...T) {
	choices := make([]cobra.Completion, len(words))
	for i, w := range words {
		choices[i] = string(w)
	}
	if err := cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(choices, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // there is no such flag
	}
}

// command fills in what all commands share: no arguments besides flags, and errors that are known as ours.
func command(cmd *cobra.Command, run func(ctx context.Context) error) *cobra.Command {
	if cmd.Args == nil {
		cmd.Args = flagsOnly
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := run(cmd.Context()); err != nil {
			return &commandError{err}
		}
		return nil
	}
	return cmd
}

// interruption turns the first signal into the end of a context.
type interruption struct {
	cancel context.CancelCauseFunc
	done   chan struct{}
	signal os.Signal
}

// interruptible returns a context that ends at the first signal. After stop, signals are the program's again.
func (p *program) interruptible(ctx context.Context) (context.Context, *interruption) {
	ctx, cancel := context.WithCancelCause(ctx)
	i := &interruption{cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(i.done)
		select {
		case i.signal = <-p.signals:
			cancel(exitf(exitCanceled, "stopped by %s", signalName(i.signal)))
		case <-ctx.Done():
		}
	}()
	return ctx, i
}

// stop ends it and returns the signal that came, nil for none. It is idempotent.
func (i *interruption) stop() os.Signal {
	i.cancel(nil)
	<-i.done
	return i.signal
}

func signalName(sig os.Signal) string {
	if sig == os.Interrupt {
		return "Ctrl-C"
	}
	return "signal: " + sig.String()
}

// env returns an environment variable, "" when it is not set.
func (p *program) env(name string) string { return p.vars[name] }
