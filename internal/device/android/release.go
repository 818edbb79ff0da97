package android

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"
)

// endTimeout bounds the end of the Appium sessions that a test left open; after it Appium itself ends.
const endTimeout = 15 * time.Second

// Release implements device.Session.
func (s *session) Release(ctx context.Context) error {
	if err := s.use(); err != nil {
		return err
	}
	s.kept = ""
	s.endSessions(ctx)
	return errors.Join(s.stopApp(ctx), s.removeForward(ctx))
}

// ReleaseKeeping implements device.Keeper. The session that stays needs its port forward.
func (s *session) ReleaseKeeping(ctx context.Context, appiumSession string) error {
	if err := s.use(); err != nil {
		return err
	}
	s.kept = appiumSession
	s.endSessions(ctx)
	return s.stopApp(ctx)
}

// endSessions deletes open Appium sessions but the one that is kept. A server that cannot do that in time is
// ended, and with it everything that it runs; the next Endpoint starts another.
func (s *session) endSessions(ctx context.Context) {
	if s.server == nil {
		return
	}
	asking, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	n, err := s.server.EndSessions(asking, s.kept)
	if err != nil {
		s.log.Warn("Appium does not end its sessions: it is ended", "error", err)
		s.stopServer()
		return
	}
	if n > 0 {
		s.log.Info("ended Appium sessions that were left open", "sessions", n)
	}
}

func (s *session) stopApp(ctx context.Context) error {
	pkg := s.record.Get().Package
	if pkg == "" {
		return nil
	}
	_, err := s.shell(ctx, commandTimeout, "am force-stop "+pkg)
	return err
}

// removeForward removes this session's port forward, which an Appium that was killed leaves behind. Others'
// forwards to the same device are theirs.
func (s *session) removeForward(ctx context.Context) error {
	if s.systemPort == 0 {
		return nil
	}
	doing := "removal of port forwards"
	asking, cancel := context.WithTimeoutCause(ctx, serverTimeout, errServerHangs)
	defer cancel()
	forwards, err := s.d.client.Forwards(asking, s.serial)
	if err != nil {
		return s.d.serverFailure(ctx, err)
	}
	local := "tcp:" + strconv.Itoa(s.systemPort)
	for _, f := range forwards {
		if f.Local != local {
			continue
		}
		if err := s.d.client.RemoveForward(asking, s.serial, local); err != nil {
			return s.explain(ctx, doing, fmt.Errorf("%s: %w", local, err))
		}
	}
	return nil
}
