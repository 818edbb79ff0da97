package appium

import (
	"context"
	"errors"
	"io"
)

// StartOn is one try of Start on a port.
func (in *Install) StartOn(ctx context.Context, opts Options, port int) (portTaken bool, err error) {
	s, err := in.start(ctx, opts, port)
	if err == nil {
		s.Close()
	}
	return errors.Is(err, errPortTaken), err
}

// OpenLog is a server's log with another limit.
func OpenLog(path string, limit int64) (io.WriteCloser, error) {
	l, err := openLog(path)
	if err != nil {
		return nil, err
	}
	l.limit = limit
	return l, nil
}

// Direct is the process's own URL.
func (s *Server) Direct() string { return s.direct }
