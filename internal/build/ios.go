package build

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"howett.net/plist"

	"qgjob"
)

// infoPlist is what is read of an iOS app's description.
type infoPlist struct {
	Identifier   string   `plist:"CFBundleIdentifier"`
	ShortVersion string   `plist:"CFBundleShortVersionString"`
	Version      string   `plist:"CFBundleVersion"`
	MinimumOS    string   `plist:"MinimumOSVersion"`
	Platforms    []string `plist:"CFBundleSupportedPlatforms"`
}

// The places of an app's description: in an IPA, and in a zip of an app's directory, as `ditto -c -k --keepParent` makes it.
var infoPlistName = regexp.MustCompile(`^(Payload/)?[^/]+\.app/Info\.plist$`)

func findInfoPlist(archive *zip.Reader) (*zip.File, bool) {
	at := slices.IndexFunc(archive.File, func(f *zip.File) bool { return infoPlistName.MatchString(f.Name) })
	if at < 0 {
		return nil, false
	}
	return archive.File[at], true
}

// bundleID is Apple's rule for one.
var bundleID = regexp.MustCompile(`^[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+$`)

// osVersion is a version of iOS.
var osVersion = regexp.MustCompile(`^[0-9]+(\.[0-9]+){0,2}$`)

const platformSimulator = "iPhoneSimulator"

func readIOS(f *zip.File) (Info, error) {
	m, err := decodeInfoPlist(f)
	if err != nil {
		return Info{}, fmt.Errorf("is no iOS app that can be installed: its %s is damaged: %w", f.Name, err)
	}
	info := Info{
		Platform: qgjob.PlatformIOS, Package: m.Identifier, VersionName: m.ShortVersion, MinOS: m.MinimumOS,
		Simulator: slices.Contains(m.Platforms, platformSimulator),
	}
	info.VersionCode, _ = strconv.ParseInt(m.Version, 10, 64) // iOS takes versions with dots, too: they count as 0
	switch {
	case !bundleID.MatchString(m.Identifier) || len(m.Identifier) > 255:
		return Info{}, fmt.Errorf("is no iOS app that can be installed: its %s names no valid bundle id (%.100q)", f.Name, m.Identifier)
	case len(m.Platforms) > 0 && !info.Simulator && !slices.Contains(m.Platforms, "iPhoneOS"):
		return Info{}, fmt.Errorf("is an app for %s, not for iPhones", strings.Join(m.Platforms, ", "))
	case info.Simulator && strings.HasPrefix(f.Name, "Payload/"):
		return Info{}, errors.New("is an IPA of an app for simulators, which neither an iPhone nor a simulator takes: zip the .app itself (ditto -c -k --keepParent My.app My.zip), or export for iPhones")
	case m.MinimumOS != "" && !osVersion.MatchString(m.MinimumOS):
		return Info{}, fmt.Errorf("is no iOS app that can be installed: its MinimumOSVersion is %.40q", m.MinimumOS)
	}
	return info, nil
}

// decodeInfoPlist reads a property list, which may be binary, XML or text. The library may panic on damage.
func decodeInfoPlist(f *zip.File) (m infoPlist, err error) {
	if f.UncompressedSize64 > maxManifest {
		return m, fmt.Errorf("it has %d bytes", f.UncompressedSize64)
	}
	content, err := f.Open()
	if err != nil {
		return m, err
	}
	defer content.Close()
	data, err := io.ReadAll(io.LimitReader(content, maxManifest))
	if err != nil {
		return m, err
	}
	if err := checkPlist(data); err != nil {
		return m, err
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%v", p)
		}
	}()
	_, err = plist.Unmarshal(data, &m)
	return m, err
}
