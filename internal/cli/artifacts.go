package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"qgjob"
	"qgjob/internal/api"
)

type artifactsOptions struct {
	connection
	job     jobID
	attempt int
	names   []string
	output  string
	json    bool
}

func (p *program) artifactsCommand() *cobra.Command {
	var o artifactsOptions
	cmd := &cobra.Command{
		Use:   "artifacts",
		Short: "List or download what a job's attempts left",
		Long: `Artifacts lists what the attempts of a job left: Playwright's reports and the tests' own output, Appium's
log and the device's, and the screen after a test that did not pass. With --output it downloads them, each
attempt's into a directory of its own.`,
		Example: `  qgjob artifacts --job-id=02c57c1a-2f47-4e3e-b264-b30a7e92e804
  qgjob artifacts --job-id=02c57c1a-2f47-4e3e-b264-b30a7e92e804 --output=out
  qgjob artifacts --job-id=02c57c1a-2f47-4e3e-b264-b30a7e92e804 --attempt=1 --name=device.log --output=out`,
	}
	f := cmd.Flags()
	o.job.flag(f)
	f.IntVar(&o.attempt, "attempt", 0, "number of the attempt (default all)")
	f.StringArrayVar(&o.names, "name", nil, "only the artifact of this `name` (repeat for more)")
	f.StringVarP(&o.output, "output", "o", "", "`directory` to download into: attempt-1/<name> and so on")
	f.BoolVar(&o.json, "json", false, "list as JSON")
	p.connectionFlags(f, &o.connection)
	return command(cmd, func(ctx context.Context) error {
		if err := o.parse(); err != nil {
			return err
		}
		return o.run(ctx, p)
	})
}

func (o *artifactsOptions) parse() error {
	if err := o.job.check(); err != nil {
		return err
	}
	switch {
	case o.attempt < 0:
		return exitf(exitUsage, "--attempt must be a number from 1 on; leave it out for all")
	case o.json && o.output != "":
		return exitf(exitUsage, "--json lists, --output downloads: give one of them")
	}
	return o.check()
}

func (o *artifactsOptions) run(ctx context.Context, p *program) error {
	ctx, interruption := p.interruptible(ctx)
	defer interruption.stop()
	if _, err := readJob(ctx, &o.connection, o.job); err != nil {
		return err
	}
	client := o.client(reachTime)
	list, err := client.Artifacts(ctx, string(o.job))
	if err != nil {
		return err
	}
	found := slices.DeleteFunc(list.Artifacts, func(a qgjob.Artifact) bool {
		return o.attempt > 0 && a.Attempt != o.attempt || len(o.names) > 0 && !slices.Contains(o.names, a.Name)
	})
	switch {
	case o.json:
		return json.NewEncoder(p.stdout).Encode(found)
	case len(found) == 0:
		fmt.Fprintln(p.stderr, "There are no such artifacts: the job has left none yet, or they are not kept any more.")
		return nil
	}
	for _, a := range found {
		if o.output == "" {
			fmt.Fprintf(p.stdout, "attempt %d  %-20s %9d bytes\n", a.Attempt, a.Name, a.Size)
			continue
		}
		path, err := download(ctx, client, a, o.output)
		if err != nil {
			return err
		}
		fmt.Fprintln(p.stdout, path)
	}
	return nil
}

// attemptDir is the directory, below that of a job, of what one of its attempts left.
func attemptDir(dir string, attempt int) string {
	return filepath.Join(dir, fmt.Sprintf("attempt-%d", attempt))
}

// download saves an artifact below the directory of its job and returns its path.
func download(ctx context.Context, client *api.Client, a qgjob.Artifact, dir string) (string, error) {
	path := filepath.Join(attemptDir(dir, a.Attempt), a.Name)
	body, err := client.Artifact(ctx, a)
	if err != nil {
		return "", err
	}
	if err := save(path, a.SHA256, body); err != nil {
		return "", exitf(exitInfrastructure, "%s of attempt %d cannot be downloaded: %v", a.Name, a.Attempt, err)
	}
	return path, nil
}

// save writes a download to a file that is there whole or not at all, and closes it.
func save(path, sha string, body io.ReadCloser) (err error) {
	defer func() { err = errors.Join(err, body.Close()) }()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	part, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".part*")
	if err != nil {
		return err
	}
	defer os.Remove(part.Name()) // fails once it has its name
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(part, sum), body)
	if err = errors.Join(err, part.Chmod(0o644), part.Close()); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); got != sha {
		return fmt.Errorf("it arrived as %s, not %s: try again", got, sha)
	}
	return os.Rename(part.Name(), path)
}
