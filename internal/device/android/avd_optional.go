package android

import (
	"context"
	"io"

	"qgjob"
	"qgjob/internal/device"
)

var (
	_ device.Chronicler = (*avdSession)(nil)
	_ device.Screener   = (*avdSession)(nil)
	_ device.Keeper     = (*avdSession)(nil)
	_ device.Healer     = (*avdSession)(nil)
	_ device.Filmer     = (*avdSession)(nil)
)

// booted returns the session over adb of an emulator that runs.
func (s *avdSession) booted() (*session, error) {
	if err := s.use(); err != nil {
		return nil, err
	}
	inner := s.device()
	if inner == nil {
		return nil, device.Failf(qgjob.CauseDeviceOffline, "the emulator of AVD %s does not run", s.name)
	}
	return inner, nil
}

// allOfLog is a mark before everything that an emulator has logged since it was booted.
const allOfLog = "01-01 00:00:00.000"

// MarkLog implements device.Chronicler.
func (s *avdSession) MarkLog(ctx context.Context) (string, error) {
	inner, err := s.booted()
	if err != nil {
		return allOfLog, s.use() // it boots for the job
	}
	return inner.MarkLog(ctx)
}

// LogSince implements device.Chronicler.
func (s *avdSession) LogSince(ctx context.Context, mark string, w io.Writer) error {
	inner, err := s.booted()
	if err != nil {
		return err
	}
	return inner.LogSince(ctx, mark, w)
}

// Screen implements device.Screener.
func (s *avdSession) Screen(ctx context.Context, w io.Writer) error {
	inner, err := s.booted()
	if err != nil {
		return err
	}
	return inner.Screen(ctx, w)
}

// Film implements device.Filmer.
func (s *avdSession) Film(ctx context.Context) (device.Film, error) {
	inner, err := s.booted()
	if err != nil {
		return nil, err
	}
	return inner.Film(ctx)
}

// ReleaseKeeping implements device.Keeper.
func (s *avdSession) ReleaseKeeping(ctx context.Context, appiumSession string) error {
	return s.releaseBy(func(inner *session) error { return inner.ReleaseKeeping(ctx, appiumSession) })
}

// Heal implements device.Healer. The restart of an emulator is its end: the next job boots it anew.
func (s *avdSession) Heal(ctx context.Context, rung int) (string, error) {
	if err := s.use(); err != nil {
		return "", err
	}
	s.turn.Lock()
	defer s.turn.Unlock()
	inner := s.device()
	switch {
	case inner == nil:
		return "nothing: the emulator does not run", nil
	case rung == device.HealRungs-1:
		s.stop()
		return "ended the emulator: the next job boots it", nil
	}
	return inner.Heal(ctx, rung)
}
