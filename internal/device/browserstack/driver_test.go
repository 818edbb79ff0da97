package browserstack

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/device"
	"qgjob/internal/device/devicetest"
	"qgjob/internal/phonesim"
)

func open(t *testing.T, d *Driver, slot int) *session {
	t.Helper()
	s, err := d.Open(t.Context(), serialOf(slot))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.(*session)
}

// ready prepares a build and returns the endpoint.
func ready(t *testing.T, s *session, b device.Build) device.Endpoint {
	t.Helper()
	if _, err := s.Prepare(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	e, err := s.Endpoint(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func openSession(t *testing.T, e device.Endpoint, b device.Build) string {
	t.Helper()
	id, err := devicetest.OpenSession(t.Context(), e, b)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// others are sessions of somebody else on the account.
func (h *host) others(t *testing.T, b device.Build, n int) (end func()) {
	t.Helper()
	opts := h.opts
	opts.DataDir = t.TempDir()
	d, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	ref, _, err := d.uploads.ensure(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		body, err := app{ref: ref, build: "somebody's"}.rewrite([]byte(`{"capabilities": {"alwaysMatch": {"bstack:options": {"deviceName": "Google Pixel 8"}}}}`), "somebody's")
		if err != nil {
			t.Fatal(err)
		}
		var answer json.RawMessage
		if err := d.rest.ask(t.Context(), http.MethodPost, d.rest.hub.JoinPath("session"), "application/json", bytes.NewReader(body), &answer); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, sessionID(answer))
	}
	return func() {
		for _, id := range ids {
			if err := d.rest.delete(t.Context(), id); err != nil {
				t.Error(err)
			}
		}
	}
}

// states lists how many slots are in each state, by a plan that is asked for anew.
func states(t *testing.T, d *Driver) map[qgjob.DeviceState]int {
	t.Helper()
	d.forgetPlan()
	infos, err := d.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := map[qgjob.DeviceState]int{}
	for _, i := range infos {
		n[i.State]++
	}
	return n
}

func (d *Driver) forgetPlan() {
	d.mu.Lock()
	d.planned = time.Time{}
	d.mu.Unlock()
}

func TestSlotsFollowTheAccount(t *testing.T) {
	t.Parallel()
	h := newHost(t, phonesim.CloudOptions{Parallels: 4})
	b := buildAPK(t, h.dir, phonesim.App{Label: "one"})
	d := h.driver(t)
	want := func(when string, idle, offline int) {
		t.Helper()
		if got := states(t, d); got[qgjob.DeviceIdle] != idle || got[qgjob.DeviceOffline] != offline {
			t.Errorf("%s: %v, want %d idle and %d offline", when, got, idle, offline)
		}
	}
	want("alone on the account", 4, 0)
	end := h.others(t, b, 3)
	want("while others use three", 1, 3)
	s := open(t, d, 2)
	e := ready(t, s, b)
	openSession(t, e, b)
	want("while others use three and one is ours", 1, 3)
	infos, err := d.List(t.Context())
	if err != nil || infos[1].State != qgjob.DeviceIdle || !strings.Contains(infos[0].Message, "use 3 of its 4 parallels") {
		t.Errorf("slots: %+v %v", infos, err)
	}
	end()
	want("when they are done", 4, 0)
	h.opts.Slots = 2
	d = h.driver(t)
	want("with two slots at most", 2, 0)
}

func TestNothingIsListedWithoutAPlan(t *testing.T) {
	t.Parallel()
	h := newHost(t, phonesim.CloudOptions{})
	h.opts.AccessKey = "guessed"
	if _, err := h.driver(t).List(t.Context()); device.CauseOf(err) != qgjob.CauseCloudRefused || !strings.Contains(err.Error(), "BROWSERSTACK_ACCESS_KEY") {
		t.Errorf("with another key: %v", err)
	}
	h.opts.AccessKey = ""
	if _, err := New(h.opts); err == nil {
		t.Error("a driver without a key was made")
	}
}

func TestFullAccountIsWaitedOut(t *testing.T) {
	t.Parallel()
	h := newHost(t, phonesim.CloudOptions{Parallels: 1})
	b := buildAPK(t, h.dir, phonesim.App{Label: "one"})
	d := h.driver(t)
	s := open(t, d, 1)
	if _, err := s.Prepare(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	end := h.others(t, b, 1)
	d.forgetPlan()
	d.opts.QueueWait = 50 * time.Millisecond
	if _, err := s.Endpoint(t.Context()); device.CauseOf(err) != qgjob.CauseCloudQueueFull {
		t.Errorf("when the wait is over: %v", err)
	}
	d.opts.QueueWait = time.Minute
	d.forgetPlan()
	got := make(chan error, 1)
	go func() {
		_, err := s.Endpoint(t.Context())
		got <- err
	}()
	end()
	if err := <-got; err != nil {
		t.Errorf("when the others are done: %v", err)
	}
}

// The hub's own queue can be full although the plan had room a moment before.
func TestFullQueueOfTheHubIsWaitedOut(t *testing.T) {
	t.Parallel()
	h := newHost(t, phonesim.CloudOptions{Parallels: 1, Queue: -1})
	b := buildAPK(t, h.dir, phonesim.App{Label: "one"})
	s := open(t, h.driver(t), 1)
	e := ready(t, s, b)
	end := h.others(t, b, 1)
	type made struct {
		id  string
		err error
	}
	got := make(chan made, 1)
	go func() {
		id, err := devicetest.OpenSession(t.Context(), e, b)
		got <- made{id, err}
	}()
	devicetest.Eventually(t, 20*time.Second, "the hub has refused the session", func() bool { return h.cloud.Ledger().QueueFull > 1 })
	end()
	if m := <-got; m.err != nil {
		t.Errorf("when the queue has room: %v", m.err)
	}
}

func TestUploads(t *testing.T) {
	t.Parallel()
	h := newHost(t, phonesim.CloudOptions{Parallels: 3})
	b := buildAPK(t, h.dir, phonesim.App{Label: "one"})
	d := h.driver(t)
	var both sync.WaitGroup
	for slot := range 2 { // at the same time
		both.Go(func() {
			if _, err := open(t, d, slot+1).Prepare(t.Context(), b); err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	if n := h.cloud.Ledger().Uploads; n != 1 {
		t.Errorf("two jobs with one build uploaded it %d times", n)
	}
	s := open(t, h.driver(t), 3) // of another worker
	for _, step := range []struct {
		later  time.Duration
		upload bool
	}{{0, false}, {27 * 24 * time.Hour, false}, {24 * time.Hour, true}, {28 * 24 * time.Hour, true}} {
		h.cloud.Skip(step.later)
		s.d.uploads.now = later(s.d.uploads.now, step.later)
		did, err := s.Prepare(t.Context(), b)
		if err != nil || did.Installed != step.upload {
			t.Errorf("%v later: %+v %v, want an upload: %v", step.later, did, err, step.upload)
		}
		openSession(t, device.Endpoint{URL: s.front.url, Cloud: true}, b) // the account still has it
	}
}

// BrowserStack has iPhones, which take no simulator's app.
func TestSimulatorsAppIsRefused(t *testing.T) {
	t.Parallel()
	h := newHost(t, phonesim.CloudOptions{Parallels: 1})
	b := buildIPA(t, h.dir, phonesim.App{Label: "one"})
	b.Simulator = true
	s := open(t, h.driver(t), 1)
	if _, err := s.Prepare(t.Context(), b); device.CauseOf(err) != qgjob.CauseBadBuild || !strings.Contains(err.Error(), "submit an IPA") {
		t.Errorf("error %v", err)
	}
	if l := h.cloud.Ledger(); l.Uploads+l.UploadsRefused != 0 {
		t.Errorf("it was uploaded: %+v", l)
	}
}

// One slot runs a job of each platform, one after the other. AppWright takes what it is told of the app's name for its bundle id.
func TestSlotIsOfEitherPlatform(t *testing.T) {
	t.Parallel()
	h := newHost(t, phonesim.CloudOptions{Parallels: 1})
	s := open(t, h.driver(t), 1)
	for _, b := range []device.Build{buildAPK(t, h.dir, phonesim.App{Label: "one"}), buildIPA(t, h.dir, phonesim.App{Label: "two"})} {
		e := ready(t, s, b)
		id := openSession(t, e, b)
		answer, err := http.Get(e.URL + "/app-automate/sessions/" + id + ".json")
		if err != nil {
			t.Fatal(err)
		}
		var told struct {
			Session struct {
				OS         string `json:"os"`
				AppDetails struct {
					Name string `json:"app_name"`
				} `json:"app_details"`
			} `json:"automation_session"`
		}
		err = json.NewDecoder(answer.Body).Decode(&told)
		answer.Body.Close()
		if err != nil || told.Session.OS != b.Platform || told.Session.AppDetails.Name != testPackage {
			t.Errorf("the session of a build for %s: %+v %v", b.Platform, told, err)
		}
		if err := s.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	infos, err := s.d.List(t.Context())
	if err != nil || infos[0].Platform != qgjob.PlatformAny {
		t.Errorf("slots: %+v %v", infos, err)
	}
}

func later(now func() time.Time, by time.Duration) func() time.Time {
	return func() time.Time { return now().Add(by) }
}

// The account takes five uploads a minute; time passes only while the driver waits.
func TestUploadsAMinute(t *testing.T) {
	t.Parallel()
	h := newHost(t, phonesim.CloudOptions{Parallels: 1})
	s := open(t, h.driver(t), 1)
	u := s.d.uploads
	var mu sync.Mutex
	clock, waited := time.Now(), time.Duration(0)
	u.now = func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return clock
	}
	u.wait = func(_ context.Context, d time.Duration) error {
		mu.Lock()
		defer mu.Unlock()
		clock, waited = clock.Add(d), waited+d
		h.cloud.Skip(d)
		return nil
	}
	for i := range 12 {
		if _, err := s.Prepare(t.Context(), buildAPK(t, h.dir, phonesim.App{Label: strconv.Itoa(i)})); err != nil {
			t.Fatal(err)
		}
	}
	if l := h.cloud.Ledger(); l.Uploads != 12 || l.UploadsRefused != 0 || waited < 2*time.Minute || waited > 3*time.Minute {
		t.Errorf("%d uploads, %d refused, waited %v", l.Uploads, l.UploadsRefused, waited)
	}
	// Somebody else's uploads count, too, and only the account knows of them.
	u.sent = nil
	if _, err := s.Prepare(t.Context(), buildAPK(t, h.dir, phonesim.App{Label: "one more"})); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		u.sent = nil
		if _, err := s.Prepare(t.Context(), buildAPK(t, h.dir, phonesim.App{Label: "more " + strconv.Itoa(i)})); err != nil {
			t.Errorf("when the account has had enough uploads: %v", err)
		}
	}
	if l := h.cloud.Ledger(); l.UploadsRefused == 0 || l.Uploads != 17 {
		t.Errorf("%d uploads, %d refused", l.Uploads, l.UploadsRefused)
	}
}

// die ends a worker as kill -9 does, as far as BrowserStack and this host's locks and files see it.
func (s *session) die() {
	s.front.end()
	s.front.server.Close()
	<-s.front.served
	s.front.making <- struct{}{} // its handler has ended
	s.closed = true
	s.held.Unlock()
}

func TestSessionsOfADeadWorkerAreEnded(t *testing.T) {
	t.Parallel()
	h := newHost(t, phonesim.CloudOptions{Parallels: 1, SessionTime: 300 * time.Millisecond})
	b := buildAPK(t, h.dir, phonesim.App{Label: "one"})
	for what, dies := range map[string]func(s *session, e device.Endpoint){
		"in a session": func(s *session, e device.Endpoint) {
			openSession(t, e, b)
			s.die()
		},
		"while a session is made": func(s *session, e device.Endpoint) {
			ctx, cancel := context.WithCancel(t.Context())
			left := make(chan struct{})
			go func() {
				defer close(left)
				devicetest.OpenSession(ctx, e, b)
			}()
			devicetest.Eventually(t, 20*time.Second, "the session is being made", func() bool { return running(h.cloud) == 1 })
			s.die()
			cancel()
			<-left
			devicetest.Eventually(t, 20*time.Second, "the session is made", func() bool {
				l := h.cloud.Ledger()
				return l.Sessions[len(l.Sessions)-1].MadeAt != nil
			})
		},
	} {
		s := open(t, h.driver(t), 1)
		dies(s, ready(t, s, b))
		if n := running(h.cloud); n != 1 {
			t.Fatalf("the worker that died %s left %d sessions, want 1", what, n)
		}
		next := h.driver(t)
		if _, err := next.List(t.Context()); err != nil {
			t.Fatal(err)
		}
		if n := running(h.cloud); n != 0 {
			t.Errorf("of the worker that died %s, %d sessions are left", what, n)
		}
		if got := states(t, next); got[qgjob.DeviceIdle] != 1 {
			t.Errorf("then the slots are %v", got)
		}
	}
}

func TestSessionsOfALivingWorkerAreLeftAlone(t *testing.T) {
	t.Parallel()
	h := newHost(t, phonesim.CloudOptions{Parallels: 2})
	b := buildAPK(t, h.dir, phonesim.App{Label: "one"})
	s := open(t, h.driver(t), 1)
	openSession(t, ready(t, s, b), b)
	if _, err := h.driver(t).List(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := running(h.cloud); n != 1 {
		t.Errorf("another worker's look left %d sessions of 1", n)
	}
}

func TestRecordedSessions(t *testing.T) {
	t.Parallel()
	h := newHost(t, phonesim.CloudOptions{Parallels: 1})
	h.opts.MinutePrice = 0.5
	b := buildAPK(t, h.dir, phonesim.App{Label: "one"})
	s := open(t, h.driver(t), 1)
	e := ready(t, s, b)
	var ids []string
	for range 2 {
		ids = append(ids, openSession(t, e, b))
		if err := devicetest.Command(t.Context(), e, http.MethodDelete, "/session/"+ids[len(ids)-1], nil, nil); err != nil {
			t.Fatal(err)
		}
	}
	s.front.mu.Lock()
	s.front.list[0].ended = s.front.list[0].made.Add(90 * time.Second)
	s.front.mu.Unlock()
	list := s.Recorded(t.Context())
	if len(list) != 2 {
		t.Fatalf("%+v", list)
	}
	first := list[0]
	if first.ID != ids[0] || first.Seconds != 90 || first.Cost != 0.75 || !strings.Contains(first.URL, ids[0]) || !strings.Contains(first.VideoURL, "/video?token=") {
		t.Errorf("%+v", first)
	}
	session := h.cloud.Ledger().Sessions[0]
	if session.Build != "qgjob qualgent one" || session.Project != "qgjob" {
		t.Errorf("BrowserStack shows it as %+v", session)
	}
	if _, err := s.Prepare(t.Context(), b); err != nil || len(s.Recorded(t.Context())) != 0 {
		t.Errorf("the next job has the sessions of this one (%v)", err)
	}
}

// A test reaches what AppWright needs of the REST interface, for its own sessions, and nothing else of the account.
func TestWhatTestsReach(t *testing.T) {
	t.Parallel()
	h := newHost(t, phonesim.CloudOptions{Parallels: 2})
	var log bytes.Buffer
	h.opts.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	b := buildAPK(t, h.dir, phonesim.App{Label: "one"})
	d := h.driver(t)
	other, s := open(t, d, 1), open(t, d, 2)
	foreign := openSession(t, ready(t, other, b), b)
	e := ready(t, s, b)
	own := openSession(t, e, b)
	var all strings.Builder
	ask := func(method, path, body string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), method, e.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		data, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(data)
		return res.StatusCode, string(data)
	}
	if status, text := ask("POST", "/app-automate/upload", "an app"); status != http.StatusOK || !strings.Contains(text, "bs://") || h.cloud.Ledger().Uploads != 1 {
		t.Errorf("upload: %d %s", status, text)
	}
	if status, text := ask("GET", "/app-automate/sessions/"+own+".json", ""); status != http.StatusOK || strings.Contains(text, "token=") && strings.Contains(text, "/video") {
		t.Errorf("own session: %d %s", status, text)
	}
	if status, text := ask("PUT", "/app-automate/sessions/"+own+".json", `{"status": "failed", "reason": "because"}`); status != http.StatusOK {
		t.Errorf("mark: %d %s", status, text)
	}
	if status, _ := ask("GET", "/session/"+own+"/source", ""); status != http.StatusOK {
		t.Errorf("a command: %d", status)
	}
	for _, path := range []string{"/session/" + foreign + "/source", "/app-automate/sessions/" + foreign + ".json", "/app-automate/plan.json", "/app-automate/builds.json"} {
		if status, text := ask("GET", path, ""); status < 400 {
			t.Errorf("GET %s: %d %s", path, status, text)
		}
	}
	if res, err := http.Get("http://" + s.front.listener.Addr().String() + "/session/" + own + "/source"); err != nil || res.StatusCode != http.StatusNotFound {
		t.Errorf("without the secret path: %v %v", res, err)
	} else {
		res.Body.Close()
	}
	h.cloud.SetFault(phonesim.CloudFault{Kind: phonesim.CloudOffline})
	if status, text := ask("GET", "/session/"+own+"/source", ""); status != http.StatusInternalServerError || !strings.Contains(text, "BrowserStack cannot be reached") {
		t.Errorf("a command that does not arrive: %d %s", status, text)
	}
	h.cloud.SetFault(phonesim.CloudFault{})
	for what, text := range map[string]string{"log": log.String(), "answers": all.String()} {
		if strings.Contains(text, h.opts.AccessKey) || strings.Contains(text, h.opts.Username) {
			t.Errorf("the %s hold a credential:\n%s", what, text)
		}
	}
}

// cutOff is a network on which the next requests do not arrive.
type cutOff struct{ left int }

func (c *cutOff) RoundTrip(r *http.Request) (*http.Response, error) {
	if c.left--; c.left >= 0 {
		return nil, errors.New("connection reset by peer")
	}
	return http.DefaultTransport.RoundTrip(r)
}

// AppWright makes a failed test of one error of the REST interface.
func TestShortTroubleOfTheRESTInterfaceIsNoTestsMatter(t *testing.T) {
	t.Parallel()
	h := newHost(t, phonesim.CloudOptions{Parallels: 1})
	b := buildAPK(t, h.dir, phonesim.App{Label: "one"})
	s := open(t, h.driver(t), 1)
	e := ready(t, s, b)
	id := openSession(t, e, b)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	for lost, want := range map[int]int{2: http.StatusOK, 3: http.StatusBadGateway} {
		s.d.rest.http.Transport = &cutOff{left: lost}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, e.URL+"/app-automate/sessions/"+id+".json", strings.NewReader(`{"name": "a test"}`))
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("after %d requests that did not arrive: %s, want %d", lost, res.Status, want)
		}
	}
	if name := h.cloud.Ledger().Sessions[0].Name; name != "a test" {
		t.Errorf("the session is called %q", name)
	}
}

func TestOpenRefusesWhatIsNoSlot(t *testing.T) {
	t.Parallel()
	d := newHost(t, phonesim.CloudOptions{Parallels: 1}).driver(t)
	for _, serial := range []string{"browserstack-0", "browserstack-2", "browserstack-1x", "R58M12ABCDE"} {
		if _, err := d.Open(t.Context(), serial); device.CauseOf(err) != qgjob.CauseDeviceOffline || errors.Is(err, device.ErrInUse) {
			t.Errorf("open of %q: %v", serial, err)
		}
	}
}
