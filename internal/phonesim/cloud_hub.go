package phonesim

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"
)

// cloudSession is a session with the phone that it runs on.
type cloudSession struct {
	CloudSession
	app       *cloudApp
	os        string // android or ios
	osVersion string
	token     string        // of its public pages
	marked    string        // passed or failed, as the client said
	granted   chan struct{} // closed when it gets a parallel

	booted

	idle      time.Duration
	idleTimer *time.Timer
	limit     *time.Timer
}

// booted is a phone in a session, with the app in front.
type booted struct {
	phone   *Phone
	dir     string       // of an iPhone's files
	handler http.Handler // of the phone's UiAutomator2 server, or WebDriverAgent
	inner   string       // that server's id of the session
}

// switchOff ends the phone, if there is one.
func (b booted) switchOff() {
	if b.phone == nil {
		return
	}
	b.phone.Close()
	if b.dir != "" {
		os.RemoveAll(b.dir)
	}
}

// cloudDevices are the phones that the account can have, as the REST interface lists them.
var cloudDevices = []cloudDevice{
	{osAndroid, "14.0", "Google Pixel 8", true},
	{osAndroid, "13.0", "Google Pixel 7", true},
	{osAndroid, "13.0", "Samsung Galaxy S23", true},
	{osAndroid, "12.0", "Samsung Galaxy S22", true},
	{osAndroid, "11.0", "OnePlus 9", true},
	{osAndroid, "9.0", "Samsung Galaxy S10", true},
	{osIOS, "18", "iPhone 16", true},
	{osIOS, "17", "iPhone 15 Pro", true},
	{osIOS, "17", "iPhone 15", true},
	{osIOS, "16", "iPhone 14", true},
	{osIOS, "15", "iPhone 13", true},
}

// The systems of its phones.
const (
	osAndroid = "android"
	osIOS     = "ios"
)

type cloudDevice struct {
	OS         string `json:"os"`
	OSVersion  string `json:"os_version"`
	Device     string `json:"device"`
	RealMobile bool   `json:"realMobile"`
}

// findDevice finds the phone that a session asks for; a version may be given without its minor number. Of platforms it may name
// several, all the same.
func findDevice(name, version string, platforms ...string) (d cloudDevice, ok bool) {
	for _, d := range cloudDevices {
		other := slices.ContainsFunc(platforms, func(p string) bool { return p != "" && !strings.EqualFold(p, d.OS) })
		if d.Device == name && !other && (version == "" || version == d.OSVersion || version+".0" == d.OSVersion) {
			return d, true
		}
	}
	return cloudDevice{}, false
}

// automation is what drives the apps of a session's phone, as Appium calls it.
func (s *cloudSession) automation() string {
	if s.os == osIOS {
		return "XCUITest"
	}
	return "UiAutomator2"
}

func buildID(name string) string {
	sum := sha256.Sum256([]byte("build " + name))
	return hex.EncodeToString(sum[:20])
}

// session returns the session of an id that was made. It is called with the lock held.
func (c *Cloud) session(id string) *cloudSession {
	for _, s := range c.sessions {
		if s.ID == id && s.MadeAt != nil {
			return s
		}
	}
	return nil
}

// countRunning is called with the lock held.
func (c *Cloud) countRunning() int {
	n := 0
	for _, s := range c.sessions {
		if s.Status == "running" {
			n++
		}
	}
	return n
}

func hubAnswer(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"value": value}) // the client may be gone
}

func hubError(w http.ResponseWriter, err error) {
	status, value := errorAnswer(err)
	hubAnswer(w, status, value)
}

func (c *Cloud) serveHub(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/wd/hub")
	if path == "/session" && r.Method == http.MethodPost {
		s, refusal := c.makeSession(r)
		if refusal != nil {
			c.mu.Lock()
			c.ledger.SessionsRefused++
			c.mu.Unlock()
			c.log.Info("session refused", "reason", refusal)
			hubError(w, refusal)
			return
		}
		hubAnswer(w, http.StatusOK, map[string]any{"sessionId": s.ID, "capabilities": s.capabilities()})
		return
	}
	rest, ok := strings.CutPrefix(path, "/session/")
	if !ok {
		hubError(w, &driverError{http.StatusNotFound, "unknown command", "The hub has no " + r.Method + " " + r.URL.Path})
		return
	}
	id, command, _ := strings.Cut(rest, "/")
	c.mu.Lock()
	s := c.session(id)
	if s == nil || s.EndedAt != nil {
		c.mu.Unlock()
		hubError(w, &driverError{http.StatusNotFound, "invalid session id", "Session not started or terminated"})
		return
	}
	s.Commands++
	s.idleTimer.Reset(s.idle)
	c.mu.Unlock()
	if r.Method == http.MethodDelete && command == "" {
		c.end(s, "done", "CLIENT_STOPPED_SESSION")
		hubAnswer(w, http.StatusOK, nil)
		return
	}
	s.serve(w, r, command)
}

// capabilities are what a session asks for.
type capabilities struct {
	Capabilities struct {
		AlwaysMatch map[string]json.RawMessage   `json:"alwaysMatch"`
		FirstMatch  []map[string]json.RawMessage `json:"firstMatch"`
	} `json:"capabilities"`
}

func (c capabilities) get(name string, v any) {
	raw, ok := c.Capabilities.AlwaysMatch[name]
	if !ok && len(c.Capabilities.FirstMatch) > 0 {
		raw = c.Capabilities.FirstMatch[0][name]
	}
	_ = json.Unmarshal(raw, v) // what is not there or of another kind is as if it was not given
}

// notMade is the answer to a request for a session that is refused.
func notMade(status int, format string, args ...any) *driverError {
	return &driverError{status, "session not created", fmt.Sprintf(format, args...)}
}

// makeSession checks what is asked for, waits for a parallel, and starts the app on a new phone. The client
// may be gone by then: the session is made all the same, as BrowserStack does.
func (c *Cloud) makeSession(r *http.Request) (*cloudSession, *driverError) {
	if !c.authorized(r) {
		return nil, notMade(http.StatusUnauthorized, "[BROWSERSTACK_INVALID_USERNAME_OR_ACCESS_KEY] Invalid username or access key")
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	var asked capabilities
	if err == nil {
		err = json.Unmarshal(body, &asked)
	}
	if err != nil {
		return nil, &driverError{http.StatusBadRequest, "invalid argument", "the capabilities cannot be read: " + err.Error()}
	}
	var app string
	asked.get("appium:app", &app)
	options := struct {
		DeviceName   string `json:"deviceName"`
		OSVersion    string `json:"osVersion"`
		PlatformName string `json:"platformName"`
		BuildName    string `json:"buildName"`
		ProjectName  string `json:"projectName"`
		SessionName  string `json:"sessionName"`
		IdleTimeout  int    `json:"idleTimeout"`
	}{BuildName: "Untitled Build", ProjectName: "Untitled Project"}
	asked.get("bstack:options", &options)
	s := &cloudSession{app: c.findApp(app), token: hashedID(), idle: defaultIdle, granted: make(chan struct{})}
	if s.app == nil {
		return nil, notMade(http.StatusUnprocessableEntity, "[BROWSERSTACK_INVALID_APP_URL] The app_url specified in the 'app' capability in your Appium test script is invalid: %q", app)
	}
	var platform string
	asked.get("platformName", &platform)
	device, ok := findDevice(options.DeviceName, options.OSVersion, options.PlatformName, platform)
	if !ok {
		return nil, notMade(http.StatusUnprocessableEntity, "[BROWSERSTACK_INVALID_DEVICE] Could not find device %q with OS version %q and platform %q", options.DeviceName, options.OSVersion, cmp.Or(options.PlatformName, platform))
	}
	s.os, s.osVersion = device.OS, device.OSVersion
	if refusal := s.mismatch(asked); refusal != nil {
		return nil, refusal
	}
	if options.IdleTimeout > 0 {
		s.idle = min(time.Duration(options.IdleTimeout)*time.Second, longestIdle)
	}
	s.CloudSession = CloudSession{
		ID: hashedID(), Name: options.SessionName, Build: options.BuildName, Project: options.ProjectName, Device: device.Device, SHA256: s.app.sha256, Status: "queued",
	}
	if refusal := c.enter(s); refusal != nil {
		return nil, refusal
	}
	return s, c.boot(s)
}

// mismatch refuses a session whose app, or the automation that it asks for, is not for its phone. What the real BrowserStack says then is not known.
func (s *cloudSession) mismatch(asked capabilities) *driverError {
	if s.app.os != s.os {
		return notMade(http.StatusUnprocessableEntity, "[BROWSERSTACK_INVALID_APP_CAP] The app %q is for %s, and the device runs %s", s.app.name, s.app.os, s.os)
	}
	var automation string
	asked.get("appium:automationName", &automation)
	if automation != "" && !strings.EqualFold(automation, s.automation()) {
		return notMade(http.StatusUnprocessableEntity, "[BROWSERSTACK_INVALID_AUTOMATION_NAME] The automationName %q does not drive devices with %s", automation, s.os)
	}
	return nil
}

// capabilities are those that a session's client is told.
func (s *cloudSession) capabilities() map[string]any {
	told := map[string]any{"platformName": s.os, "appium:automationName": s.automation(), "deviceName": s.Device, "platformVersion": s.osVersion}
	if s.os == osIOS {
		told["bundleID"] = s.app.info.pkg
	} else {
		told["appium:appPackage"] = s.app.info.pkg
	}
	return told
}

// enter waits for a parallel.
func (c *Cloud) enter(s *cloudSession) *driverError {
	c.mu.Lock()
	if c.countRunning() >= c.options.Parallels && len(c.waiting) >= c.options.Queue {
		c.ledger.QueueFull++
		c.mu.Unlock()
		return notMade(http.StatusInternalServerError, "[BROWSERSTACK_QUEUE_SIZE_EXCEEDED] All parallel tests are currently in use, including the queued tests. Please wait to finish or upgrade your plan to add more sessions.")
	}
	c.sessions = append(c.sessions, s)
	c.waiting = append(c.waiting, s)
	c.grant()
	if s.Status == "queued" {
		c.ledger.Queued++
	}
	c.mu.Unlock()
	timer := time.NewTimer(c.options.QueueTime)
	defer timer.Stop()
	select {
	case <-s.granted:
		return nil
	case <-timer.C:
	case <-c.ctx.Done():
	}
	c.end(s, "timeout", "BROWSERSTACK_QUEUE_TIMEOUT")
	return notMade(http.StatusInternalServerError, "[BROWSERSTACK_QUEUE_TIMEOUT] The session was in the queue for longer than %s", c.options.QueueTime)
}

// grant gives free parallels to those that wait. It is called with the lock held.
func (c *Cloud) grant() {
	for len(c.waiting) > 0 && c.countRunning() < c.options.Parallels {
		s := c.waiting[0]
		c.waiting = c.waiting[1:]
		s.Status = "running"
		close(s.granted)
		c.ledger.MostRunning = max(c.ledger.MostRunning, c.countRunning())
	}
}

// boot gives a session its phone, with the app installed and in front.
func (c *Cloud) boot(s *cloudSession) *driverError {
	fail := func(err error) *driverError {
		c.end(s, "failed", err.Error())
		return notMade(http.StatusInternalServerError, "%v", err)
	}
	if err := pass(c.ctx, c.options.SessionTime); err != nil {
		return fail(err)
	}
	boot := c.bootAndroid
	if s.os == osIOS {
		boot = c.bootIPhone
	}
	b, err := boot(s)
	if err != nil {
		return fail(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	s.booted, s.MadeAt = b, &now
	s.idleTimer = time.AfterFunc(s.idle, func() { c.end(s, "timeout", "BROWSERSTACK_IDLE_TIMEOUT") })
	s.limit = time.AfterFunc(sessionLimit, func() { c.end(s, "timeout", "BROWSERSTACK_SESSION_LIMIT") })
	c.ledger.SessionsMade++
	c.log.Info("session made", "session", s.ID, "device", s.Device, "build", s.Build)
	return nil
}

func (c *Cloud) bootAndroid(s *cloudSession) (booted, error) {
	major, _, _ := strings.Cut(s.osVersion, ".")
	phone, err := Start(Options{Serial: s.ID[:12], Model: s.Device, OSVersion: major, Logger: c.log})
	if err != nil {
		return booted{}, err
	}
	if _, err := phone.install(s.app.content, installFlags{test: true}); err != nil {
		return booted{}, errors.Join(err, phone.Close())
	}
	handler, inner := phone.automate(s.app.info)
	return booted{phone: phone, handler: handler, inner: inner}, nil
}

// EndSessions ends every session that runs, as a failure of the cloud would.
func (c *Cloud) EndSessions() {
	c.mu.Lock()
	open := slices.Clone(c.sessions)
	c.mu.Unlock()
	for _, s := range open {
		c.end(s, "failed", "the device was lost")
	}
}

// end ends a session that has not ended, and lets the next one begin.
func (c *Cloud) end(s *cloudSession, status, reason string) {
	c.mu.Lock()
	if s.EndedAt != nil {
		c.mu.Unlock()
		return
	}
	now := c.now()
	s.EndedAt, s.Status = &now, status
	if s.Reason == "" {
		s.Reason = reason
	}
	if s.marked != "" && status == "done" {
		s.Status = s.marked
	}
	if reason == "BROWSERSTACK_IDLE_TIMEOUT" {
		c.ledger.IdleTimeouts++
	}
	c.waiting = slices.DeleteFunc(c.waiting, func(w *cloudSession) bool { return w == s })
	c.grant()
	phone := s.booted
	if s.idleTimer != nil {
		s.idleTimer.Stop()
		s.limit.Stop()
	}
	c.mu.Unlock()
	c.log.Info("session ended", "session", s.ID, "status", status, "reason", reason)
	phone.switchOff()
}

// serve does one command of a session.
func (s *cloudSession) serve(w http.ResponseWriter, r *http.Request, command string) {
	if r.Method == http.MethodPost && command == "execute/sync" {
		s.execute(w, r)
		return
	}
	if r.Method == http.MethodDelete && command == "actions" {
		hubAnswer(w, http.StatusOK, nil)
		return
	}
	if s.os == osIOS {
		s.serveIPhone(w, r, command)
		return
	}
	s.forward(w, r, r.Method, command, r.Body)
}

// forward hands a command to the phone.
func (s *cloudSession) forward(w http.ResponseWriter, r *http.Request, method, command string, body io.Reader) {
	inner, err := http.NewRequestWithContext(r.Context(), method, "http://phone/session/"+s.inner+strings.TrimSuffix("/"+command, "/"), body)
	if err != nil {
		hubError(w, invalidArgument(err.Error()))
		return
	}
	s.handler.ServeHTTP(w, inner)
}

// execute runs a script: what BrowserStack itself answers, and the gestures of Appium's that AppWright uses.
func (s *cloudSession) execute(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Script string            `json:"script"`
		Args   []json.RawMessage `json:"args"`
	}
	if err := readJSON(w, r, &asked); err != nil {
		hubError(w, invalidArgument(err.Error()))
		return
	}
	switch {
	case strings.HasPrefix(asked.Script, "browserstack_executor:"):
		hubAnswer(w, http.StatusOK, nil)
	case s.os == osIOS:
		s.executeOnIPhone(w, r, asked.Script, asked.Args)
	case asked.Script == "mobile: clickGesture" && len(asked.Args) == 1:
		var at point
		if err := json.Unmarshal(asked.Args[0], &at); err != nil {
			hubError(w, invalidArgument(err.Error()))
			return
		}
		offset, _ := json.Marshal(map[string]any{"offset": at}) // two numbers
		s.forward(w, r, http.MethodPost, "appium/gestures/click", bytes.NewReader(offset))
	default:
		unknownScript(w, asked.Script)
	}
}

func unknownScript(w http.ResponseWriter, script string) {
	hubError(w, &driverError{http.StatusNotFound, "unknown method", "The simulated BrowserStack does not know " + script})
}

// automate launches an app and opens a session of the UiAutomator2 server without adb between, and returns that
// server's interface and the session's id.
func (p *Phone) automate(app apkInfo) (http.Handler, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	i := &instrumentation{pkg: uiautomatorTest, target: "io.appium.uiautomator2.server", connections: newPipeListener(), done: make(chan struct{}), session: hashedID()}
	i.server = &http.Server{ReadHeaderTimeout: time.Minute}
	p.instrumentation = i
	p.ledger.openSession(i.session, now)
	p.bringUp(p.packages[app.pkg], app.activity, now)
	return p.uiautomatorHandler(i), i.session
}

// pass lets time go by, unless the context ends before.
func pass(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
