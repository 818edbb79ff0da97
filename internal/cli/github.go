package cli

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/github"
	"qgjob/internal/report"
)

const (
	// mostAnnotations is how many annotations of one kind GitHub shows of a step.
	mostAnnotations = 10
	// mostLogged is how much of the end of a job's log is shown in its group, in bytes.
	mostLogged = 64 << 10
)

// githubOptions are how a run speaks to GitHub Actions.
type githubOptions struct {
	on, comment bool

	p       *program
	conn    *connection
	project string // directory of the test project within the repository, "" for its root
}

func (o *githubOptions) flags(f *pflag.FlagSet) {
	f.BoolVar(&o.on, "github", false, "in GitHub Actions: a group of the log for each job, annotations, the job's summary, outputs")
	f.BoolVar(&o.comment, "comment", false, "with --github, keep one comment on the pull request up to date; needs GITHUB_TOKEN")
}

func (o *githubOptions) parse(p *program, conn *connection, projectRoot string) error {
	if !o.on {
		if o.comment {
			return exitf(exitUsage, "--comment is for GitHub Actions: add --github")
		}
		return nil
	}
	if event := p.githubEvent(); p.env("GITHUB_EVENT_NAME") == "pull_request_target" && p.env("QGJOB_TOKEN") != "" && event.fromFork(p.env("GITHUB_REPOSITORY")) {
		return exitf(exitUsage, "this pull_request_target workflow has the repository's secrets and would run a fork's code with them: use the pull_request event")
	}
	o.p, o.conn = p, conn
	if rel, err := filepath.Rel(p.env("GITHUB_WORKSPACE"), projectRoot); err == nil && filepath.IsLocal(rel) {
		o.project = filepath.ToSlash(rel)
	}
	return nil
}

// submitted hands the run's id to the steps that follow: they can cancel it.
func (o *githubOptions) submitted(run qgjob.Run) {
	if o.on {
		o.output(github.Output("run-id", run.ID))
	}
}

func (o *githubOptions) output(lines string) {
	if path := o.p.env("GITHUB_OUTPUT"); path != "" {
		if err := github.Append(path, lines); err != nil {
			fmt.Fprintf(o.p.stderr, "The step's outputs cannot be written: %v\n", err)
		}
	}
}

// group shows a job that has its verdict with the end of its log, folded.
func (o *githubOptions) group(ctx context.Context, j qgjob.Job) string {
	title := string(j.State)
	if j.Flaky {
		title += " (flaky)"
	}
	text := ""
	if j.Attempts > 0 {
		chunk, err := within(ctx, o.conn, func(ctx context.Context, c *api.Client) (api.LogChunk, error) { return o.logEnd(ctx, c, j.ID) })
		text = string(chunk.Data)
		if err != nil {
			text = "The log cannot be read: " + err.Error()
		}
	}
	return github.Command("group", title+": "+jobName(j)) + "\n" + github.Quote(text, rand.Text()) + github.Command("endgroup", "")
}

// logEnd reads the end of the log of a job's last attempt.
func (o *githubOptions) logEnd(ctx context.Context, c *api.Client, jobID string) (end api.LogChunk, err error) {
	offset := int64(0)
	for {
		chunk, err := c.Log(ctx, jobID, 0, offset, 0)
		if err != nil {
			return end, err
		}
		end.Data = append(end.Data, chunk.Data...)
		if over := len(end.Data) - mostLogged; over > 0 {
			end.Data = append([]byte("…"), end.Data[over:]...)
		}
		if offset = chunk.Next; chunk.Ended || len(chunk.Data) == 0 {
			return end, nil
		}
	}
}

// report tells GitHub of a run's results. What cannot be told is said in the log and decides nothing.
func (o *githubOptions) report(ctx context.Context, runID string) {
	full, err := readReport(ctx, o.conn, runID, resultTime)
	if err != nil {
		fmt.Fprintln(o.p.stdout, github.Command("warning", "qgjob: the results of the run cannot be read: "+err.Error()))
		return
	}
	o.annotate(full)
	t := full.Totals
	lines := ""
	for _, v := range []struct {
		name, value string
	}{
		{"state", string(full.Run.State)},
		{"passed", strconv.Itoa(t.Passed)},
		{"failed", strconv.Itoa(t.Failed)},
		{"flaky", strconv.Itoa(t.Flaky)},
		{"skipped", strconv.Itoa(t.Skipped)},
		{"errors", strconv.Itoa(t.Errors)},
	} {
		lines += github.Output(v.name, v.value)
	}
	o.output(lines)
	var summary strings.Builder
	if err := full.Markdown(&summary); err != nil {
		return
	}
	if path := o.p.env("GITHUB_STEP_SUMMARY"); path != "" {
		if err := github.Append(path, summary.String()); err != nil {
			fmt.Fprintf(o.p.stderr, "The job's summary cannot be written: %v\n", err)
		}
	}
	if o.comment {
		o.tellPullRequest(ctx, summary.String())
	}
}

// annotate marks the places of failures, and of what was flaky, in the pull request's files.
func (o *githubOptions) annotate(full *report.Report) {
	errors, warnings := 0, 0
	say := func(kind string, n *int, message string, properties ...github.Property) {
		if *n++; *n <= mostAnnotations {
			fmt.Fprintln(o.p.stdout, github.Command(kind, message, properties...))
		}
	}
	for _, j := range full.Jobs {
		if !j.HasVerdict() {
			say("error", &errors, j.Reason(), github.Property{Name: "file", Value: o.path(j.TestPath)}, github.Property{Name: "title", Value: string(j.State) + ": " + j.Name()})
			continue
		}
		for _, t := range j.Tests {
			at := []github.Property{
				{Name: "file", Value: o.path(cmp.Or(t.File, j.TestPath))},
				{Name: "line", Value: strconv.Itoa(max(1, t.Line))},
				{Name: "col", Value: strconv.Itoa(max(1, t.Column))},
				{Name: "title", Value: t.Title},
			}
			switch {
			case t.Failed():
				say("error", &errors, cmp.Or(t.Error, string(t.Status)), at...)
			case t.Flaky:
				say("warning", &warnings, fmt.Sprintf("flaky: passed at attempt %d only", t.Tries[len(t.Tries)-1].Attempt), at...)
			}
		}
	}
}

// path is a file of the project as the repository knows it.
func (o *githubOptions) path(file string) string {
	if filepath.IsAbs(file) || o.project == "" || o.project == "." {
		return file
	}
	return o.project + "/" + file
}

// tellPullRequest keeps the step's comment up to date. A pull request from a fork has no token that could.
func (o *githubOptions) tellPullRequest(ctx context.Context, summary string) {
	p := o.p
	event := p.githubEvent()
	repository, token := p.env("GITHUB_REPOSITORY"), p.env("GITHUB_TOKEN")
	switch {
	case event.PullRequest.Number == 0:
		return
	case event.fromFork(repository):
		fmt.Fprintln(p.stdout, "The pull request comes from a fork: no comment is made.")
		return
	case token == "":
		fmt.Fprintln(p.stdout, github.Command("warning", "qgjob: there is no GITHUB_TOKEN to comment with: give the action github-token"))
		return
	}
	comments := github.Comments{
		API: cmp.Or(p.env("GITHUB_API_URL"), "https://api.github.com"), Repository: repository,
		Number: strconv.Itoa(event.PullRequest.Number), Token: token, HTTP: http.DefaultClient,
	}
	marker := fmt.Sprintf("<!-- qgjob: %s / %s / %s -->", markerText(p.env("GITHUB_WORKFLOW")), markerText(p.env("GITHUB_JOB")), markerText(p.env("QGJOB_COMMENT")))
	if err := comments.Upsert(ctx, marker, summary); err != nil {
		fmt.Fprintln(p.stdout, github.Command("warning", "qgjob: the comment on the pull request cannot be made (does the job have pull-requests: write?): "+err.Error()))
	}
}

// markerText is a name within an HTML comment.
func markerText(s string) string { return strings.NewReplacer("--", "-", ">", "").Replace(s) }
