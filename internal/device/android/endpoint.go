package android

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"qgjob"
	"qgjob/internal/device"
	"qgjob/internal/device/appium"
)

// Ports of this host for Appium's connections to devices. Appium's own default range starts at 8200 and
// is not coordinated between processes.
const (
	firstSystemPort = 18200
	lastSystemPort  = 18999
)

const newCommandTimeout = 5 * time.Minute // a session whose client is gone ends

// Endpoint implements device.Session.
func (s *session) Endpoint(ctx context.Context) (device.Endpoint, error) {
	if err := s.use(); err != nil {
		return device.Endpoint{}, err
	}
	install, err := appium.Ensure(ctx, s.d.opts.AppiumDir, appium.Android, s.d.log)
	if err != nil {
		return device.Endpoint{}, err
	}
	if err := s.ensureHelpers(ctx, install); err != nil {
		return device.Endpoint{}, err
	}
	if err := s.ensureAppium(ctx, install); err != nil {
		return device.Endpoint{}, err
	}
	if err := s.ensurePort(ctx); err != nil {
		return device.Endpoint{}, err
	}
	return device.Endpoint{URL: s.server.URL, LogPath: s.server.LogPath, Capabilities: s.capabilities()}, nil
}

// capabilities make a session use this device, this server's ports, and the app that Prepare left there.
func (s *session) capabilities() map[string]any {
	return map[string]any{
		"appium:udid":       s.serial,
		"appium:adbPort":    s.d.client.Port,
		"appium:systemPort": s.systemPort,
		// Appium must neither install, reset nor remove the app, and start it anew.
		"appium:app":            nil,
		"appium:fullReset":      false,
		"appium:noReset":        true,
		"appium:forceAppLaunch": true,
		// Its helpers are on the device already; it would install one of them at each session.
		"appium:skipServerInstallation":   true,
		"appium:skipDeviceInitialization": true,
		// The adb server is everybody's.
		"appium:suppressKillServer": true,
		// Some makers' phones do not let adb change it; hidden interfaces then stay hidden.
		"appium:ignoreHiddenApiPolicyError": true,
		"appium:newCommandTimeout":          int(newCommandTimeout.Seconds()),
	}
}

// ensureAppium makes s.server a running server that answers.
func (s *session) ensureAppium(ctx context.Context, install *appium.Install) error {
	server, err := install.Warm(ctx, s.server, s.log, func() (appium.Options, error) {
		adbPath, err := s.d.fittingADB(ctx)
		if err != nil {
			return appium.Options{}, err
		}
		home := filepath.Join(s.dir, "android-home")
		if err := makeAndroidHome(home, adbPath); err != nil {
			return appium.Options{}, device.Failf(qgjob.CauseHostFailed, "Appium's ANDROID_HOME %s cannot be made: %w", home, err)
		}
		return appium.Options{
			LogPath: filepath.Join(s.dir, "appium.log"),
			TempDir: filepath.Join(s.dir, "tmp"),
			Env: []string{
				"ANDROID_HOME=" + home,
				"ANDROID_SDK_ROOT=" + home,
				"ANDROID_ADB_SERVER_PORT=" + strconv.Itoa(s.d.client.Port),
			},
		}, nil
	})
	if server != s.server { // sessions ended with the old one
		s.kept = ""
	}
	s.server = server
	return err
}

// startAppium starts the server before Endpoint asks for it. A failure comes up again when Endpoint asks.
func (s *session) startAppium(ctx context.Context) {
	install, err := appium.Ensure(ctx, s.d.opts.AppiumDir, appium.Android, s.d.log)
	if err == nil {
		err = s.ensureAppium(ctx, install)
	}
	if err != nil {
		s.log.Info("Appium was not started ahead", "error", err)
	}
}

func (s *session) stopServer() {
	if s.server != nil {
		s.server.Close()
		s.server, s.kept = nil, ""
	}
}

// ensurePort makes s.systemPort a port that Appium can forward from. Between two sessions nobody listens on
// it; a stranger who does makes it move on.
func (s *session) ensurePort(ctx context.Context) error {
	if s.kept != "" && s.systemPort != 0 {
		return nil // it is the kept session's
	}
	if s.systemPort != 0 && !device.PortFree(s.systemPort) {
		if err := s.removeForward(ctx); err != nil {
			return err
		}
		if !device.PortFree(s.systemPort) {
			s.log.Warn("another process took the port of Appium's connection to the device: another is chosen", "port", s.systemPort)
			s.portHeld.Unlock()
			s.systemPort, s.portHeld = 0, nil
		}
	}
	if s.systemPort != 0 {
		return nil
	}
	var err error
	s.systemPort, s.portHeld, err = device.ReservePort(device.HostLockDir, firstSystemPort, lastSystemPort)
	return err
}

// helper is an app of Appium's that its sessions need on the device.
type helper struct {
	pkg     string
	module  string // npm package that holds its APK
	pattern string // of the APK in the module
}

// Package names and places as in the modules that npm/android/package-lock.json of package appium pins.
var helpers = []helper{
	{"io.appium.settings", "io.appium.settings", "apks/settings_apk-debug.apk"},
	{"io.appium.uiautomator2.server", "appium-uiautomator2-server", "apks/appium-uiautomator2-server-v*.apk"},
	{"io.appium.uiautomator2.server.test", "appium-uiautomator2-server", "apks/appium-uiautomator2-server-debug-androidTest.apk"},
}

// ensureHelpers puts Appium's helper apps on the device, proven by their bytes like the app under test.
// Appium does it at each session, guesses from version numbers, and without an Android SDK on the host
// installs one of them each time. Their bytes are asked for once a session; after that, that they are there.
func (s *session) ensureHelpers(ctx context.Context, install *appium.Install) error {
	if s.helpers {
		there, err := s.helpersListed(ctx)
		if err != nil || there {
			return err
		}
		s.helpers = false
	}
	fresh := false
	for _, h := range helpers {
		file, err := h.apk(install)
		if err != nil {
			return device.Failf(qgjob.CauseHostFailed, "Appium's install in %s is damaged, remove it: %w", install.Dir, err)
		}
		there, err := s.installed(ctx, file)
		if err != nil {
			return err
		}
		if there {
			continue
		}
		s.log.Info("installing Appium's helper", "package", h.pkg)
		if err := s.install(ctx, file); err != nil {
			return err
		}
		fresh = true
	}
	if fresh {
		// What Appium's device initialization would do; where it is not possible, Appium goes on, too.
		if _, err := s.shell(ctx, commandTimeout, strings.Join(helperRights(), "; ")); err != nil {
			return err
		}
	}
	s.helpers = true
	return nil
}

func (s *session) helpersListed(ctx context.Context) (bool, error) {
	out, err := s.shell(ctx, commandTimeout, "pm list packages io.appium")
	if err != nil {
		return false, err
	}
	listed := strings.Fields(out.Stdout)
	for _, h := range helpers {
		if !slices.Contains(listed, "package:"+h.pkg) {
			return false, nil
		}
	}
	return true, nil
}

// helperRights are commands that let the helpers run in the background, show notifications, record the
// screen and set locations.
func helperRights() []string {
	commands := []string{
		"appops set io.appium.settings PROJECT_MEDIA allow",
		"appops set io.appium.settings android:mock_location allow",
	}
	for _, h := range helpers {
		commands = append(commands, "dumpsys deviceidle whitelist +"+h.pkg)
	}
	return commands
}

func (h helper) apk(install *appium.Install) (apk, error) {
	found, err := filepath.Glob(filepath.Join(install.Module(h.module), h.pattern))
	if err != nil {
		return apk{}, err
	}
	if len(found) != 1 {
		return apk{}, fmt.Errorf("%s has %d files like %s", h.module, len(found), h.pattern)
	}
	sum, err := hashFile(found[0])
	if err != nil {
		return apk{}, err
	}
	return apk{path: found[0], sha256: sum, pkg: h.pkg}, nil
}
