package appium_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"qgjob"
	"qgjob/internal/device"
	"qgjob/internal/device/appium"
	"qgjob/internal/device/devicetest"
)

// childInstall makes this test binary the process that TestServerDiesWithItsParent kills.
const childInstall = "QGJOB_TEST_APPIUM_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childInstall); dir != "" {
		beParent(dir)
	}
	goleak.VerifyTestMain(m)
}

func beParent(dir string) {
	in, err := appium.Ensure(context.Background(), dir, appium.Android, devicetest.Discard)
	if err == nil {
		var s *appium.Server
		if s, err = in.Start(context.Background(), appium.Options{LogPath: os.Args[1] + "/log", TempDir: os.Args[1]}); err == nil {
			fmt.Println(s.PID())
			select {}
		}
	}
	fmt.Println(err)
	os.Exit(1)
}

func install(t *testing.T) *appium.Install {
	t.Helper()
	in, err := appium.Ensure(t.Context(), devicetest.AppiumDir(t), appium.Android, devicetest.Log(t))
	if err != nil {
		t.Fatal(err)
	}
	return in
}

func options(t *testing.T) appium.Options {
	dir := t.TempDir()
	return appium.Options{LogPath: filepath.Join(dir, "appium.log"), TempDir: filepath.Join(dir, "tmp")}
}

func start(t *testing.T) *appium.Server {
	t.Helper()
	s, err := install(t).Start(t.Context(), options(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func wantGone(t *testing.T, pid int) {
	t.Helper()
	devicetest.Eventually(t, 5*time.Second, "the server's process group is gone", func() bool { return devicetest.GroupGone(pid) })
}

// An install that was interrupted, and two workers that then begin at once, end in one whole install.
func TestEnsureAfterInterruption(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := appium.Ensure(ctx, dir, appium.Android, devicetest.Log(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("interrupted install: %v", err)
	}
	leftover := filepath.Join(dir, "installing-by-one-who-was-killed")
	if err := os.MkdirAll(filepath.Join(leftover, "node_modules"), 0o755); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	installs := make([]*appium.Install, 2)
	for i := range installs {
		wg.Go(func() {
			var err error
			if installs[i], err = appium.Ensure(t.Context(), dir, appium.Android, devicetest.Log(t)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	if installs[0].Dir != installs[1].Dir {
		t.Errorf("two installs: %s and %s", installs[0].Dir, installs[1].Dir)
	}
	if _, err := os.Stat(leftover); err == nil {
		t.Error("what the interrupted install left is still there")
	}
	s, err := installs[0].Start(t.Context(), options(t))
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

func TestNodeIsMissingOrTooOld(t *testing.T) {
	for name, script := range map[string]string{"missing": "", "too old": "#!/bin/sh\necho v18.20.4\n", "broken": "#!/bin/sh\nexit 1\n"} {
		t.Run(name, func(t *testing.T) {
			bin := t.TempDir()
			if script != "" {
				if err := os.WriteFile(filepath.Join(bin, "node"), []byte(script), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			t.Setenv("PATH", bin)
			_, err := appium.Ensure(t.Context(), t.TempDir(), appium.Android, devicetest.Log(t))
			if f, ok := errors.AsType[*device.Failure](err); !ok || f.Cause != qgjob.CauseHostFailed || !strings.Contains(f.Message, "install Node.js 20 or newer") {
				t.Errorf("error %v", err)
			}
		})
	}
}

func TestNpmFails(t *testing.T) {
	bin := t.TempDir()
	for name, script := range map[string]string{"node": "#!/bin/sh\necho v20.0.0\n", "npm": "#!/bin/sh\necho no route to the registry; exit 1\n"} {
		if err := os.WriteFile(filepath.Join(bin, name), []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", bin+":/bin:/usr/bin")
	dir := t.TempDir()
	_, err := appium.Ensure(t.Context(), dir, appium.Android, devicetest.Log(t))
	if f, ok := errors.AsType[*device.Failure](err); !ok || f.Cause != qgjob.CauseHostFailed || !strings.Contains(f.Message, "no route to the registry") {
		t.Errorf("error %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*ing-*")); len(left) > 0 {
		t.Errorf("left %v", left)
	}
}

func TestServersLiveSideBySideAndEndWhole(t *testing.T) {
	t.Parallel()
	one, other := start(t), start(t)
	if one.URL == other.URL {
		t.Fatalf("both are at %s", one.URL)
	}
	for range 2 {
		one.Close()
	}
	select {
	case <-one.Done():
	default:
		t.Error("a closed server is not done")
	}
	wantGone(t, one.PID())
	if one.Healthy(t.Context()) == nil {
		t.Error("a closed server is healthy")
	}
	if err := other.Healthy(t.Context()); err != nil {
		t.Errorf("the other server: %v", err)
	}
}

func TestKilledServerIsDone(t *testing.T) {
	t.Parallel()
	s := start(t)
	syscall.Kill(s.PID(), syscall.SIGKILL)
	select {
	case <-s.Done():
	case <-time.After(5 * time.Second):
		t.Fatal("nobody noticed")
	}
	wantGone(t, s.PID())
	s.Close()
}

// Whoever takes the port of a server that has ended is not that server.
func TestEndedServerIsNotTakenForAnother(t *testing.T) {
	t.Parallel()
	s := start(t)
	syscall.Kill(s.PID(), syscall.SIGKILL)
	<-s.Done()
	asked := make(chan string, 10)
	other := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r.URL.Path
		io.WriteString(w, `{"value":{"ready":true}}`)
	}))
	other.Listener.Close()
	var err error
	if other.Listener, err = net.Listen("tcp", strings.TrimPrefix(s.Direct(), "http://")); err != nil {
		t.Skipf("another test took the port first: %v", err)
	}
	other.Start()
	defer other.Close()
	if err := s.Healthy(t.Context()); err == nil {
		t.Error("a server that has ended is healthy")
	}
	if n, err := s.EndSessions(t.Context(), ""); err == nil {
		t.Errorf("ended %d sessions", n)
	}
	if len(asked) > 0 {
		t.Errorf("the other server was asked for %s", <-asked)
	}
}

// A server that does not react to SIGTERM is killed.
func TestHungServerIsKilled(t *testing.T) {
	t.Parallel()
	s := start(t)
	syscall.Kill(s.PID(), syscall.SIGSTOP)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if s.Healthy(ctx) == nil {
		t.Error("a hung server is healthy")
	}
	s.Close()
	wantGone(t, s.PID())
}

func TestServerDiesWithItsParent(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(self, t.TempDir())
	parent.Env = append(os.Environ(), childInstall+"="+devicetest.AppiumDir(t))
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatalf("the parent says: %s", line)
	}
	if devicetest.GroupGone(pid) {
		t.Fatal("the server is not there")
	}
	parent.Process.Kill()
	parent.Wait()
	wantGone(t, pid)
}

func TestTakenPortIsToldFromOtherFailures(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken, err := install(t).StartOn(t.Context(), options(t), l.Addr().(*net.TCPAddr).Port)
	if !taken {
		t.Errorf("error %v", err)
	}
}

// What is in a worker's environment for its own sake does not reach Appium.
func TestForeignEnvironmentDoesNotReachAppium(t *testing.T) {
	in := install(t)
	t.Setenv("NODE_OPTIONS", "--require=/no/such/file")
	s, err := in.Start(t.Context(), options(t))
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
}

func TestStartEndsWithItsContext(t *testing.T) {
	t.Parallel()
	in := install(t)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := in.Start(ctx, options(t)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
}

func TestLogIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	l, err := appium.OpenLog(path, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 1000 {
		fmt.Fprintf(l, "line %d\n", i)
	}
	l.Close()
	last, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(path + ".1")
	if err != nil {
		t.Fatal(err)
	}
	if len(last) > 1100 || len(before) > 1100 {
		t.Errorf("the log has %d and %d bytes", len(last), len(before))
	}
	if !bytes.HasSuffix(append(before, last...), []byte("line 998\nline 999\n")) {
		t.Errorf("the last lines are missing: %s", last)
	}
}
