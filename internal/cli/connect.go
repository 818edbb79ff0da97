package cli

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/pflag"

	"qgjob"
	"qgjob/internal/api"
)

const (
	defaultListen = "127.0.0.1:8000"
	// reachTime is how long a server may take to answer a command for the first time.
	reachTime = 5 * time.Second
	// lostTime is how long a waiting command waits for a server that it lost.
	lostTime = 5 * time.Minute
)

// connection is how a command finds its server. The token comes from QGJOB_TOKEN only: command lines can be
// read by everybody on a host.
type connection struct {
	url   string // after check, without a slash at its end
	env   string // QGJOB_URL; not the flag's default, because help must not show what it may hold
	token string
	http  *http.Client // nil: the one that all clients share

	ephemeral bool // the server ends with this command: nobody can ask it later
}

func (p *program) connectionFlags(flags *pflag.FlagSet, c *connection) {
	c.env, c.token = p.env("QGJOB_URL"), p.env("QGJOB_TOKEN")
	flags.StringVar(&c.url, "url", "", "the server's `URL`; also QGJOB_URL (default http://"+defaultListen+"). A token is read from QGJOB_TOKEN")
}

// check refuses a URL that cannot be a server's.
func (c *connection) check() error {
	c.url = cmp.Or(c.url, c.env, "http://"+defaultListen)
	u, err := url.Parse(c.url)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return exitf(exitUsage, "--url %s is no server's URL: give one such as http://%s", redacted(c.url), defaultListen)
	}
	c.url = strings.TrimSuffix(c.url, "/")
	return nil
}

// redacted is a URL without what somebody may have put before an @.
func redacted(s string) string {
	if at := strings.LastIndexByte(s, '@'); at >= 0 {
		return "...@" + s[at+1:]
	}
	return s
}

func (c *connection) client(patience time.Duration) *api.Client {
	return &api.Client{BaseURL: c.url, Token: c.token, HTTP: c.http, Patience: patience}
}

// explain adds to the error of a server that cannot be reached how to get one. Other errors stay as they are.
func (c *connection) explain(err error) error {
	if !unreachable(err) {
		return err
	}
	return exitf(exitInfrastructure, "%v\nStart one with 'qgjob server' or 'qgjob dev', or name another with --url or QGJOB_URL (now %s).", err, c.url)
}

// explainMissing says what is missing when a server answered that it knows no such thing, or that what
// answered is no qgjob server at all.
func (c *connection) explainMissing(ctx context.Context, err error, what string) error {
	if qgjob.ErrorCode(err) != qgjob.CodeNotFound {
		return err
	}
	if err := c.checkServer(ctx); err != nil {
		return err
	}
	return exitf(exitUsage, "the server at %s knows no %s", c.url, what)
}

// checkServer makes sure that a qgjob server answers.
func (c *connection) checkServer(ctx context.Context) error {
	_, err := within(ctx, c, func(ctx context.Context, client *api.Client) (api.Health, error) { return client.Health(ctx) })
	if _, explained := errors.AsType[*exitError](err); err == nil || explained {
		return err
	}
	return exitf(exitInfrastructure, "what answers at %s is no qgjob server (%v): check --url or QGJOB_URL", c.url, err)
}

// unreachable says whether an error is the connection's and not a server's answer.
func unreachable(err error) bool {
	e, ok := errors.AsType[*qgjob.Error](err)
	return ok && e.Code == qgjob.CodeUnavailable && e.Err != nil
}

// within makes a request that must be answered within reachTime.
func within[T any](ctx context.Context, c *connection, request func(context.Context, *api.Client) (T, error)) (T, error) {
	reach, cancel := context.WithTimeout(ctx, reachTime)
	defer cancel()
	value, err := request(reach, c.client(reachTime))
	if cause := context.Cause(ctx); cause != nil {
		return value, cause // interrupted
	}
	return value, c.explain(err)
}

// jobID is the flag --job-id of the commands that take one.
type jobID string

func (id *jobID) flag(flags *pflag.FlagSet) {
	flags.StringVar((*string)(id), "job-id", "", "the job's `id`, as submit printed it")
}

func (id *jobID) check() error {
	if *id == "" {
		return exitf(exitUsage, "--job-id is missing: give the id that submit printed")
	}
	return checkUUID("job", (*string)(id))
}

// runID is the flag --run-id of the commands that take one.
type runID string

func (id *runID) flag(flags *pflag.FlagSet) {
	flags.StringVar((*string)(id), "run-id", "", "the run's `id`, as submit printed it")
}

func (id *runID) check() error { return checkUUID("run", (*string)(id)) }

func checkUUID(noun string, id *string) error {
	u, err := uuid.Parse(*id)
	if err != nil || len(*id) != 36 {
		return exitf(exitUsage, "--%[1]s-id %.80[2]q is no %[1]s id: give the id that submit printed, such as 02c57c1a-2f47-4e3e-b264-b30a7e92e804", noun, *id)
	}
	*id = u.String()
	return nil
}

// checkOneOf wants a job's id or a run's.
func checkOneOf(job *jobID, run *runID) error {
	switch {
	case *run != "" && *job != "":
		return exitf(exitUsage, "--job-id and --run-id contradict each other: give one of them")
	case *run != "":
		return run.check()
	}
	return job.check()
}
