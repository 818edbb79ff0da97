package qgjob

import (
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Limits of the variables that a run has for its tests.
const (
	MaxVariables     = 100
	MaxVariableBytes = 64 << 10 // names and values together
	MinSecret        = 4        // characters: a shorter value would be found, and masked, everywhere
)

var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// Variables that the runner needs, or by which it could be made to run something else.
var (
	ownVariables = []string{"PATH", "HOME", "TMPDIR", "JAVA_HOME", "NODE_PATH", "NODE_OPTIONS", "NODE_EXTRA_CA_CERTS"}
	ownPrefixes  = []string{"QGJOB_", "ANDROID_", "APPIUM_", "BROWSERSTACK_", "PLAYWRIGHT_", "LD_", "DYLD_"}
)

// CheckVariable refuses what is no name of a variable for tests.
func CheckVariable(name string) error {
	if !variableName.MatchString(name) {
		return Errorf(CodeInvalid, "%.80q is no name of a variable: use letters, digits and _, not a digit first, at most 128 characters", name)
	}
	own := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
	if slices.Contains(ownVariables, name) || slices.ContainsFunc(ownPrefixes, own) {
		return Errorf(CodeInvalid, "variable %s is the runner's own: give the tests theirs under another name", name)
	}
	return nil
}

// CheckEnvironment refuses variables and secrets that tests cannot be given, or that cannot be masked.
func CheckEnvironment(env, secrets map[string]string) error {
	if n := len(env) + len(secrets); n > MaxVariables {
		return Errorf(CodeInvalid, "there are %d variables: a run has at most %d", n, MaxVariables)
	}
	size := 0
	for _, variables := range []map[string]string{env, secrets} {
		for _, name := range slices.Sorted(maps.Keys(variables)) {
			if err := CheckVariable(name); err != nil {
				return err
			}
			if strings.ContainsRune(variables[name], 0) {
				return Errorf(CodeInvalid, "variable %s holds a zero byte: no process can be given it", name)
			}
			size += len(name) + len(variables[name])
		}
	}
	if size > MaxVariableBytes {
		return Errorf(CodeInvalid, "the variables have %d bytes: a run has at most %d", size, MaxVariableBytes)
	}
	for _, name := range slices.Sorted(maps.Keys(secrets)) {
		if _, twice := env[name]; twice {
			return Errorf(CodeInvalid, "variable %s is given twice, once as a secret: leave one out", name)
		}
		if len([]rune(strings.TrimSpace(secrets[name]))) < MinSecret {
			return Errorf(CodeInvalid, "secret %s has fewer than %d characters: it could not be masked; give it as a plain variable if it is none", name, MinSecret)
		}
	}
	return nil
}
