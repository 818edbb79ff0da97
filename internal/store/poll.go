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
	id           string
	pollSeq      int64
	waitingSeq   int64
	polls        bool // by a call of the batch that no newer poll supersedes
	stillWaiting bool // devices are marked as waiting by a poll of a batch before
}

var (
	selectPolling = newBulk("t", `select id, poll_seq, waiting_seq {from,} workers where id = {1}`)
	updatePolling = newBulk("tiii", `update workers set poll_seq = {2}, waiting_seq = {3}, seen_at_ms = {4} {from} where id = {1}`)
	renewLeases   = newBulk("ttti", `
		update attempts set expires_at_ms = {4}, acknowledged = true {from}
		where id = {1} and token = {2} and worker_id = {3} and outcome = ''`)
	stopWaiting  = newBulk("t", `update devices set waiting_until_ms = 0 {from} where worker_id = {1} and waiting_until_ms > 0`)
	startWaiting = newBulk("ttii", `update devices set waiting_until_ms = {3}, waiting_seq = {4} {from} where id = {1} and worker_id = {2}`)
	selectOpen   = newBulk("t", `
		select a.id, a.worker_id, a.device_id, a.token, a.number, a.reason, a.acknowledged, a.cancel_told, `+jobColumns+`
		{from,} attempts a, jobs j, runs r
		where a.worker_id = {1} and a.outcome = '' and j.seq = a.job_seq and r.seq = j.run_seq`)
	tellCancels = newBulk("t", `update attempts set cancel_told = true {from} where id = {1}`)
)

func runPolls(ctx context.Context, t *tx, calls []*call) error {
	workers, err := t.pollingWorkers(ctx, calls)
	if err != nil {
		return err
	}
	var leases [][]any
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
			leases = append(leases, []any{l.AttemptID, l.Token, p.WorkerID, t.expiry()})
		}
		for i := range p.Results {
			results = append(results, &resultItem{result: &p.Results[i], answer: &p.answer.Results[i], worker: p.WorkerID})
		}
	}
	if err := t.execAll(ctx, renewLeases, leases); err != nil {
		return err
	}
	if err := t.record(ctx, results); err != nil {
		return err
	}
	if err := t.flush(ctx); err != nil { // what ended is not handed out again
		return err
	}
	if err := t.answerPolls(ctx, calls); err != nil {
		return err
	}
	t.polling, t.waiting = workers, map[waitingDevice][]*pollCall{}
	for _, c := range calls {
		p := c.arg.(*pollCall)
		if c.err != nil || p.answered() {
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
	return t.savePolling(ctx, calls, workers)
}

// answered says that the poll does not wait.
func (p *pollCall) answered() bool {
	return p.answer.Superseded || len(p.answer.Assignments)+len(p.answer.Cancel) > 0
}

// pollingWorkers reads the workers of a batch's polls and lets each worker's newest poll supersede the others.
func (t *tx) pollingWorkers(ctx context.Context, calls []*call) (map[string]*pollingWorker, error) {
	workers := map[string]*pollingWorker{}
	var rows [][]any
	for _, c := range calls {
		id := c.arg.(*pollCall).WorkerID
		if _, seen := workers[id]; !seen {
			workers[id] = nil
			rows = append(rows, []any{id})
		}
	}
	err := t.queryAll(ctx, selectPolling, rows, func(row scanner) error {
		w := &pollingWorker{}
		err := row.Scan(&w.id, &w.pollSeq, &w.waitingSeq)
		workers[w.id] = w
		return err
	})
	for _, c := range calls {
		p := c.arg.(*pollCall)
		w := workers[p.WorkerID]
		if w == nil || p.Seq < w.pollSeq {
			continue
		}
		if w.waitingSeq != 0 {
			w.stillWaiting = true
			t.publish(TopicWorker(w.id)) // the older poll's request ends
		}
		w.pollSeq, w.waitingSeq, w.polls = p.Seq, p.Seq, true
	}
	return workers, err
}

// savePolling writes the workers back and marks the devices of the polls that wait.
func (t *tx) savePolling(ctx context.Context, calls []*call, workers map[string]*pollingWorker) error {
	var rows, stop, waiting [][]any
	for _, c := range calls {
		p := c.arg.(*pollCall)
		switch {
		case c.err != nil || p.answer.Superseded:
		case p.answered():
			workers[p.WorkerID].waitingSeq = 0
		default:
			for _, id := range p.Free {
				waiting = append(waiting, []any{id, p.WorkerID, t.now + p.Wait.Milliseconds(), p.Seq})
			}
		}
	}
	for _, w := range workers {
		if w == nil {
			continue
		}
		rows = append(rows, []any{w.id, w.pollSeq, w.waitingSeq, t.now})
		if w.stillWaiting {
			stop = append(stop, []any{w.id})
		}
	}
	if err := t.execAll(ctx, updatePolling, rows); err != nil {
		return err
	}
	if err := t.execAll(ctx, stopWaiting, stop); err != nil {
		return err
	}
	return t.execAll(ctx, startWaiting, waiting)
}

// expiry is when a lease ends that is renewed now.
func (t *tx) expiry() int64 { return t.now + t.w.lease.Milliseconds() }

// answerPolls finds what the polls' workers are to hear at once.
func (t *tx) answerPolls(ctx context.Context, calls []*call) error {
	open := map[string][]openAttempt{}
	var rows [][]any
	for _, c := range calls {
		p := c.arg.(*pollCall)
		if _, seen := open[p.WorkerID]; c.err == nil && !p.answer.Superseded && !seen {
			open[p.WorkerID] = nil
			rows = append(rows, []any{p.WorkerID})
		}
	}
	err := t.queryAll(ctx, selectOpen, rows, func(row scanner) error {
		o, err := scanOpen(row)
		open[o.workerID] = append(open[o.workerID], o)
		return err
	})
	if err != nil {
		return err
	}
	var told [][]any
	for _, c := range calls {
		p := c.arg.(*pollCall)
		if c.err != nil || p.answer.Superseded {
			continue
		}
		p.answer.Assignments, p.answer.Cancel = handOut(open[p.WorkerID], p.Free, p.Leases)
		for _, id := range p.answer.Cancel {
			told = append(told, []any{id})
		}
	}
	return t.execAll(ctx, tellCancels, told)
}

// openAttempt is an attempt that a worker has, or should have.
type openAttempt struct {
	Assignment
	workerID     string
	acknowledged bool
	cancelTold   bool
}

func scanOpen(row scanner) (openAttempt, error) {
	var o openAttempt
	j, err := scanJob(row, &o.AttemptID, &o.workerID, &o.DeviceID, &o.Token, &o.Number, &o.Reason, &o.acknowledged, &o.cancelTold)
	if err == nil {
		o.Job = j.Job
	}
	return o, err
}

// handOut sorts out which open attempts a poll's answer carries: those of its free devices that the worker
// does not know, and those that are to be canceled and were not told. One that the worker knew and lists no
// more is over for it, though its result was refused: it would run again at no cost, and again. It ends with
// its lease.
func handOut(open []openAttempt, free []string, leases []Lease) (assignments []Assignment, cancel []string) {
	for _, o := range open {
		if !o.acknowledged && slices.Contains(free, o.DeviceID) && !slices.Contains(leases, o.Lease) {
			assignments = append(assignments, o.Assignment)
		}
		if o.Job.State == qgjob.Canceling && !o.cancelTold {
			cancel = append(cancel, o.AttemptID)
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
	var open []openAttempt
	err = s.query(ctx, func(row scanner) error {
		o, err := scanOpen(row)
		open = append(open, o)
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
	return answer, s.write(ctx, func(ctx context.Context, t *tx) error {
		var told [][]any
		for _, id := range answer.Cancel {
			told = append(told, []any{id})
		}
		return t.execAll(ctx, tellCancels, told)
	})
}

// selectOpenOfWorker is selectOpen for the readers, one worker at a time on both databases.
const selectOpenOfWorker = `
	select a.id, a.worker_id, a.device_id, a.token, a.number, a.reason, a.acknowledged, a.cancel_told, ` + jobColumns + `
	from attempts a, jobs j, runs r
	where a.worker_id = $1 and a.outcome = '' and j.seq = a.job_seq and r.seq = j.run_seq`

// Unwait ends the waiting of a poll's devices: it was answered, or its client has gone. It is needless when
// every free device of the poll got an assignment.
func (s *Store) Unwait(ctx context.Context, workerID string, seq int64) error {
	return s.write(ctx, func(ctx context.Context, t *tx) error {
		if err := t.exec(ctx, `update workers set waiting_seq = 0 where id = $1 and waiting_seq = $2`, workerID, seq); err != nil {
			return err
		}
		return t.exec(ctx, `
			update devices set waiting_until_ms = 0
			where worker_id = $1 and waiting_seq = $2 and waiting_until_ms > 0`, workerID, seq)
	})
}
