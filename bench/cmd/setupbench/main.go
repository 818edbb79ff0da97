// Command setupbench measures what a batch costs beside its tests: twenty specs of one app version on one simulated
// phone by stock AppWright and by qgjob, and how far several phones on one worker get. See ../../SETUP.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"qgjob/bench/internal/result"
)

type options struct {
	checkout string
	page     string
	specs    int
	phones   int
	only     string
	install  time.Duration
	wait     time.Duration
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	err := run(ctx, os.Args[1:])
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "setupbench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) (err error) {
	var o options
	flags := flag.NewFlagSet("setupbench", flag.ContinueOnError)
	flags.StringVar(&o.checkout, "checkout", "..", "`directory` of qgjob's checkout, with the example project's npm packages")
	flags.StringVar(&o.page, "page", "", "`file` whose part between the markers of results is replaced by the tables")
	flags.IntVar(&o.specs, "specs", 20, "how many specs a phone runs")
	flags.IntVar(&o.phones, "phones", 8, "how many phones one worker has")
	flags.DurationVar(&o.install, "install-time", 5*time.Second, "of the app")
	flags.DurationVar(&o.wait, "wait", 20*time.Second, "what a spec that waits waits")
	flags.StringVar(&o.only, "only", "", "take one `part` of the measurements: batch or phones")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if o.only != "" && o.only != "batch" && o.only != "phones" {
		return fmt.Errorf("-only %q is unknown: use batch or phones", o.only)
	}
	if o.checkout, err = filepath.Abs(o.checkout); err != nil {
		return err
	}
	b, err := newBench(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()
	report, err := b.measure(ctx)
	if err != nil {
		return err
	}
	fmt.Print(report)
	if o.page != "" {
		return result.WriteBetween(o.page, begin, end, report)
	}
	return nil
}

// The markers around the part of the page that is generated.
const (
	begin = "<!-- results: written by setupbench -page, not by hand -->\n"
	end   = "<!-- end of results -->\n"
)
