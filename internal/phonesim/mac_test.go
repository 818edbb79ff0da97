package phonesim

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// tool is a run of one of a Mac's programs.
type tool struct {
	out, errOut output
	signal      os.Signal
	ended       chan int
	interrupt   context.CancelFunc
}

// output is what a program that runs has printed.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(b)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

func startTool(t *testing.T, m *Mac, args ...string) *tool {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &tool{ended: make(chan int, 1), interrupt: cancel}
	go func() {
		code, err := RunMacTool(ctx, func() os.Signal { return r.signal }, append([]string{m.address}, args...), os.Getenv, &r.out, &r.errOut)
		if err != nil {
			t.Error(err)
		}
		r.ended <- code
	}()
	return r
}

func runTool(t *testing.T, m *Mac, args ...string) (code int, out, errOut string) {
	t.Helper()
	r := startTool(t, m, args...)
	defer r.interrupt()
	code = <-r.ended
	return code, r.out.String(), r.errOut.String()
}

func (r *tool) says(t *testing.T, words string) {
	t.Helper()
	for range 500 {
		if strings.Contains(r.errOut.String(), words) {
			return
		}
		select {
		case code := <-r.ended:
			t.Fatalf("it ended with %d: %s", code, r.errOut.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
	t.Fatalf("it never says %q: %s", words, r.errOut.String())
}

func macOfSimulators(t *testing.T) (m *Mac, one, other string) {
	t.Helper()
	one, other = NewUDID(true), NewUDID(true)
	m, err := StartMac(MacOptions{Dir: t.TempDir(), Program: []string{"false"}, IPhones: []IPhoneOptions{
		{UDID: one, Simulator: true, Booted: true}, {UDID: other, Simulator: true, Booted: true},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Close()
		http.DefaultClient.CloseIdleConnections()
	})
	return m, one, other
}

// A recording is written when it is interrupted, and only then.
func TestRecordVideo(t *testing.T) {
	m, one, other := macOfSimulators(t)
	for name, c := range map[string]struct {
		signal os.Signal
		early  bool // before it records
		writes bool
	}{
		"interrupted":       {syscall.SIGINT, false, true},
		"interrupted early": {syscall.SIGINT, true, false},
		"terminated":        {syscall.SIGTERM, false, false},
	} {
		file := filepath.Join(t.TempDir(), "video.mp4")
		r := startTool(t, m, "xcrun", "simctl", "io", one, "recordVideo", "--codec=h264", "--force", file)
		if !c.early {
			r.says(t, "Recording started\n")
			if text, err := os.ReadFile(file); err != nil || len(text) > 0 {
				t.Errorf("%s: while it records, the file is %q, %v", name, text, err)
			}
			if code, _, errOut := runTool(t, m, "xcrun", "simctl", "io", other, "recordVideo", filepath.Join(t.TempDir(), "v")); code != 16 || !strings.Contains(errOut, "already in progress") {
				t.Errorf("a second recording: exit %d: %s", code, errOut)
			}
		}
		r.signal = c.signal
		if c.early {
			for range 500 { // until the program runs
				if _, err := os.Stat(file); err == nil {
					break
				}
				time.Sleep(time.Millisecond)
			}
		}
		r.interrupt()
		code := <-r.ended
		text, err := os.ReadFile(file)
		if err != nil || (len(text) > 0) != c.writes || (code == 0) != c.writes || strings.Contains(r.out.String(), "Wrote video to: "+file) != c.writes {
			t.Errorf("%s: exit %d, the file is %q, %v; it says %s", name, code, text, err, r.out.String())
		}
	}
}

func TestWhatSimctlRefuses(t *testing.T) {
	m, one, _ := macOfSimulators(t)
	there := filepath.Join(t.TempDir(), "there")
	if err := os.WriteFile(there, []byte("a film"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{
		"io " + one + " recordVideo --codec=h264 " + there,
		"io " + one + " recordVideo --codec=av1 --force " + there,
		"io " + one + " recordVideo --codec=h264 --force",
		"io " + one + " recordVideo --loud --force " + there,
		"io " + one + " playVideo " + there,
		"io " + one,
		"spawn " + one + " log show --style compact --start yesterday",
		"spawn " + one + " log show --style pretty --start @1",
		"spawn " + one + " log show --style compact --begin @1",
		"spawn " + one + " log show --start",
		"spawn " + one + " reboot",
	} {
		code, out, errOut := runTool(t, m, append([]string{"xcrun", "simctl"}, strings.Fields(args)...)...)
		if code == 0 || out != "" || errOut == "" {
			t.Errorf("simctl %s: exit %d: %s%s", args, code, out, errOut)
		}
	}
	if text, err := os.ReadFile(there); err != nil || string(text) != "a film" {
		t.Errorf("what was there is %q, %v", text, err)
	}
}

// `log show` tells what is kept by default: of debugging, only when it is told to.
func TestLogShow(t *testing.T) {
	m, one, _ := macOfSimulators(t)
	d := m.iphone(one)
	d.mu.Lock()
	for i, level := range []byte("VDIWEF") {
		d.logcat.write(time.Unix(int64(1000+i), 0), 7, level, "Shop", string(level)+" happened")
	}
	d.mu.Unlock()
	for args, want := range map[string]string{
		"--start @0":            "Df I|Df W|E  E|F  F",
		"--start @1003":         "Df W|E  E|F  F",
		"--start @1003.5":       "E  E|F  F",
		"--start @2000":         "",
		"--debug --start @1001": "Db D|Df I|Df W|E  E|F  F",
	} {
		code, out, errOut := runTool(t, m, append([]string{"xcrun", "simctl", "spawn", one, "log", "show", "--style", "compact"}, strings.Fields(args)...)...)
		if code != 0 {
			t.Fatalf("%s: exit %d: %s", args, code, errOut)
		}
		var got []string
		for _, line := range strings.Split(strings.TrimSpace(out), "\n")[1:] {
			if _, rest, ok := strings.Cut(line, ".000 "); ok && strings.Contains(rest, " Shop[7:7] ") {
				got = append(got, strings.TrimSuffix(strings.Replace(rest, " Shop[7:7] ", " ", 1), " happened"))
			}
		}
		if strings.Join(got, "|") != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
}
