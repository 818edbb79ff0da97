package agent

import (
	"context"
	"errors"
	"time"

	"qgjob"
	"qgjob/internal/api"
)

// Why an attempt was stopped before its end.
var (
	errCanceled     = errors.New("the job was canceled")
	errHandedBack   = errors.New("the worker stops")
	errLeaseLost    = errors.New("the server gave the attempt's lease to somebody else")
	errLeaseExpired = errors.New("the server was not heard of for as long as the lease lasts")
)

// enlist registers the worker, as often as it takes. It gives up when ctx ends, and when the server refuses
// a request that would not be another the next time.
func (a *Agent) enlist(ctx context.Context) error {
	for tries := 0; ; tries++ {
		err := a.register(ctx)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
		switch qgjob.ErrorCode(err) {
		case qgjob.CodeUnauthorized, qgjob.CodeInvalid, qgjob.CodeTooLarge:
			return err
		}
		a.missed(err)
		pause(ctx, backoff(tries))
	}
}

// register makes the worker and its devices known. It can be repeated.
func (a *Agent) register(ctx context.Context) error {
	a.mu.Lock()
	request := api.RegisterRequest{Host: a.host, Version: a.o.Version, Devices: a.reports()}
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	sent := wallNow()
	answer, err := a.client.Register(ctx, a.id, request)
	if err != nil {
		return err
	}
	a.reached()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lease = time.Duration(answer.LeaseMS) * time.Millisecond
	a.rhythm = time.Duration(answer.HeartbeatMS) * time.Millisecond
	a.claimed(request.Devices, answer.DeviceClaims)
	a.held(sent, request.Devices, answer.Holds)
	return nil
}

// keepAlive sends heartbeats until ctx ends: in their rhythm, when something changed, and soon again after
// one that failed.
func (a *Agent) keepAlive(ctx context.Context) {
	failures := 0
	for {
		a.mu.Lock()
		wait := a.rhythm
		a.mu.Unlock()
		if failures > 0 {
			wait = min(wait, backoff(failures))
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-a.beat:
		case <-timer.C:
		}
		timer.Stop()
		if err := a.heartbeat(ctx); err != nil {
			failures++
			a.missed(err)
			if failures > 1 { // so that changes do not make it ask faster than backoff
				pause(ctx, backoff(failures))
			}
			continue
		}
		failures = 0
	}
}

// heartbeat tells devices and leases, and stops what the server says is to be stopped.
func (a *Agent) heartbeat(ctx context.Context) error {
	a.mu.Lock()
	request := api.HeartbeatRequest{Devices: a.reports(), Leases: a.leases()}
	settled := a.settled()
	bound := min(requestTime, a.rhythm)
	a.mu.Unlock()
	sent := wallNow()
	bounded, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	answer, err := a.client.Heartbeat(bounded, a.id, request)
	if qgjob.ErrorCode(err) == qgjob.CodeNotFound {
		a.o.Logger.Info("the server does not know this worker any more: it registers again")
		if err := a.register(ctx); err != nil {
			return err
		}
		a.beat.set() // the leases are still to be told
		return nil
	}
	if err != nil {
		return err
	}
	a.reached()
	if settled {
		a.told.Do(func() { close(a.known) })
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, l := range request.Leases {
		if at := a.attempts[l.AttemptID]; at != nil {
			at.lease = sent.Add(a.lease)
		}
	}
	a.claimed(request.Devices, answer.DeviceClaims)
	a.held(sent, request.Devices, answer.Holds)
	a.halt(answer.Lost, errLeaseLost)
	a.halt(answer.Cancel, errCanceled)
	return nil
}

// claimed takes in which of the reported devices the server lets this worker use. The caller holds mu.
func (a *Agent) claimed(reported []api.DeviceReport, claims api.DeviceClaims) {
	refused := map[string]string{}
	for _, r := range claims.Refused {
		refused[r.DeviceID] = r.Message
	}
	for _, r := range reported {
		s := a.slots[r.ID]
		if s == nil || s.session == nil {
			continue
		}
		if s.refused == "" && refused[r.ID] != "" {
			a.say.trouble("Device "+r.ID+" cannot be used", refused[r.ID])
		}
		s.known, s.refused = true, refused[r.ID]
	}
	a.offer()
}

// halt stops attempts for a reason. Those that have ended, or never were, are no matter. The caller holds mu.
func (a *Agent) halt(attempts []string, reason error) {
	for _, id := range attempts {
		if at := a.attempts[id]; at != nil && !at.ended {
			a.o.Logger.Info("attempt is stopped", "attempt", id, "job", at.Job.ID, "reason", reason)
			at.cancel(reason)
		}
	}
}

// endExpired stops attempts whose lease has run out by the wall clock: the server, or this host, was away
// for so long that another worker may have the job by now.
func (a *Agent) endExpired(ctx context.Context) {
	for ctx.Err() == nil {
		pause(ctx, time.Second)
		now := wallNow()
		a.mu.Lock()
		for id, at := range a.attempts {
			if !at.ended && !now.Before(at.lease) {
				a.halt([]string{id}, errLeaseExpired)
			}
		}
		a.mu.Unlock()
	}
}

// missed notes that the server did not answer. It is said once, not at each try.
func (a *Agent) missed(err error) {
	if errors.Is(err, context.Canceled) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.away {
		a.away = true
		a.say.away(err)
	}
}

// reached notes that the server answered.
func (a *Agent) reached() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.away {
		a.away = false
		a.say.back()
	}
}
