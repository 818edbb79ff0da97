// Package github tells GitHub Actions what became of a run: workflow commands in the log, the job's summary,
// outputs, and one comment on the pull request that is updated and never repeated.
//
// What it promises: nothing that a test printed can become a workflow command; a comment that cannot be made
// is an error of its own and decides no verdict. The token is sent to the API's address only and is in no
// error. Formats: https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions.
package github

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// Property is a named value of a workflow command, such as the file of an annotation.
type Property struct{ Name, Value string }

// Command is a workflow command: one line of a log.
func Command(name string, message string, properties ...Property) string {
	var b strings.Builder
	b.WriteString("::" + name)
	for i, p := range properties {
		sep := ","
		if i == 0 {
			sep = " "
		}
		b.WriteString(sep + p.Name + "=" + propertyEscapes.Replace(p.Value))
	}
	b.WriteString("::" + messageEscapes.Replace(message))
	return b.String()
}

var (
	messageEscapes  = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	propertyEscapes = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
)

// Quote is text that somebody else wrote, made harmless: between its first and its last line the runner
// obeys no command. token must be random.
func Quote(text, token string) string {
	return "::stop-commands::" + token + "\n" + strings.TrimRight(text, "\n") + "\n::" + token + "::\n"
}

// Append adds to one of the files that the runner reads: GITHUB_OUTPUT, GITHUB_STEP_SUMMARY.
func Append(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if closing := f.Close(); err == nil {
		err = closing
	}
	return err
}

// Output is a line of GITHUB_OUTPUT. Values are of one line.
func Output(name, value string) string {
	return name + "=" + strings.Join(strings.Fields(value), " ") + "\n"
}

// Comments are the comments of one pull request.
type Comments struct {
	API        string // https://api.github.com, or an enterprise's
	Repository string // owner/name
	Number     string // of the pull request
	Token      string
	HTTP       *http.Client // its time limit holds for each request
}

// maxComment is how long a comment may be, in characters (GitHub's own limit is 65,536).
const maxComment = 60_000

const perPage = 100

type comment struct {
	ID   int64  `json:"id,omitempty"`
	Body string `json:"body"`
}

// Upsert makes the comment that begins with a marker, or replaces its text when the pull request has one. The
// marker names the step, so that several steps have a comment each.
func (c Comments) Upsert(ctx context.Context, marker, text string) error {
	body := marker + "\n" + text
	if r := []rune(body); len(r) > maxComment {
		body = string(r[:maxComment]) + "\n…"
	}
	base := c.API + "/repos/" + c.Repository + "/issues/"
	for page := 1; ; page++ {
		var found []comment
		err := c.call(ctx, http.MethodGet, base+c.Number+"/comments?per_page="+strconv.Itoa(perPage)+"&page="+strconv.Itoa(page), nil, &found)
		if err != nil {
			return err
		}
		for _, old := range found {
			if strings.HasPrefix(old.Body, marker) {
				return c.call(ctx, http.MethodPatch, base+"comments/"+strconv.FormatInt(old.ID, 10), comment{Body: body}, nil)
			}
		}
		if len(found) < perPage {
			return c.call(ctx, http.MethodPost, base+c.Number+"/comments", comment{Body: body}, nil)
		}
	}
}

func (c Comments) call(ctx context.Context, method, url string, in, out any) error {
	var body io.Reader
	if in != nil {
		data, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(data)
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/vnd.github+json")
	req.Header.Set("Authorization", "Bearer "+c.Token)
	req.Header.Set("X-GitHub-Api-Version", "2022-11-28")
	resp, err := c.HTTP.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		answer, _ := io.ReadAll(io.LimitReader(resp.Body, 500)) // the status says enough
		return fmt.Errorf("%s %s: %s: %s", method, req.URL.Path, resp.Status, strings.Join(strings.Fields(string(answer)), " "))
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(io.LimitReader(resp.Body, 32<<20)).Decode(out)
}
