package android

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"qgjob"
	"qgjob/internal/device"
	"qgjob/internal/device/adb"
	"qgjob/internal/device/appium"
)

// Bounds of what a session asks of its device.
const (
	checkTimeout   = 5 * time.Second  // of Check
	commandTimeout = 30 * time.Second // of a command that a phone answers at once
)

// session is an opened device.
type session struct {
	d      *Driver
	serial string
	dir    string // what is kept about the device on this host
	held   *device.Held
	log    *slog.Logger

	server     *appium.Server // nil until the first Endpoint
	systemPort int            // of this host, where Appium forwards to its server on the device; 0 until the first Endpoint
	portHeld   *device.Held
	swept      bool   // no recording of another worker is on the device
	helpers    bool   // Appium's helper apps are known to be on the device
	kept       string // the Appium session that the last release left open

	record *device.Hint[record]

	mu     sync.Mutex
	closed bool
}

// record is the build that was last prepared on a device. It tells the scheduler where a build may be, and tells nothing about what is installed:
// that is for the device to prove.
type record struct {
	Package string    `json:"package"` // "" : nothing was prepared yet
	App     qgjob.App `json:"app"`
}

var (
	_ device.Session    = (*session)(nil)
	_ device.Chronicler = (*session)(nil)
	_ device.Screener   = (*session)(nil)
	_ device.Holder     = (*session)(nil)
	_ device.Keeper     = (*session)(nil)
	_ device.Filmer     = (*session)(nil)
)

func newSession(d *Driver, serial string, held *device.Held) (*session, error) {
	s := &session{
		d: d, serial: serial, held: held, log: d.log.With("device", serial),
		dir: filepath.Join(d.opts.DataDir, "devices", strings.ReplaceAll(serial, string(filepath.Separator), "_")),
	}
	if err := os.MkdirAll(s.dir, 0o755); err != nil {
		return nil, device.Failf(qgjob.CauseHostFailed, "the directory of device %s cannot be made: %w", serial, err)
	}
	s.record = device.OpenHint[record](filepath.Join(s.dir, "installed.json"), s.log)
	return s, nil
}

// Check implements device.Session.
func (s *session) Check(ctx context.Context) error {
	if err := s.use(); err != nil {
		return err
	}
	const word = "qgjob"
	out, err := s.shell(ctx, checkTimeout, "echo "+word)
	if err != nil {
		return err
	}
	if strings.TrimSpace(out.Stdout) != word {
		return device.Failf(qgjob.CauseDeviceHung, "device %s answers nonsense (%.60q): restart it", s.serial, out.Text())
	}
	return nil
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
	s.stopServer()
	if s.portHeld != nil {
		s.portHeld.Unlock()
	}
	s.held.Unlock()
	return nil
}

// Installed implements device.Holder.
func (s *session) Installed() (qgjob.App, bool) {
	r := s.record.Get()
	return r.App, r.Package != ""
}

// use refuses calls after Close.
func (s *session) use() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return device.Failf(qgjob.CauseHostFailed, "the session on device %s is closed", s.serial)
	}
	return nil
}

// shell runs a command on the device within a bound.
func (s *session) shell(ctx context.Context, bound time.Duration, command string) (adb.Output, error) {
	asking, cancel := s.bounded(ctx, bound, command)
	defer cancel()
	out, err := s.d.client.Shell(asking, s.serial, command)
	if err != nil {
		return adb.Output{}, s.explain(ctx, command, err)
	}
	if starting(out.Text()) {
		return adb.Output{}, s.notUpYet()
	}
	return out, nil
}

// starting says whether a command failed because Android is not up, which it is not for a while after the
// shell is.
func starting(text string) bool { return strings.Contains(text, "Can't find service: ") }

func (s *session) notUpYet() error {
	return device.Failf(qgjob.CauseDeviceOffline, "device %s is starting: wait until it has", s.serial)
}

// bounded is a context whose end by time is the device's failure.
func (s *session) bounded(ctx context.Context, bound time.Duration, doing string) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, bound, s.hung(doing, bound))
}

func (s *session) hung(doing string, bound time.Duration) error {
	return device.Failf(qgjob.CauseDeviceHung, "device %s does not answer: %q took longer than %v: restart the device", s.serial, firstWords(doing), bound)
}

// explain makes an error of the adb client one of the session: the caller's own end, or a Failure.
func (s *session) explain(ctx context.Context, doing string, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("%s on device %s: %w", firstWords(doing), s.serial, context.Cause(ctx))
	}
	if _, ok := errors.AsType[*device.Failure](err); ok {
		return err
	}
	switch {
	case errors.Is(err, adb.ErrNoServer):
		return s.d.serverFailure(ctx, err)
	case errors.Is(err, adb.ErrUnauthorized):
		return device.Failf(qgjob.CauseDeviceOffline, "device %s: %s: %w", s.serial, stateAdvice["unauthorized"], err)
	case errors.Is(err, adb.ErrOffline):
		return device.Failf(qgjob.CauseDeviceOffline, "device %s: %s: %w", s.serial, stateAdvice["offline"], err)
	case errors.Is(err, adb.ErrNotFound):
		return device.Failf(qgjob.CauseDeviceOffline, "device %s: %s: %w", s.serial, stateAdvice[stateMissing], err)
	}
	return device.Failf(qgjob.CauseDeviceOffline, "device %s was lost during %q: check the cable and `adb devices`: %w", s.serial, firstWords(doing), err)
}

// firstWords is what a person needs of a command line.
func firstWords(command string) string {
	const most = 60
	line, _, more := strings.Cut(command, "\n")
	if len(line) > most || more {
		return line[:min(len(line), most)] + "..."
	}
	return cmp.Or(line, "a command")
}
