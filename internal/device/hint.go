package device

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
)

// ReadHint reads what WriteHint wrote. A file that is missing or damaged costs a hint: v is then left as it is.
func ReadHint[T any](path string, v *T, log *slog.Logger) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var read T
	if err == nil {
		err = json.Unmarshal(data, &read)
	}
	if err != nil {
		log.Warn("what is known of a device cannot be read", "file", path, "error", err)
		return
	}
	*v = read
}

// WriteHint keeps something about a device across restarts of the worker.
func WriteHint(path string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
