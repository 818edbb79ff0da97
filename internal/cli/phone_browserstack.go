package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"qgjob/internal/phonesim"
)

type phoneBrowserStackOptions struct {
	cloud   phonesim.CloudOptions
	control string
}

func (p *program) phoneBrowserStackCommand() *cobra.Command {
	var o phoneBrowserStackOptions
	cmd := &cobra.Command{
		Use:   "browserstack",
		Short: "Simulate an account of BrowserStack",
		Long: `Browserstack runs a stand-in of BrowserStack's hub and REST interface until it is interrupted, with a
simulated phone or iPhone behind each session. It is as strict as the real one is documented to be: with
credentials, unknown apps and devices, apps on devices of the other platform, the account's parallels and
queue, uploads in a minute, their 30 days, and idle sessions. It takes apps that qgjob phone apk and qgjob
phone ipa made. Its control address tells what was asked of it (GET /ledger) and breaks it on demand
(PUT /fault).`,
		Example: `  qgjob phone browserstack --listen=127.0.0.1:8585 --parallels=2
  BROWSERSTACK_USERNAME=simulated BROWSERSTACK_ACCESS_KEY=simulated-key \
    qgjob worker --browserstack-url=http://127.0.0.1:8585
  curl -X PUT http://127.0.0.1:PORT/fault -d '{"kind": "offline"}'`,
	}
	f := cmd.Flags()
	f.StringVar(&o.cloud.Listen, "listen", "127.0.0.1:0", "`address` of hub and REST interface; port 0 takes a free one")
	f.StringVar(&o.control, "control", "127.0.0.1:0", "`address` of its control interface")
	f.StringVar(&o.cloud.Username, "username", "simulated", "user name of the account")
	f.StringVar(&o.cloud.AccessKey, "access-key", "simulated-key", "access key of the account")
	f.IntVar(&o.cloud.Parallels, "parallels", 5, "how many sessions the account may have at the same time")
	f.IntVar(&o.cloud.Queue, "queue", 5, "how many sessions may wait for a parallel")
	f.DurationVar(&o.cloud.UploadTime, "upload-time", 0, "how long the upload of an app takes")
	f.DurationVar(&o.cloud.SessionTime, "session-time", 0, "how long the making of a session takes")
	return command(cmd, func(ctx context.Context) error { return o.run(ctx, p) })
}

func (o *phoneBrowserStackOptions) run(ctx context.Context, p *program) error {
	ctx, interruption := p.interruptible(ctx)
	defer interruption.stop()
	if o.cloud.Parallels < 1 || o.cloud.Queue < 0 || o.cloud.UploadTime < 0 || o.cloud.SessionTime < 0 {
		return exitf(exitUsage, "--parallels must be 1 or more; --queue, --upload-time and --session-time cannot be negative")
	}
	if o.cloud.Queue == 0 {
		o.cloud.Queue = -1 // none, not the default
	}
	o.cloud.Logger = p.logger()
	listener, err := net.Listen("tcp", o.control)
	if err != nil {
		return exitf(exitInfrastructure, "the control interface: %v: give another address, port 0 takes a free one", err)
	}
	cloud, err := phonesim.StartCloud(o.cloud)
	if err != nil {
		return exitf(exitInfrastructure, "%v", errors.Join(err, listener.Close()))
	}
	control := &http.Server{Handler: cloud.Control(), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(p.logger().Handler(), slog.LevelWarn)}
	served := make(chan error, 1)
	go func() { served <- control.Serve(listener) }()
	fmt.Fprintf(p.stdout, "Simulated BrowserStack: %s | control http://%s\n", cloud.URL(), listener.Addr())
	fmt.Fprintf(p.stdout, "Use with: BROWSERSTACK_USERNAME=%s and BROWSERSTACK_ACCESS_KEY set, qgjob worker --browserstack-url=%s\n", cloud.Username(), cloud.URL())
	<-ctx.Done()
	err = errors.Join(control.Close(), cloud.Close())
	if e := <-served; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}
