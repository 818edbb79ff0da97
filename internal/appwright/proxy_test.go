package appwright

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"qgjob"
)

// fakeAppium is an Appium server with one phone, whose app has a button "Login" that leads to "Hello, admin".
type fakeAppium struct {
	*httptest.Server
	create func() (status int, body string) // nil: a session is made
	answer func(r *http.Request, command string) (status int, body string, ok bool)

	mu       sync.Mutex
	made     int
	open     map[string]bool // session: signed in
	together int             // most sessions that were open at once
	bodies   []map[string]any
	scripts  []string // executed
}

func startAppium(t *testing.T) *fakeAppium {
	t.Helper()
	f := &fakeAppium{open: map[string]bool{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func w3cError(code, message string) string {
	body, _ := json.Marshal(map[string]any{"value": map[string]string{"error": code, "message": message, "stacktrace": ""}})
	return string(body)
}

func (f *fakeAppium) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	status, body := f.handle(r)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	io.WriteString(w, body)
}

func (f *fakeAppium) handle(r *http.Request) (status int, body string) {
	asked, _ := io.ReadAll(r.Body)
	if r.URL.Path == "/session" {
		return f.session(asked)
	}
	id, command := splitSession(r.URL.Path)
	if f.answer != nil {
		if status, body, ok := f.answer(r, command); ok {
			return status, body
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	in, known := f.open[id]
	if !known {
		return 404, w3cError(codeInvalidSession, "A session is either terminated or not started")
	}
	switch {
	case command == "" && r.Method == http.MethodDelete:
		delete(f.open, id)
		return 200, `{"value":null}`
	case command == "execute/sync":
		f.scripts = append(f.scripts, scriptName(asked))
		f.open[id] = in && f.scripts[len(f.scripts)-1] != "mobile: startActivity" // the app is new
		return 200, `{"value":null}`
	case command == "elements":
		text := "Login"
		if in {
			text = "Hello, admin"
		}
		if strings.Contains(string(asked), text) {
			return 200, `{"value":[{"element-6066-11e4-a52e-4f735466cecf":"` + strings.Fields(text)[0] + `"}]}`
		}
		return 200, `{"value":[]}`
	case strings.HasSuffix(command, "/click"):
		f.open[id] = true
		return 200, `{"value":null}`
	case strings.HasSuffix(command, "/displayed"):
		return 200, `{"value":true}`
	}
	return 404, w3cError("unknown command", command)
}

func (f *fakeAppium) session(asked []byte) (status int, body string) {
	if f.create != nil {
		if status, body := f.create(); status != 0 {
			return status, body
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var capabilities map[string]any
	json.Unmarshal(asked, &capabilities)
	f.bodies = append(f.bodies, capabilities)
	f.made++
	id := fmt.Sprintf("session-%d", f.made)
	f.open[id] = false
	f.together = max(f.together, len(f.open))
	return 200, `{"value":{"sessionId":"` + id + `","capabilities":{"platformName":"android"}}}`
}

func scriptName(asked []byte) string {
	var script struct {
		Script string `json:"script"`
	}
	json.Unmarshal(asked, &script)
	return script.Script
}

func (f *fakeAppium) left() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.open)
}

var testApp = App{Package: "com.example.demo", Activity: "com.example.demo.Main", Label: "Demo", VersionCode: 7, VersionName: "1.0"}

func testProxy(t *testing.T, f *fakeAppium, capabilities map[string]any, ready <-chan struct{}) *proxy {
	t.Helper()
	p, err := Run{Upstream: Upstream{URL: f.URL, Capabilities: capabilities}, App: testApp, Ready: ready}.startProxy(t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// send speaks to the proxy as webdriver does.
func send(t *testing.T, ctx context.Context, p *proxy, method, path, body string) (status int, code, message string) {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, method, fmt.Sprintf("http://127.0.0.1:%d%s", p.port(), path), strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableKeepAlives: true}
	answer, err := transport.RoundTrip(request)
	if err != nil {
		return 0, "", err.Error()
	}
	defer answer.Body.Close()
	content, _ := io.ReadAll(answer.Body)
	if answer.StatusCode < 400 {
		return answer.StatusCode, "", string(content)
	}
	if !bytes.Contains(content, []byte(`"stacktrace"`)) {
		t.Errorf("%s %s: %s is no error of the WebDriver specification", method, path, content)
	}
	code, message = readError(content)
	return answer.StatusCode, code, message
}

// asked is what AppWright 0.1.1 asks for.
const asked = `{"capabilities":{"alwaysMatch":{"platformName":"android","appium:app":"app.apk","appium:fullReset":true,"appium:platformVersion":"14","appium:autoGrantPermissions":true,"big":9007199254740993},"firstMatch":[{"appium:udid":"other"}]},"desiredCapabilities":{"appium:app":"app.apk"}}`

func TestASessionGetsTheWorkersCapabilities(t *testing.T) {
	f := startAppium(t)
	p := testProxy(t, f, map[string]any{"appium:udid": "serial-1", "appium:systemPort": 8201, "appium:platformVersion": nil, "appium:noReset": true}, nil)
	for range 2 {
		if status, _, message := send(t, t.Context(), p, "POST", "/session", asked); status != 200 {
			t.Fatal(status, message)
		}
	}
	p.close()
	want := func(noReset bool) map[string]any {
		return map[string]any{"capabilities": map[string]any{
			"alwaysMatch": map[string]any{
				"platformName": "android", "appium:autoGrantPermissions": true, "big": 9007199254740993.0,
				"appium:udid": "serial-1", "appium:systemPort": 8201.0,
				"appium:appPackage": "com.example.demo", "appium:appActivity": "com.example.demo.Main",
				"appium:fullReset": false, "appium:forceAppLaunch": true, "appium:noReset": noReset,
			},
			"firstMatch": []any{map[string]any{}},
		}}
	}
	// The second session of a run starts with the app's data cleared, as each one of stock AppWright does.
	if diff := cmp.Diff([]map[string]any{want(true), want(false)}, f.bodies); diff != "" {
		t.Errorf("what Appium was asked for (-want +got):\n%s", diff)
	}
	if f.together != 1 {
		t.Errorf("%d sessions were open on one device at once", f.together)
	}
}

func TestSessionsThatTheTestLeftOpenAreDeleted(t *testing.T) {
	f := startAppium(t)
	p := testProxy(t, f, nil, nil)
	send(t, t.Context(), p, "POST", "/session", asked)
	evidence := p.close()
	if f.left() != 0 {
		t.Errorf("%d sessions are left", f.left())
	}
	if len(evidence.Sessions) != 1 || evidence.Sessions[0].EndedBy == "" || evidence.Sessions[0].ID != "session-1" {
		t.Errorf("the evidence is %+v", evidence.Sessions)
	}
	if status, _, _ := send(t, t.Context(), p, "GET", "/status", ""); status != 0 {
		t.Error("the proxy still answers")
	}
}

func TestAKnownFailureIsAnsweredAtOnce(t *testing.T) {
	for _, c := range []struct {
		message string
		cause   qgjob.Cause
		asks    int
	}{
		{"Original error: Device serial-1 was not in the list of connected devices", qgjob.CauseDeviceOffline, 1},
		{"Error: INSTALL_FAILED_INSUFFICIENT_STORAGE", qgjob.CauseInstallRefused, 1},
		{"Error: INSTALL_PARSE_FAILED_NOT_APK", qgjob.CauseBadBuild, 1},
		{"something that may pass", qgjob.CauseSessionNotCreated, 2},
		{"The instrumentation process cannot be initialized", qgjob.CauseSessionNotCreated, 2},
	} {
		f := startAppium(t)
		asks := 0
		f.create = func() (int, string) {
			asks++
			return 500, w3cError(codeNotCreated, c.message)
		}
		p := testProxy(t, f, nil, nil)
		for i := range 16 {
			status, code, message := send(t, t.Context(), p, "POST", "/session", asked)
			// webdriver repeats what is answered by 500, so that only real answers have it.
			if want := map[bool]int{true: 500, false: 400}[i < c.asks]; status != want || code != codeNotCreated || !strings.Contains(message, c.message) {
				t.Errorf("%s: try %d: %d %s %s", c.message, i, status, code, message)
			}
		}
		evidence := p.close()
		if asks != c.asks || evidence.SessionRequests != 16 || evidence.Errors[0].Cause != c.cause {
			t.Errorf("%s: Appium was asked %d times of %d, cause %s", c.message, asks, evidence.SessionRequests, evidence.Errors[0].Cause)
		}
	}
}

func TestALostSessionIsAnsweredAtOnce(t *testing.T) {
	f := startAppium(t)
	asks := 0
	f.answer = func(_ *http.Request, command string) (int, string, bool) {
		if command != "elements" {
			return 0, "", false
		}
		asks++
		return 500, w3cError(codeUnknown, "'POST /elements' cannot be proxied to UiAutomator2 server because the instrumentation process is not running (probably crashed)"), true
	}
	p := testProxy(t, f, nil, nil)
	send(t, t.Context(), p, "POST", "/session", asked)
	for range 5 {
		send(t, t.Context(), p, "POST", "/session/session-1/elements", `{}`)
	}
	// webdriver stops repeating a command when it reads these words.
	if status, code, message := send(t, t.Context(), p, "GET", "/session/session-1/source", ""); status != 404 || code != codeInvalidSession || !strings.Contains(message, "invalid session id") {
		t.Errorf("%d %s %s", status, code, message)
	}
	if status, _, _ := send(t, t.Context(), p, "DELETE", "/session/session-1", ""); status != 200 {
		t.Errorf("the deletion was answered by %d", status)
	}
	evidence := p.close()
	if asks != 1 || evidence.Errors[0].Cause != qgjob.CauseSessionDied || evidence.Sessions[0].EndedBy != "" {
		t.Errorf("Appium was asked %d times; evidence %+v", asks, evidence)
	}
}

func TestWhatATestDoesItselfIsNoFailureOfTheInfrastructure(t *testing.T) {
	f := startAppium(t)
	f.answer = func(_ *http.Request, command string) (int, string, bool) {
		return 404, w3cError("no such element", "An element could not be located"), command == "element"
	}
	p := testProxy(t, f, nil, nil)
	send(t, t.Context(), p, "POST", "/session", asked)
	send(t, t.Context(), p, "POST", "/session/session-1/element", `{}`)
	send(t, t.Context(), p, "DELETE", "/session/session-1", "")
	send(t, t.Context(), p, "GET", "/session/session-1/source", "") // after the test closed its session
	for _, e := range p.close().Errors {
		if e.Cause != "" {
			t.Errorf("%+v", e)
		}
	}
}

func TestAppiumThatIsGone(t *testing.T) {
	f := startAppium(t)
	p := testProxy(t, f, nil, nil)
	send(t, t.Context(), p, "POST", "/session", asked)
	f.Close()
	if status, code, _ := send(t, t.Context(), p, "GET", "/session/session-1/source", ""); status != 404 || code != codeInvalidSession {
		t.Errorf("a command: %d %s", status, code)
	}
	if status, code, _ := send(t, t.Context(), p, "POST", "/session", asked); status != 400 || code != codeNotCreated {
		t.Errorf("a session: %d %s", status, code)
	}
	for _, e := range p.close().Errors {
		if e.Cause != qgjob.CauseAppiumDied {
			t.Errorf("%+v", e)
		}
	}
}

func TestASessionWhoseClientLeftIsDeleted(t *testing.T) {
	f := startAppium(t)
	asking, goOn := make(chan struct{}), make(chan struct{})
	f.create = func() (int, string) {
		close(asking)
		<-goOn
		f.create = nil
		return 0, ""
	}
	p := testProxy(t, f, nil, nil)
	ctx, leave := context.WithCancel(t.Context())
	left := make(chan struct{})
	go func() {
		defer close(left)
		send(t, ctx, p, "POST", "/session", asked)
	}()
	<-asking
	leave()
	<-left
	close(goOn)
	evidence := p.close()
	if f.made != 1 || f.left() != 0 || evidence.Sessions[0].EndedBy == "" {
		t.Errorf("%d sessions made, %d left, evidence %+v", f.made, f.left(), evidence.Sessions)
	}
}

func TestASessionWaitsForTheDevice(t *testing.T) {
	f := startAppium(t)
	ready := make(chan struct{})
	p := testProxy(t, f, nil, ready)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if status, _, _ := send(t, ctx, p, "POST", "/session", asked); status != 0 || f.made != 0 {
		t.Fatalf("a session was made on a device that is not ready: %d", status)
	}
	close(ready)
	if status, _, _ := send(t, t.Context(), p, "POST", "/session", asked); status != 200 {
		t.Errorf("status %d", status)
	}
	p.close()
}

func TestACommandThatIsNeverAnswered(t *testing.T) {
	f := startAppium(t)
	f.answer = func(r *http.Request, command string) (int, string, bool) {
		if command != "source" {
			return 0, "", false
		}
		<-r.Context().Done()
		return 200, `{"value":null}`, true
	}
	p := testProxy(t, f, nil, nil)
	send(t, t.Context(), p, "POST", "/session", asked)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	send(t, ctx, p, "GET", "/session/session-1/source", "")
	evidence := p.close()
	if len(evidence.Unanswered) != 1 || evidence.Unanswered[0].Command != "source" || evidence.Unanswered[0].GivenUpAt.IsZero() || evidence.Commands != 1 {
		t.Errorf("%+v", evidence)
	}
}

func TestABadSessionRequest(t *testing.T) {
	f := startAppium(t)
	p := testProxy(t, f, nil, nil)
	for _, body := range []string{"", "null", "[]", `"x"`, "{"} {
		if status, code, _ := send(t, t.Context(), p, "POST", "/session", body); status != 400 || code != codeInvalidArgument {
			t.Errorf("%q: %d %s", body, status, code)
		}
	}
	if p.close(); f.made != 0 {
		t.Error("a session was made")
	}
}
