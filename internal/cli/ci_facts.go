package cli

import (
	"cmp"
	"encoding/json"
	"os"
	"strconv"
	"strings"

	"qgjob"
)

// ciFacts is what the CI system says of its run, and what QGJOB_REPOSITORY, QGJOB_COMMIT and QGJOB_BRANCH say
// instead; nil where nobody says anything.
func (p *program) ciFacts() *qgjob.CI {
	var ci qgjob.CI
	for _, system := range ciSystems {
		if !p.isSet(system.marker) {
			continue
		}
		ci.System = system.name
		switch system.name {
		case "github":
			p.githubFacts(&ci)
		case "gitlab":
			ci.Repository, ci.Commit, ci.URL = p.env("CI_PROJECT_PATH"), p.env("CI_COMMIT_SHA"), p.env("CI_PIPELINE_URL")
			ci.Branch = cmp.Or(p.env("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME"), p.env("CI_COMMIT_REF_NAME"))
			ci.PullRequest, ci.Actor, ci.Workflow = p.env("CI_MERGE_REQUEST_IID"), p.env("GITLAB_USER_LOGIN"), p.env("CI_JOB_NAME")
		case "buildkite":
			ci.Repository, ci.Commit, ci.URL = p.env("BUILDKITE_REPO"), p.env("BUILDKITE_COMMIT"), p.env("BUILDKITE_BUILD_URL")
			ci.Branch, ci.Actor, ci.Workflow = p.env("BUILDKITE_BRANCH"), p.env("BUILDKITE_BUILD_CREATOR"), p.env("BUILDKITE_PIPELINE_SLUG")
			if n := p.env("BUILDKITE_PULL_REQUEST"); n != "false" {
				ci.PullRequest = n
			}
		case "jenkins":
			ci.Repository, ci.Commit, ci.URL = p.env("GIT_URL"), p.env("GIT_COMMIT"), p.env("BUILD_URL")
			ci.Branch = cmp.Or(p.env("CHANGE_BRANCH"), p.env("BRANCH_NAME"), strings.TrimPrefix(p.env("GIT_BRANCH"), "origin/"))
			ci.PullRequest, ci.Actor, ci.Workflow = p.env("CHANGE_ID"), p.env("BUILD_USER_ID"), p.env("JOB_NAME")
		case "circleci":
			ci.Repository, ci.Commit, ci.URL = p.env("CIRCLE_REPOSITORY_URL"), p.env("CIRCLE_SHA1"), p.env("CIRCLE_BUILD_URL")
			ci.Branch, ci.Actor, ci.Workflow = p.env("CIRCLE_BRANCH"), p.env("CIRCLE_USERNAME"), p.env("CIRCLE_JOB")
		}
		break
	}
	ci.Repository = withoutUserinfo(cmp.Or(p.env("QGJOB_REPOSITORY"), ci.Repository))
	ci.Commit = cmp.Or(p.env("QGJOB_COMMIT"), ci.Commit)
	ci.Branch = cmp.Or(p.env("QGJOB_BRANCH"), ci.Branch)
	if ci == (qgjob.CI{}) {
		return nil
	}
	for _, f := range []struct {
		text *string
		most int
	}{{&ci.Repository, 400}, {&ci.Commit, 64}, {&ci.Branch, 400}, {&ci.PullRequest, 64}, {&ci.Actor, 200}, {&ci.Workflow, 400}, {&ci.URL, 1000}} {
		*f.text = strings.ToValidUTF8(printable(*f.text), "")
		*f.text = (*f.text)[:min(len(*f.text), f.most)]
	}
	return &ci
}

// githubFacts are those of GitHub Actions. The commit of a pull request is the one that was pushed: GITHUB_SHA
// is a merge that exists nowhere else.
func (p *program) githubFacts(ci *qgjob.CI) {
	ci.Repository, ci.Commit, ci.Actor = p.env("GITHUB_REPOSITORY"), p.env("GITHUB_SHA"), p.env("GITHUB_ACTOR")
	ci.Branch = cmp.Or(p.env("GITHUB_HEAD_REF"), p.env("GITHUB_REF_NAME"))
	ci.Workflow = strings.Trim(p.env("GITHUB_WORKFLOW")+" / "+p.env("GITHUB_JOB"), " /")
	if server, run := p.env("GITHUB_SERVER_URL"), p.env("GITHUB_RUN_ID"); server != "" && run != "" {
		ci.URL = server + "/" + ci.Repository + "/actions/runs/" + run
	}
	event := p.githubEvent()
	if event.PullRequest.Number > 0 {
		ci.PullRequest = strconv.Itoa(event.PullRequest.Number)
		ci.Commit = cmp.Or(event.PullRequest.Head.SHA, ci.Commit)
	}
}

// githubEvent is what is used of the event that started a workflow.
type githubEvent struct {
	PullRequest struct {
		Number int `json:"number"`
		Head   struct {
			SHA  string `json:"sha"`
			Repo struct {
				FullName string `json:"full_name"`
			} `json:"repo"`
		} `json:"head"`
	} `json:"pull_request"`
}

// fromFork says whether the pull request's code is another repository's.
func (e githubEvent) fromFork(repository string) bool {
	from := e.PullRequest.Head.Repo.FullName
	return from != "" && from != repository
}

// githubEvent reads the event that started the workflow; an event that cannot be read is one without facts.
func (p *program) githubEvent() (event githubEvent) {
	data, err := os.ReadFile(p.env("GITHUB_EVENT_PATH"))
	if err == nil {
		_ = json.Unmarshal(data, &event) // without facts
	}
	return event
}

// withoutUserinfo is a repository's URL without the password that some CI systems put into it.
func withoutUserinfo(url string) string {
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		return url
	}
	host, path, _ := strings.Cut(rest, "/")
	if at := strings.LastIndexByte(host, '@'); at >= 0 {
		host = host[at+1:]
	}
	return scheme + "://" + host + "/" + path
}
