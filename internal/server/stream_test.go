package server_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/api"
)

// eventStream opens a stream as a browser would.
func (r *running) eventStream(path string, headers ...string) (*bufio.Scanner, func()) {
	r.t.Helper()
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.BaseURL+path, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := r.HTTP.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	if ct := resp.Header.Get("Content-Type"); resp.StatusCode != http.StatusOK || ct != "text/event-stream" {
		r.t.Fatalf("stream: %s, %q", resp.Status, ct)
	}
	return bufio.NewScanner(resp.Body), func() { _ = resp.Body.Close() }
}

// ids reads the ids of the next n events, or of all that follow when n is negative.
func ids(lines *bufio.Scanner, n int) []string {
	var ids []string
	for n != 0 && lines.Scan() {
		if id, ok := strings.CutPrefix(lines.Text(), "id: "); ok {
			ids = append(ids, id)
			n--
		}
	}
	return ids
}

func TestAStreamOfEventsIsResumed(t *testing.T) {
	onEachStore(t, func(t *testing.T, r *running) {
		w := r.newWorker("P1")
		id := r.submit("a.spec.js")
		path := "/v1/jobs/" + id + "/events"

		lines, hangUp := r.eventStream(path)
		if !lines.Scan() || !strings.HasPrefix(lines.Text(), ":") {
			t.Errorf("the stream begins with %q, want a comment", lines.Text())
		}
		if got := ids(lines, 1); !slices.Equal(got, []string{"1"}) {
			t.Errorf("first connection: events %v", got)
		}
		a := w.take("P1")
		if got := ids(lines, 1); !slices.Equal(got, []string{"2"}) {
			t.Errorf("live: events %v", got)
		}
		hangUp()

		w.report(a.Lease, failed)
		lines, hangUp = r.eventStream(path, "Last-Event-ID", "1")
		defer hangUp()
		if got := ids(lines, 2); !slices.Equal(got, []string{"2", "3"}) {
			t.Errorf("after Last-Event-ID 1: events %v", got)
		}
		w.report(w.take("P1").Lease, passed)
		if got := ids(lines, -1); !slices.Equal(got, []string{"4", "5"}) { // and the server ends the stream
			t.Errorf("to the verdict: events %v", got)
		}

		lines, hangUp = r.eventStream(path + "?after=4")
		defer hangUp()
		if got := ids(lines, -1); !slices.Equal(got, []string{"5"}) {
			t.Errorf("after=4: events %v", got)
		}
		if a := r.do(http.MethodGet, path+"?after=5", ""); a.status != http.StatusNoContent {
			t.Errorf("after the verdict: %d %s, want 204", a.status, a.body)
		}
	})
}

func TestManyWatchersSeeEveryEventOnce(t *testing.T) {
	r := start(t)
	w := r.newWorker("P1")
	id := r.submit("a.spec.js")
	const watchers = 20
	seen := make(chan string, watchers)
	for range watchers {
		go func() {
			var s []string
			if err := r.WatchJob(t.Context(), id, 0, func(e qgjob.Event) error {
				s = append(s, fmt.Sprint(e.Seq, e.Trigger))
				return nil
			}); err != nil {
				t.Error(err)
			}
			seen <- strings.Join(s, " ")
		}()
	}
	for range qgjob.TestRetries + 1 {
		w.report(w.take("P1").Lease, failed)
	}
	for range watchers {
		if s := <-seen; s != "1submit 2assign 3retry 4assign 5retry 6assign 7fail" {
			t.Errorf("a watcher saw %s", s)
		}
	}
}

func TestTheQueueIsWatched(t *testing.T) {
	r := start(t)
	w := r.newWorker("P1")
	stop := errors.New("seen enough")
	var states []string
	changed := make(chan string, 100)
	watched := make(chan error)
	go func() {
		watched <- r.WatchQueue(t.Context(), func(q api.Queue) error {
			n := 0
			for _, e := range q.Entries {
				n += e.Queued
			}
			states = append(states, fmt.Sprintf("%d+%d", n, q.Running))
			changed <- states[len(states)-1]
			if len(states) > 1 && n+q.Running == 0 {
				return stop
			}
			return nil
		})
	}()
	await := func(want string) {
		for got := range changed {
			if got == want {
				return
			}
		}
	}
	await("0+0")
	r.submit("a.spec.js")
	await("1+0")
	a := w.take("P1")
	await("0+1")
	w.report(a.Lease, passed)
	if err := <-watched; !errors.Is(err, stop) {
		t.Errorf("WatchQueue = %v", err)
	}
	if slices.Compare(slices.Compact(slices.Clone(states)), states) != 0 {
		t.Errorf("snapshots without a change: %v", states)
	}
}

func TestShutdownAnswersWhoWaits(t *testing.T) {
	r := start(t)
	w := r.newWorker("P1")
	job := r.submit("a.spec.js")
	a := w.take("P1")
	waiting := r.newWorker("P2")

	poll := make(chan error, 1)
	go func() {
		answer, err := waiting.ask(50*time.Second, "P2")
		if err == nil && len(answer.Assignments) > 0 {
			err = fmt.Errorf("assigned %+v", answer)
		}
		poll <- err
	}()
	log := make(chan error, 1)
	go func() {
		_, err := r.Log(t.Context(), job, 1, 0, 50*time.Second)
		log <- err
	}()
	streams := make(chan error, 2)
	for _, path := range []string{"/v1/jobs/" + job + "/events", "/v1/queue/events"} {
		lines, hangUp := r.eventStream(path)
		go func() {
			defer hangUp()
			for lines.Scan() {
			}
			streams <- lines.Err()
		}()
	}
	r.untilWaiting(waiting.id, 1)
	stacks := make([]byte, 16<<20)
	for end := time.Now().Add(30 * time.Second); !bytes.Contains(stacks[:runtime.Stack(stacks, true)], []byte("waitForLog(")); {
		if time.Now().After(end) {
			t.Fatal("no request waits for the log")
		}
		time.Sleep(10 * time.Millisecond) // it is on its way
	}

	start := time.Now()
	if err := r.stop(); err != nil {
		t.Errorf("Serve = %v", err)
	}
	for name, c := range map[string]chan error{"poll": poll, "log": log, "first stream": streams, "second stream": streams} {
		if err := <-c; err != nil {
			t.Errorf("%s = %v, want a proper end", name, err)
		}
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("the shutdown took %v", took)
	}

	// Another server over the same store takes over: the job goes on under its lease.
	next := serve(t, r.store)
	w.running = next
	if answer := w.report(a.Lease, passed); answer.Code != "" || answer.State != qgjob.Passed {
		t.Errorf("result at the next server: %+v", answer)
	}
}

func TestAWatcherOutlivesItsServer(t *testing.T) {
	r := start(t)
	w := r.newWorker("P1")
	id := r.submit("a.spec.js")
	a := w.take("P1")
	two := make(chan struct{})
	var seen []int
	watched := make(chan error)
	go func() {
		watched <- r.WatchJob(t.Context(), id, 0, func(e qgjob.Event) error {
			if seen = append(seen, e.Seq); e.Seq == 2 {
				close(two)
			}
			return nil
		})
	}()
	<-two
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	w.running = serveAt(t, r.store, strings.TrimPrefix(r.BaseURL, "http://"))
	w.report(a.Lease, passed)
	if err := <-watched; err != nil || !slices.Equal(seen, []int{1, 2, 3}) {
		t.Errorf("WatchJob = %v, saw %v", err, seen)
	}
}

func TestTwoServersOverOnePostgreSQL(t *testing.T) {
	url := postgresURL(t)
	one, two := serve(t, openPostgres(t, url)), serve(t, openPostgres(t, url))
	w := one.newWorker("P1")
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()

	for range 3 {
		got := make(chan api.PollResponse)
		seq := w.seq + 1
		go func() {
			answer, err := w.ask(20*time.Second, "P1")
			if err != nil {
				t.Error(err)
			}
			got <- answer
		}()
		one.untilWaiting(w.id, seq)
		start := time.Now()
		id := two.submit("a.spec.js") // a job at one server wakes a poll at the other
		answer := <-got
		if len(answer.Assignments) != 1 || answer.Assignments[0].Job.ID != id {
			t.Fatalf("poll = %+v", answer)
		}
		t.Logf("from the submit at one server to the assignment at the other: %v", time.Since(start))

		verdict := make(chan error)
		go func() { verdict <- two.WatchJob(ctx, id, 0, func(qgjob.Event) error { return nil }) }()
		elsewhere := &worker{running: two, id: w.id, seq: w.seq} // the worker's next request goes to the other server
		elsewhere.report(answer.Assignments[0].Lease, passed)
		w.seq = elsewhere.seq
		if err := <-verdict; err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range []*running{one, two} {
		if jobs, err := r.Jobs(ctx, api.JobQuery{State: qgjob.Passed}); err != nil || len(jobs.Jobs) != 3 {
			t.Errorf("passed jobs: %+v, %v", jobs, err)
		}
	}
}
