package qgjob

import (
	"strings"
	"time"
)

// Artifact is a file that an attempt left.
type Artifact struct {
	JobID   string    `json:"job_id"`
	Attempt int       `json:"attempt" doc:"number of the attempt"`
	Name    string    `json:"name"`
	SHA256  string    `json:"sha256"`
	Size    int64     `json:"size" doc:"in bytes"`
	AddedAt time.Time `json:"added_at"`
}

// The names of artifacts that have a meaning. A worker may add others.
const (
	ArtifactBlobReport  = "blob-report" // Playwright's blob report, a zip that its merge-reports takes
	ArtifactReport      = "report.json" // Playwright's JSON report
	ArtifactTestResults = "test-results.zip"
	ArtifactAppiumLog   = "appium.log" // of the attempt's stretch
	ArtifactDeviceLog   = "device.log" // logcat of the attempt's stretch
	ArtifactScreen      = "screen.png" // the device's screen after a test that did not pass
)

// Video says of which attempts the recording of the device's screen is kept, in Playwright's words.
type Video string

// The ways to record.
const (
	VideoOff             Video = "" // no recording
	VideoOn              Video = "on"
	VideoRetainOnFailure Video = "retain-on-failure"
)

// ParseVideo reads off, on or retain-on-failure; empty is off.
func ParseVideo(s string) (Video, error) {
	switch v := Video(s); v {
	case VideoOff, "off":
		return VideoOff, nil
	case VideoOn, VideoRetainOnFailure:
		return v, nil
	}
	return VideoOff, Errorf(CodeInvalid, "video %q is unknown: use off, on or retain-on-failure", s)
}

// MaxArtifactName is how many bytes an artifact's name may have.
const MaxArtifactName = 100

// CheckArtifactName refuses a name that cannot stand in a path or a URL as it is.
func CheckArtifactName(name string) error {
	rest := strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789.-_")
	if name == "" || len(name) > MaxArtifactName || rest != "" || name[0] == '.' || strings.Contains(name, "..") {
		return Errorf(CodeInvalid, "artifact name %.120q: use up to %d lower-case letters, digits and . - _, not beginning with a dot", name, MaxArtifactName)
	}
	return nil
}
