package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/validation"

	"qgjob"
	"qgjob/internal/api"
)

// maxComplaints bounds how many faults of one request its error message lists.
const maxComplaints = 5

// problem is the body of every error answer.
type problem struct {
	api.Problem
}

// Error, GetStatus and ContentType are what huma wants of an error answer.
func (p *problem) Error() string             { return p.Detail }
func (p *problem) GetStatus() int            { return p.Status }
func (p *problem) ContentType(string) string { return "application/problem+json" }

func newProblem(status int, code qgjob.Code, detail string) *problem {
	return &problem{api.Problem{Title: http.StatusText(status), Status: status, Detail: detail, Code: code}}
}

// huma takes these from package variables only; no other program shares this process's huma.
func init() {
	huma.NewError = humaProblem
	// Without this, "ORG_ID" would be a second spelling of "org_id" instead of an unknown field.
	huma.ValidateStrictCasing = true
}

// problemOf is the error answer for an error of a handler.
func problemOf(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	switch e, ok := errors.AsType[*qgjob.Error](err); {
	case ok && e.Code != qgjob.CodeInternal:
		return newProblem(api.Status(e.Code), e.Code, e.Message)
	case !ok && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)):
		return newProblem(http.StatusServiceUnavailable, qgjob.CodeUnavailable, "the request was given up before it was done: its outcome is unknown; try again")
	}
	return newProblem(http.StatusInternalServerError, qgjob.CodeInternal,
		"something went wrong inside the server; its log has the details")
}

// humaProblem is the error answer for what huma finds wrong with a request before its handler runs.
func humaProblem(status int, message string, errs ...error) huma.StatusError {
	var said []string
	for _, err := range errs {
		if detail, ok := errors.AsType[*huma.ErrorDetail](err); ok {
			said = append(said, complaint(detail))
		} else if err != nil {
			said = append(said, err.Error())
		}
	}
	if more := len(said) - maxComplaints; more > 0 {
		said = append(said[:maxComplaints], fmt.Sprintf("and %d more", more))
	}
	if len(said) > 0 {
		message = strings.Join(said, "; ")
	}
	switch status {
	case http.StatusBadRequest: // a body that is missing or no JSON
		status = http.StatusUnprocessableEntity
		if len(said) == 0 {
			message = "the request body is missing: send JSON of the documented form"
		}
	case http.StatusRequestEntityTooLarge:
		message = fmt.Sprintf("the request body is larger than %d bytes, which is the limit", api.MaxJSONBody)
	case http.StatusRequestTimeout:
		return newProblem(status, qgjob.CodeUnavailable, "the request body did not arrive in time: send it again")
	case http.StatusUnsupportedMediaType:
		message = "the request body must be JSON: send it with Content-Type: application/json"
	case http.StatusInternalServerError: // huma could not read the body: the client left
		return newProblem(http.StatusServiceUnavailable, qgjob.CodeUnavailable, "the request body could not be read: send it again")
	}
	return newProblem(status, api.CodeOf(status), message)
}

// complaint says what is wrong with one part of a request.
func complaint(d *huma.ErrorDetail) string {
	where := strings.TrimPrefix(strings.TrimPrefix(d.Location, "body"), ".")
	if field, ok := strings.CutPrefix(d.Message, "expected required property "); ok {
		field = strings.TrimSuffix(field, " to be present")
		return strings.TrimPrefix(where+"."+field, ".") + " is missing"
	}
	kind, name, _ := strings.Cut(d.Location, ".")
	switch d.Message {
	case validation.MsgUnexpectedProperty:
		return fmt.Sprintf("unknown field %.100q", where)
	case "unknown query parameter":
		return fmt.Sprintf("unknown query parameter %.100q", name)
	case "required query parameter is missing":
		return fmt.Sprintf("query parameter %s is missing", name)
	case "required header parameter is missing":
		return fmt.Sprintf("header %s is missing", name)
	}
	if where == "" {
		if strings.HasPrefix(d.Message, unreadable) {
			return d.Message
		}
		where = "the request body"
	}
	if kind == "query" || kind == "header" {
		where = kind + " parameter " + name
	}
	return fmt.Sprintf("%s: %s, not %s", where, d.Message, shown(d.Value))
}

// unreadable is how the message of a body begins that cannot be decoded.
const unreadable = "the request body cannot be read: "

// unmarshal decodes a JSON body. Its errors name the field, not the program's types.
func unmarshal(data []byte, v any) error {
	err := json.Unmarshal(data, v)
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		kind := "a " + e.Type.Kind().String()
		switch e.Type.Kind() {
		case reflect.Int, reflect.Int64:
			kind = "an integer that can be used here"
		case reflect.Slice, reflect.Array:
			kind = "a list"
		case reflect.Float64:
			kind = "a number that can be used here"
		case reflect.Struct, reflect.Map:
			kind = "an object"
		}
		field := e.Field + ": "
		if e.Field == "" {
			field = ""
		}
		return fmt.Errorf("%s%s%s is not %s", unreadable, field, e.Value, kind)
	}
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Errorf("%sbroken JSON at byte %d: %s", unreadable, e.Offset, e)
	}
	return errors.New(unreadable + strings.TrimPrefix(err.Error(), "json: "))
}

// shown is a refused value as the message repeats it: as JSON, cut to a readable length.
func shown(value any) string {
	data, err := json.Marshal(value)
	if err != nil {
		return "this"
	}
	const most = 80
	if text := string(data); len(text) > most {
		return strings.ToValidUTF8(text[:most], "") + "…"
	}
	return string(data)
}

// writeProblem writes an error answer outside huma.
func writeProblem(w http.ResponseWriter, p *problem) {
	data, err := json.Marshal(p)
	if err != nil {
		panic(err) // strings and an integer can always be encoded
	}
	w.Header().Set("Content-Type", p.ContentType(""))
	w.Header().Del("Content-Length")
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(data, '\n')) // an error means that the client has left
}
