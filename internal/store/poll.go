package store

import (
	"context"
	"slices"

	"qgjob"
)

type pollCall struct {
	Poll
	answer PollAnswer
}

var polls = &step{order: pollStep, run: runPolls}

// Poll records results, keeps the leases alive, lets the free devices wait and returns at once with what is
// there: open attempts of free devices that the worker never listed (an answer was lost), cancels, and
// otherwise jobs for free devices. What it returns with ends the wait of the other devices. The caller that found neither subscribes to TopicWorker, before it calls Poll, and calls
// Assignments when woken. CodeNotFound: the worker registers again.
func (s *Store) Poll(ctx context.Context, p Poll) (PollAnswer, error) {
	c := &pollCall{Poll: p}
	if err := s.writer.do(ctx, polls, c, 1+len(p.Free)+len(p.Leases)+len(p.Results)); err != nil {
		return PollAnswer{}, err
	}
	return c.answer, nil
}

// pollingWorker is what a batch knows of a worker that polls.
type pollingWorker struct {
	*workerState
	polls        bool // by a call of the batch that no newer poll supersedes
	stillWaiting bool // devices are marked as waiting by a poll of a batch before
}

func runPolls(ctx context.Context, t *tx, calls []*call) error {
	workers := t.pollingWorkers(calls)
	var results []*resultItem
	for _, c := range calls {
		p := c.arg.(*pollCall)
		p.answer = PollAnswer{Results: make([]ResultAnswer, len(p.Results))}
		worker := workers[p.WorkerID]
		if worker == nil {
			c.err = noWorker(p.WorkerID)
			continue
		}
		p.answer.Superseded = p.Seq < worker.pollSeq
		for _, l := range p.Leases {
			t.renew(l, p.WorkerID)
		}
		for i := range p.Results {
			results = append(results, &resultItem{result: &p.Results[i], answer: &p.answer.Results[i], worker: p.WorkerID})
		}
	}
	if err := t.record(ctx, results); err != nil {
		return err
	}
	t.polling, t.waiting = workers, map[waitingDevice][]*pollCall{}
	for _, c := range calls {
		p := c.arg.(*pollCall)
		if c.err != nil || p.answer.Superseded {
			continue
		}
		if t.answerPoll(p); p.answered() {
			continue
		}
		for _, id := range p.Free {
			device := waitingDevice{p.WorkerID, id}
			t.waiting[device] = append(t.waiting[device], p)
			t.unplan()
		}
	}
	if err := t.plan(ctx); err != nil {
		return err
	}
	t.polling, t.waiting = nil, nil
	t.savePolling(calls, workers)
	return nil
}

// answered says that the poll does not wait.
func (p *pollCall) answered() bool {
	return p.answer.Superseded || len(p.answer.Assignments)+len(p.answer.Cancel) > 0
}

// pollingWorkers finds the workers of a batch's polls and lets each worker's newest poll supersede the others.
func (t *tx) pollingWorkers(calls []*call) map[string]*pollingWorker {
	workers := map[string]*pollingWorker{}
	for _, c := range calls {
		p := c.arg.(*pollCall)
		w, seen := workers[p.WorkerID]
		if !seen {
			if known := t.b.workers[p.WorkerID]; known != nil {
				w = &pollingWorker{workerState: known}
			}
			workers[p.WorkerID] = w
		}
		if w == nil || p.Seq < w.pollSeq {
			continue
		}
		if w.waitingSeq != 0 {
			w.stillWaiting = true
			t.publish(TopicWorker(w.id)) // the older poll's request ends
		}
		w.pollSeq, w.waitingSeq, w.polls = p.Seq, p.Seq, true
	}
	return workers
}

// savePolling marks the devices of the polls that wait, and no others of their workers.
func (t *tx) savePolling(calls []*call, workers map[string]*pollingWorker) {
	for _, w := range workers {
		if w == nil {
			continue
		}
		if w.stillWaiting {
			t.unmark(func(d *deviceState) bool { return d.worker == w.id })
		}
		w.seen = t.now
		t.workers[w.workerState] = struct{}{}
	}
	for _, c := range calls {
		p := c.arg.(*pollCall)
		switch {
		case c.err != nil || p.answer.Superseded:
		case p.answered():
			workers[p.WorkerID].waitingSeq = 0
		default:
			for _, id := range p.Free {
				if d := t.b.devices[id]; d != nil && d.worker == p.WorkerID {
					d.waitingUntil, d.waitingSeq = t.now+p.Wait.Milliseconds(), p.Seq
					t.devices[d] = struct{}{}
				}
			}
		}
	}
}

// unmark ends the waiting of devices.
func (t *tx) unmark(which func(*deviceState) bool) {
	for _, d := range t.b.devices {
		if d.waitingUntil > 0 && which(d) {
			d.waitingUntil = 0
			t.devices[d] = struct{}{}
		}
	}
}

// expiry is when a lease ends that is renewed now.
func (t *tx) expiry() int64 { return t.now + t.w.lease.Milliseconds() }

// answerPoll finds what a poll's worker is to hear at once.
func (t *tx) answerPoll(p *pollCall) {
	p.answer.Assignments, p.answer.Cancel = handOut(t.b.ofWorker[p.WorkerID], p.Free, p.Leases)
	for _, id := range p.answer.Cancel {
		t.tellCancel(id)
	}
}

// tellCancel notes that a poll's answer carries the cancel of an attempt.
func (t *tx) tellCancel(attemptID string) {
	if a := t.b.open[attemptID]; a != nil {
		a.cancelTold = true
		t.attempts[a] = struct{}{}
	}
}

// handOut sorts out which open attempts a poll's answer carries: those of its free devices that the worker
// does not know, and those that are to be canceled and were not told. One that the worker knew and lists no
// more is over for it, though its result was refused: it would run again at no cost, and again. It ends with
// its lease.
func handOut(open []*attempt, free []string, leases []Lease) (assignments []Assignment, cancel []string) {
	for _, a := range open {
		if !a.acknowledged && slices.Contains(free, a.device) && !slices.Contains(leases, a.lease()) {
			assignments = append(assignments, a.assignment())
		}
		if a.job.State == qgjob.Canceling && !a.cancelTold {
			cancel = append(cancel, a.id)
		}
	}
	return assignments, cancel
}

// Assignments returns what has come up for a waiting poll: open attempts of its free devices, and cancels
// not told yet. Superseded when a newer poll of the worker took over, or the worker is gone, or was gone and
// registered again: no device waits by this poll any more.
func (s *Store) Assignments(ctx context.Context, workerID string, seq int64, free []string) (PollAnswer, error) {
	var newest []int64
	err := s.query(ctx, func(row scanner) error {
		var n int64
		err := row.Scan(&n)
		newest = append(newest, n)
		return err
	}, `select poll_seq from workers where id = $1`, workerID)
	if err != nil {
		return PollAnswer{}, err
	}
	if len(newest) == 0 || newest[0] != seq {
		return PollAnswer{Superseded: true}, nil
	}
	var open []*attempt
	err = s.query(ctx, func(row scanner) error {
		a := &attempt{}
		j, err := scanJob(row, a.columns()...)
		a.job = j
		open = append(open, a)
		return err
	}, selectOpenOfWorker, workerID)
	if err != nil {
		return PollAnswer{}, err
	}
	var answer PollAnswer
	answer.Assignments, answer.Cancel = handOut(open, free, nil)
	if len(answer.Cancel) == 0 {
		return answer, nil
	}
	return answer, s.write(ctx, func(_ context.Context, t *tx) error {
		for _, id := range answer.Cancel {
			t.tellCancel(id)
		}
		return nil
	})
}

// Open attempts are those that devices name. A worker's are of its devices, and of devices that were its own.
const (
	selectOpen = `
	select ` + attemptColumns + `, ` + jobColumns + `
	from devices d, attempts a, jobs j, runs r
	where d.attempt_id <> '' and a.id = d.attempt_id and j.seq = a.job_seq and r.seq = j.run_seq`
	selectOpenOfWorker = selectOpen + ` and a.worker_id = $1`
)

// Unwait ends the waiting of a poll's devices: it was answered, or its client has gone. It is needless when
// every free device of the poll got an assignment.
func (s *Store) Unwait(ctx context.Context, workerID string, seq int64) error {
	return s.write(ctx, func(_ context.Context, t *tx) error {
		if w := t.b.workers[workerID]; w != nil && w.waitingSeq == seq {
			w.waitingSeq = 0
			t.workers[w] = struct{}{}
		}
		t.unmark(func(d *deviceState) bool { return d.worker == workerID && d.waitingSeq == seq })
		return nil
	})
}
