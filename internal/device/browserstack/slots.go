package browserstack

import (
	"context"
	"fmt"
	"time"

	"qgjob"
	"qgjob/internal/device"
)

const (
	planFresh   = 4 * time.Second // an answer is used again for so long
	listTimeout = 2 * time.Second
	// sweepEvery is how often the sessions of workers that died are looked for.
	sweepEvery = 30 * time.Second
)

// List implements device.Driver. While BrowserStack does not answer, the slots that were known are offline.
func (d *Driver) List(ctx context.Context) ([]device.Info, error) {
	bounded, cancel := context.WithTimeoutCause(ctx, listTimeout, errSilent)
	defer cancel()
	p, others, err := d.currentPlan(bounded)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("list of BrowserStack's slots: %w", context.Cause(ctx))
	}
	if err != nil && device.CauseOf(err) != qgjob.CauseCloudUnreachable {
		return nil, err
	}
	if err == nil {
		d.sweep(ctx)
	}
	return d.describe(p, others, err), nil
}

// slots is how many parallels are used here.
func (d *Driver) slots(p plan) int {
	if d.opts.Slots > 0 && d.opts.Slots < p.Max() {
		return d.opts.Slots
	}
	return p.Max()
}

// describe lists the slots. Those that run a job keep theirs; of the rest as many are idle as the account has left.
func (d *Driver) describe(p plan, others int, unreachable error) []device.Info {
	d.mu.Lock()
	defer d.mu.Unlock()
	if unreachable != nil {
		p = d.plan
	}
	n := d.slots(p)
	if unreachable != nil {
		n = max(n, 1) // so that somebody sees it
	}
	left := p.Max() - others - d.countBusy()
	infos := make([]device.Info, n)
	for i := range infos {
		slot := i + 1
		infos[i] = device.Info{
			ID: d.id(slot), Serial: serialOf(slot), Kind: qgjob.TargetBrowserStack, Platform: qgjob.PlatformAny,
			Model: "BrowserStack", State: qgjob.DeviceIdle, MinutePrice: d.opts.MinutePrice,
		}
		s := d.open[slot]
		switch {
		case unreachable != nil:
			infos[i].State, infos[i].Message = qgjob.DeviceOffline, unreachable.Error()
		case s != nil && s.busy.Load():
		case left > 0:
			left--
		default:
			infos[i].State = qgjob.DeviceOffline
			infos[i].Message = fmt.Sprintf("others on the BrowserStack account use %d of its %d parallels: it is free when they are done", others, p.Max())
		}
	}
	return infos
}

// countBusy counts the slots that a job has. It is called with the lock held.
func (d *Driver) countBusy() int {
	n := 0
	for _, s := range d.open {
		if s.busy.Load() {
			n++
		}
	}
	return n
}

// countSessions counts this driver's sessions at BrowserStack, those that are being made included. It is called
// with the lock held.
func (d *Driver) countSessions() int {
	n := 0
	for _, s := range d.open {
		n += s.front.sessions()
	}
	return n
}

// currentPlan asks for the plan, unless it was just told, and returns it with how many parallels others use.
// What is ours is counted before and after, so that a session which begins or ends meanwhile is not taken for
// somebody else's.
func (d *Driver) currentPlan(ctx context.Context) (plan, int, error) {
	select {
	case d.asking <- struct{}{}:
		defer func() { <-d.asking }()
	case <-ctx.Done():
		return plan{}, 0, unreachable(ctx, d.rest.api.Host, context.Cause(ctx))
	}
	d.mu.Lock()
	p, others, planned, before := d.plan, d.others, d.planned, d.countSessions()
	d.mu.Unlock()
	if !planned.IsZero() && time.Since(planned) < planFresh {
		return p, others, nil
	}
	p, err := d.rest.plan(ctx)
	if err != nil {
		return plan{}, 0, err
	}
	if p.Max() < 1 {
		return plan{}, 0, device.Failf(qgjob.CauseCloudRefused, "the plan of the BrowserStack account has no parallels for App Automate: choose another plan, or ask the account's owner to give this team some")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	others = max(0, p.Running-max(before, d.countSessions()))
	d.plan, d.others, d.planned = p, others, time.Now()
	return p, others, nil
}

// awaitRoom waits until others leave the account a parallel for each of our jobs.
func (d *Driver) awaitRoom(ctx context.Context) error {
	limit := time.NewTimer(d.opts.QueueWait)
	defer limit.Stop()
	again := time.NewTicker(d.rhythm)
	defer again.Stop()
	for told := false; ; {
		p, others, err := d.currentPlan(ctx)
		if err != nil && device.CauseOf(err) != qgjob.CauseCloudUnreachable {
			return err
		}
		if err == nil {
			d.mu.Lock()
			ours := d.countBusy()
			d.mu.Unlock()
			if others+ours <= p.Max() || others == 0 {
				return nil
			}
			if !told {
				told = true
				d.log.Info("waiting for a parallel of BrowserStack", "others", others, "parallels", p.Max())
			}
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for a parallel of BrowserStack: %w", context.Cause(ctx))
		case <-limit.C:
			if err != nil {
				return err
			}
			return device.Failf(qgjob.CauseCloudQueueFull, "others used %d of the %d parallels of the BrowserStack account for %v: run it again later, or raise the plan", others, p.Max(), d.opts.QueueWait)
		}
	}
}
