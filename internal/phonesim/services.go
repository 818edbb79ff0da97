package phonesim

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// uiautomatorPort is the port on the phone where the UiAutomator2 server listens while its instrumentation runs.
const uiautomatorPort = "tcp:6790"

// banner is how the phone introduces itself to adb. Only what is implemented is listed as a feature.
func (p *Phone) banner() string {
	return fmt.Sprintf("device::ro.product.name=%s;ro.product.model=%s;ro.product.device=%s;features=shell_v2,cmd,fixed_push_mkdir",
		p.prop("ro.product.name"), p.prop("ro.product.model"), p.prop("ro.product.device"))
}

// serve runs the service that a stream was opened to, and closes the stream at its end.
func (p *Phone) serve(s *stream, destination string) {
	defer func() { _ = s.Close() }()
	if destination == uiautomatorPort {
		p.serveInstrumentation(s)
		return
	}
	name, argument, _ := strings.Cut(destination, ":")
	kind, options, _ := strings.Cut(name, ",")
	switch kind {
	case "shell", "exec", "sync", "reboot", "root", "unroot", "remount", "reverse":
	default:
		p.log.Debug("adb service refused", "destination", destination)
		return
	}
	if s.accept() != nil {
		return
	}
	switch kind {
	case "shell":
		p.serveShell(s, options, argument)
	case "exec":
		p.runShell(s.ctx, argument, s, s, s)
	case "sync":
		p.serveSync(s)
	case "reboot":
		p.reboot()
	case "root", "unroot":
		fmt.Fprintf(s, "adbd cannot run as root in production builds\n")
	case "remount":
		fmt.Fprintf(s, "Not running as root. Try \"adb root\" first.\n")
	case "reverse":
		// Nothing on this phone ever connects back, so that a reverse forward has no effect beyond being granted.
		fmt.Fprint(s, "OKAYOKAY")
	}
}

// serveShell runs one command line, or each line of standard input when there is none.
func (p *Phone) serveShell(s *stream, options, line string) {
	if !strings.Contains(","+options+",", ",v2,") {
		p.runShellOrLines(s, line, s, s, s)
		return
	}
	status := p.runShellOrLines(s, line, &shellReader{r: s}, shellWriter{s, shellStdout}, shellWriter{s, shellStderr})
	_, _ = shellWriter{s, shellExit}.Write([]byte{byte(status)}) // nobody is left to tell when this fails
}

func (p *Phone) runShellOrLines(s *stream, line string, stdin io.Reader, stdout, stderr io.Writer) int {
	if line != "" {
		return p.runShell(s.ctx, line, stdin, stdout, stderr)
	}
	status := 0
	lines := bufio.NewScanner(stdin)
	prompt := func() { fmt.Fprintf(stdout, "%s:/ $ ", p.prop("ro.product.device")) }
	for prompt(); lines.Scan(); prompt() {
		if text := strings.TrimSpace(lines.Text()); text == "exit" {
			break
		} else if text != "" {
			status = p.runShell(s.ctx, text, strings.NewReader(""), stdout, stderr)
		}
	}
	return status
}
