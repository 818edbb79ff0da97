package agent

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/device"
	"qgjob/internal/phonesim"
)

// phones is a driver whose devices exist in memory only: what these tests are about is the worker's protocol.
type phones struct {
	mu    sync.Mutex
	byID  map[string]*phone
	blind error // what List says

	appiumLog string // of all devices
	appium    string // URL of all devices' Appium; "" for one that does not answer
	healed    []int  // rungs, of all devices
}

type phone struct {
	info     device.Info
	owner    *session // who has it open
	sick     *device.Failure
	app      qgjob.App
	byHand   bool // another app is installed than the worker believes
	installs int
	prepare  func(ctx context.Context) error
}

func newPhones(serials ...string) *phones {
	d := &phones{byID: map[string]*phone{}}
	for _, serial := range serials {
		d.plug(serial)
	}
	return d
}

func (d *phones) plug(serial string) *phone {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := &phone{info: device.Info{
		ID: serial, Serial: serial, Kind: qgjob.TargetDevice, Platform: "android", Model: "Test", OSVersion: "14", State: qgjob.DeviceIdle,
	}}
	d.byID[serial] = p
	return p
}

func (d *phones) unplug(serial string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.byID, serial)
}

// sicken makes the device fail every call; nil makes it well again.
func (d *phones) sicken(serial string, f *device.Failure) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.byID[serial].sick = f
}

// replace installs something else by hand, of which the worker does not know.
func (d *phones) replace(serial string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.byID[serial].byHand = true
}

func (d *phones) isOpen(p *phone) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return p.owner != nil
}

func (d *phones) opened() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var open []string
	for id, p := range d.byID {
		if p.owner != nil {
			open = append(open, id)
		}
	}
	slices.Sort(open)
	return open
}

func (d *phones) List(context.Context) ([]device.Info, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var infos []device.Info
	for _, p := range d.byID {
		infos = append(infos, p.info)
	}
	slices.SortFunc(infos, func(x, y device.Info) int { return strings.Compare(x.Serial, y.Serial) })
	return infos, d.blind
}

func (d *phones) Open(_ context.Context, serial string) (device.Session, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.byID[serial]
	switch {
	case p == nil:
		return nil, device.Failf(qgjob.CauseDeviceOffline, "device %s is not there", serial)
	case p.owner != nil:
		return nil, device.Failf(qgjob.CauseDeviceOffline, "%w: device %s belongs to one worker of this host at a time", device.ErrInUse, serial)
	}
	p.owner = &session{driver: d, phone: p}
	return p.owner, nil
}

type session struct {
	driver   *phones
	phone    *phone
	released int
}

func (s *session) fails() error {
	s.driver.mu.Lock()
	defer s.driver.mu.Unlock()
	if s.driver.byID[s.phone.info.Serial] != s.phone {
		return device.Failf(qgjob.CauseDeviceOffline, "device %s is not connected", s.phone.info.Serial)
	}
	if s.phone.sick != nil {
		return s.phone.sick
	}
	return nil
}

func (s *session) Prepare(ctx context.Context, b device.Build) (device.Preparation, error) {
	if err := s.fails(); err != nil {
		return device.Preparation{}, err
	}
	if s.phone.prepare != nil {
		if err := s.phone.prepare(ctx); err != nil {
			return device.Preparation{}, err
		}
	}
	s.driver.mu.Lock()
	defer s.driver.mu.Unlock()
	if s.phone.app == b.Key && !s.phone.byHand {
		return device.Preparation{Reset: time.Millisecond}, nil
	}
	s.phone.app, s.phone.byHand = b.Key, false
	s.phone.installs++
	return device.Preparation{Installed: true, Install: time.Millisecond}, nil
}

func (s *session) Endpoint(context.Context) (device.Endpoint, error) {
	return device.Endpoint{URL: cmp.Or(s.driver.appium, "http://127.0.0.1:1"), LogPath: s.driver.appiumLog}, s.fails()
}

func (s *session) Heal(_ context.Context, rung int) (string, error) {
	s.driver.mu.Lock()
	defer s.driver.mu.Unlock()
	s.driver.healed = append(s.driver.healed, rung)
	return "did it", nil
}

func (s *session) MarkLog(context.Context) (string, error) { return "12:00", s.fails() }

func (s *session) LogSince(_ context.Context, mark string, w io.Writer) error {
	_, err := io.WriteString(w, "since "+mark)
	return errors.Join(err, s.fails())
}

func (s *session) Screen(_ context.Context, w io.Writer) error {
	_, err := io.WriteString(w, "a picture")
	return errors.Join(err, s.fails())
}

func (s *session) Check(context.Context) error { return s.fails() }

func (s *session) Release(context.Context) error {
	s.driver.mu.Lock()
	defer s.driver.mu.Unlock()
	s.released++
	return nil
}

func (s *session) ReleaseKeeping(ctx context.Context, _ string) error { return s.Release(ctx) }

func (s *session) Close() error {
	s.driver.mu.Lock()
	defer s.driver.mu.Unlock()
	if s.phone.owner == s {
		s.phone.owner = nil
	}
	return nil
}

func (s *session) Installed() (qgjob.App, bool) {
	s.driver.mu.Lock()
	defer s.driver.mu.Unlock()
	return s.phone.app, s.phone.app != qgjob.App{}
}

// specs is a runner whose specs are functions, by test path.
type specs map[string]func(ctx context.Context, log io.Writer) (Verdict, error)

func (specs) Plan(_ context.Context, t Task, _ io.Writer) (Plan, error) {
	return Plan{Project: "phone", BuildPath: filepath.Join(t.Dir, "app.apk")}, nil
}

func (specs) Ready(Task, Plan) {}

func (specs) Rest(string) {}

func (s specs) Run(ctx context.Context, t Task, _ Plan, _ Setup, log io.Writer) (Verdict, error) {
	run := s[t.Spec]
	if run == nil {
		return Verdict{}, device.Failf(qgjob.CauseNoTestsMatched, "there is no spec %s", t.Spec)
	}
	return run(ctx, log)
}

func passes(context.Context, io.Writer) (Verdict, error) {
	return Verdict{Result: qgjob.Result{
		Outcome: qgjob.OutcomePassed,
		Report:  qgjob.Report{Tests: []qgjob.TestResult{{Title: "works", Status: qgjob.TestPassed, DurationMS: 5}}},
	}}, nil
}

func fails(context.Context, io.Writer) (Verdict, error) {
	return Verdict{Result: qgjob.Result{
		Outcome: qgjob.OutcomeFailed, Cause: qgjob.CauseTestFailed, Message: "Element was not found on the screen",
		Report: qgjob.Report{Tests: []qgjob.TestResult{{Title: "works", Status: qgjob.TestFailed, DurationMS: 5}}},
	}}, nil
}

// runsUntil is a spec that announces its start and runs until it is let go, then passes, or until it is stopped.
func runsUntil(started chan<- string, name string, letGo <-chan struct{}) func(context.Context, io.Writer) (Verdict, error) {
	return func(ctx context.Context, log io.Writer) (Verdict, error) {
		started <- name
		select {
		case <-letGo:
			return passes(ctx, log)
		case <-ctx.Done():
			started <- name + " stopped"
			return Verdict{}, ctx.Err()
		}
	}
}

// projectDir makes a test project that packs and a build that parses.
func projectDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	apk, err := phonesim.BuildAPK(phonesim.App{Package: "com.example.shop"})
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"app.apk": apk, "package.json": []byte("{}"), "appwright.config.ts": []byte("export default {}")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// output is what a worker printed. Tests wait for a line of it.
type output struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	more chan struct{}
}

func newOutput() *output { return &output{more: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.more)
	o.more = make(chan struct{})
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// wait returns when the text was printed n times.
func (o *output) wait(t *testing.T, text string, n int) {
	t.Helper()
	limit := time.After(patience)
	for {
		o.mu.Lock()
		seen, more := strings.Count(o.buf.String(), text), o.more
		o.mu.Unlock()
		if seen >= n {
			return
		}
		select {
		case <-more:
		case <-limit:
			t.Fatalf("the worker did not print %q %d times; it printed:\n%s", text, n, o)
		}
	}
}

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

func receive[T any](t *testing.T, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(patience):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}
