package appwright

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"qgjob"
)

// fakeNPM puts an npm first on PATH that notes its calls in a file and then runs the script.
func fakeNPM(t *testing.T, script string) (calls func() []string) {
	t.Helper()
	bin := t.TempDir()
	log := filepath.Join(bin, "calls")
	content := "#!/bin/sh\necho \"$1\" >> '" + log + "'\n" + script + "\n"
	if err := os.WriteFile(filepath.Join(bin, "npm"), []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	return func() []string {
		content, _ := os.ReadFile(log)
		return strings.Fields(string(content))
	}
}

const installs = `mkdir -p node_modules/appwright && echo '{"version":"0.1.1"}' > node_modules/appwright/package.json`

func npmProject(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		if err := write(name, content)(dir); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestDependenciesAreInstalledOncePerLockfile(t *testing.T) {
	calls := fakeNPM(t, installs)
	cache := t.TempDir()
	locked := map[string]string{"package.json": "{}", "package-lock.json": "{}"}
	dirs := []string{npmProject(t, locked), npmProject(t, locked), npmProject(t, locked), npmProject(t, locked)}
	var wait sync.WaitGroup
	for _, dir := range dirs {
		wait.Go(func() {
			if err := Dependencies(t.Context(), dir, cache, "acme", io.Discard); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	for _, dir := range dirs {
		if _, version, err := installed(dir, "appwright"); version != "0.1.1" {
			t.Errorf("%s: %v", dir, err)
		}
	}
	other := npmProject(t, map[string]string{"package.json": "{}", "package-lock.json": `{"changed":1}`})
	unlocked := npmProject(t, map[string]string{"package.json": "{}"})
	for _, dir := range []string{other, unlocked, dirs[0]} {
		if err := Dependencies(t.Context(), dir, cache, "acme", io.Discard); err != nil {
			t.Error(err)
		}
	}
	if err := Dependencies(t.Context(), npmProject(t, locked), cache, "zeta", io.Discard); err != nil {
		t.Error(err)
	}
	if got := strings.Join(calls(), " "); got != "ci ci install ci" { // the last is of another organization
		t.Errorf("npm was called as %q", got)
	}
}

// What install scripts leave in their temporary directory goes with the install.
func TestNothingOfAnInstallIsLeftInTemp(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	fakeNPM(t, `mkdir "$TMPDIR/left" && `+installs)
	dir := npmProject(t, map[string]string{"package.json": "{}", "package-lock.json": "{}"})
	if err := Dependencies(t.Context(), dir, t.TempDir(), "acme", io.Discard); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("left are %v, %v", left, err)
	}
}

func TestDependenciesThatAreThereAreKept(t *testing.T) {
	calls := fakeNPM(t, installs)
	dir := npmProject(t, map[string]string{"package.json": "{}", "package-lock.json": "{}"})
	if err := os.MkdirAll(filepath.Join(dir, "node_modules"), 0o755); err != nil {
		t.Fatal(err)
	}
	top := npmProject(t, map[string]string{"package.json": "{}", "package-lock.json": "{}"})
	if err := Dependencies(t.Context(), top, t.TempDir(), "acme", io.Discard); err != nil {
		t.Fatal(err)
	}
	part := filepath.Join(top, "apps", "e2e")
	if err := os.MkdirAll(part, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := write("package.json", "{}")(part); err != nil {
		t.Fatal(err)
	}
	before := len(calls())
	for _, dir := range []string{dir, part} {
		if err := Dependencies(t.Context(), dir, t.TempDir(), "acme", io.Discard); err != nil {
			t.Error(err)
		}
	}
	if len(calls()) != before {
		t.Errorf("npm was called: %v", calls())
	}
}

// Workspaces, directories as packages and the project's own scripts need its files.
func TestDependenciesThatNeedTheProject(t *testing.T) {
	for name, manifest := range map[string]string{
		"a script":    `{"scripts":{"postinstall":"node scripts/patch.js"}}`,
		"workspaces":  `{"workspaces":["packages/*"]}`,
		"a directory": `{"devDependencies":{"pages":"file:./pages"}}`,
	} {
		calls := fakeNPM(t, "cat pages >/dev/null && "+installs)
		dir := npmProject(t, map[string]string{"package.json": manifest, "package-lock.json": "{}", "pages": ""})
		if err := Dependencies(t.Context(), dir, t.TempDir(), "acme", io.Discard); err != nil || len(calls()) != 1 {
			t.Errorf("%s: %v, npm was called as %v", name, err, calls())
		}
		if info, err := os.Lstat(filepath.Join(dir, "node_modules")); err != nil || !info.IsDir() {
			t.Errorf("%s: node_modules is %v, %v", name, info, err)
		}
	}

	fakeNPM(t, `mkdir node_modules; printf 'npm error code 1\nnpm error path %s\nnpm error command failed\nnpm error command sh -c node scripts/patch.js\n' "$PWD"; exit 1`)
	dir := npmProject(t, map[string]string{"package.json": `{"scripts":{"prepare":"node scripts/patch.js"}}`})
	err := Dependencies(t.Context(), dir, t.TempDir(), "acme", io.Discard)
	if failure, _ := errors.AsType[*Failure](err); failure == nil || failure.Cause != qgjob.CauseProjectInvalid || !strings.Contains(failure.Message, "node scripts/patch.js") {
		t.Errorf("a script that fails: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err == nil {
		t.Error("half of an install is left as if it were whole")
	}
}

// npm 10 ends an EUSAGE with its help.
func TestWhatNPMSaysStandsBeforeItsHelp(t *testing.T) {
	fakeNPM(t, `echo "npm error code EUSAGE"; for i in $(seq 300); do echo "npm error Missing: left-pad@1.3.$i from lock file"; done; echo "npm error Usage:"; for i in $(seq 40); do echo "npm error --option-$i"; done; exit 1`)
	err := Dependencies(t.Context(), npmProject(t, map[string]string{"package.json": "{}", "package-lock.json": "{}"}), t.TempDir(), "acme", io.Discard)
	failure, _ := errors.AsType[*Failure](err)
	if failure == nil || failure.Cause != qgjob.CauseProjectInvalid || !strings.Contains(failure.Message, "left-pad@1.3.1 ") || strings.Contains(failure.Message, "--option") {
		t.Errorf("%v", err)
	}
}

func TestAnInterruptedInstallIsNoInstall(t *testing.T) {
	cache := t.TempDir()
	dir := npmProject(t, map[string]string{"package.json": "{}", "package-lock.json": "{}"})
	fakeNPM(t, "mkdir -p node_modules/half; kill -9 $$")
	if err := Dependencies(t.Context(), dir, cache, "acme", io.Discard); err == nil {
		t.Fatal("an install that was killed counts")
	}
	fakeNPM(t, "test ! -e node_modules && "+installs)
	if err := Dependencies(t.Context(), dir, cache, "acme", io.Discard); err != nil {
		t.Fatal(err)
	}
}

func TestWhatNPMSaysIsToldApart(t *testing.T) {
	for says, cause := range map[string]qgjob.Cause{
		"npm error code EUSAGE\nnpm error package.json and package-lock.json are not in sync": qgjob.CauseProjectInvalid,
		"npm error code ERESOLVE":  qgjob.CauseProjectInvalid,
		"npm error code E404":      qgjob.CauseProjectInvalid,
		"npm error code E401":      qgjob.CauseRegistryRefused,
		"npm error code E403":      qgjob.CauseRegistryRefused,
		"npm error code ENEEDAUTH": qgjob.CauseRegistryRefused,
		"npm error code ENOTFOUND": qgjob.CauseTransferFailed,
		"npm error code ENOSPC":    qgjob.CauseHostDiskFull,
	} {
		fakeNPM(t, "echo '"+says+"' >&2; exit 1")
		dir := npmProject(t, map[string]string{"package.json": "{}"})
		err := Dependencies(t.Context(), dir, t.TempDir(), "acme", io.Discard)
		if failure, _ := errors.AsType[*Failure](err); failure == nil || failure.Cause != cause || !strings.Contains(failure.Message, says) {
			t.Errorf("%s: %v", says, err)
		}
	}
	err := Dependencies(t.Context(), t.TempDir(), t.TempDir(), "acme", io.Discard)
	if failure, _ := errors.AsType[*Failure](err); failure == nil || failure.Cause != qgjob.CauseProjectInvalid {
		t.Errorf("no package.json: %v", err)
	}
}
