package api

import (
	"net/http"

	"qgjob"
)

// statuses is the one table between error codes and HTTP statuses.
var statuses = map[qgjob.Code]int{
	qgjob.CodeInvalid:      http.StatusUnprocessableEntity,
	qgjob.CodeUnauthorized: http.StatusUnauthorized,
	qgjob.CodeNotFound:     http.StatusNotFound,
	qgjob.CodeConflict:     http.StatusConflict,
	qgjob.CodeLeaseLost:    http.StatusGone,
	qgjob.CodeUnmatched:    http.StatusPreconditionFailed,
	qgjob.CodeTooLarge:     http.StatusRequestEntityTooLarge,
	qgjob.CodeUnavailable:  http.StatusServiceUnavailable,
	qgjob.CodeInternal:     http.StatusInternalServerError,
}

// Status returns the HTTP status of an error code.
func Status(c qgjob.Code) int {
	if s, ok := statuses[c]; ok {
		return s
	}
	return http.StatusInternalServerError
}

// CodeOf returns the error code that an HTTP status stands for where the body names none.
func CodeOf(status int) qgjob.Code {
	for c, s := range statuses {
		if s == status {
			return c
		}
	}
	if status >= 400 && status < 500 {
		return qgjob.CodeInvalid
	}
	return qgjob.CodeInternal
}

// Problem is the body of every error answer (RFC 9457, application/problem+json) with qgjob's stable code.
type Problem struct {
	Title  string     `json:"title"`
	Status int        `json:"status"`
	Detail string     `json:"detail"`
	Code   qgjob.Code `json:"code" doc:"stable name of the kind of error"`
}
