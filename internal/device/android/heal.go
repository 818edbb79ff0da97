package android

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"qgjob"
	"qgjob/internal/device"
	"qgjob/internal/device/adb"
)

const (
	bootTimeout = 3 * time.Minute // of a restart
	upLook      = time.Second
)

// Heal implements device.Healer.
func (s *session) Heal(ctx context.Context, rung int) (did string, err error) {
	if err := s.use(); err != nil {
		return "", err
	}
	switch rung {
	case 0:
		return "reconnected to it", s.reconnect(ctx)
	case 1:
		s.stopServer()
		return "ended its Appium", s.removeForward(ctx)
	case 2:
		return "restarted it", s.reboot(ctx)
	}
	return "", device.Failf(qgjob.CauseHostFailed, "there is no rung %d to mend device %s", rung, s.serial)
}

// reconnect makes the adb server begin its connection to the device anew.
func (s *session) reconnect(ctx context.Context) error {
	asking, cancel := s.bounded(ctx, commandTimeout, "reconnect")
	defer cancel()
	if err := s.d.client.Reconnect(asking, s.serial); err != nil {
		return s.explain(ctx, "reconnect", err)
	}
	return s.awaitBoot(ctx, commandTimeout, "")
}

func (s *session) reboot(ctx context.Context) error {
	before, err := s.bootID(ctx)
	if err != nil {
		return err
	}
	s.stopServer()
	if _, err := s.shell(ctx, commandTimeout, "reboot"); err != nil && !errors.Is(err, adb.ErrCut) && device.CauseOf(err) != qgjob.CauseDeviceOffline {
		return err
	}
	return s.awaitBoot(ctx, bootTimeout, before)
}

// bootID names the time since the device was last started (proc(5), /proc/sys/kernel/random).
func (s *session) bootID(ctx context.Context) (string, error) {
	out, err := s.shell(ctx, checkTimeout, "cat /proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(out.Stdout), err
}

// awaitBoot returns when the device is up, and, if before is not "", when it has been started since.
func (s *session) awaitBoot(ctx context.Context, bound time.Duration, before string) error {
	ctx, cancel := s.bounded(ctx, bound, "start of the device")
	defer cancel()
	tick := time.NewTicker(upLook)
	defer tick.Stop()
	for {
		out, err := s.shell(ctx, checkTimeout, "getprop sys.boot_completed")
		if err == nil && strings.TrimSpace(out.Stdout) == "1" {
			id, idErr := s.bootID(ctx)
			if before == "" || idErr == nil && id != before {
				return nil
			}
			err = fmt.Errorf("it has not been restarted")
		}
		if s.d.ensureServer(ctx) == nil && strings.Contains(s.serial, ":") { // it may have ended under us
			s.d.connect(ctx, s.serial)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w (%w)", context.Cause(ctx), err)
		}
	}
}
