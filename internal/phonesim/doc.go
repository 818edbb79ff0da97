// Package phonesim is a simulated Android phone on the real wire protocols: the device side of adb over
// TCP, and the HTTP interface of the UiAutomator2 server on the phone's port 6790. Unmodified adb, Appium,
// its uiautomator2 driver and AppWright drive it as they drive a phone.
//
// # What it promises
//
// A [Phone] installs APKs, runs the apps in them, answers the shell commands that tools send, and keeps a
// [Ledger]: its own account of what was done to it, which tests read as the truth. An app is what the
// asset assets/phonesim.json of its APK says ([Model]): screens, elements, taps, typed texts. [BuildAPK] makes such
// an APK without an Android SDK. A [Fault] makes the phone misbehave at a chosen moment. Phones share
// nothing; any number runs in one process.
//
// # How its parts fit
//
//	wire, transport     adb's packets and the streams in them
//	services, shell*    what a stream can be opened to: shell, exec, sync, tcp:6790, reboot
//	files, sync         the phone's files, push and pull
//	logcat, boot        the phone's log, and its reboot
//	apk, axml           writing and reading APKs
//	packages, activity  what is installed, what runs, what is in front
//	model, app          an app's description, and one running
//	hierarchy           the accessibility tree of what is on the screen
//	search              finding elements in that tree, with uiselector and xpath
//	uia2*               the UiAutomator2 server's HTTP interface
//	screenshot          the screen as a PNG
//	ledger, fault, control
//
// It knows nothing of jobs, workers or servers, and runs no program.
package phonesim
