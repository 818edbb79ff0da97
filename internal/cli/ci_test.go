package cli

import (
	"maps"
	"strconv"
	"testing"

	"qgjob/internal/api"
)

// TestCIKey runs a CI's step again, as each CI does that, and beside it another step.
func TestCIKey(t *testing.T) {
	request := api.SubmitRequest{OrgID: "q", AppVersionID: "v", Jobs: []api.JobSpec{{TestPath: "a.spec.js"}}, BundleSHA256: "b1"}
	for _, test := range []struct {
		name         string
		first        map[string]string
		again, other map[string]string // what differs when the step is run again, and in another step
	}{
		{
			"GitHub",
			map[string]string{"CI": "true", "GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "o/r", "GITHUB_RUN_ID": "7", "GITHUB_RUN_ATTEMPT": "1", "GITHUB_JOB": "e2e", "GITHUB_ACTION": "__run", "RUNNER_NAME": "a"},
			map[string]string{"GITHUB_RUN_ATTEMPT": "2", "RUNNER_NAME": "b"},
			map[string]string{"GITHUB_ACTION": "__run_2"},
		},
		{
			"GitLab",
			map[string]string{"CI": "true", "GITLAB_CI": "true", "CI_PROJECT_ID": "3", "CI_PIPELINE_ID": "7", "CI_JOB_NAME": "e2e 1/2", "CI_JOB_ID": "100"},
			map[string]string{"CI_JOB_ID": "101"},
			map[string]string{"CI_JOB_NAME": "e2e 2/2"},
		},
		{
			"Buildkite",
			map[string]string{"BUILDKITE": "true", "BUILDKITE_BUILD_ID": "7", "BUILDKITE_STEP_ID": "s", "BUILDKITE_JOB_ID": "j1", "BUILDKITE_RETRY_COUNT": "0"},
			map[string]string{"BUILDKITE_JOB_ID": "j2", "BUILDKITE_RETRY_COUNT": "1"},
			map[string]string{"BUILDKITE_PARALLEL_JOB": "1"},
		},
		{
			"Jenkins",
			map[string]string{"JENKINS_URL": "https://ci", "JOB_NAME": "app/main", "BUILD_NUMBER": "7", "STAGE_NAME": "phones", "EXECUTOR_NUMBER": "1"},
			map[string]string{"EXECUTOR_NUMBER": "2"},
			map[string]string{"BUILD_NUMBER": "8"},
		},
		{
			"CircleCI",
			map[string]string{"CIRCLECI": "true", "CIRCLE_WORKFLOW_ID": "w", "CIRCLE_JOB": "e2e", "CIRCLE_NODE_INDEX": "0", "CIRCLE_BUILD_NUM": "1"},
			map[string]string{"CIRCLE_BUILD_NUM": "2"},
			map[string]string{"CIRCLE_NODE_INDEX": "1"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			key := func(changes map[string]string, r api.SubmitRequest) string {
				vars := maps.Clone(test.first)
				maps.Copy(vars, changes)
				return (&program{vars: vars}).ciKey(r)
			}
			first := key(nil, request)
			if first == "" || len(first) > 255 {
				t.Fatalf("the key is %q", first)
			}
			if again := key(test.again, request); again != first {
				t.Error("the step that is run again has another key")
			}
			if other := key(test.other, request); other == first {
				t.Error("another step has the same key")
			}
			changed := request
			changed.BundleSHA256 = "b2"
			if key(nil, changed) == first {
				t.Error("another bundle has the same key")
			}
			if !(&program{vars: test.first}).inCI() {
				t.Error("it is not taken for a CI")
			}
		})
	}
}

// TestNoCIKey: what does not tell its run and step apart gets no key, rather than one that others share.
func TestNoCIKey(t *testing.T) {
	for name, vars := range map[string]map[string]string{
		"no CI":             {},
		"an unknown CI":     {"CI": "true"},
		"GitHub without id": {"GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "o/r", "GITHUB_JOB": "e2e"},
		"a marker of false": {"GITHUB_ACTIONS": "false", "GITHUB_REPOSITORY": "o/r", "GITHUB_RUN_ID": "7", "GITHUB_JOB": "e2e"},
	} {
		if key := (&program{vars: vars}).ciKey(api.SubmitRequest{}); key != "" {
			t.Errorf("%s: the key is %q, want none", name, key)
		}
	}
}

// TestKeysGrow: keys made one after the other are in that order, whatever else is in them.
func TestKeysGrow(t *testing.T) {
	r := api.SubmitRequest{OrgID: "q"}
	makers := map[string]func(run int) string{"none": func(int) string { return randomKey() }}
	for name, vars := range map[string]map[string]string{
		"GITHUB_RUN_ID":  {"GITHUB_ACTIONS": "true", "GITHUB_REPOSITORY": "o/r", "GITHUB_JOB": "e2e"},
		"CI_PIPELINE_ID": {"GITLAB_CI": "true", "CI_PROJECT_ID": "3", "CI_JOB_NAME": "e2e"},
		"BUILD_BUILDID":  {"TF_BUILD": "true", "SYSTEM_COLLECTIONURI": "u", "SYSTEM_TEAMPROJECTID": "p", "SYSTEM_JOBNAME": "e2e"},
	} {
		makers[name] = func(run int) string {
			vars[name] = strconv.Itoa(17123456780 + run)
			return (&program{vars: vars}).ciKey(r)
		}
	}
	for name, key := range makers {
		before := ""
		for run := range 20 {
			if k := key(run); k <= before {
				t.Errorf("%s: %s comes after %s", name, k, before)
			} else {
				before = k
			}
		}
	}
}
