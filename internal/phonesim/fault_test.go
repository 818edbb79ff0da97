package phonesim

import (
	"bytes"
	"encoding/json"
	"image/png"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestFaultsThatMakeNoSense(t *testing.T) {
	p := startPhone(t, Options{})
	for _, f := range []Fault{
		{},
		{Kind: "explode"},
		{Kind: FaultSlow},
		{Kind: FaultSlow, DelayMS: -1},
		{Kind: FaultOffline, DelayMS: 5},
		{Kind: FaultAppCrash, DurationMS: 5},
		{Kind: FaultHang, Code: "INSTALL_FAILED_X"},
		{Kind: FaultRefuseInstall, Code: "no"},
		{Kind: FaultOffline, AfterCommands: -1},
	} {
		if err := p.SetFault(f); err == nil {
			t.Errorf("%+v was taken", f)
		}
	}
	equal(t, "faults", len(p.Faults()), 0)
}

func TestRefuseInstall(t *testing.T) {
	p := startPhone(t, Options{})
	apk := buildAPK(t, App{Package: "com.example.app"})
	helper := buildAPK(t, App{Package: "io.appium.settings"})
	install := func(b []byte) string {
		if _, err := p.install(b, installFlags{}); err != nil {
			return err.Error()
		}
		return ""
	}
	if err := p.SetFault(Fault{Kind: FaultRefuseInstall, Code: "INSTALL_FAILED_VERIFICATION_FAILURE", Count: 2}); err != nil {
		t.Fatal(err)
	}
	equal(t, "helper", install(helper), "")
	for range 2 {
		if err := install(apk); !strings.HasPrefix(err, "INSTALL_FAILED_VERIFICATION_FAILURE") {
			t.Errorf("install: %s", err)
		}
	}
	equal(t, "third install", install(apk), "")
	counts := p.Ledger().Apps
	equal(t, "counts", counts, Counts{Installs: 1, FailedInstalls: 2})

	if err := p.SetFault(Fault{Kind: FaultLowStorage}); err != nil {
		t.Fatal(err)
	}
	if out := p.shell(t, "df /data"); !strings.Contains(out, " 99% /data") {
		t.Errorf("df of a full phone: %s", out)
	}
	if err := install(apk); !strings.HasPrefix(err, "INSTALL_FAILED_INSUFFICIENT_STORAGE") {
		t.Errorf("install on a full phone: %s", err)
	}
	equal(t, "helper on a full phone", install(helper), "")
	p.ClearFault(FaultLowStorage)
	if out := p.shell(t, "df /data"); !strings.Contains(out, " 25% /data") {
		t.Errorf("df: %s", out)
	}
	equal(t, "install", install(apk), "")
}

func TestAppCrashAfterCommands(t *testing.T) {
	p := startPhone(t, Options{})
	r := openApp(t, p, parseApp(t, shopJSON))
	if err := p.SetFault(Fault{Kind: FaultAppCrash, AfterCommands: 3}); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r.ok("GET", "/source", nil)
	}
	equal(t, "in front after three commands", p.State().Foreground, shop)
	equal(t, "the fourth", r.fails("POST", "/element", locator("id", "login")), "no such element")
	equal(t, "in front", p.State().Foreground, launcherPackage)
	equal(t, "crashes", p.Ledger().Packages[shop].Crashes, 1)
	equal(t, "faults left", len(p.Faults()), 0)
	p.shell(t, "am start -n com.example.shop/.MainActivity")
	equal(t, "after the relaunch", r.has("login"), true)
}

func TestSessionDiesAgainAndAgain(t *testing.T) {
	p := startPhone(t, Options{})
	if err := p.SetFault(Fault{Kind: FaultSessionDies, AfterCommands: 1, Count: 2}); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		r := openApp(t, p, parseApp(t, shopJSON))
		r.ok("GET", "/source", nil)
		status, _ := r.do("GET", "/source", nil)
		want := map[bool]int{true: http.StatusNotFound, false: http.StatusOK}[i < 2]
		equal(t, "second command", status, want)
		equal(t, "instrumentation runs", p.Ledger().InstrumentationRunning, i == 2)
	}
	sessions := p.Ledger().Sessions
	equal(t, "commands of the first session", sessions[0].Commands, 1)
	if !strings.HasPrefix(sessions[0].End, "died") || sessions[0].ClosedAt == nil {
		t.Errorf("the first session's end: %+v", sessions[0])
	}
}

func TestSlow(t *testing.T) {
	p := startPhone(t, Options{})
	r := openApp(t, p, parseApp(t, shopJSON))
	if err := p.SetFault(Fault{Kind: FaultSlow, DelayMS: 200, Count: 1}); err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	r.ok("GET", "/source", nil)
	if took := time.Since(started); took < 200*time.Millisecond {
		t.Errorf("the slow answer took %v", took)
	}
	equal(t, "faults left", len(p.Faults()), 0)
}

func TestControl(t *testing.T) {
	p := startPhone(t, Options{Serial: "CTL1"})
	openApp(t, p, parseApp(t, shopJSON))
	do := func(method, path, body string) (int, []byte) {
		w := httptest.NewRecorder()
		p.Control().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, strings.NewReader(body)))
		return w.Code, w.Body.Bytes()
	}
	_, body := do("GET", "/ledger", "")
	var l Ledger
	if err := decodeStrict(body, &l); err != nil {
		t.Fatal(err)
	}
	equal(t, "ledger", [...]any{l.Serial, l.Packages[shop], l.Installed[shop].VersionCode, l.SessionsOpened, l.InstrumentationRunning, l.Foreground},
		[...]any{"CTL1", Counts{Installs: 1, Launches: 1}, int64(3), 1, true, shop})
	_, body = do("GET", "/state", "")
	var s State
	if err := json.Unmarshal(body, &s); err != nil {
		t.Fatal(err)
	}
	equal(t, "state", [...]any{s.Screen, s.Texts[0], s.Addr}, [...]any{"login", "Sign in", p.Addr()})
	_, body = do("GET", "/screenshot.png", "")
	picture, err := png.Decode(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "screenshot", picture.Bounds().String(), "(0,0)-(1080,2340)")

	status, body := do("PUT", "/fault", `{"kind": "offline", "after_commands": 5}`)
	equal(t, "fault set", status, http.StatusOK)
	var faults []ArmedFault
	if err := json.Unmarshal(body, &faults); err != nil {
		t.Fatal(err)
	}
	equal(t, "faults", faults, []ArmedFault{{Fault: Fault{Kind: FaultOffline, AfterCommands: 5}}})
	for _, bad := range []string{`{"kind": "nonsense"}`, `{"kind": "offline", "x": 1}`, `[`, ``} {
		status, body = do("PUT", "/fault", bad)
		if status != http.StatusBadRequest || !bytes.Contains(body, []byte(`"error"`)) {
			t.Errorf("PUT %s: %d %s", bad, status, body)
		}
	}
	_, _ = do("PUT", "/fault", `{"kind": "hang", "after_commands": 9}`)
	do("DELETE", "/fault?kind=offline", "")
	equal(t, "faults left", len(p.Faults()), 1)
	do("DELETE", "/fault", "")
	equal(t, "faults left", len(p.Faults()), 0)
}

func TestLedgerIsBounded(t *testing.T) {
	l := newLedger("x", fixedTime)
	for range maxEntries + 50 {
		l.record(fixedTime, Entry{Kind: EntryInstall, Package: "com.example.a"})
	}
	for range maxSessionEntries + 50 {
		l.openSession("s", fixedTime)
	}
	equal(t, "kept", [...]int{len(l.Entries), len(l.Sessions)}, [...]int{maxEntries, maxSessionEntries})
	equal(t, "counted", [...]int{l.Seq, l.Totals.Installs, l.SessionsOpened}, [...]int{maxEntries + maxSessionEntries + 100, maxEntries + 50, maxSessionEntries + 50})
	equal(t, "last entry", l.Entries[len(l.Entries)-1].Seq, l.Seq)
}

func TestStartErrors(t *testing.T) {
	if _, err := Start(Options{OSVersion: "3"}); err == nil || !strings.Contains(err.Error(), "8 to 16") {
		t.Errorf("an unknown version: %v", err)
	}
	p := startPhone(t, Options{})
	if _, err := Start(Options{Listen: p.Addr()}); err == nil {
		t.Error("two phones took one address")
	}
}
