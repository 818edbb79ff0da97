// Package qgjob is the vocabulary of qgjob: organizations submit runs, a run has jobs, a job has
// attempts, workers own devices, and a device runs one attempt at a time.
//
// It holds the types, the one state-transition function, the rules that turn the end of an attempt
// into a job's next state, and the error codes. It does no I/O and reads no clock, so that server,
// worker, command line, simulator and tests share one meaning of every word.
package qgjob

import (
	"fmt"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Priorities: a lower number is more urgent.
const (
	MostUrgent      = 0
	DefaultPriority = 1
	LeastUrgent     = 1000
)

// Retry budgets of a job, on top of its first attempt.
const (
	// TestRetries is how often a job is tried again after its test failed or timed out.
	TestRetries = 2
	// InfraRetries is how often a job is tried again after something that was not the test's fault.
	InfraRetries = 3
)

// Limits of what a submit may carry; lengths are in bytes.
const (
	MaxIDLength       = 200
	MaxTestPathLength = 1024
	MaxShards         = 100 // parts of one spec
)

// Target is the kind of device that a job asks for.
type Target string

// The targets. TargetAny is what an omitted target means: any own phone or emulator, never a paid cloud.
const (
	TargetAny          Target = "any"
	TargetDevice       Target = "device"
	TargetEmulator     Target = "emulator"
	TargetBrowserStack Target = "browserstack"
)

// Targets lists every target in the order in which help texts name them.
var Targets = []Target{TargetAny, TargetDevice, TargetEmulator, TargetBrowserStack}

// ParseTarget reads a target; the empty string is TargetAny.
func ParseTarget(s string) (Target, error) {
	if s == "" {
		return TargetAny, nil
	}
	for _, t := range Targets {
		if Target(s) == t {
			return t, nil
		}
	}
	return "", Errorf(CodeInvalid, "target %q is unknown: use device, emulator, browserstack, or leave it out for any own phone or emulator", s)
}

// Accepts says whether a job with target t may run on a device of the given kind.
func (t Target) Accepts(kind Target) bool {
	if t == TargetAny {
		return kind == TargetDevice || kind == TargetEmulator
	}
	return t == kind
}

// CheckPriority refuses a priority outside 0 to 1000.
func CheckPriority(p int) error {
	if p < MostUrgent || p > LeastUrgent {
		return Errorf(CodeInvalid, "priority %d is out of range: use %d (most urgent) to %d", p, MostUrgent, LeastUrgent)
	}
	return nil
}

// IsBudget says whether so many units are an amount that a budget can be. Less would be nothing, and 0 stands for no bound.
func IsBudget(units float64) bool { return units >= 0.01 && units <= 1e9 }

// CheckID refuses an organization or app version id that is empty, longer than MaxIDLength bytes, or holds
// anything but letters, digits and . _ - + @ ~ : so that ids can stand in URLs, paths and log lines as they are.
func CheckID(field, id string) error {
	if id == "" {
		return Errorf(CodeInvalid, "%s is missing", field)
	}
	if len(id) > MaxIDLength {
		return Errorf(CodeInvalid, "%s has %d bytes: at most %d are allowed", field, len(id), MaxIDLength)
	}
	for _, r := range id {
		if !(r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r)) || strings.ContainsRune("._-+@~:", r)) {
			return Errorf(CodeInvalid, "%s %q holds %q: use letters, digits and . _ - + @ ~ :", field, id, r)
		}
	}
	if strings.Trim(id, ".") == "" {
		return Errorf(CodeInvalid, "%s %q is made of dots only: use letters and digits, too", field, id)
	}
	return nil
}

// CleanTestPath returns the test path in its one form: relative to the project, with forward slashes.
// It refuses paths that are empty, absolute, leave the project, or hold control characters or backslashes.
func CleanTestPath(p string) (string, error) {
	switch {
	case strings.TrimSpace(p) == "":
		return "", Errorf(CodeInvalid, "test_path is missing: name a spec file of the project, for example tests/onboarding.spec.js")
	case len(p) > MaxTestPathLength:
		return "", Errorf(CodeInvalid, "test_path has %d bytes: at most %d are allowed", len(p), MaxTestPathLength)
	case !utf8.ValidString(p):
		return "", Errorf(CodeInvalid, "test_path is not valid UTF-8")
	case strings.ContainsFunc(p, unicode.IsControl):
		return "", Errorf(CodeInvalid, "test_path %q holds control characters", p)
	case strings.Contains(p, `\`):
		return "", Errorf(CodeInvalid, "test_path %q holds a backslash: use forward slashes", p)
	case path.IsAbs(p), len(p) > 1 && p[1] == ':':
		return "", Errorf(CodeInvalid, "test_path %q is absolute: give it relative to the test project", p)
	}
	clean := path.Clean(p)
	if clean == "." || clean == ".." || strings.HasPrefix(clean, "../") {
		return "", Errorf(CodeInvalid, "test_path %q leaves the test project: name a spec file inside it", p)
	}
	return clean, nil
}

// CheckShard refuses what is not part/parts with 1 <= part <= parts <= MaxShards, such as 2/3. Empty is all of a spec.
func CheckShard(shard string) error {
	if shard == "" {
		return nil
	}
	var part, parts int
	if n, err := fmt.Sscanf(shard, "%d/%d", &part, &parts); n != 2 || err != nil ||
		fmt.Sprintf("%d/%d", part, parts) != shard || part < 1 || part > parts || parts > MaxShards {
		return Errorf(CodeInvalid, "shard %.40q is no part of a spec: use part/parts, such as 2/3, with at most %d parts", shard, MaxShards)
	}
	return nil
}

// CheckSHA256 refuses anything but a SHA-256 in lower-case hexadecimal.
func CheckSHA256(field, s string) error {
	if len(s) != 64 || strings.Trim(s, "0123456789abcdef") != "" {
		return Errorf(CodeInvalid, "%s %.80q is no SHA-256: use 64 lower-case hexadecimal digits", field, s)
	}
	return nil
}

// InvalidJSON is the error for a request body that could not be read as what it should be.
func InvalidJSON(err error) error {
	return &Error{Code: CodeInvalid, Message: fmt.Sprintf("the request body cannot be read: %v", err), Err: err}
}
