package qgjob_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const root = "qgjob"

// arrows is the house: each package, and the packages of this module that it may import besides the root.
// cli wires everything: "any" stands for whatever there is. A package that is not in the table may not exist.
var arrows = map[string][]string{
	".":         {},
	"cmd/qgjob": {"internal/cli"},

	"internal/cli":      {"any"},
	"internal/server":   {"internal/store", "internal/blob", "internal/api", "internal/build", "internal/flaky", "internal/webhook"},
	"internal/store":    {"internal/sched", "internal/flaky"},
	"internal/sched":    {},
	"internal/simulate": {"internal/sched"},
	"internal/api":      {},
	"internal/webhook":  {},
	"internal/report":   {},
	"internal/flaky":    {},
	"internal/github":   {},
	"internal/blob":     {"internal/disk"},
	"internal/disk":     {},

	"internal/agent":               {"internal/device", "internal/appwright", "internal/bundle", "internal/build", "internal/blob", "internal/disk", "internal/tail", "internal/api"},
	"internal/appwright":           {"internal/filelock", "internal/tail"},
	"internal/filelock":            {},
	"internal/tail":                {},
	"internal/bundle":              {},
	"internal/build":               {},
	"internal/device":              {},
	"internal/device/adb":          {},
	"internal/device/android":      {"internal/device", "internal/device/adb", "internal/device/appium"},
	"internal/device/appium":       {"internal/device", "internal/filelock"},
	"internal/device/browserstack": {"internal/device"},
	"internal/device/ios":          {"internal/device", "internal/device/appium"},
	"internal/device/devicetest":   {"internal/device", "internal/device/adb", "internal/device/appium"},
	"internal/phonesim":            {},

	"internal/store/pgtest": {},
}

// standardOnly are the packages that need nothing but Go's own.
var standardOnly = []string{".", "internal/sched", "internal/simulate", "internal/flaky"}

// clockless are the packages that never ask for the time: it is given to them.
var clockless = []string{".", "internal/sched", "internal/simulate", "internal/store", "internal/flaky", "internal/report"}

// stopwatch is the one file of theirs that measures how long ago something was.
const stopwatch = "internal/store/clock.go"

// maxDepth is the longest chain of imports within the module, from cmd/qgjob down to the root package.
const maxDepth = 5

type listedPackage struct {
	ImportPath string
	Dir        string
	Doc        string
	GoFiles    []string
	Imports    []string
}

// listPackages returns the module's packages by their path below its root.
func listPackages(t *testing.T) map[string]listedPackage {
	t.Helper()
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,Doc,GoFiles,Imports", "./...")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.Bytes())
	}
	packages := map[string]listedPackage{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listedPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles) > 0 { // not only tests
			packages[below(p.ImportPath)] = p
		}
	}
}

// below is an import path of this module as the table writes it, "" for another module's.
func below(importPath string) string {
	if importPath == root {
		return "."
	}
	if rest, ok := strings.CutPrefix(importPath, root+"/"); ok {
		return rest
	}
	return ""
}

func TestImportsFollowTheTable(t *testing.T) {
	for name, p := range listPackages(t) {
		allowed, ok := arrows[name]
		if !ok {
			t.Errorf("package %s is not in the table: give it a row, or put its code where it belongs", name)
			continue
		}
		for _, i := range p.Imports {
			to := below(i)
			switch {
			case to == "" && slices.Contains(standardOnly, name) && strings.Contains(strings.Split(i, "/")[0], "."):
				t.Errorf("%s imports %s: only the standard library is allowed there", name, i)
			case to == "" || to == ".":
			case slices.Contains(allowed, "any") && !strings.HasPrefix(to, "cmd/"):
			case !slices.Contains(allowed, to):
				t.Errorf("%s imports %s: the table does not allow it", name, to)
			}
		}
	}
}

func TestImportDepth(t *testing.T) {
	packages := listPackages(t)
	depths := map[string]int{}
	var depth func(string) int
	depth = func(name string) int {
		if d, ok := depths[name]; ok {
			return d
		}
		deepest := 0
		for _, i := range packages[name].Imports {
			if to := below(i); to != "" {
				deepest = max(deepest, depth(to))
			}
		}
		depths[name] = deepest + 1
		return deepest + 1
	}
	for name := range packages {
		// The root is where every chain ends, not a link of it.
		if d := depth(name) - 1; d > maxDepth {
			t.Errorf("the longest chain of imports from %s has %d links, more than %d", name, d, maxDepth)
		}
	}
}

func TestPackageNamesAndComments(t *testing.T) {
	for name, p := range listPackages(t) {
		if p.Doc == "" {
			t.Errorf("package %s has no comment that says what it promises", name)
		}
		switch path.Base(name) {
		case "util", "utils", "common", "helper", "helpers", "model", "models", "service", "services", "manager", "types":
			t.Errorf("package %s has a name that says nothing", name)
		}
	}
}

// calls returns where a package's files call pkg.name.
func calls(t *testing.T, p listedPackage, pkg, name string) []string {
	t.Helper()
	var found []string
	set := token.NewFileSet()
	for _, file := range p.GoFiles {
		tree, err := parser.ParseFile(set, filepath.Join(p.Dir, file), nil, parser.SkipObjectResolution)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			s, ok := n.(*ast.SelectorExpr)
			if !ok || s.Sel.Name != name {
				return true
			}
			if x, ok := s.X.(*ast.Ident); ok && x.Name == pkg {
				found = append(found, set.Position(s.Pos()).String())
			}
			return true
		})
	}
	return found
}

func TestTimeIsGiven(t *testing.T) {
	packages := listPackages(t)
	for _, name := range clockless {
		for _, at := range calls(t, packages[name], "time", "Now") {
			if strings.Contains(at, stopwatch) {
				continue
			}
			t.Errorf("%s: time.Now is not for package %s", at, name)
		}
	}
}

func TestOneExit(t *testing.T) {
	for name, p := range listPackages(t) {
		found := calls(t, p, "os", "Exit")
		if name == "cmd/qgjob" {
			if len(found) != 1 {
				t.Errorf("cmd/qgjob calls os.Exit %d times: %v", len(found), found)
			}
			continue
		}
		for _, at := range found {
			t.Errorf("%s: os.Exit is cmd/qgjob's alone", at)
		}
	}
}
