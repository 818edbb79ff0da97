package appwright

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

const askForSession = `{"capabilities":{"alwaysMatch":{"platformName":"android","appium:fullReset":true}}}`

// session asks the proxy for a session and returns its id.
func askSession(t *testing.T, p *proxy) string {
	t.Helper()
	status, _, answer := send(t, t.Context(), p, "POST", "/session", askForSession)
	if status != 200 {
		t.Fatalf("no session: %d %s", status, answer)
	}
	return sessionID([]byte(answer))
}

// TestSessionIsHandedOn: the next test gets the open session under another name, with the app started anew, and
// what the test before left behind does not reach it.
func TestSessionIsHandedOn(t *testing.T) {
	t.Parallel()
	f := startAppium(t)
	r := Run{Upstream: Upstream{URL: f.URL, Capabilities: map[string]any{"appium:noReset": true}}, App: testApp, HandOn: true}
	p, err := r.startProxy(t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	first := askSession(t, p)
	send(t, t.Context(), p, "POST", "/session/"+first+"/element/Login/click", "{}")
	if status, _, _ := send(t, t.Context(), p, "DELETE", "/session/"+first, ""); status != 200 || f.left() != 1 {
		t.Fatalf("the end of the first test: %d, %d sessions open", status, f.left())
	}
	second := askSession(t, p)
	if second == first || f.made != 1 || !slices.Equal(f.scripts, []string{"mobile: clearApp", "mobile: changePermissions", "mobile: startActivity"}) {
		t.Errorf("second session %s after %s, %d made, scripts %q", second, first, f.made, f.scripts)
	}
	if _, _, answer := send(t, t.Context(), p, "POST", "/session/"+second+"/elements", `{"value":"Login"}`); !strings.Contains(answer, "Login") {
		t.Errorf("the second test does not see the app as new: %s", answer)
	}
	if status, code, answer := send(t, t.Context(), p, "POST", "/session/"+first+"/elements", `{"value":"Login"}`); status != 404 || code != codeInvalidSession {
		t.Errorf("a command of the first test: %d %s", status, answer)
	}
	send(t, t.Context(), p, "DELETE", "/session/"+second, "")
	evidence := p.close()
	parked := p.unpark()
	if parked == nil || len(evidence.Sessions) != 2 || !evidence.Sessions[1].HandedOn || evidence.Sessions[0].EndedAt.IsZero() || f.left() != 1 {
		t.Fatalf("parked %+v, evidence %+v, %d left", parked, evidence, f.left())
	}

	// The next run on the device: the worker has cleared the app's data.
	f.scripts, r.Parked = nil, parked
	if p, err = r.startProxy(t.Logf); err != nil {
		t.Fatal(err)
	}
	third := askSession(t, p)
	if f.made != 1 || !slices.Equal(f.scripts, []string{"mobile: startActivity"}) {
		t.Errorf("third session %s, %d made, scripts %q", third, f.made, f.scripts)
	}
	p.close()
	if f.left() != 0 {
		t.Errorf("%d sessions are left by a run that did not end its session", f.left())
	}
}

// TestSessionIsNotHandedOn: a session in which something was set that outlasts the app, one that is asked for
// otherwise, one of another app, and one that does not obey.
func TestSessionIsNotHandedOn(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		command, body string
		asked         string
		app           string
		disobeys      bool
		off           bool
	}{
		"settings":           {command: "appium/settings", body: `{"settings":{}}`},
		"time-outs":          {command: "timeouts", body: `{"implicit":1}`},
		"unknown script":     {command: "execute/sync", body: `{"script":"mobile: setGeolocation","args":[]}`},
		"other capabilities": {asked: strings.Replace(askForSession, "fullReset", "locale", 1)},
		"another app":        {app: "com.example.other"},
		"it disobeys":        {disobeys: true},
		"it is not wanted":   {off: true},
	} {
		f := startAppium(t)
		disobeys := false
		f.answer = func(r *http.Request, command string) (int, string, bool) {
			return 500, w3cError(codeUnknown, "no"), disobeys && command == "execute/sync"
		}
		r := Run{Upstream: Upstream{URL: f.URL}, App: testApp, HandOn: !c.off}
		p, err := r.startProxy(t.Logf)
		if err != nil {
			t.Fatal(err)
		}
		first := askSession(t, p)
		if c.command != "" {
			send(t, t.Context(), p, "POST", "/session/"+first+"/"+c.command, c.body)
		}
		send(t, t.Context(), p, "DELETE", "/session/"+first, "")
		p.close()
		r.Parked = p.unpark()
		if c.app != "" {
			r.App.Package = c.app
		}
		disobeys = c.disobeys
		if p, err = r.startProxy(t.Logf); err != nil {
			t.Fatal(err)
		}
		asked := c.asked
		if asked == "" {
			asked = askForSession
		}
		if status, _, answer := send(t, t.Context(), p, "POST", "/session", asked); status != 200 || sessionID([]byte(answer)) != "session-2" {
			t.Errorf("%s: %d %s", name, status, answer)
		}
		if f.made != 2 || f.left() != 1 || f.together != 1 {
			t.Errorf("%s: %d sessions made, %d left, %d at once", name, f.made, f.left(), f.together)
		}
		p.close()
	}
}

// TestRunsFollowEachOther runs two specs by the real AppWright as a device's batch has them: the second runner
// is started while the first one runs, and gets its session.
func TestRunsFollowEachOther(t *testing.T) {
	project := inspected(t, nodeProject(t, "project"))
	f := startAppium(t)
	keep := t.TempDir()
	first := testRun(t, f, project, "phone", "tests/passes.spec.ts")
	first.Start = Start{ScriptDir: keep, TransformDir: keep + "/transforms"}
	first.HandOn = true
	var ahead *Ahead
	first.Session = func() {
		start := first.Start
		start.ProjectDir, start.Env = first.ProjectDir, first.Env
		var err error
		if ahead, err = StartAhead(start); err != nil {
			t.Error(err)
		}
	}
	var log strings.Builder
	result, evidence, err := first.Do(t.Context(), &log)
	if err != nil || result.Outcome != "passed" || evidence.Parked == nil {
		t.Fatalf("%+v, %v\n%s", result, err, &log)
	}
	second := testRun(t, f, project, "phone", "tests/odd (1)/a+b [ü].spec.ts")
	second.App = first.App
	second.Start, second.HandOn, second.Parked, second.Ahead = first.Start, true, evidence.Parked, ahead
	second.Env = append(second.Env, "OF_THE_SECOND=1")
	ready := make(chan struct{})
	second.Ready = ready
	pid := ahead.process.cmd.Process.Pid
	close(ready)
	result, evidence, err = second.Do(t.Context(), &log)
	if err != nil || result.Outcome != "passed" || f.made != 1 || !evidence.Sessions[0].HandedOn {
		t.Errorf("%+v, %v, %d sessions made\n%s", result, err, f.made, &log)
	}
	if left := ahead.process.family.living(); len(left) > 0 || pid == 0 {
		t.Errorf("of the runner, %v are left", left)
	}
}

// TestRunnerThatIsNotUsed leaves nothing, whether it is closed or does not fit.
func TestRunnerThatIsNotUsed(t *testing.T) {
	t.Parallel()
	project := inspected(t, nodeProject(t, "project"))
	start := Start{ProjectDir: project.Dir, ScriptDir: t.TempDir()}
	a, err := StartAhead(start)
	if err != nil {
		t.Fatal(err)
	}
	if !a.Fits(start) {
		t.Error("it does not fit what it was started for")
	}
	for _, other := range []Start{
		{ProjectDir: project.Dir, TransformDir: "/elsewhere"},
		{ProjectDir: project.Dir, Env: []string{"NODE_EXTRA_CA_CERTS=/x.pem"}},
		{ProjectDir: t.TempDir()},
	} {
		if a.Fits(other) {
			t.Errorf("it fits %+v", other)
		}
	}
	a.Close()
	a.Close()
	if left := a.process.family.living(); len(left) > 0 || a.Fits(start) {
		t.Errorf("%v are left", left)
	}
}
