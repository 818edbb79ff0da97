package agent

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"qgjob"
	"qgjob/internal/api"
)

const (
	// pollWait is how long a poll waits while idling does not matter.
	pollWait = 25 * time.Second
	// pollSlack is how much later than it was asked to a poll may be answered.
	pollSlack = 10 * time.Second
)

var errChanged = errors.New("the poll would say something else now")

// maxResults is how many results one poll carries at most.
const maxResults = 1000

// poller is what the poll loop remembers from one poll to the next.
type poller struct {
	*Agent
	seq      int64
	idle     int       // polls that found nothing, one after another
	failures int       // polls that were not answered, one after another
	limit    int       // how many results a poll may carry
	deadline time.Time // by which a worker that is done gives up on a server that is away
}

// poll hands in results and takes work until the worker is done, and returns why it is.
func (a *Agent) poll(ctx context.Context) error {
	p := poller{Agent: a, limit: maxResults}
	for {
		if reason, done := a.done(); done {
			return reason
		}
		p.seq++
		request, counts := a.nextPoll(p.seq, p.limit)
		began := time.Now()
		answer, err := a.ask(ctx, request)
		switch {
		case errors.Is(err, errChanged):
		case err != nil:
			if reason := p.failed(ctx, request, err); reason != nil {
				return reason
			}
		default:
			p.answered(ctx, request, answer, counts, time.Since(began))
		}
	}
}

// failed takes in that a poll was not answered, or refused, and waits before the next one. It returns why
// the worker ends when it has nothing left but results that cannot be delivered.
func (p *poller) failed(ctx context.Context, request api.PollRequest, err error) error {
	p.failures++
	p.missed(err)
	switch code := qgjob.ErrorCode(err); {
	case code != qgjob.CodeInvalid && code != qgjob.CodeTooLarge || len(request.Results) == 0:
	case len(request.Results) > 1:
		p.limit = 1 // to find the result that the server cannot take, and to deliver the others
	default:
		out := request.Results[0]
		p.o.Logger.Error("the server cannot take a result", "attempt", out.AttemptID, "job", p.delivered(out.AttemptID), "outcome", out.Outcome, "error", err)
	}
	if reason, resting := p.resting(); resting {
		switch now := time.Now(); {
		case p.deadline.IsZero():
			p.deadline = now.Add(farewell)
		case now.After(p.deadline):
			p.o.Logger.Warn("results could not be delivered: the next worker with this data directory does it", "error", err)
			return reason
		}
	}
	pause(ctx, backoff(p.failures))
	return nil
}

// answered takes in the answer to a poll, which came after the given time.
func (p *poller) answered(ctx context.Context, request api.PollRequest, answer api.PollResponse, counts bool, after time.Duration) {
	p.failures, p.deadline, p.limit = 0, time.Time{}, maxResults
	p.reached()
	p.settle(request.Results, answer.Results)
	p.mu.Lock()
	p.halt(answer.Cancel, errCanceled)
	p.mu.Unlock()
	p.take(ctx, answer.Assignments)
	switch empty := len(answer.Assignments)+len(answer.Cancel)+len(request.Results) == 0; {
	case !empty || p.busy():
		p.idle = 0
	case after < time.Duration(request.WaitMS)*time.Millisecond*9/10:
		pause(ctx, 100*time.Millisecond) // a server that does not wait, as one that shuts down, is not asked in a circle
	case counts:
		p.idle++
		p.say.noJobs(p.idle, p.o.IdlePolls)
		if p.idle >= p.o.IdlePolls {
			p.stop(errIdle)
		}
	}
}

// done says whether the worker has nothing left to do, and why it stopped.
func (a *Agent) done() (error, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.stopping, a.stopping != nil && len(a.attempts) == 0 && len(a.outbox) == 0
}

// resting says whether a stopping worker has nothing left but results to deliver.
func (a *Agent) resting() (error, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, at := range a.attempts {
		if !at.ended {
			return a.stopping, false
		}
	}
	return a.stopping, a.stopping != nil
}

func (a *Agent) busy() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.attempts) > 0
}

// nextPoll makes the next request. counts says that it counts as idle when it finds nothing.
func (a *Agent) nextPoll(seq int64, limit int) (request api.PollRequest, counts bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-a.changed: // all that has changed is in this request
	default:
	}
	a.offered = a.free()
	request = api.PollRequest{Seq: seq, Devices: a.offered, Leases: a.leases(), Results: a.handIn(limit)}
	a.idling = a.idles()
	counts = a.idling
	switch {
	case a.mayEnd(request.Results): // work is asked for by the next poll, if there is one
		request.Devices = []string{}
	case counts:
		request.WaitMS = a.o.IdleWait.Milliseconds()
	default:
		request.WaitMS = pollWait.Milliseconds()
	}
	return request, counts
}

// mayEnd says whether the answer to the results may be that a job failed for the third time, which ends
// this worker. The caller holds mu.
func (a *Agent) mayEnd(results []api.AttemptResult) bool {
	return !a.o.Forever && slices.ContainsFunc(results, func(r api.AttemptResult) bool {
		return r.Outcome == qgjob.OutcomeFailed || r.Outcome == qgjob.OutcomeTimedOut
	})
}

// reply is what came of one poll.
type reply struct {
	api.PollResponse
	err error
}

// ask sends one poll. It ends with errChanged when the next one would say something else: that one takes
// over at the server, which then answers this one. What it still brings is taken.
func (a *Agent) ask(ctx context.Context, request api.PollRequest) (api.PollResponse, error) {
	wait := time.Duration(request.WaitMS) * time.Millisecond
	came := make(chan reply, 1)
	a.loops.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, wait+pollSlack)
		defer cancel()
		answer, err := a.client.Poll(ctx, a.id, request)
		came <- reply{answer, err}
	})
	changed := a.changed
	if len(request.Results) > 0 { // its answer is near, and says what became of them
		changed = nil
	}
	select {
	case r := <-came:
		switch {
		case r.err == nil && r.Superseded:
			return r.PollResponse, errors.New("the server took another request for this worker's newest poll")
		case qgjob.ErrorCode(r.err) == qgjob.CodeNotFound:
			a.beat.set() // the heartbeat registers again
		}
		return r.PollResponse, r.err
	case <-changed:
		a.loops.Go(func() {
			r := <-came
			a.mu.Lock()
			a.halt(r.Cancel, errCanceled)
			a.mu.Unlock()
			a.take(ctx, r.Assignments)
		})
		return api.PollResponse{}, errChanged
	}
}

// settle takes in what became of the results that a poll carried.
func (a *Agent) settle(results []api.AttemptResult, answers []api.ResultAnswer) {
	for i, answer := range answers {
		if i >= len(results) || results[i].AttemptID != answer.AttemptID || answer.Code == qgjob.CodeUnavailable {
			continue
		}
		job := a.delivered(answer.AttemptID)
		if answer.Code != "" {
			a.o.Logger.Warn("result was refused", "attempt", answer.AttemptID, "job", job,
				"outcome", results[i].Outcome, "code", answer.Code, "message", answer.Message)
			continue
		}
		a.say.settled(job, results[i].Result, answer)
		if answer.Trigger == qgjob.Fail && !a.o.Forever {
			a.stop(ErrThirdFailure)
		}
	}
}

// take gives assignments to their devices.
func (a *Agent) take(ctx context.Context, assignments []api.Assignment) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, as := range assignments {
		s := a.slots[as.DeviceID]
		switch {
		case a.attempts[as.AttemptID] != nil: // told twice
		case s == nil || !s.serving || s.closing || s.attempt != nil || a.stopping != nil:
			// The server hears with the next heartbeat that nobody has this lease, and hands the job to somebody else.
			a.o.Logger.Warn("assignment cannot be taken", "attempt", as.AttemptID, "job", as.Job.ID, "device", as.DeviceID)
			a.beat.set()
		default:
			a.say.waiting(as.Job)
			a.o.Logger.Info("attempt starts", "attempt", as.AttemptID, "job", as.Job.ID, "device", as.DeviceID, "reason", as.Reason)
			s.work <- a.newAttempt(ctx, as, s)
		}
	}
	a.offer()
}

// backoff is how long to wait after so many failures: 250 ms at first, doubling to 8 s, with a jitter of a quarter.
func backoff(failures int) time.Duration {
	d := 250 * time.Millisecond << min(failures, 5)
	return d - rand.N(d/4)
}
