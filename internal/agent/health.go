package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"time"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/device"
)

const (
	// healthTime bounds a health job, healTime one rung of the ladder.
	healthTime = 2 * time.Minute
	healTime   = 4 * time.Minute
	// quarantineEvery is how often a device in quarantine gets a health job.
	quarantineEvery = 10 * time.Minute
	// restartEvery is how long the restart of a device is not tried again.
	restartEvery = time.Hour
)

// blames are the causes that speak against the device of the attempt.
var blames = map[qgjob.Cause]bool{
	qgjob.CauseDeviceOffline: true, qgjob.CauseDeviceHung: true, qgjob.CauseSessionNotCreated: true,
	qgjob.CauseSessionDied: true, qgjob.CauseAppiumDied: true, qgjob.CauseInstallRefused: true,
}

// mend takes in how an attempt ended for its device. One that is blamed several times in a row climbs a ladder,
// a rung each time: its connection, its Appium, a restart; after that it goes into quarantine, until a health job
// passes or somebody releases it.
func (a *Agent) mend(ctx context.Context, s *slot, session device.Session, result qgjob.Result) {
	if !blamed(result) {
		if result.Outcome != qgjob.OutcomeCanceled && result.Outcome != qgjob.OutcomeErrored {
			s.blamed = 0
		}
		return
	}
	s.blamed++
	if s.blamed > device.HealRungs {
		a.quarantine(ctx, s, fmt.Sprintf("%d attempts in a row failed on it; the last one: %s (%s)", s.blamed, result.Cause, cut(result.Message, 300)))
	} else {
		a.heal(ctx, s, session, s.blamed-1)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	s.mending = false
	a.offer()
}

// blamed says whether a result speaks against its device.
func blamed(r qgjob.Result) bool { return r.Outcome == qgjob.OutcomeErrored && blames[r.Cause] }

// heal climbs one rung.
func (a *Agent) heal(ctx context.Context, s *slot, session device.Session, rung int) {
	healer, ok := session.(device.Healer)
	if !ok {
		return
	}
	if rung == device.HealRungs-1 {
		if now := time.Now(); now.Sub(s.restarted) < restartEvery {
			return
		}
		s.restarted = time.Now()
	}
	ctx, cancel := context.WithTimeout(ctx, healTime)
	defer cancel()
	did, err := healer.Heal(ctx, rung)
	a.o.Logger.Warn("a device that failed is mended", "device", s.id, "failures", s.blamed, "did", did, "error", err)
}

// quarantine lets a device take no work, and tells the server why.
func (a *Agent) quarantine(ctx context.Context, s *slot, reason string) {
	defer func() { // the server knows it from now on
		a.mu.Lock()
		defer a.mu.Unlock()
		s.quarantined = wallNow()
	}()
	a.mu.Lock()
	s.quarantined = wallNow().Add(time.Hour) // until then
	s.hold = &qgjob.Hold{Kind: qgjob.HoldQuarantine, Reason: reason, Since: time.Now()}
	a.say.trouble("Device "+s.id+" is in quarantine", reason)
	a.offer()
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	if err := a.client.HoldDevice(ctx, s.id, api.HoldRequest{Kind: qgjob.HoldQuarantine, Reason: cut(reason, 1000)}); err != nil {
		a.o.Logger.Warn("the server could not be told of a device in quarantine", "device", s.id, "error", err)
	}
}

// held takes in which devices are to take no work, by an answer to what was asked at a time: it knows nothing of a
// quarantine that began later. The caller holds mu.
func (a *Agent) held(asked time.Time, reported []api.DeviceReport, holds []api.DeviceHold) {
	of := map[string]*qgjob.Hold{}
	for _, h := range holds {
		of[h.DeviceID] = &h.Hold
	}
	for _, r := range reported {
		s := a.slots[r.ID]
		if s == nil || s.quarantined.After(asked) {
			continue
		}
		before := s.hold
		s.hold = of[r.ID]
		switch {
		case s.hold != nil && (before == nil || before.Kind != s.hold.Kind):
			if before == nil || before.Kind != qgjob.HoldQuarantine {
				a.say.note("Device %s takes no more work: %s.", s.id, s.hold)
			}
			if s.hold.Kind == qgjob.HoldCheck {
				s.check.set()
			}
		case s.hold == nil && before != nil:
			s.check.set() // nothing to examine any more, and nothing to blame it for
			a.say.note("Device %s takes work again.", s.id)
		}
	}
	a.offer()
}

// examineHealth runs a health job on a device that is to be checked or is in quarantine, and tells the server what
// came of it. The device runs nothing else.
func (a *Agent) examineHealth(ctx context.Context, s *slot, session device.Session) {
	a.mu.Lock()
	hold := s.hold
	a.mu.Unlock()
	if hold == nil || hold.Kind != qgjob.HoldCheck && hold.Kind != qgjob.HoldQuarantine {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, healthTime)
	err := health(bounded, session)
	cancel()
	switch {
	case ctx.Err() != nil:
	case err != nil && hold.Kind == qgjob.HoldCheck:
		a.quarantine(ctx, s, "its health check failed: "+err.Error())
	case err != nil:
		a.o.Logger.Info("a device stays in quarantine", "device", s.id, "error", err)
	default:
		s.blamed = 0
		asking, cancel := context.WithTimeout(ctx, requestTime)
		defer cancel()
		if err := a.client.ReleaseDevice(asking, s.id, qgjob.HoldCheck, qgjob.HoldQuarantine); err != nil {
			a.o.Logger.Warn("a device that is well again could not be released", "device", s.id, "error", err)
			return
		}
		a.say.note("Device %s is well.", s.id)
		a.beat.set() // the answer says that it is not held any more
	}
}

// checkUp runs a health job on a device that had nothing to do for a while, so that what ails it is known before a job
// meets it. One that fails climbs the ladder, short of a restart, and then goes into quarantine.
func (a *Agent) checkUp(ctx context.Context, s *slot, session device.Session) {
	a.mu.Lock()
	held, busy := s.hold != nil, s.attempt != nil || s.trouble != ""
	if !held && !busy {
		s.mending = true
		a.offer()
	}
	a.mu.Unlock()
	switch {
	case held:
		a.examineHealth(ctx, s, session)
		return
	case busy:
		return
	}
	defer func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		s.mending = false
		a.offer()
	}()
	for rung := 0; ; rung++ {
		bounded, cancel := context.WithTimeout(ctx, healthTime)
		err := health(bounded, session)
		cancel()
		switch {
		case err == nil || ctx.Err() != nil:
			return
		case rung == device.HealRungs-1:
			a.quarantine(ctx, s, "its health check failed: "+err.Error())
			return
		}
		a.o.Logger.Warn("a device failed its scheduled health check", "device", s.id, "error", err)
		a.heal(ctx, s, session, rung)
	}
}

// health is a health job: the device answers, its Appium runs, and makes and ends a session on it.
func health(ctx context.Context, session device.Session) error {
	if err := session.Check(ctx); err != nil {
		return err
	}
	e, err := session.Endpoint(ctx)
	if err != nil {
		return err
	}
	capabilities := map[string]any{"platformName": "android", "appium:automationName": "UiAutomator2"}
	for name, value := range e.Capabilities {
		if value != nil {
			capabilities[name] = value
		}
	}
	delete(capabilities, "appium:forceAppLaunch") // there is no app in it
	var made struct {
		SessionID string `json:"sessionId"`
	}
	wanted := map[string]any{"capabilities": map[string]any{"alwaysMatch": maps.Clone(capabilities), "firstMatch": []any{map[string]any{}}}}
	if err := askAppium(ctx, http.MethodPost, e.URL+"/session", wanted, &made); err != nil {
		return device.Failf(qgjob.CauseSessionNotCreated, "no session could be made on it: %w", err)
	}
	if err := askAppium(ctx, http.MethodDelete, e.URL+"/session/"+made.SessionID, nil, nil); err != nil {
		return device.Failf(qgjob.CauseSessionDied, "its session could not be ended: %w", err)
	}
	return session.Release(ctx)
}

// askAppium sends one command (W3C WebDriver, section 6).
func askAppium(ctx context.Context, method, url string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	request, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // never through a proxy of the host
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	data, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		return err
	}
	if answer.StatusCode >= 300 {
		return fmt.Errorf("%s: %.500s", answer.Status, data)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, &struct {
		Value any `json:"value"`
	}{out})
}
