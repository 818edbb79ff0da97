package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"

	"qgjob/internal/report"
)

// reportOptions are the files that a command makes of a run's results.
type reportOptions struct {
	junit, json, markdown string
	html                  htmlReport
}

func (o *reportOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.junit, "junit", "", "write the results as JUnit XML to this `file`")
	f.StringVar(&o.json, "json-file", "", "write the results as JSON to this `file`")
	f.StringVar(&o.markdown, "markdown", "", "write a summary as Markdown to this `file`")
	f.StringVar(&o.html.dir, "report", "", "make Playwright's HTML report over all jobs in this `directory`; needs the test project's npm packages here")
}

// wanted says whether any report was asked for.
func (o *reportOptions) wanted() bool {
	return o != nil && (o.junit != "" || o.json != "" || o.markdown != "" || o.html.dir != "")
}

// write writes the reports of a run and returns verdict, which is how the command ends otherwise. Reports
// that cannot be written are said, and make a command that would have ended with 0 end with 20: what was
// asked for is not there.
func (o *reportOptions) write(ctx context.Context, p *program, conn *connection, runID string, verdict error) error {
	if !o.wanted() {
		return verdict
	}
	full, err := readReport(ctx, conn, runID, resultTime)
	if err == nil {
		err = errors.Join(o.files(full), o.page(ctx, p, conn, full, verdict))
	}
	if err == nil {
		return verdict
	}
	if verdict == nil {
		return exitf(exitInfrastructure, "the reports cannot be written: %v", err)
	}
	fmt.Fprintf(p.stderr, "The reports cannot be written: %v\n", err)
	return verdict
}

// page makes the HTML report and says where it is, and which jobs it is without. A run that passed has a report of
// every job, or the report is not what was asked for.
func (o *reportOptions) page(ctx context.Context, p *program, conn *connection, full *report.Report, verdict error) error {
	if o.html.dir == "" {
		return nil
	}
	ctx, interruption := p.interruptible(ctx)
	defer interruption.stop()
	missing, err := o.html.write(ctx, conn, full)
	if len(missing) > 0 {
		fmt.Fprintf(p.stderr, "The HTML report lacks what left no blob report:\n  %s\n", strings.Join(missing, "\n  "))
	}
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stderr, "HTML report: %s\n", filepath.Join(o.html.dir, "index.html"))
	if verdict == nil && len(missing) > 0 {
		return fmt.Errorf("the HTML report lacks %d of the run's %d jobs", len(missing), len(full.Jobs))
	}
	return nil
}

func (o *reportOptions) files(full *report.Report) error {
	var errs []error
	for _, f := range []struct {
		path  string
		write func(io.Writer) error
	}{{o.junit, full.JUnit}, {o.json, full.JSON}, {o.markdown, full.Markdown}} {
		if f.path != "" {
			errs = append(errs, writeFile(f.path, f.write))
		}
	}
	return errors.Join(errs...)
}

// writeFile makes a file and its directory. Nobody sees half of it: it takes its name when it is whole. What is
// there and is no file (a pipe, a terminal) is written to.
func writeFile(path string, write func(io.Writer) error) (err error) {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		return errors.Join(write(f), f.Close())
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	part, err := os.CreateTemp(filepath.Dir(path), ".qgjob-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(part.Name()))
		}
	}()
	if err := errors.Join(write(part), part.Chmod(0o644), part.Close()); err != nil {
		return err
	}
	return os.Rename(part.Name(), path)
}
