package phonesim

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Ledger is the phone's own account of what was done to it since it was started. Its counters only grow.
type Ledger struct {
	Serial    string    `json:"serial"`
	StartedAt time.Time `json:"started_at"`
	// Totals count over all packages, Apps over all but Appium's helpers (io.appium.*).
	Totals Counts `json:"totals"`
	Apps   Counts `json:"apps"`
	// Packages count per package, also those no longer installed.
	Packages map[string]Counts `json:"packages"`
	// Installed are the packages that are there now, without the phone's own.
	Installed map[string]Installed `json:"installed"`
	// SessionsOpened and SessionsClosed count UiAutomator2 sessions; one whose server ends is closed, too.
	SessionsOpened int `json:"sessions_opened"`
	SessionsClosed int `json:"sessions_closed"`
	// Commands counts the commands of UiAutomator2 sessions.
	Commands int `json:"commands"`
	// Sessions are the last UiAutomator2 sessions, oldest first.
	Sessions []SessionEntry `json:"sessions"`
	// InstrumentationRunning says whether the UiAutomator2 server runs now.
	InstrumentationRunning bool `json:"instrumentation_running"`
	// Foreground is the package in front.
	Foreground string `json:"foreground"`
	// Entries are the last things that happened, oldest first. Seq counts all that ever did.
	Entries []Entry `json:"entries"`
	Seq     int     `json:"seq"`
}

// Counts are how often something was done.
type Counts struct {
	Installs       int `json:"installs"` // that succeeded
	FailedInstalls int `json:"failed_installs"`
	Uninstalls     int `json:"uninstalls"`
	DataResets     int `json:"data_resets"` // pm clear
	Launches       int `json:"launches"`    // of a process; bringing a running app to the front is none
	ForceStops     int `json:"force_stops"` // that ended a running process
	Crashes        int `json:"crashes"`
}

// Installed is a package on the phone.
type Installed struct {
	VersionCode    int64     `json:"version_code"`
	VersionName    string    `json:"version_name"`
	SHA256         string    `json:"sha256"` // of the APK
	Size           int64     `json:"size"`
	FirstInstallAt time.Time `json:"first_install_at"`
	LastUpdateAt   time.Time `json:"last_update_at"`
}

// SessionEntry is one session of the UiAutomator2 server.
type SessionEntry struct {
	ID       string     `json:"id"`
	OpenedAt time.Time  `json:"opened_at"`
	ClosedAt *time.Time `json:"closed_at,omitempty"`
	// End says how it ended: deleted, replaced, or died with the server.
	End      string `json:"end,omitempty"`
	Commands int    `json:"commands"`
}

// The kinds of Entry.
const (
	EntryInstall       = "install"
	EntryInstallFailed = "install_failed"
	EntryUninstall     = "uninstall"
	EntryDataReset     = "data_reset"
	EntryLaunch        = "launch"
	EntryForceStop     = "force_stop"
	EntryCrash         = "crash"
	EntrySessionOpened = "session_opened"
	EntrySessionClosed = "session_closed"
	EntryReboot        = "reboot"
)

// Entry is one thing that happened.
type Entry struct {
	Seq         int       `json:"seq"`
	Time        time.Time `json:"time"`
	Kind        string    `json:"kind"`
	Package     string    `json:"package,omitempty"`
	VersionCode int64     `json:"version_code,omitempty"`
	SHA256      string    `json:"sha256,omitempty"`
	Session     string    `json:"session,omitempty"`
	Detail      string    `json:"detail,omitempty"` // why an install failed, how a session ended
}

const (
	maxEntries        = 1000
	maxSessionEntries = 200
)

// Ledger returns a copy of the ledger as it is now.
func (p *Phone) Ledger() Ledger {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.ledger
	l.Packages = maps.Clone(l.Packages)
	l.Entries = slices.Clone(l.Entries)
	l.Sessions = slices.Clone(l.Sessions)
	l.Installed = map[string]Installed{}
	for name, pkg := range p.packages {
		if !pkg.system {
			l.Installed[name] = Installed{
				VersionCode: pkg.versionCode, VersionName: pkg.versionName, SHA256: pkg.sha256, Size: pkg.size,
				FirstInstallAt: pkg.firstInstall, LastUpdateAt: pkg.lastUpdate,
			}
		}
	}
	l.InstrumentationRunning = p.instrumentation != nil
	l.Foreground = p.foreground.pkg
	return l
}

func newLedger(serial string, now time.Time) Ledger {
	return Ledger{Serial: serial, StartedAt: now, Packages: map[string]Counts{}, Sessions: []SessionEntry{}, Entries: []Entry{}}
}

// record writes an entry and counts it. It is called with the phone's lock held.
func (l *Ledger) record(now time.Time, e Entry) {
	l.Seq++
	e.Seq, e.Time = l.Seq, now
	l.Entries = append(l.Entries, e)
	if over := len(l.Entries) - maxEntries; over > 0 {
		l.Entries = slices.Delete(l.Entries, 0, over)
	}
	if e.Package == "" {
		return
	}
	counts := l.Packages[e.Package]
	counts.count(e.Kind)
	l.Packages[e.Package] = counts
	l.Totals.count(e.Kind)
	if !isHelper(e.Package) {
		l.Apps.count(e.Kind)
	}
}

func (c *Counts) count(kind string) {
	switch kind {
	case EntryInstall:
		c.Installs++
	case EntryInstallFailed:
		c.FailedInstalls++
	case EntryUninstall:
		c.Uninstalls++
	case EntryDataReset:
		c.DataResets++
	case EntryLaunch:
		c.Launches++
	case EntryForceStop:
		c.ForceStops++
	case EntryCrash:
		c.Crashes++
	}
}

func (l *Ledger) openSession(id string, now time.Time) {
	l.SessionsOpened++
	l.Sessions = append(l.Sessions, SessionEntry{ID: id, OpenedAt: now})
	if over := len(l.Sessions) - maxSessionEntries; over > 0 {
		l.Sessions = slices.Delete(l.Sessions, 0, over)
	}
	l.record(now, Entry{Kind: EntrySessionOpened, Session: id})
}

func (l *Ledger) closeSession(id, how string, now time.Time) {
	l.SessionsClosed++
	for i := range l.Sessions {
		if l.Sessions[i].ID == id {
			l.Sessions[i].ClosedAt, l.Sessions[i].End = &now, how
		}
	}
	l.record(now, Entry{Kind: EntrySessionClosed, Session: id, Detail: how})
}

func (l *Ledger) countCommand(id string) {
	l.Commands++
	for i := len(l.Sessions) - 1; i >= 0; i-- {
		if l.Sessions[i].ID == id {
			l.Sessions[i].Commands++
			return
		}
	}
}

// isHelper says whether a package is one of those that Appium puts on a phone for itself.
func isHelper(pkg string) bool { return strings.HasPrefix(pkg, "io.appium.") }
