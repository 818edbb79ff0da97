package cli

import (
	"fmt"
	"os"
	"path/filepath"
)

// configNames are the names of an AppWright config, in the order in which AppWright looks for them.
var configNames = []string{"appwright.config.ts", "appwright.config.js", "appwright.config.mts", "appwright.config.mjs"}

// isProject says whether dir holds an AppWright project: package.json and a config.
func isProject(dir, config string) error {
	if !isFile(filepath.Join(dir, "package.json")) {
		return fmt.Errorf("%s has no package.json", dir)
	}
	if config != "" {
		if !isFile(filepath.Join(dir, filepath.FromSlash(config))) {
			return fmt.Errorf("%s has no %s", dir, config)
		}
		return nil
	}
	for _, name := range configNames {
		if isFile(filepath.Join(dir, name)) {
			return nil
		}
	}
	return fmt.Errorf("%s has no %s", dir, configNames[0])
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

// chooseProject returns the absolute directory of the test project: the given one, which must be a project,
// or the current one where it is one, or "".
func chooseProject(given, config string) (string, error) {
	dir := given
	if dir == "" {
		dir = "."
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := isProject(abs, config); err != nil {
		if given == "" {
			return "", nil
		}
		return "", exitf(exitUsage, "--project-dir: %v: name the directory of an AppWright project", err)
	}
	return abs, nil
}

// dataDir is where this user's qgjob keeps its files: the given directory, or the XDG one.
func (p *program) dataDir(given string) (string, error) {
	if given != "" {
		return filepath.Abs(given)
	}
	if base := p.env("XDG_DATA_HOME"); filepath.IsAbs(base) {
		return filepath.Join(base, "qgjob"), nil
	}
	if home := p.env("HOME"); home != "" {
		return filepath.Join(home, ".local", "share", "qgjob"), nil
	}
	return "", exitf(exitUsage, "there is no HOME to keep data under: give --data-dir")
}

// cacheDir is where this user's qgjob keeps what it can make again, shared by all its workers.
func (p *program) cacheDir() (string, error) {
	if base := p.env("XDG_CACHE_HOME"); filepath.IsAbs(base) {
		return filepath.Join(base, "qgjob"), nil
	}
	if home := p.env("HOME"); home != "" {
		return filepath.Join(home, ".cache", "qgjob"), nil
	}
	return "", exitf(exitUsage, "there is no HOME to keep the install of Appium under: set XDG_CACHE_HOME")
}
