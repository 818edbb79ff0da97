// Package device is what a worker drives: phones, emulators and cloud slots, each behind a Driver that
// lists and opens them and a Session that prepares one for tests.
//
// A driver promises that a device is opened by one worker at a time, that the build which a session was
// asked for is the one that is installed, proven on the device itself, and that no call outlives its
// context by more than a moment, however sick the device is. The agent keeps sessions open between jobs;
// package appwright is handed what Session.Endpoint returns and never a device.
//
// Every driver passes the suite in devicetest. The package knows no server, no queue and no test runner.
package device

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"qgjob"
)

// Info describes a device as it was seen when it was listed.
type Info struct {
	ID          string            // the same on every host that reaches the same device: a phone's serial, "<serial>@<hostname>" for what only this host can reach
	Serial      string            // what Driver.Open takes
	Kind        qgjob.Target      // TargetDevice, TargetEmulator or TargetBrowserStack
	Platform    string            // android or ios, or qgjob.PlatformAny
	Model       string            // "" while unknown (offline, unauthorized)
	OSVersion   string            // "" while unknown
	Hardware    qgjob.Hardware    // of when it was last asked, a minute ago or so
	MinutePrice float64           // what a minute on it costs; 0: nothing, or it is not known
	State       qgjob.DeviceState // DeviceIdle for one that could be opened; the driver does not know who is busy
	Message     string            // why it is not idle, and what to do about it
}

// Build is a build on this host's disk, as package build parsed it.
type Build struct {
	Path        string // of the APK or IPA
	Platform    string // qgjob.PlatformAndroid or qgjob.PlatformIOS
	Simulator   bool   // an iOS app for simulators only
	SHA256      string // of the file, in lower-case hexadecimal
	Package     string // Android package or iOS bundle id
	Activity    string // launchable activity; "" where there is none
	VersionCode int64
	Key         qgjob.App // whose build it is: what Holder.Installed answers later
}

// Preparation is what Session.Prepare did.
type Preparation struct {
	Installed bool          // an install took place; false: the build was on the device already
	Install   time.Duration // time of the install, 0 when it was saved
	Reset     time.Duration // time to clear the app's data, 0 after a fresh install
}

// Endpoint is a warm Appium server that drives one device.
type Endpoint struct {
	URL     string // without a trailing slash, for example http://127.0.0.1:40123
	LogPath string // of the server's own log on this host, which grows by what each session does; "" where there is none
	// Cloud says that the server makes its sessions on BrowserStack: a client reaches it as AppWright reaches
	// BrowserStack, whose REST interface it has under /app-automate. Credentials are the server's own matter.
	Cloud bool
	// Capabilities must be set in the capabilities of every POST /session, over what the client asked for.
	// A nil value means: take the capability out.
	Capabilities map[string]any
}

// Driver finds and opens the devices of one kind of connection. Several goroutines may call it.
type Driver interface {
	// List returns every device that it can see now, in any state, sorted by serial. It is cheap enough to
	// be called every few seconds, and a device that hangs delays it by two seconds at most.
	List(ctx context.Context) ([]Info, error)

	// Open takes the device for this process: a host-wide lock by serial, held until Session.Close or the
	// process's death. The error is ErrInUse when another worker, or another session of this one, has it.
	Open(ctx context.Context, serial string) (Session, error)
}

// Session is an opened device. One goroutine at a time calls it, except Check, which may be called at any
// time. Its errors are a *Failure, or wrap the context's error when the caller's context ended first; after
// a failure the same call may be made again. Any call after Close fails.
type Session interface {
	// Prepare makes b the installed app and clears its data. It installs only when the device itself does
	// not prove that b is installed, whatever was installed before and by whom.
	Prepare(ctx context.Context, b Build) (Preparation, error)

	// Endpoint returns this device's Appium server and starts it when it is not running or does not
	// answer. It is idempotent; the server stays warm between jobs.
	Endpoint(ctx context.Context) (Endpoint, error)

	// Check says within a few seconds whether the device is there and answers.
	Check(ctx context.Context) error

	// Release ends what a job may have left: open Appium sessions, the running app, port forwards. The
	// device is then ready for the next job. It is idempotent, and does what it can on a sick device.
	Release(ctx context.Context) error

	// Close ends the Appium server with its process tree and gives the device back. It is idempotent.
	Close() error
}

// Holder is an optional interface of a Session.
type Holder interface {
	// Installed is the Key of the build that was last prepared on the device by any worker of this host,
	// as far as is known without asking the device: a hint for scheduling, never proof. Several goroutines
	// may call it.
	Installed() (app qgjob.App, ok bool)
}

// Recorder is an optional interface of a Session on a cloud, which keeps a record of what ran there.
type Recorder interface {
	// Recorded returns the cloud's sessions since the last Prepare, with their pages and cost as far as the
	// cloud tells them in time. The goroutine that owns the session calls it, before Release.
	Recorded(ctx context.Context) []qgjob.CloudSession
}

// Keeper is an optional interface of a Session.
type Keeper interface {
	// ReleaseKeeping is Release, but leaves one Appium session open for the device's next job. Endpoint and
	// Prepare leave it alone; the next Release ends it.
	ReleaseKeeping(ctx context.Context, appiumSession string) error
}

// Healer is an optional interface of a Session.
type Healer interface {
	// Heal tries to mend a device that fails: rung 0 reconnects it, 1 ends its Appium server, so that the next
	// Endpoint starts another, 2 restarts the device and waits until it is up. There are no others. It returns
	// what it did.
	Heal(ctx context.Context, rung int) (did string, err error)
}

// HealRungs is how many rungs Healer.Heal has.
const HealRungs = 3

// Chronicler is an optional interface of a Session: what the device itself tells of a stretch of time.
type Chronicler interface {
	// MarkLog names where the device's log is now.
	MarkLog(ctx context.Context) (mark string, err error)

	// LogSince writes what the device has logged since a mark.
	LogSince(ctx context.Context, mark string, w io.Writer) error
}

// Screener is an optional interface of a Session.
type Screener interface {
	// Screen writes what the device shows now, as a PNG.
	Screen(ctx context.Context, w io.Writer) error
}

// Witness is an optional interface of a Session whose device's log does not tell of crashes.
type Witness interface {
	// Gone says what became of the app that the last session launched when it does not run any more, and "" while it runs.
	Gone(ctx context.Context) (words string, err error)
}

// Filmer is an optional interface of a Session.
type Filmer interface {
	// Film begins to record the screen. What hinders it says nothing of the device's health.
	Film(ctx context.Context) (Film, error)
}

// How drivers that record a screen themselves cut the recording. Android's screenrecord takes three minutes at most.
const (
	FilmSegment  = 170 * time.Second
	FilmSegments = 20               // that are recorded of one attempt
	FilmName     = "video-%02d.mp4" // of a segment, from 1 on
)

// Film is a recording of a device's screen. It goes on beside whatever else its session does.
type Film interface {
	// End ends the recording, writes what there is of it into a directory, in files video-01.mp4 and on, and removes it
	// from the device. Without a directory it is only removed. It is called once, and waits for the device as long as ctx lets it.
	End(ctx context.Context, dir string) error
}

// ErrInUse is wrapped by the Failure of Driver.Open for a device that somebody else has open.
var ErrInUse = errors.New("device is in use by another worker")

// Failure is the error type of drivers and sessions: what happened, to what, and what to do about it.
type Failure struct {
	Cause   qgjob.Cause
	Message string
	Err     error // what was underneath, for logs; nil where there is none
}

func (f *Failure) Error() string { return f.Message }

func (f *Failure) Unwrap() error { return f.Err }

// Failf makes a Failure; %w wraps as in fmt.Errorf.
func Failf(cause qgjob.Cause, format string, args ...any) *Failure {
	err := fmt.Errorf(format, args...)
	f := &Failure{Cause: cause, Message: err.Error()}
	switch u := err.(type) {
	case interface{ Unwrap() error }:
		f.Err = u.Unwrap()
	case interface{ Unwrap() []error }:
		f.Err = errors.Join(u.Unwrap()...)
	}
	return f
}

// CauseOf returns the cause of an error: host_failed for one that is no Failure, "" for nil.
func CauseOf(err error) qgjob.Cause {
	if err == nil {
		return ""
	}
	if f, ok := errors.AsType[*Failure](err); ok {
		return f.Cause
	}
	return qgjob.CauseHostFailed
}
