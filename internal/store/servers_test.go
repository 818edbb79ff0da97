package store

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"qgjob"
)

// servers opens several stores over one PostgreSQL.
func servers(t *testing.T, n int) []*queue {
	t.Helper()
	o := database(t, "postgresql")
	qs := make([]*queue, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			s, err := Open(context.Background(), o)
			if err != nil {
				t.Errorf("server %d: %v", i, err)
				return
			}
			qs[i] = &queue{Store: s, t: t, options: o, polls: map[string]int64{}}
		})
	}
	wg.Wait()
	t.Cleanup(func() {
		for _, q := range qs {
			if q != nil {
				must(t, 0, q.Close())
			}
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	return qs
}

func TestServersThatStartAtOnceMigrateOnce(t *testing.T) {
	for _, q := range servers(t, 4) {
		q.submit("v1", "tests/a.spec.js")
	}
}

// listening waits until n servers listen.
func listening(q *queue, n int) {
	q.t.Helper()
	for have := 0; have != n; {
		err := q.readDB.QueryRowContext(q.t.Context(), `
			select count(*) from pg_stat_activity
			where datname = current_database() and application_name = $1 and state = 'idle' and query <> ''`, listenerName).Scan(&have)
		if err != nil {
			q.t.Fatal(err)
		}
	}
}

func wantWake(t *testing.T, sub *Subscription, why string) {
	t.Helper()
	select {
	case <-sub.C:
	case <-time.After(listenCheck / 2): // polling would not come so soon
		t.Fatal("not woken by " + why)
	}
}

func TestServersWakeEachOther(t *testing.T) {
	qs := servers(t, 2)
	a, b := qs[0], qs[1]
	listening(a, 2)
	queueWake := b.Subscribe(TopicQueue)
	defer queueWake.Close()
	j := a.submit("v1", "tests/a.spec.js")[0]
	wantWake(t, queueWake, "a submit to the other server")
	jobWake := b.Subscribe(TopicJob(j.ID))
	defer jobWake.Close()
	first(a.Cancel(t.Context(), "acme", j.ID))
	wantWake(t, jobWake, "a cancel at the other server")
	if d := b.job(j.ID); d.Job.State != qgjob.Canceled {
		t.Fatalf("woken, it reads %+v", d.Job)
	}
}

func TestALostListenerIsReplaced(t *testing.T) {
	qs := servers(t, 2)
	a, b := qs[0], qs[1]
	listening(a, 2)
	wake := b.Subscribe(TopicQueue)
	defer wake.Close()
	var ended bool
	err := a.readDB.QueryRowContext(t.Context(), `
		select bool_and(pg_terminate_backend(pid, 5000)) from pg_stat_activity
		where datname = current_database() and application_name = $1`, listenerName).Scan(&ended)
	if err != nil || !ended {
		t.Fatalf("end the listeners: %v, %v", ended, err)
	}
	wantWake(t, wake, "the loss: something may have been missed")
	listening(a, 2)
	wantWake(t, wake, "its return: something was missed")
	a.submit("v1", "tests/a.spec.js")
	wantWake(t, wake, "a submit to the other server")
}

// Workers of two servers drain one queue while both dispatch and reap.
func TestServersShareOneQueue(t *testing.T) {
	qs := servers(t, 2)
	const jobs, workers = 60, 6
	paths := make([]string, jobs)
	for i := range paths {
		paths[i] = "tests/" + strings.Repeat("x", i+1) + ".spec.js"
	}
	all := qs[0].submit("v1", paths...)
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := 0
	for w := range workers {
		wg.Go(func() {
			q := &queue{Store: qs[w%2].Store, t: t, polls: map[string]int64{}}
			id := "w" + string(rune('a'+w))
			q.worker(id, id)
			for {
				got := q.wait(id, id)
				first(q.Reap(context.Background()))
				mu.Lock()
				over := done == jobs
				mu.Unlock()
				if over {
					return
				}
				for _, a := range got {
					if answer := q.report(id, a.Lease, passed); answer.State != qgjob.Passed {
						t.Errorf("answer %+v", answer)
					}
					mu.Lock()
					done++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	for _, j := range all {
		if d := qs[1].job(j.ID); len(d.Attempts) != 1 || d.Job.State != qgjob.Passed {
			t.Fatalf("job %+v ran %d times", d.Job, len(d.Attempts))
		}
	}
	checkCounters(t, qs[0])
}

func TestWakesWithinAServer(t *testing.T) {
	everywhere(t, func(t *testing.T, q *queue) {
		j := q.submit("v1", "tests/a.spec.js")[0]
		q.worker("w1", "p1")
		subs := map[string]*Subscription{}
		for _, topic := range []string{TopicQueue, TopicJob(j.ID), TopicWorker("w1")} {
			subs[topic] = q.Subscribe(topic)
			defer subs[topic].Close()
		}
		q.poll(Poll{WorkerID: "w1", Free: []string{"p1"}})
		<-subs[TopicQueue].C
		first(q.Dispatch(t.Context()))
		<-subs[TopicWorker("w1")].C
		<-subs[TopicJob(j.ID)].C
		got := q.assignments("w1", "p1")
		q.report("w1", got[0].Lease, failed)
		<-subs[TopicJob(j.ID)].C
		<-subs[TopicQueue].C // it is queued again
	})
}

func TestPayloads(t *testing.T) {
	var topics []string
	for range 1000 {
		topics = append(topics, TopicJob("0123456789-0123456789-0123456789-0123"))
	}
	n := 0
	for _, p := range payloads("me", topics) {
		if len(p) > payloadLimit {
			t.Fatalf("a payload of %d bytes", len(p))
		}
		from, rest, _ := strings.Cut(p, "\n")
		if from != "me" {
			t.Fatalf("origin %q", from)
		}
		n += strings.Count(rest, "job/")
	}
	if n != 1000 {
		t.Fatalf("%d topics arrive, want 1000", n)
	}
}
