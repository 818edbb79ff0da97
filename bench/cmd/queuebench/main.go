// Command queuebench measures qgjob's queue beside River and beside the databases' own limit, on one machine in one
// run. See ../../README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"qgjob/bench/internal/plain"
	"qgjob/bench/internal/result"
	"qgjob/bench/internal/river"
	"qgjob/bench/internal/thin"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "queuebench:", err)
		os.Exit(1)
	}
}

type options struct {
	rounds  int
	short   bool
	only    string
	results string
	readme  string
	from    string
	profile string
	binary  string
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 4 && args[0] == thin.ServeArg {
		return serveThin(ctx, args[1], args[2], args[3])
	}
	var o options
	flags := flag.NewFlagSet("queuebench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.rounds, "rounds", 3, "how many `times` each measurement is taken, contestants taking turns")
	flags.BoolVar(&o.short, "short", false, "prove that every part works, in about a minute; the numbers mean nothing")
	flags.StringVar(&o.only, "only", "", "measures to take, `names` joined by commas: "+strings.Join(o.plan().names(), ", ")+
		"; a name may be followed by =part of a contestant's name, up to its comma")
	flags.StringVar(&o.results, "results", "results.json", "`file` to write the results to")
	flags.StringVar(&o.readme, "readme", "", "`file` whose part between the markers of results is replaced by the tables")
	flags.StringVar(&o.from, "from", "", "measure nothing: print the tables of this `file` of results")
	flags.StringVar(&o.profile, "profile", "", "`directory` for a profile of each server (perf) and of PostgreSQL's statements")
	flags.StringVar(&o.binary, "qgjob", "", "qgjob `binary` to measure (default: built from the checkout that this module is in)")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%q is no flag", flags.Arg(0))
	}
	results, err := o.obtain(ctx, stderr)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(stdout, results.Report()); err != nil {
		return err
	}
	if o.readme != "" {
		return results.WriteReadme(o.readme)
	}
	return nil
}

func (o options) obtain(ctx context.Context, log io.Writer) (*result.Results, error) {
	if o.from != "" {
		return result.Load(o.from)
	}
	return o.measure(ctx, log)
}

// The kinds of thin servers.
const (
	kindBare       = "bare"
	kindRiver      = "river"
	kindRiverTuned = "river-tuned"
)

// serveThin is the life of a thin server's process.
func serveThin(ctx context.Context, kind, address, data string) (err error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	var backend thin.Backend
	switch kind {
	case kindBare:
		b, err := plain.OpenBackend(ctx, data)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, b.Close()) }()
		backend = b
	case kindRiver, kindRiverTuned:
		tuning := river.AsItComes
		if kind == kindRiverTuned {
			tuning = river.Tuned
		}
		q, err := river.Open(ctx, data, tuning)
		if err != nil {
			return err
		}
		defer q.Shut()
		defer func() { err = errors.Join(err, q.StopWork(ctx)) }()
		backend = q
	default:
		return fmt.Errorf("%q is no kind of thin server", kind)
	}
	return thin.Serve(ctx, l, backend)
}
