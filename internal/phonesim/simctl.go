package phonesim

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// simctlVerbs are the commands of simctl that take a simulator.
var simctlVerbs = map[string]func(*macCall, *iPhone) int{
	"boot": simctlBoot, "bootstatus": simctlBootStatus, "shutdown": simctlShutdown, "getenv": simctlGetenv,
	"install": simctlInstall, "uninstall": simctlUninstall, "launch": simctlLaunch, "terminate": simctlTerminate,
	"get_app_container": simctlContainer, "io": simctlIO, "spawn": simctlSpawn,
	"privacy": simctlPrivacy, "ui": func(*macCall, *iPhone) int { return 0 },
}

// simctl is `xcrun simctl`.
func simctl(c *macCall) int {
	if len(c.args) == 0 {
		return c.fail(1, "usage: simctl [--set <path>] [--profiles <path>] <subcommand> ...")
	}
	verb := c.args[0]
	if verb == "list" {
		return simctlList(c)
	}
	run := simctlVerbs[verb]
	var operands []string
	for _, a := range c.args[1:] {
		if !strings.HasPrefix(a, "-") {
			operands = append(operands, a)
		}
	}
	if run == nil || len(operands) == 0 {
		c.mac.log.Debug("unknown simctl command", "args", c.args)
		return c.fail(1, "Unrecognized subcommand: %s", strings.Join(c.args, " "))
	}
	d := c.mac.iphone(operands[0])
	if d == nil || !d.o.Simulator {
		return c.fail(148, "Invalid device: %s", operands[0])
	}
	if !d.answers(c.ctx) {
		return 1
	}
	if d.offline() && d.isBooted() {
		d.shutDown("the simulator died")
	}
	switch verb {
	case "boot", "shutdown", "bootstatus":
	default:
		if !d.isBooted() {
			return c.fail(149, "An error was encountered processing the command (domain=com.apple.CoreSimulator.SimError, code=405):\nUnable to lookup in current state: Shutdown")
		}
	}
	if verb == "spawn" || verb == "io" { // which have flags of their own
		c.args = c.args[slices.Index(c.args, operands[0])+1:]
		return run(c, d)
	}
	c.args = operands[1:]
	return run(c, d)
}

func simctlList(c *macCall) int {
	type listed struct {
		UDID   string `json:"udid"`
		Name   string `json:"name"`
		State  string `json:"state"`
		IsThis bool   `json:"isAvailable"`
		Type   string `json:"deviceTypeIdentifier"`
	}
	devices := map[string][]listed{}
	for _, d := range c.mac.iphones {
		if !d.o.Simulator {
			continue
		}
		if d.offline() && d.isBooted() {
			d.shutDown("the simulator died")
		}
		state := "Shutdown"
		if d.isBooted() {
			state = "Booted"
		}
		runtime := "com.apple.CoreSimulator.SimRuntime.iOS-" + strings.ReplaceAll(d.o.OSVersion, ".", "-")
		devices[runtime] = append(devices[runtime], listed{d.o.UDID, d.o.Name, state, true, "com.apple.CoreSimulator.SimDeviceType." + strings.ReplaceAll(d.o.Model, " ", "-")})
	}
	_ = json.NewEncoder(c.stdout).Encode(map[string]any{"devices": devices}) // the program may be gone
	return 0
}

func simctlBoot(c *macCall, d *iPhone) int {
	if d.isBooted() {
		return c.fail(149, "An error was encountered processing the command (domain=com.apple.CoreSimulator.SimError, code=405):\nUnable to boot device in current state: Booted")
	}
	if d.offline() {
		return c.fail(1, "An error was encountered processing the command (domain=NSPOSIXErrorDomain, code=60):\nUnable to boot the Simulator.\nOperation timed out")
	}
	go d.boot() // as CoreSimulator does, simctl does not wait for it
	return 0
}

func simctlBootStatus(c *macCall, d *iPhone) int {
	for !d.isBooted() {
		select {
		case <-c.ctx.Done():
			return 1
		case <-time.After(20 * time.Millisecond):
		}
	}
	c.printf("Device already booted, nothing to do.\n")
	return 0
}

func simctlShutdown(c *macCall, d *iPhone) int {
	if !d.isBooted() {
		return c.fail(149, "An error was encountered processing the command (domain=com.apple.CoreSimulator.SimError, code=405):\nUnable to shutdown device in current state: Shutdown")
	}
	d.shutDown("the simulator was shut down")
	return 0
}

func simctlGetenv(c *macCall, _ *iPhone) int {
	c.printf("%s\n", map[string]string{"IPHONE_SIMULATOR_ROOT": c.mac.o.Dir}[c.args[0]])
	return 0
}

func simctlInstall(c *macCall, d *iPhone) int {
	if len(c.args) == 0 {
		return c.fail(1, "Missing app path")
	}
	_, err := d.installApp(c.path(c.args[0]))
	var refusal *installError
	if errors.As(err, &refusal) {
		return c.fail(1, "An error was encountered processing the command (domain=IXErrorDomain, code=13):\nSimulator device failed to install the application.\n%s\nUnderlying error (domain=MIInstallerErrorDomain, code=13):\n\tLegacyErrorString = %s", refusal.detail, refusal.code)
	}
	if err != nil {
		return c.fail(1, "%v", err)
	}
	return 0
}

func simctlUninstall(c *macCall, d *iPhone) int {
	d.remove(c.args[0]) // simctl says nothing of an app that is not there
	return 0
}

func simctlLaunch(c *macCall, d *iPhone) int {
	bundle := c.args[len(c.args)-1]
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.launch(bundle, time.Now()) {
		return c.fail(4, "An error was encountered processing the command (domain=FBSOpenApplicationServiceErrorDomain, code=4):\nSimulator device failed to launch %s.", bundle)
	}
	c.printf("%s: %d\n", bundle, d.pids[bundle])
	return 0
}

func simctlTerminate(c *macCall, d *iPhone) int {
	if !d.stop(c.args[0]) {
		return c.fail(3, "An error was encountered processing the command (domain=NSPOSIXErrorDomain, code=3):\nSimulator device failed to terminate %s.\nfound nothing to terminate", c.args[0])
	}
	return 0
}

func simctlContainer(c *macCall, d *iPhone) int {
	found, ok := d.containersOf(c.args[0])
	if !ok {
		return c.fail(2, "An error was encountered processing the command (domain=NSPOSIXErrorDomain, code=2):\nNo such file or directory")
	}
	if len(c.args) > 1 && c.args[1] == "data" {
		c.printf("%s\n", found.data)
		return 0
	}
	c.printf("%s\n", found.app)
	return 0
}

// simctlIO is `simctl io UDID screenshot -`, and `recordVideo`.
func simctlIO(c *macCall, d *iPhone) int {
	operation := ""
	if len(c.args) > 0 {
		operation, c.args = c.args[0], c.args[1:]
	}
	switch operation {
	case "screenshot":
		_, _ = c.stdout.Write(d.Screenshot()) // the program may be gone
		return 0
	case "recordVideo":
		return recordVideo(c, d)
	}
	return c.fail(1, "Unrecognized operation: %s", operation)
}

// recorderStart is how long a recording takes to begin. Who interrupts it before has none.
const recorderStart = 50 * time.Millisecond

// recordVideo is `recordVideo [--codec=CODEC] [--display=DISPLAY] [--mask=POLICY] [--force] FILE`. It makes an empty file, records until it is interrupted,
// and only then writes: of one that is terminated or killed, the file stays empty. A Mac records one simulator at a time.
func recordVideo(c *macCall, d *iPhone) int {
	codec, file, force := "hevc", "", false
	for _, a := range c.args {
		flag, value, _ := strings.Cut(a, "=")
		switch {
		case flag == "--codec":
			codec = value
		case flag == "--display" || flag == "--mask":
		case a == "--force":
			force = true
		case strings.HasPrefix(a, "-") || file != "":
			return c.fail(22, "Unrecognized argument: %s", a)
		default:
			file = c.path(a)
		}
	}
	switch _, err := os.Stat(file); {
	case file == "":
		return c.fail(22, "Missing file or url")
	case codec != "h264" && codec != "hevc":
		return c.fail(22, "Unsupported codec type '%s'.", codec)
	case err == nil && !force:
		return c.fail(17, "File already exists: %s. Use --force to overwrite it.", file)
	}
	if d.faults.use(FaultNoRecorder) != nil {
		return c.fail(1, "Error creating the video: Host recording is not supported in this configuration")
	}
	if !c.mac.beginFilm() {
		return c.fail(16, "Error starting video recorder: Error Domain=NSPOSIXErrorDomain Code=16 \"Resource busy\"\nNSLocalizedFailureReason=Host recording is already in progress")
	}
	defer c.mac.endFilm()
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		return c.fail(1, "%v", err)
	}
	select {
	case <-time.After(recorderStart):
	case <-c.ctx.Done():
		return 1
	}
	_, _ = io.WriteString(c.stderr, "Recording started\n") // the program may be gone
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for {
		if d.offline() || !d.isBooted() {
			return c.fail(1, "Error: the display is gone")
		}
		select {
		case <-c.ctx.Done():
			if !errors.Is(context.Cause(c.ctx), errInterrupted) {
				return 1
			}
			if d.offline() {
				continue
			}
			c.printf("Recording completed. Writing to disk.\n")
			if err := os.WriteFile(file, []byte(video), 0o644); err != nil {
				return c.fail(1, "%v", err)
			}
			c.printf("\nWrote video to: %s\n", file)
			return 0
		case <-look.C:
		}
	}
}

// beginFilm says whether the Mac records no other screen.
func (m *Mac) beginFilm() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.films {
		return false
	}
	m.films = true
	return true
}

func (m *Mac) endFilm() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.films = false
}

// simctlSpawn is `simctl spawn UDID launchctl list`, and `log show`.
func simctlSpawn(c *macCall, d *iPhone) int {
	switch words := strings.Join(c.args[:min(2, len(c.args))], " "); {
	case words == "launchctl list":
		d.mu.Lock()
		defer d.mu.Unlock()
		c.printf("PID\tStatus\tLabel\n")
		for name, pid := range d.pids {
			if _, ok := d.containers[name]; ok {
				c.printf("%d\t0\tUIKitApplication:%s[1a2b][rb-legacy]\n", pid, name)
			}
		}
		return 0
	case words == "log show":
		c.args = c.args[2:]
		return logShow(c, d)
	}
	return c.fail(2, "The operation couldn’t be completed. No such file or directory")
}

// logTypes are what `log show --style compact` makes of the levels of a phone's log, of which it leaves out those of debugging unless told otherwise.
var logTypes = map[byte]string{'V': "Db", 'D': "Db", 'I': "Df", 'W': "Df", 'E': "E ", 'F': "F "}

// logShow is as much of `log show` (log(1) of macOS) as there is need of: --style compact --start @SECONDS [--debug].
func logShow(c *macCall, d *iPhone) int {
	const usage = 64 // of sysexits(3)
	style, since, debug := "default", 0.0, false
	for i := 0; i < len(c.args); i++ {
		switch flag := c.args[i]; {
		case flag == "--debug":
			debug = true
		case flag != "--style" && flag != "--start":
			return c.fail(usage, "log: unrecognized option `%s'", flag)
		case i+1 == len(c.args):
			return c.fail(usage, "log: option `%s' requires an argument", flag)
		case flag == "--style":
			i++
			style = c.args[i]
		default:
			i++
			seconds, ok := strings.CutPrefix(c.args[i], "@")
			at, err := strconv.ParseFloat(seconds, 64)
			if !ok || err != nil {
				return c.fail(usage, "log: invalid start date %q", c.args[i])
			}
			since = at
		}
	}
	if style != "compact" {
		return c.fail(usage, "log: the simulated Mac has no style %q", style)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	c.printf("Timestamp               Ty Process[PID:TID]\n")
	for _, line := range d.logcat.lines {
		if t := logTypes[line.level]; float64(line.time.UnixMilli())/1000 >= since && (debug || t != "Db") {
			c.printf("%s %s %s[%d:%x] %s\n", line.time.Format("2006-01-02 15:04:05.000"), t, line.tag, line.pid, line.pid, line.text)
		}
	}
	return 0
}

// simctlPrivacy is `simctl privacy UDID reset all BUNDLE`, of which the permissions do not matter here.
func simctlPrivacy(c *macCall, d *iPhone) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.noticeReset(c.args[len(c.args)-1], time.Now())
	return 0
}
