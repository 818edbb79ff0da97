package qgjob

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
)

// Code is the stable name of a kind of error. It travels in the body of every error answer.
type Code string

// The error codes. Package api maps them to HTTP statuses, package cli to exit codes.
const (
	CodeInvalid      Code = "invalid"      // the request is wrong; sending it again cannot help
	CodeUnauthorized Code = "unauthorized" // no token, or one that does not allow this
	CodeNotFound     Code = "not_found"    // there is no such thing, or it is another organization's
	CodeConflict     Code = "conflict"     // the request contradicts what is recorded
	CodeLeaseLost    Code = "lease_lost"   // the lease ended or was never given: stop working on that attempt
	CodeUnmatched    Code = "unmatched"    // no known device can ever run the job
	CodeTooLarge     Code = "too_large"    // the request is over a size limit
	CodeUnavailable  Code = "unavailable"  // try again later; the outcome of this request may be unknown
	CodeInternal     Code = "internal"     // a defect of qgjob
)

// Error is an error with a code. Message says what happened, to what, and what to do about it.
type Error struct {
	Code    Code
	Message string
	Err     error // the cause, for logs; nil where there is none
}

func (e *Error) Error() string { return e.Message }

func (e *Error) Unwrap() error { return e.Err }

// LogValue is the message and the cause, which a message for clients may leave out.
func (e *Error) LogValue() slog.Value {
	if e.Err == nil || strings.Contains(e.Message, e.Err.Error()) {
		return slog.StringValue(e.Message)
	}
	return slog.StringValue(e.Message + " (" + e.Err.Error() + ")")
}

// Errorf makes an Error of a code; %w wraps as in fmt.Errorf.
func Errorf(code Code, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), Err: errors.Unwrap(err)}
}

// ErrorCode returns the code of an error: CodeInternal for one without, "" for nil.
func ErrorCode(err error) Code {
	if err == nil {
		return ""
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return CodeInternal
}
