package store

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"qgjob"
)

// states are those of a run's jobs, in their order.
func (q *queue) states(runID string) (states []qgjob.JobState) {
	q.t.Helper()
	for _, j := range q.run(runID).Jobs {
		states = append(states, j.State)
	}
	return states
}

func (q *queue) run(id string) qgjob.Run {
	q.t.Helper()
	run, err := q.Run(q.t.Context(), "", id)
	return must(q.t, run, err)
}

func (q *queue) submitRun(sub Submission) qgjob.Run {
	q.t.Helper()
	run, created, err := q.Submit(q.t.Context(), sub)
	if err != nil || !created {
		q.t.Fatalf("submit: created %v, %v", created, err)
	}
	return run
}

func wantStates(t testing.TB, got []qgjob.JobState, want ...qgjob.JobState) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("the jobs are %v, want %v", got, want)
	}
}

func paths(run qgjob.Run) (paths []string) {
	for _, j := range run.Jobs {
		paths = append(paths, j.TestPath)
	}
	return paths
}

// TestMaxFailures: a run that reached its number of failures is stopped where the failure is recorded: what
// is queued is canceled, what runs is told to stop. Another run is left alone.
func TestMaxFailures(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		sub := submission("acme", "v1", "a.spec.ts", "b.spec.ts", "c.spec.ts", "d.spec.ts")
		sub.MaxFailures = 2
		run := q.submitRun(sub)
		other := q.submitRun(submission("acme", "v1", "a.spec.ts"))
		noTest := qgjob.Result{Outcome: qgjob.OutcomeErrored, Cause: qgjob.CauseNoTestsMatched, Message: "none"}
		q.worker("w", "p1", "p2")

		q.report("w", q.one("w", "p1").Lease, noTest)
		wantStates(t, q.states(run.ID), qgjob.Errored, qgjob.Queued, qgjob.Queued, qgjob.Queued)
		runs := q.one("w", "p2") // takes b, or the other run's
		second := q.one("w", "p1")
		if second.Job.RunID != run.ID || runs.Job.RunID != run.ID {
			t.Fatalf("the devices run %s and %s", runs.Job.TestPath, second.Job.TestPath)
		}
		q.report("w", second.Lease, noTest)

		got := q.run(run.ID)
		wantStates(t, q.states(run.ID), qgjob.Errored, qgjob.Canceling, qgjob.Errored, qgjob.Canceled)
		if got.Jobs[3].Cause != qgjob.CauseRunStopped || got.MaxFailures != 2 {
			t.Errorf("cause %s, max failures %d", got.Jobs[3].Cause, got.MaxFailures)
		}
		q.report("w", runs.Lease, stopped)
		got = q.run(run.ID)
		if got.State != qgjob.Errored || got.Jobs[1].State != qgjob.Canceled || got.Jobs[1].Cause != qgjob.CauseRunStopped {
			t.Errorf("run is %s, the job that ran %s by %s", got.State, got.Jobs[1].State, got.Jobs[1].Cause)
		}
		wantStates(t, q.states(other.ID), qgjob.Queued)
		checkCounters(t, q)
	})
}

// TestCancelPrevious: the older runs of a branch and workflow end; siblings of the same CI run and other
// branches do not.
func TestCancelPrevious(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		from := func(branch, url string, cancel bool) Submission {
			sub := submission("acme", "v1", "a.spec.ts")
			sub.CI = &qgjob.CI{System: "github", Repository: "acme/app", Branch: branch, Workflow: "e2e", URL: url}
			sub.CancelPrevious = cancel
			return sub
		}
		old := q.submitRun(from("feature", "https://ci/1", true))
		elsewhere := q.submitRun(from("main", "https://ci/2", true))
		sibling := q.submitRun(from("feature", "https://ci/3", true))
		wantStates(t, q.states(old.ID), qgjob.Canceled)
		if c := q.run(old.ID).Jobs[0].Cause; c != qgjob.CauseSuperseded {
			t.Errorf("canceled by %s", c)
		}
		newest := q.submitRun(from("feature", "https://ci/3", true))
		for _, run := range []qgjob.Run{elsewhere, sibling, newest} {
			wantStates(t, q.states(run.ID), qgjob.Queued)
		}
		if got := q.run(newest.ID).CI; got == nil || *got != *from("feature", "https://ci/3", true).CI {
			t.Errorf("the run comes from %+v", got)
		}

		many := []qgjob.Run{}
		for n := range supersededAtOnce + 5 {
			many = append(many, q.submitRun(from("busy", fmt.Sprintf("https://ci/busy/%d", n), false)))
		}
		q.submitRun(from("busy", "https://ci/busy", true))
		for _, run := range many {
			wantStates(t, q.states(run.ID), qgjob.Canceled)
		}
		checkCounters(t, q)
	})
}

// TestFailedFirst: the specs that did not pass when they last ran on the branch come first in its next run.
func TestFailedFirst(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		on := func(branch string, specs ...string) Submission {
			sub := submission("acme", "v1", specs...)
			sub.CI = &qgjob.CI{Repository: "acme/app", Branch: branch}
			return sub
		}
		q.submitRun(on("main", "a.spec.ts", "b.spec.ts", "c.spec.ts"))
		q.worker("w", "p1")
		for _, end := range []qgjob.Result{passed, passed, {Outcome: qgjob.OutcomeErrored, Cause: qgjob.CauseBadBuild, Message: "x"}} {
			q.report("w", q.one("w", "p1").Lease, end)
		}
		next := q.submitRun(on("main", "a.spec.ts", "b.spec.ts", "c.spec.ts"))
		if got, want := paths(next), []string{"c.spec.ts", "a.spec.ts", "b.spec.ts"}; !slices.Equal(got, want) {
			t.Errorf("order %v, want %v", got, want)
		}
		other := q.submitRun(on("other", "a.spec.ts", "b.spec.ts", "c.spec.ts"))
		if got, want := paths(other), []string{"a.spec.ts", "b.spec.ts", "c.spec.ts"}; !slices.Equal(got, want) {
			t.Errorf("order on another branch %v, want %v", got, want)
		}
	})
}

// TestCancelRun: every job of the run that has no verdict ends; attempts of all its jobs can be read at once.
func TestCancelRun(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		run := q.submitRun(submission("acme", "v1", "a.spec.ts", "b.spec.ts", "c.spec.ts"))
		q.worker("w", "p1")
		q.report("w", q.one("w", "p1").Lease, passed)
		running := q.one("w", "p1")
		if err := q.CancelRun(t.Context(), "acme", run.ID); err != nil {
			t.Fatal(err)
		}
		wantStates(t, q.states(run.ID), qgjob.Passed, qgjob.Canceling, qgjob.Canceled)
		q.report("w", running.Lease, stopped)
		attempts, err := q.RunAttempts(t.Context(), "acme", run.ID)
		if err != nil || len(attempts) != 2 || attempts[0].JobID != run.Jobs[0].ID || attempts[0].Outcome != qgjob.OutcomePassed || attempts[1].JobID != run.Jobs[1].ID {
			t.Errorf("attempts %+v, %v", attempts, err)
		}
		wantCode(t, q.CancelRun(t.Context(), "rival", run.ID), qgjob.CodeNotFound)
		_, err = q.RunAttempts(t.Context(), "rival", run.ID)
		wantCode(t, err, qgjob.CodeNotFound)
		checkCounters(t, q)
	})
}

func TestWhatNobodyTakesInTimeIsGivenUp(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		q.worker("w1", "p1", "p2")
		sub := submission("acme", "v1", "tests/a.spec.js", "tests/b.spec.js", "tests/c.spec.js")
		sub.QueueTimeout = time.Minute
		run := q.submitRun(sub)
		patient := q.submit("v2", "tests/a.spec.js")[0]
		taken := q.wait("w1", "p1", "p2")
		left := 3
		for _, a := range taken {
			if a.Job.RunID == run.ID {
				left--
				q.report("w1", a.Lease, failed) // it waits again, and had a device in time
			}
		}
		for _, late := range []bool{false, true} {
			must(t, 0, q.GiveUp(t.Context()))
			canceled := 0
			for _, j := range q.run(run.ID).Jobs {
				if j.State == qgjob.Canceled {
					canceled++
					if j.Cause != qgjob.CauseQueueTimedOut || j.StartedAt != nil {
						t.Errorf("given up: %+v", j)
					}
				}
			}
			if want := map[bool]int{false: 0, true: left}[late]; canceled != want {
				t.Fatalf("late %v: %d jobs given up, want %d", late, canceled, want)
			}
			q.shift.Add((61 * time.Second).Milliseconds())
			q.poll(Poll{WorkerID: "w1"}) // is alive
		}
		if d := q.job(patient.ID); d.Job.State == qgjob.Canceled {
			t.Errorf("another run's job is %s", d.Job.State)
		}
		checkCounters(t, q)
	})
}
