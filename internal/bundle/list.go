package bundle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/gitignore"
)

// leftOut are directories that never are part of a test project, whatever git says.
var leftOut = []string{".git", "node_modules"}

// leftOutWithoutGit are those that AppWright and Playwright write, which a project without git may not have
// thought of ignoring.
var leftOutWithoutGit = []string{"test-results", "playwright-report", "blob-report"}

// list returns the names of the project's files, sorted.
func list(ctx context.Context, dir string) ([]string, error) {
	files, err := gitFiles(ctx, dir)
	switch {
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case err != nil: // no git, or no repository
		files, err = walk(dir)
	}
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	return slices.Compact(files), nil
}

// gitFiles asks git for what is tracked, and what is neither tracked nor ignored.
func gitFiles(ctx context.Context, dir string) ([]string, error) {
	command := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	command.Dir = dir
	out, err := command.Output()
	if err != nil {
		return nil, err
	}
	var files []string
	for _, name := range strings.Split(string(out), "\x00") {
		name = strings.TrimSuffix(name, "/")
		if name == "" || slices.ContainsFunc(strings.Split(name, "/"), func(part string) bool { return slices.Contains(leftOut, part) }) {
			continue
		}
		info, err := os.Lstat(filepath.Join(dir, filepath.FromSlash(name)))
		switch {
		case errors.Is(err, fs.ErrNotExist): // tracked, and deleted since
		case err != nil:
			return nil, err
		case info.IsDir(): // a repository within this one, whose files only it knows
			inner, err := list(ctx, filepath.Join(dir, filepath.FromSlash(name)))
			if err != nil {
				return nil, err
			}
			for _, file := range inner {
				files = append(files, name+"/"+file)
			}
		case info.Mode().IsRegular(), info.Mode().Type() == fs.ModeSymlink:
			files = append(files, name)
		}
	}
	return files, nil
}

// walk lists the files below dir that no .gitignore there leaves out.
func walk(dir string) ([]string, error) {
	var files []string
	var patterns []gitignore.Pattern
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		parts := strings.Split(filepath.ToSlash(rel), "/")
		if rel == "." {
			parts = nil
		} else if ignored(patterns, parts, entry) {
			if entry.IsDir() {
				return filepath.SkipDir
			}
			return nil
		}
		switch {
		case entry.IsDir():
			more, err := readIgnoreFile(filepath.Join(path, ".gitignore"), parts)
			patterns = append(patterns, more...)
			return err
		case entry.Type().IsRegular(), entry.Type() == fs.ModeSymlink:
			files = append(files, strings.Join(parts, "/"))
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the test project: %w", err)
	}
	return files, nil
}

func ignored(patterns []gitignore.Pattern, parts []string, entry fs.DirEntry) bool {
	if slices.Contains(leftOut, entry.Name()) || entry.IsDir() && slices.Contains(leftOutWithoutGit, entry.Name()) {
		return true
	}
	return gitignore.NewMatcher(patterns).Match(parts, entry.IsDir())
}

// readIgnoreFile reads the patterns of one .gitignore; domain is its directory.
func readIgnoreFile(path string, domain []string) ([]gitignore.Pattern, error) {
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var patterns []gitignore.Pattern
	for line := range strings.Lines(string(content)) {
		line = strings.TrimRight(line, "\r\n")
		if strings.TrimSpace(line) != "" && !strings.HasPrefix(line, "#") {
			patterns = append(patterns, gitignore.ParsePattern(line, domain))
		}
	}
	return patterns, nil
}
