package qgjob

import "time"

// Device is a phone, an emulator or a cloud slot as its worker last described it.
type Device struct {
	ID        string      `json:"id" doc:"the serial of a phone; <serial>@<host> for what only its host can reach"`
	Serial    string      `json:"serial" doc:"as adb names it"`
	Kind      Target      `json:"kind" enum:"device,emulator,browserstack"`
	Platform  string      `json:"platform" enum:"android,ios,any" doc:"any: what each job asks for, as of BrowserStack"`
	Model     string      `json:"model"`
	OSVersion string      `json:"os_version"`
	State     DeviceState `json:"state" enum:"idle,busy,offline,unauthorized,booting,held,quarantined"`
	Message   string      `json:"message,omitempty" doc:"why it is not idle or busy, and what to do"`
	Hold      *Hold       `json:"hold,omitempty" doc:"why it takes no work; a job that it runs ends as usual"`
	WorkerID  string      `json:"worker_id"`
	Tags      []string    `json:"tags,omitempty" nullable:"false" doc:"words that the worker was given for its devices"`
	Hardware
	Host      string `json:"host"`
	JobID     string `json:"job_id,omitempty" doc:"what it runs now"`
	Installed *App   `json:"installed,omitempty" doc:"the app that is on it, as far as qgjob put it there"`

	Installs      int64     `json:"installs" doc:"installs done on it since it is known"`
	InstallsSaved int64     `json:"installs_saved" doc:"attempts that found their app installed"`
	SeenAt        time.Time `json:"seen_at"`
}

// Hardware is what is known of a device's body. What is not known is zero.
type Hardware struct {
	ScreenWidth    int   `json:"screen_width,omitempty" doc:"in pixels"`
	ScreenHeight   int   `json:"screen_height,omitempty" doc:"in pixels"`
	BatteryPercent int   `json:"battery_percent,omitempty" minimum:"0" maximum:"100"`
	FreeStorage    int64 `json:"free_storage,omitempty" doc:"bytes that are left for apps"`
	// ABIs is text so that hardware can be compared.
	ABIs string `json:"abis,omitempty" maxLength:"255" doc:"instruction sets that it runs, as Android lists them: joined by commas, its own first"`
}

// App is an organization's app version as installed on a device.
type App struct {
	OrgID        string `json:"org_id"`
	AppVersionID string `json:"app_version_id"`
	BuildSHA256  string `json:"build_sha256"`
}

// DeviceState is what a device can do now.
type DeviceState string

// The states of a device.
const (
	DeviceIdle         DeviceState = "idle"
	DeviceBusy         DeviceState = "busy"
	DeviceOffline      DeviceState = "offline"
	DeviceUnauthorized DeviceState = "unauthorized"
	DeviceBooting      DeviceState = "booting"
	DeviceHeld         DeviceState = "held"        // a person asked that it take no work
	DeviceQuarantined  DeviceState = "quarantined" // it failed too often
)

// Hold keeps a device from taking work.
type Hold struct {
	Kind   HoldKind   `json:"kind" enum:"drain,maintain,reserve,check,quarantine"`
	Reason string     `json:"reason,omitempty"`
	Since  time.Time  `json:"since"`
	Until  *time.Time `json:"until,omitempty" doc:"absent: until it is released"`
}

// HoldKind is why a device is held.
type HoldKind string

// The kinds of holds. A check and a quarantine also end when the device passes a health job.
const (
	HoldDrain      HoldKind = "drain"
	HoldMaintain   HoldKind = "maintain"
	HoldReserve    HoldKind = "reserve"
	HoldCheck      HoldKind = "check"
	HoldQuarantine HoldKind = "quarantine"
)

// State is that of an idle device with the hold.
func (h Hold) State() DeviceState {
	if h.Kind == HoldQuarantine {
		return DeviceQuarantined
	}
	return DeviceHeld
}

// String says what the hold is, for people: what follows "is", and until when.
func (h Hold) String() string {
	text := map[HoldKind]string{
		HoldDrain: "drained", HoldMaintain: "in maintenance", HoldReserve: "reserved", HoldCheck: "waiting for its health check", HoldQuarantine: "in quarantine",
	}[h.Kind]
	if h.Reason != "" {
		text += ": " + h.Reason
	}
	if h.Until != nil {
		return text + " (until " + h.Until.UTC().Format("15:04 MST") + ")"
	}
	if h.Kind == HoldCheck || h.Kind == HoldQuarantine {
		return text + " (until it passes a check, or qgjob devices release)"
	}
	return text + " (until qgjob devices release)"
}

// androidVersions are Android's versions by API level.
var androidVersions = map[int]string{
	24: "7.0", 25: "7.1.1", 26: "8.0.0", 27: "8.1.0", 28: "9", 29: "10", 30: "11", 31: "12", 32: "12", 33: "13", 34: "14", 35: "15", 36: "16",
}

// AndroidVersion is the Android version of an API level, "" for one that is not known.
func AndroidVersion(level int) string { return androidVersions[level] }
