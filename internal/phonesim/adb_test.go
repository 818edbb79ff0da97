package phonesim

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// adbServer is a private adb server, so that no test meets the phones of the machine or another test's.
type adbServer struct {
	t    *testing.T
	port string
	home string
}

func startADB(t *testing.T) *adbServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	s := &adbServer{t: t, port: port, home: t.TempDir()}
	ready, writeEnd, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ready.Close() }()
	cmd := exec.Command("adb", "-L", "tcp:localhost:"+port, "fork-server", "server", "--reply-fd", "3")
	cmd.Env = s.env()
	cmd.ExtraFiles = []*os.File{writeEnd}
	if err := cmd.Start(); err != nil {
		t.Fatalf("these tests need adb: %v", err)
	}
	_ = writeEnd.Close()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	answer := make([]byte, 3)
	if _, err := io.ReadFull(ready, answer); err != nil || string(answer) != "OK\n" {
		t.Fatalf("adb server: %q, %v", answer, err)
	}
	return s
}

func (s *adbServer) env() []string {
	return append(os.Environ(), "HOME="+s.home, "ANDROID_ADB_SERVER_PORT="+s.port, "TMPDIR="+s.home, "ADB_TRACE=")
}

// run runs adb and returns what it prints and its exit code. A command that takes longer than half a minute fails the test.
func (s *adbServer) run(args ...string) (string, int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "adb", args...)
	cmd.Env = s.env()
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if ctx.Err() != nil {
		s.t.Fatalf("adb %s: took too long: %s", strings.Join(args, " "), out.String())
	}
	if err != nil && cmd.ProcessState == nil {
		s.t.Fatal(err)
	}
	return out.String(), cmd.ProcessState.ExitCode()
}

func (s *adbServer) connect(p *Phone) {
	s.t.Helper()
	// adb may have come back to a phone by itself, and then says that it is already connected.
	if out, _ := s.run("connect", p.Addr()); !strings.Contains(out, "connected to") {
		s.t.Fatalf("adb connect: %s", out)
	}
	s.expect(p, "", 0, "wait-for-device")
}

// on runs adb for one phone.
func (s *adbServer) on(p *Phone, args ...string) (string, int) {
	s.t.Helper()
	return s.run(append([]string{"-s", p.Addr()}, args...)...)
}

func (s *adbServer) expect(p *Phone, want string, code int, args ...string) {
	s.t.Helper()
	out, got := s.on(p, args...)
	if !strings.Contains(out, want) || got != code {
		s.t.Errorf("adb %s: exit %d, want %d; printed %q, want %q in it", strings.Join(args, " "), got, code, out, want)
	}
}

func connectedPhone(t *testing.T, o Options) (*adbServer, *Phone) {
	t.Helper()
	p := startPhone(t, o)
	s := startADB(t)
	s.connect(p)
	return s, p
}

func TestShell(t *testing.T) {
	s, p := connectedPhone(t, Options{Serial: "R5CT10", Model: "Pixel 8", OSVersion: "13"})
	for _, tt := range []struct {
		line, want string
		code       int
	}{
		{"getprop ro.serialno", "R5CT10\n", 0},
		{"getprop ro.product.model", "Pixel 8\n", 0},
		{"getprop ro.build.version.sdk", "33\n", 0},
		{"getprop sys.boot_completed", "1\n", 0},
		{"getprop ro.kernel.qemu", "\n", 0},
		{"exit 7", "", 7},
		{"false", "", 1},
		{"false || echo no", "no\n", 0},
		{"true && echo yes; false; echo $?", "yes\n1\n", 0},
		{"echo 'a  b' \"c$?\" d\\ e", "a  b c0 d e\n", 0},
		{"echo one | grep -c one", "1\n", 0},
		{"frobnicate -x", "/system/bin/sh: frobnicate: inaccessible or not found\n", 127},
		{"frobnicate 2>/dev/null; echo $?", "127\n", 0},
		{"ls /nowhere 2>&1 || echo missing", "ls: /nowhere: No such file or directory\nmissing\n", 0},
		{"echo hi > /data/local/tmp/f; cat /data/local/tmp/f; [ -e /data/local/tmp/f ] && echo there", "hi\nthere\n", 0},
		{"(", "/system/bin/sh: syntax error: unexpected '('\n", 1},
		{"settings put global x 1; settings get global x; settings get global y", "1\nnull\n", 0},
		{"wm size", "Physical size: 1080x2340\n", 0},
		{"dumpsys battery | grep level", "  level: 100\n", 0},
		{"date +%s | wc -l", "1\n", 0},
	} {
		out, code := s.on(p, "shell", tt.line)
		equal(t, tt.line, out, tt.want)
		equal(t, tt.line+": exit code", code, tt.code)
	}
	s.expect(p, "device product:simphone model:Pixel_8", 0, "devices", "-l")
	s.expect(p, "cannot run as root", 0, "root")
}

func TestOldShellProtocolAndStandardInput(t *testing.T) {
	s, p := connectedPhone(t, Options{})
	s.expect(p, "no\n", 0, "shell", "-x", "false; echo no")
	cmd := exec.CommandContext(t.Context(), "adb", "-s", p.Addr(), "shell", "cat")
	cmd.Env = s.env()
	cmd.Stdin = strings.NewReader(strings.Repeat("x", 3<<20))
	out, err := cmd.Output()
	if err != nil || len(out) != 3<<20 {
		t.Errorf("cat of 3 MiB of standard input: %d bytes, %v", len(out), err)
	}
}

func TestEmulator(t *testing.T) {
	s, p := connectedPhone(t, Options{Emulator: true})
	s.expect(p, "1\n1\nranchu\n", 0, "shell", "getprop ro.kernel.qemu; getprop ro.boot.qemu; getprop ro.hardware")
}

func TestPushAndPull(t *testing.T) {
	s, p := connectedPhone(t, Options{})
	dir := t.TempDir()
	content := make([]byte, 5<<20+17)
	seeded := rand.NewChaCha8([32]byte{1})
	if _, err := seeded.Read(content); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "tree", "sub"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"big": content, "tree/empty": nil, "tree/sub/small": []byte("small")} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s.expect(p, "1 file pushed", 0, "push", filepath.Join(dir, "big"), "/data/local/tmp/")
	s.expect(p, fmt.Sprintf("%x", sha256.Sum256(content)), 0, "shell", "sha256sum /data/local/tmp/big")
	s.expect(p, "1 file pulled", 0, "pull", "/data/local/tmp/big", filepath.Join(dir, "back"))
	back, err := os.ReadFile(filepath.Join(dir, "back"))
	if err != nil || !bytes.Equal(back, content) {
		t.Errorf("pulled %d bytes, %v: not what was pushed", len(back), err)
	}
	s.expect(p, "2 files pushed", 0, "push", filepath.Join(dir, "tree"), "/sdcard/Download/")
	s.expect(p, "2 files pulled", 0, "pull", "/sdcard/Download/tree", filepath.Join(dir, "tree2"))
	if b, err := os.ReadFile(filepath.Join(dir, "tree2", "sub", "small")); err != nil || string(b) != "small" {
		t.Errorf("pulled tree: %q, %v", b, err)
	}
	s.expect(p, "Permission denied", 1, "push", filepath.Join(dir, "big"), "/system/bin/x")
	s.expect(p, "does not exist", 1, "pull", "/data/local/tmp/none", dir)
}

func writeAPK(t *testing.T, a App) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "app.apk")
	if err := os.WriteFile(name, buildAPK(t, a), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestInstall(t *testing.T) {
	s, p := connectedPhone(t, Options{})
	a := parseApp(t, shopJSON)
	v3 := writeAPK(t, a)
	a.VersionCode, a.VersionName = 4, "1.3"
	v4 := writeAPK(t, a)

	s.expect(p, "Success", 0, "install", v3)
	s.expect(p, "Success", 0, "install", "-r", "--no-streaming", v4)
	s.expect(p, "Failure [INSTALL_FAILED_VERSION_DOWNGRADE", 1, "install", "-r", v3)
	s.expect(p, "package:com.example.shop\n", 0, "shell", "pm list packages -3")
	s.expect(p, "versionCode=4 minSdk=21 targetSdk=34", 0, "shell", "dumpsys package com.example.shop")
	s.expect(p, "versionName=1.3", 0, "shell", "dumpsys package com.example.shop | grep versionName")
	s.expect(p, "lastUpdateTime=", 0, "shell", "dumpsys package com.example.shop")
	s.expect(p, "com.example.shop/com.example.shop.MainActivity\n", 0, "shell", "cmd package resolve-activity --brief com.example.shop")

	path, _ := s.on(p, "shell", "pm path com.example.shop")
	pulled := filepath.Join(t.TempDir(), "pulled.apk")
	s.expect(p, "1 file pulled", 0, "pull", strings.TrimSpace(strings.TrimPrefix(path, "package:")), pulled)
	want, err := os.ReadFile(v4)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(pulled); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the APK pulled is not the one installed: %v", err)
	}
	l := p.Ledger()
	equal(t, "SHA-256", l.Installed[shop].SHA256, fmt.Sprintf("%x", sha256.Sum256(want)))
	equal(t, "counts", l.Apps, Counts{Installs: 2, FailedInstalls: 1})

	s.expect(p, "Success", 0, "uninstall", shop)
	s.expect(p, "Failure", 1, "uninstall", shop)
	equal(t, "installed", len(p.Ledger().Installed), 0)
}

func TestBrokenAPKs(t *testing.T) {
	s, p := connectedPhone(t, Options{OSVersion: "9"})
	for _, tt := range []struct {
		name, want string
		content    []byte
	}{
		{"text", "INSTALL_PARSE_FAILED_NOT_APK", []byte("not a zip")},
		{"empty", "INSTALL_PARSE_FAILED_NOT_APK", nil},
		{"cut", "INSTALL_PARSE_FAILED_NOT_APK", buildAPK(t, parseApp(t, shopJSON))[:500]},
		{"newer", "INSTALL_FAILED_OLDER_SDK", buildAPK(t, App{Package: "com.example.newer", MinSDK: 33})},
		{"intel", "INSTALL_FAILED_NO_MATCHING_ABIS", buildAPK(t, App{Package: "com.example.intel", ABIs: []string{"x86", "x86_64"}})},
	} {
		name := filepath.Join(t.TempDir(), tt.name+".apk")
		if err := os.WriteFile(name, tt.content, 0o644); err != nil {
			t.Fatal(err)
		}
		s.expect(p, tt.want, 1, "install", name)
	}
	equal(t, "counts", p.Ledger().Totals, Counts{FailedInstalls: 5})
}

func TestInstallTakesItsTimeButNotForHelpers(t *testing.T) {
	const takes = 400 * time.Millisecond
	s, p := connectedPhone(t, Options{InstallTime: takes})
	started := time.Now()
	s.expect(p, "Success", 0, "install", writeAPK(t, App{Package: "com.example.app"}))
	if took := time.Since(started); took < takes {
		t.Errorf("the install of an app took %v, less than %v", took, takes)
	}
	slow := startPhone(t, Options{InstallTime: time.Hour})
	if _, err := slow.install(buildAPK(t, App{Package: "io.appium.settings"}), installFlags{}); err != nil {
		t.Fatal(err)
	}
	l := slow.Ledger()
	equal(t, "installs of helpers and apps", [2]int{l.Totals.Installs, l.Apps.Installs}, [2]int{1, 0})
}

func TestSeveralPhones(t *testing.T) {
	s := startADB(t)
	apk := writeAPK(t, parseApp(t, shopJSON))
	var phones []*Phone
	for i := range 3 {
		p := startPhone(t, Options{Serial: "P" + strconv.Itoa(i)})
		s.connect(p)
		phones = append(phones, p)
	}
	s.expect(phones[1], "Success", 0, "install", apk)
	for i, p := range phones {
		s.expect(p, "P"+strconv.Itoa(i)+"\n", 0, "shell", "getprop ro.serialno")
		equal(t, "installs", p.Ledger().Totals.Installs, map[bool]int{true: 1}[i == 1])
	}
}

func TestOffline(t *testing.T) {
	s, p := connectedPhone(t, Options{})
	s.expect(p, "ok", 0, "shell", "echo ok")
	if err := p.SetFault(Fault{Kind: FaultOffline}); err != nil {
		t.Fatal(err)
	}
	if out, code := s.on(p, "shell", "echo ok"); code == 0 {
		t.Errorf("a phone off adb answered %q", out)
	}
	if out, _ := s.run("connect", p.Addr()); strings.HasPrefix(out, "connected to") {
		t.Errorf("a phone off adb was connected: %s", out)
	}
	p.ClearFaults()
	s.connect(p)
	s.expect(p, "ok", 0, "shell", "echo ok")
}

func TestOfflineForAWhile(t *testing.T) {
	s, p := connectedPhone(t, Options{})
	if err := p.SetFault(Fault{Kind: FaultOffline, DurationMS: 300}); err != nil {
		t.Fatal(err)
	}
	// adb connects again by itself. Until it has noticed the cut, there is a device to it that does not answer.
	for start := time.Now(); ; {
		s.expect(p, "", 0, "wait-for-device")
		out, code := s.on(p, "shell", "echo ok")
		if code == 0 {
			equal(t, "answer", out, "ok\n")
			return
		}
		if time.Since(start) > 20*time.Second {
			t.Fatalf("the phone is not back after %v: %s", time.Since(start), out)
		}
	}
}

func TestHang(t *testing.T) {
	s, p := connectedPhone(t, Options{})
	if err := p.SetFault(Fault{Kind: FaultHang}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, "adb", "-s", p.Addr(), "shell", "echo ok")
	cmd.Env = s.env()
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		t.Errorf("a hanging phone answered %q, %v", out.String(), err)
	case <-time.After(300 * time.Millisecond):
	}
	p.ClearFault(FaultHang)
	if err := <-done; err != nil || out.String() != "ok\n" {
		t.Errorf("after the hang: %q, %v", out.String(), err)
	}
	cancel()
}

func TestClosingAHangingPhone(t *testing.T) {
	s, p := connectedPhone(t, Options{})
	if err := p.SetFault(Fault{Kind: FaultHang}); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, code := s.on(p, "shell", "echo ok"); code == 0 {
		t.Error("a phone that is off answered")
	}
}

func TestReboot(t *testing.T) {
	s, p := connectedPhone(t, Options{})
	s.expect(p, "Success", 0, "install", writeAPK(t, parseApp(t, shopJSON)))
	s.expect(p, "", 0, "shell", "am start -n com.example.shop/.MainActivity")
	s.expect(p, "", 0, "reboot")
	equal(t, "in front", p.State().Foreground, launcherPackage)
	s.expect(p, "", 0, "wait-for-disconnect")
	s.expect(p, "", 0, "wait-for-device")
	for booted := ""; booted != "1\n"; {
		booted, _ = s.on(p, "shell", "getprop sys.boot_completed")
		if booted != "\n" && booted != "1\n" {
			t.Fatalf("sys.boot_completed is %q", booted)
		}
	}
	s.expect(p, "package:com.example.shop", 0, "shell", "pm list packages -3")
}

func TestBooting(t *testing.T) {
	p := startPhone(t, Options{})
	equal(t, "before", p.shell(t, "getprop sys.boot_completed; getprop init.svc.bootanim"), "1\nstopped\n")
	p.reboot()
	equal(t, "booting", p.shell(t, "getprop sys.boot_completed; getprop init.svc.bootanim"), "\nrunning\n")
	equal(t, "booted", p.State().Booted, false)
}

func TestLogcat(t *testing.T) {
	s, p := connectedPhone(t, Options{})
	s.expect(p, "Success", 0, "install", writeAPK(t, parseApp(t, shopJSON)))
	s.expect(p, "", 0, "shell", "am start -n com.example.shop/.MainActivity")
	s.expect(p, "Start proc", 0, "logcat", "-d")
	s.expect(p, "Displayed com.example.shop/.MainActivity", 0, "logcat", "-d", "-v", "threadtime")
	s.expect(p, "", 0, "logcat", "-c")
	out, _ := s.on(p, "logcat", "-d")
	equal(t, "log after it was cleared", out, "--------- beginning of main\n")
}

func TestScreencap(t *testing.T) {
	s, p := connectedPhone(t, Options{})
	out, _ := s.on(p, "exec-out", "screencap", "-p")
	if out != string(p.Screenshot()) {
		t.Errorf("screencap gave %d bytes that are not the screenshot", len(out))
	}
}

// TestSessionOverADB starts the UiAutomator2 server as Appium does, and lets it die.
func TestSessionOverADB(t *testing.T) {
	s, p := connectedPhone(t, Options{})
	r := openApp(t, p, parseApp(t, shopJSON))
	r.ok("DELETE", "", nil)
	p.killInstrumentation("the test wants it run over adb")

	cmd := exec.CommandContext(t.Context(), "adb", "-s", p.Addr(), "shell", "am", "instrument", "-w", "-e", "disableAnalytics", "true",
		uiautomatorTest+"/androidx.test.runner.AndroidJUnitRunner")
	cmd.Env = s.env()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := stdout.Read(make([]byte, 10)); err != nil { // its first line comes when the server listens
		t.Fatal(err)
	}
	port, _ := s.on(p, "forward", "tcp:0", "tcp:6790")
	base := "http://127.0.0.1:" + strings.TrimSpace(port)
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	post := func(path, body string) (map[string]any, error) {
		answer, err := client.Post(base+path, "application/json", strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		defer func() { _ = answer.Body.Close() }()
		var v map[string]any
		return v, json.NewDecoder(answer.Body).Decode(&v)
	}
	opened, err := post("/session", `{"capabilities": {}}`)
	if err != nil {
		t.Fatal(err)
	}
	session := "/session/" + opened["value"].(map[string]any)["sessionId"].(string)
	if err := p.SetFault(Fault{Kind: FaultSessionDies, AfterCommands: 2}); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		if _, err := post(session+"/elements", `{"strategy": "id", "selector": "login"}`); err != nil {
			t.Fatalf("command %d: %v", i+1, err)
		}
	}
	if v, err := post(session+"/elements", `{"strategy": "id", "selector": "login"}`); err == nil {
		t.Errorf("the server answered after its death: %v", v)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("am instrument: %v", err)
	}
	l := p.Ledger()
	equal(t, "sessions", [2]int{l.SessionsOpened, l.SessionsClosed}, [2]int{2, 2})
	equal(t, "instrumentation runs", l.InstrumentationRunning, false)
	equal(t, "faults left", len(p.Faults()), 0)
	equal(t, "the app still runs", p.State().Foreground, shop)
	if _, err := post("/session", "{}"); err == nil {
		t.Error("the port answers without an instrumentation")
	}
}
