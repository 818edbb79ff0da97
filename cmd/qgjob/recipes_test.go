package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"qgjob/internal/api"
)

// recipe reads a file of examples/ci.
func recipe(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "examples", "ci", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func gitlabScript(t *testing.T) string {
	var file struct {
		Appwright struct {
			Script    []string
			Artifacts struct {
				Reports struct{ Junit string }
			}
		}
	}
	if err := yaml.Unmarshal([]byte(recipe(t, "gitlab-ci.yml")), &file); err != nil {
		t.Fatal(err)
	}
	if file.Appwright.Artifacts.Reports.Junit != "qgjob-reports/junit.xml" {
		t.Errorf("GitLab looks for the report at %q", file.Appwright.Artifacts.Reports.Junit)
	}
	return strings.Join(file.Appwright.Script, "\n")
}

func buildkiteScript(t *testing.T) string {
	var file struct{ Steps []struct{ Command string } }
	if err := yaml.Unmarshal([]byte(recipe(t, "buildkite.yml")), &file); err != nil {
		t.Fatal(err)
	}
	return strings.ReplaceAll(file.Steps[0].Command, "$$", "$") // as pipeline upload does
}

var jenkinsShell = regexp.MustCompile(`(?s)sh '''(.*?)'''`)

func jenkinsScript(t *testing.T) string {
	match := jenkinsShell.FindStringSubmatch(recipe(t, "Jenkinsfile"))
	if match == nil {
		t.Fatal("the Jenkinsfile has no shell step")
	}
	return match[1]
}

// TestRecipes runs the shell part of each recipe with the variables that its CI sets: green with a passing
// test and red with a failing one, with the report where the CI looks for it, and the run knows where it
// comes from.
func TestRecipes(t *testing.T) {
	for _, c := range []struct {
		name, script string
		vars         []string
	}{
		{"gitlab", gitlabScript(t), []string{
			"CI=true", "GITLAB_CI=true", "CI_PROJECT_ID=1", "CI_PIPELINE_ID=7", "CI_JOB_NAME=appwright", "CI_PROJECT_PATH=acme/shop",
			"CI_COMMIT_SHA=abc123", "CI_COMMIT_REF_NAME=feature", "CI_PIPELINE_URL=https://ci.example.com/7",
		}},
		{"buildkite", buildkiteScript(t), []string{
			"CI=true", "BUILDKITE=true", "BUILDKITE_BUILD_ID=7", "BUILDKITE_STEP_ID=s", "BUILDKITE_REPO=https://user:password@git.example.com/acme/shop",
			"BUILDKITE_COMMIT=abc123", "BUILDKITE_BRANCH=feature", "BUILDKITE_BUILD_URL=https://ci.example.com/7", "BUILDKITE_PULL_REQUEST=false",
		}},
		{"jenkins", jenkinsScript(t), []string{
			"JENKINS_URL=https://ci.example.com", "JOB_NAME=shop", "BUILD_NUMBER=7", "GIT_URL=https://git.example.com/acme/shop",
			"GIT_COMMIT=abc123", "GIT_BRANCH=origin/feature", "BUILD_URL=https://ci.example.com/7",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, url := served(t)
			dir := t.TempDir()
			for name, text := range map[string]string{
				"package.json": "{}", "appwright.config.ts": "export default {};", "tests/a.spec.js": "", "tests/b.spec.js": "",
				"app.json": `{"package": "com.example.shop"}`, "bin/buildkite-agent": "#!/bin/sh\ncat >annotation.md\n",
			} {
				path := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			env := append(qgjobEnv(t, url), "QGJOB_ORG=qualgent", "PATH="+filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
			env = append(env, c.vars...)
			sh := func(script string) (code int, out string) {
				cmd := exec.CommandContext(t.Context(), "bash", "-e", "-c", script)
				cmd.Dir, cmd.Env = dir, env
				b, _ := cmd.CombinedOutput() // the code says it
				return cmd.ProcessState.ExitCode(), string(b)
			}
			if code, out := sh("qgjob phone apk app.json -o build/app.apk"); code != 0 {
				t.Fatal(out)
			}
			for _, run := range []struct {
				outcomes string
				code     int
			}{{"passed failed failed failed", 1}, {"passed passed", 0}} {
				code, out := sh("fakeworker " + run.outcomes + " & " + strings.Replace(c.script, "exec ", "", 1) + "\n")
				if code != run.code {
					t.Errorf("with tests that end as %s: exit code %d, want %d: %s", run.outcomes, code, run.code, out)
				}
				junit := filepath.Join(dir, "qgjob-reports", "junit.xml")
				if data, err := os.ReadFile(junit); err != nil || !strings.Contains(string(data), `tests="2"`) {
					t.Errorf("the report: %v: %s", err, data)
				}
				if err := os.Remove(junit); err != nil {
					t.Error(err)
				}
			}
			if c.name == "buildkite" {
				if data, err := os.ReadFile(filepath.Join(dir, "annotation.md")); err != nil || !strings.Contains(string(data), "Run passed") {
					t.Errorf("the annotation: %v: %s", err, data)
				}
			}
			client := &api.Client{BaseURL: url}
			list, err := client.Jobs(t.Context(), api.JobQuery{Limit: 1})
			if err != nil || len(list.Jobs) != 1 {
				t.Fatal(list, err)
			}
			run, err := client.Run(t.Context(), list.Jobs[0].RunID)
			if err != nil || run.CI == nil {
				t.Fatal(run, err)
			}
			if ci := run.CI; ci.System != c.name || !strings.HasSuffix(ci.Repository, "acme/shop") || strings.Contains(ci.Repository, "password") ||
				ci.Branch != "feature" || ci.Commit != "abc123" || ci.URL != "https://ci.example.com/7" {
				t.Errorf("the run comes from %+v", *ci)
			}
		})
	}
}
