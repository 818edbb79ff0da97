package cli

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// invocation is a command line of ours within a page or a file: what follows qgjob, up to what ends a command.
var invocation = regexp.MustCompile("(?:^|[\\s`('\"/])qgjob((?: +(?:[^\\s`|;#&>()]+|\\|[A-Z]))+)")

// documentedRoot is the command line as a user has it.
func documentedRoot() *cobra.Command {
	p := &program{stdin: strings.NewReader(""), stdout: io.Discard, stderr: io.Discard, vars: map[string]string{}}
	root := p.rootCommand()
	root.InitDefaultHelpFlag()
	root.InitDefaultCompletionCmd()
	return root
}

// TestDocumentedFlags holds every command line in the documentation and the examples against the flags that there are.
func TestDocumentedFlags(t *testing.T) {
	var files []string
	for _, pattern := range []string{"README.md", "docs/*.md", "examples/ci/*", "examples/deploy/*", "scripts/*", "action.yml", ".github/workflows/*"} {
		found, err := filepath.Glob(filepath.Join("..", "..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, found...)
	}
	root, checked := documentedRoot(), 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range invocation.FindAllStringSubmatch(strings.ReplaceAll(string(text), "\\\n", " "), -1) {
			words := strings.Fields(m[1])
			cmd := root
			for _, word := range words {
				next := cmd
				for _, c := range cmd.Commands() {
					if c.Name() == word {
						next = c
					}
				}
				if next == cmd {
					break
				}
				cmd = next
			}
			if cmd == root { // a sentence
				continue
			}
			cmd.InitDefaultHelpFlag()
			for _, word := range words {
				name, _, _ := strings.Cut(strings.TrimPrefix(word, "--"), "=")
				name = strings.TrimRight(name, ".,:\"'[]…")
				if !strings.HasPrefix(word, "--") || name == "" || strings.HasPrefix(name, "{") {
					continue
				}
				checked++
				if cmd.Flags().Lookup(name) == nil && cmd.InheritedFlags().Lookup(name) == nil {
					t.Errorf("%s: %s has no flag --%s", file, cmd.CommandPath(), name)
				}
			}
		}
	}
	if checked < 150 {
		t.Errorf("only %d flags were found in the documentation", checked)
	}
}

// TestCommandsAreInTheReadme holds README.md's table against the commands that there are.
func TestCommandsAreInTheReadme(t *testing.T) {
	page, err := os.ReadFile(filepath.Join("..", "..", "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "\n## Commands\n")
	table, _, _ := strings.Cut(rest, "\n## ")
	root := documentedRoot()
	for _, cmd := range root.Commands() {
		if !cmd.IsAvailableCommand() || cmd.Name() == "help" {
			continue
		}
		if !strings.Contains(table, "`"+cmd.Name()+"`") && !strings.Contains(table, "`"+cmd.Name()+" ") {
			t.Errorf("README.md's table of commands lacks %s", cmd.Name())
		}
		if cmd.Name() == "completion" {
			continue
		}
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() && !strings.Contains(table, "`"+cmd.Name()+" "+sub.Name()+"`") && !strings.Contains(table, "`"+sub.Name()+"`") {
				t.Errorf("README.md's table of commands lacks %s %s", cmd.Name(), sub.Name())
			}
		}
	}
}
