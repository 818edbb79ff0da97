package phonesim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// account is a client of a simulated account.
type account struct {
	t     testing.TB
	cloud *Cloud
	key   string
}

func startCloud(t testing.TB, o CloudOptions) *account {
	t.Helper()
	c, err := StartCloud(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return &account{t, c, c.AccessKey()}
}

func (a *account) send(method, path, kind string, body io.Reader) (int, map[string]any, []any) {
	a.t.Helper()
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.cloud.URL()+path, body)
	if err != nil {
		a.t.Fatal(err)
	}
	req.SetBasicAuth(a.cloud.Username(), a.key)
	req.Header.Set("Content-Type", kind)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	var object map[string]any
	var list []any
	if json.Unmarshal(data, &object) != nil {
		if err := json.Unmarshal(data, &list); err != nil {
			a.t.Fatalf("%s %s: %v: %s", method, path, err, data)
		}
	}
	return res.StatusCode, object, list
}

func (a *account) do(method, path string, body any) (int, map[string]any) {
	a.t.Helper()
	b, err := json.Marshal(body)
	if err != nil {
		a.t.Fatal(err)
	}
	status, object, _ := a.send(method, path, "application/json", bytes.NewReader(b))
	return status, object
}

func (a *account) upload(customID string, content []byte) (int, string) {
	a.t.Helper()
	return a.uploadAs("app.apk", customID, content)
}

func (a *account) uploadAs(name, customID string, content []byte) (int, string) {
	a.t.Helper()
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	part, err := w.CreateFormFile("file", name)
	if err == nil {
		_, err = part.Write(content)
	}
	if err == nil {
		err = w.WriteField("custom_id", customID)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		a.t.Fatal(err)
	}
	status, answer, _ := a.send("POST", "/app-automate/upload", w.FormDataContentType(), &form)
	url, _ := answer["app_url"].(string)
	return status, url
}

// open asks for a session and returns its id, or the error's message.
func (a *account) open(app, device string, idle int) (id, refusal string) {
	a.t.Helper()
	_, answer := a.do("POST", "/wd/hub/session", map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{
		"appium:app": app, "bstack:options": map[string]any{"deviceName": device, "buildName": "nightly", "idleTimeout": idle},
	}}})
	value := answer["value"].(map[string]any)
	id, _ = value["sessionId"].(string)
	refusal, _ = value["message"].(string)
	return id, refusal
}

func (a *account) appURL() string {
	a.t.Helper()
	status, url := a.upload("shop", buildAPK(a.t, parseApp(a.t, shopJSON)))
	if status != http.StatusOK || !strings.HasPrefix(url, "bs://") {
		a.t.Fatalf("upload: %d %q", status, url)
	}
	return url
}

func TestCloudSession(t *testing.T) {
	a := startCloud(t, CloudOptions{})
	id, refusal := a.open(a.appURL(), "Google Pixel 8", 0)
	if id == "" {
		t.Fatal(refusal)
	}
	find := func(selector string) string {
		_, answer := a.do("POST", "/wd/hub/session/"+id+"/element", map[string]string{"using": "-android uiautomator", "value": selector})
		value := answer["value"].(map[string]any)
		element, _ := value[elementKey].(string)
		return element
	}
	a.do("POST", "/wd/hub/session/"+id+"/element/"+find(`resourceIdMatches("username")`)+"/value", map[string]any{"text": "ada", "value": []string{"a", "d", "a"}})
	a.do("POST", "/wd/hub/session/"+id+"/element/"+find(`resourceIdMatches("password")`)+"/value", map[string]any{"text": "secret"})
	a.do("POST", "/wd/hub/session/"+id+"/element/"+find(`text("Log in")`)+"/click", nil)
	if find(`text("Hello, ada")`) == "" {
		t.Error("the app did not do what it was told")
	}
	_, answer := a.do("PUT", "/app-automate/sessions/"+id+".json", map[string]string{"status": "passed", "name": "signs in"})
	_ = answer
	a.do("DELETE", "/wd/hub/session/"+id, nil)
	status, answer := a.do("GET", "/app-automate/sessions/"+id+".json", nil)
	session := answer["automation_session"].(map[string]any)
	if status != http.StatusOK || session["status"] != "passed" || session["name"] != "signs in" || session["device"] != "Google Pixel 8" || !strings.Contains(session["browser_url"].(string), id) {
		t.Errorf("%d %v", status, session)
	}
	res, err := http.Get(session["video_url"].(string))
	if err != nil || res.StatusCode != http.StatusOK {
		t.Errorf("video: %v %v", res, err)
	} else {
		res.Body.Close()
	}
	if status, answer := a.do("GET", "/wd/hub/session/"+id+"/source", nil); status != http.StatusNotFound || answer["value"].(map[string]any)["error"] != "invalid session id" {
		t.Errorf("a command after the end: %d %v", status, answer)
	}
}

func TestCloudIsStrict(t *testing.T) {
	a := startCloud(t, CloudOptions{UploadsPerMinute: 3})
	url := a.appURL()
	if _, refusal := a.open("bs://undefined", "Google Pixel 8", 0); !strings.Contains(refusal, "BROWSERSTACK_INVALID_APP_URL") {
		t.Errorf("an unknown app: %q", refusal)
	}
	if _, refusal := a.open(url, "Nokia 3310", 0); !strings.Contains(refusal, "Could not find device") {
		t.Errorf("an unknown device: %q", refusal)
	}
	if status, _ := a.upload("x", []byte("no APK")); status != http.StatusUnprocessableEntity {
		t.Errorf("a file that is no APK: %d", status)
	}
	stranger := &account{t, a.cloud, "guessed"}
	if status, _ := stranger.upload("x", buildAPK(t, parseApp(t, shopJSON))); status != http.StatusUnauthorized {
		t.Errorf("an upload with another key: %d", status)
	}
	if id, _ := stranger.open(url, "Google Pixel 8", 0); id != "" {
		t.Error("a session with another key was made")
	}
	a.upload("x", buildAPK(t, parseApp(t, shopJSON)))
	if status, _ := a.upload("x", buildAPK(t, parseApp(t, shopJSON))); status != http.StatusTooManyRequests {
		t.Errorf("the fourth upload within a minute: %d", status)
	}
	a.cloud.Skip(time.Minute)
	if status, _ := a.upload("x", buildAPK(t, parseApp(t, shopJSON))); status != http.StatusOK {
		t.Errorf("an upload a minute later: %d", status)
	}
	if id, refusal := a.open("shop", "Google Pixel 8", 0); id == "" {
		t.Errorf("an app by its custom_id: %s", refusal)
	}
	a.cloud.Skip(30 * 24 * time.Hour)
	if id, _ := a.open(url, "Google Pixel 8", 0); id != "" {
		t.Error("an upload of thirty days ago is still there")
	}
	if _, answer := a.do("GET", "/app-automate/recent_apps/shop", nil); answer["message"] != "No results found" {
		t.Errorf("uploads after thirty days: %v", answer)
	}
	if l := a.cloud.Ledger(); l.Unauthorized != 2 || l.Uploads != 3 || l.UploadsRefused != 2 {
		t.Errorf("%+v", l)
	}
}

// iOS apps run on iPhones, with what Appium's XCUITest driver understands.
func TestCloudIPhone(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	a := startCloud(t, CloudOptions{UploadsPerMinute: 10})
	ipa := func(app App, simulator bool) []byte {
		content, err := BuildIPA(app, simulator)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	shop := parseApp(t, shopJSON)
	if status, _ := a.uploadAs("app.ipa", "sim", ipa(shop, true)); status != http.StatusUnprocessableEntity {
		t.Errorf("an app for simulators: %d", status)
	}
	if status, _ := a.uploadAs("app.zip", "sim", ipa(shop, true)); status != http.StatusBadRequest {
		t.Errorf("a zip: %d", status)
	}
	if status, _ := a.uploadAs("app.ipa", "apk", buildAPK(t, shop)); status != http.StatusUnprocessableEntity {
		t.Errorf("an APK that is called an IPA: %d", status)
	}
	status, url := a.uploadAs("app.ipa", "shop", ipa(shop, false))
	if status != http.StatusOK {
		t.Fatalf("upload: %d", status)
	}
	if _, refusal := a.open(url, "Google Pixel 8", 0); !strings.Contains(refusal, "is for ios, and the device runs android") {
		t.Errorf("on an Android phone: %q", refusal)
	}
	if _, refusal := a.open(a.appURL(), "iPhone 15", 0); !strings.Contains(refusal, "is for android, and the device runs ios") {
		t.Errorf("an Android app on an iPhone: %q", refusal)
	}
	newer := shop
	newer.MinOS = "18.0"
	_, needs18 := a.uploadAs("app.ipa", "newer", ipa(newer, false))
	for what, c := range map[string]struct {
		ask  map[string]any
		says string
	}{
		"another version":    {map[string]any{"bstack:options": map[string]any{"deviceName": "iPhone 15", "osVersion": "12"}}, "Could not find device"},
		"another platform":   {map[string]any{"bstack:options": map[string]any{"deviceName": "iPhone 15", "platformName": "android"}}, "Could not find device"},
		"another automation": {map[string]any{"appium:automationName": "UiAutomator2", "bstack:options": map[string]any{"deviceName": "iPhone 15"}}, "BROWSERSTACK_INVALID_AUTOMATION_NAME"},
		"an older system":    {map[string]any{"appium:app": needs18, "bstack:options": map[string]any{"deviceName": "iPhone 15"}}, "needs iOS 18.0, and this is 17"},
	} {
		if c.ask["appium:app"] == nil {
			c.ask["appium:app"] = url
		}
		_, answer := a.do("POST", "/wd/hub/session", map[string]any{"capabilities": map[string]any{"alwaysMatch": c.ask}})
		if refusal, _ := answer["value"].(map[string]any)["message"].(string); !strings.Contains(refusal, c.says) {
			t.Errorf("%s: %q", what, refusal)
		}
	}
	id, refusal := a.open(url, "iPhone 15", 0)
	if id == "" {
		t.Fatal(refusal)
	}
	session := "/wd/hub/session/" + id
	find := func(using, selector string) string {
		_, answer := a.do("POST", session+"/element", map[string]string{"using": using, "value": selector})
		value := answer["value"].(map[string]any)
		element, _ := value[elementKey].(string)
		return element
	}
	predicate := func(p string) string { return find("-ios predicate string", p) }
	a.do("POST", session+"/element/"+predicate(`name CONTAINS "username"`)+"/value", map[string]any{"text": "ada"})
	a.do("POST", session+"/element/"+predicate(`name CONTAINS "password"`)+"/value", map[string]any{"text": "secret"})
	a.do("POST", session+"/element/"+find("xpath", `//XCUIElementTypeButton[@name="login"]`)+"/click", nil)
	if predicate(`label == "Hello, ada"`) == "" {
		t.Error("the app did not do what it was told")
	}
	if find("-android uiautomator", `text("Log in")`) != "" {
		t.Error("an iPhone understands UiAutomator")
	}
	script := func(name string, args map[string]any) int {
		status, _ := a.do("POST", session+"/execute/sync", map[string]any{"script": name, "args": []any{args}})
		return status
	}
	if got := script("mobile: clickGesture", map[string]any{"x": 1, "y": 1}); got == http.StatusOK {
		t.Error("an iPhone has gestures of UiAutomator2")
	}
	for name, args := range map[string]map[string]any{"mobile: tap": {"x": 1, "y": 1}, "mobile: terminateApp": {"bundleId": shop.Package}, "mobile: activateApp": {"bundleId": shop.Package}} {
		if got := script(name, args); got != http.StatusOK {
			t.Errorf("%s: %d", name, got)
		}
	}
	_, answer := a.do("GET", "/app-automate/sessions/"+id+".json", nil)
	if told := answer["automation_session"].(map[string]any); told["os"] != "ios" || told["os_version"] != "17" || told["device"] != "iPhone 15" {
		t.Errorf("the session: %v", told)
	}
	a.do("DELETE", session, nil)
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "phonesim-cloud-*")); err != nil || len(left) != 0 {
		t.Errorf("left on the disk: %q %v", left, err)
	}
}

func TestCloudParallelsAndQueue(t *testing.T) {
	a := startCloud(t, CloudOptions{Parallels: 1, Queue: 1})
	url := a.appURL()
	first, _ := a.open(url, "Google Pixel 8", 0)
	type end struct{ id, refusal string }
	queued := make(chan end, 1)
	go func() {
		id, refusal := a.open(url, "Google Pixel 7", 0)
		queued <- end{id, refusal}
	}()
	until(t, func() bool {
		_, plan := a.do("GET", "/app-automate/plan.json", nil)
		return fmt.Sprint(plan["parallel_sessions_running"], plan["queued_sessions"]) == "1 1"
	})
	if _, refusal := a.open(url, "Google Pixel 8", 0); !strings.Contains(refusal, "BROWSERSTACK_QUEUE_SIZE_EXCEEDED") {
		t.Errorf("a session over the queue: %q", refusal)
	}
	if _, _, builds := a.send("GET", "/app-automate/builds.json?status=running", "", nil); len(builds) != 1 {
		t.Errorf("running builds: %v", builds)
	}
	a.do("DELETE", "/wd/hub/session/"+first, nil)
	if got := <-queued; got.id == "" {
		t.Errorf("the session that waited: %s", got.refusal)
	}
	if l := a.cloud.Ledger(); l.MostRunning != 1 || l.Queued != 1 || l.QueueFull != 1 || l.SessionsMade != 2 {
		t.Errorf("%+v", l)
	}
}

func TestCloudEndsIdleSessions(t *testing.T) {
	a := startCloud(t, CloudOptions{})
	id, _ := a.open(a.appURL(), "Google Pixel 8", 1)
	until(t, func() bool {
		_, answer := a.do("GET", "/app-automate/sessions/"+id+".json", nil)
		s := answer["automation_session"].(map[string]any)
		return s["status"] == "timeout" && s["reason"] == "BROWSERSTACK_IDLE_TIMEOUT"
	})
}

func TestCloudFaults(t *testing.T) {
	a := startCloud(t, CloudOptions{})
	a.cloud.SetFault(CloudFault{Kind: CloudOffline})
	if res, err := http.Get(a.cloud.URL()); err == nil {
		res.Body.Close()
		t.Error("an offline cloud answers")
	}
	a.cloud.SetFault(CloudFault{})
	if status, _ := a.do("GET", "/app-automate/plan.json", nil); status != http.StatusOK {
		t.Errorf("after it healed: %d", status)
	}
}

func until(t *testing.T, is func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for !is() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatal("it does not happen")
		}
	}
}
