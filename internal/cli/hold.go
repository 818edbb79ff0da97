package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"qgjob"
	"qgjob/internal/api"
)

type holdOptions struct {
	connection
	kind   qgjob.HoldKind
	reason string
	lasts  time.Duration
}

// holdCommands are the commands that let a device take no work, and take it again.
func (p *program) holdCommands() []*cobra.Command {
	var commands []*cobra.Command
	for _, h := range []struct {
		kind        qgjob.HoldKind
		short, long string
	}{
		{qgjob.HoldDrain, "Let a device finish what it runs and take nothing more", ""},
		{qgjob.HoldMaintain, "Take a device out for maintenance", ""},
		{qgjob.HoldReserve, "Reserve a device for a person", ""},
		{qgjob.HoldCheck, "Let a device's worker find out whether it is well", "\n\nA device that passes takes work again; one that does not goes into quarantine."},
	} {
		o := holdOptions{kind: h.kind}
		cmd := &cobra.Command{
			Use:   string(h.kind) + " DEVICE",
			Short: h.short,
			Long: h.short + `. A job that runs on it ends as usual. Its worker hears of it within ten seconds. It takes work again
when the time is over, or after qgjob devices release.` + h.long,
			Example: "  qgjob devices " + string(h.kind) + " R58M12ABCDE\n  qgjob devices " + string(h.kind) + " R58M12ABCDE --for=30m --reason='new battery'",
			Args:    oneArgument,
		}
		f := cmd.Flags()
		f.StringVar(&o.reason, "reason", "", "`text` that others see")
		f.DurationVar(&o.lasts, "for", 0, "how long, for example 30m (default until it is released)")
		p.connectionFlags(f, &o.connection)
		commands = append(commands, command(cmd, func(ctx context.Context) error {
			if o.lasts < 0 {
				return exitf(exitUsage, "--for cannot be negative")
			}
			return o.run(ctx, p, cmd.Flags().Arg(0))
		}))
	}
	var o connection
	release := &cobra.Command{
		Use:     "release DEVICE",
		Short:   "Let a device that is held or in quarantine take work again",
		Example: "  qgjob devices release R58M12ABCDE",
		Args:    oneArgument,
	}
	p.connectionFlags(release.Flags(), &o)
	return append(commands, command(release, func(ctx context.Context) error {
		if err := o.check(); err != nil {
			return err
		}
		id := release.Flags().Arg(0)
		if err := o.client(reachTime).ReleaseDevice(ctx, id); err != nil {
			return err
		}
		fmt.Fprintf(p.stdout, "Device %s takes work again.\n", id)
		return nil
	}))
}

func (o *holdOptions) run(ctx context.Context, p *program, id string) error {
	if err := o.check(); err != nil {
		return err
	}
	if err := o.client(reachTime).HoldDevice(ctx, id, api.HoldRequest{Kind: o.kind, Reason: o.reason, ForMS: o.lasts.Milliseconds()}); err != nil {
		return err
	}
	h := qgjob.Hold{Kind: o.kind, Reason: o.reason}
	if o.lasts > 0 {
		end := time.Now().Add(o.lasts)
		h.Until = &end
	}
	fmt.Fprintf(p.stdout, "Device %s is %s.\n", id, h)
	return nil
}
