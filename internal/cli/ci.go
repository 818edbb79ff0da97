package cli

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"regexp"

	"github.com/google/uuid"

	"qgjob/internal/api"
)

// ciSystem is a CI system as its environment variables show it.
type ciSystem struct {
	name   string
	marker string // is set, and not to "false", in this system only
	// run, job and step are what stays the same when somebody runs a failed job again, and differs between
	// any two steps otherwise: never a variable that counts attempts or names one. All of needed must be
	// there, or no key is made; extra ones count where they are set.
	needed []string
	extra  []string
	grows  string // of needed, what is greater in every later run; "" where there is no such thing
}

// ciSystems is in the order in which they are looked for.
var ciSystems = []ciSystem{
	{
		name: "github", marker: "GITHUB_ACTIONS",
		needed: []string{"GITHUB_REPOSITORY", "GITHUB_RUN_ID", "GITHUB_JOB"},
		extra:  []string{"GITHUB_SERVER_URL", "GITHUB_ACTION", "RUNNER_OS", "RUNNER_ARCH"},
		grows:  "GITHUB_RUN_ID",
	},
	{
		name: "gitlab", marker: "GITLAB_CI",
		needed: []string{"CI_PROJECT_ID", "CI_PIPELINE_ID", "CI_JOB_NAME"},
		extra:  []string{"CI_SERVER_HOST", "CI_NODE_INDEX"},
		grows:  "CI_PIPELINE_ID",
	},
	{
		name: "buildkite", marker: "BUILDKITE",
		needed: []string{"BUILDKITE_BUILD_ID", "BUILDKITE_STEP_ID"},
		extra:  []string{"BUILDKITE_PARALLEL_JOB"},
		grows:  "BUILDKITE_BUILD_ID",
	},
	{
		name: "circleci", marker: "CIRCLECI",
		needed: []string{"CIRCLE_WORKFLOW_ID", "CIRCLE_JOB"},
		extra:  []string{"CIRCLE_NODE_INDEX"},
	},
	{
		name: "azure", marker: "TF_BUILD",
		needed: []string{"SYSTEM_COLLECTIONURI", "SYSTEM_TEAMPROJECTID", "BUILD_BUILDID", "SYSTEM_JOBNAME"},
		extra:  []string{"SYSTEM_STAGENAME", "SYSTEM_PHASENAME", "SYSTEM_JOBPOSITIONINPHASE"},
		grows:  "BUILD_BUILDID",
	},
	{
		name: "bitbucket", marker: "BITBUCKET_PIPELINE_UUID",
		needed: []string{"BITBUCKET_PIPELINE_UUID", "BITBUCKET_STEP_UUID"},
		extra:  []string{"BITBUCKET_PARALLEL_STEP"},
	},
	{
		name: "bitrise", marker: "BITRISE_IO",
		needed: []string{"BITRISE_BUILD_SLUG"},
		extra:  []string{"BITRISE_TRIGGERED_WORKFLOW_ID"},
	},
	{
		name: "codemagic", marker: "CM_BUILD_ID",
		needed: []string{"CM_PROJECT_ID", "CM_BUILD_ID"},
	},
	{
		name: "teamcity", marker: "TEAMCITY_VERSION",
		needed: []string{"TEAMCITY_BUILDCONF_NAME", "BUILD_NUMBER"},
		extra:  []string{"TEAMCITY_PROJECT_NAME"},
	},
	{
		name: "jenkins", marker: "JENKINS_URL",
		needed: []string{"JENKINS_URL", "JOB_NAME", "BUILD_NUMBER"},
		extra:  []string{"STAGE_NAME"},
	},
}

// plainID is what may be part of a key as it is.
var plainID = regexp.MustCompile(`^[0-9A-Za-z-]{1,40}$`)

func (p *program) isSet(name string) bool {
	v := p.env(name)
	return v != "" && v != "false" && v != "0"
}

// inCI says whether a CI system started this process: nobody is there to answer, and nothing may be asked.
func (p *program) inCI() bool {
	if p.isSet("CI") {
		return true
	}
	for _, c := range ciSystems {
		if p.isSet(c.marker) {
			return true
		}
	}
	return false
}

// ciKey makes the idempotency key of a submit from the CI's run, job and step and from the request itself,
// bundle and build included, so that a step which is run again names the same run, and nothing else does. It begins
// with what grows: keys made together lie together in the server's index, and a commit of many writes fewer pages.
// It returns "" outside CI, and in a CI whose variables do not tell enough.
func (p *program) ciKey(r api.SubmitRequest) string {
	for _, c := range ciSystems {
		if !p.isSet(c.marker) {
			continue
		}
		parts := map[string]string{}
		for _, name := range c.needed {
			if p.env(name) == "" {
				return ""
			}
			parts[name] = p.env(name)
		}
		for _, name := range c.extra {
			parts[name] = p.env(name)
		}
		r.IdempotencyKey, r.RepeatFailed, r.CI = "", false, nil
		r = r.Unsecret()
		identity, err := json.Marshal(struct {
			System  string
			Step    map[string]string
			Request api.SubmitRequest
		}{c.name, parts, r})
		if err != nil {
			panic(err) // strings and numbers only
		}
		sum := sha256.Sum256(identity)
		key := "ci-" + c.name + "-"
		if run := p.env(c.grows); plainID.MatchString(run) {
			key += run + "-"
		}
		return key + hex.EncodeToString(sum[:])
	}
	return ""
}

// randomKey makes the idempotency key of one invocation.
func randomKey() string { return "once-" + uuid.Must(uuid.NewV7()).String() }
