package store

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"qgjob"
)

// The model is the queue as a person would describe it: jobs with two budgets, attempts with a lease, workers
// with phones. Rapid drives model and store through the same random life and compares them at each step; at its end every counter is
// compared with a recount.
type model struct {
	q       *queue
	now     time.Duration // by which the clock was moved
	jobs    []*modelJob   // in the order of submission
	open    map[string]*modelAttempt
	ended   []*modelAttempt
	workers map[string]*modelWorker
	owners  map[string]string // of phones
	keys    map[string]string // run ids by organization and key
	made    int               // attempts since the dispatch before
}

type modelJob struct {
	id, lane        string
	prefer, avoid   string
	state           qgjob.JobState
	tests, infra    int
	attempts, moves int
}

type modelAttempt struct {
	Lease
	job            *modelJob
	worker, device string
	known          bool
	expires        time.Duration
	result         *qgjob.Result // that ended it; nil when the server did
	answer         ResultAnswer
}

type modelWorker struct {
	seen    time.Duration
	waiting map[string]bool
}

func TestQueueAgainstModel(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		rapid.Check(t, func(rt *rapid.T) {
			wipe(t, q)
			q.writer.given.Store(0)
			m := &model{
				q: &queue{Store: q.Store, t: q.t, polls: map[string]int64{}}, open: map[string]*modelAttempt{},
				workers: map[string]*modelWorker{}, owners: map[string]string{}, keys: map[string]string{},
			}
			rt.Repeat(map[string]func(*rapid.T){
				"submit": m.submit, "register": m.register, "heartbeat": m.heartbeat, "poll": m.poll, "dispatch": m.dispatch,
				"result": m.result, "duplicate": m.duplicate, "cancel": m.cancel, "leave": m.leave, "time": m.pass, "reap": m.reap,
				"calibrate": func(rt *rapid.T) {
					if err := q.Calibrate(t.Context()); err != nil {
						rt.Fatal(err)
					}
				},
				"": m.check,
			})
			for _, err := range []error{recount(t.Context(), q.Store), checkBoard(t.Context(), q.Store)} {
				if err != nil {
					rt.Fatal(err)
				}
			}
		})
	})
}

// wipe empties the database, so that a run does not pay for opening one.
func wipe(t *testing.T, q *queue) {
	must(t, 0, q.write(t.Context(), func(ctx context.Context, tx *tx) error {
		for _, table := range []string{"counters", "runs", "run_facts", "quarantine", "jobs", "queue", "cancels", "lanes", "estimates", "organizations", "streaks", "overflows", "environments", "workers", "devices", "attempts"} {
			if err := tx.exec(ctx, "delete from "+table); err != nil {
				return err
			}
		}
		return nil
	}))
	q.writer.board, q.predictions = nil, nil
}

func draw[T any](rt *rapid.T, what string, of ...T) T { return rapid.SampledFrom(of).Draw(rt, what) }

func (m *model) submit(rt *rapid.T) {
	sub := submission(draw(rt, "org", "acme", "zeta"), draw(rt, "app", "v1", "v2"))
	sub.IdempotencyKey = draw(rt, "key", "", "", "k1", "k2")
	if rapid.Bool().Draw(rt, "has a deadline") {
		sub.Deadline, sub.MaxCost = time.Minute, 5
	}
	for i := range rapid.IntRange(1, 4).Draw(rt, "jobs") {
		sub.Jobs = append(sub.Jobs, JobSpec{TestPath: fmt.Sprintf("tests/%d.spec.js", i), Priority: rapid.IntRange(0, 2).Draw(rt, "priority"), Target: qgjob.TargetAny})
	}
	run, created, err := m.q.Submit(m.q.t.Context(), sub)
	if err != nil {
		rt.Fatal(err)
	}
	key := sub.OrgID + "/" + sub.IdempotencyKey
	if id, known := m.keys[key]; known && sub.IdempotencyKey != "" {
		if created || run.ID != id {
			rt.Fatalf("key %s made run %s besides %s", key, run.ID, id)
		}
		return
	}
	if !created {
		rt.Fatalf("key %s was not known", key)
	}
	m.keys[key] = run.ID
	for _, j := range run.Jobs {
		m.jobs = append(m.jobs, &modelJob{id: j.ID, lane: fmt.Sprint(j.OrgID, j.AppVersionID, j.Priority), state: qgjob.Queued, moves: 1})
	}
	m.planned(rt)
}

var modelPhones = map[string][]string{"w1": {"p1", "p2"}, "w2": {"p3"}, "w3": {"p1", "p4"}}

// claim is what a registration or a heartbeat does to the ownership of phones.
func (m *model) claim(rt *rapid.T, worker string, refused []Refusal) {
	var got, want []string
	for _, r := range refused {
		got = append(got, r.DeviceID)
	}
	for _, phone := range modelPhones[worker] {
		owner := m.workers[m.owners[phone]]
		if m.owners[phone] != worker && owner != nil && owner.seen+DefaultLease > m.now {
			want = append(want, phone)
			continue
		}
		if owner != nil && m.owners[phone] != worker {
			delete(owner.waiting, phone)
		}
		m.owners[phone] = worker
	}
	if !slices.Equal(got, want) {
		rt.Fatalf("%s was refused %v, want %v", worker, got, want)
	}
}

func (m *model) register(rt *rapid.T) {
	id := draw(rt, "worker", "w1", "w2", "w3")
	refused, err := m.q.Register(m.q.t.Context(), id, "h", "test", phones(modelPhones[id]))
	if err != nil {
		rt.Fatal(err)
	}
	if m.workers[id] == nil {
		m.workers[id] = &modelWorker{waiting: map[string]bool{}}
		m.q.polls[id] = 0
	}
	m.workers[id].seen = m.now
	m.claim(rt, id, refused)
}

// worker draws one that the store knows; nil when there is none.
func (m *model) worker(rt *rapid.T) (string, *modelWorker) {
	ids := slices.Sorted(maps.Keys(m.workers))
	if len(ids) == 0 {
		rt.Skip("no worker")
	}
	id := rapid.SampledFrom(ids).Draw(rt, "worker")
	return id, m.workers[id]
}

// leases draws which of its attempts a worker lists, and renews them.
func (m *model) leases(rt *rapid.T, worker string) (listed []Lease) {
	for _, id := range slices.Sorted(maps.Keys(m.open)) {
		a := m.open[id]
		if a.worker == worker && (a.known || rapid.Bool().Draw(rt, "knows")) {
			a.known, a.expires = true, m.now+DefaultLease
			listed = append(listed, a.Lease)
		}
	}
	return listed
}

func (m *model) heartbeat(rt *rapid.T) {
	id, w := m.worker(rt)
	leases := m.leases(rt, id)
	var lost []string
	for _, a := range m.ended {
		if a.worker == id && rapid.IntRange(0, 3).Draw(rt, "forgets") == 0 {
			leases, lost = append(leases, a.Lease), append(lost, a.AttemptID)
		}
	}
	answer, err := m.q.Heartbeat(m.q.t.Context(), id, phones(modelPhones[id]), leases)
	if err != nil {
		rt.Fatal(err)
	}
	w.seen = m.now
	m.claim(rt, id, answer.Refused)
	var cancel []string
	for _, a := range m.open {
		if a.worker == id && a.job.state == qgjob.Canceling {
			cancel = append(cancel, a.AttemptID)
		}
	}
	slices.Sort(cancel)
	slices.Sort(answer.Cancel)
	if !slices.Equal(answer.Lost, lost) || !slices.Equal(answer.Cancel, cancel) {
		rt.Fatalf("%s hears %+v, want lost %v, cancel %v", id, answer, lost, cancel)
	}
}

func (m *model) poll(rt *rapid.T) {
	id, w := m.worker(rt)
	var free []string
	for _, phone := range modelPhones[id] {
		if rapid.Bool().Draw(rt, "free") {
			free = append(free, phone)
		}
	}
	leases := m.leases(rt, id)
	answer := m.q.poll(Poll{WorkerID: id, Free: free, Wait: time.Hour, Leases: leases})
	w.seen = m.now
	if seen := m.q.assignments(id, free...); !sameAssignments(answer.Assignments, seen, leases) {
		rt.Fatalf("the poll of %s is answered with %+v, but would read %+v", id, answer.Assignments, seen)
	}
	var want, got []string
	for _, a := range m.open {
		if a.worker == id && slices.Contains(free, a.device) && !slices.Contains(leases, a.Lease) {
			want = append(want, a.AttemptID)
		}
	}
	var fresh []Assignment
	for _, a := range answer.Assignments {
		if m.open[a.AttemptID] == nil {
			fresh = append(fresh, a)
		} else {
			got = append(got, a.AttemptID)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		rt.Fatalf("the poll of %s got %v again, want %v", id, got, want)
	}
	w.waiting = map[string]bool{}
	if len(got)+len(answer.Cancel) > 0 {
		if len(fresh) > 0 {
			rt.Fatalf("a poll that has its answer got %+v besides", fresh)
		}
		return
	}
	for _, phone := range free {
		if m.owners[phone] == id {
			w.waiting[phone] = true
		}
	}
	for _, a := range fresh {
		m.assigned(rt, id, w, a)
	}
	if len(free) > 0 {
		m.planned(rt)
	}
	if len(fresh) > 0 {
		w.waiting = map[string]bool{}
	}
}

// sameAssignments compares a poll's answer with what the database has for its free devices.
func sameAssignments(answer, stored []Assignment, known []Lease) bool {
	byID := func(a, b Assignment) int { return cmp.Compare(a.AttemptID, b.AttemptID) }
	stored = slices.DeleteFunc(stored, func(a Assignment) bool { return slices.Contains(known, a.Lease) })
	return reflect.DeepEqual(slices.SortedFunc(slices.Values(answer), byID), slices.SortedFunc(slices.Values(stored), byID))
}

// busy says whether a phone has an open attempt, whoever gave it to whom.
func (m *model) busy(phone string) bool {
	for _, a := range m.open {
		if a.device == phone {
			return true
		}
	}
	return false
}

func (m *model) dispatch(rt *rapid.T) {
	n, err := m.q.Dispatch(m.q.t.Context())
	if err != nil {
		rt.Fatal(err)
	}
	m.planned(rt)
	if m.made != n {
		rt.Fatalf("dispatch says %d attempts, the workers see %d", n, m.made)
	}
	m.made = 0
}

// hear takes in what workers were given.
func (m *model) hear(rt *rapid.T) {
	for id, w := range m.workers {
		for _, a := range m.q.assignments(id, modelPhones[id]...) {
			if m.open[a.AttemptID] == nil {
				m.assigned(rt, id, w, a)
			}
		}
	}
}

// planned takes in what a plan gave out, and looks for what it left lying.
func (m *model) planned(rt *rapid.T) {
	m.hear(rt)
	if m.couldStart() {
		rt.Fatalf("a job and a phone that may run it were left waiting")
	}
}

func (m *model) assigned(rt *rapid.T, worker string, w *modelWorker, a Assignment) {
	i := slices.IndexFunc(m.jobs, func(j *modelJob) bool { return j.id == a.Job.ID })
	j := m.jobs[i]
	switch {
	case j.state != qgjob.Queued:
		rt.Fatalf("job %s was given out though it is %s", j.id, j.state)
	case !w.waiting[a.DeviceID] || w.seen+DefaultLease <= m.now:
		rt.Fatalf("%s got a job though it does not wait", a.DeviceID)
	case m.busy(a.DeviceID):
		rt.Fatalf("%s got a second job", a.DeviceID)
	}
	for _, before := range m.jobs[:i] {
		if before.state == qgjob.Queued && before.lane == j.lane && before.prefer == j.prefer && before.avoid == j.avoid && !m.givenInThisPlan(before) {
			rt.Fatalf("job %s was given out before the older %s of its lane", j.id, before.id)
		}
	}
	m.made++
	j.state, j.attempts, j.moves = qgjob.Running, j.attempts+1, j.moves+1
	delete(w.waiting, a.DeviceID)
	m.open[a.AttemptID] = &modelAttempt{Lease: a.Lease, job: j, worker: worker, device: a.DeviceID, expires: m.now + DefaultLease}
}

// givenInThisPlan looks a job up that the model has still to hear of: workers are asked in turn.
func (m *model) givenInThisPlan(j *modelJob) bool {
	return m.q.job(j.id).Job.State == qgjob.Running
}

// couldStart says whether a queued job of a group that nobody serves and a waiting phone exist, and nothing
// makes the job avoid the phone.
func (m *model) couldStart() bool {
	served := map[string]bool{}
	for _, a := range m.open {
		served[a.job.lane[:len(a.job.lane)-1]] = true
	}
	for _, j := range m.jobs {
		if j.state != qgjob.Queued || served[j.lane[:len(j.lane)-1]] {
			continue
		}
		for _, w := range m.workers {
			for phone := range w.waiting {
				if w.seen+DefaultLease > m.now && !m.busy(phone) && j.avoid != phone {
					return true
				}
			}
		}
	}
	return false
}

func (m *model) attempt(rt *rapid.T) *modelAttempt {
	ids := slices.Sorted(maps.Keys(m.open))
	if len(ids) == 0 {
		rt.Skip("nothing runs")
	}
	return m.open[rapid.SampledFrom(ids).Draw(rt, "attempt")]
}

func (m *model) result(rt *rapid.T) {
	a := m.attempt(rt)
	if m.workers[a.worker] == nil {
		rt.Skip("its worker is gone")
	}
	r := draw(rt, "result", passed, failed, timedOut, errored, handBack)
	answer := m.q.report(a.worker, a.Lease, r)
	m.workers[a.worker].seen = m.now
	m.workers[a.worker].waiting = map[string]bool{}
	trigger := m.end(a, r)
	if answer.Code != "" || answer.Trigger != trigger || answer.State != a.job.state {
		rt.Fatalf("answer %+v, want %s, %s", answer, trigger, a.job.state)
	}
	a.result, a.answer = &r, answer
}

// end is the rule of budgets in the mission's words.
func (m *model) end(a *modelAttempt, r qgjob.Result) qgjob.Trigger {
	delete(m.open, a.AttemptID)
	m.ended = append(m.ended, a)
	j := a.job
	j.moves++
	if j.state == qgjob.Canceling {
		j.state = qgjob.Canceled
		return qgjob.Stop
	}
	free := r.Cause == qgjob.CauseHandedBack || r.Cause == qgjob.CauseNotDelivered
	switch {
	case r.Outcome == qgjob.OutcomePassed:
		j.state = qgjob.Passed
		return qgjob.Pass
	case free:
		j.state = qgjob.Queued
		return qgjob.HandBack
	case r.Outcome == qgjob.OutcomeFailed || r.Outcome == qgjob.OutcomeTimedOut:
		if j.tests++; j.tests == 3 {
			j.state = qgjob.Failed
			return qgjob.Fail
		}
		j.prefer, j.avoid = a.device, ""
	default:
		if j.infra++; j.infra == 4 {
			j.state = qgjob.Errored
			return qgjob.Err
		}
		j.prefer, j.avoid = "", a.device
	}
	j.state = qgjob.Queued
	return qgjob.Retry
}

// duplicate sends results again, as a worker does whose answer was lost, and late ones.
func (m *model) duplicate(rt *rapid.T) {
	if len(m.ended) == 0 {
		rt.Skip("nothing has ended")
	}
	a := rapid.SampledFrom(m.ended).Draw(rt, "attempt")
	w := m.workers[a.worker]
	if w == nil {
		rt.Skip("its worker is gone")
	}
	w.seen, w.waiting = m.now, map[string]bool{}
	if a.result == nil {
		if answer := m.q.report(a.worker, a.Lease, passed); answer.Code != qgjob.CodeLeaseLost {
			rt.Fatalf("a late result: %+v", answer)
		}
		return
	}
	if answer := m.q.report(a.worker, a.Lease, *a.result); answer != a.answer {
		rt.Fatalf("the same result again: %+v, want %+v", answer, a.answer)
	}
	other := failed
	if a.result.Outcome == qgjob.OutcomeFailed {
		other = passed
	}
	if answer := m.q.report(a.worker, a.Lease, other); answer.Code != qgjob.CodeConflict {
		rt.Fatalf("another result: %+v", answer)
	}
}

func (m *model) cancel(rt *rapid.T) {
	if len(m.jobs) == 0 {
		rt.Skip("no job")
	}
	j := rapid.SampledFrom(m.jobs).Draw(rt, "job")
	switch j.state {
	case qgjob.Queued:
		j.state = qgjob.Canceled
		j.moves++
	case qgjob.Running:
		j.state = qgjob.Canceling
		j.moves++
	}
	if got, err := m.q.Cancel(m.q.t.Context(), "", j.id); err != nil || got.State != j.state {
		rt.Fatalf("cancel: %+v, %v; want %s", got, err, j.state)
	}
}

// gone takes a worker out of the fleet.
func (m *model) gone(worker string) {
	delete(m.workers, worker)
	maps.DeleteFunc(m.owners, func(_, owner string) bool { return owner == worker })
}

func (m *model) leave(rt *rapid.T) {
	id, _ := m.worker(rt)
	if err := m.q.Leave(m.q.t.Context(), id); err != nil {
		rt.Fatal(err)
	}
	for _, a := range m.open {
		if a.worker == id {
			m.end(a, handBack)
		}
	}
	m.gone(id)
}

func (m *model) pass(rt *rapid.T) {
	d := time.Duration(draw(rt, "seconds", 10, 20, 50)) * time.Second
	m.now += d
	m.q.advance(d)
}

func (m *model) reap(rt *rapid.T) {
	n, err := m.q.Reap(m.q.t.Context())
	if err != nil {
		rt.Fatal(err)
	}
	want := 0
	for _, a := range m.open {
		if a.expires > m.now {
			continue
		}
		want++
		cause := qgjob.CauseLeaseExpired
		if !a.known {
			cause = qgjob.CauseNotDelivered
		}
		m.end(a, qgjob.Result{Outcome: qgjob.OutcomeLost, Cause: cause})
	}
	if n != want {
		rt.Fatalf("%d leases ran out, want %d", n, want)
	}
	for id, w := range m.workers {
		if w.seen+DefaultLease <= m.now {
			m.gone(id)
		}
	}
}

// check compares every job with the model.
func (m *model) check(rt *rapid.T) {
	m.hear(rt)
	type kept struct {
		state                          qgjob.JobState
		tests, infra, attempts, events int
		ended                          bool
	}
	got, want := map[string]kept{}, map[string]kept{}
	err := m.q.query(m.q.t.Context(), func(row scanner) error {
		var id string
		var k kept
		err := row.Scan(&id, &k.state, &k.tests, &k.infra, &k.attempts, &k.events, &k.ended)
		got[id] = k
		return err
	}, `select id, state, test_failures, infra_errors, attempts, events, ended_at_ms > 0 from jobs`)
	if err != nil {
		rt.Fatal(err)
	}
	for _, j := range m.jobs {
		want[j.id] = kept{j.state, j.tests, j.infra, j.attempts, j.moves, j.state.IsVerdict()}
		if got[j.id] != want[j.id] {
			rt.Fatalf("job %s\n  got %+v\n want %+v\nstory %s", j.id, got[j.id], want[j.id], story(m.q.job(j.id)))
		}
	}
	if len(got) != len(want) {
		rt.Fatalf("%d jobs, want %d", len(got), len(want))
	}
}
