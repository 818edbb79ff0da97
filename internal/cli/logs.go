package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/charmbracelet/x/ansi"
	"github.com/spf13/cobra"

	"qgjob"
	"qgjob/internal/api"
)

type logsOptions struct {
	connection
	job     jobID
	attempt int
	follow  bool
}

func (p *program) logsCommand() *cobra.Command {
	var o logsOptions
	cmd := &cobra.Command{
		Use:   "logs",
		Short: "Print what a job's test wrote, also while it runs",
		Example: `  qgjob logs --job-id=02c57c1a-2f47-4e3e-b264-b30a7e92e804
  qgjob logs --job-id=02c57c1a-2f47-4e3e-b264-b30a7e92e804 --follow
  qgjob logs --job-id=02c57c1a-2f47-4e3e-b264-b30a7e92e804 --attempt=1`,
	}
	f := cmd.Flags()
	o.job.flag(f)
	f.IntVar(&o.attempt, "attempt", 0, "number of the attempt (default the newest)")
	f.BoolVarP(&o.follow, "follow", "f", false, "go on as the log grows: to the attempt's end with --attempt, to the job's verdict without")
	p.connectionFlags(f, &o.connection)
	return command(cmd, func(ctx context.Context) error {
		if err := o.parse(); err != nil {
			return err
		}
		return o.run(ctx, p)
	})
}

func (o *logsOptions) parse() error {
	if err := o.job.check(); err != nil {
		return err
	}
	if o.attempt < 0 {
		return exitf(exitUsage, "--attempt must be a number from 1 on; leave it out for the newest")
	}
	return o.check()
}

func (o *logsOptions) run(ctx context.Context, p *program) error {
	ctx, interruption := p.interruptible(ctx)
	defer interruption.stop()
	detail, err := readJob(ctx, &o.connection, o.job)
	if err != nil {
		return err
	}
	switch {
	case o.attempt > detail.Attempts:
		return exitf(exitUsage, "job %s has had %d attempts: there is no attempt %d", o.job, detail.Attempts, o.attempt)
	case !o.follow && detail.Attempts == 0:
		fmt.Fprintf(p.stderr, "Job %s is %s and has had no attempt: there is no log.\n", o.job, detail.State)
		return nil
	}
	out := p.logWriter()
	if o.follow {
		err = o.followJob(ctx, p, detail, out)
	} else {
		err = o.print(ctx, out)
	}
	return errors.Join(err, out.Close())
}

// logWriter writes what a test wrote to stdout: as it is on a terminal that shows colours, and without
// terminal sequences elsewhere.
func (p *program) logWriter() io.WriteCloser {
	if _, _, ok := p.styled(); ok && p.env("NO_COLOR") == "" {
		return rawWriter{p.stdout}
	}
	return &plainWriter{out: p.stdout}
}

type rawWriter struct{ io.Writer }

func (rawWriter) Close() error { return nil }

// plainWriter takes terminal sequences out, line by line, so that one cut in two is seen, too.
type plainWriter struct {
	out  io.Writer
	rest []byte // a line without its end
}

func (w *plainWriter) Write(p []byte) (int, error) {
	w.rest = append(w.rest, p...)
	end := bytes.LastIndexByte(w.rest, '\n') + 1
	if _, err := io.WriteString(w.out, ansi.Strip(string(w.rest[:end]))); err != nil {
		return 0, err
	}
	w.rest = append(w.rest[:0], w.rest[end:]...)
	return len(p), nil
}

// Close writes the last line, which may have no end.
func (w *plainWriter) Close() error {
	_, err := io.WriteString(w.out, ansi.Strip(string(w.rest)))
	return err
}

// print writes what there is of one attempt's log.
func (o *logsOptions) print(ctx context.Context, out io.Writer) error {
	return copyLog(o.attempt, out, func(attempt int, offset int64) (api.LogChunk, error) {
		return within(ctx, &o.connection, func(ctx context.Context, c *api.Client) (api.LogChunk, error) {
			return c.Log(ctx, string(o.job), attempt, offset, 0)
		})
	})
}

// copyLog writes what there is of one attempt's log. Attempt 0 is the newest when it begins.
func copyLog(attempt int, out io.Writer, read func(attempt int, offset int64) (api.LogChunk, error)) error {
	for offset := int64(0); ; {
		chunk, err := read(attempt, offset)
		if err != nil {
			return err
		}
		if _, err := out.Write(chunk.Data); err != nil {
			return err
		}
		if attempt, offset = chunk.Attempt, chunk.Next; len(chunk.Data) == 0 {
			return nil
		}
	}
}

// followJob writes the log as it grows: of one attempt to its end, or of the newest one and those that
// follow it until the job has its verdict.
func (o *logsOptions) followJob(ctx context.Context, p *program, d api.JobDetail, out io.Writer) error {
	client := o.client(lostTime)
	number := o.attempt
	if number == 0 {
		number = max(1, d.Attempts)
	}
	for {
		started, err := o.awaitAttempt(ctx, client, number)
		if err != nil {
			return interruptedOr(ctx, o.explain(err))
		}
		if !started {
			return nil
		}
		if number > 1 && o.attempt == 0 {
			fmt.Fprintf(p.stderr, "--- attempt %d ---\n", number)
		}
		if _, err := client.FollowLog(ctx, string(o.job), number, out); err != nil {
			return interruptedOr(ctx, o.explain(err))
		}
		if o.attempt != 0 {
			return nil
		}
		number++
	}
}

// awaitAttempt waits until the attempt has started. It returns false when the job's verdict came without it.
func (o *logsOptions) awaitAttempt(ctx context.Context, client *api.Client, number int) (started bool, err error) {
	found := fmt.Errorf("attempt %d has started", number)
	err = client.WatchJob(ctx, string(o.job), 0, func(e qgjob.Event) error {
		if e.Trigger == qgjob.Assign && e.Attempt >= number {
			return found
		}
		return nil
	})
	if errors.Is(err, found) {
		return true, nil
	}
	return false, err
}
