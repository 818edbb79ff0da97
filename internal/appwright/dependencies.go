package appwright

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"qgjob"
	"qgjob/internal/filelock"
	"qgjob/internal/tail"
)

// installTimeout bounds npm. On a fresh machine AppWright and what it brings took half a minute.
const installTimeout = 10 * time.Minute

// Dependencies sees to it that the project has its npm packages. Those that are there already are kept.
// Otherwise they are installed once for each lockfile of an organization into cacheDir, and the project gets a link
// named node_modules, through which its tests may change them; without a lockfile, package.json is what they are known by. Several jobs, also in several
// processes, may ask for the same at once: one installs, the others wait. A project whose packages need its
// own files gets them installed in itself, each time anew. What npm prints goes to log.
func Dependencies(ctx context.Context, projectDir, cacheDir, org string, log io.Writer) error {
	link := filepath.Join(projectDir, "node_modules")
	if _, err := os.Stat(link); err == nil {
		return nil
	}
	manifest, err := os.ReadFile(filepath.Join(projectDir, "package.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return failuref(qgjob.CauseProjectInvalid, "the test project holds no package.json: submit from the directory that holds it, or make one with npm init -y and npm install --save-dev --save-exact appwright@0.1.1")
	}
	if err != nil {
		return hostFailure("read the project's package.json", err)
	}
	files := map[string][]byte{"package.json": manifest}
	for _, name := range []string{"package-lock.json", "npm-shrinkwrap.json", ".npmrc"} {
		content, err := os.ReadFile(filepath.Join(projectDir, name))
		switch {
		case err == nil:
			files[name] = content
		case !errors.Is(err, fs.ErrNotExist):
			return hostFailure("read the project's "+name, err)
		}
	}
	if len(files) == 1 {
		// A part of a larger repository, whose packages are installed further up.
		if _, _, err := installed(projectDir, "appwright"); err == nil {
			return nil
		}
	}
	if needsProject(manifest) {
		fmt.Fprintln(log, "[qgjob] package.json has an install script, a workspace or a file: dependency: the packages are installed for this job alone")
		if err := npmInstall(ctx, projectDir, files, log); err != nil {
			os.RemoveAll(link) // half of the packages are none
			return err
		}
		return nil
	}
	home, err := installOnce(ctx, cacheDir, org, files, log)
	if err != nil {
		return err
	}
	if err := os.Symlink(filepath.Join(home, "node_modules"), link); err != nil && !errors.Is(err, fs.ErrExist) {
		return hostFailure("link the project's dependencies", err)
	}
	return nil
}

// installScripts are those of a project itself that npm runs when it installs (npm's documentation, "scripts").
var installScripts = []string{"preinstall", "install", "postinstall", "prepublish", "preprepare", "prepare", "postprepare"}

// needsProject says whether an install needs more of the project than what names its packages: scripts of
// its own, workspaces, packages that are directories of it. A manifest that cannot be read is for npm to
// complain about.
func needsProject(manifest []byte) bool {
	var m struct {
		Scripts              map[string]string
		Workspaces           json.RawMessage
		Dependencies         map[string]string
		DevDependencies      map[string]string
		OptionalDependencies map[string]string
	}
	if json.Unmarshal(manifest, &m) != nil {
		return false
	}
	for _, script := range installScripts {
		if m.Scripts[script] != "" {
			return true
		}
	}
	for _, list := range []map[string]string{m.Dependencies, m.DevDependencies, m.OptionalDependencies} {
		for _, wanted := range list {
			if strings.HasPrefix(wanted, "file:") || strings.HasPrefix(wanted, "link:") || strings.HasPrefix(wanted, ".") {
				return true
			}
		}
	}
	return len(m.Workspaces) > 0
}

// installOnce returns the directory that holds the packages which the files ask for.
func installOnce(ctx context.Context, cacheDir, org string, files map[string][]byte, log io.Writer) (string, error) {
	cacheDir, err := filepath.Abs(cacheDir)
	if err == nil {
		err = os.MkdirAll(cacheDir, 0o755)
	}
	if err != nil {
		return "", hostFailure("make the cache of dependencies", err)
	}
	home := filepath.Join(cacheDir, dependencyKey(org, files))
	now := time.Now()
	if err := os.Chtimes(home, now, now); err == nil { // so that it is known to be in use
		return home, nil
	}
	unlock, err := filelock.Wait(ctx, home+".lock")
	if ctx.Err() != nil {
		return "", failuref(qgjob.CauseCanceled, "the wait for another job's npm was stopped: %w", context.Cause(ctx))
	}
	if err != nil {
		return "", hostFailure("wait for another job's npm", err)
	}
	defer unlock()
	if _, err := os.Stat(home); err == nil {
		return home, nil // the other job installed them
	}
	// What an interrupted install left has this name; nobody else uses it while the lock is held.
	staging := home + ".partial"
	if err := os.RemoveAll(staging); err != nil {
		return "", hostFailure("remove an interrupted install", err)
	}
	defer os.RemoveAll(staging)
	if err := os.MkdirAll(staging, 0o755); err != nil {
		return "", hostFailure("make a directory for the install", err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(staging, name), content, 0o644); err != nil {
			return "", hostFailure("write "+name, err)
		}
	}
	if err := npmInstall(ctx, staging, files, log); err != nil {
		return "", err
	}
	if err := os.Rename(staging, home); err != nil {
		return "", hostFailure("keep the installed dependencies", err)
	}
	return home, nil
}

func npmInstall(ctx context.Context, dir string, files map[string][]byte, log io.Writer) error {
	npm, err := exec.LookPath("npm")
	if err != nil {
		return failuref(qgjob.CauseHostFailed, "npm is not installed on the worker's host: install Node 20 or later with npm: %w", err)
	}
	verb := "install"
	if files["package-lock.json"] != nil || files["npm-shrinkwrap.json"] != nil {
		verb = "ci"
	}
	temp, err := os.MkdirTemp("", "qgjob-npm-") // install scripts leave things there
	if err != nil {
		return hostFailure("make a directory for npm", err)
	}
	defer os.RemoveAll(temp)
	limited, cancel := context.WithTimeout(ctx, installTimeout)
	defer cancel()
	end := &tail.Writer{Limit: npmTail}
	both := io.MultiWriter(&syncWriter{w: log}, end)
	process, err := startProcess(command{
		path: npm, args: []string{verb, "--no-audit", "--no-fund", "--no-progress", "--include=dev"}, dir: dir,
		env: append(npmEnvironment(os.Environ()), "TMPDIR="+temp), stdout: both, stderr: both,
	})
	if err != nil {
		return hostFailure("start npm", err)
	}
	exit := process.wait(limited)
	if err := os.MkdirAll(filepath.Join(dir, "node_modules"), 0o755); err != nil { // npm makes none where there is nothing to install
		return hostFailure("make node_modules", err)
	}
	output, said := end.String(), npmSaid(end.String())
	switch {
	case ctx.Err() != nil:
		return failuref(qgjob.CauseCanceled, "npm %s was stopped: %w", verb, context.Cause(ctx))
	case exit.ok():
		return nil
	case limited.Err() != nil:
		return failuref(qgjob.CauseSetupTimedOut, "npm %s had not ended after %s: %s", verb, installTimeout, said)
	case strings.Contains(output, "ENOSPC"):
		return failuref(qgjob.CauseHostDiskFull, "npm %s found no room on the worker's host: %s", verb, said)
	case npmRefused.MatchString(output):
		return failuref(qgjob.CauseRegistryRefused, "npm %s was refused by the registry: %s", verb, said)
	case npmProjectFault.MatchString(output):
		return failuref(qgjob.CauseProjectInvalid, "npm %s refused the test project's dependencies: %s", verb, said)
	case ownScriptFailed(dir, output):
		return failuref(qgjob.CauseProjectInvalid, "an install script of the test project's package.json failed in npm %s: %s", verb, said)
	}
	return failuref(qgjob.CauseTransferFailed, "npm %s failed (%s): %s", verb, exit, said)
}

// npmTail is how much of npm's output is looked at: more than its help, which it appends to some errors.
const npmTail = 64 << 10

// npmCode begins what npm has to say about a failure that it has a name for.
var npmCode = regexp.MustCompile(`(?m)^npm (error|ERR!) code E.*`)

// npmSaid is the part of npm's output that tells what is wrong.
func npmSaid(output string) string {
	output = stripANSI(output)
	if at := npmCode.FindStringIndex(output); at != nil {
		told, _, _ := strings.Cut(output[at[0]:], "Usage:")
		return strings.TrimSpace(firstLines([]byte(told), 20))
	}
	return tailLines(output, 20)
}

// ownScriptFailed says that what failed is a script of the project in dir, and not one of a package.
func ownScriptFailed(dir, output string) bool {
	return strings.Contains(output, " command failed\n") && strings.Contains(output, " path "+dir+"\n")
}

// dependencyKey names what an organization's files ask for, on this kind of host: packages may hold compiled code.
func dependencyKey(org string, files map[string][]byte) string {
	sum := sha256.New()
	fmt.Fprintf(sum, "%s %s %q\n", runtime.GOOS, runtime.GOARCH, org)
	for _, name := range []string{"package.json", "package-lock.json", "npm-shrinkwrap.json", ".npmrc"} {
		content, ok := files[name]
		fmt.Fprintf(sum, "%s %t %d\n", name, ok, len(content))
		sum.Write(content)
	}
	return hex.EncodeToString(sum.Sum(nil))
}
