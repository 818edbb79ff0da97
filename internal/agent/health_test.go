package agent

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/device"
)

func noSession(context.Context, io.Writer) (Verdict, error) {
	return Verdict{}, device.Failf(qgjob.CauseSessionNotCreated, "Appium makes no session")
}

// deviceIs waits until the server says so of the device.
func (w *world) deviceIs(id string, state qgjob.DeviceState) qgjob.Device {
	w.t.Helper()
	limit := time.After(patience)
	for {
		list, err := w.client.Devices(w.t.Context())
		if err != nil {
			w.t.Fatal(err)
		}
		i := slices.IndexFunc(list.Devices, func(d qgjob.Device) bool { return d.ID == id })
		if i >= 0 && list.Devices[i].State == state {
			return list.Devices[i]
		}
		select {
		case <-limit:
			w.t.Fatalf("device %s did not become %s: %+v", id, state, list.Devices)
		default:
		}
	}
}

// TestDeviceThatFailsGoesIntoQuarantine: a rung of the ladder after each failure, then quarantine with its reason, and
// back by release. The other device goes on.
func TestDeviceThatFailsGoesIntoQuarantine(t *testing.T) {
	w := newWorld(t, 2*time.Second)
	phones := newPhones("P1")
	k := w.start(Options{Drivers: []device.Driver{phones}, Forever: true, Runner: specs{"tests/bad.spec.js": noSession, "tests/good.spec.js": passes}})
	if j := w.verdict(w.submit("tests/bad.spec.js", 1)); j.State != qgjob.Errored || j.InfraErrors != 4 || j.TestFailures != 0 {
		t.Errorf("the job: %+v", j)
	}
	k.out.wait(t, "Device P1 is in quarantine: 4 attempts in a row failed on it", 1)
	phones.mu.Lock()
	if !slices.Equal(phones.healed, []int{0, 1, 2}) {
		t.Errorf("rungs climbed: %v", phones.healed)
	}
	phones.mu.Unlock()
	d := w.deviceIs("P1", qgjob.DeviceQuarantined)
	if d.Hold == nil || !strings.Contains(d.Message, "Appium makes no session") || !strings.Contains(d.Message, "qgjob devices release") {
		t.Errorf("the device: %+v", d)
	}
	id := w.submit("tests/good.spec.js", 1)
	phones.plug("P2")
	if j := w.verdict(id); j.State != qgjob.Passed || j.AttemptList[0].DeviceID != "P2" {
		t.Errorf("the job that came later: %+v", j)
	}
	phones.unplug("P2")
	if err := w.client.ReleaseDevice(t.Context(), "P1"); err != nil {
		t.Fatal(err)
	}
	k.out.wait(t, "Device P1 takes work again.", 1)
	if j := w.verdict(w.submit("tests/good.spec.js", 1)); j.State != qgjob.Passed {
		t.Errorf("the job after the release: %+v", j)
	}
}

// TestHeldDeviceTakesNoWork: what it runs ends as usual, what waits goes elsewhere or waits.
func TestHeldDeviceTakesNoWork(t *testing.T) {
	w := newWorld(t, 2*time.Second)
	started, letGo := make(chan string, 1), make(chan struct{})
	k := w.start(Options{Drivers: []device.Driver{newPhones("P1")}, Forever: true, Runner: specs{"tests/long.spec.js": runsUntil(started, "long", letGo), "tests/good.spec.js": passes}})
	long := w.submit("tests/long.spec.js", 1)
	receive(t, started)
	if err := w.client.HoldDevice(t.Context(), "P1", api.HoldRequest{Kind: qgjob.HoldReserve, Reason: "Ada debugs", ForMS: time.Hour.Milliseconds()}); err != nil {
		t.Fatal(err)
	}
	if err := w.client.HoldDevice(t.Context(), "P9", api.HoldRequest{Kind: qgjob.HoldDrain}); qgjob.ErrorCode(err) != qgjob.CodeNotFound {
		t.Errorf("a device that is not there is held: %v", err)
	}
	k.out.wait(t, "Device P1 takes no more work: reserved: Ada debugs", 1)
	next := w.submit("tests/good.spec.js", 1)
	close(letGo)
	if j := w.verdict(long); j.State != qgjob.Passed {
		t.Errorf("the job that ran: %+v", j)
	}
	w.deviceIs("P1", qgjob.DeviceHeld)
	if j := w.job(next); j.State != qgjob.Queued {
		t.Errorf("the job that waits is %s", j.State)
	}
	if err := w.client.ReleaseDevice(t.Context(), "P1"); err != nil {
		t.Fatal(err)
	}
	if j := w.verdict(next); j.State != qgjob.Passed {
		t.Errorf("after the release it is %s", j.State)
	}
	if err := w.client.ReleaseDevice(t.Context(), "P1"); qgjob.ErrorCode(err) != qgjob.CodeNotFound {
		t.Errorf("a release of what is not held: %v", err)
	}
}

// TestHealthCheckOnDemand: a device that makes a session comes back by itself, one that does not goes into quarantine.
func TestHealthCheckOnDemand(t *testing.T) {
	w := newWorld(t, 2*time.Second)
	var asked []string
	appium := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.Path)
		io.WriteString(rw, `{"value":{"sessionId":"s1"}}`)
	}))
	defer appium.Close()
	phones := newPhones("P1")
	phones.appium = appium.URL
	k := w.start(Options{Drivers: []device.Driver{phones}, Forever: true, Runner: specs{"tests/good.spec.js": passes}})
	w.deviceIs("P1", qgjob.DeviceIdle)
	check := func() {
		if err := w.client.HoldDevice(t.Context(), "P1", api.HoldRequest{Kind: qgjob.HoldCheck}); err != nil {
			t.Fatal(err)
		}
	}
	check()
	k.out.wait(t, "Device P1 takes work again.", 1)
	if !slices.Equal(asked, []string{"POST /session", "DELETE /session/s1"}) {
		t.Errorf("the health job asked Appium for %v", asked)
	}
	phones.sicken("P1", device.Failf(qgjob.CauseDeviceHung, "device P1 does not answer"))
	check()
	k.out.wait(t, "Device P1 is in quarantine: its health check failed: device P1 does not answer", 1)
	w.deviceIs("P1", qgjob.DeviceQuarantined)
}

// TestScheduledHealthChecks: what ails a device that has nothing to do is found before a job meets it, and mended where
// that helps; one that is well again comes back by itself.
func TestScheduledHealthChecks(t *testing.T) {
	w := newWorld(t, 2*time.Second)
	checks := make(chan string, 1)
	appium := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		select {
		case checks <- r.Method:
		default:
		}
		io.WriteString(rw, `{"value":{"sessionId":"s1"}}`)
	}))
	defer appium.Close()
	phones := newPhones("P1")
	phones.appium = appium.URL
	k := w.start(Options{Drivers: []device.Driver{phones}, Forever: true, HealthEvery: 20 * time.Millisecond, Runner: specs{"tests/good.spec.js": passes}})
	receive(t, checks)
	if j := w.verdict(w.submit("tests/good.spec.js", 1)); j.State != qgjob.Passed || j.Attempts != 1 {
		t.Errorf("a job between checks: %+v", j)
	}
	phones.sicken("P1", device.Failf(qgjob.CauseDeviceHung, "device P1 does not answer"))
	k.out.wait(t, "Device P1 is in quarantine: its health check failed: device P1 does not answer", 1)
	phones.mu.Lock()
	if !slices.Equal(phones.healed, []int{0, 1}) {
		t.Errorf("rungs climbed: %v", phones.healed)
	}
	phones.mu.Unlock()
	w.deviceIs("P1", qgjob.DeviceQuarantined)
	phones.sicken("P1", nil)
	k.out.wait(t, "Device P1 takes work again.", 1)
	if j := w.verdict(w.submit("tests/good.spec.js", 1)); j.State != qgjob.Passed {
		t.Errorf("a job on the device that is well again: %+v", j)
	}
}
