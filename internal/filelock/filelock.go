// Package filelock makes processes of one host take turns. It knows nothing of what they take turns at.
package filelock

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"
)

const poll = 200 * time.Millisecond

// Wait takes an exclusive lock on a file, which it makes where it is missing. The kernel gives the lock back
// when its holder dies. When ctx ends first, its cause is returned.
func Wait(ctx context.Context, path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	again := time.NewTicker(poll)
	defer again.Stop()
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { file.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			file.Close()
			return nil, err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			file.Close()
			return nil, context.Cause(ctx)
		}
	}
}
