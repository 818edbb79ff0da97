package cli

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"qgjob/internal/phonesim"
)

type phoneMacOptions struct {
	phones, simulators     int
	installTime, buildTime time.Duration
}

func (p *program) phoneMacCommand() *cobra.Command {
	var o phoneMacOptions
	cmd := &cobra.Command{
		Use:   "mac DIR",
		Short: "Simulate a Mac with iPhones and simulators",
		Long: `Mac makes a directory in which a worker finds Xcode's programs, as far as they drive iPhones: xcrun with simctl and
devicectl, xcodebuild with WebDriverAgent, xcode-select. It runs until it is interrupted. Appium and AppWright drive its devices as they drive real
ones. What was done to a device is told at its control address.`,
		Example: `  qgjob phone mac /tmp/mac --iphones=1 --simulators=2
  PATH=/tmp/mac/bin:$PATH qgjob worker --ios-team=ABCDE12345
  qgjob phone ipa app.json -o app.ipa`,
		Args: oneArgument,
	}
	f := cmd.Flags()
	f.IntVar(&o.phones, "iphones", 1, "`number` of iPhones")
	f.IntVar(&o.simulators, "simulators", 0, "`number` of simulators, which are booted")
	f.DurationVar(&o.installTime, "install-time", 0, "how long the install of an app takes")
	f.DurationVar(&o.buildTime, "build-time", 0, "how long the build of WebDriverAgent takes")
	return command(cmd, func(ctx context.Context) error { return o.run(ctx, p, cmd.Flags().Arg(0)) })
}

func (o *phoneMacOptions) run(ctx context.Context, p *program, dir string) error {
	ctx, interruption := p.interruptible(ctx)
	defer interruption.stop()
	if o.phones < 0 || o.simulators < 0 || o.phones+o.simulators == 0 || o.phones+o.simulators > 50 {
		return exitf(exitUsage, "--iphones and --simulators must be from 1 to 50 together")
	}
	if o.installTime < 0 || o.buildTime < 0 {
		return exitf(exitUsage, "--install-time and --build-time cannot be negative")
	}
	self, err := os.Executable()
	if err == nil {
		dir, err = filepath.Abs(dir)
	}
	if err != nil {
		return exitf(exitInfrastructure, "%v", err)
	}
	m := phonesim.MacOptions{Dir: dir, Program: []string{self, "phone", "mactool"}, BuildTime: o.buildTime, Logger: p.logger()}
	for range o.phones {
		m.IPhones = append(m.IPhones, phonesim.IPhoneOptions{UDID: phonesim.NewUDID(false), InstallTime: o.installTime})
	}
	for i := range o.simulators {
		m.IPhones = append(m.IPhones, phonesim.IPhoneOptions{UDID: phonesim.NewUDID(true), Simulator: true, Booted: true, Name: fmt.Sprintf("iPhone 16 (%d)", i+1), InstallTime: o.installTime})
	}
	mac, err := phonesim.StartMac(m)
	if err != nil {
		return exitf(exitInfrastructure, "%v", err)
	}
	for _, device := range m.IPhones {
		word := "iPhone"
		if device.Simulator {
			word = "simulator"
		}
		fmt.Fprintf(p.stdout, "Simulated %s %s | control %s\n", word, device.UDID, mac.ControlURL(device.UDID))
	}
	fmt.Fprintf(p.stdout, "Use with: PATH=%s:$PATH\n", mac.Bin())
	<-ctx.Done()
	return mac.Close()
}

// phoneMacToolCommand is a program of a simulated Mac; the scripts in its directory call it.
func (p *program) phoneMacToolCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "mactool", Short: "A program of a Mac of phone mac", Hidden: true, DisableFlagParsing: true, Args: cobra.ArbitraryArgs}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx, interruption := p.interruptible(cmd.Context())
		defer interruption.stop()
		code, err := phonesim.RunMacTool(ctx, interruption.stop, args, p.env, p.stdout, p.stderr)
		if err != nil {
			fmt.Fprintln(p.stderr, err)
			code = 1
		}
		if code != 0 {
			return &commandError{exitWith(exitCode(code))}
		}
		return nil
	}
	return cmd
}

type phoneIPAOptions struct {
	phoneAPKOptions
	simulator bool
}

func (p *program) phoneIPACommand() *cobra.Command {
	var o phoneIPAOptions
	cmd := &cobra.Command{
		Use:   "ipa APP.json",
		Short: "Build an iOS app for simulated iPhones from the description of an app",
		Long:  "Ipa builds an app that the devices of a simulated Mac install and run. The same description gives the same bytes.",
		Example: `  qgjob phone ipa app.json -o app.ipa
  qgjob phone ipa app.json --simulator -o app.zip`,
		Args: oneArgument,
	}
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "`file` to write (required)")
	cmd.Flags().BoolVar(&o.simulator, "simulator", false, "an app for simulators, zipped")
	cmd.ValidArgsFunction = cobra.FixedCompletions([]cobra.Completion{"json"}, cobra.ShellCompDirectiveFilterFileExt)
	return command(cmd, func(context.Context) error {
		o.description = cmd.Flags().Arg(0)
		return o.build("the file", func(app phonesim.App) ([]byte, error) { return phonesim.BuildIPA(app, o.simulator) })
	})
}
