package ios

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"qgjob"
	"qgjob/internal/device"
	"qgjob/internal/device/devicetest"
	"qgjob/internal/phonesim"
)

func list(t *testing.T, d *Driver) []device.Info {
	t.Helper()
	infos, err := d.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return infos
}

func openDevice(t *testing.T, h *mac) device.Session {
	t.Helper()
	s, err := h.driver(t).Open(t.Context(), h.udid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func TestWhatIsListed(t *testing.T) {
	t.Parallel()
	phone := startMac(t, phonesim.IPhoneOptions{Model: "iPhone 15 Pro", OSVersion: "17.4.1"})
	phone.named = false
	want := []device.Info{{ID: phone.udid, Serial: phone.udid, Kind: qgjob.TargetDevice, Platform: "ios", Model: "iPhone 15 Pro", OSVersion: "17.4.1", State: qgjob.DeviceIdle}}
	if diff := cmp.Diff(want, list(t, phone.driver(t))); diff != "" {
		t.Errorf("an iPhone (-want +got)\n%s", diff)
	}

	booted := startMac(t, phonesim.IPhoneOptions{Simulator: true, Booted: true, Name: "Ann's phone"})
	booted.named = false
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	want = []device.Info{{ID: booted.udid + "@" + host, Serial: booted.udid, Kind: qgjob.TargetEmulator, Platform: "ios", Model: "Ann's phone", OSVersion: "18.2", State: qgjob.DeviceIdle}}
	if diff := cmp.Diff(want, list(t, booted.driver(t))); diff != "" {
		t.Errorf("a simulator (-want +got)\n%s", diff)
	}

	down := startMac(t, phonesim.IPhoneOptions{Simulator: true})
	down.named = false
	if got := list(t, down.driver(t)); len(got) != 0 {
		t.Errorf("a simulator that does not run and is not to be booted: %+v", got)
	}
	down.mine = true
	if got := list(t, down.driver(t)); len(got) != 1 || got[0].State != qgjob.DeviceIdle {
		t.Errorf("a simulator that is to be booted: %+v", got)
	}
}

func TestIPhonesThatCannotBeUsed(t *testing.T) {
	good := coreDevice{}
	good.Connection.PairingState, good.Connection.TunnelState = "paired", "disconnected"
	good.Hardware.UDID, good.Hardware.ProductType, good.Device.OSVersion = "U", "iPhone17,3", "18.2"
	if got := good.info(); got.State != qgjob.DeviceIdle || got.Model != "iPhone17,3" {
		t.Errorf("an iPhone that rests: %+v", got)
	}
	for says, change := range map[string]func(*coreDevice){
		"Trust This Computer": func(c *coreDevice) { c.Connection.PairingState = "unpaired" },
		"check the cable":     func(c *coreDevice) { c.Connection.TunnelState = "unavailable" },
		"Developer Mode":      func(c *coreDevice) { c.Device.DeveloperModeStatus = "disabled" },
		"iOS 17 or newer":     func(c *coreDevice) { c.Device.OSVersion = "16.7" },
	} {
		c := good
		change(&c)
		if got := c.info(); got.State == qgjob.DeviceIdle || !strings.Contains(got.Message, says) {
			t.Errorf("%s: %+v", says, got)
		}
	}
}

// One of Xcode's programs that fails hides its own devices only, and those that were seen are told of.
func TestListWithoutDevicectl(t *testing.T) {
	t.Parallel()
	h := startMac(t, phonesim.IPhoneOptions{})
	h.named = false
	d := h.driver(t)
	before := list(t, d)
	if len(before) != 1 {
		t.Fatalf("listed %+v", before)
	}
	bin := t.TempDir()
	script := "#!/bin/sh\ncase \"$1\" in simctl) exec '" + filepath.Join(h.Bin(), "xcrun") + "' \"$@\";; esac\necho broken >&2; exit 1\n"
	if err := os.WriteFile(filepath.Join(bin, "xcrun"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	d.opts.Path = bin + ":" + d.opts.Path
	if got := list(t, d); len(got) != 1 || got[0].State != qgjob.DeviceOffline || got[0].Message == "" {
		t.Errorf("listed %+v", got)
	}
	d.opts.Path = t.TempDir()
	if _, err := d.List(t.Context()); device.CauseOf(err) != qgjob.CauseHostFailed || !strings.Contains(err.Error(), "install Xcode") {
		t.Errorf("without Xcode: %v", err)
	}
}

// A program that writes its result once more, after its call, leaves nothing behind.
func TestDevicectlThatWritesTooLate(t *testing.T) {
	temporary, bin := t.TempDir(), t.TempDir()
	t.Setenv("TMPDIR", temporary)
	wrote := filepath.Join(bin, "wrote")
	script := `#!/bin/sh
for file; do :; done
echo '{"result": {"answer": 42}}' > "$file"
{ while [ -e "$file" ]; do :; done; echo late > "$file"; echo > '` + wrote + `'; } > /dev/null 2>&1 &
`
	if err := os.WriteFile(filepath.Join(bin, "xcrun"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	var result struct{ Answer int }
	if err := (xcode{path: bin}).devicectl(t.Context(), time.Minute, &result, "list", "devices"); err != nil || result.Answer != 42 {
		t.Fatalf("%+v, %v", result, err)
	}
	for end := time.Now().Add(time.Minute); ; {
		if _, err := os.Stat(wrote); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatal("nothing was written")
		}
	}
	if left, err := os.ReadDir(temporary); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

// A job boots the simulator, which stays up when its worker ends.
func TestSimulatorIsBooted(t *testing.T) {
	t.Parallel()
	h := startMac(t, phonesim.IPhoneOptions{Simulator: true, BootTime: 200 * time.Millisecond})
	h.mine = true
	apps := newBuilds(t, h)
	b := apps.build(phonesim.App{Label: "one"})
	s := openDevice(t, h)
	if err := errors.Join(s.Check(t.Context()), s.Release(t.Context())); err != nil {
		t.Errorf("before its first job: %v", err)
	}
	if did, err := s.Prepare(t.Context(), b); err != nil || !did.Installed {
		t.Fatalf("%+v %v", did, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	h.mine = false
	s = openDevice(t, h)
	if did, err := s.Prepare(t.Context(), b); err != nil || did.Installed {
		t.Errorf("the next worker: %+v %v", did, err)
	}
}

func TestSimulatorThatDoesNotBoot(t *testing.T) {
	t.Parallel()
	h := startMac(t, phonesim.IPhoneOptions{Simulator: true})
	h.mine = true
	apps := newBuilds(t, h)
	s := openDevice(t, h)
	apps.Hurt(devicetest.Trouble{Offline: true})
	if _, err := s.Prepare(t.Context(), apps.build(phonesim.App{Label: "one"})); device.CauseOf(err) != qgjob.CauseEmulatorNotBooted {
		t.Errorf("error %v", err)
	}
}

func TestIPhoneNeedsATeam(t *testing.T) {
	t.Parallel()
	h := startMac(t, phonesim.IPhoneOptions{})
	d := h.driver(t)
	d.opts.Team = ""
	s, err := d.Open(t.Context(), h.udid)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Endpoint(t.Context()); device.CauseOf(err) != qgjob.CauseHostFailed || !strings.Contains(err.Error(), "--ios-team") {
		t.Errorf("error %v", err)
	}
}

// The team signs a WebDriverAgent of its own name: Apple knows the original as another team's.
func TestTeamHasItsOwnWebDriverAgent(t *testing.T) {
	t.Parallel()
	h := startMac(t, phonesim.IPhoneOptions{})
	s := openDevice(t, h).(*session)
	if _, err := s.Endpoint(t.Context()); err != nil {
		t.Fatal(err)
	}
	found, err := filepath.Glob(filepath.Join(s.dir, "wda-project-*", "WebDriverAgent.xcodeproj", "project.pbxproj"))
	if err != nil || len(found) != 1 {
		t.Fatalf("projects: %q %v", found, err)
	}
	text, err := os.ReadFile(found[0])
	if err != nil || strings.Contains(string(text), wdaName) || !strings.Contains(string(text), "dev.qgjob.team123456.WebDriverAgent") {
		t.Errorf("the project has no name of its own (%v)", err)
	}
}

// An app that is not signed for development keeps its data: each job then gets it installed anew.
func TestDataThatCannotBeRemoved(t *testing.T) {
	t.Parallel()
	h := startMac(t, phonesim.IPhoneOptions{})
	apps := newBuilds(t, h)
	b := apps.build(phonesim.App{Label: "one"})
	s := openDevice(t, h).(*session)
	bin := t.TempDir()
	script := "#!/bin/sh\ncase \"$*\" in *'device copy to'*) echo 'ERROR: The specified file service domain is not available.' >&2; exit 1;; esac\nexec '" + filepath.Join(h.Bin(), "xcrun") + "' \"$@\"\n"
	if err := os.WriteFile(filepath.Join(bin, "xcrun"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	s.t.(*phone).path = bin
	for range 2 {
		if did, err := s.Prepare(t.Context(), b); err != nil || !did.Installed {
			t.Errorf("%+v %v", did, err)
		}
	}
}

// WebDriverAgent that ends by itself in a test is an error with a name, told once; the next job has another.
func TestWebDriverAgentThatDies(t *testing.T) {
	t.Parallel()
	h := startMac(t, phonesim.IPhoneOptions{Simulator: true, Booted: true})
	apps := newBuilds(t, h)
	b := apps.build(phonesim.App{Label: "one"})
	s := inner(openDevice(t, h))
	for range 2 {
		if _, err := s.Prepare(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		e, err := s.Endpoint(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := devicetest.OpenSession(t.Context(), e, b); err != nil {
			t.Fatal(err)
		}
		wda := s.wda
		syscall.Kill(-wda.PID, syscall.SIGKILL)
		<-wda.Done()
		if err := s.Check(t.Context()); device.CauseOf(err) != qgjob.CauseSessionDied {
			t.Errorf("check: %v", err)
		}
		if err := errors.Join(s.Check(t.Context()), s.Release(t.Context())); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	}
}

// Each session that does not ask to keep them finds the app without data, and running anew.
func TestSessionsBeginAnew(t *testing.T) {
	for _, o := range []phonesim.IPhoneOptions{{}, {Simulator: true, Booted: true}} {
		t.Run(map[bool]string{true: "simulator", false: "iPhone"}[o.Simulator], func(t *testing.T) {
			t.Parallel()
			h := startMac(t, o)
			apps := newBuilds(t, h)
			b := apps.build(phonesim.App{Label: "one"})
			s := openDevice(t, h)
			if _, err := s.Prepare(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			e, err := s.Endpoint(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			counts := func() phonesim.Counts { return h.IPhone(h.udid).Ledger().Packages[testBundle] }
			for _, keep := range []bool{true, false, true} {
				before := counts()
				e.Capabilities["appium:noReset"] = keep
				if _, err := devicetest.OpenSession(t.Context(), e, b); err != nil {
					t.Fatal(err)
				}
				want := before
				want.Launches++
				if !keep {
					want.DataResets++
				}
				if diff := cmp.Diff(want, counts(), cmpopts.IgnoreFields(phonesim.Counts{}, "ForceStops")); diff != "" {
					t.Errorf("keep %v (-want +got)\n%s", keep, diff)
				}
			}
		})
	}
}

// An app that crashed in a session is told from one that runs, and from one that was never launched.
func TestAppThatCrashed(t *testing.T) {
	for _, o := range []phonesim.IPhoneOptions{{}, {Simulator: true, Booted: true}} {
		t.Run(map[bool]string{true: "simulator", false: "iPhone"}[o.Simulator], func(t *testing.T) {
			t.Parallel()
			h := startMac(t, o)
			apps := newBuilds(t, h)
			b := apps.build(phonesim.App{Label: "one"})
			s := openDevice(t, h)
			gone := func() string {
				t.Helper()
				words, err := s.(device.Witness).Gone(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				return words
			}
			if _, err := s.Prepare(t.Context(), b); err != nil {
				t.Fatal(err)
			}
			if words := gone(); words != "" {
				t.Errorf("before any session: %s", words)
			}
			e, err := s.Endpoint(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			id, err := devicetest.OpenSession(t.Context(), e, b)
			if err != nil {
				t.Fatal(err)
			}
			if words := gone(); words != "" {
				t.Errorf("while it runs: %s", words)
			}
			if err := h.IPhone(h.udid).SetFault(phonesim.Fault{Kind: phonesim.FaultAppCrash}); err != nil {
				t.Fatal(err)
			}
			if err := devicetest.Command(t.Context(), e, "DELETE", "/session/"+id, nil, nil); err != nil {
				t.Fatal(err)
			}
			if words := gone(); !strings.Contains(words, testBundle) {
				t.Errorf("after its crash: %q", words)
			}
		})
	}
}

// What a simulator leaves of an attempt, an iPhone does not: devicectl has no commands for it.
func TestWhoTellsItsLogAndRecords(t *testing.T) {
	for _, o := range []phonesim.IPhoneOptions{{}, {Simulator: true, Booted: true}} {
		s := openDevice(t, startMac(t, o))
		_, tells := s.(device.Chronicler)
		_, films := s.(device.Filmer)
		if tells != o.Simulator || films != o.Simulator {
			t.Errorf("a simulator (%v): tells its log %v, records its screen %v", o.Simulator, tells, films)
		}
	}
}

// A simulator's log is of the attempt, and what the app did is in it; the parts that came before it broke off are kept.
func TestLogOfASimulator(t *testing.T) {
	t.Parallel()
	h := startMac(t, phonesim.IPhoneOptions{Simulator: true, Booted: true})
	b := newBuilds(t, h).build(phonesim.App{Label: "one"})
	s := openDevice(t, h).(*simulatorSession)
	if _, err := s.Prepare(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	mark, err := s.MarkLog(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.simulator.simctl(t.Context(), "launch", testBundle); err != nil {
		t.Fatal(err)
	}
	if err := h.IPhone(h.udid).SetFault(phonesim.Fault{Kind: phonesim.FaultAppCrash}); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	if err := s.LogSince(t.Context(), mark, &log); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`(?m)^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} Df SpringBoard\[\d+:[0-9a-f]+\] .*` + testBundle + `.* Bootstrap success!$`,
		`(?m) E  one\[\d+:[0-9a-f]+\] \*\*\* Terminating app`,
	} {
		if !regexp.MustCompile(line).Match(log.Bytes()) {
			t.Errorf("there is no line %s in\n%s", line, &log)
		}
	}
	later := "@" + strconv.FormatInt(time.Now().Add(time.Hour).Unix(), 10)
	log.Reset()
	if err := s.LogSince(t.Context(), later, &log); err != nil || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("of a stretch without a line: %v\n%s", err, &log)
	}
	if err := s.LogSince(t.Context(), "yesterday", &log); device.CauseOf(err) != qgjob.CauseHostFailed {
		t.Errorf("of no mark: %v", err)
	}

	// A log that goes on for ever is ended with the patience of who waits for it, and what came before is there.
	bin := t.TempDir()
	script := "#!/bin/sh\necho first\nsleep 1000\n"
	if err := os.WriteFile(filepath.Join(bin, "xcrun"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	s.simulator.path = bin + string(filepath.ListSeparator) + os.Getenv("PATH")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	log.Reset()
	began := time.Now()
	if err := s.LogSince(ctx, mark, &log); !errors.Is(err, context.DeadlineExceeded) || log.String() != "first\n" {
		t.Errorf("of a log without an end: %v, %q", err, &log)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// A search for the Simulator app that takes another search for the app lets Appium shut the simulator down.
func TestTheSimulatorAppIsNotASearchForIt(t *testing.T) {
	for line, is := range map[string]bool{
		"/Applications/Xcode.app/Contents/Developer/Applications/Simulator.app/Contents/MacOS/Simulator": true,
		"pgrep -fn Simulator.app/Contents/MacOS/":                                                        false, // Appium's
		"pgrep -f " + simulatorApp:                                                                       false,
	} {
		if got := regexp.MustCompile(simulatorApp).MatchString(line); got != is {
			t.Errorf("%s: %v", line, got)
		}
	}
}

func TestBuildsThatCannotBeUnpacked(t *testing.T) {
	dir := t.TempDir()
	text := filepath.Join(dir, "text")
	if err := os.WriteFile(text, []byte("no archive"), 0o644); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	if _, err := z.Create("../../outside"); err != nil {
		t.Fatal(err)
	}
	z.Close()
	outside := filepath.Join(dir, "outside.zip")
	if err := os.WriteFile(outside, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	into := filepath.Join(dir, "app")
	for _, build := range []string{text, outside} {
		if _, _, err := unpack(build, into, true); device.CauseOf(err) != qgjob.CauseBadBuild {
			t.Errorf("%s: %v", build, err)
		}
		if _, err := os.Stat(into); err == nil {
			t.Errorf("%s left something", build)
		}
	}
}
