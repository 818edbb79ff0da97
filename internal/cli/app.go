package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"qgjob"
	"qgjob/internal/api"
	"qgjob/internal/build"
)

type appOptions struct {
	connection
	orgID, appVersionID string
	json                bool
}

func (p *program) appCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "app",
		Short: "Upload builds of an app version, and list them",
		Long: `App manages the builds of app versions. A build is known by its SHA-256 and uploaded once; what cannot be installed is
refused with the reason. A submit without --app tests the newest build of its app version.`,
		Example: `  qgjob app upload build/app-release.apk --org-id=qualgent --app-version-id=xyz123
  qgjob app list --org-id=qualgent --app-version-id=xyz123`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	add := func(c *cobra.Command, args cobra.PositionalArgs, run func(ctx context.Context, o *appOptions, args []string) error) {
		o := &appOptions{}
		f := c.Flags()
		f.StringVar(&o.orgID, "org-id", p.env("QGJOB_ORG"), "organization (required); also QGJOB_ORG")
		f.StringVar(&o.appVersionID, "app-version-id", "", "app version that the build is one of (required)")
		f.BoolVar(&o.json, "json", false, "print JSON")
		p.connectionFlags(f, &o.connection)
		c.Args = args
		cmd.AddCommand(command(c, func(ctx context.Context) error {
			if err := o.parse(); err != nil {
				return err
			}
			ctx, interruption := p.interruptible(ctx)
			defer interruption.stop()
			return run(ctx, o, f.Args())
		}))
	}
	add(&cobra.Command{
		Use: "upload FILE", Short: "Upload a build (an APK, an IPA, or a simulator's .app, zipped), unless the server has it",
		Example: "  qgjob app upload build/app-release.apk --org-id=qualgent --app-version-id=xyz123",
	}, oneArgument, func(ctx context.Context, o *appOptions, args []string) error { return o.upload(ctx, p, args[0]) })
	add(&cobra.Command{
		Use: "list", Short: "List an app version's builds, newest first",
		Example: "  qgjob app list --org-id=qualgent --app-version-id=xyz123",
	}, flagsOnly, func(ctx context.Context, o *appOptions, _ []string) error { return o.list(ctx, p) })
	return cmd
}

func (o *appOptions) parse() error {
	for _, id := range []struct{ flag, value string }{{"--org-id", o.orgID}, {"--app-version-id", o.appVersionID}} {
		if err := qgjob.CheckID(id.flag, id.value); err != nil {
			return err
		}
	}
	return o.check()
}

func (o *appOptions) upload(ctx context.Context, p *program, path string) error {
	info, err := build.Parse(path)
	if err != nil {
		return exitf(exitUsage, "%v", err)
	}
	if err := o.checkServer(ctx); err != nil {
		return err
	}
	uploaded, err := o.client(reachTime).EnsureBuild(ctx, o.orgID, o.appVersionID, buildFile(path, info))
	if err != nil {
		return o.explain(interruptedOr(ctx, err))
	}
	if o.json {
		return printJSON(p.stdout, api.Build{
			SHA256: info.SHA256, Platform: info.Platform, Package: info.Package, VersionName: info.VersionName, VersionCode: info.VersionCode, Size: info.Size,
		})
	}
	word := "Success! Build uploaded"
	if !uploaded {
		word = "Success! The server has the build"
	}
	fmt.Fprintf(p.stdout, "%s: %s\n", word, info.SHA256)
	fmt.Fprintf(p.stdout, "App Version: %s | Package: %s | Version: %s (%d) | %s\n", o.appVersionID, info.Package, info.VersionName, info.VersionCode, runsOn(info))
	return nil
}

// runsOn says where a build can be installed.
func runsOn(info build.Info) string {
	if info.Platform == qgjob.PlatformIOS {
		where := "iPhones"
		if info.Simulator {
			where = "simulators"
		}
		if info.MinOS != "" {
			where += " with iOS " + info.MinOS + " or newer"
		}
		return where
	}
	text := fmt.Sprintf("API level %d or newer", info.MinSDK)
	if len(info.ABIs) > 0 {
		text += ", " + strings.Join(info.ABIs, " or ")
	}
	if info.Debuggable {
		text += ", debuggable"
	}
	return text
}

func (o *appOptions) list(ctx context.Context, p *program) error {
	builds, err := within(ctx, &o.connection, func(ctx context.Context, c *api.Client) (api.BuildList, error) {
		return c.Builds(ctx, o.orgID, o.appVersionID)
	})
	switch {
	case err != nil:
		return err
	case o.json:
		return printJSON(p.stdout, builds)
	case len(builds.Builds) == 0:
		fmt.Fprintf(p.stderr, "App version %s has no build: qgjob app upload adds one\n", o.appVersionID)
		return nil
	}
	rows := make([][]string, len(builds.Builds))
	for i, b := range builds.Builds {
		rows[i] = []string{b.SHA256, b.Platform, b.Package, b.VersionName, strconv.FormatInt(b.VersionCode, 10), fmt.Sprintf("%.1f MB", float64(b.Size)/1e6), clockTime(b.AddedAt)}
	}
	p.printTable([]string{"SHA-256", "PLATFORM", "PACKAGE", "VERSION", "CODE", "SIZE", "UPLOADED"}, rows)
	return nil
}
