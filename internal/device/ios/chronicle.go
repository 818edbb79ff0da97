package ios

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"

	"qgjob"
	"qgjob/internal/device"
)

var _ device.Screener = (*session)(nil)

// Screen implements device.Screener: devicectl takes no pictures of iPhones, WebDriverAgent does.
func (s *session) Screen(ctx context.Context, w io.Writer) error {
	if err := s.use(); err != nil {
		return err
	}
	s.mu.Lock()
	wda := s.wda
	s.mu.Unlock()
	if wda == nil {
		return device.Failf(qgjob.CauseSessionDied, "no WebDriverAgent runs on iPhone %s that could take a picture", s.info.Serial)
	}
	picture, err := wda.screen(ctx)
	if err != nil {
		return device.Failf(qgjob.CauseDeviceHung, "WebDriverAgent on iPhone %s takes no picture: %w", s.info.Serial, err)
	}
	_, err = w.Write(picture)
	return err
}

// simulatorSession is a session that tells what a simulator logs and films; devicectl has no such commands for iPhones.
type simulatorSession struct {
	*session
	simulator *simulator
}

var _ device.Chronicler = (*simulatorSession)(nil)

// MarkLog implements device.Chronicler: a simulator's clock is this Mac's.
func (s *simulatorSession) MarkLog(context.Context) (string, error) {
	return "@" + strconv.FormatInt(time.Now().Unix(), 10), s.use()
}

// LogSince implements device.Chronicler. The log is asked for what the simulator kept, with `log show`, rather than followed with `log stream`: a stream
// loses messages where there are many, has to be there before them, and runs as a child of the simulator's launchd, out of reach of whoever ends simctl.
func (s *simulatorSession) LogSince(ctx context.Context, mark string, w io.Writer) error {
	if err := s.use(); err != nil {
		return err
	}
	if _, err := strconv.ParseInt(strings.TrimPrefix(mark, "@"), 10, 64); err != nil {
		return device.Failf(qgjob.CauseHostFailed, "%q is no mark of a simulator's log", mark)
	}
	err := s.simulator.stream(ctx, commandTimeout, w, "simctl", "spawn", s.simulator.udid, "log", "show", "--style", "compact", "--start", mark)
	if r, ok := errors.AsType[*refusal](err); ok {
		err = s.simulator.explain("log", r.text)
	}
	return s.simulator.refused("log", err)
}

// Screen implements device.Screener, without the WebDriverAgent that the app under test may have taken down.
func (s *simulatorSession) Screen(ctx context.Context, w io.Writer) error {
	if err := s.use(); err != nil {
		return err
	}
	picture, err := s.simulator.xcrun(ctx, commandTimeout, "simctl", "io", s.simulator.udid, "screenshot", "--type=png", "-")
	if err != nil {
		return s.simulator.refused("screenshot", err)
	}
	_, err = w.Write(picture)
	return err
}
