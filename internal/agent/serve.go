package agent

import (
	"context"
	"errors"
	"time"

	"qgjob"
	"qgjob/internal/device"
)

const (
	openEvery  = 15 * time.Second // between tries to open a device that is in use or unwell
	openTime   = 2 * time.Minute
	checkEvery = 5 * time.Second // between looks at a device that is unwell
	checkTime  = 15 * time.Second
	// restAfter is how long what is kept for a device's next job waits for it.
	restAfter = 30 * time.Second
)

// serve opens a device and runs its attempts, one after another, until ctx ends. It alone calls the
// device's session.
func (a *Agent) serve(ctx context.Context, s *slot) {
	defer a.forget(s)
	session := a.open(ctx, s)
	if session == nil {
		return
	}
	defer func() {
		if err := session.Close(); err != nil {
			a.o.Logger.Warn("device could not be closed", "device", s.id, "error", err)
		}
	}()
	defer a.o.Runner.Rest(s.id)
	rest := time.NewTimer(restAfter)
	rest.Stop() // nothing is kept yet
	defer rest.Stop()
	again := time.NewTicker(quarantineEvery)
	defer again.Stop()
	checks := a.o.HealthEvery > 0 && a.kind(s) != qgjob.TargetBrowserStack // whose sessions cost money
	idle := time.NewTimer(a.o.HealthEvery)
	defer idle.Stop()
	if !checks {
		idle.Stop()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.check:
			a.examineHealth(ctx, s, session)
		case <-again.C:
			a.examineHealth(ctx, s, session)
		case <-idle.C:
			a.checkUp(ctx, s, session)
			idle.Reset(a.o.HealthEvery)
		case <-rest.C:
			a.o.Runner.Rest(s.id)
			a.release(ctx, s, session, "")
		case at := <-s.work:
			a.mend(ctx, s, session, a.run(ctx, at, session))
			a.nurse(ctx, s, session)
			rest.Reset(restAfter)
			if checks {
				idle.Reset(a.o.HealthEvery)
			}
		}
	}
}

// forget ends the slot's goroutine. A slot whose device is still listed is opened again by the next look.
func (a *Agent) forget(s *slot) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s.quit()
	s.serving, s.closing, s.session, s.known, s.trouble, s.inUse = false, false, nil, false, "", false
	if !s.listed {
		delete(a.slots, s.id)
	}
	a.beat.set()
}

// open tries to open the device until it can, or ctx ends: then the session is nil.
func (a *Agent) open(ctx context.Context, s *slot) device.Session {
	for ctx.Err() == nil {
		serial := a.serial(s)
		bounded, cancel := context.WithTimeout(ctx, openTime)
		session, err := s.driver.Open(bounded, serial)
		cancel()
		if ctx.Err() != nil {
			if err == nil {
				return session
			}
			return nil
		}
		a.opened(s, session, err)
		if err == nil {
			return session
		}
		pause(ctx, openEvery)
	}
	return nil
}

func (a *Agent) kind(s *slot) qgjob.Target {
	a.mu.Lock()
	defer a.mu.Unlock()
	return s.info.Kind
}

func (a *Agent) serial(s *slot) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return s.info.Serial
}

// opened takes in how a try to open a device went. What hinders it is said once.
func (a *Agent) opened(s *slot, session device.Session, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		s.session, s.inUse, s.trouble = session, false, ""
		a.o.Logger.Info("device is ready", "device", s.id, "model", s.info.Model, "os", s.info.OSVersion)
	} else {
		if s.trouble != err.Error() {
			a.say.trouble("Device "+s.id+" cannot be used", err.Error())
		}
		s.trouble, s.inUse = err.Error(), errors.Is(err, device.ErrInUse)
	}
	a.beat.set()
	a.offer()
}

// nurse waits until a device that is unwell answers again, so that it is not offered before.
func (a *Agent) nurse(ctx context.Context, s *slot, session device.Session) {
	for ctx.Err() == nil {
		a.mu.Lock()
		unwell := s.trouble != ""
		a.mu.Unlock()
		if !unwell {
			return
		}
		pause(ctx, checkEvery)
		a.examine(ctx, s, session)
	}
}

// examine checks a device and notes what is wrong with it.
func (a *Agent) examine(ctx context.Context, s *slot, session device.Session) error {
	bounded, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	err := session.Check(bounded)
	a.mu.Lock()
	defer a.mu.Unlock()
	before := s.trouble
	s.trouble = ""
	if err != nil {
		s.trouble = err.Error()
	}
	switch {
	case before == "" && err != nil:
		if s.info.State == qgjob.DeviceIdle { // else it is said already
			a.say.device(s.id, qgjob.DeviceOffline, err.Error())
		}
		a.beat.set()
	case before != "" && err == nil:
		a.say.recovered(s.id)
		a.beat.set()
	}
	a.offer()
	return err
}
