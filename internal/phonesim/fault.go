package phonesim

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"sync"
	"time"
)

// The kinds of Fault.
const (
	// FaultOffline drops the phone off adb: its connections are cut and new ones refused.
	FaultOffline = "offline"
	// FaultHang lets the phone take connections and answer nothing on any. Afterwards it goes on where it was.
	FaultHang = "hang"
	// FaultRefuseInstall refuses to install apps with Code. Appium's helpers are still installed.
	FaultRefuseInstall = "refuse_install"
	// FaultLowStorage fills the phone: installs of apps fail with INSTALL_FAILED_INSUFFICIENT_STORAGE, and df shows it.
	FaultLowStorage = "low_storage"
	// FaultSessionDies ends the UiAutomator2 server's process.
	FaultSessionDies = "session_dies"
	// FaultAppCrash ends the process of the app in front; the phone stays well.
	FaultAppCrash = "app_crash"
	// FaultSlow delays each answer of the UiAutomator2 server by DelayMS.
	FaultSlow = "slow"
	// FaultInstallHangs takes an app and never says what became of it.
	FaultInstallHangs = "install_hangs"
	// FaultNoRecorder lets screenrecord fail at once, as on phones without an encoder to spare.
	FaultNoRecorder = "no_recorder"
)

// Fault is a misbehaviour of the phone. It strikes at once, or instead of the answer to the command of a UiAutomator2 session that follows
// AfterCommands answered ones. session_dies and app_crash wait for a command when there is nothing to end yet.
type Fault struct {
	Kind string `json:"kind"`
	// Code is the code of refuse_install: INSTALL_FAILED_* of a phone, a word like ApplicationVerificationFailed of an iPhone. Default INSTALL_FAILED_INTERNAL_ERROR.
	Code string `json:"code,omitempty"`
	// DurationMS ends offline and hang by itself; 0: they last until cleared.
	DurationMS int `json:"duration_ms,omitempty"`
	// DelayMS is how much slow delays each answer.
	DelayMS       int `json:"delay_ms,omitempty"`
	AfterCommands int `json:"after_commands,omitempty"`
	// Count is how often the fault strikes: installs refused, answers delayed (0: without end), sessions or apps ended, times offline or hanging, each
	// AfterCommands commands after the one before (0: once).
	Count int `json:"count,omitempty"`
}

// ArmedFault is a fault and how far it is.
type ArmedFault struct {
	Fault
	// Active says that the fault is there now; one that is not waits for its moment.
	Active bool `json:"active"`
	// Strikes is how often it has struck.
	Strikes int `json:"strikes"`

	toGo int // commands to be answered before it strikes
}

// installCodePattern matches Android's codes and iOS's, as INSTALL_FAILED_INVALID_APK and ApplicationVerificationFailed.
var installCodePattern = regexp.MustCompile(`^(INSTALL_(PARSE_)?FAILED_[A-Z0-9_]+|[A-Z][A-Za-z]+)$`)

func (f *Fault) validate() error {
	if f.DurationMS < 0 || f.DelayMS < 0 || f.AfterCommands < 0 || f.Count < 0 {
		return errors.New("fault: duration_ms, delay_ms, after_commands and count cannot be negative")
	}
	switch f.Kind {
	case FaultOffline, FaultHang, FaultLowStorage, FaultSessionDies, FaultAppCrash, FaultInstallHangs, FaultNoRecorder:
	case FaultRefuseInstall:
		if f.Code == "" {
			f.Code = "INSTALL_FAILED_INTERNAL_ERROR"
		}
		if !installCodePattern.MatchString(f.Code) {
			return fmt.Errorf("fault: code %q is not of the form INSTALL_FAILED_SOMETHING, or of an iPhone's, as ApplicationVerificationFailed", f.Code)
		}
	case FaultSlow:
		if f.DelayMS == 0 {
			return errors.New("fault: slow needs delay_ms")
		}
	default:
		return fmt.Errorf("fault: unknown kind %q; there are %s, %s, %s, %s, %s, %s, %s, %s and %s", f.Kind, FaultOffline, FaultHang,
			FaultRefuseInstall, FaultLowStorage, FaultSessionDies, FaultAppCrash, FaultSlow, FaultInstallHangs, FaultNoRecorder)
	}
	switch {
	case f.Code != "" && f.Kind != FaultRefuseInstall:
		return errors.New("fault: code is for refuse_install")
	case f.DelayMS != 0 && f.Kind != FaultSlow:
		return errors.New("fault: delay_ms is for slow")
	case f.DurationMS != 0 && f.Kind != FaultOffline && f.Kind != FaultHang:
		return errors.New("fault: duration_ms is for offline and hang")
	}
	return nil
}

// lasting faults are there from their moment on and are used up by what they spoil; the others happen at a moment.
func (f *Fault) lasting() bool {
	return f.Kind == FaultRefuseInstall || f.Kind == FaultLowStorage || f.Kind == FaultSlow || f.Kind == FaultInstallHangs || f.Kind == FaultNoRecorder
}

// faults are the misbehaviours set on a phone, one of each kind at most.
type faults struct {
	mu      sync.Mutex
	armed   map[string]*ArmedFault
	offline window
	hang    window
	changed chan struct{} // closed and replaced when hang changes
}

// window is a stretch of time that may end by itself.
type window struct {
	open  bool
	until time.Time // zero: until it is closed
}

func (w *window) is(now time.Time) bool {
	if w.open && !w.until.IsZero() && !now.Before(w.until) {
		w.open = false
	}
	return w.open
}

func newFaults() *faults {
	return &faults{armed: map[string]*ArmedFault{}, changed: make(chan struct{})}
}

// SetFault arms a fault. It replaces one of the same kind.
func (p *Phone) SetFault(f Fault) error {
	if err := f.validate(); err != nil {
		return err
	}
	p.log.Info("fault set", "kind", f.Kind, "after_commands", f.AfterCommands, "count", f.Count)
	p.ClearFault(f.Kind)
	a := &ArmedFault{Fault: f, toGo: f.AfterCommands}
	p.faults.mu.Lock()
	a.Active = f.lasting() && a.toGo == 0
	p.faults.armed[f.Kind] = a
	p.faults.mu.Unlock()
	if f.AfterCommands == 0 && !f.lasting() {
		p.strike(f.Kind)
	}
	return nil
}

// ClearFault ends the fault of a kind, if there is one.
func (p *Phone) ClearFault(kind string) {
	f := p.faults
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.armed, kind)
	switch kind {
	case FaultOffline:
		f.offline = window{}
	case FaultHang:
		f.setHang(window{})
	}
}

// ClearFaults ends every fault.
func (p *Phone) ClearFaults() {
	for _, f := range p.Faults() {
		p.ClearFault(f.Kind)
	}
}

// Faults returns the faults that are set, by kind.
func (p *Phone) Faults() []ArmedFault {
	f, now := p.faults, time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	list := make([]ArmedFault, 0, len(f.armed))
	for _, kind := range sortedKeys(f.armed) {
		a := *f.armed[kind]
		switch kind {
		case FaultOffline:
			a.Active = f.offline.is(now)
		case FaultHang:
			a.Active = f.hang.is(now)
		}
		list = append(list, a)
	}
	return list
}

// setHang is called with mu held.
func (f *faults) setHang(w window) {
	f.hang = w
	close(f.changed)
	f.changed = make(chan struct{})
}

// waitWhileHung returns once the phone does not hang, false when ctx ended before.
func (f *faults) waitWhileHung(ctx context.Context) bool {
	for {
		f.mu.Lock()
		hung, until, changed := f.hang.is(time.Now()), f.hang.until, f.changed
		f.mu.Unlock()
		if !hung {
			return ctx.Err() == nil
		}
		limit := ctx
		cancel := context.CancelFunc(func() {})
		if !until.IsZero() {
			limit, cancel = context.WithDeadline(ctx, until)
		}
		select {
		case <-changed:
		case <-limit.Done():
		}
		cancel()
		if ctx.Err() != nil {
			return false
		}
	}
}

func (f *faults) isOffline(now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.offline.is(now)
}

// lowStorage says whether the phone is full, without using the fault up.
func (f *faults) lowStorage() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.armed[FaultLowStorage]
	return a != nil && a.Active
}

// use spends one strike of a lasting fault and returns it, nil when it is not there now.
func (f *faults) use(kind string) *ArmedFault {
	f.mu.Lock()
	defer f.mu.Unlock()
	a := f.armed[kind]
	if a == nil || !a.Active {
		return nil
	}
	a.Strikes++
	if a.Count > 0 && a.Strikes >= a.Count {
		delete(f.armed, kind)
	}
	return a
}

// installRefusal returns the refusal that a fault has for the install of an app, nil when none has.
func (f *faults) installRefusal() *installError {
	if a := f.use(FaultRefuseInstall); a != nil {
		return &installError{a.Code, "refused by the simulated phone's fault"}
	}
	if f.use(FaultLowStorage) != nil {
		return &installError{"INSTALL_FAILED_INSUFFICIENT_STORAGE", "Failed to allocate space on the data partition"}
	}
	return nil
}

// beforeCommand lets the faults strike whose moment is the command that has just arrived.
func (p *Phone) beforeCommand() {
	var due []string
	p.faults.mu.Lock()
	for _, kind := range sortedKeys(p.faults.armed) {
		switch a := p.faults.armed[kind]; {
		case a.toGo > 0:
			a.toGo--
		case a.lasting():
			a.Active = true
		case !(a.Active && a.Strikes > 0 && a.Strikes >= max(a.Count, 1)):
			due = append(due, kind)
		}
	}
	p.faults.mu.Unlock()
	for _, kind := range due {
		p.strike(kind)
	}
}

// strike lets a fault happen. One that finds nothing to end stays armed.
func (p *Phone) strike(kind string) {
	switch kind {
	case FaultSessionDies:
		if !p.killInstrumentation("the UiAutomator2 server's process died") {
			return
		}
	case FaultAppCrash:
		if !p.crashForeground() {
			return
		}
	}
	f := p.faults
	f.mu.Lock()
	a := f.armed[kind]
	if a == nil {
		f.mu.Unlock()
		return
	}
	a.Strikes++
	a.toGo = a.AfterCommands
	strikes := a.Strikes
	w := window{open: true}
	if a.DurationMS > 0 {
		w.until = time.Now().Add(time.Duration(a.DurationMS) * time.Millisecond)
	}
	switch kind {
	case FaultOffline:
		f.offline, a.Active = w, true
	case FaultHang:
		f.setHang(w)
		a.Active = true
	default:
		if strikes >= max(a.Count, 1) {
			delete(f.armed, kind)
		}
	}
	f.mu.Unlock()
	p.log.Info("fault struck", "kind", kind, "strikes", strikes)
	if kind == FaultOffline {
		p.cutTransports()
		if p.ios {
			p.killInstrumentation("the iPhone was disconnected")
		}
	}
}
