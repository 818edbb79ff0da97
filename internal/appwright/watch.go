package appwright

import (
	"context"
	"errors"
	"time"

	"qgjob"
)

// watchDevice looks at the device whenever it has owed an answer for so long, and tells of one that is found sick: its test would
// wait until its own time is over. A device that answers is given more time, and is looked at again when it has used that up.
func (r Run) watchDevice(ctx context.Context, p *proxy, patience time.Duration, sick func(error)) {
	look := time.NewTicker(patience / 10)
	defer look.Stop()
	looked := time.Now()
	for {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
		since, owed := p.owed()
		if !owed || time.Since(since) < patience || time.Since(looked) < patience {
			continue
		}
		looked = time.Now()
		if err := r.Check(ctx); err != nil && ctx.Err() == nil {
			sick(err)
			return
		}
	}
}

// owed says since when the device has owed an answer, to a command or to the request for a session.
func (p *proxy) owed() (since time.Time, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	older := func(at time.Time) {
		if !ok || at.Before(since) {
			since, ok = at, true
		}
	}
	for _, command := range p.pending {
		if command.GivenUpAt.IsZero() {
			older(command.SentAt)
		}
	}
	for _, s := range p.evidence.Sessions {
		if s.MadeAt.IsZero() && s.EndedAt.IsZero() {
			older(s.RequestedAt)
		}
	}
	return since, ok
}

// sickness is why a run was ended whose device was found sick; nil for any other end.
func sickness(err error) *Failure {
	var sick *sickDevice
	if !errors.As(err, &sick) {
		return nil
	}
	if failure, ok := errors.AsType[*Failure](sick.err); ok {
		return failure
	}
	return failuref(qgjob.CauseDeviceHung, "%w", sick.err)
}

// sickDevice ends a run.
type sickDevice struct{ err error }

func (s *sickDevice) Error() string { return s.err.Error() }
