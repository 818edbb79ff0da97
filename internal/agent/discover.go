package agent

import (
	"context"
	"sync"
	"time"

	"qgjob"
	"qgjob/internal/device"
)

const (
	lookEvery     = 2 * time.Second
	lookTime      = 15 * time.Second // for one driver to list its devices
	nothingRepeat = 10 * time.Minute
)

// discover keeps the slots in step with the devices that the drivers see, until ctx ends.
func (a *Agent) discover(ctx context.Context) {
	trouble := make([]string, len(a.o.Drivers))
	var said time.Time
	for ctx.Err() == nil {
		var looks sync.WaitGroup
		for i, driver := range a.o.Drivers {
			looks.Go(func() { trouble[i] = a.look(ctx, driver, trouble[i]) })
		}
		looks.Wait()
		a.mu.Lock()
		if !a.looked {
			a.looked = true
			a.beat.set()
		}
		a.offer()
		a.mu.Unlock()
		if a.noDevice() && ctx.Err() == nil {
			if now := time.Now(); said.IsZero() || now.Sub(said) >= nothingRepeat {
				said = now
				a.say.noDevice()
			}
		} else {
			said = time.Time{}
		}
		pause(ctx, lookEvery)
	}
}

func (a *Agent) noDevice() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.slots) == 0
}

// look lists the devices of one driver. What hinders it is said once; before is what hindered it last time.
func (a *Agent) look(ctx context.Context, driver device.Driver, before string) string {
	bounded, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	infos, err := driver.List(bounded)
	if err != nil {
		// The devices of a driver that is blind for a moment are not gone.
		if text := err.Error(); text != before && ctx.Err() == nil {
			a.say.trouble("Devices cannot be listed", text)
			return text
		}
		return before
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.see(ctx, driver, infos)
	return ""
}

// see takes in what a driver lists now. The caller holds mu.
func (a *Agent) see(ctx context.Context, driver device.Driver, infos []device.Info) {
	listed := map[string]bool{}
	for _, info := range infos {
		listed[info.ID] = true
		s := a.slots[info.ID]
		switch {
		case s == nil:
			s = &slot{id: info.ID, driver: driver, tags: a.o.Tags, since: time.Now(), work: make(chan *attempt, 1), check: newSignal()}
			a.slots[info.ID] = s
			a.beat.set()
		case s.driver != driver:
			continue // another driver listed it first
		case s.info.State != info.State || !s.listed:
			a.beat.set()
		}
		if s.info.State != info.State && info.State != qgjob.DeviceIdle {
			a.say.device(info.ID, info.State, info.Message)
		}
		s.info, s.listed = info, true
		if info.State == qgjob.DeviceIdle && !s.serving && a.stopping == nil {
			a.startServing(ctx, s)
		}
	}
	for id, s := range a.slots {
		if s.driver != driver || listed[id] {
			continue
		}
		if s.listed {
			a.beat.set()
		}
		s.listed = false
		switch {
		case !s.serving:
			delete(a.slots, id)
		case s.attempt == nil && !s.closing:
			a.o.Logger.Info("device is gone", "device", id)
			s.closing = true
			s.quit()
		}
	}
	a.offer()
}

// startServing gives a device to a goroutine of its own. The caller holds mu.
func (a *Agent) startServing(ctx context.Context, s *slot) {
	ctx, s.quit = context.WithCancel(ctx)
	s.serving, s.closing = true, false
	a.loops.Go(func() { a.serve(ctx, s) })
}
