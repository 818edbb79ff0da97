package appwright

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
)

const (
	// parkedUses and parkedAge bound the life of a session that is handed on: what its server on the device
	// gathers goes with it.
	parkedUses = 50
	parkedAge  = 10 * time.Minute
	// relaunchTime bounds what readies a parked session for its next test; a new session takes over after it.
	relaunchTime = 30 * time.Second
)

// Parked is an Appium session that a test has ended and that is still open, for the next test of the same app
// on the same device. Making a session is the dearest part of a short test. A session is parked only while
// nothing was done in it that outlasts the app's restart.
type Parked struct {
	ID string // as Appium knows it

	url    string // of the Appium server
	app    App
	wanted string // what it was asked for, as canonical JSON
	answer []byte // with which it was made
	madeAt time.Time
	uses   int
}

// fits says whether a session that is asked for so may be the parked one.
func (k *Parked) fits(url string, app App, wanted string) bool {
	return k.url == url && k.app == app && k.wanted == wanted
}

// wanted names what a session is asked for. Whether the app's data is kept is not part of it: that is done
// before the session is handed on.
func wanted(request map[string]any) string {
	text, err := json.Marshal(request)
	if err != nil {
		return ""
	}
	for _, kept := range []string{`"appium:noReset":true,`, `"appium:noReset":false,`, `,"appium:noReset":true`, `,"appium:noReset":false`} {
		text = bytes.Replace(text, []byte(kept), nil, 1)
	}
	return string(text)
}

// harmless says whether a command leaves nothing in its session that the app's restart does not end. Settings,
// time-outs, contexts, orientations and whatever is not known here do.
func harmless(method, command string, body []byte) bool {
	if method == http.MethodGet {
		return true
	}
	parts := strings.Split(command, "/")
	switch {
	case command == "element" || command == "elements" || command == "actions" || command == "back":
		return true
	case parts[0] == "element" && len(parts) == 3:
		return slices.Contains([]string{"click", "clear", "value", "element", "elements"}, parts[2])
	case command == "appium/device/press_keycode" || command == "appium/device/hide_keyboard" || command == "appium/device/activate_app" || command == "appium/device/terminate_app":
		return true
	case command == "execute/sync":
		var script struct {
			Script string `json:"script"`
		}
		if json.Unmarshal(body, &script) != nil {
			return false
		}
		name, ok := strings.CutPrefix(script.Script, "mobile: ")
		return ok && slices.Contains(harmlessScripts, name)
	}
	return false
}

// harmlessScripts are extensions of Appium's driver for Android that act on the app in front.
var harmlessScripts = []string{
	"clickGesture", "longClickGesture", "doubleClickGesture", "dragGesture", "flingGesture", "pinchOpenGesture",
	"pinchCloseGesture", "swipeGesture", "scrollGesture", "scroll", "scrollBackTo", "viewportScreenshot", "viewPortRect",
	"activateApp", "terminateApp", "startActivity", "pressKey", "hideKeyboard", "isKeyboardShown", "deviceInfo",
	"getCurrentActivity", "getCurrentPackage", "getDeviceTime", "batteryInfo", "isAppInstalled", "queryAppState",
}

// regard looks at a command on its way: one that is not harmless makes its session one that is not handed on.
func (p *proxy) regard(id, command string, r *http.Request) error {
	if !p.park || r.Method == http.MethodDelete && command == "" {
		return nil
	}
	var body []byte
	if command == "execute/sync" {
		var err error
		if body, err = io.ReadAll(io.LimitReader(r.Body, maxSessionRequest)); err != nil {
			return err
		}
		r.Body = struct {
			io.Reader
			io.Closer
		}{io.MultiReader(bytes.NewReader(body), r.Body), r.Body}
	}
	if !harmless(r.Method, command, body) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if k := p.keepable[id]; k != nil {
			p.logf("session %s is not handed on: %s %s may outlast the test", id, r.Method, command)
			delete(p.keepable, id)
		}
	}
	return nil
}

// keep parks a session that its test ends, if it may be handed on. Appium is not told of the end then.
func (p *proxy) keep(id string) bool {
	p.mu.Lock()
	k := p.keepable[id]
	delete(p.keepable, id)
	waiting := slices.ContainsFunc(slices.Collect(maps.Values(p.pending)), func(c PendingCommand) bool { return c.SessionID == id })
	if k == nil || waiting || p.lost[id] != nil || p.parked != nil || k.uses >= parkedUses || time.Since(k.madeAt) > parkedAge {
		p.mu.Unlock()
		return false
	}
	p.parked = k
	p.mu.Unlock()
	p.ended(id, "")
	return true
}

// unpark takes the parked session away, if there is one.
func (p *proxy) unpark() *Parked {
	p.mu.Lock()
	defer p.mu.Unlock()
	k := p.parked
	p.parked = nil
	return k
}

// endParked ends a session that is not to be handed on after all.
func (p *proxy) endParked() {
	if k := p.unpark(); k != nil {
		p.remove(context.WithoutCancel(p.life), k.ID, "the run did not pass")
	}
}

// handOn gives the parked session to the request of that number, with the app restarted, and returns the
// answer to the request. A parked session that does not fit, or does not do what it should, is ended.
func (p *proxy) handOn(number int, request string, clear bool) (answer []byte, ok bool) {
	k := p.unpark()
	if k == nil {
		return nil, false
	}
	if !k.fits(p.upstream.String(), p.app, request) {
		if k.url == p.upstream.String() {
			p.remove(p.life, k.ID, "it does not fit the next test")
		}
		return nil, false
	}
	began := time.Now()
	if err := p.relaunch(k, clear); err != nil {
		p.logf("session %s is ended: it could not be handed on: %v", k.ID, err)
		p.remove(p.life, k.ID, "it could not be handed on")
		return nil, false
	}
	k.uses++
	// A command that a test before left behind must not reach this one's session: it has a name of its own.
	id := fmt.Sprintf("%s-%d", k.ID, k.uses)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.real[id], p.alias[k.ID] = k.ID, id
	p.keepable[id] = k
	p.open[id] = number
	p.refusals = 0
	s := &p.evidence.Sessions[number]
	s.ID, s.MadeAt, s.HandedOn = id, time.Now(), true
	p.logf("session %s handed on in %s", id, s.MadeAt.Sub(began).Round(time.Millisecond))
	return bytes.ReplaceAll(k.answer, []byte(`"`+k.ID+`"`), []byte(`"`+id+`"`)), true
}

// relaunch makes the app as a new session would find it: with its data cleared if clear says so, stopped, and
// started anew.
func (p *proxy) relaunch(k *Parked, clear bool) error {
	ctx, cancel := context.WithTimeout(p.life, relaunchTime)
	defer cancel()
	type script struct {
		name      string
		arguments map[string]any
	}
	var scripts []script
	if clear {
		scripts = append(scripts,
			script{"mobile: clearApp", map[string]any{"appId": k.app.Package}},
			script{"mobile: changePermissions", map[string]any{"appPackage": k.app.Package, "permissions": "all", "action": "grant"}})
	}
	scripts = append(scripts, script{"mobile: startActivity", map[string]any{
		"component": k.app.Package + "/" + k.app.Activity, "wait": true, "stop": true,
		"action": "android.intent.action.MAIN", "categories": "android.intent.category.LAUNCHER", "flags": "0x10200000",
	}})
	for _, s := range scripts {
		body, err := json.Marshal(map[string]any{"script": s.name, "args": []any{s.arguments}})
		if err != nil {
			return err
		}
		if err := p.tell(ctx, k.ID, "execute/sync", body); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// tell sends a command of the proxy's own to a session.
func (p *proxy) tell(ctx context.Context, id, command string, body []byte) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, p.upstream.JoinPath("session", id, command).String(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json; charset=utf-8")
	answer, err := p.forward.Transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(io.LimitReader(answer.Body, maxErrorBody))
	if err != nil {
		return err
	}
	if answer.StatusCode >= 400 {
		_, message := readError(said)
		return fmt.Errorf("%s: %s", answer.Status, firstLine(message))
	}
	return nil
}
