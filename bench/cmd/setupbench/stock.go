package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// stockPort is the adb server's that stock AppWright uses, whatever it is told.
const stockPort = "5037"

// driverVersion is that of Appium's driver that fits the Appium which AppWright brings along.
const driverVersion = "3.10.0"

// stock runs the specs with AppWright as npm has it, with what it needs to run on Linux at all: an Android SDK made of
// Debian's aapt and apksigner and a name of an emulator, Appium's driver installed once, and an npx that spares it
// the removal of that driver before each test (the newest, which it would install, needs another Appium) and ends the
// Appium that the test before left on the port, as later versions of AppWright do themselves.
func (b *bench) stock(ctx context.Context) (m measured, err error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	if c, err := net.Dial("tcp", "127.0.0.1:"+stockPort); err == nil {
		c.Close()
		return m, fmt.Errorf("an adb server runs on port %s, which stock AppWright would use with all its devices: end it (adb kill-server)", stockPort)
	}
	project, err := b.project("stock", b.specs, shortSpec)
	if err != nil {
		return m, err
	}
	env, err := b.stockHost(ctx, project)
	if err != nil {
		return m, err
	}
	adb := exec.Command("adb", "-P", stockPort, "nodaemon", "server")
	adb.Env = append(env, "ADB_USB=0", "ADB_EMU=0", "ADB_MDNS=0", "ADB_LOCAL_TRANSPORT_MAX_PORT=5553")
	phone := exec.Command(b.qgjob, "phone", "--emulator", "--install-time="+b.install.String(), "--listen=127.0.0.1:0", "--control=127.0.0.1:0")
	stdout, err := phone.StdoutPipe()
	if err != nil {
		return m, err
	}
	for _, cmd := range []*exec.Cmd{phone, adb} {
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			return m, err
		}
		defer func() {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
			_ = cmd.Wait()
		}()
	}
	said := make([]byte, 4096)
	n, err := stdout.Read(said)
	if err != nil {
		return m, err
	}
	where := control.FindSubmatch(said[:n])
	_, address, found := strings.Cut(string(said[:n]), "adb 127.0.0.1:")
	if where == nil || !found {
		return m, fmt.Errorf("the phone said %q", said[:n])
	}
	address, _, _ = strings.Cut(address, " ")
	if err := connect(ctx, "127.0.0.1:"+address); err != nil {
		return m, err
	}

	test := exec.CommandContext(ctx, "npx", "appwright", "test", "--project", "emulator", "--workers", "1", "--retries", "0", "--reporter", "line")
	test.Dir, test.Env = project, env
	test.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	test.Cancel = func() error { return syscall.Kill(-test.Process.Pid, syscall.SIGKILL) }
	var out bytes.Buffer
	test.Stdout, test.Stderr = &out, &out
	test.WaitDelay = 5 * time.Second
	m = measured{phones: 1, specs: b.specs}
	began := time.Now()
	if err := test.Start(); err != nil {
		return m, err
	}
	memory := watchMemory(test.Process.Pid)
	err = test.Wait()
	_ = syscall.Kill(-test.Process.Pid, syscall.SIGKILL) // the last Appium, which it leaves
	m.wall, m.memory = time.Since(began), memory.stop()
	m.cpu = test.ProcessState.UserTime() + test.ProcessState.SystemTime()
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return m, fmt.Errorf("%w: %s", err, out.Bytes()[max(0, out.Len()-3000):])
	}
	l, err := readLedger(ctx, string(where[1]))
	m.installs, m.sessions = l.Apps.Installs, l.SessionsOpened
	if m.sessions < b.specs {
		return m, fmt.Errorf("%d specs had %d sessions", b.specs, m.sessions)
	}
	return m, err
}

func connect(ctx context.Context, address string) error {
	for {
		out, err := exec.CommandContext(ctx, "adb", "-P", stockPort, "connect", address).CombinedOutput()
		if err == nil && bytes.Contains(out, []byte("connected to")) {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("adb connect: %w: %s", err, out)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

// stockHost makes the host that stock AppWright needs, and returns the environment that describes it.
func (b *bench) stockHost(ctx context.Context, project string) ([]string, error) {
	host := filepath.Join(b.dir, "host")
	sdk, bin, home, appium := filepath.Join(host, "sdk"), filepath.Join(host, "bin"), filepath.Join(host, "home"), filepath.Join(host, "appium")
	tools := filepath.Join(sdk, "build-tools", "29.0.3")
	for _, dir := range []string{bin, home, appium, filepath.Join(tools, "lib"), filepath.Join(sdk, "platform-tools"), filepath.Join(sdk, "emulator")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	links := map[string]string{filepath.Join(tools, "lib", "apksigner.jar"): "/usr/share/java/apksigner.jar"}
	for name, dir := range map[string]string{"aapt": tools, "aapt2": tools, "apksigner": tools, "adb": filepath.Join(sdk, "platform-tools")} {
		path, err := exec.LookPath(name)
		if err != nil {
			return nil, fmt.Errorf("stock AppWright needs %s: run make bench-setup, which installs it: %w", name, err)
		}
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return nil, err
		}
		links[filepath.Join(dir, name)] = path
	}
	for link, to := range links {
		if err := os.Symlink(to, link); err != nil {
			return nil, err
		}
	}
	npx, err := exec.LookPath("npx")
	if err != nil {
		return nil, err
	}
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, fmt.Errorf("stock AppWright needs Java: run make bench-setup, which installs it: %w", err)
	}
	if java, err = filepath.EvalSymlinks(java); err != nil {
		return nil, err
	}
	left := filepath.Join(host, "appium.pid")
	scripts := map[string]string{
		filepath.Join(sdk, "emulator", "emulator"): "#!/bin/sh\necho simulated\n",
		filepath.Join(bin, "npx"): `#!/bin/sh
case "$1 $2" in
"appium driver") exit 0 ;;
"appium "*)
  if [ -f ` + left + ` ]; then
    kill "$(cat ` + left + `)" 2>/dev/null
    while kill -0 "$(cat ` + left + `)" 2>/dev/null; do sleep 0.05; done
  fi
  echo $$ >` + left + `
  exec node ` + filepath.Join(project, "node_modules", "appium", "index.js") + ` ;;
esac
exec ` + npx + ` "$@"
`,
	}
	for path, text := range scripts {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			return nil, err
		}
	}
	env := []string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + os.TempDir(), "LANG=C.UTF-8",
		"ANDROID_HOME=" + sdk, "ANDROID_SDK_ROOT=" + sdk, "JAVA_HOME=" + filepath.Dir(filepath.Dir(java)), "APPIUM_HOME=" + appium,
		"npm_config_cache=" + filepath.Join(b.checkout, ".cache", "npm"),
	}
	install := exec.CommandContext(ctx, "node", filepath.Join(project, "node_modules", "appium", "index.js"), "driver", "install", "--source=npm", "appium-uiautomator2-driver@"+driverVersion)
	install.Dir, install.Env = host, env
	if out, err := install.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("install Appium's driver: %w: %s", err, out)
	}
	return env, nil
}
