package report

import (
	"fmt"
	"io"
	"strings"
	"time"

	"qgjob"
)

// mostListed bounds how many failed, flaky and errored tests a summary lists, and mostJobs its table: GitHub
// takes 1 MiB a step and 64 KiB a comment.
const (
	mostListed = 30
	mostJobs   = 100
	mostError  = 1200 // bytes of one error's text
)

var signs = map[qgjob.JobState]string{
	qgjob.Passed: "✅", qgjob.Failed: "❌", qgjob.Errored: "⚠️", qgjob.Canceled: "🚫",
	qgjob.Queued: "⏳", qgjob.Running: "⏳", qgjob.Canceling: "⏳",
}

// Headline is a run's verdict in one line, with its totals.
func (r *Report) Headline() string {
	return fmt.Sprintf("Run %s: %s", r.Run.State, r.Totals)
}

// String lists the totals, those that are 0 left out but passed and failed.
func (t Totals) String() string {
	parts := []string{fmt.Sprintf("%d passed", t.Passed), fmt.Sprintf("%d failed", t.Failed)}
	for _, p := range []struct {
		n    int
		what string
	}{{t.Flaky, "flaky"}, {t.Excused, "quarantined"}, {t.Skipped, "skipped"}, {t.Errors, "without a verdict"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	return strings.Join(parts, ", ")
}

// Markdown writes the report for a CI's summary page or a comment: the totals, what failed and why, what was
// flaky, and a table of the jobs.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "### %s %s\n\n", signs[r.Run.State], r.Headline())
	fmt.Fprintf(&b, "App version `%s` · %d jobs · run `%s`", code(r.Run.AppVersionID), len(r.Jobs), r.Run.ID)
	if took := r.Took(); took > 0 {
		fmt.Fprintf(&b, " · %s", took.Round(time.Second))
	}
	b.WriteString("\n\n")
	r.failedTests(&b)
	r.flakyTests(&b)
	r.jobTable(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) failedTests(b *strings.Builder) {
	listed := 0
	item := func(head, text string) {
		if listed++; listed > mostListed {
			return
		}
		fmt.Fprintf(b, "<details><summary>%s</summary>\n\n%s\n</details>\n\n", head, fence(text))
	}
	for _, j := range r.Jobs {
		if !j.HasVerdict() {
			item(fmt.Sprintf("%s <b>%s</b>: %s", signs[j.State], html(j.Name()), html(firstLine(j.Reason()))), errorText(j))
			continue
		}
		for _, t := range j.Tests {
			if t.Failed() {
				item(fmt.Sprintf("❌ <b>%s</b> %s (%s:%d)", html(j.Name()), html(t.Title), html(t.File), t.Line), t.Error)
			}
		}
	}
	if listed > mostListed {
		fmt.Fprintf(b, "… and %d more.\n\n", listed-mostListed)
	}
}

func (r *Report) flakyTests(b *strings.Builder) {
	listed := 0
	for _, j := range r.Jobs {
		for _, t := range j.Tests {
			if !t.Flaky {
				continue
			}
			if listed++; listed > mostListed {
				continue
			}
			fmt.Fprintf(b, "- 🎲 flaky: %s %s, passed at attempt %d\n", text(j.Name()), text(t.Title), t.Tries[len(t.Tries)-1].Attempt)
		}
	}
	if listed > 0 {
		b.WriteString("\n")
	}
}

func (r *Report) jobTable(b *strings.Builder) {
	b.WriteString("| | Test | State | Attempts | Device | Time |\n|---|---|---|---|---|---|\n")
	for i, j := range r.Jobs {
		if i == mostJobs {
			fmt.Fprintf(b, "\n… and %d more jobs.\n", len(r.Jobs)-mostJobs)
			return
		}
		state := string(j.State)
		if j.Flaky {
			state += ", flaky"
		}
		fmt.Fprintf(b, "| %s | %s | %s | %d | %s | %s |\n", signs[j.State], text(j.Name()), state, len(j.AttemptList), text(j.Device()), j.Took().Round(time.Second))
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}

// text is a string that Markdown and HTML show as it is, in one line.
func text(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return strings.NewReplacer(`\`, `\\`, "|", `\|`, "*", `\*`, "_", `\_`, "`", "\\`", "[", `\[`, "]", `\]`, "<", "&lt;", ">", "&gt;", "&", "&amp;", "@", "@\u200b", "#", `\#`).Replace(s)
}

// html is a string within an HTML element. A zero-width space keeps @names from calling people.
func html(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", "@", "@\u200b").Replace(s)
}

// code is a string within backquotes.
func code(s string) string { return strings.ReplaceAll(s, "`", "'") }

// fence is a block of text, whatever is in it, cut where it is long.
func fence(s string) string {
	if len(s) > mostError {
		s = strings.ToValidUTF8(s[:mostError], "") + "\n…"
	}
	marks := "```"
	for strings.Contains(s, marks) {
		marks += "`"
	}
	return marks + "\n" + strings.TrimRight(s, "\n") + "\n" + marks + "\n"
}
