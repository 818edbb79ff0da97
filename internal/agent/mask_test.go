package agent

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/device"
)

func TestMaskedTexts(t *testing.T) {
	m := newMask([]string{"s3cret", "s3cret-and-more", "p&ss \"word\"", "-----BEGIN-----\nMIIEvQ\n-----END-----\n", "abc"})
	quoted, _ := json.Marshal(`p&ss "word"`)
	for text, want := range map[string]string{
		"token=s3cret!":                        "token=***!",
		"s3cret-and-more":                      "***",
		"s3cret-and":                           "***-and",
		"secret abc":                           "secret abc", // too short to be hidden
		"line MIIEvQ of the key":               "line *** of the key",
		string(quoted):                         `"***"`,
		"?q=" + url.QueryEscape(`p&ss "word"`): "?q=***",
		"/" + url.PathEscape(`p&ss "word"`):    "/***",
		base64.StdEncoding.EncodeToString([]byte("s3cret-and-more")): "***",
		`Added 'value' property ["s","3","c","r","e","t"]`:           `Added 'value' property [***]`,
		"encodeURIComponent p%26ss%20%22word%22":                     "encodeURIComponent ***",
		"lower case p%26ss%20%22word%22":                             "lower case ***",
		`{"a":"{\"b\":\"p&ss \\\"word\\\"\"}"}`:                      `{"a":"{\"b\":\"***\"}"}`,
		"p&amp;ss &#34;word&#34;":                                    "***",
	} {
		if got := m.text(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
	}
	if got := newMask(nil).text("anything"); got != "anything" {
		t.Errorf("without secrets %q", got)
	}
}

// Secrets that overlap are hidden as one: the rest of the second one is a secret, too.
func TestOverlappingSecrets(t *testing.T) {
	m := newMask([]string{"alpha-beta", "beta-gamma", "gamma-delta"})
	for text, want := range map[string]string{
		"<alpha-beta-gamma>":               "<***>",
		"<alpha-beta-gamma-delta>":         "<***>",
		"alpha-beta beta-gamma":            "*** ***",
		"alpha-beta-gam":                   "***-gam",
		"alpha-betabeta-gamma-deltaalpha-": "******alpha-",
	} {
		if got := m.text(text); got != want {
			t.Errorf("%q becomes %q, want %q", text, got, want)
		}
		for cut := range text {
			var out strings.Builder
			w := &maskedWriter{mask: m, to: &out}
			for _, piece := range []string{text[:cut], text[cut:]} {
				io.WriteString(w, piece)
			}
			w.Flush()
			if out.String() != want {
				t.Errorf("%q in two pieces, cut at %d, becomes %q, want %q", text, cut, &out, want)
			}
		}
	}
}

// A text that was cut off keeps nothing of a secret that it was cut in.
func TestClippedTexts(t *testing.T) {
	m := newMask([]string{"s3cret-and-more", "s3cret", "abcdefgh", "fgh-ij"})
	for text, want := range map[string]string{
		"token=s3cret-and-mor…": "token=***…",
		"token=s3cr…":           "token=***…",
		"token=s3cr":            "token=s3cr", // was not cut off
		"s3cret s3cret-a…":      "*** ***…",
		"abcdefgh-i…":           "******…",
		"nothing of it…":        "nothing of it…",
		"…":                     "…",
	} {
		r := qgjob.Result{Message: text, Report: qgjob.Report{Tests: []qgjob.TestResult{{Error: text}}}}
		m.result(&r)
		if r.Message != want || r.Report.Tests[0].Error != want {
			t.Errorf("%q becomes %q and %q, want %q", text, r.Message, r.Report.Tests[0].Error, want)
		}
	}
}

// However a text comes in pieces, no secret is in what goes out, and nothing else is lost.
func TestMaskedWritersHideAcrossPieces(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		secrets := rapid.SliceOfN(rapid.StringMatching(`[ab]{4,6}`), 1, 3).Draw(rt, "secrets")
		text := rapid.StringMatching(`[abc]{0,60}`).Draw(rt, "text")
		m := newMask(secrets)
		var out bytes.Buffer
		w := &maskedWriter{mask: m, to: &out}
		for rest := text; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(rt, "piece")
			if _, err := io.WriteString(w, rest[:n]); err != nil {
				rt.Fatal(err)
			}
			rest = rest[n:]
		}
		if err := w.Flush(); err != nil {
			rt.Fatal(err)
		}
		if want := m.text(text); out.String() != want {
			rt.Fatalf("in pieces %q, whole %q", &out, want)
		}
		for _, secret := range secrets {
			if strings.Contains(out.String(), secret) {
				rt.Fatalf("%q shows %q", &out, secret)
			}
		}
	})
}

// zipped is a zip of one file.
func zipped(t *testing.T, name, text string) string {
	t.Helper()
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	w, err := z.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestSecretsReachTheTestsAndNobodyElse(t *testing.T) {
	const secret = "hunter2-hunter2"
	w := newWorld(t, 0)
	phones := newPhones("P1")
	phones.appiumLog = filepath.Join(t.TempDir(), "appium.log")
	if err := os.WriteFile(phones.appiumLog, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	seen := make(chan []string, 1)
	loud := loudRunner{
		leaving: leaving{specs: specs{"tests/loud.spec.js": func(_ context.Context, log io.Writer) (Verdict, error) {
			fmt.Fprint(log, "the password is hunter2")
			fmt.Fprintln(log, "-hunter2, and mine is worker-t0ken")
			return Verdict{Result: qgjob.Result{
				Outcome: qgjob.OutcomeFailed, Cause: qgjob.CauseTestFailed, Message: "no " + secret,
				Report: qgjob.Report{Tests: []qgjob.TestResult{{Title: "types " + secret, Status: qgjob.TestFailed, Error: "got " + secret}}},
			}}, nil
		}}, appiumLog: phones.appiumLog, files: map[string]string{
			"report.json":                       `{"stdout":"` + secret + `"}`,
			"blob-report/report-1.zip":          zipped(t, "resources/trace.zip", zipped(t, "trace.network", "password="+secret)),
			"test-results/types/trace.zip":      zipped(t, "trace.trace", secret),
			"test-results/types/no-secrets.txt": "nothing",
		}},
		seen: seen,
	}
	w.start(Options{Drivers: []device.Driver{phones}, Forever: true, Runner: loud, Secrets: []string{"worker-t0ken", ""}})
	run, err := w.client.Submit(t.Context(), api.SubmitRequest{
		OrgID: "qualgent", AppVersionID: "xyz123", Jobs: []api.JobSpec{{TestPath: "tests/loud.spec.js"}},
		Env: map[string]string{"STAGE": "beta"}, Secrets: map[string]string{"PASSWORD": secret},
	})
	if err != nil {
		t.Fatal(err)
	}
	id := run.Jobs[0].ID
	job := w.verdict(id)
	if env := receive(t, seen); !slices.Equal(env, []string{"STAGE=beta", "PASSWORD=" + secret}) {
		t.Errorf("the tests had %v", env)
	}
	told, err := json.Marshal(job)
	if err != nil {
		t.Fatal(err)
	}
	log, err := w.client.Log(t.Context(), id, 1, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{"the job": string(told), "its log": string(log.Data)}
	kept, err := w.client.Artifacts(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range kept.Artifacts {
		body, err := w.client.Artifact(t.Context(), a)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(body)
		if err != nil {
			t.Fatal(err)
		}
		body.Close()
		texts[a.Name] = unzipped(t, data)
	}
	for name, text := range texts {
		if strings.Contains(text, secret) || strings.Contains(text, "worker-t0ken") {
			t.Errorf("%s shows a secret:\n%s", name, text)
		}
	}
	for _, name := range []string{"the job", "its log", "report.json", qgjob.ArtifactBlobReport, qgjob.ArtifactTestResults} {
		if !strings.Contains(texts[name], masked) {
			t.Errorf("%s has lost what was secret in it:\n%s", name, texts[name])
		}
	}
	if !strings.Contains(texts["its log"], "the password is ***, and mine is ***") {
		t.Errorf("the log says\n%s", texts["its log"])
	}
}

// unzipped is a file with all that zips in it hold.
func unzipped(t *testing.T, data []byte) string {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return string(data)
	}
	var all strings.Builder
	for _, f := range z.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		inner, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		all.WriteString(unzipped(t, inner))
	}
	return all.String()
}

// loudRunner tells what environment its first task has.
type loudRunner struct {
	leaving
	seen chan []string
}

func (r loudRunner) Run(ctx context.Context, t Task, p Plan, on Setup, log io.Writer) (Verdict, error) {
	select {
	case r.seen <- t.Env:
	default:
	}
	return r.leaving.Run(ctx, t, p, on, log)
}

// Wherever in what is encoded a secret stands, as in the header of Basic authentication, nothing of it can be decoded but the
// characters at its edges.
func TestSecretsWithinBase64(t *testing.T) {
	const secret = "s3cret-and-more"
	m := newMask([]string{secret})
	for _, user := range []string{"a", "ab", "abc", "ada.lovelace"} {
		text := "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+secret+"!"))
		got := m.text(text)
		if !strings.Contains(got, masked) || len(got) > len("Basic ")+len(masked)+len(user)*2+8 {
			t.Errorf("%s: %q becomes %q", user, text, got)
		}
	}
}

// A zip that was cut off cannot be masked, and is not kept.
func TestBrokenZipsAreNotKept(t *testing.T) {
	dir := t.TempDir()
	whole := zipped(t, "a.txt", strings.Repeat("s3cret-and-more ", 100))
	for name, data := range map[string]string{"cut.zip": whole[:len(whole)-10], "whole.zip": whole} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := newMask([]string{"s3cret-and-more"}).files(dir); err == nil {
		t.Error("a broken zip is no error")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 || entries[0].Name() != "whole.zip" {
		t.Errorf("kept: %v, %v", entries, err)
	}
	if data, err := os.ReadFile(filepath.Join(dir, "whole.zip")); err != nil || strings.Contains(unzipped(t, data), "s3cret") {
		t.Errorf("the whole one: %v", err)
	}
}
