package store

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"qgjob"
	"qgjob/internal/store/pgtest"
)

var postgres struct {
	sync.Once
	cluster *pgtest.Cluster
	err     error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if postgres.cluster != nil {
		if err := postgres.cluster.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop postgres:", err)
			code = 1
		}
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// everywhere runs a test over both databases, each time on an empty one.
func everywhere(t *testing.T, test func(t *testing.T, q *queue)) {
	t.Helper()
	for _, kind := range []string{"sqlite", "postgresql"} {
		t.Run(kind, func(t *testing.T) { test(t, open(t, database(t, kind))) })
	}
}

// database returns options for an empty database.
func database(t testing.TB, kind string) Options {
	t.Helper()
	o := Options{Logger: slog.New(slog.NewTextHandler(testWriter{t}, nil))}
	if kind == "sqlite" {
		o.Path = filepath.Join(t.TempDir(), "data", "qgjob.db")
		return o
	}
	postgres.Do(func() { postgres.cluster, postgres.err = pgtest.Start(context.Background()) })
	if postgres.err != nil {
		t.Fatal(postgres.err)
	}
	url, err := postgres.cluster.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o.DatabaseURL = url
	return o
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// queue is a store under test. Its methods fail the test on errors that the test does not expect.
type queue struct {
	*Store
	t       testing.TB
	options Options
	polls   map[string]int64 // newest sequence by worker
}

func open(t testing.TB, o Options) *queue {
	t.Helper()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close the store: %v", err)
		}
	})
	return &queue{Store: s, t: t, options: o, polls: map[string]int64{}}
}

// advance moves the database's clock.
func (q *queue) advance(d time.Duration) { q.shift.Add(d.Milliseconds()) }

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func wantCode(t testing.TB, err error, code qgjob.Code) {
	t.Helper()
	if got := qgjob.ErrorCode(err); got != code {
		t.Fatalf("error code %q (%v), want %q", got, err, code)
	}
}

func submission(org, app string, paths ...string) Submission {
	sub := Submission{OrgID: org, AppVersionID: app}
	for _, p := range paths {
		sub.Jobs = append(sub.Jobs, JobSpec{TestPath: p, Priority: qgjob.DefaultPriority, Target: qgjob.TargetAny})
	}
	return sub
}

// submit makes a run of an organization "acme".
func (q *queue) submit(app string, paths ...string) []qgjob.Job {
	q.t.Helper()
	run, created, err := q.Submit(q.t.Context(), submission("acme", app, paths...))
	if err != nil || !created {
		q.t.Fatalf("submit: created %v, %v", created, err)
	}
	return run.Jobs
}

// bundle uploads a bundle.
func (q *queue) bundle(org, sha string) Upload {
	q.t.Helper()
	u, err := q.BeginUpload(q.t.Context(), org, BundleUpload, sha)
	must(q.t, u, err)
	must(q.t, u, q.AddBundle(q.t.Context(), u))
	return u
}

// build uploads a build.
func (q *queue) build(b Build) {
	q.t.Helper()
	u, err := q.BeginUpload(q.t.Context(), b.OrgID, BuildUpload, b.SHA256)
	must(q.t, u, err)
	b.Copy = u.Copy
	must(q.t, b, q.AddBuild(q.t.Context(), b))
}

func phone(id string) DeviceReport {
	return DeviceReport{ID: id, Serial: id, Kind: qgjob.TargetDevice, Platform: "android", Model: "Pixel", OSVersion: "14", State: qgjob.DeviceIdle}
}

func phones(ids []string) []DeviceReport {
	reports := make([]DeviceReport, len(ids))
	for i, id := range ids {
		reports[i] = phone(id)
	}
	return reports
}

// worker registers a worker with phones.
func (q *queue) worker(id string, devices ...string) {
	q.t.Helper()
	refused, err := q.Register(q.t.Context(), id, "host-"+id, "test", phones(devices))
	if err != nil || len(refused) > 0 {
		q.t.Fatalf("register %s: refused %v, %v", id, refused, err)
	}
}

// wait polls with free devices, dispatches, and returns what the devices got.
func (q *queue) wait(worker string, free ...string) []Assignment {
	q.t.Helper()
	a := q.poll(Poll{WorkerID: worker, Free: free})
	if len(a.Assignments) > 0 {
		return a.Assignments
	}
	must(q.t, 0, second(q.Dispatch(q.t.Context())))
	return q.assignments(worker, free...)
}

func second[T any](_ T, err error) error { return err }

func (q *queue) assignments(worker string, free ...string) []Assignment {
	q.t.Helper()
	return must1(q.t)(q.Assignments(q.t.Context(), worker, q.polls[worker], free)).Assignments
}

func must1(t testing.TB) func(PollAnswer, error) PollAnswer {
	return func(a PollAnswer, err error) PollAnswer {
		t.Helper()
		return must(t, a, err)
	}
}

// poll sends a poll with the worker's next sequence.
func (q *queue) poll(p Poll) PollAnswer {
	q.t.Helper()
	q.polls[p.WorkerID]++
	p.Seq = q.polls[p.WorkerID]
	if p.Wait == 0 {
		p.Wait = 30 * time.Second
	}
	return must1(q.t)(q.Poll(q.t.Context(), p))
}

// one waits with one device for its one assignment.
func (q *queue) one(worker, device string) Assignment {
	q.t.Helper()
	got := q.wait(worker, device)
	if len(got) != 1 || got[0].DeviceID != device {
		q.t.Fatalf("device %s got %+v, want one assignment", device, got)
	}
	return got[0]
}

// report hands in one result and returns what became of it.
func (q *queue) report(worker string, l Lease, r qgjob.Result) ResultAnswer {
	q.t.Helper()
	a := q.poll(Poll{WorkerID: worker, Results: []AttemptResult{{l, r}}})
	if len(a.Results) != 1 || a.Results[0].AttemptID != l.AttemptID {
		q.t.Fatalf("answers %+v, want one for attempt %s", a.Results, l.AttemptID)
	}
	return a.Results[0]
}

func (q *queue) job(id string) JobDetail {
	q.t.Helper()
	d, err := q.Job(q.t.Context(), "", id)
	return must(q.t, d, err)
}

var (
	passed = qgjob.Result{Outcome: qgjob.OutcomePassed, Report: qgjob.Report{
		Tests: []qgjob.TestResult{{Title: "opens", Status: qgjob.TestPassed, DurationMS: 7}}, Installed: true, BuildSHA256: "b1",
	}}
	failed   = qgjob.Result{Outcome: qgjob.OutcomeFailed, Cause: qgjob.CauseTestFailed, Message: "no button", Report: qgjob.Report{InstallSaved: true}}
	timedOut = qgjob.Result{Outcome: qgjob.OutcomeTimedOut, Cause: qgjob.CauseTestTimedOut, Message: "30 s"}
	errored  = qgjob.Result{Outcome: qgjob.OutcomeErrored, Cause: qgjob.CauseDeviceOffline, Message: "cable"}
	handBack = qgjob.Result{Outcome: qgjob.OutcomeCanceled, Cause: qgjob.CauseHandedBack, Message: "stopping"}
	stopped  = qgjob.Result{Outcome: qgjob.OutcomeCanceled, Cause: qgjob.CauseCanceled, Message: "killed"}
)

// story is a job's events in short: "submit>queued assign>running/1@p1 ...".
func story(d JobDetail) string {
	var b strings.Builder
	for i, e := range d.Events {
		if e.Seq != i+1 {
			return fmt.Sprintf("event %d has number %d", i+1, e.Seq)
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		fmt.Fprintf(&b, "%s>%s", e.Trigger, e.State)
		if e.Attempt > 0 {
			fmt.Fprintf(&b, "/%d@%s", e.Attempt, e.DeviceID)
		}
	}
	return b.String()
}

func wantStory(t testing.TB, d JobDetail, want string) {
	t.Helper()
	if got := story(d); got != want {
		t.Fatalf("story\n got %s\nwant %s", got, want)
	}
}
