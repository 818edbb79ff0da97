package cli

import (
	"github.com/spf13/pflag"

	"qgjob/internal/device"
	"qgjob/internal/device/ios"
)

// iosOptions say whether and how a worker uses this Mac's iPhones and simulators.
type iosOptions struct {
	use        bool
	simulators []string
	team       string
}

func (o *iosOptions) flags(f *pflag.FlagSet) {
	f.BoolVar(&o.use, "ios", true, "use iPhones and simulators, on a Mac with Xcode")
	f.StringArrayVar(&o.simulators, "simulator", nil, "boot the iOS simulator of this `name` or UDID when a job needs it (repeat for more; those that are booted are used anyway)")
	f.StringVar(&o.team, "ios-team", "", "`ID` of the Apple development team that signs WebDriverAgent for iPhones")
}

// driver is nil where there is no Xcode, or iPhones are not to be used.
// Named says that the worker's devices are: these and no other iPhones.
func (o *iosOptions) driver(p *program, serials []string, named bool, dataDir, appiumDir string) (device.Driver, error) {
	switch {
	case !o.use || named && len(serials) == 0:
		return nil, nil
	case !ios.Available():
		if len(o.simulators)+len(serials) > 0 || o.team != "" {
			return nil, exitf(exitInfrastructure, "iPhones and simulators need a Mac with Xcode, and there is no xcrun on the PATH: install Xcode, or leave --simulator, --ios-team and UDIDs out")
		}
		return nil, nil
	}
	d, err := ios.New(ios.Options{Serials: serials, Simulators: o.simulators, Team: o.team, DataDir: dataDir, AppiumDir: appiumDir, Log: p.logger()})
	if err != nil {
		return nil, exitf(exitInfrastructure, "iPhones of this Mac: %v", err)
	}
	return d, nil
}

// splitSerials parts what --device names: iPhones and simulators have UDIDs.
func splitSerials(all []string) (iPhones, others []string) {
	for _, serial := range all {
		if ios.IsUDID(serial) {
			iPhones = append(iPhones, serial)
		} else {
			others = append(others, serial)
		}
	}
	return iPhones, others
}
