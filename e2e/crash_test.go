package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/store/pgtest"
)

// The crash scenarios kill servers while clients submit and workers claim and report, and then compare what the
// clients were told with what the queue holds.

func TestServerKilledOnSQLite(t *testing.T) {
	t.Parallel()
	s := newServer(t, "--data-dir", t.TempDir(), "--lease", "3s")
	s.up()
	w := newWorld(t, []string{s.url()})
	w.startLoad(8, 3)
	for range 15 {
		w.wait(time.Duration(20+rand.IntN(400)) * time.Millisecond)
		s.kill()
		s.up()
	}
	w.finish()
}

// TestServersKilledOnPostgreSQL has two servers over one database; they are killed in turn, so that one of them
// serves at any time, and sometimes both at once.
func TestServersKilledOnPostgreSQL(t *testing.T) {
	t.Parallel()
	url := database(t)
	a := newServer(t, "--data-dir", t.TempDir(), "--database-url", url, "--lease", "3s")
	b := newServer(t, "--data-dir", t.TempDir(), "--database-url", url, "--lease", "3s")
	a.up()
	b.up()
	w := newWorld(t, []string{a.url(), b.url()})
	w.startLoad(8, 3)
	for i := range 12 {
		w.wait(time.Duration(20+rand.IntN(400)) * time.Millisecond)
		first, second := a, b
		if i%2 == 1 {
			first, second = b, a
		}
		first.kill()
		if i%4 == 3 {
			second.kill()
			second.up()
		}
		first.up()
	}
	w.finish()
}

// database is an empty database on a PostgreSQL of this test's own.
func database(t *testing.T) string {
	t.Helper()
	cluster, err := pgtest.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	url, err := cluster.Database(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return url
}

// world is the outside of the servers: clients, workers and what they were told.
type world struct {
	t       *testing.T
	urls    []string
	ctx     context.Context
	stop    context.CancelFunc // ends the workers
	quit    chan struct{}      // closed when clients are to submit no more
	clients sync.WaitGroup
	workers sync.WaitGroup

	mu       sync.Mutex
	acked    map[string]string // idempotency key -> run id
	accepted map[string]int    // attempt id -> results accepted with an effect
	ran      map[string]int    // attempt id -> how often a worker began it
}

const org, appVersion = "qualgent", "xyz123"

func newWorld(t *testing.T, urls []string) *world {
	ctx, stop := context.WithCancel(t.Context())
	return &world{
		t: t, urls: urls, ctx: ctx, stop: stop, quit: make(chan struct{}),
		acked: map[string]string{}, accepted: map[string]int{}, ran: map[string]int{},
	}
}

func (w *world) url() string { return w.urls[rand.IntN(len(w.urls))] }

func (w *world) wait(d time.Duration) {
	select {
	case <-time.After(d):
	case <-w.ctx.Done():
	}
}

func (w *world) startLoad(clients, workers int) {
	for range clients {
		w.clients.Go(w.client)
	}
	for i := range workers {
		w.workers.Go(func() { w.worker(i) })
	}
}

func submission(key string, i int) api.SubmitRequest {
	return api.SubmitRequest{
		OrgID: org, AppVersionID: appVersion, IdempotencyKey: key,
		Jobs: []api.JobSpec{{TestPath: fmt.Sprintf("tests/%d.spec.ts", i%7)}},
	}
}

// client submits, one job after the other, and repeats a submit of unknown outcome with the same key.
func (w *world) client() {
	for i := 0; ; i++ {
		select {
		case <-w.quit:
			return
		default:
		}
		key := uuid.NewString()
		for {
			var r qgjob.Run
			if _, err := call(w.ctx, http.MethodPost, w.url()+"/v1/runs", submission(key, i), &r); err == nil {
				w.mu.Lock()
				w.acked[key] = r.ID
				w.mu.Unlock()
				break
			} else if !transient(err) {
				w.t.Errorf("submit: %v", err)
				return
			}
			w.wait(10 * time.Millisecond)
		}
	}
}

// worker lives, dies without a word, and is followed by another, until the world stops.
func (w *world) worker(n int) {
	for life := 0; w.ctx.Err() == nil; life++ {
		w.workerLife(fmt.Sprintf("phone-%d-%d", n, life))
	}
}

func (w *world) workerLife(phone string) {
	id := uuid.NewString()
	device := func(i int) api.DeviceReport {
		return api.DeviceReport{ID: fmt.Sprint(phone, "-", i), Serial: "s", Kind: qgjob.TargetDevice, Platform: "android", Model: "m", OSVersion: "14", State: qgjob.DeviceIdle}
	}
	devices := []api.DeviceReport{device(0), device(1)}
	register := func() {
		for w.ctx.Err() == nil {
			if _, err := call(w.ctx, http.MethodPut, w.url()+"/v1/workers/"+id, api.RegisterRequest{Host: "h", Version: "v", Devices: devices}, nil); err == nil {
				return
			}
			w.wait(10 * time.Millisecond)
		}
	}
	register()
	seen := map[string]bool{}
	poll := api.PollRequest{WaitMS: 200, Devices: []string{devices[0].ID, devices[1].ID}, Leases: []api.Lease{}, Results: []api.AttemptResult{}}
	for w.ctx.Err() == nil {
		poll.Seq++
		var answer api.PollResponse
		if _, err := call(w.ctx, http.MethodPost, w.url()+"/v1/workers/"+id+"/poll", poll, &answer); err != nil {
			if !transient(err) {
				register() // the server has forgotten this worker
			}
			w.wait(10 * time.Millisecond)
			continue
		}
		w.mu.Lock()
		for _, a := range answer.Results {
			if a.Code == "" {
				w.accepted[a.AttemptID]++
			}
		}
		w.mu.Unlock()
		poll.Results = slices.DeleteFunc(poll.Results, func(r api.AttemptResult) bool {
			return slices.ContainsFunc(answer.Results, func(a api.ResultAnswer) bool { return a.AttemptID == r.AttemptID && a.Code != qgjob.CodeUnavailable })
		})
		for _, a := range answer.Assignments {
			if seen[a.AttemptID] {
				continue
			}
			seen[a.AttemptID] = true
			w.mu.Lock()
			w.ran[a.AttemptID]++
			w.mu.Unlock()
			if rand.IntN(100) == 0 {
				return // dies with a lease in its hands
			}
			poll.Results = append(poll.Results, api.AttemptResult{Lease: a.Lease, Result: verdict()})
		}
	}
}

func verdict() qgjob.Result {
	if rand.IntN(10) == 0 {
		return qgjob.Result{Outcome: qgjob.OutcomeFailed, Cause: qgjob.CauseTestFailed, Report: report(qgjob.TestFailed)}
	}
	return qgjob.Result{Outcome: qgjob.OutcomePassed, Report: report(qgjob.TestPassed)}
}

func report(s qgjob.TestStatus) qgjob.Report {
	return qgjob.Report{InstallSaved: true, Tests: []qgjob.TestResult{{Title: "t", Status: s}}}
}

// finish ends the load, lets the workers drain the queue and compares.
func (w *world) finish() {
	w.t.Helper()
	close(w.quit)
	w.clients.Wait()
	eventually(w.t, 90*time.Second, "the queue is drained", func() bool {
		var h api.Health
		_, err := call(w.ctx, http.MethodGet, w.url()+"/health", nil, &h)
		return err == nil && h.Queue.Queued == 0 && h.Queue.Running == 0
	})
	w.stop()
	w.workers.Wait()

	w.ctx = w.t.Context()
	jobs := w.jobs()
	w.t.Logf("%d submits acknowledged, %d jobs, %d attempts begun", len(w.acked), len(jobs), len(w.ran))
	if len(w.acked) < 50 {
		w.t.Errorf("only %d submits were acknowledged: the load was too thin to show anything", len(w.acked))
	}
	runs := map[string]int{}
	for _, j := range jobs {
		runs[j.RunID]++
	}
	if len(jobs) != len(w.acked) {
		w.t.Errorf("%d jobs for %d acknowledged submits", len(jobs), len(w.acked))
	}
	for key, id := range w.acked {
		if runs[id] != 1 {
			w.t.Errorf("acknowledged run %s has %d jobs, want 1", id, runs[id])
			continue
		}
		if rand.IntN(20) == 0 {
			var again qgjob.Run
			if status, err := call(w.ctx, http.MethodPost, w.url()+"/v1/runs", w.repeat(key, jobs, id), &again); err != nil || again.ID != id || status != http.StatusOK {
				w.t.Errorf("a repeated submit of run %s gave %d, run %s, %v", id, status, again.ID, err)
			}
		}
	}
	w.checkLives(jobs)
}

// repeat is the submit that made a run, once more.
func (w *world) repeat(key string, jobs []qgjob.Job, run string) api.SubmitRequest {
	i := slices.IndexFunc(jobs, func(j qgjob.Job) bool { return j.RunID == run })
	r := submission(key, 0)
	r.Jobs[0].TestPath = jobs[i].TestPath
	return r
}

func (w *world) jobs() []qgjob.Job {
	w.t.Helper()
	var all []qgjob.Job
	for cursor := ""; ; {
		var page api.JobList
		if _, err := call(w.ctx, http.MethodGet, w.url()+"/v1/jobs?limit=100&cursor="+cursor, nil, &page); err != nil {
			w.t.Fatal(err)
		}
		all = append(all, page.Jobs...)
		if cursor = page.Next; cursor == "" {
			return all
		}
	}
}

// checkLives follows each job from its first event to its verdict.
func (w *world) checkLives(jobs []qgjob.Job) {
	w.t.Helper()
	type stretch struct {
		from, to time.Time
		attempt  string
	}
	devices := map[string][]stretch{}
	for _, j := range jobs {
		var d api.JobDetail
		if _, err := call(w.ctx, http.MethodGet, w.url()+"/v1/jobs/"+j.ID, nil, &d); err != nil {
			w.t.Fatal(err)
		}
		if !d.State.IsVerdict() {
			w.t.Errorf("job %s is stranded as %s", d.ID, d.State)
		}
		var state qgjob.JobState
		for i, e := range d.Events {
			next, err := state.Next(e.Trigger)
			if err != nil || next != e.State || e.Seq != i+1 {
				w.t.Errorf("job %s, event %d: seq %d, %s on %q -> %s, %v", d.ID, i+1, e.Seq, state, e.Trigger, e.State, err)
			}
			state = e.State
		}
		if state != d.State {
			w.t.Errorf("job %s is %s, its events say %s", d.ID, d.State, state)
		}
		failures := 0
		for i, a := range d.AttemptList {
			if a.Number != i+1 || a.Outcome == "" || a.EndedAt == nil {
				w.t.Errorf("job %s, attempt %d: number %d, outcome %q", d.ID, i+1, a.Number, a.Outcome)
				continue
			}
			if a.Outcome == qgjob.OutcomeFailed {
				failures++
			}
			if w.accepted[a.ID] > 0 && a.Outcome == qgjob.OutcomeLost {
				w.t.Errorf("attempt %s: its result was accepted, and it is lost", a.ID)
			}
			devices[a.DeviceID] = append(devices[a.DeviceID], stretch{a.AssignedAt, *a.EndedAt, a.ID})
		}
		if d.State == qgjob.Passed && failures > qgjob.TestRetries || d.State == qgjob.Failed && failures != qgjob.TestRetries+1 {
			w.t.Errorf("job %s is %s after %d failed attempts", d.ID, d.State, failures)
		}
	}
	for id, s := range devices {
		slices.SortFunc(s, func(a, b stretch) int { return a.from.Compare(b.from) })
		for i := 1; i < len(s); i++ {
			if s[i].from.Before(s[i-1].to) {
				w.t.Errorf("device %s ran attempts %s and %s at once", id, s[i-1].attempt, s[i].attempt)
			}
		}
	}
	for id, n := range w.ran {
		if n > 1 {
			w.t.Errorf("attempt %s was begun %d times", id, n)
		}
	}
}
