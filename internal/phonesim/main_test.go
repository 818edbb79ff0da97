package phonesim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const shopJSON = `{
  "package": "com.example.shop", "version_code": 3, "version_name": "1.2", "label": "Shop",
  "model": {
    "start": "login",
    "vars": {"error": "", "token": "", "cart": "0"},
    "persistent": ["token"],
    "screens": {
      "login": {
        "title": "Sign in",
        "enter": [{"when": {"token": {"not": ""}}, "go": "home"}],
        "elements": [
          {"id": "username", "editable": true, "hint": "User name"},
          {"id": "password", "editable": true, "password": true, "hint": "Password", "submit": [{"set": {"error": "Submitted"}}]},
          {"id": "terms", "checkable": true, "text": "I agree"},
          {"id": "login", "class": "button", "text": "Log in", "content_desc": "log in now", "tap": [
            {"when": {"username": "ada", "password": {"matches": "s.*t"}}, "set": {"token": "${username}"}, "go": "home"},
            {"set": {"error": "Wrong password for ${username}"}}
          ]},
          {"id": "error", "text": "${error}", "when": {"error": {"not": ""}}},
          {"id": "launch", "class": "button", "text": "Launch", "tap": [{"outcomes": [{"set": {"error": "first"}}, {"set": {"error": "second"}}]}]},
          {"id": "data", "class": "button", "text": "Data", "tap": [{"outcomes": [{"set": {"error": "first"}}, {"set": {"error": "second"}}], "remember": "data"}]},
          {"id": "phone", "class": "button", "text": "Phone", "tap": [{"outcomes": [{"set": {"error": "first"}}, {"set": {"error": "second"}}], "remember": "phone"}]},
          {"id": "crash", "class": "button", "text": "Crash", "tap": [{"crash": true}]},
          {"id": "off", "class": "button", "text": "Off", "disabled": true, "tap": [{"crash": true}]}
        ]
      },
      "home": {
        "elements": [
          {"id": "hello", "text": "Hello, ${token}"},
          {"id": "version", "text": "Version ${app.version_name}"},
          {"id": "late", "text": "Late", "appears_after_ms": 500, "disappears_after_ms": 900},
          {"id": "add", "class": "button", "text": "Add (${cart})", "tap": [{"add": {"cart": 1}}]},
          {"id": "slowly", "class": "button", "text": "Slowly", "tap": [{"go": "item", "after_ms": 300}]},
          {"id": "items", "items": ["Apples", "Bananas", "Carrots", "Dates", "Eggs", "Figs", "Grapes", "Honey", "Ice", "Jam",
            "Kale", "Lemons", "Mangos", "Nuts", "Olives", "Peas", "Quinces", "Rice"], "tap": [{"go": "item"}]},
          {"id": "box", "elements": [{"id": "inner", "text": "Inside"}]}
        ]
      },
      "item": {"elements": [{"id": "name", "text": "Item: ${item}"}, {"class": "button", "text": "Done", "tap": [{"back": true}]}]}
    }
  }
}`

const shop = "com.example.shop"

func parseApp(t testing.TB, description string) App {
	t.Helper()
	a, err := ParseApp([]byte(description))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func buildAPK(t testing.TB, a App) []byte {
	t.Helper()
	b, err := BuildAPK(a)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func startPhone(t testing.TB, o Options) *Phone {
	t.Helper()
	p, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// shell runs a command line on the phone and returns what it prints.
func (p *Phone) shell(t testing.TB, line string) string {
	t.Helper()
	var out bytes.Buffer
	p.runShell(t.Context(), line, strings.NewReader(""), &out, &out)
	return out.String()
}

// remote drives a phone through the UiAutomator2 server's HTTP interface.
type remote struct {
	t       testing.TB
	handler http.Handler
	session string
}

// openApp installs the app, launches it and opens a session.
func openApp(t testing.TB, p *Phone, a App) *remote {
	t.Helper()
	if _, err := p.install(buildAPK(t, a), installFlags{}); err != nil {
		t.Fatal(err)
	}
	p.shell(t, "am start -W -n "+a.Package+"/.MainActivity")
	return openSession(t, p)
}

// openSession starts the UiAutomator2 server of a phone without its APKs being installed.
func openSession(t testing.TB, p *Phone) *remote {
	t.Helper()
	p.mu.Lock()
	for _, name := range []string{uiautomatorTest, "io.appium.uiautomator2.server"} {
		pkg := &installedPackage{name: name, data: newAppData()}
		if name == uiautomatorTest {
			pkg.instrumentation, pkg.target = "androidx.test.runner.AndroidJUnitRunner", "io.appium.uiautomator2.server"
		}
		p.packages[name] = pkg
	}
	p.mu.Unlock()
	i, err := p.startInstrumentation(uiautomatorTest + "/androidx.test.runner.AndroidJUnitRunner")
	if err != nil {
		t.Fatal(err)
	}
	r := &remote{t: t, handler: p.uiautomatorHandler(i)}
	r.session = r.ok("POST", "/session", map[string]any{"capabilities": map[string]any{}}).(map[string]any)["sessionId"].(string)
	return r
}

func (r *remote) do(method, path string, body any) (int, any) {
	r.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		r.t.Fatal(err)
	}
	if r.session != "" {
		path = "/session/" + r.session + path
	}
	w := httptest.NewRecorder()
	r.handler.ServeHTTP(w, httptest.NewRequestWithContext(r.t.Context(), method, path, bytes.NewReader(b)))
	var answer struct{ Value any }
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		r.t.Fatalf("%s %s: %v: %s", method, path, err, w.Body)
	}
	return w.Code, answer.Value
}

func (r *remote) ok(method, path string, body any) any {
	r.t.Helper()
	status, value := r.do(method, path, body)
	if status != http.StatusOK {
		r.t.Fatalf("%s %s: %d %v", method, path, status, value)
	}
	return value
}

// fails does a command that must fail and returns the error's code.
func (r *remote) fails(method, path string, body any) string {
	r.t.Helper()
	status, value := r.do(method, path, body)
	if status == http.StatusOK {
		r.t.Fatalf("%s %s: succeeded with %v", method, path, value)
	}
	return value.(map[string]any)["error"].(string)
}

func locator(strategy, selector string) map[string]any {
	return map[string]any{"strategy": strategy, "selector": selector}
}

func (r *remote) find(strategy, selector string) string {
	r.t.Helper()
	return r.ok("POST", "/element", locator(strategy, selector)).(map[string]any)[elementKey].(string)
}

// texts are the texts of all elements that a selector finds.
func (r *remote) texts(strategy, selector string) []string {
	r.t.Helper()
	texts := []string{}
	for _, e := range r.ok("POST", "/elements", locator(strategy, selector)).([]any) {
		texts = append(texts, r.ok("GET", "/element/"+e.(map[string]any)[elementKey].(string)+"/text", nil).(string))
	}
	return texts
}

func (r *remote) tap(id string) {
	r.t.Helper()
	r.ok("POST", "/element/"+r.find("id", id)+"/click", nil)
}

func (r *remote) typeInto(id, text string) {
	r.t.Helper()
	r.ok("POST", "/element/"+r.find("id", id)+"/value", map[string]any{"text": text})
}

func (r *remote) text(id string) string {
	r.t.Helper()
	return r.ok("GET", "/element/"+r.find("id", id)+"/text", nil).(string)
}

func (r *remote) has(id string) bool {
	r.t.Helper()
	return len(r.texts("id", id)) > 0
}

func equal[T any](t testing.TB, what string, got, want T) {
	t.Helper()
	if g, w := fmt.Sprintf("%#v", got), fmt.Sprintf("%#v", want); g != w {
		t.Errorf("%s:\n got %s\nwant %s", what, g, w)
	}
}
