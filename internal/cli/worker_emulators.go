package cli

import (
	"context"
	"time"

	"github.com/spf13/pflag"

	"qgjob/internal/device"
	"qgjob/internal/device/android"
)

// emulatorOptions say whether a worker boots emulators by itself.
type emulatorOptions struct {
	count    int
	avds     []string
	image    string
	bootTime time.Duration
	idleTime time.Duration
}

func (o *emulatorOptions) flags(f *pflag.FlagSet) {
	f.IntVar(&o.count, "emulators", 0, "boot up to so many emulators when jobs need them; those that run already count")
	f.StringArrayVar(&o.avds, "avd", nil, "boot the AVD of this `name` (repeat for more; default: qgjob-1, qgjob-2 ..., created when they are needed)")
	f.StringVar(&o.image, "avd-image", "", "system image `package` for AVDs that are created (default: the newest that is installed)")
	f.DurationVar(&o.bootTime, "boot-timeout", 5*time.Minute, "how long the boot of an emulator may take")
	f.DurationVar(&o.idleTime, "emulator-idle", 10*time.Minute, "stop an emulator that had no work for so long")
}

func (o *emulatorOptions) check() error {
	switch {
	case o.count < 0 || o.count > 40:
		return exitf(exitUsage, "--emulators must be between 1 and 40, or left out")
	case o.count == 0 && len(o.avds) > 0:
		o.count = len(o.avds)
	case len(o.avds) > 0 && len(o.avds) < o.count:
		return exitf(exitUsage, "--emulators=%d needs as many AVDs, and --avd names %d: name more, or leave --avd out to have them created", o.count, len(o.avds))
	}
	if o.bootTime <= 0 || o.idleTime <= 0 {
		return exitf(exitUsage, "--boot-timeout and --emulator-idle must be longer than 0, for example 5m")
	}
	return nil
}

// driver is the phones' own, or one that boots emulators besides.
func (o *emulatorOptions) driver(ctx context.Context, phones *android.Driver) (device.Driver, error) {
	if o.count == 0 {
		return phones, nil
	}
	e, err := android.NewEmulators(ctx, phones, android.EmulatorOptions{Count: o.count, AVDs: o.avds, Image: o.image, BootTime: o.bootTime, IdleTime: o.idleTime})
	if err != nil {
		return nil, exitf(exitInfrastructure, "--emulators: %v", err)
	}
	return e, nil
}
