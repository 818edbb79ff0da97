package android

import (
	"path/filepath"

	"qgjob"
	"qgjob/internal/device"
)

// record is what is remembered about a device across restarts of the worker: the build that was last
// prepared on it. It tells the scheduler where a build may be, and tells nothing about what is installed:
// that is for the device to prove.
type record struct {
	Package string    `json:"package"` // "" : nothing was prepared yet
	App     qgjob.App `json:"app"`
}

func (s *session) recordPath() string { return filepath.Join(s.dir, "installed.json") }

// remember keeps a record; one that cannot be written costs a hint.
func (s *session) remember(r record) {
	s.mu.Lock()
	same := s.record == r
	s.record = r
	s.mu.Unlock()
	if same {
		return
	}
	if err := device.WriteHint(s.recordPath(), r); err != nil {
		s.log.Warn("what is installed on the device cannot be remembered", "error", err)
	}
}
