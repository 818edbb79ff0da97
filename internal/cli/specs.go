package cli

import (
	"path"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"

	"qgjob"
)

// specNames is what Playwright takes for a spec file where the config does not say otherwise.
const specNames = "*.@(spec|test).@(js|ts|jsx|tsx|mjs|mts|cjs|cts)"

// isPattern says whether a --test names files by a pattern.
func isPattern(test string) bool { return strings.ContainsAny(test, "*?[{") }

// isSpec says whether a file is called as Playwright expects of a spec.
func isSpec(name string) bool {
	stem := path.Base(name)
	ext := path.Ext(stem)
	if !slices.Contains([]string{".js", ".ts", ".jsx", ".tsx", ".mjs", ".mts", ".cjs", ".cts"}, ext) {
		return false
	}
	kind := path.Ext(strings.TrimSuffix(stem, ext))
	return kind == ".spec" || kind == ".test"
}

// cleanTests gives each --test its one form, and refuses what can name no file of a project.
func cleanTests(tests []string) ([]string, error) {
	if len(tests) == 0 || slices.Equal(tests, []string{""}) {
		return nil, exitf(exitUsage, "--test is missing: name a spec file of the project, for example tests/onboarding.spec.js")
	}
	clean := make([]string, len(tests))
	for i, test := range tests {
		if test == "." || test == "./" {
			clean[i] = "." // the whole project
			continue
		}
		p, err := qgjob.CleanTestPath(test)
		if err != nil {
			return nil, exitf(exitUsage, "--test: %v", err)
		}
		if isPattern(p) && !doublestar.ValidatePattern(p) {
			return nil, exitf(exitUsage, "--test: %q is no pattern: use * within a folder's name, ** for folders, {a,b} and [ab]", test)
		}
		clean[i] = p
	}
	return clean, nil
}

// expandTests turns each --test into spec files of the project: a folder into the specs below it, a pattern
// into the files that fit it, where there are specs among them those only. Anything else is taken for a
// file's name, whether it is there or not: its job tells. Each file comes once, in the order of the tests.
func expandTests(tests, files []string) ([]string, error) {
	var specs []string
	add := func(found ...string) {
		for _, f := range found {
			if !slices.Contains(specs, f) {
				specs = append(specs, f)
			}
		}
	}
	for _, test := range tests {
		switch {
		case slices.Contains(files, test):
			add(test)
		case isPattern(test):
			var fit, specFit []string
			for _, f := range files {
				if ok, _ := doublestar.Match(test, f); ok { // the pattern was validated
					fit = append(fit, f)
					if isSpec(f) {
						specFit = append(specFit, f)
					}
				}
			}
			if len(specFit) > 0 {
				fit = specFit
			}
			if len(fit) == 0 {
				return nil, exitf(exitNoTestMatched, "--test %s fits none of the %d files of the test project (quote it, so that the shell leaves it alone; files that git ignores do not count)", test, len(files))
			}
			add(fit...)
		default:
			var below []string
			folder := false
			for _, f := range files {
				if test == "." || strings.HasPrefix(f, test+"/") {
					folder = true
					if isSpec(f) {
						below = append(below, f)
					}
				}
			}
			if folder && len(below) == 0 {
				return nil, exitf(exitNoTestMatched, "--test %s: the folder holds no spec (%s): name its files, or a pattern that fits them", test, specNames)
			}
			if !folder {
				below = []string{test}
			}
			add(below...)
		}
	}
	return specs, nil
}
