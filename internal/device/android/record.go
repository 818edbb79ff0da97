package android

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"qgjob"
)

// record is what is remembered about a device across restarts of the worker: the build that was last
// prepared on it. It tells the scheduler where a build may be, and tells nothing about what is installed:
// that is for the device to prove.
type record struct {
	Package string    `json:"package"` // "" : nothing was prepared yet
	App     qgjob.App `json:"app"`
}

func (s *session) recordPath() string { return filepath.Join(s.dir, "installed.json") }

// readRecord returns an empty record for a file that is missing or damaged: it costs a hint.
func readRecord(path string, log *slog.Logger) record {
	data, err := os.ReadFile(path)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			log.Warn("what was installed on the device last is not known", "error", err)
		}
		return record{}
	}
	var r record
	if err := json.Unmarshal(data, &r); err != nil {
		log.Warn("what was installed on the device last is not known", "file", path, "error", err)
		return record{}
	}
	return r
}

// remember keeps a record; one that cannot be written costs a hint, too.
func (s *session) remember(r record) {
	s.mu.Lock()
	same := s.record == r
	s.record = r
	s.mu.Unlock()
	if same {
		return
	}
	if err := writeRecord(s.recordPath(), r); err != nil {
		s.log.Warn("what is installed on the device cannot be remembered", "error", err)
	}
}

func writeRecord(path string, r record) error {
	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
