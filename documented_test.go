package qgjob_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// readers are the functions and methods by which this module's code reads a variable of its environment.
var readers = map[string]bool{"Getenv": true, "LookupEnv": true, "env": true, "isSet": true, "Env": true}

var (
	variable = regexp.MustCompile(`^[A-Z][A-Z0-9]*(_[A-Z0-9]+)+$`)
	quoted   = regexp.MustCompile("`([A-Z][A-Z0-9_]+)`")
)

// literal is the text of a string constant, "" for anything else.
func literal(n ast.Node) string {
	l, ok := n.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return ""
	}
	text, _ := strconv.Unquote(l.Value)
	return text
}

// variablesOf are the variables that a file reads: the arguments of readers, and, where it reads any, all that is written like one and stands by itself,
// as in a list of names.
func variablesOf(file *ast.File) []string {
	var named, listed []string
	reads := false
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			name := ""
			if s, ok := n.Fun.(*ast.SelectorExpr); ok {
				name = s.Sel.Name
			}
			if readers[name] && len(n.Args) == 1 {
				reads = true
				named = append(named, literal(n.Args[0]))
			}
		case *ast.CompositeLit:
			for _, e := range n.Elts {
				if pair, ok := e.(*ast.KeyValueExpr); ok {
					e = pair.Value
				}
				if text := literal(e); variable.MatchString(text) {
					listed = append(listed, text)
				}
			}
		}
		return true
	})
	if reads {
		named = append(named, listed...)
	}
	return named
}

// TestVariablesAreDocumented compares docs/environment.md with the variables that the code reads.
func TestVariablesAreDocumented(t *testing.T) {
	page, err := os.ReadFile("docs/environment.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, m := range quoted.FindAllStringSubmatch(string(page), -1) {
		documented[m[1]] = true
	}
	found, source := 0, strings.Builder{}
	err = filepath.WalkDir(".", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && (e.Name() == "node_modules" || path == "bench" || path == "tools" || path != "." && strings.HasPrefix(e.Name(), ".")):
			return fs.SkipDir
		case e.IsDir() || strings.HasSuffix(path, "_test.go") || filepath.Dir(path) == "internal/device/devicetest" || filepath.Ext(path) != ".go" && filepath.Dir(path) != "scripts":
			return nil
		}
		text, err := os.ReadFile(path)
		source.Write(text)
		if err != nil || filepath.Ext(path) != ".go" {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, text, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for _, name := range variablesOf(file) {
			if name == "" {
				continue
			}
			found++
			if !documented[name] {
				t.Errorf("%s reads %s, which docs/environment.md does not name", path, name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if found < 80 {
		t.Errorf("only %d readings of variables were found: has the code another way to read them?", found)
	}
	ours, _, ok := strings.Cut(string(page), "\n## Read by what qgjob is made of")
	if !ok {
		t.Error("docs/environment.md has no part about what qgjob is made of")
	}
	for _, m := range quoted.FindAllStringSubmatch(ours, -1) {
		if !strings.Contains(source.String(), m[1]) {
			t.Errorf("docs/environment.md names %s, which nothing reads", m[1])
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// anchorOf is the address that a heading has on a page, as GitHub makes it.
func anchorOf(heading string) string {
	text := strings.ToLower(strings.TrimSpace(strings.TrimLeft(heading, "#")))
	return regexp.MustCompile(`[^\p{L}\p{N}\- ]`).ReplaceAllString(strings.ReplaceAll(text, "_", ""), "")
}

// TestLinksLeadSomewhere follows the links between the pages of this repository.
func TestLinksLeadSomewhere(t *testing.T) {
	pages, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	decisions, err := filepath.Glob("docs/decisions/*.md")
	if err != nil {
		t.Fatal(err)
	}
	pages = append(append(pages, decisions...), "README.md", "CHANGELOG.md", "bench/README.md", "bench/SETUP.md", "bench/scheduler.md")
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			to, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
				continue
			}
			path := page
			if to != "" {
				path = filepath.Join(filepath.Dir(page), to)
			}
			target, err := os.Stat(path)
			if err != nil {
				t.Errorf("%s leads to %s, which is not there", page, m[1])
				continue
			}
			if anchor == "" || target.IsDir() {
				continue
			}
			there, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for line := range strings.Lines(string(there)) {
				found = found || strings.HasPrefix(line, "#") && strings.ReplaceAll(anchorOf(line), " ", "-") == anchor
			}
			if !found {
				t.Errorf("%s leads to %s, and there is no such heading", page, m[1])
			}
		}
	}
}
