package ios

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"qgjob"
	"qgjob/internal/device"
	"qgjob/internal/device/appium"
)

// session is an opened device.
type session struct {
	d    *Driver
	info device.Info
	t    target
	dir  string // what is kept about the device on this host
	held *device.Held
	log  *slog.Logger

	server *appium.Server // nil until the first Endpoint
	port   int            // of WebDriverAgent; 0 until the first Endpoint
	ports  *device.Held
	build  device.Build // that was prepared last
	record *device.Hint[record]

	mu     sync.Mutex
	closed bool
	wda    *agent // nil while none was started
	// launched says that a session has launched the app since it was last prepared.
	launched bool
}

// record is what is remembered across restarts of the worker: which build it put where.
type record struct {
	App    qgjob.App `json:"app"`
	Bundle string    `json:"bundle"` // "": nothing was prepared yet
	SHA256 string    `json:"sha256"` // of the build
	Where  string    `json:"where"`
}

var (
	_ device.Session = (*session)(nil)
	_ device.Holder  = (*session)(nil)
	_ device.Healer  = (*session)(nil)
	_ device.Witness = (*session)(nil)
)

func newSession(d *Driver, info device.Info, t target, held *device.Held) (*session, error) {
	s := &session{d: d, info: info, t: t, held: held, log: d.log.With("device", info.Serial), dir: filepath.Join(d.opts.DataDir, "devices", info.Serial)}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, device.Failf(qgjob.CauseHostFailed, "the directory of iPhone %s cannot be made: %w", info.Serial, err)
	}
	s.record = device.OpenHint[record](filepath.Join(s.dir, "installed.json"), s.log)
	return s, nil
}

// Prepare implements device.Session.
func (s *session) Prepare(ctx context.Context, b device.Build) (device.Preparation, error) {
	var did device.Preparation
	if err := s.use(); err != nil {
		return did, err
	}
	if b.Package == "" {
		return did, device.Failf(qgjob.CauseBadBuild, "build %s has no bundle id", b.Path)
	}
	if err := s.t.start(ctx); err != nil {
		return did, err
	}
	s.build = b
	s.setLaunched(false)
	at, err := s.t.where(ctx, b.Package)
	if err != nil {
		return did, err
	}
	began := time.Now()
	if known := s.record.Get(); at != "" && at == known.Where && b.SHA256 == known.SHA256 && b.Package == known.Bundle {
		cleared, err := s.t.clear(ctx, b.Package)
		if err != nil {
			return did, err
		}
		if cleared {
			did.Reset = time.Since(began)
			s.record.Set(record{b.Key, b.Package, b.SHA256, at})
			return did, nil
		}
		s.log.Info("the device does not let the app's data be removed: the app is installed anew", "bundle", b.Package)
	}
	if err := s.install(ctx, b, at != ""); err != nil {
		return did, err
	}
	did.Installed, did.Install = true, time.Since(began)
	s.log.Info("build installed", "bundle", b.Package, "sha256", b.SHA256, "took", did.Install.Round(time.Millisecond))
	return did, nil
}

// install puts a build in the place of what is there, and remembers where it is.
func (s *session) install(ctx context.Context, b device.Build, there bool) error {
	app, remove, err := unpack(b.Path, filepath.Join(s.dir, "app"), s.info.Kind == qgjob.TargetEmulator)
	if err != nil {
		return err
	}
	defer remove()
	if there { // with its data, which an install would keep
		if err := s.t.uninstall(ctx, b.Package); err != nil {
			return err
		}
	}
	if err := s.t.install(ctx, b.Package, app); err != nil {
		return err
	}
	at, err := s.t.where(ctx, b.Package)
	if err != nil {
		return err
	}
	if at == "" {
		return device.Failf(qgjob.CauseInstallRefused, "iPhone %s says that it installed %s and does not have it", s.info.Serial, b.Package)
	}
	s.record.Set(record{b.Key, b.Package, b.SHA256, at})
	return nil
}

// Check implements device.Session. A WebDriverAgent that ended by itself is told once: the next Endpoint starts another.
func (s *session) Check(ctx context.Context) error {
	if err := s.use(); err != nil {
		return err
	}
	s.mu.Lock()
	wda := s.wda
	s.mu.Unlock()
	if s.dormant() && wda == nil {
		return nil
	}
	if err := s.t.check(ctx); err != nil {
		return err
	}
	if wda == nil {
		return nil
	}
	err := wda.alive(ctx)
	if err != nil && wda.Gone() {
		s.mu.Lock()
		if s.wda == wda {
			s.wda = nil
		}
		s.mu.Unlock()
	}
	return err
}

// dormant says whether the device boots when it is needed.
func (s *session) dormant() bool {
	simulator, ok := s.t.(*simulator)
	return ok && simulator.boots
}

// endTimeout bounds the end of the Appium sessions that a test left open; after it Appium itself ends.
const endTimeout = 15 * time.Second

// Release implements device.Session.
func (s *session) Release(ctx context.Context) error {
	if err := s.use(); err != nil {
		return err
	}
	if s.server != nil {
		asking, cancel := context.WithTimeout(ctx, endTimeout)
		_, err := s.server.EndSessions(asking, "")
		cancel()
		if err != nil {
			s.log.Warn("Appium does not end its sessions: it is ended", "error", err)
			s.stopServer()
		}
	}
	s.mu.Lock()
	wda := s.wda
	s.mu.Unlock()
	if wda != nil && !wda.Gone() {
		if err := wda.endSession(ctx); err != nil {
			s.log.Warn("WebDriverAgent does not end its session: it is ended", "error", err)
			s.stopWDA()
		}
	}
	bundle := s.record.Get().Bundle
	if bundle == "" || s.dormant() && wda == nil {
		return nil
	}
	s.setLaunched(false)
	return s.t.stop(ctx, bundle)
}

// Close implements device.Session. A simulator goes on: its start is dear, and it costs little while nothing runs in it.
func (s *session) Close() error {
	s.mu.Lock()
	closed := s.closed
	s.closed = true
	s.mu.Unlock()
	if closed {
		return nil
	}
	s.stopServer()
	s.stopWDA()
	if s.ports != nil {
		s.ports.Unlock()
	}
	s.held.Unlock()
	return nil
}

// Installed implements device.Holder.
func (s *session) Installed() (qgjob.App, bool) {
	r := s.record.Get()
	return r.App, r.Bundle != ""
}

// Heal implements device.Healer.
func (s *session) Heal(ctx context.Context, rung int) (did string, err error) {
	if err := s.use(); err != nil {
		return "", err
	}
	switch rung {
	case 0:
		return "looked for it anew", s.t.start(ctx)
	case 1:
		s.stopServer()
		s.stopWDA()
		return "ended its Appium and its WebDriverAgent", nil
	case 2:
		s.stopServer()
		s.stopWDA()
		return "restarted it", s.t.restart(ctx)
	}
	return "", device.Failf(qgjob.CauseHostFailed, "there is no rung %d to mend iPhone %s", rung, s.info.Serial)
}

// Gone implements device.Witness. WebDriverAgent leaves the app running when its session ends.
func (s *session) Gone(ctx context.Context) (string, error) {
	if err := s.use(); err != nil {
		return "", err
	}
	s.mu.Lock()
	launched := s.launched
	s.mu.Unlock()
	if !launched {
		return "", nil
	}
	bundle := s.record.Get().Bundle
	pids, err := s.t.processes(ctx, bundle)
	if err != nil || len(pids) > 0 {
		return "", err
	}
	return bundle + " does not run any more", nil
}

func (s *session) setLaunched(launched bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.launched = launched
}

func (s *session) stopServer() {
	if s.server != nil {
		s.server.Close()
		s.server = nil
	}
}

// use refuses calls after Close.
func (s *session) use() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return device.Failf(qgjob.CauseHostFailed, "the session on iPhone %s is closed", s.info.Serial)
	}
	return nil
}
