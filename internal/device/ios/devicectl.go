package ios

import (
	"context"
	"errors"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"qgjob"
	"qgjob/internal/device"
)

// phone is a target over devicectl, which reaches iPhones of iOS 17 and newer.
type phone struct {
	xcode
}

var _ target = (*phone)(nil)

// coreDevice is a device as devicectl describes it.
type coreDevice struct {
	Connection struct {
		PairingState    string `json:"pairingState"`
		TunnelState     string `json:"tunnelState"`
		TunnelIPAddress string `json:"tunnelIPAddress"`
	} `json:"connectionProperties"`
	Device struct {
		Name                string `json:"name"`
		OSVersion           string `json:"osVersionNumber"`
		DeveloperModeStatus string `json:"developerModeStatus"`
	} `json:"deviceProperties"`
	Hardware struct {
		UDID          string `json:"udid"`
		Platform      string `json:"platform"`
		MarketingName string `json:"marketingName"`
		ProductType   string `json:"productType"`
	} `json:"hardwareProperties"`
}

// info is what is listed of it.
func (c coreDevice) info() device.Info {
	i := device.Info{
		ID: c.Hardware.UDID, Serial: c.Hardware.UDID, Kind: qgjob.TargetDevice, Platform: platform,
		Model: c.Hardware.MarketingName, OSVersion: c.Device.OSVersion, State: qgjob.DeviceIdle,
	}
	if i.Model == "" {
		i.Model = c.Hardware.ProductType
	}
	major, _, _ := strings.Cut(i.OSVersion, ".")
	switch n, err := strconv.Atoi(major); {
	case c.Connection.PairingState != "paired":
		i.State, i.Message = qgjob.DeviceUnauthorized, "confirm \"Trust This Computer?\" on its screen"
	case c.Connection.TunnelState == "unavailable":
		i.State, i.Message = qgjob.DeviceOffline, "it is not connected: check the cable, and unlock it"
	case c.Device.DeveloperModeStatus == "disabled":
		i.State, i.Message = qgjob.DeviceOffline, "switch its Developer Mode on (Settings, Privacy & Security)"
	case err == nil && n < oldestIOS:
		i.State, i.Message = qgjob.DeviceOffline, "it runs iOS "+i.OSVersion+": iOS "+strconv.Itoa(oldestIOS)+" or newer is needed"
	}
	return i
}

// oldestIOS is the first that devicectl drives.
const oldestIOS = 17

// phones lists the iPhones that this Mac is paired with.
func (d *Driver) phones(ctx context.Context) ([]device.Info, error) {
	var list struct {
		Devices []coreDevice `json:"devices"`
	}
	x := xcode{path: d.opts.Path}
	if err := x.devicectl(ctx, listTimeout, &list, "list", "devices"); err != nil {
		return d.unseen(), x.refused("devicectl list", err)
	}
	var infos []device.Info
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range list.Devices {
		if c.Hardware.Platform == "iOS" && c.Hardware.UDID != "" {
			i := c.info()
			d.seen[i.Serial] = i
			infos = append(infos, i)
		}
	}
	return infos, nil
}

// unseen are the iPhones that were there before devicectl failed.
func (d *Driver) unseen() []device.Info {
	d.mu.Lock()
	defer d.mu.Unlock()
	var infos []device.Info
	for _, i := range d.seen {
		i.State, i.Message = qgjob.DeviceOffline, "devicectl does not answer: restart this Mac's CoreDevice service, or the Mac"
		infos = append(infos, i)
	}
	return infos
}

func (p *phone) details(ctx context.Context, bound time.Duration) (c coreDevice, err error) {
	err = p.devicectl(ctx, bound, &c, "device", "info", "details", "--device", p.udid)
	return c, p.refused("details", err)
}

func (p *phone) check(ctx context.Context) error {
	c, err := p.details(ctx, checkTimeout)
	if err != nil {
		return err
	}
	if i := c.info(); i.State != qgjob.DeviceIdle {
		return device.Failf(qgjob.CauseDeviceOffline, "iPhone %s: %s", p.udid, i.Message)
	}
	return nil
}

func (p *phone) start(ctx context.Context) error { return p.check(ctx) }

// restart waits until the phone is back; it must be unlocked by hand where it has a passcode.
func (p *phone) restart(ctx context.Context) error {
	if err := p.devicectl(ctx, commandTimeout, nil, "device", "reboot", "--device", p.udid); err != nil {
		return p.refused("restart", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, bootTimeout, device.Failf(qgjob.CauseDeviceHung, "iPhone %s is not back %v after its restart: unlock it", p.udid, bootTimeout))
	defer cancel()
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		select {
		case <-look.C:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if p.check(ctx) == nil {
			return nil
		}
	}
}

func (p *phone) where(ctx context.Context, bundle string) (string, error) {
	var list struct {
		Apps []struct {
			BundleID string `json:"bundleIdentifier"`
			URL      string `json:"url"`
		} `json:"apps"`
	}
	if err := p.devicectl(ctx, commandTimeout, &list, "device", "info", "apps", "--device", p.udid, "--bundle-id", bundle); err != nil {
		return "", p.refused("list of apps", err)
	}
	for _, a := range list.Apps {
		if a.BundleID == bundle {
			return a.URL, nil
		}
	}
	return "", nil
}

func (p *phone) install(ctx context.Context, bundle, app string) error {
	return p.refusedInstall(bundle, p.devicectl(ctx, installTimeout, nil, "device", "install", "app", "--device", p.udid, app))
}

func (p *phone) uninstall(ctx context.Context, bundle string) error {
	return p.refused("uninstall of "+bundle, p.devicectl(ctx, commandTimeout, nil, "device", "uninstall", "app", "--device", p.udid, bundle))
}

// processes are known by where their program lies.
func (p *phone) processes(ctx context.Context, bundle string) ([]string, error) {
	at, err := p.where(ctx, bundle)
	if err != nil || at == "" {
		return nil, err
	}
	var list struct {
		Processes []struct {
			PID        int    `json:"processIdentifier"`
			Executable string `json:"executable"`
		} `json:"runningProcesses"`
	}
	if err := p.devicectl(ctx, commandTimeout, &list, "device", "info", "processes", "--device", p.udid); err != nil {
		return nil, p.refused("list of processes", err)
	}
	var pids []string
	for _, process := range list.Processes {
		if strings.HasPrefix(process.Executable, at) {
			pids = append(pids, strconv.Itoa(process.PID))
		}
	}
	return pids, nil
}

func (p *phone) stop(ctx context.Context, bundle string) error {
	pids, err := p.processes(ctx, bundle)
	if err != nil {
		return err
	}
	for _, pid := range pids {
		err := p.devicectl(ctx, commandTimeout, nil, "device", "process", "terminate", "--device", p.udid, "--pid", pid)
		if _, ended := errors.AsType[*refusal](err); err != nil && !ended {
			return err
		}
	}
	return nil
}

// clear puts empty directories in the place of the app's data, which iOS allows for apps signed for development.
func (p *phone) clear(ctx context.Context, bundle string) (bool, error) {
	if err := p.stop(ctx, bundle); err != nil {
		return false, err
	}
	empty, err := os.MkdirTemp("", "qgjob-empty-")
	if err != nil {
		return false, device.Failf(qgjob.CauseHostFailed, "%w", err)
	}
	defer os.RemoveAll(empty)
	for _, dir := range []string{"Documents", "Library", "tmp"} {
		err := p.devicectl(ctx, commandTimeout, nil, "device", "copy", "to", "--device", p.udid, "--domain-type", "appDataContainer",
			"--domain-identifier", bundle, "--source", empty, "--destination", dir, "--remove-existing-content", "true")
		if _, ok := errors.AsType[*refusal](err); ok {
			return false, nil
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// launch starts the app, because Appium would look for it over another connection than CoreDevice's.
func (p *phone) launch(ctx context.Context, bundle string) (bool, error) {
	err := p.devicectl(ctx, commandTimeout, nil, "device", "process", "launch", "--device", p.udid, "--terminate-existing", bundle)
	return true, p.refused("launch of "+bundle, err)
}

// address is the phone's end of CoreDevice's tunnel.
func (p *phone) address(ctx context.Context) (string, error) {
	c, err := p.details(ctx, commandTimeout)
	if err == nil && net.ParseIP(c.Connection.TunnelIPAddress) == nil {
		err = device.Failf(qgjob.CauseDeviceOffline, "iPhone %s has no tunnel to this Mac (it is %s): unlock it and plug it in again", p.udid, c.Connection.TunnelState)
	}
	return c.Connection.TunnelIPAddress, err
}
