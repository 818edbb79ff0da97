package e2e

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/phonesim"
)

// cloudKey must never be seen in anything that a person or a test can read.
const cloudKey = "kEy-of-The-aCcount"

// account is a stack with a simulated BrowserStack in the place of phones.
type account struct {
	*stack
	cloud *phonesim.Cloud
}

func newAccount(t *testing.T, o phonesim.CloudOptions) *account {
	t.Helper()
	// Slots are locked for the whole host by the account's name.
	o.Username, o.AccessKey = "user-of-"+t.Name()+filepath.Base(filepath.Dir(t.TempDir())), cloudKey
	cloud, err := phonesim.StartCloud(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cloud.Close(); err != nil {
			t.Error(err)
		}
	})
	return &account{newStack(t, 0), cloud}
}

func (a *account) worker(args ...string) *process {
	a.t.Helper()
	args = append([]string{"worker", "--data-dir", filepath.Join(root, ".cache", "e2e"), "--forever", "--browserstack-url", a.cloud.URL()}, args...)
	env := append(a.env(), "BROWSERSTACK_USERNAME="+a.cloud.Username(), "BROWSERSTACK_ACCESS_KEY="+a.cloud.AccessKey())
	return start(a.t, a.t.TempDir(), env, args...)
}

// TestBrowserStack runs a spec by the real AppWright, which reaches the stand-in where it believes BrowserStack to be.
func TestBrowserStack(t *testing.T) {
	t.Parallel()
	a := newAccount(t, phonesim.CloudOptions{Parallels: 1})
	dir := a.project(map[string]string{"tests/nosy.spec.ts": nosySpec})
	anywhere := a.submit(dir, "tests/onboarding.spec.ts")
	w := a.worker("--browserstack-minute-price=60", "--log-level=debug")
	first := a.submit(dir, "tests/onboarding.spec.ts", "--target=browserstack")
	nosy := a.submit(dir, "tests/nosy.spec.ts", "--target=browserstack")
	late := a.submit(dir, "tests/onboarding.spec.ts", "--deadline=1s", "--max-cost=100") // there is no device of its own
	var texts strings.Builder
	for _, id := range []string{first, nosy, late} {
		d := a.waitFor(id, 5*time.Minute, "has a verdict", hasVerdict)
		if d.State != qgjob.Passed || len(d.AttemptList) != 1 {
			t.Fatalf("%s is %s after %d attempts: %s\n%s", d.TestPath, d.State, len(d.AttemptList), d.Message, a.log(id))
		}
		sessions := d.AttemptList[0].Report.CloudSessions
		if len(sessions) != 1 || !strings.Contains(sessions[0].URL, sessions[0].ID) || sessions[0].VideoURL == "" || sessions[0].Cost <= 0 {
			t.Errorf("%s: linked sessions %+v", d.TestPath, sessions)
		}
		out, _ := run(t, dir, a.env(), time.Minute, "status", "--job-id="+id)
		if !strings.Contains(out, "page:  "+sessions[0].URL) {
			t.Errorf("status does not show the session's page:\n%s", out)
		}
		texts.WriteString(out + a.log(id))
	}
	if reason := a.job(late).AttemptList[0].Reason; !strings.Contains(reason, "no device of its own: on BrowserStack for about") {
		t.Errorf("the late one was given there because: %s", reason)
	}
	l := a.cloud.Ledger()
	if l.Uploads != 1 || l.SessionsMade != 3 || l.Unauthorized != 0 || l.Sessions[0].Status != "passed" || l.Sessions[0].Name != "a newcomer is shown around" {
		t.Errorf("the account says %+v", l)
	}
	if d := a.job(anywhere); d.State != qgjob.Queued || len(d.AttemptList) != 0 {
		t.Errorf("a job without a target is %s after %d attempts: it must not go to BrowserStack", d.State, len(d.AttemptList))
	}
	w.signal(15)
	w.exit(time.Minute)
	texts.WriteString(w.out.String() + w.errOut.String())
	for _, secret := range []string{cloudKey, a.cloud.Username()} {
		if strings.Contains(texts.String(), secret) {
			t.Errorf("a credential can be read:\n%s", texts.String())
		}
	}
	a.nothingLeft()
}

// TestBrowserStackIOS runs specs on iPhones and on an Android phone of one account: the build, or the platform that is asked for, says where.
func TestBrowserStackIOS(t *testing.T) {
	t.Parallel()
	a := newAccount(t, phonesim.CloudOptions{Parallels: 1})
	ipa, simulator := buildIPAs(t)
	dir := a.project(map[string]string{"tests/clipboard.spec.ts": clipboardSpec})
	w := a.worker("--browserstack-minute-price=60")
	android := a.submit(dir, "tests/onboarding.spec.ts", "--target=browserstack")
	a.apk = ipa
	jobs := []string{
		a.submit(dir, "tests/onboarding.spec.ts", "--target=browserstack"),
		a.submit(dir, "tests/sign-in.spec.ts", "--target=browserstack", "--requires=platform=ios"),
		a.submit(dir, "tests/clipboard.spec.ts", "--target=browserstack"),
		a.submit(dir, "tests/onboarding.spec.ts", "--deadline=1s", "--max-cost=100"), // there is no device of its own
	}
	sessions := map[string]string{} // which device each ran on
	for _, id := range append(jobs, android) {
		d := a.waitFor(id, 5*time.Minute, "has a verdict", hasVerdict)
		if d.State != qgjob.Passed || len(d.AttemptList) != 1 {
			t.Fatalf("%s is %s after %d attempts: %s\n%s", d.TestPath, d.State, len(d.AttemptList), d.Message, a.log(id))
		}
		for _, s := range d.AttemptList[0].Report.CloudSessions {
			if !strings.Contains(s.URL, s.ID) || s.VideoURL == "" || s.Cost <= 0 {
				t.Errorf("%s: linked session %+v", d.TestPath, s)
			}
			sessions[s.ID] = id
		}
	}
	l := a.cloud.Ledger()
	if l.Uploads != 2 || l.SessionsMade != 6 || l.SessionsRefused != 0 || l.Unauthorized != 0 {
		t.Errorf("the account says %+v", l)
	}
	for _, s := range l.Sessions {
		want := "iPhone 15"
		if sessions[s.ID] == android {
			want = "Google Pixel 8"
		}
		if s.Device != want || s.Status != "passed" || sessions[s.ID] == "" {
			t.Errorf("session %q of job %s ran on a %s, want %s, and is %s", s.Name, sessions[s.ID], s.Device, want, s.Status)
		}
	}
	if out, code := run(t, dir, a.env(), time.Minute, "devices"); code != 0 || !strings.Contains(out, "android or ios") {
		t.Errorf("devices: exit %d: %s", code, out)
	}
	a.apk = simulator
	refused := start(t, dir, a.env(), a.submitArgs("tests/onboarding.spec.ts", "--target=browserstack")...)
	if code := refused.exit(time.Minute); code == 0 || !strings.Contains(refused.errOut.String(), "name an IPA with --app") {
		t.Errorf("a simulator's app for BrowserStack: exit %d: %s", code, refused.errOut)
	}
	w.signal(15)
	w.exit(time.Minute)
	a.nothingLeft()
}

// clipboardSpec uses what needs more of an iPhone than its elements: AppWright brings WebDriverAgent to the front, and the app again.
const clipboardSpec = `import { test, expect } from "appwright";
test("the clipboard is read, and the screen tapped", async ({ device }) => {
  expect(device.getPlatform()).toBe("ios");
  await device.webdriverClient.setClipboard(Buffer.from("bread").toString("base64"));
  expect(Buffer.from(await device.getClipboardText(), "base64").toString()).toBe("bread");
  await expect(device.getByText("Groceries from around the corner")).toBeVisible();
  const next = await device.getByText("Next").getElement();
  const box = await device.webdriverClient.getElementRect(next["element-6066-11e4-a52e-4f735466cecf"]);
  await device.tap({ x: box.x + box.width / 2, y: box.y + box.height / 2 });
  await expect(device.getByText(/At your door/)).toBeVisible();
});
`

// nosySpec looks for the account's credentials and reach.
const nosySpec = `import { test, expect } from "appwright";
test("sees no credentials", async ({ device }) => {
  await expect(device.getByText("Next")).toBeVisible();
  console.log("environment", JSON.stringify(process.env));
  for (const path of ["plan.json", "builds.json"]) {
    const answer = await fetch("https://api-cloud.browserstack.com/app-automate/" + path);
    expect(answer.status).toBe(403);
  }
});
`

// TestBrowserStackLost: an account that is cut off in the middle of a test is not the test's fault. The job
// waits until the account is back.
func TestBrowserStackLost(t *testing.T) {
	t.Parallel()
	a := newAccount(t, phonesim.CloudOptions{Parallels: 2})
	dir := a.project(map[string]string{"tests/slow.spec.ts": strings.ReplaceAll(slowSpec, "i < 600", "i < 40")})
	w := a.worker()
	id := a.submit(dir, "tests/slow.spec.ts", "--target=browserstack")
	eventually(t, 5*time.Minute, "the spec runs", func() bool {
		l := a.cloud.Ledger()
		return len(l.Sessions) > 0 && l.Sessions[0].Commands > 4
	})
	a.cloud.SetFault(phonesim.CloudFault{Kind: phonesim.CloudOffline})
	d := a.waitFor(id, 2*time.Minute, "the first attempt has ended", func(d api.JobDetail) bool { return d.AttemptList[0].Outcome != "" })
	if at := d.AttemptList[0]; at.Outcome != qgjob.OutcomeErrored || at.Cause != qgjob.CauseCloudUnreachable {
		t.Errorf("the attempt ended as %s %s: %s", at.Outcome, at.Cause, at.Message)
	}
	a.cloud.SetFault(phonesim.CloudFault{})
	d = a.waitFor(id, 5*time.Minute, "has a verdict", hasVerdict)
	if d.State != qgjob.Passed || d.TestFailures != 0 || d.InfraErrors < 1 {
		t.Errorf("job is %s, spent %d test and %d infrastructure retries: %s", d.State, d.TestFailures, d.InfraErrors, d.Message)
	}
	w.signal(15)
	w.exit(time.Minute)
	a.nothingLeft()
}

// TestBrowserStackWorkerKilled: what a killed worker left open at BrowserStack is ended by the next one.
func TestBrowserStackWorkerKilled(t *testing.T) {
	t.Parallel()
	a := newAccount(t, phonesim.CloudOptions{Parallels: 1})
	a.server.kill()
	a.server.args = append(a.server.args, "--lease", "3s")
	a.server.up()
	dir := a.project(map[string]string{"tests/slow.spec.ts": strings.ReplaceAll(slowSpec, "i < 600", "i < 25")})
	w := a.worker()
	id := a.submit(dir, "tests/slow.spec.ts", "--target=browserstack")
	eventually(t, 5*time.Minute, "the spec runs", func() bool {
		l := a.cloud.Ledger()
		return len(l.Sessions) > 0 && l.Sessions[0].Commands > 4
	})
	w.kill()
	w = a.worker()
	d := a.waitFor(id, 5*time.Minute, "has a verdict", hasVerdict)
	if d.State != qgjob.Passed || d.AttemptList[0].Outcome != qgjob.OutcomeLost {
		t.Errorf("job is %s, its first attempt %s: %s", d.State, d.AttemptList[0].Outcome, d.Message)
	}
	for _, s := range a.cloud.Ledger().Sessions {
		if s.EndedAt == nil || s.Reason == "BROWSERSTACK_IDLE_TIMEOUT" {
			t.Errorf("session %s of the account was not ended: %s %s", s.ID, s.Status, s.Reason)
		}
	}
	w.signal(15)
	w.exit(time.Minute)
	a.nothingLeft()
}
