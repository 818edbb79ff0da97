package phonesim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Tool is one run of a program of the Android SDK that is stood in for: `emulator` and `avdmanager`, with
// their arguments, files and output. The devices are simulated phones.
type Tool struct {
	Args   []string
	Env    func(name string) string
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	Logger *slog.Logger
}

// The ports that a real emulator's console can have.
const (
	firstConsole = 5554
	lastConsole  = 5682
)

// Entries of an AVD's config.ini that only simulated emulators read: how long a boot takes, from a snapshot
// and without one, and the install of an app.
const (
	coldBootKey = "phonesim.cold_boot_ms"
	snapBootKey = "phonesim.snapshot_boot_ms"
	installKey  = "phonesim.install_ms"
)

// emulatorFlags are those that are taken, with whether a value follows.
var emulatorFlags = map[string]bool{
	"-avd": true, "-port": true, "-gpu": true, "-memory": true, "-cores": true, "-accel": true,
	"-no-window": false, "-no-audio": false, "-no-boot-anim": false, "-no-snapshot-save": false, "-no-snapshot-load": false, "-no-snapshot": false,
	"-read-only": false, "-list-avds": false, "-version": false, "-no-metrics": false,
}

// toolError is what a program says, word by word.
type toolError string

func (e toolError) Error() string { return string(e) }

// fatal is how the emulator says why it ends.
func fatal(format string, args ...any) error {
	return toolError(fmt.Sprintf("FATAL   | "+format, args...))
}

// Emulator does what `emulator` does: it lists AVDs, or runs one until the context ends.
func (t Tool) Emulator(ctx context.Context) error {
	given := map[string]string{}
	for i := 0; i < len(t.Args); i++ {
		name, valued := t.Args[i], false
		if avd, ok := strings.CutPrefix(name, "@"); ok {
			given["-avd"] = avd
			continue
		}
		var known bool
		if valued, known = emulatorFlags[name]; !known {
			return fmt.Errorf("unknown option: %s\nplease use -help for a list of valid options", name)
		}
		given[name] = ""
		if valued {
			if i++; i == len(t.Args) {
				return fmt.Errorf("option %s needs a value", name)
			}
			given[name] = t.Args[i]
		}
	}
	if _, ok := given["-version"]; ok {
		fmt.Fprintln(t.Stdout, "Android emulator version 35.1.4.0 (simulated)")
		return nil
	}
	if _, ok := given["-list-avds"]; ok {
		for _, name := range t.avds() {
			fmt.Fprintln(t.Stdout, name)
		}
		return nil
	}
	return t.run(ctx, given)
}

func (t Tool) run(ctx context.Context, given map[string]string) error {
	name := given["-avd"]
	if !slices.Contains(t.avds(), name) {
		return fatal("Unknown AVD name [%s], use -list-avds to see valid list.", name)
	}
	console := firstConsole
	if port, ok := given["-port"]; ok {
		var err error
		if console, err = strconv.Atoi(port); err != nil || console < firstConsole || console > lastConsole || console%2 != 0 {
			return fatal("Invalid port number '%s': it must be an even integer from %d to %d", port, firstConsole, lastConsole)
		}
	}
	dir := t.avdDir(name)
	lock, err := os.OpenFile(filepath.Join(dir, "multiinstance.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fatal("%v", err)
	}
	defer lock.Close()
	if _, readOnly := given["-read-only"]; !readOnly && syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) != nil {
		return fatal("Running multiple emulators with the same AVD is an experimental feature. Please use -read-only flag to enable this feature.")
	}
	config, err := readINI(filepath.Join(dir, "config.ini"))
	if err != nil {
		return fatal("%v", err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(console)))
	if err != nil {
		return fatal("%v", err)
	}
	defer listener.Close()
	bootKey := coldBootKey
	_, cold := given["-no-snapshot-load"]
	if _, err := os.Stat(filepath.Join(dir, "snapshots", "default_boot")); err == nil && !cold {
		bootKey = snapBootKey
		fmt.Fprintln(t.Stdout, "INFO    | Successfully loaded snapshot 'default_boot' using 120 ms")
	}
	milliseconds := func(key string) time.Duration {
		n, _ := strconv.Atoi(config[key]) // 0 where there is none
		return time.Duration(n) * time.Millisecond
	}
	phone, err := Start(Options{
		Serial: "EMULATOR" + strconv.Itoa(console), OSVersion: versionOfSDK(config["image.sysdir.1"]), Emulator: true, AVD: name,
		BootTime: milliseconds(bootKey), InstallTime: milliseconds(installKey), Listen: net.JoinHostPort("127.0.0.1", strconv.Itoa(console+1)), Logger: t.Logger,
	})
	if err != nil {
		return fatal("%v", err)
	}
	defer phone.Close()
	control, err := serveControl(phone, filepath.Join(dir, "phone.control"))
	if err != nil {
		return fatal("%v", err)
	}
	defer control.Close()
	t.announce(ctx, console+1)
	fmt.Fprintf(t.Stdout, "INFO    | Started GRPC server\nemulator: INFO: serial emulator-%d, AVD %s\n", console, name)
	<-ctx.Done()
	fmt.Fprintln(t.Stdout, "INFO    | Wait for emulator to shut down")
	return nil
}

// serveControl writes the address of a phone's control interface to a file.
func serveControl(phone *Phone, file string) (*http.Server, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	server := &http.Server{Handler: phone.Control(), ReadHeaderTimeout: 10 * time.Second}
	go server.Serve(listener)
	return server, os.WriteFile(file, []byte("http://"+listener.Addr().String()), 0o644)
}

// announce tells the adb server of the environment that there is an emulator, as a real one does when it starts.
// Without a server nobody is told: one that starts later looks for emulators by itself.
func (t Tool) announce(ctx context.Context, port int) {
	server := t.Env("ANDROID_ADB_SERVER_PORT")
	if server == "" {
		server = "5037"
	}
	conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", server))
	if err != nil {
		return
	}
	defer conn.Close()
	text := "host:emulator:" + strconv.Itoa(port)
	fmt.Fprintf(conn, "%04x%s", len(text), text)
}

// versionOfSDK is the Android version of a system image's directory: system-images/android-34/google_apis/x86_64/.
func versionOfSDK(sysdir string) string {
	for version, sdk := range sdkOf {
		if strings.Contains(sysdir, "android-"+strconv.Itoa(sdk)+"/") {
			return version
		}
	}
	return ""
}

// AVDManager does what `avdmanager` does: create, list and delete AVDs.
func (t Tool) AVDManager() error {
	option := func(names ...string) string {
		for i, a := range t.Args {
			if slices.Contains(names, a) && i+1 < len(t.Args) {
				return t.Args[i+1]
			}
		}
		return ""
	}
	if len(t.Args) < 2 || t.Args[1] != "avd" {
		return toolError("Error: Expected one of: create avd, list avd, delete avd")
	}
	name := option("-n", "--name")
	switch t.Args[0] {
	case "list":
		for _, name := range t.avds() {
			fmt.Fprintln(t.Stdout, name)
		}
		return nil
	case "delete":
		return errors.Join(os.RemoveAll(t.avdDir(name)), os.Remove(filepath.Join(t.avdHome(), name+".ini")))
	case "create":
		return t.createAVD(name, option("-k", "--package"))
	}
	return toolError(fmt.Sprintf("Error: unknown action %q", t.Args[0]))
}

func (t Tool) createAVD(name, image string) error {
	if slices.Contains(t.avds(), name) && !slices.Contains(t.Args, "--force") {
		return toolError(fmt.Sprintf("Error: Android Virtual Device '%s' already exists.\nUse --force if you want to replace it.", name))
	}
	sysdir := filepath.FromSlash(strings.ReplaceAll(image, ";", "/"))
	if info, err := os.Stat(filepath.Join(t.Env("ANDROID_HOME"), sysdir)); err != nil || !info.IsDir() || !strings.HasPrefix(image, "system-images;") {
		return toolError(fmt.Sprintf("Error: Package path is not valid. Valid system image paths are:\n%s", strings.Join(t.images(), "\n")))
	}
	fmt.Fprint(t.Stdout, "Do you wish to create a custom hardware profile? [no] ")
	if _, err := io.ReadAll(io.LimitReader(t.Stdin, 1)); err != nil {
		return err
	}
	dir := t.avdDir(name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	config := fmt.Sprintf("AvdId=%s\nimage.sysdir.1=%s/\n", name, sysdir)
	if err := os.WriteFile(filepath.Join(dir, "config.ini"), []byte(config), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(t.avdHome(), name+".ini"), []byte("avd.ini.encoding=UTF-8\npath="+dir+"\n"), 0o644)
}

// images are the system images that are installed.
func (t Tool) images() []string {
	found, _ := filepath.Glob(filepath.Join(t.Env("ANDROID_HOME"), "system-images", "*", "*", "*")) // the pattern is right
	for i, path := range found {
		rel, _ := filepath.Rel(t.Env("ANDROID_HOME"), path) // below it
		found[i] = strings.ReplaceAll(filepath.ToSlash(rel), "/", ";")
	}
	return found
}

func (t Tool) avdHome() string {
	if home := t.Env("ANDROID_AVD_HOME"); home != "" {
		return home
	}
	return filepath.Join(t.Env("HOME"), ".android", "avd")
}

func (t Tool) avdDir(name string) string { return filepath.Join(t.avdHome(), name+".avd") }

// avds are the names of the AVDs that there are.
func (t Tool) avds() []string {
	found, _ := filepath.Glob(filepath.Join(t.avdHome(), "*.ini")) // the pattern is right
	for i, path := range found {
		found[i] = strings.TrimSuffix(filepath.Base(path), ".ini")
	}
	return found
}

// readINI reads lines of the form name=value.
func readINI(path string) (map[string]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for line := range strings.Lines(string(data)) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			values[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return values, nil
}

// WriteSDK makes a directory an Android SDK whose emulator and avdmanager are stood in for: scripts that call
// a program, which has the commands "emulator" and "avdmanager". It has a system image of Android 14.
func WriteSDK(dir string, program ...string) error {
	for name, command := range map[string]string{"emulator/emulator": "emulator", "cmdline-tools/latest/bin/avdmanager": "avdmanager"} {
		path := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		script := "#!/bin/sh\nexport ANDROID_HOME='" + dir + "'\nexec"
		for _, word := range append(slices.Clone(program), command) {
			script += " '" + strings.ReplaceAll(word, "'", `'\''`) + "'"
		}
		if err := os.WriteFile(path, []byte(script+" \"$@\"\n"), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	for _, abi := range []string{"x86_64", "arm64-v8a"} {
		if err := os.MkdirAll(filepath.Join(dir, "system-images", "android-34", "google_apis", abi), 0o755); err != nil {
			return err
		}
	}
	return nil
}
