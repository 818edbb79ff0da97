package ios

import (
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"time"

	"qgjob"
	"qgjob/internal/device"
	"qgjob/internal/device/appium"
)

const newCommandTimeout = 5 * time.Minute // a session whose client is gone ends

// Endpoint implements device.Session.
func (s *session) Endpoint(ctx context.Context) (device.Endpoint, error) {
	if err := s.use(); err != nil {
		return device.Endpoint{}, err
	}
	install, err := appium.Ensure(ctx, s.d.opts.AppiumDir, appium.IOS, s.d.log)
	if err != nil {
		return device.Endpoint{}, err
	}
	if err := s.t.start(ctx); err != nil {
		return device.Endpoint{}, err
	}
	if err := s.ensureWDA(ctx, install); err != nil {
		return device.Endpoint{}, err
	}
	if err := s.ensureAppium(ctx, install); err != nil {
		return device.Endpoint{}, err
	}
	return device.Endpoint{URL: s.server.URL, LogPath: s.server.LogPath, Capabilities: s.capabilities(ctx)}, nil
}

// simulatorApp matches the command line of the Simulator app, and of no pgrep that looks for it: Appium looks in the same way, and other sessions do.
const simulatorApp = `^/.*/Simulator[.]app/Contents/MacOS/`

// capabilities make a session use this device, its WebDriverAgent, and the app that Prepare left there.
func (s *session) capabilities(ctx context.Context) map[string]any {
	s.mu.Lock()
	wda := s.wda
	s.mu.Unlock()
	capabilities := map[string]any{
		"platformName":             "iOS",
		"appium:automationName":    "XCUITest",
		"appium:udid":              s.info.Serial,
		"appium:deviceName":        s.info.Model,
		"appium:platformVersion":   s.info.OSVersion,
		"appium:webDriverAgentUrl": wda.url,
		// Appium must neither install, reset nor remove the app: s.before does what is to be done.
		"appium:app":                  nil,
		"appium:fullReset":            false,
		"appium:noReset":              true,
		"appium:autoGrantPermissions": nil, // of Android only
		"appium:skipLogCapture":       true,
		"appium:newCommandTimeout":    int(newCommandTimeout.Seconds()),
	}
	if s.info.Kind == qgjob.TargetEmulator {
		// Appium would end the Simulator app, or boot the simulator anew, to have it as it is asked for.
		capabilities["appium:isHeadless"] = exec.CommandContext(ctx, "pgrep", "-f", simulatorApp).Run() != nil
	}
	return capabilities
}

// ensureAppium makes s.server a running server that answers.
func (s *session) ensureAppium(ctx context.Context, install *appium.Install) (err error) {
	s.server, err = install.Warm(ctx, s.server, s.log, func() (appium.Options, error) {
		return appium.Options{
			LogPath: filepath.Join(s.dir, "appium.log"), TempDir: filepath.Join(s.dir, "tmp"),
			Env: []string{"PATH=" + s.d.opts.Path}, Before: s.before,
		}, nil
	})
	return err
}

// before readies the app for a session: a session that does not ask to keep the app's data finds it as newly installed, and starts it anew.
func (s *session) before(ctx context.Context, request []byte) ([]byte, error) {
	var asked map[string]any
	if err := json.Unmarshal(request, &asked); err != nil {
		return nil, err
	}
	capabilities, _ := asked["capabilities"].(map[string]any)
	always, _ := capabilities["alwaysMatch"].(map[string]any)
	bundle := s.record.Get().Bundle
	if always == nil || bundle == "" {
		return request, nil
	}
	if keep, _ := always["appium:noReset"].(bool); !keep {
		if _, err := s.Prepare(ctx, s.build); err != nil {
			return nil, err
		}
	}
	attaches, err := s.t.launch(ctx, bundle)
	if err != nil {
		return nil, err
	}
	s.setLaunched(true)
	for _, name := range []string{"appium:app", "appium:appPackage", "appium:appActivity", "appium:bundleId", "appium:forceAppLaunch"} {
		delete(always, name)
	}
	always["appium:noReset"], always["appium:fullReset"] = true, false
	if !attaches {
		always["appium:bundleId"], always["appium:forceAppLaunch"] = bundle, true
	}
	return json.Marshal(asked)
}
