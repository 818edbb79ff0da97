package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/report"
)

// waitedRun is a run whose verdict a command waits for.
type waitedRun struct {
	run   qgjob.Run
	jobs  map[string]qgjob.Job
	count map[qgjob.JobState]int
	logs  func(j qgjob.Job) string // shows the log of a job with its verdict; nil: nowhere
}

func newWaitedRun(run qgjob.Run) *waitedRun {
	return &waitedRun{run: run, jobs: map[string]qgjob.Job{}, count: map[qgjob.JobState]int{}}
}

func (r *waitedRun) names() (noun, id, runID string) { return "run", r.run.ID, r.run.ID }

func (r *waitedRun) begin(s *screen) {
	s.line(fmt.Sprintf("Waiting for run: %s | App Version: %s | Priority: %s | Jobs: %d to complete...",
		r.run.ID, r.run.AppVersionID, priorities(r.run.Jobs), len(r.run.Jobs)))
}

// priorities is the priority of the jobs, or the range of theirs.
func priorities(jobs []qgjob.Job) string {
	low, high := qgjob.LeastUrgent, qgjob.MostUrgent
	for _, j := range jobs {
		low, high = min(low, j.Priority), max(high, j.Priority)
	}
	if low == high {
		return fmt.Sprint(low)
	}
	return fmt.Sprintf("%d-%d", low, high)
}

func (r *waitedRun) watch(ctx context.Context, c *api.Client, send func(func(*screen) bool) error) error {
	return c.WatchRun(ctx, r.run.ID, func(change api.RunChange) error {
		return send(func(s *screen) bool {
			r.run.State = change.State
			for _, j := range change.Jobs {
				r.take(s, j)
			}
			return change.State.IsVerdict()
		})
	})
}

// take shows a job that changed: its state where that is new, and attempts that are tried again.
func (r *waitedRun) take(s *screen, j qgjob.Job) {
	old, known := r.jobs[j.ID]
	r.jobs[j.ID] = j
	if known {
		r.count[old.State]--
	}
	r.count[j.State]++
	for n := old.TestFailures + 1; n <= min(j.TestFailures, qgjob.TestRetries); n++ { // several may come at once
		s.note("%s failed. Retrying job... (%d/%d)", jobName(j), n, qgjob.TestRetries)
	}
	for n := old.InfraErrors + 1; n <= min(j.InfraErrors, qgjob.InfraRetries); n++ {
		s.note("%s errored. Retrying job... (%d/%d)", jobName(j), n, qgjob.InfraRetries)
	}
	if known && old.State == j.State || !known && j.State == qgjob.Queued {
		return
	}
	line := "Job status: " + s.word(j.State) + " | " + jobName(j)
	switch {
	case j.Quarantined > 0:
		line += fmt.Sprintf(" | %d quarantined tests failed", j.Quarantined)
	case j.Flaky:
		line += fmt.Sprintf(" | flaky: passed at attempt %d", j.Attempts)
	case j.State.IsVerdict() && j.State != qgjob.Passed:
		line += " | " + because(j.Cause, j.Message)
	}
	s.line(line)
	if r.logs != nil && j.State.IsVerdict() {
		s.line(r.logs(j))
	}
}

// jobName is a job among those of its run.
func jobName(j qgjob.Job) string { return printable(report.Job{Job: j}.Name()) }

func (r *waitedRun) now() (state qgjob.JobState, details []string) {
	for _, s := range qgjob.JobStates {
		if n := r.count[s]; n > 0 {
			details = append(details, fmt.Sprintf("%d %s", n, s))
		}
	}
	return r.run.State, details
}

func (r *waitedRun) finish(ctx context.Context, w *waiting) error {
	full, err := readReport(ctx, w.conn, r.run.ID, resultTime)
	if err != nil {
		return exitf(exitInfrastructure, "run %s is %s, but its results cannot be read: %v", r.run.ID, r.run.State, err)
	}
	code := runExit(full.Run)
	if w.json {
		if err := full.JSON(w.p.stdout); err != nil {
			return err
		}
		return exitWith(code)
	}
	w.screen.clear()
	if err := w.p.printRun(full); err != nil {
		return err
	}
	w.screen.runVerdict(full)
	return exitWith(code)
}

// resultTime is how long the results of a run that has its verdict may take to be read, over a server that is
// away for a moment, too.
const resultTime = time.Minute

// readReport asks for a run with all its attempts, for as long as patience.
func readReport(ctx context.Context, conn *connection, runID string, patience time.Duration) (*report.Report, error) {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err := conn.client(patience).RunReport(limited, runID)
	if cause := context.Cause(ctx); cause != nil {
		return nil, cause // interrupted
	}
	if err != nil {
		return nil, conn.explain(err)
	}
	full := report.New(answer.Run, answer.Attempts)
	if !conn.ephemeral {
		full.Server = conn.url
	}
	return full, nil
}

// printRun shows a run's jobs as a table, and what failed in them.
func (p *program) printRun(r *report.Report) error {
	rows := make([][]string, 0, len(r.Jobs))
	for _, j := range r.Jobs {
		state := string(j.State)
		reason := oneLine(j.Reason())
		if j.Flaky {
			reason = fmt.Sprintf("flaky: passed at attempt %d only", j.Attempts)
		}
		device := j.Device()
		if device == "" {
			device = "-"
		}
		rows = append(rows, []string{j.ID, state, j.Name(), fmt.Sprint(j.Attempts), device, roughly(j.Took()), cut(reason, 120)})
	}
	if d := r.Run.Deadline; d != nil {
		text := fmt.Sprintf("Deadline: %s | On BrowserStack for it: %.2f", clockTime(*d), r.Run.OverflowCost)
		if r.Run.MaxCost > 0 {
			text += fmt.Sprintf(" of at most %.2f", r.Run.MaxCost)
		}
		if r.Run.OverflowClosed != "" {
			text += " | No more of it: " + printable(oneLine(r.Run.OverflowClosed))
		}
		fmt.Fprintln(p.stdout, text)
	}
	p.printTable([]string{"JOB", "STATE", "TEST", "ATTEMPTS", "DEVICE", "TIME", "REASON"}, rows)
	for _, j := range r.Jobs {
		for _, t := range j.Tests {
			if t.Failed() && j.HasVerdict() {
				last := qgjob.TestResult{Title: t.Title, Status: t.Status, File: t.File, Line: t.Line, Error: t.Error}
				fmt.Fprintf(p.stderr, "%s\n%s\n", jobName(j.Job), strings.Join(failedTest(last), "\n"))
			}
		}
		if j.State != qgjob.Passed && j.Attempts > 0 && r.Server != "" {
			fmt.Fprintln(p.stderr, logOf(j.ID))
		}
	}
	return nil
}

// cut is a text of at most n runes.
func cut(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}

// runVerdict prints how a run ended: totals, then the one sentence.
func (s *screen) runVerdict(r *report.Report) {
	s.line("Tests: " + r.Totals.String())
	var jobs []string
	for _, state := range qgjob.JobStates {
		if n := r.Totals.Jobs[state]; n > 0 {
			jobs = append(jobs, fmt.Sprintf("%d %s", n, state))
		}
	}
	s.line("Jobs: " + strings.Join(jobs, ", "))
	if n := r.Totals.Flaky; n > 0 {
		s.note("%d flaky: they passed at a retry only.", n)
	}
	if r.Run.State == qgjob.Passed {
		if runExit(r.Run) != exitPassed {
			s.line("Sorry! No test counts: every test that ran is quarantined.")
			return
		}
		s.line("Success! Run passed.")
		return
	}
	s.line("Sorry! Run " + string(r.Run.State) + ".")
	if r.Run.State.IsVerdict() && r.Server != "" {
		s.note("Run what did not pass again with: qgjob retry --failed --run-id=%s", r.Run.ID)
	}
}

// word is a state in its colour.
func (s *screen) word(state qgjob.JobState) string {
	if s.live {
		return wordStyle(string(state)).Render(string(state))
	}
	return string(state)
}
