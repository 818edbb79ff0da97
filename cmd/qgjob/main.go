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

// notify returns the signals that end a program in order. What nohup or a shell's & set to be ignored
// stays ignored.
func notify() chan os.Signal {
	caught := []os.Signal{syscall.SIGTERM}
	for _, s := range []os.Signal{os.Interrupt, syscall.SIGHUP} {
		if !signal.Ignored(s) {
			caught = append(caught, s)
		}
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, caught...)
	return signals
}
