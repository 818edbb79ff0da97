package browserstack

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"qgjob"
	"qgjob/internal/device"
)

// session is an opened slot.
type session struct {
	d    *Driver
	slot int
	held *device.Held
	log  *slog.Logger

	front *front
	busy  atomic.Bool // a job has it

	mu     sync.Mutex
	closed bool
}

var (
	_ device.Session  = (*session)(nil)
	_ device.Recorder = (*session)(nil)
)

func newSession(d *Driver, slot int, held *device.Held) (*session, error) {
	s := &session{d: d, slot: slot, held: held, log: d.log.With("device", d.id(slot))}
	var err error
	if s.front, err = openFront(d, slot, s.log); err != nil {
		return nil, device.Failf(qgjob.CauseHostFailed, "the server in front of BrowserStack cannot be opened: %w", err)
	}
	return s, nil
}

// Prepare implements device.Session: the build is on the account afterwards, and the sessions that follow get
// it. Each of them begins on a clean phone, so that there is no data to clear.
func (s *session) Prepare(ctx context.Context, b device.Build) (device.Preparation, error) {
	if err := s.use(); err != nil {
		return device.Preparation{}, err
	}
	if b.Simulator {
		return device.Preparation{}, device.Failf(qgjob.CauseBadBuild, "build %.12s of %s is for simulators, and BrowserStack has iPhones only: submit an IPA, which BrowserStack signs anew", b.SHA256, b.Package)
	}
	began := time.Now()
	ref, uploaded, err := s.d.uploads.ensure(ctx, b)
	if err != nil {
		return device.Preparation{}, err
	}
	s.busy.Store(true)
	s.front.prepare(app{ref: ref, pkg: b.Package, build: fmt.Sprintf("qgjob %s %s", b.Key.OrgID, b.Key.AppVersionID)})
	if !uploaded {
		return device.Preparation{}, nil
	}
	return device.Preparation{Installed: true, Install: time.Since(began)}, nil
}

// Endpoint implements device.Session. It waits until others leave a parallel free.
func (s *session) Endpoint(ctx context.Context) (device.Endpoint, error) {
	if err := s.use(); err != nil {
		return device.Endpoint{}, err
	}
	s.busy.Store(true)
	if err := s.d.awaitRoom(ctx); err != nil {
		return device.Endpoint{}, err
	}
	return device.Endpoint{URL: s.front.url, Cloud: true}, nil
}

// Check implements device.Session.
func (s *session) Check(ctx context.Context) error {
	if err := s.use(); err != nil {
		return err
	}
	bounded, cancel := context.WithTimeoutCause(ctx, checkTimeout, errSilent)
	defer cancel()
	_, err := s.d.rest.plan(bounded)
	return err
}

const checkTimeout = 5 * time.Second

// Release implements device.Session.
func (s *session) Release(ctx context.Context) error {
	if err := s.use(); err != nil {
		return err
	}
	defer s.busy.Store(false)
	return s.front.release(ctx)
}

// Recorded implements device.Recorder.
func (s *session) Recorded(ctx context.Context) []qgjob.CloudSession {
	var list []qgjob.CloudSession
	for _, made := range s.front.made() {
		lasted := made.lasted(time.Now())
		entry := qgjob.CloudSession{
			ID: made.id, Seconds: int64(math.Ceil(lasted.Seconds())), Cost: math.Round(lasted.Minutes()*s.d.opts.MinutePrice*1e4) / 1e4,
		}
		told, err := s.d.rest.session(ctx, made.id)
		if err != nil {
			s.log.Warn("BrowserStack does not tell where a session's page is", "session", made.id, "error", err)
		} else {
			entry.URL, entry.VideoURL = told.URL, told.VideoURL
		}
		list = append(list, entry)
	}
	return list
}

// Close implements device.Session.
func (s *session) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	s.front.close()
	s.d.closed(s)
	s.held.Unlock()
	return nil
}

// use refuses calls after Close.
func (s *session) use() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return device.Failf(qgjob.CauseHostFailed, "the session on slot %d of BrowserStack is closed", s.slot)
	}
	return nil
}
