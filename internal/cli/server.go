package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"qgjob"
	"qgjob/internal/blob"
	"qgjob/internal/server"
	"qgjob/internal/store"
)

type serverOptions struct {
	listen      string
	dataDir     string
	databaseURL string
	tokenFile   string
	lease       time.Duration
	byRule      bool
	privateHook bool
	keepDays    int
	keepSize    int64 // GiB
	keepUploads int   // days
	keyFile     string
	blobs       string // URL
}

func (p *program) serverCommand() *cobra.Command {
	var o serverOptions
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Run the job server",
		Long: `Server keeps the queue and serves it over HTTP, with its API's documentation at /docs.

It keeps everything in one directory (SQLite) and needs no set-up. With --database-url any number of
servers share one PostgreSQL. On an address that other machines can reach it needs --token-file: a
file with one token a line, and behind it what it opens:

  5f0c…               everything
  91ab…  org=acme     what a client of acme submits, sees and changes
  c3d4…  worker       what a worker needs: its jobs, of any organization, with their secrets`,
		Example: `  qgjob server
  qgjob server --listen=0.0.0.0:8000 --token-file=/etc/qgjob/token
  qgjob server --database-url=postgres://qgjob@db.example.com/qgjob`,
	}
	o.flags(p, cmd.Flags())
	return command(cmd, func(ctx context.Context) error {
		if err := o.parse(p); err != nil {
			return err
		}
		return o.run(ctx, p)
	})
}

func (o *serverOptions) flags(p *program, f *pflag.FlagSet) {
	f.StringVar(&o.listen, "listen", defaultListen, "`address` to serve on, host:port; port 0 takes a free one")
	f.StringVar(&o.dataDir, "data-dir", "", "`directory` of the database and of uploaded files (default XDG_DATA_HOME/qgjob or ~/.local/share/qgjob)")
	f.StringVar(&o.databaseURL, "database-url", "", "PostgreSQL to use instead of SQLite; also QGJOB_DATABASE_URL")
	f.StringVar(&o.tokenFile, "token-file", "", "`file` of the tokens that clients and workers show in QGJOB_TOKEN, one a line, each for everything, org=ID or worker")
	f.StringVar(&o.blobs, "blobs", p.env("QGJOB_BLOBS"), "`URL` of a bucket for bundles, builds and artifacts, s3://bucket/prefix?region=REGION or s3://bucket?endpoint=https://HOST, with AWS's own variables for the credentials; also QGJOB_BLOBS (default a folder of the data directory)")
	f.StringVar(&o.keyFile, "secret-key-file", p.env("QGJOB_SECRET_KEY_FILE"), "`file` of the key that encrypts runs' secrets, the same for all servers of a database; also QGJOB_SECRET_KEY_FILE (default secret.key in the data directory, made when it is not there)")
	f.BoolVar(&o.byRule, "quarantine-flaky", false, "quarantine tests that were flaky on two code states or more, until they are stable again")
	f.BoolVar(&o.privateHook, "webhook-allow-private", false, "let webhooks reach private networks and this machine")
	f.DurationVar(&o.lease, "lease", store.DefaultLease, "how long a silent worker keeps its jobs")
	f.IntVar(&o.keepDays, "keep-artifacts", 30, "`days` for which artifacts are kept; 0 for ever")
	f.IntVar(&o.keepUploads, "keep-uploads", 30, "`days` for which uploaded test projects and builds are kept after they were last used; 0 for ever")
	f.Int64Var(&o.keepSize, "keep-artifacts-size", 20, "`GiB` of artifacts that are kept for each organization, the newest; 0 for all")
}

func (o *serverOptions) parse(p *program) (err error) {
	if o.dataDir, err = p.dataDir(o.dataDir); err != nil {
		return err
	}
	if o.databaseURL == "" { // not the flag's default: help must not show its password
		o.databaseURL = p.env("QGJOB_DATABASE_URL")
	}
	if o.keepDays < 0 || o.keepSize < 0 || o.keepUploads < 0 {
		return exitf(exitUsage, "--keep-artifacts, --keep-artifacts-size and --keep-uploads cannot be negative: 0 is no bound")
	}
	if o.lease < time.Second {
		return exitf(exitUsage, "--lease must be at least 1s: workers report every quarter of it")
	}
	if err := server.CheckListen(o.listen, o.tokenFile != ""); err != nil {
		return exitf(exitUsage, "--listen: %v (--token-file)", err)
	}
	return nil
}

func (o *serverOptions) run(ctx context.Context, p *program) error {
	ctx, interruption := p.interruptible(ctx)
	defer interruption.stop()
	s, err := o.open(ctx, p.logger())
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "qgjob server listens on %s (documentation: %s/docs)\n", s.url(), s.url())
	return errors.Join(s.serve(ctx), s.close())
}

// openServer is a server with everything that it stands on, ready to serve.
type openServer struct {
	listener net.Listener
	store    *store.Store
	server   *server.Server
	lock     io.Closer
}

// open takes address, data directory and database, in the order in which a second server would notice.
// heapGrowth is by how much of its size, in percent, a server's heap grows before garbage is collected. What a server keeps is small, whatever its queue
// holds: bench/README.md has its memory, and what a lower figure costs.
const heapGrowth = 400

func (o *serverOptions) open(ctx context.Context, log *slog.Logger) (_ *openServer, err error) {
	s := &openServer{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(heapGrowth)
	}
	tokens, err := o.tokens()
	if err != nil {
		return nil, err
	}
	if s.listener, err = net.Listen("tcp", o.listen); err != nil {
		if errors.Is(err, syscall.EADDRINUSE) {
			return nil, exitf(exitInfrastructure, "%s is taken, perhaps by another qgjob server: stop that one, or give another --listen address (port 0 takes a free one)", o.listen)
		}
		return nil, exitf(exitInfrastructure, "--listen %s: %v", o.listen, err)
	}
	if err := os.MkdirAll(o.dataDir, 0o700); err != nil {
		return nil, exitf(exitInfrastructure, "--data-dir: %v", err)
	}
	if o.databaseURL == "" {
		if s.lock, err = lockDataDir(o.dataDir); err != nil {
			return nil, err
		}
	}
	blobs, err := o.openBlobs(ctx)
	if err != nil {
		return nil, err
	}
	s.store, err = store.Open(ctx, store.Options{
		Path: filepath.Join(o.dataDir, "qgjob.db"), DatabaseURL: o.databaseURL, Lease: o.lease, Logger: log,
	})
	if err != nil {
		return nil, exitf(exitInfrastructure, "the database cannot be opened: %v", err)
	}
	key, err := secretKey(o.keyFile, o.dataDir)
	if err != nil {
		return nil, err
	}
	s.server, err = server.New(server.Options{
		Retention: o.retention(), Store: s.store, Blobs: blobs, Version: versionString(), Logger: log, Tokens: tokens, SecretKey: key,
		QuarantineFlaky: o.byRule, AllowPrivateWebhooks: o.privateHook,
	})
	if err != nil {
		return nil, err
	}
	if err := s.server.TakeSecrets(ctx); err != nil {
		return nil, exitf(exitInfrastructure, "%v", err)
	}
	return s, nil
}

// openBlobs opens what keeps the files.
func (o *serverOptions) openBlobs(ctx context.Context) (blob.Store, error) {
	dir := filepath.Join(o.dataDir, "blobs")
	if o.blobs == "" {
		blobs, err := blob.OpenDir(dir)
		if err != nil {
			return nil, fmt.Errorf("data directory %s: %w", o.dataDir, err)
		}
		return blobs, nil
	}
	blobs, err := blob.OpenS3(ctx, o.blobs, filepath.Join(dir, "tmp"))
	switch {
	case qgjob.ErrorCode(err) == qgjob.CodeInvalid:
		return nil, exitf(exitUsage, "--blobs: %v", err)
	case err != nil:
		return nil, exitf(exitInfrastructure, "--blobs: %v", err)
	}
	return blobs, nil
}

func (o *serverOptions) tokens() ([]server.Token, error) {
	if o.tokenFile == "" {
		return nil, nil
	}
	file, err := os.Open(o.tokenFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, exitf(exitUsage, "--token-file: %s does not exist: make it, for example with openssl rand -hex 32 > %s", o.tokenFile, o.tokenFile)
	}
	if err != nil {
		return nil, exitf(exitUsage, "--token-file: %v", err)
	}
	defer file.Close()
	tokens, err := server.ParseTokens(file)
	if err != nil {
		return nil, exitf(exitUsage, "--token-file %s: %v", o.tokenFile, err)
	}
	return tokens, nil
}

// lockDataDir makes sure that one server uses a data directory. The kernel gives the lock back when the
// process dies, however it dies.
func lockDataDir(dir string) (io.Closer, error) {
	path := filepath.Join(dir, "server.lock")
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, exitf(exitInfrastructure, "--data-dir: %v", err)
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	switch {
	case errors.Is(err, syscall.EWOULDBLOCK):
		file.Close()
		return nil, exitf(exitInfrastructure, "data directory %s is used by another qgjob server (lock %s): stop that one, or give another --data-dir", dir, path)
	case err != nil:
		file.Close()
		return nil, exitf(exitInfrastructure, "data directory %s cannot be locked: %v", dir, err)
	}
	return file, nil
}

// url is where this machine reaches the server.
func (s *openServer) url() string {
	addr := s.listener.Addr().(*net.TCPAddr)
	host := addr.IP.String()
	if addr.IP.IsUnspecified() {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, fmt.Sprint(addr.Port))
}

// serve serves until the context ends.
func (s *openServer) serve(ctx context.Context) error {
	if err := s.server.Serve(ctx, s.listener); err != nil && ctx.Err() == nil {
		return exitf(exitInfrastructure, "the server stopped: %v", err)
	}
	return nil
}

// close gives back what open took. It is to be called after serve, or instead of it.
func (s *openServer) close() error {
	var errs []error
	if s.listener != nil {
		if err := s.listener.Close(); !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	if s.store != nil {
		errs = append(errs, s.store.Close())
	}
	if s.lock != nil {
		errs = append(errs, s.lock.Close())
	}
	return errors.Join(errs...)
}

func (o *serverOptions) retention() server.Retention {
	const day = 24 * time.Hour
	return server.Retention{Age: time.Duration(o.keepDays) * day, Size: o.keepSize << 30, Unused: time.Duration(o.keepUploads) * day}
}
