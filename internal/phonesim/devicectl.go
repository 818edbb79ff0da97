package phonesim

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// devicectl is `xcrun devicectl`.
func devicectl(c *macCall) int {
	if at := slices.Index(c.args, "--json-output"); at >= 0 && at+1 < len(c.args) {
		c.json = c.args[at+1]
		c.args = slices.Delete(slices.Clone(c.args), at, at+2)
	}
	words := strings.Join(leading(c.args, 3), " ")
	if strings.HasPrefix(words, "list devices") {
		return devicectlList(c)
	}
	udid := c.option("--device", "-d")
	d := c.mac.iphone(udid)
	if d == nil || d.o.Simulator {
		return c.fail(1, "ERROR: The specified device was not found. (Name: %s) (com.apple.dt.CoreDeviceError error 1000 (0x3E8))", udid)
	}
	if !d.answers(c.ctx) {
		return 1
	}
	if d.offline() {
		return c.fail(1, "ERROR: The device is not connected. (com.apple.dt.CoreDeviceError error 4000 (0xFA0))\n  NSLocalizedFailureReason = CoreDevice was unable to locate a device matching the requested device identifier. (DeviceIdentifier: ecid_1)")
	}
	for prefix, run := range map[string]func(*macCall, *iPhone) int{
		"device info details": devicectlDetails, "device info apps": devicectlApps, "device info processes": devicectlProcesses,
		"device install app": devicectlInstall, "device uninstall app": devicectlUninstall,
		"device process launch": devicectlLaunch, "device process terminate": devicectlTerminate,
		"device copy to": devicectlCopy, "device reboot": devicectlReboot,
	} {
		if words == prefix || strings.HasPrefix(words, prefix+" ") {
			return run(c, d)
		}
	}
	c.mac.log.Debug("unknown devicectl command", "args", c.args)
	return c.fail(64, "error: unknown command %s", words)
}

// leading are the first words that are no flags.
func leading(args []string, most int) []string {
	for i, a := range args {
		if i == most || strings.HasPrefix(a, "-") {
			return args[:i]
		}
	}
	return args
}

// last is the last argument, where a command has what it is about.
func (c *macCall) last() string { return c.args[len(c.args)-1] }

// result writes what --json-output names.
func (c *macCall) result(result any) int {
	content, err := json.Marshal(map[string]any{"info": map[string]any{"outcome": "success", "jsonVersion": 2}, "result": result})
	if c.json != "" && err == nil {
		err = os.WriteFile(c.path(c.json), content, 0o644)
	}
	if err != nil {
		return c.fail(1, "%v", err)
	}
	return 0
}

// described is a device as devicectl tells it.
func (d *iPhone) described() map[string]any {
	tunnel := map[string]any{"pairingState": "paired", "transportType": "wired", "tunnelState": "connected", "tunnelIPAddress": "127.0.0.1"}
	if d.offline() {
		tunnel = map[string]any{"pairingState": "paired", "tunnelState": "unavailable"}
	}
	return map[string]any{
		"identifier":           d.o.UDID,
		"connectionProperties": tunnel,
		"deviceProperties":     map[string]any{"name": d.o.Name, "osVersionNumber": d.o.OSVersion, "developerModeStatus": "enabled", "ddiServicesAvailable": !d.offline(), "bootState": "booted"},
		"hardwareProperties":   map[string]any{"udid": d.o.UDID, "platform": "iOS", "deviceType": "iPhone", "marketingName": d.o.Model, "productType": "iPhone17,3"},
	}
}

func devicectlList(c *macCall) int {
	list := []any{}
	for _, d := range c.mac.iphones {
		if !d.o.Simulator {
			list = append(list, d.described())
		}
	}
	return c.result(map[string]any{"devices": list})
}

func devicectlDetails(c *macCall, d *iPhone) int { return c.result(d.described()) }

func devicectlApps(c *macCall, d *iPhone) int {
	wanted := c.option("--bundle-id")
	d.mu.Lock()
	list := []any{}
	for bundle, at := range d.containers {
		if wanted == "" || wanted == bundle {
			pkg := d.packages[bundle]
			list = append(list, map[string]any{"bundleIdentifier": bundle, "name": pkg.label, "version": pkg.versionName, "bundleVersion": strconv.FormatInt(pkg.versionCode, 10), "url": "file://" + at.app + "/"})
		}
	}
	d.mu.Unlock()
	return c.result(map[string]any{"apps": list})
}

func devicectlProcesses(c *macCall, d *iPhone) int {
	d.mu.Lock()
	list := []any{}
	for name, pid := range d.pids {
		if at, ok := d.containers[name]; ok {
			list = append(list, map[string]any{"processIdentifier": pid, "executable": "file://" + at.app + "/App"})
		}
	}
	d.mu.Unlock()
	return c.result(map[string]any{"runningProcesses": list})
}

func devicectlInstall(c *macCall, d *iPhone) int {
	app := c.path(c.last())
	if strings.HasSuffix(app, ".ipa") {
		tmp, err := os.MkdirTemp("", "phonesim-ipa-")
		if err != nil {
			return c.fail(1, "ERROR: %v", err)
		}
		defer os.RemoveAll(tmp)
		if app, err = unpackIPA(app, tmp); err != nil {
			return c.refuse(err)
		}
	}
	bundle, err := d.installApp(app)
	if err != nil {
		return c.refuse(err)
	}
	at, _ := d.containersOf(bundle)
	return c.result(map[string]any{"installedApplications": []any{map[string]any{"bundleID": bundle, "installationURL": "file://" + at.app + "/"}}})
}

func (c *macCall) refuse(err error) int {
	var refusal *installError
	if !errors.As(err, &refusal) {
		return c.fail(1, "ERROR: %v", err)
	}
	return c.fail(1, "ERROR: Failed to install the app on the device. (com.apple.dt.CoreDeviceError error 3002 (0xBBA))\n  ----------------------------------------\n       The item could not be installed. (IXRemoteErrorDomain error 6 (0x06))\n         %s (MIInstallerErrorDomain error 13 (0x0D))\n         LegacyErrorString = %s", refusal.detail, refusal.code)
}

func devicectlUninstall(c *macCall, d *iPhone) int {
	if !d.remove(c.last()) {
		return c.fail(1, "ERROR: Failed to uninstall the app on the device. (com.apple.dt.CoreDeviceError error 3000 (0xBB8))")
	}
	return c.result(map[string]any{})
}

func devicectlLaunch(c *macCall, d *iPhone) int {
	d.mu.Lock()
	bundle := c.last()
	if c.has("--terminate-existing") {
		d.stopPackage(bundle)
	}
	ok := d.launch(bundle, time.Now())
	pid := d.pids[bundle]
	d.mu.Unlock()
	if !ok {
		return c.fail(1, "ERROR: The application failed to launch. (com.apple.dt.CoreDeviceError error 10002 (0x2712))\n  NSLocalizedFailureReason = The requested application %s is not installed.", bundle)
	}
	return c.result(map[string]any{"process": map[string]any{"processIdentifier": pid}})
}

func devicectlTerminate(c *macCall, d *iPhone) int {
	pid, err := strconv.Atoi(c.option("--pid"))
	if err != nil {
		return c.fail(64, "Error: Missing expected argument '--pid <pid>'")
	}
	d.mu.Lock()
	name := ""
	for of, its := range d.pids {
		if its == pid {
			name = of
		}
	}
	d.mu.Unlock()
	if name == "" || !d.stop(name) {
		return c.fail(1, "ERROR: The process %d could not be found. (NSPOSIXErrorDomain error 3 (0x03))", pid)
	}
	return c.result(map[string]any{})
}

// devicectlCopy copies a directory into an app's data, in the place of what is there if it is told to remove that.
func devicectlCopy(c *macCall, d *iPhone) int {
	at, ok := d.containersOf(c.option("--domain-identifier"))
	if c.option("--domain-type") != "appDataContainer" || !ok {
		return c.fail(1, "ERROR: The specified file service domain is not available. (com.apple.dt.CoreDeviceError error 7000 (0x1B58))")
	}
	to := filepath.Join(at.data, filepath.FromSlash(c.option("--destination")))
	var err error
	if c.option("--remove-existing-content") == "true" {
		err = os.RemoveAll(to)
	}
	if err = errors.Join(err, os.CopyFS(to, os.DirFS(c.path(c.option("--source"))))); err != nil {
		return c.fail(1, "ERROR: %v", err)
	}
	d.mu.Lock()
	d.noticeReset(c.option("--domain-identifier"), time.Now())
	d.mu.Unlock()
	return c.result(map[string]any{})
}

func devicectlReboot(c *macCall, d *iPhone) int {
	d.restart()
	return c.result(map[string]any{})
}

// xcodebuild is as much of it as runs WebDriverAgent until it is stopped.
func xcodebuild(c *macCall) int {
	if c.has("-version") {
		c.printf("Xcode %s\nBuild version 16C5032a\n", xcodeVersion)
		return 0
	}
	udid, _ := strings.CutPrefix(c.option("-destination"), "id=")
	d := c.mac.iphone(udid)
	port, err := strconv.Atoi(c.env["USE_PORT"])
	switch {
	case !c.has("test-without-building") || c.option("-scheme") != "WebDriverAgentRunner" || err != nil:
		return c.fail(64, "xcodebuild: error: the simulated Mac runs WebDriverAgent only: %s", strings.Join(c.args, " "))
	case d == nil || d.offline() || !d.isBooted():
		return c.fail(70, "xcodebuild: error: Unable to find a device matching the provided destination specifier:\n\t\t{ id:%s }", udid)
	}
	if _, err := os.Stat(c.path(c.option("-project"))); err != nil {
		return c.fail(66, "xcodebuild: error: '%s' does not exist.", c.option("-project"))
	}
	if !d.o.Simulator && !strings.Contains(strings.Join(c.args, " "), "DEVELOPMENT_TEAM=") {
		return c.fail(65, "error: Signing for \"WebDriverAgentRunner\" requires a development team. Select a development team in the Signing & Capabilities editor. (in target 'WebDriverAgentRunner' from project 'WebDriverAgent')\n** TEST BUILD FAILED **")
	}
	if !d.answers(c.ctx) || d.pass(c.mac.o.BuildTime) != nil || c.ctx.Err() != nil {
		return 1
	}
	wda, err := d.startWDA(port)
	if err != nil {
		return c.fail(65, "Error Domain=com.facebook.WebDriverAgent Code=1 \"%v\"\n** TEST EXECUTE FAILED **", err)
	}
	c.printf("    t =      nans Suite Set Up\nServerURLHere->http://127.0.0.1:%d<-ServerURLHere\n", port)
	select {
	case <-wda.done:
		return c.fail(65, "Testing failed:\n\tWebDriverAgentRunner encountered an error (Lost connection to the application)\n** TEST EXECUTE FAILED **")
	case <-c.ctx.Done():
		d.endWDA(wda, "xcodebuild was stopped")
		return 1
	}
}
