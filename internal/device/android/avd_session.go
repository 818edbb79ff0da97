package android

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"qgjob"
	"qgjob/internal/device"
	"qgjob/internal/device/adb"
)

const (
	bootLook     = 250 * time.Millisecond // between looks at an emulator that boots
	bootTail     = 600                    // bytes of an emulator's output in a message
	stopPatience = 15 * time.Second       // from SIGTERM to SIGKILL
)

// avdSession is an AVD that is open: not running at first, booted by the first Prepare or Endpoint, stopped
// when it has had no work for a while, booted again.
type avdSession struct {
	e    *Emulators
	name string
	held *device.Held
	log  *slog.Logger

	turn sync.Mutex // held while the emulator is booted or stopped

	mu      sync.Mutex
	closed  bool
	running *emulator // nil while it is not
	inner   *session  // over adb; nil until it has booted
	idle    *time.Timer
}

var (
	_ device.Session = (*avdSession)(nil)
	_ device.Holder  = (*avdSession)(nil)
)

// emulator is a running process. Its port is its session's until that knows of its end: the serial is made of
// the port, and what still asks for a dead emulator must not reach another's.
type emulator struct {
	*device.Process
	serial string
	port   *device.Held
}

// serial is what adb calls the emulator, "" while it is not running.
func (s *avdSession) serial() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		return ""
	}
	return s.running.serial
}

// up says whether it has booted.
func (s *avdSession) up() bool { return s.device() != nil }

func (s *avdSession) device() *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inner
}

// Prepare implements device.Session.
func (s *avdSession) Prepare(ctx context.Context, b device.Build) (device.Preparation, error) {
	inner, err := s.boot(ctx)
	if err != nil {
		return device.Preparation{}, err
	}
	return inner.Prepare(ctx, b)
}

// Endpoint implements device.Session.
func (s *avdSession) Endpoint(ctx context.Context) (device.Endpoint, error) {
	inner, err := s.boot(ctx)
	if err != nil {
		return device.Endpoint{}, err
	}
	return inner.Endpoint(ctx)
}

// Check implements device.Session. An emulator that is not running is well: it boots when it is needed.
func (s *avdSession) Check(ctx context.Context) error {
	if err := s.use(); err != nil {
		return err
	}
	s.mu.Lock()
	running, inner := s.running, s.inner
	s.mu.Unlock()
	if inner == nil {
		return nil
	}
	if running.Gone() {
		return s.ended()
	}
	return inner.Check(ctx)
}

// Release implements device.Session.
func (s *avdSession) Release(ctx context.Context) error {
	return s.releaseBy(func(inner *session) error { return inner.Release(ctx) })
}

// releaseBy makes a running emulator ready for the next job, and lets it stop when none comes.
func (s *avdSession) releaseBy(release func(*session) error) error {
	if err := s.use(); err != nil {
		return err
	}
	s.turn.Lock()
	defer s.turn.Unlock()
	inner := s.device()
	if inner == nil {
		return nil
	}
	if s.running.Gone() {
		s.stop() // the next job boots it again
		return nil
	}
	s.mu.Lock()
	s.idle = time.AfterFunc(s.e.opts.IdleTime, s.stopIdle)
	s.mu.Unlock()
	return release(inner)
}

// Close implements device.Session.
func (s *avdSession) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	s.turn.Lock()
	defer s.turn.Unlock()
	s.stop()
	s.e.closed(s)
	s.held.Unlock()
	return nil
}

// Installed implements device.Holder.
func (s *avdSession) Installed() (qgjob.App, bool) {
	if inner := s.device(); inner != nil {
		return inner.Installed()
	}
	return qgjob.App{}, false
}

func (s *avdSession) use() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return device.Failf(qgjob.CauseHostFailed, "the session on AVD %s is closed", s.name)
	}
	return nil
}

func (s *avdSession) ended() error {
	return device.Failf(qgjob.CauseDeviceOffline, "the emulator of AVD %s has ended: read its log %s: the host may be short of memory", s.name, s.e.bootLog(s.name))
}

// boot returns the emulator's session over adb and starts the emulator where it is not running.
func (s *avdSession) boot(ctx context.Context) (*session, error) {
	if err := s.use(); err != nil {
		return nil, err
	}
	s.turn.Lock()
	defer s.turn.Unlock()
	s.mu.Lock()
	if s.idle != nil {
		s.idle.Stop()
		s.idle = nil
	}
	running, inner := s.running, s.inner
	s.mu.Unlock()
	if inner != nil && !running.Gone() {
		return inner, nil
	}
	s.stop()
	if err := s.e.phones.ensureServer(ctx); err != nil {
		return nil, err
	}
	if err := s.e.makeAVD(ctx, s.name); err != nil {
		return nil, err
	}
	began := time.Now()
	running, err := s.e.start(s.name)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.running = running
	s.mu.Unlock()
	if err := s.awaitBoot(ctx, running); err != nil {
		s.stop()
		return nil, err
	}
	held, err := device.Lock(device.HostLockDir, running.serial)
	if err == nil {
		inner, err = newSession(s.e.phones, running.serial, held)
	}
	if err != nil {
		s.stop()
		return nil, err
	}
	s.mu.Lock()
	s.inner = inner
	s.mu.Unlock()
	s.log.Info("emulator booted", "serial", running.serial, "took", time.Since(began).Round(time.Millisecond))
	return inner, nil
}

// awaitBoot waits until adb sees the emulator and Android is up.
func (s *avdSession) awaitBoot(ctx context.Context, running *emulator) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.e.opts.BootTime, errBootTime)
	defer cancel()
	look := time.NewTicker(bootLook)
	defer look.Stop()
	for {
		all, err := s.e.phones.serverDevices(ctx)
		if err == nil {
			if at := slices.IndexFunc(all, func(d adb.Device) bool { return d.Serial == running.serial }); at >= 0 {
				if s.e.phones.describe(ctx, all[at]).State == qgjob.DeviceIdle {
					return nil
				}
			}
		}
		select {
		case <-look.C:
		case <-running.Done():
			return s.e.bootFailure(s.name, "ended instead of booting: %s", s.e.lastOutput(s.name))
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), errBootTime) {
				return s.e.bootFailure(s.name, "had not booted after %v: check the host's memory and `emulator -accel-check`", s.e.opts.BootTime)
			}
			return fmt.Errorf("boot of AVD %s: %w", s.name, context.Cause(ctx))
		}
	}
}

// stopIdle stops an emulator that had no work since its last job.
func (s *avdSession) stopIdle() {
	s.turn.Lock()
	defer s.turn.Unlock()
	s.mu.Lock()
	wanted := s.idle == nil || s.closed
	s.mu.Unlock()
	if wanted {
		return
	}
	s.log.Info("emulator is stopped: it had no work", "after", s.e.opts.IdleTime)
	s.stop()
}

// stop ends the emulator and what runs on it. It is called with the turn held.
func (s *avdSession) stop() {
	s.mu.Lock()
	inner, running := s.inner, s.running
	s.inner = nil
	if s.idle != nil {
		s.idle.Stop()
		s.idle = nil
	}
	s.mu.Unlock()
	if inner != nil {
		inner.Close()
	}
	if running == nil {
		return
	}
	running.Stop(stopPatience)
	running.port.Unlock()
	s.mu.Lock()
	s.running = nil
	s.mu.Unlock()
}

// start runs the emulator of an AVD: without a window, from the AVD's snapshot if it has one, and without
// saving another, so that each start is like the one before.
func (e *Emulators) start(name string) (*emulator, error) {
	port, held, err := reserveConsole()
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*emulator, error) {
		held.Unlock()
		return nil, device.Failf(qgjob.CauseHostFailed, "the emulator of AVD %s cannot be started: %w", name, err)
	}
	if err := os.MkdirAll(filepath.Dir(e.bootLog(name)), 0o755); err != nil {
		return fail(err)
	}
	output, err := os.Create(e.bootLog(name))
	if err != nil {
		return fail(err)
	}
	defer output.Close() // the process has its own
	cmd := device.LifelineCommand(e.sdk.emulator, "-avd", name, "-port", fmt.Sprint(port), "-no-window", "-no-audio", "-no-boot-anim", "-no-snapshot-save")
	cmd.Env = e.sdk.env(e.phones.client.Port)
	cmd.Stdout, cmd.Stderr = output, output
	process, err := device.StartProcess(cmd)
	if err != nil {
		return fail(err)
	}
	r := &emulator{Process: process, serial: fmt.Sprintf("emulator-%d", port), port: held}
	e.log.Info("emulator starts", "avd", name, "serial", r.serial)
	return r, nil
}

// lastOutput is the end of what an emulator said.
func (e *Emulators) lastOutput(name string) string {
	data, err := os.ReadFile(e.bootLog(name))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(data[max(0, len(data)-bootTail):]))
}
