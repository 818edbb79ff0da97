package cli

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"qgjob"
	"qgjob/internal/api"
)

type devicesOptions struct {
	connection
	json bool
}

func (p *program) devicesCommand() *cobra.Command {
	var o devicesOptions
	cmd := &cobra.Command{
		Use:     "devices",
		Short:   "List the devices that live workers have",
		Example: "  qgjob devices\n  qgjob devices --json | jq -r '.devices[] | select(.state==\"offline\") | .message'",
	}
	f := cmd.Flags()
	f.BoolVar(&o.json, "json", false, "print JSON")
	p.connectionFlags(f, &o.connection)
	cmd.AddCommand(p.holdCommands()...)
	return command(cmd, func(ctx context.Context) error {
		if err := o.check(); err != nil {
			return err
		}
		return o.run(ctx, p)
	})
}

func (o *devicesOptions) run(ctx context.Context, p *program) error {
	ctx, interruption := p.interruptible(ctx)
	defer interruption.stop()
	list, err := within(ctx, &o.connection, func(ctx context.Context, c *api.Client) (api.DeviceList, error) { return c.Devices(ctx) })
	if err != nil {
		return err
	}
	if o.json {
		return printJSON(p.stdout, list)
	}
	if len(list.Devices) == 0 {
		fmt.Fprintln(p.stderr, "No devices: no worker is alive that has one. Start one with 'qgjob worker', or simulated phones with 'qgjob dev --phones 2'.")
		return nil
	}
	rows := make([][]string, 0, len(list.Devices))
	for _, d := range list.Devices {
		rows = append(rows, []string{
			d.ID, string(d.State), string(d.Kind), d.Model, systemOf(d), screenOf(d), batteryOf(d), storageOf(d), d.Host, occupation(d),
			strconv.FormatInt(d.Installs, 10), strconv.FormatInt(d.InstallsSaved, 10),
		})
	}
	p.printTable([]string{"DEVICE", "STATE", "KIND", "MODEL", "OS", "SCREEN", "BATTERY", "FREE", "HOST", "NOW", "INSTALLS", "SAVED"}, rows)
	return nil
}

// systemOf shows the version of a device's system, or that a cloud's slot has each.
func systemOf(d qgjob.Device) string {
	if d.Platform == qgjob.PlatformAny {
		return "android or ios"
	}
	return d.OSVersion
}

// screenOf, batteryOf and storageOf show what is known of a device's body.
func screenOf(d qgjob.Device) string {
	if d.ScreenWidth == 0 {
		return "-"
	}
	return fmt.Sprintf("%dx%d", d.ScreenWidth, d.ScreenHeight)
}

func batteryOf(d qgjob.Device) string {
	if d.BatteryPercent == 0 {
		return "-"
	}
	return fmt.Sprintf("%d%%", d.BatteryPercent)
}

func storageOf(d qgjob.Device) string {
	if d.FreeStorage == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f GB", float64(d.FreeStorage)/1e9)
}

// occupation is what a device does now, or why it does nothing, or what is installed on it.
func occupation(d qgjob.Device) string {
	switch {
	case d.Message != "":
		return oneLine(d.Message)
	case d.JobID != "":
		return "job " + d.JobID
	case d.Installed != nil:
		return d.Installed.AppVersionID + " installed"
	}
	return "-"
}
