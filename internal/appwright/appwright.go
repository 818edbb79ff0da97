// Package appwright runs one spec file of a user's AppWright project against an Appium server that is
// already there, and says how the tests ended.
//
// Stock AppWright manages Appium and the app itself, around every test and for the whole host. A [Run]
// takes that over without touching the user's project: a private directory comes first on PATH, with
// stand-ins for the tools that AppWright calls; a module loaded into each Node process sends AppWright's
// Appium requests to a proxy inside this process; and the proxy forces the worker's device and app into
// each session, and remembers what went wrong. docs/appwright.md says what stock AppWright does and why
// each of these is needed.
//
// The order of use is [Dependencies], [Inspect], [Project.Choose], [Run.Do]. The package is handed an
// endpoint, never a device: it knows no adb and no driver. A verdict is passed only when Playwright's
// report says so and the exit code agrees.
package appwright

import (
	"errors"
	"fmt"
	"syscall"

	"qgjob"
)

// Failure is the error type of this package: a cause with a stable name, and a message that says what
// happened, to what, and what to do about it.
type Failure struct {
	Cause   qgjob.Cause
	Message string
	Err     error // what lies beneath, for logs; nil where there is nothing
}

func (f *Failure) Error() string { return f.Message }

func (f *Failure) Unwrap() error { return f.Err }

func failuref(cause qgjob.Cause, format string, args ...any) *Failure {
	err := fmt.Errorf(format, args...)
	return &Failure{Cause: cause, Message: err.Error(), Err: errors.Unwrap(err)}
}

// hostFailure is what the worker's own host did wrong.
func hostFailure(doing string, err error) *Failure {
	cause := qgjob.CauseHostFailed
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		cause = qgjob.CauseHostDiskFull
	}
	return failuref(cause, "%s: %w", doing, err)
}
