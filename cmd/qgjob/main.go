// Command qgjob queues, groups and runs AppWright tests on devices: command line, server and worker in one.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"qgjob/internal/cli"
)

func main() {
	os.Exit(run())
}

func run() int {
	signals := notify()
	defer signal.Stop(signals)
	return cli.Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr, cli.Environment{Vars: os.Environ(), Signals: signals})
}

// notify returns the signals that end a program in order. What nohup set to be ignored stays ignored; Ctrl-C
// does not, which shells set to be ignored for each program that a script starts with &.
func notify() chan os.Signal {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(signals, syscall.SIGHUP)
	}
	return signals
}
