package qgjob

import "time"

// Device is a phone, an emulator or a cloud slot as its worker last described it.
type Device struct {
	ID        string      `json:"id" doc:"the serial of a phone; <serial>@<host> for what only its host can reach"`
	Serial    string      `json:"serial" doc:"as adb names it"`
	Kind      Target      `json:"kind" enum:"device,emulator,browserstack"`
	Platform  string      `json:"platform" enum:"android,ios"`
	Model     string      `json:"model"`
	OSVersion string      `json:"os_version"`
	State     DeviceState `json:"state" enum:"idle,busy,offline,unauthorized,booting"`
	Message   string      `json:"message,omitempty" doc:"why it is not idle or busy, and what to do"`
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
)
