package simulate

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"qgjob"
)

// Limits of what is read. They keep sums of a hundred thousand jobs far from what a number holds.
const (
	maxLine       = 1 << 20
	maxDurationMS = 7 * 24 * 3_600_000
	maxAtMS       = 100 * 365 * 24 * 3_600_000
)

// invalid is an error about a line of a file.
func invalid(file string, line int, format string, args ...any) error {
	return qgjob.Errorf(qgjob.CodeInvalid, "%s:%d: %s", file, line, fmt.Sprintf(format, args...))
}

// jobLine is a line of a workload as it is written; nil stands for a field that is not there.
type jobLine struct {
	ID         *string `json:"id"`
	AtMS       *int64  `json:"at_ms"`
	Org        *string `json:"org"`
	AppVersion *string `json:"app_version"`
	Test       *string `json:"test"`
	Priority   *int    `json:"priority"`
	Target     *string `json:"target"`
	Run        *string `json:"run"`
	DurationMS *int64  `json:"duration_ms"`
	DeadlineMS int64   `json:"deadline_ms"`
	MaxCost    float64 `json:"max_cost"`
}

// ReadWorkload reads a workload, one JSON object a line; file names it in errors. Fields that are not known are
// ignored and named in unknown. Without priority a job has the default one, without target it takes any own phone or
// emulator, without run it is a run of its own.
func ReadWorkload(r io.Reader, file string) (jobs []Job, unknown []string, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	known := map[string]int{}
	n := 0
	for lines.Scan() {
		n++
		text := bytes.TrimSpace(lines.Bytes())
		if len(text) == 0 {
			continue
		}
		var l jobLine
		if err := decode(text, &l, &unknown); err != nil {
			return nil, nil, invalid(file, n, "%v", err)
		}
		j, err := l.job()
		if err != nil {
			return nil, nil, invalid(file, n, "%v", err)
		}
		if before, twice := known[j.ID]; twice {
			return nil, nil, invalid(file, n, "job %q is there already, on line %d: ids must differ", j.ID, before)
		}
		known[j.ID] = n
		jobs = append(jobs, j)
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		return nil, nil, invalid(file, n+1, "the line is longer than %d bytes: a workload has one job a line", maxLine)
	case err != nil:
		return nil, nil, fmt.Errorf("%s cannot be read: %w", file, err)
	case len(jobs) == 0:
		return nil, nil, invalid(file, max(n, 1), "there is no job: a workload has one a line, for example %s", exampleJob)
	}
	return jobs, unknown, nil
}

const exampleJob = `{"id":"j1","at_ms":0,"org":"a","app_version":"v1","test":"tests/x.spec.ts","priority":3,"target":"device","run":"r1","duration_ms":41000}`

func (l jobLine) job() (Job, error) {
	var j Job
	for _, f := range []struct {
		name string
		from *string
		to   *string
	}{{"id", l.ID, &j.ID}, {"org", l.Org, &j.Org}, {"app_version", l.AppVersion, &j.AppVersion}, {"test", l.Test, &j.Test}} {
		if f.from == nil || *f.from == "" {
			return j, fmt.Errorf("%s is missing: each job has one, for example %s", f.name, exampleJob)
		}
		*f.to = *f.from
	}
	for _, f := range []struct {
		name string
		from *int64
		to   *int64
		most int64
	}{{"at_ms", l.AtMS, &j.AtMS, maxAtMS}, {"duration_ms", l.DurationMS, &j.DurationMS, maxDurationMS}} {
		if f.from == nil {
			return j, fmt.Errorf("%s is missing: each job has one, for example %s", f.name, exampleJob)
		}
		if err := milliseconds(f.name, *f.from, f.most); err != nil {
			return j, err
		}
		*f.to = *f.from
	}
	j.DeadlineMS, j.MaxCost = l.DeadlineMS, l.MaxCost
	if err := milliseconds("deadline_ms", j.DeadlineMS, maxAtMS); err != nil {
		return j, err
	}
	if err := price("max_cost", j.MaxCost); err != nil {
		return j, err
	}
	j.Priority = qgjob.DefaultPriority
	if l.Priority != nil {
		j.Priority = *l.Priority
	}
	if err := qgjob.CheckPriority(j.Priority); err != nil {
		return j, err
	}
	if l.Run != nil {
		j.Run = *l.Run
	}
	target := ""
	if l.Target != nil {
		target = *l.Target
	}
	var err error
	j.Target, err = qgjob.ParseTarget(target)
	return j, err
}

func milliseconds(name string, ms, most int64) error {
	if ms < 0 || ms > most {
		return fmt.Errorf("%s is %d: it must be from 0 to %d", name, ms, most)
	}
	return nil
}

func price(name string, units float64) error {
	if !(units >= 0 && units <= 1e9) {
		return fmt.Errorf("%s is %v: it must be from 0 to 1000000000", name, units)
	}
	return nil
}

// decode reads one JSON object into v. Unknown fields are noted, each once.
func decode(text []byte, v any, unknown *[]string) error {
	strict := json.NewDecoder(bytes.NewReader(text))
	strict.DisallowUnknownFields()
	err := strict.Decode(v)
	if err == nil {
		if strict.More() {
			return errors.New("there is more than one JSON value: one object a line")
		}
		return nil
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		if name = strings.Trim(name, `"`); !slices.Contains(*unknown, name) {
			*unknown = append(*unknown, name)
		}
		err = json.Unmarshal(text, v)
	}
	if err == nil {
		return nil
	}
	return readable(text, err)
}

// jsonError is an error of the text's form, with the byte that it was found at.
type jsonError struct {
	at   int
	text string
}

func (e *jsonError) Error() string { return e.text }

// readable says of a JSON error what to change.
func readable(text []byte, err error) error {
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		what := map[reflect.Kind]string{
			reflect.String: "a text in quotes", reflect.Int64: "a whole number", reflect.Int: "a whole number",
			reflect.Float64: "a number", reflect.Slice: "a list in []",
		}[t.Type.Kind()]
		if what == "" {
			what = "an object in {}"
		}
		subject := cmp.Or(t.Field, "this")
		return &jsonError{int(t.Offset), fmt.Sprintf("%s is a JSON %s: it must be %s", subject, t.Value, what)}
	}
	if s, ok := errors.AsType[*json.SyntaxError](err); ok {
		return &jsonError{int(s.Offset), fmt.Sprintf("this is no JSON: %v", s)}
	}
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return &jsonError{len(text), "this is no JSON: it ends too early"}
	}
	return err
}

type fleetFile struct {
	Devices []json.RawMessage `json:"devices"`
	Orgs    []json.RawMessage `json:"orgs"`
}

type deviceEntry struct {
	ID          *string `json:"id"`
	Target      *string `json:"target"`
	InstallMS   *int64  `json:"install_ms"`
	ResetMS     *int64  `json:"reset_ms"`
	MinutePrice float64 `json:"minute_price"`
}

type orgEntry struct {
	ID         *string  `json:"id"`
	Weight     *float64 `json:"weight"`
	MaxDevices *int     `json:"max_devices"`
	MaxCost    float64  `json:"max_cost"`
}

const exampleFleet = `{"devices":[{"id":"d1","target":"device","install_ms":45000,"reset_ms":1500}],"orgs":[{"id":"a","weight":1,"max_devices":0}]}`

// ReadFleet reads a fleet; file names it in errors. Fields that are not known are ignored and named in unknown.
func ReadFleet(r io.Reader, file string) (fleet Fleet, unknown []string, err error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return fleet, nil, fmt.Errorf("%s cannot be read: %w", file, err)
	}
	var f fleetFile
	if err := decode(text, &f, &unknown); err != nil {
		return fleet, nil, invalid(file, errorLine(text, err), "%v", err)
	}
	lines := &lineOf{text: text}
	known := map[string]int{}
	for _, raw := range f.Devices {
		line := lines.of(raw)
		var e deviceEntry
		if err := decode(raw, &e, &unknown); err != nil {
			return fleet, nil, invalid(file, line, "%v", err)
		}
		d, err := e.device()
		if err != nil {
			return fleet, nil, invalid(file, line, "%v", err)
		}
		if before, twice := known[d.ID]; twice {
			return fleet, nil, invalid(file, line, "device %q is there already, on line %d: ids must differ", d.ID, before)
		}
		known[d.ID] = line
		fleet.Devices = append(fleet.Devices, d)
	}
	if len(fleet.Devices) == 0 {
		return fleet, nil, invalid(file, 1, "there is no device: a fleet looks like %s", exampleFleet)
	}
	known = map[string]int{}
	for _, raw := range f.Orgs {
		line := lines.of(raw)
		var e orgEntry
		if err := decode(raw, &e, &unknown); err != nil {
			return fleet, nil, invalid(file, line, "%v", err)
		}
		o, err := e.org()
		if err != nil {
			return fleet, nil, invalid(file, line, "%v", err)
		}
		if before, twice := known[o.ID]; twice {
			return fleet, nil, invalid(file, line, "organization %q is there already, on line %d: ids must differ", o.ID, before)
		}
		known[o.ID] = line
		fleet.Orgs = append(fleet.Orgs, o)
	}
	return fleet, unknown, nil
}

func (e deviceEntry) device() (Device, error) {
	var d Device
	if e.ID == nil || *e.ID == "" {
		return d, fmt.Errorf("id is missing: a fleet looks like %s", exampleFleet)
	}
	d.ID, d.Target = *e.ID, qgjob.TargetDevice
	if e.Target != nil {
		t, err := qgjob.ParseTarget(*e.Target)
		if err != nil || t == qgjob.TargetAny {
			return d, fmt.Errorf("device %q has target %q: a device is one of device, emulator, browserstack", d.ID, *e.Target)
		}
		d.Target = t
	}
	for _, f := range []struct {
		name string
		from *int64
		to   *int64
	}{{"install_ms", e.InstallMS, &d.InstallMS}, {"reset_ms", e.ResetMS, &d.ResetMS}} {
		if f.from == nil {
			return d, fmt.Errorf("device %q: %s is missing: a fleet looks like %s", d.ID, f.name, exampleFleet)
		}
		if err := milliseconds(f.name, *f.from, maxDurationMS); err != nil {
			return d, fmt.Errorf("device %q: %w", d.ID, err)
		}
		*f.to = *f.from
	}
	d.MinutePrice = e.MinutePrice
	if err := price("minute_price", d.MinutePrice); err != nil {
		return d, fmt.Errorf("device %q: %w", d.ID, err)
	}
	return d, nil
}

func (e orgEntry) org() (Org, error) {
	if e.ID == nil || *e.ID == "" {
		return Org{}, fmt.Errorf("id is missing: a fleet looks like %s", exampleFleet)
	}
	o := Org{ID: *e.ID, Weight: 1}
	if e.Weight != nil {
		o.Weight = *e.Weight
	}
	if !(o.Weight > 0 && o.Weight <= 1e6) {
		return o, fmt.Errorf("organization %q: weight is %v: it must be above 0 and at most 1000000", o.ID, o.Weight)
	}
	if e.MaxDevices != nil {
		o.MaxDevices = *e.MaxDevices
	}
	if o.MaxDevices < 0 {
		return o, fmt.Errorf("organization %q: max_devices is %d: use 0 for no limit", o.ID, o.MaxDevices)
	}
	o.MaxCost = e.MaxCost
	if err := price("max_cost", o.MaxCost); err != nil {
		return o, fmt.Errorf("organization %q: %w", o.ID, err)
	}
	return o, nil
}

// errorLine is the line of a JSON error in a text.
func errorLine(text []byte, err error) int {
	at := 0
	if e, ok := errors.AsType[*jsonError](err); ok {
		at = min(max(e.at-1, 0), len(text))
	}
	return 1 + bytes.Count(text[:at], []byte("\n"))
}

// lineOf finds the lines of entries that come in the order of a text.
type lineOf struct {
	text []byte
	from int
}

func (l *lineOf) of(entry []byte) int {
	if at := bytes.Index(l.text[l.from:], entry); at >= 0 {
		l.from += at
	}
	line := 1 + bytes.Count(l.text[:l.from], []byte("\n"))
	l.from += len(entry)
	return line
}
