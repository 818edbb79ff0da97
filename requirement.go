package qgjob

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Traits is what a device is, as far as targets and requirements ask.
type Traits struct {
	ID        string
	Kind      Target
	Platform  string // android or ios, or any of a device that is what each job asks for; empty when unknown
	Model     string
	OSVersion string   // numbers with dots; empty when unknown
	ABIs      string   // instruction sets, joined by commas; empty when unknown
	Tags      []string // words that its owner gave it
}

// The platforms.
const (
	PlatformAndroid = "android"
	PlatformIOS     = "ios"
	// PlatformAny is that of a cloud's slot: each of its sessions gets a device of the platform that its job asks for.
	PlatformAny = "any"
)

// Requirement is what a job asks of a device besides its target. The zero value asks nothing. All that it
// names must hold; of several models one must.
type Requirement struct {
	Platform string        // android or ios
	OS       []VersionTerm // of its operating system
	Models   []string      // patterns; * stands for any text, ? for one character, letter case does not count
	Tags     []string
	Device   string   // the id of the one device
	MinOS    string   // the oldest system that the job's build runs on; a device whose system is unknown may try
	ABIs     []string // instruction sets of which the job's build needs one; a device whose own are unknown may try
}

// ABI matches the name of an instruction set.
var ABI = regexp.MustCompile(`^[a-z0-9_-]{1,32}$`)

// VersionTerm is one bound of a version, for example ">= 12". Only as many numbers are compared as the bound
// has: "= 12" and "<= 12" hold for 12.1, too, and "> 12" does not.
type VersionTerm struct {
	Op      string // =, >=, <=, > or <
	Version string
}

const (
	requirementForms  = "platform=android|ios, os>=12, os<15, model=Pixel *|Galaxy S2?, tag=lab, device=ID"
	maxRequirementLen = 1000
)

// ParseRequirement reads terms that are joined by commas: platform=android, os>=12, os<15, model=Pixel *|Galaxy S2?,
// tag=lab, device=ID. The empty text asks nothing.
func ParseRequirement(s string) (Requirement, error) {
	var r Requirement
	if len(s) > maxRequirementLen {
		return r, Errorf(CodeInvalid, "the device requirement has %d bytes: at most %d are allowed", len(s), maxRequirementLen)
	}
	if strings.TrimSpace(s) == "" {
		return r, nil
	}
	for term := range strings.SplitSeq(s, ",") {
		if err := r.add(strings.TrimSpace(term)); err != nil {
			return Requirement{}, err
		}
	}
	slices.SortFunc(r.OS, func(a, b VersionTerm) int {
		return cmp.Or(strings.Compare(a.Op, b.Op), strings.Compare(a.Version, b.Version))
	})
	r.OS = slices.Compact(r.OS)
	slices.Sort(r.Models)
	r.Models = slices.Compact(r.Models)
	slices.Sort(r.Tags)
	r.Tags = slices.Compact(r.Tags)
	slices.Sort(r.ABIs)
	r.ABIs = slices.Compact(r.ABIs)
	return r, r.check()
}

func (r *Requirement) add(term string) error {
	at := strings.IndexAny(term, "=<>")
	if at < 0 {
		return Errorf(CodeInvalid, "device requirement %q compares nothing: use terms like %s", term, requirementForms)
	}
	name, op, value := strings.TrimSpace(term[:at]), term[at:at+1], term[at+1:]
	if op != "=" && strings.HasPrefix(value, "=") {
		op, value = op+"=", value[1:]
	}
	value = strings.TrimSpace(value)
	switch {
	case value == "" || strings.IndexAny(value, "=<>") == 0:
		return Errorf(CodeInvalid, "device requirement %q has no value: use terms like %s", term, requirementForms)
	case name != "os" && op != "=":
		return Errorf(CodeInvalid, "device requirement %q: only os can be compared with %s", term, op)
	}
	once := func(field *string) error {
		if *field != "" && *field != value {
			return Errorf(CodeInvalid, "device requirement names two: %s=%s and %s=%s: no device is both", name, *field, name, value)
		}
		*field = value
		return nil
	}
	switch name {
	case "platform":
		value = strings.ToLower(value)
		if value != PlatformAndroid && value != PlatformIOS {
			return Errorf(CodeInvalid, "platform %q is unknown: use android or ios", value)
		}
		return once(&r.Platform)
	case "os":
		if _, ok := versionNumbers(value); !ok {
			return Errorf(CodeInvalid, "os version %q is none: use numbers with dots, for example os>=12 or os<17.4", value)
		}
		r.OS = append(r.OS, VersionTerm{op, value})
	case "model":
		for pattern := range strings.SplitSeq(value, "|") {
			if pattern = strings.TrimSpace(pattern); pattern == "" {
				return Errorf(CodeInvalid, "device requirement %q has an empty pattern: write model=Pixel *|Galaxy S2?", term)
			}
			r.Models = append(r.Models, pattern)
		}
	case "tag":
		r.Tags = append(r.Tags, value)
	case "device":
		return once(&r.Device)
	case "min-os":
		if _, ok := versionNumbers(value); !ok {
			return Errorf(CodeInvalid, "min-os version %q is none: use numbers with dots", value)
		}
		return once(&r.MinOS)
	case "abi":
		for abi := range strings.SplitSeq(value, "|") {
			if abi = strings.TrimSpace(abi); !ABI.MatchString(abi) {
				return Errorf(CodeInvalid, "device requirement %q: %q is no instruction set: write abi=arm64-v8a|x86_64", term, abi)
			}
			r.ABIs = append(r.ABIs, abi)
		}
	default:
		return Errorf(CodeInvalid, "device requirement %q: %q is unknown: use platform, os, model, tag or device", term, name)
	}
	return nil
}

// check refuses ranges of versions that are empty.
func (r Requirement) check() error {
	for _, low := range r.OS {
		for _, high := range r.OS {
			if (low.Op == ">" || low.Op == ">=") && (high.Op == "<" || high.Op == "<=") {
				c := compareVersions(low.Version, high.Version)
				if c > 0 || c == 0 && (low.Op == ">" || high.Op == "<") {
					return Errorf(CodeInvalid, "no version is os%s%s and os%s%s: check which bound is the lower one", low.Op, low.Version, high.Op, high.Version)
				}
			}
		}
	}
	return nil
}

// Takes is the platform as which a device with the given one runs a job with the requirement. Of a device that can be
// any it is Android, unless the job asks for another.
func (r Requirement) Takes(platform string) string {
	if platform != PlatformAny {
		return platform
	}
	return cmp.Or(r.Platform, PlatformAndroid)
}

// String is the requirement in its one form: two that ask the same read the same. ParseRequirement reads it.
func (r Requirement) String() string {
	var terms []string
	add := func(name, op, value string) {
		if value != "" {
			terms = append(terms, name+op+value)
		}
	}
	add("platform", "=", r.Platform)
	for _, t := range r.OS {
		add("os", t.Op, t.Version)
	}
	add("model", "=", strings.Join(r.Models, "|"))
	for _, tag := range r.Tags {
		add("tag", "=", tag)
	}
	add("device", "=", r.Device)
	add("min-os", "=", r.MinOS)
	add("abi", "=", strings.Join(r.ABIs, "|"))
	return strings.Join(terms, ", ")
}

// Mismatch says why a device does not meet the requirement; it is empty when the device does. What is unknown
// of a device is not met. An iOS device must be asked for: most builds and projects are for Android.
func (r Requirement) Mismatch(t Traits) string {
	if r.Device != "" && r.Device != t.ID {
		return "is not " + r.Device
	}
	if r.Platform != "" && r.Platform != t.Platform && t.Platform != PlatformAny {
		return fmt.Sprintf("runs %s, not %s", known(t.Platform), r.Platform)
	}
	if r.Platform == "" && t.Platform == PlatformIOS && r.Device == "" {
		return "runs ios, which a job must ask for (platform=ios)"
	}
	if _, ok := versionNumbers(t.OSVersion); r.MinOS != "" && ok && compareVersions(t.OSVersion, r.MinOS) < 0 {
		return fmt.Sprintf("has os %s, and the build needs %s or newer", t.OSVersion, r.MinOS)
	}
	if runs := strings.Split(t.ABIs, ","); len(r.ABIs) > 0 && t.ABIs != "" && !slices.ContainsFunc(r.ABIs, func(abi string) bool { return slices.Contains(runs, abi) }) {
		return fmt.Sprintf("runs %s, and the build is for %s", strings.Join(runs, " and "), strings.Join(r.ABIs, " or "))
	}
	for _, term := range r.OS {
		if !term.holds(t.OSVersion) {
			return fmt.Sprintf("has os %s, not os%s%s", known(t.OSVersion), term.Op, term.Version)
		}
	}
	if len(r.Models) > 0 && !slices.ContainsFunc(r.Models, func(p string) bool { return like(strings.ToLower(p), strings.ToLower(t.Model)) }) {
		return fmt.Sprintf("is a %s, not a %s", known(t.Model), strings.Join(r.Models, " or a "))
	}
	for _, tag := range r.Tags {
		if !slices.Contains(t.Tags, tag) {
			return "has no tag " + tag
		}
	}
	return ""
}

func known(s string) string {
	if s == "" {
		return "something unknown"
	}
	return s
}

func (t VersionTerm) holds(version string) bool {
	if _, ok := versionNumbers(version); !ok {
		return false
	}
	c := compareVersions(version, t.Version)
	switch t.Op {
	case ">=":
		return c >= 0
	case "<=":
		return c <= 0
	case ">":
		return c > 0
	case "<":
		return c < 0
	}
	return c == 0
}

// compareVersions compares as many numbers as the bound has; missing ones of the version are 0.
func compareVersions(version, bound string) int {
	v, _ := versionNumbers(version)
	b, _ := versionNumbers(bound)
	for i, want := range b {
		have := 0
		if i < len(v) {
			have = v[i]
		}
		if c := cmp.Compare(have, want); c != 0 {
			return c
		}
	}
	return 0
}

// versionNumbers reads "17.4.1".
func versionNumbers(s string) ([]int, bool) {
	var numbers []int
	for part := range strings.SplitSeq(s, ".") {
		n, err := strconv.ParseUint(part, 10, 31)
		if err != nil {
			return nil, false
		}
		numbers = append(numbers, int(n))
	}
	return numbers, true
}

// like says whether a text fits a pattern of * and ?. It remembers only the last *, so it takes at most the
// product of both lengths.
func like(pattern, text string) bool {
	p, s := []rune(pattern), []rune(text)
	star, from := -1, 0
	i := 0
	for j := 0; j < len(s); {
		switch {
		case i < len(p) && p[i] == '*':
			star, from = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == s[j]):
			i++
			j++
		case star >= 0:
			from++
			i, j = star+1, from
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}
