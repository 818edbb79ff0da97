package agent

import (
	"context"
	"slices"
	"strings"
	"time"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/device"
)

// bootTime is how long a device that boots or is being opened keeps an idle worker from stopping.
const bootTime = 3 * time.Minute

// slot is one device as this worker sees it. Its fields are under Agent.mu.
type slot struct {
	id     string        // never changes
	driver device.Driver // never changes
	tags   []string      // words that the worker was given for its devices; never change
	info   device.Info
	since  time.Time // when it was first listed
	listed bool      // the driver saw it last time

	serving bool               // a goroutine of serve.go has it, which alone calls its session
	quit    context.CancelFunc // ends that goroutine
	closing bool               // quit was called
	work    chan *attempt      // hands that goroutine its next attempt

	session device.Session // nil until opened
	inUse   bool           // another worker of this host has it: it is that one's to report
	trouble string         // why it could not be opened, or is not well; "" when it is

	known   bool   // the server has heard of it
	refused string // why the server does not let this worker use it

	hold  *qgjob.Hold // why it is to take no work; nil when it may
	check signal      // the hold has changed

	quarantined time.Time // when the server was told of a quarantine

	mending bool // an attempt failed on it, and something is done about it

	attempt *attempt // what it runs

	blamed    int       // attempts in a row that it is blamed for; its goroutine's alone, as is the next
	restarted time.Time // when it was last restarted to mend it
}

// free says whether the device can be offered for work.
func (s *slot) free() bool {
	return s.session != nil && s.listed && !s.closing && s.info.State == qgjob.DeviceIdle && s.trouble == "" &&
		s.known && s.refused == "" && s.hold == nil && !s.mending && s.attempt == nil
}

// opening says that the driver lists the device, and that it is not yet known whether it can be used.
func (s *slot) opening() bool {
	return s.info.State == qgjob.DeviceIdle && s.serving && s.session == nil && s.trouble == "" && !s.inUse
}

// coming says that the device may be free soon, without anybody doing anything.
func (s *slot) coming(now time.Time) bool {
	unknown := s.session != nil && !s.known
	return (s.opening() || unknown || s.info.State == qgjob.DeviceBooting) && now.Sub(s.since) < bootTime
}

// report describes the device to the server; ok is false while there is nothing to say.
func (s *slot) report() (r api.DeviceReport, ok bool) {
	if s.inUse || s.session == nil && s.trouble == "" && s.info.State == qgjob.DeviceIdle {
		return r, false
	}
	r = api.DeviceReport{
		ID: s.info.ID, Serial: s.info.Serial, Kind: s.info.Kind, Platform: s.info.Platform,
		Model: s.info.Model, OSVersion: s.info.OSVersion, State: s.info.State, Message: s.info.Message, Hardware: s.info.Hardware, Tags: s.tags, MinutePrice: s.info.MinutePrice,
	}
	switch {
	case s.attempt != nil:
		r.State, r.Message = qgjob.DeviceBusy, ""
	case !s.listed:
		r.State, r.Message = qgjob.DeviceOffline, "it was unplugged, or its connection ended"
	case s.trouble != "" && s.info.State == qgjob.DeviceIdle:
		r.State, r.Message = qgjob.DeviceOffline, s.trouble
	}
	if h, holds := s.session.(device.Holder); holds {
		if app, installed := h.Installed(); installed {
			r.Installed = &app
		}
	}
	return r, true
}

// reports describes every device. The caller holds mu.
func (a *Agent) reports() []api.DeviceReport {
	reports := []api.DeviceReport{}
	for _, s := range a.slots {
		if r, ok := s.report(); ok {
			if a.full != "" && r.State == qgjob.DeviceIdle {
				r.State, r.Message = qgjob.DeviceOffline, a.full
			}
			reports = append(reports, r)
		}
	}
	slices.SortFunc(reports, func(x, y api.DeviceReport) int { return strings.Compare(x.ID, y.ID) })
	return reports
}

// settled says whether the worker has seen its devices and tried to open each. The caller holds mu.
func (a *Agent) settled() bool {
	for _, s := range a.slots {
		if s.opening() {
			return false
		}
	}
	return a.looked
}

// free lists the devices that can be offered. The caller holds mu.
func (a *Agent) free() []string {
	ids := []string{}
	if a.stopping != nil || a.full != "" {
		return ids
	}
	for id, s := range a.slots {
		if s.free() {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// leases lists the leases of this worker. A lease lives on until its result is answered. The caller holds mu.
func (a *Agent) leases() []api.Lease {
	leases := []api.Lease{}
	for _, at := range a.attempts {
		leases = append(leases, at.Lease)
	}
	slices.SortFunc(leases, func(x, y api.Lease) int { return strings.Compare(x.AttemptID, y.AttemptID) })
	return leases
}

// idles says whether a poll that finds nothing brings the worker nearer to its end. The caller holds mu.
func (a *Agent) idles() bool {
	if a.o.Forever || !a.looked || a.full != "" || a.stopping != nil || len(a.attempts) > 0 {
		return false
	}
	now := time.Now()
	for _, s := range a.slots {
		if s.coming(now) {
			return false
		}
	}
	return true
}

// offer wakes the poll when the next one would offer other devices, or would begin to count as idle. The
// caller holds mu.
func (a *Agent) offer() {
	if !slices.Equal(a.free(), a.offered) || a.idles() && !a.idling {
		a.changed.set()
	}
}
