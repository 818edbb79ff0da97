// Command schedbench runs qgjob's scheduler beside its baselines over generated workloads. See ../../scheduler.md.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"

	"qgjob/bench/internal/policy"
)

func main() {
	err := run(os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "schedbench:", err)
		os.Exit(1)
	}
}

func run(args []string, stdout, stderr io.Writer) error {
	var p policy.Plan
	flags := flag.NewFlagSet("schedbench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&p.Seeds, "seeds", 5, "how many `workloads` of each kind")
	flags.Float64Var(&p.Hours, "hours", 2, "virtual `hours` in which pushes come")
	page := flags.String("page", "", "`file` whose part between the markers of results is replaced by the tables")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 || p.Seeds < 1 || p.Hours <= 0 {
		return errors.New("give only flags: -seeds from 1 on, -hours above 0")
	}
	results, err := policy.Measure(p, stderr)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(stdout, results.Report()); err != nil {
		return err
	}
	if *page != "" {
		return results.WritePage(*page)
	}
	return nil
}
