package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"qgjob/internal/phonesim"
)

type phoneOptions struct {
	listen, control          string
	serial, model, osVersion string
	emulator                 bool
	installTime              time.Duration
}

func (p *program) phoneCommand() *cobra.Command {
	var o phoneOptions
	cmd := &cobra.Command{
		Use:   "phone",
		Short: "Simulate a phone, a Mac with iPhones, BrowserStack or an Android SDK; make apps for them",
		Long: `Phone runs a simulated Android phone until it is interrupted. adb connects to it as to a phone in the
network, and Appium and AppWright drive it as they drive a phone. Its control address tells what was done
to it (GET /ledger, /state, /screenshot.png) and breaks it on demand (PUT /fault).`,
		Example: `  qgjob phone
  qgjob phone --listen=127.0.0.1:5601 --install-time=5s
  adb connect 127.0.0.1:5601
  qgjob phone apk app.json -o app.apk`,
	}
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", "127.0.0.1:0", "`address` for adb; port 0 takes a free one")
	f.StringVar(&o.control, "control", "127.0.0.1:0", "`address` of its control interface")
	f.StringVar(&o.serial, "serial", "", "serial number that it tells (default SIM0001)")
	f.StringVar(&o.model, "model", "", "model that it tells (default SimPhone 1)")
	f.StringVar(&o.osVersion, "os-version", "", "Android version, 8 to 16 (default 14)")
	f.BoolVar(&o.emulator, "emulator", false, "pose as an emulator")
	f.DurationVar(&o.installTime, "install-time", 0, "how long the install of an app takes")
	cmd.AddCommand(
		p.phoneAPKCommand(), p.phoneIPACommand(), p.phoneBrowserStackCommand(), p.phoneSDKCommand(), p.phoneMacCommand(), p.phoneMacToolCommand(),
		p.phoneToolCommand("emulator", "The emulator of an SDK of phone sdk", phonesim.Tool.Emulator),
		p.phoneToolCommand("avdmanager", "The avdmanager of an SDK of phone sdk", func(t phonesim.Tool, _ context.Context) error { return t.AVDManager() }),
	)
	return command(cmd, func(ctx context.Context) error { return o.run(ctx, p) })
}

func (o *phoneOptions) run(ctx context.Context, p *program) error {
	ctx, interruption := p.interruptible(ctx)
	defer interruption.stop()
	if o.installTime < 0 {
		return exitf(exitUsage, "--install-time cannot be negative")
	}
	s, err := startPhone(phonesim.Options{
		Listen: o.listen, Serial: o.serial, Model: o.model, OSVersion: o.osVersion, Emulator: o.emulator,
		InstallTime: o.installTime, Logger: p.logger(),
	}, o.control)
	if err != nil {
		return err
	}
	fmt.Fprintf(p.stdout, "%s\nConnect with: adb connect %s\n", s, s.phone.Addr())
	<-ctx.Done()
	return s.close()
}

// simulatedPhone is a phone that is switched on, with its control interface.
type simulatedPhone struct {
	phone    *phonesim.Phone
	control  *http.Server
	listener net.Listener
	served   chan struct{}
}

func startPhone(o phonesim.Options, control string) (*simulatedPhone, error) {
	listener, err := net.Listen("tcp", control)
	if err != nil {
		return nil, exitf(exitInfrastructure, "the phone's control interface: %v: give another address, port 0 takes a free one", err)
	}
	phone, err := phonesim.Start(o)
	if err != nil {
		return nil, exitf(exitInfrastructure, "%v", errors.Join(err, listener.Close()))
	}
	s := &simulatedPhone{
		phone: phone, listener: listener, served: make(chan struct{}),
		control: &http.Server{Handler: phone.Control(), ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(o.Logger.Handler(), slog.LevelWarn)},
	}
	go func() {
		defer close(s.served)
		if err := s.control.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			o.Logger.Error("the phone's control interface ended", "error", err)
		}
	}()
	return s, nil
}

// String says where the phone is.
func (s *simulatedPhone) String() string {
	return fmt.Sprintf("Simulated phone %s: adb %s | control http://%s", s.phone.Serial(), s.phone.Addr(), s.listener.Addr())
}

// close switches the phone off.
func (s *simulatedPhone) close() error {
	err := errors.Join(s.control.Close(), s.phone.Close())
	<-s.served
	return err
}

type phoneAPKOptions struct{ description, output string }

func (p *program) phoneAPKCommand() *cobra.Command {
	var o phoneAPKOptions
	cmd := &cobra.Command{
		Use:     "apk APP.json",
		Short:   "Build an APK for simulated phones from the description of an app",
		Long:    "Apk builds an APK that simulated phones install and run. The same description gives the same bytes.",
		Example: "  qgjob phone apk app.json -o app.apk",
		Args:    oneArgument,
	}
	cmd.Flags().StringVarP(&o.output, "output", "o", "", "`file` to write (required)")
	cmd.ValidArgsFunction = cobra.FixedCompletions([]cobra.Completion{"json"}, cobra.ShellCompDirectiveFilterFileExt)
	return command(cmd, func(context.Context) error {
		o.description = cmd.Flags().Arg(0)
		return o.build("the APK file", phonesim.BuildAPK)
	})
}

// build makes what is named out of the description.
func (o *phoneAPKOptions) build(what string, build func(phonesim.App) ([]byte, error)) error {
	if o.output == "" {
		return exitf(exitUsage, "-o is missing: name %s to write", what)
	}
	text, err := os.ReadFile(o.description)
	if err != nil {
		return exitf(exitUsage, "the app description cannot be read: %v", err)
	}
	app, err := phonesim.ParseApp(text)
	if err != nil {
		return exitf(exitUsage, "%s: %v", o.description, err)
	}
	data, err := build(app)
	if err != nil {
		return exitf(exitUsage, "%s: %v", o.description, err)
	}
	err = os.MkdirAll(filepath.Dir(o.output), 0o755)
	if err == nil {
		err = os.WriteFile(o.output, data, 0o644)
	}
	if err != nil {
		return exitf(exitInfrastructure, "the app cannot be written: %v", err)
	}
	return nil
}
