package device

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"sync"
)

// Hint is what is remembered of a device across restarts of the worker, in a file. A file that is missing, damaged or cannot be written costs
// what it would have told, and no more. Several goroutines may use it.
type Hint[T comparable] struct {
	path string
	log  *slog.Logger

	mu    sync.Mutex
	value T
}

// OpenHint reads a hint; what is not known is the zero value.
func OpenHint[T comparable](path string, log *slog.Logger) *Hint[T] {
	h := &Hint[T]{path: path, log: log}
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return h
	}
	var value T
	if err == nil {
		err = json.Unmarshal(data, &value)
	}
	if err != nil {
		log.Warn("what is known of a device cannot be read", "file", path, "error", err)
		return h
	}
	h.value = value
	return h
}

// Get is what is remembered.
func (h *Hint[T]) Get() T {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.value
}

// Set remembers something else. One goroutine at a time calls it.
func (h *Hint[T]) Set(value T) {
	h.mu.Lock()
	same := h.value == value
	h.value = value
	h.mu.Unlock()
	if same {
		return
	}
	if err := h.write(value); err != nil {
		h.log.Warn("what is known of a device cannot be kept", "file", h.path, "error", err)
	}
}

func (h *Hint[T]) write(value T) error {
	data, err := json.Marshal(value)
	if err != nil {
		return err
	}
	tmp := h.path + ".new"
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, h.path)
}
