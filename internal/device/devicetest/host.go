package devicetest

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"qgjob/internal/device/adb"
	"qgjob/internal/device/appium"
)

// ADBServer starts an adb server for one test, on a port of its own, and ends it with the test. The host's
// own server and what is plugged into it are not touched. The test fails where adb is missing.
func ADBServer(t testing.TB) (port int) {
	t.Helper()
	path, err := exec.LookPath("adb")
	if err != nil {
		t.Fatalf("these tests need adb (Debian, Ubuntu: apt install adb; macOS: brew install android-platform-tools): %v", err)
	}
	port = freePort(t)
	cmd := exec.Command(path, "-P", strconv.Itoa(port), "server", "nodaemon")
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "ANDROID_ADB_SERVER_PORT="+strconv.Itoa(port))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cmd.Wait()
	}()
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
	})
	client := adb.Client{Port: port}
	Eventually(t, 10*time.Second, "the adb server answers", func() bool {
		select {
		case <-ended:
			t.Fatalf("the adb server ended: %s", out.String())
		default:
		}
		_, err := client.Version(t.Context())
		return err == nil
	})
	return port
}

// AppiumDir is the directory of an install of Appium that all tests of this checkout share. The first that
// asks for it installs, which takes npm and half a minute.
func AppiumDir(t testing.TB) string { return appiumDir(t, appium.Android) }

// AppiumDirIOS is AppiumDir with the driver for iPhones.
func AppiumDirIOS(t testing.TB) string { return appiumDir(t, appium.IOS) }

func appiumDir(t testing.TB, edition appium.Edition) string {
	t.Helper()
	dir := filepath.Join(root(t), ".cache", "qgjob", "appium")
	if _, err := appium.Ensure(t.Context(), dir, edition, Log(t)); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Log is a logger into the test's output.
func Log(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Discard is a logger for where no test is.
var Discard = slog.New(slog.DiscardHandler)

// Eventually fails the test when a condition does not come true within a bound.
func Eventually(t testing.TB, within time.Duration, what string, is func() bool) {
	t.Helper()
	deadline := time.NewTimer(within)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}

// GroupGone says whether no process of a process group is left.
func GroupGone(pgid int) bool { return errors.Is(syscall.Kill(-pgid, 0), syscall.ESRCH) }

// root is the directory of the module's go.mod.
func root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("the tests run outside of the module")
		}
		dir = parent
	}
}

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
