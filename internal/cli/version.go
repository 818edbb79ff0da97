package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker in released builds.
var version string

// versionString is the linker's version, or the module's, or the commit's.
func versionString() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return "commit-" + s.Value[:12]
		}
	}
	return "devel"
}

type versionOptions struct{ json bool }

func (p *program) versionCommand() *cobra.Command {
	var o versionOptions
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print the version of this program",
		Example: "  qgjob version\n  qgjob version --json",
	}
	cmd.Flags().BoolVar(&o.json, "json", false, "print JSON")
	return command(cmd, func(context.Context) error { return o.run(p) })
}

func (o versionOptions) run(p *program) error {
	v := struct {
		Version string `json:"version"`
		Go      string `json:"go"`
		OS      string `json:"os"`
		Arch    string `json:"arch"`
	}{versionString(), runtime.Version(), runtime.GOOS, runtime.GOARCH}
	if o.json {
		return printJSON(p.stdout, v)
	}
	_, err := fmt.Fprintf(p.stdout, "qgjob %s (%s, %s/%s)\n", v.Version, v.Go, v.OS, v.Arch)
	return err
}

// printJSON prints a value as indented JSON.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}
