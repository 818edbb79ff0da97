package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"qgjob/internal/phonesim"
)

func (p *program) phoneSDKCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sdk DIR",
		Short: "Make an Android SDK whose emulators are simulated phones",
		Long: `Sdk makes a directory in which a worker finds an emulator and an avdmanager with the real ones' arguments,
files and output. What they start are simulated phones. AVDs are kept where ANDROID_AVD_HOME says.`,
		Example: `  qgjob phone sdk /tmp/sdk
  ANDROID_HOME=/tmp/sdk ANDROID_AVD_HOME=/tmp/sdk/avd qgjob worker --emulators=2`,
		Args: oneArgument,
	}
	return command(cmd, func(context.Context) error {
		dir, err := filepath.Abs(cmd.Flags().Arg(0))
		if err != nil {
			return exitf(exitInfrastructure, "%v", err)
		}
		self, err := os.Executable()
		if err == nil {
			err = phonesim.WriteSDK(dir, self, "phone")
		}
		if err != nil {
			return exitf(exitInfrastructure, "the SDK cannot be made: %v", err)
		}
		fmt.Fprintf(p.stdout, "Use with: ANDROID_HOME=%s\n", dir)
		return nil
	})
}

// phoneToolCommand is a program of the Android SDK; the scripts in an SDK of phone sdk call it.
func (p *program) phoneToolCommand(name, short string, run func(phonesim.Tool, context.Context) error) *cobra.Command {
	cmd := &cobra.Command{Use: name, Short: short, Hidden: true, DisableFlagParsing: true, Args: cobra.ArbitraryArgs}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, interruption := p.interruptible(cmd.Context())
		defer interruption.stop()
		tool := phonesim.Tool{Args: args, Env: p.env, Stdin: p.stdin, Stdout: p.stdout, Stderr: p.stderr, Logger: p.logger()}
		if err := run(tool, ctx); err != nil {
			fmt.Fprintln(p.stderr, err)
			return &commandError{exitWith(exitTestFailed)} // 1, as the program itself
		}
		return nil
	}
	return cmd
}
