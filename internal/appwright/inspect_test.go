package appwright

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"qgjob"
)

func TestInspect(t *testing.T) {
	dir := nodeProject(t, "project with spaces")
	p := inspected(t, dir)
	if p.AppWright != "0.1.1" || p.Playwright != "1.49.1" || p.ConfigPath != filepath.Join(dir, "appwright.config.ts") {
		t.Errorf("%+v", p)
	}
	var specs []string
	for i := range p.Playwrights {
		specs, p.Playwrights[i].Specs = p.Playwrights[i].Specs, nil
	}
	want := []PlaywrightProject{
		{Name: "phone", Provider: "local-device", Platform: "android", BuildPath: filepath.Join(dir, "build/app.apk")},
		{Name: "emulator", Provider: "emulator", Platform: "android"},
		{Name: "cloud", Provider: "browserstack", Platform: "ios", BuildPath: "https://example.com/app.ipa"},
		{Name: "cloud too", Provider: "browserstack", Platform: "ios", BuildPath: "/builds/app.ipa"},
	}
	if diff := cmp.Diff(want, p.Playwrights); diff != "" {
		t.Errorf("Playwright projects (-want +got):\n%s", diff)
	}
	phone := PlaywrightProject{Name: "phone", Specs: specs}
	for spec, fits := range map[string]bool{
		"tests/passes.spec.ts": true, "tests/odd (1)/a+b [ü].spec.ts": true, "tests/broken.spec.ts": true,
		"tests/missing.spec.ts": false, "appwright.config.ts": false, "tests": false,
	} {
		err := p.Has(phone, spec)
		if failure, _ := errors.AsType[*Failure](err); (err == nil) != fits || failure != nil && failure.Cause != qgjob.CauseNoTestsMatched {
			t.Errorf("%s: %v", spec, err)
		}
	}
}

func TestTheConfigSeesTheVariables(t *testing.T) {
	dir := nodeProject(t, "project")
	config := "if (!process.env.STAGE) throw new Error('STAGE is not set');\nexport default { testDir: './tests', projects: [{ name: process.env.STAGE }] };"
	if err := write("appwright.config.ts", config)(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := Inspect(t.Context(), dir, "", nil); err == nil || !strings.Contains(err.Error(), "STAGE is not set") {
		t.Errorf("without the variable: %v", err)
	}
	p, err := Inspect(t.Context(), dir, "", []string{"STAGE=beta"})
	if err != nil || len(p.Playwrights) != 1 || p.Playwrights[0].Name != "beta" || len(p.Playwrights[0].Specs) == 0 {
		t.Errorf("with the variable: %+v, %v", p.Playwrights, err)
	}
}

func TestInspectTellsWhatIsWrong(t *testing.T) {
	for name, c := range map[string]struct {
		change func(dir string) error
		config string
		says   string
	}{
		"no config":           {func(dir string) error { return os.Remove(filepath.Join(dir, "appwright.config.ts")) }, "", "holds no appwright.config.ts"},
		"another config":      {func(string) error { return nil }, "e2e.config.ts", "e2e.config.ts is not in the test project"},
		"a syntax error":      {write("appwright.config.ts", "export default {\n  projects: [\n"), "", "appwright.config.ts"},
		"a config that fails": {write("appwright.config.ts", "throw new Error('no licence');"), "", "no licence"},
		"a config that exits": {write("appwright.config.ts", "process.exit(0);"), "", "process.exit"},
		"a missing module":    {write("appwright.config.ts", "import 'not-installed';"), "", "not-installed"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := nodeProject(t, "project")
			if err := c.change(dir); err != nil {
				t.Fatal(err)
			}
			_, err := Inspect(t.Context(), dir, c.config, nil)
			failure, _ := errors.AsType[*Failure](err)
			if failure == nil || failure.Cause != qgjob.CauseProjectInvalid || !strings.Contains(failure.Message, c.says) {
				t.Errorf("%v", err)
			}
		})
	}
}

func write(name, content string) func(dir string) error {
	return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644) }
}

func TestVersions(t *testing.T) {
	good := map[string]string{"appwright": "0.1.1", "@playwright/test": "1.49.1", "playwright": "1.49.1", "playwright-core": "1.49.1"}
	with := func(name, version string) map[string]string {
		changed := map[string]string{}
		for n, v := range good {
			changed[n] = v
		}
		changed[name] = version
		return changed
	}
	later := map[string]string{"appwright": "0.1.1", "@playwright/test": "1.61.0", "playwright": "1.61.0", "playwright-core": "1.61.0"}
	for name, c := range map[string]struct {
		packages map[string]string
		says     string // empty: it can work
	}{
		"as it should be":                  {good, ""},
		"nothing installed":                {nil, "package appwright is not among"},
		"no Playwright":                    {map[string]string{"appwright": "0.1.1"}, `"overrides"`},
		"an old appwright":                 {with("appwright", "0.0.33"), "appwright@0.1.1"},
		"a later appwright":                {with("appwright", "0.1.46"), ""},
		"an appwright beyond":              {with("appwright", "0.2.0"), "0.1.x"},
		"no version":                       {with("appwright", ""), "0.1.x"},
		"a later Playwright":               {later, `"@playwright/test": "1.49.1"`},
		"a beta":                           {with("playwright", "1.50.0-beta.1"), "with which appwright 0.1.1 does not work"},
		"Playwright packages that differ":  {with("playwright-core", "1.48.0"), "next to another"},
		"AppWright with a copy of its own": {with("appwright/node_modules/playwright", "1.50.0"), "loaded twice"},
	} {
		dir := t.TempDir()
		for pkg, version := range c.packages {
			home := filepath.Join(dir, "node_modules", pkg)
			if err := os.MkdirAll(home, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := write("package.json", `{"version":"`+version+`"}`)(home); err != nil {
				t.Fatal(err)
			}
		}
		_, _, err := checkVersions(dir)
		failure, _ := errors.AsType[*Failure](err)
		if (failure == nil) != (c.says == "") || failure != nil && (failure.Cause != qgjob.CauseProjectInvalid || !strings.Contains(failure.Message, c.says)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestChoose(t *testing.T) {
	p := Project{Dir: "/p", ConfigPath: "/p/appwright.config.ts", Playwrights: []PlaywrightProject{
		{Name: "phone", Provider: "local-device"},
		{Name: "emulator", Provider: "emulator"},
		{Name: "tablet emulator", Provider: "emulator"},
		{Name: "unit"},
		{Name: "cloud", Provider: "browserstack"},
		{Name: "iphone", Provider: "local-device", Platform: "ios"},
	}}
	clouds := Project{Dir: "/p", ConfigPath: "/p/appwright.config.ts", Playwrights: []PlaywrightProject{
		{Name: "cloud", Provider: "browserstack", Platform: "android"},
		{Name: "cloud iphone", Provider: "browserstack", Platform: "ios"},
	}}
	for _, platform := range []string{"android", "ios"} {
		if got, err := clouds.Choose(qgjob.TargetBrowserStack, platform, ""); err != nil || got.Platform != platform {
			t.Errorf("for %s on BrowserStack: %+v, %v", platform, got, err)
		}
	}
	clouds.Playwrights = clouds.Playwrights[1:]
	if _, err := clouds.Choose(qgjob.TargetBrowserStack, "android", ""); err == nil || !strings.Contains(err.Error(), "ask for iOS (--requires=platform=ios") {
		t.Errorf("where BrowserStack is for iOS only: %v", err)
	}
	for _, c := range []struct {
		kind           qgjob.Target
		platform, name string
		want           string // empty: refused
		says           string
	}{
		{qgjob.TargetDevice, "android", "", "phone", ""},
		{qgjob.TargetEmulator, "android", "tablet emulator", "tablet emulator", ""},
		{qgjob.TargetEmulator, "android", "phone", "phone", ""},
		{qgjob.TargetEmulator, "android", "", "", `several Playwright projects of appwright.config.ts have provider "emulator"`},
		{qgjob.TargetDevice, "android", "none", "", `it has "phone" (local-device), "emulator" (emulator), "tablet emulator" (emulator), "unit" (no provider), "cloud" (browserstack), "iphone" (local-device, ios)`},
		{qgjob.TargetBrowserStack, "android", "", "cloud", ""},
		{qgjob.TargetDevice, "android", "unit", "", `Playwright project "unit" of appwright.config.ts has provider "", which cannot run on target device`},
		{qgjob.TargetEmulator, "android", "cloud", "", `has provider "browserstack", which cannot run on target emulator`},
		{qgjob.TargetDevice, "ios", "iphone", "iphone", ""},
		{qgjob.TargetEmulator, "ios", "iphone", "iphone", ""},
		{qgjob.TargetDevice, "android", "iphone", "", `Playwright project "iphone" of appwright.config.ts is for platform ios, which cannot run on a device with android`},
		{qgjob.TargetDevice, "ios", "", "", `several Playwright projects of appwright.config.ts have provider "local-device" and platform ios`},
		{qgjob.TargetDevice, "android", "tablet", "", `no Playwright project named "tablet"`},
	} {
		got, err := p.Choose(c.kind, c.platform, c.name)
		failure, _ := errors.AsType[*Failure](err)
		if got.Name != c.want || (failure == nil) != (c.want != "") || failure != nil && (failure.Cause != qgjob.CauseProjectInvalid || !strings.Contains(failure.Message, c.says)) {
			t.Errorf("%s %q: %q, %v", c.kind, c.name, got.Name, err)
		}
	}
}

// A host that lacks Node says nothing of the project, which another host may run.
func TestInspectWithoutNode(t *testing.T) {
	dir := nodeProject(t, "project")
	t.Setenv("PATH", t.TempDir())
	_, err := Inspect(t.Context(), dir, "", nil)
	if f, ok := errors.AsType[*Failure](err); !ok || f.Cause != qgjob.CauseHostFailed {
		t.Errorf("Inspect = %v", err)
	}
}
