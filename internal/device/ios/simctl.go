package ios

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"qgjob"
	"qgjob/internal/device"
)

// target is a device as far as Xcode's programs reach it. Its errors are those of xcode.xcrun, explained.
type target interface {
	// check says whether the device is there.
	check(ctx context.Context) error
	// start boots what is not running.
	start(ctx context.Context) error
	// restart boots the device anew.
	restart(ctx context.Context) error
	// where is the place of an installed app, "" where it is not installed.
	where(ctx context.Context, bundle string) (string, error)
	// install installs an app's directory, or an IPA.
	install(ctx context.Context, bundle, app string) error
	uninstall(ctx context.Context, bundle string) error
	// processes are those of an app.
	processes(ctx context.Context, bundle string) (pids []string, err error)
	// stop ends an app, whether or not it runs.
	stop(ctx context.Context, bundle string) error
	// clear removes an app's data; cleared is false where the device does not allow it.
	clear(ctx context.Context, bundle string) (cleared bool, err error)
	// launch starts an app anew for a session that is about to begin; attaches says that the session then goes on with what is in front.
	launch(ctx context.Context, bundle string) (attaches bool, err error)
	// address is the host by which a port of the device is reached.
	address(ctx context.Context) (string, error)
}

// simulator is a target over simctl.
type simulator struct {
	xcode
	name  string
	boots bool // the driver boots it; others are their owners' to boot
}

var _ target = (*simulator)(nil)

// runtimeVersion reads com.apple.CoreSimulator.SimRuntime.iOS-18-2.
var runtimeVersion = regexp.MustCompile(`\.iOS-(\d+(?:-\d+)*)$`)

const booted = "Booted"

// simulators lists those that are booted, and those that this driver boots.
func (d *Driver) simulators(ctx context.Context) ([]device.Info, error) {
	out, err := xcode{path: d.opts.Path}.xcrun(ctx, listTimeout, "simctl", "list", "devices", "-j")
	if err != nil {
		return nil, xcode{}.refused("simctl list", err)
	}
	var list struct {
		Devices map[string][]struct {
			UDID, Name, State string
			IsAvailable       bool
		}
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, device.Failf(qgjob.CauseHostFailed, "simctl's list of simulators cannot be read: %w", err)
	}
	var infos []device.Info
	for runtime, devices := range list.Devices {
		version := runtimeVersion.FindStringSubmatch(runtime)
		if version == nil {
			continue // of a watch or a television
		}
		for _, s := range devices {
			info := device.Info{
				ID: s.UDID + "@" + d.host, Serial: s.UDID, Kind: qgjob.TargetEmulator, Platform: platform, Model: s.Name,
				OSVersion: strings.ReplaceAll(version[1], "-", "."), State: qgjob.DeviceIdle,
			}
			switch named := len(d.opts.Serials) > 0; {
			case !s.IsAvailable:
				continue
			case s.State == booted, d.mine(s.UDID, s.Name):
			case named:
				info.State, info.Message = qgjob.DeviceOffline, "the simulator does not run: boot it (xcrun simctl boot "+s.UDID+"), or let the worker do so (--simulator)"
			default:
				continue
			}
			infos = append(infos, info)
		}
	}
	return infos, nil
}

// simctl runs a command of simctl's on the simulator.
func (s *simulator) simctl(ctx context.Context, verb string, args ...string) (string, error) {
	bound := commandTimeout
	if verb == "install" {
		bound = installTimeout
	}
	out, err := s.xcrun(ctx, bound, append([]string{"simctl", verb, s.udid}, args...)...)
	return strings.TrimSpace(string(out)), err
}

func (s *simulator) check(ctx context.Context) error {
	_, err := s.xcrun(ctx, checkTimeout, "simctl", "getenv", s.udid, "HOME")
	return s.refused("check", err)
}

func (s *simulator) start(ctx context.Context) error {
	if !s.boots {
		return s.check(ctx)
	}
	return s.boot(ctx)
}

func (s *simulator) boot(ctx context.Context) error {
	_, err := s.simctl(ctx, "boot")
	if r, ok := errors.AsType[*refusal](err); ok && strings.Contains(r.text, "current state: "+booted) {
		return nil
	}
	if err == nil {
		_, err = s.xcrun(ctx, bootTimeout, "simctl", "bootstatus", s.udid, "-b")
	}
	if r, ok := errors.AsType[*refusal](err); ok {
		return device.Failf(qgjob.CauseEmulatorNotBooted, "the simulator %s (%s) does not boot: try `xcrun simctl boot %s`: %.300s", s.name, s.udid, s.udid, r.text)
	}
	return err
}

func (s *simulator) restart(ctx context.Context) error {
	if _, err := s.simctl(ctx, "shutdown"); err != nil && device.CauseOf(err) != qgjob.CauseDeviceOffline { // which it then is already
		return s.refused("shutdown", err)
	}
	return s.boot(ctx)
}

func (s *simulator) where(ctx context.Context, bundle string) (string, error) {
	at, err := s.simctl(ctx, "get_app_container", bundle)
	if _, ok := errors.AsType[*refusal](err); ok {
		return "", nil // there is none
	}
	return at, err
}

func (s *simulator) install(ctx context.Context, bundle, app string) error {
	_, err := s.simctl(ctx, "install", app)
	return s.refusedInstall(bundle, err)
}

func (s *simulator) uninstall(ctx context.Context, bundle string) error {
	_, err := s.simctl(ctx, "uninstall", bundle)
	return s.refused("uninstall of "+bundle, err)
}

func (s *simulator) stop(ctx context.Context, bundle string) error {
	_, err := s.simctl(ctx, "terminate", bundle)
	if _, ok := errors.AsType[*refusal](err); ok {
		return nil // it did not run
	}
	return err
}

// processes reads launchctl's list of a simulator: PID, status and label, which for an app is UIKitApplication:BUNDLE[...].
func (s *simulator) processes(ctx context.Context, bundle string) ([]string, error) {
	out, err := s.simctl(ctx, "spawn", "launchctl", "list")
	if err != nil {
		return nil, s.refused("list of processes", err)
	}
	var pids []string
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) == 3 && fields[0] != "-" && strings.HasPrefix(fields[2], "UIKitApplication:"+bundle+"[") {
			pids = append(pids, fields[0])
		}
	}
	return pids, nil
}

// dataDirs are what iOS makes for an app's data.
var dataDirs = []string{"Documents", "Library", "SystemData", "StoreKit", "tmp"}

// clear empties the app's own directories, which are this Mac's. Its preferences are also in a cache of the simulator's, and are deleted there first.
func (s *simulator) clear(ctx context.Context, bundle string) (bool, error) {
	if err := s.stop(ctx, bundle); err != nil {
		return false, err
	}
	data, err := s.simctl(ctx, "get_app_container", bundle, "data")
	if err != nil {
		return false, s.refused("clearing the data of "+bundle, err)
	}
	s.simctl(ctx, "spawn", "defaults", "delete", bundle) // an app without preferences is a refusal
	for _, dir := range dataDirs {
		if err := os.RemoveAll(filepath.Join(data, dir)); err != nil {
			return false, device.Failf(qgjob.CauseHostFailed, "the data of %s cannot be removed: %w", bundle, err)
		}
	}
	for _, dir := range []string{"Documents", "Library/Caches", "Library/Preferences", "tmp"} {
		if err := os.MkdirAll(filepath.Join(data, dir), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return false, device.Failf(qgjob.CauseHostFailed, "the data of %s cannot be removed: %w", bundle, err)
		}
	}
	_, err = s.simctl(ctx, "privacy", "reset", "all", bundle)
	return true, s.refused("resetting the permissions of "+bundle, err)
}

// launch leaves it to the session to launch the app.
func (s *simulator) launch(context.Context, string) (bool, error) { return false, nil }

func (s *simulator) address(context.Context) (string, error) { return "127.0.0.1", nil }
