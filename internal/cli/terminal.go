package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"charm.land/lipgloss/v2"
	"charm.land/lipgloss/v2/table"
	"github.com/charmbracelet/colorprofile"
	"github.com/charmbracelet/x/ansi"
	"golang.org/x/term"

	"qgjob"
)

// terminalFile returns the file behind a stream when it is a terminal that shows more than plain lines.
func (p *program) terminalFile(stream any) (*os.File, bool) {
	f, ok := stream.(*os.File)
	if !ok || p.plain || p.inCI() || p.env("TERM") == "dumb" || !term.IsTerminal(int(f.Fd())) {
		return nil, false
	}
	return f, true
}

// styled returns a writer to stdout that takes styles: it passes on those that the terminal has (none with
// NO_COLOR). ok is false in plain mode.
func (p *program) styled() (w io.Writer, width int, ok bool) {
	f, ok := p.terminalFile(p.stdout)
	if !ok {
		return nil, 0, false
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width <= 0 {
		width = 80
	}
	environ := make([]string, 0, len(p.vars))
	for name, value := range p.vars {
		environ = append(environ, name+"="+value)
	}
	return &colorprofile.Writer{Forward: f, Profile: colorprofile.Detect(f, environ)}, width, true
}

// interactive says whether somebody is there to answer a question.
func (p *program) interactive() bool {
	_, in := p.terminalFile(p.stdin)
	_, out := p.terminalFile(p.stderr)
	return in && out
}

var (
	styleFaint = lipgloss.NewStyle().Faint(true)
	styleGood  = lipgloss.NewStyle().Foreground(lipgloss.Green)
	styleBad   = lipgloss.NewStyle().Foreground(lipgloss.Red)
	styleBusy  = lipgloss.NewStyle().Foreground(lipgloss.Yellow)
)

// wordStyle is the style of a state of a job or a device.
func wordStyle(word string) lipgloss.Style {
	switch word {
	case string(qgjob.Passed), string(qgjob.DeviceIdle):
		return styleGood
	case string(qgjob.Failed), string(qgjob.Errored), string(qgjob.OutcomeTimedOut), string(qgjob.OutcomeLost),
		string(qgjob.DeviceOffline), string(qgjob.DeviceUnauthorized), string(qgjob.DeviceQuarantined):
		return styleBad
	case string(qgjob.Running), string(qgjob.Canceling), string(qgjob.DeviceBusy), string(qgjob.DeviceBooting):
		return styleBusy
	}
	return lipgloss.NewStyle()
}

// printTable prints rows under headers in columns, the most important ones first: a narrow terminal cuts the
// lines off. The column named STATE is coloured by its word.
func (p *program) printTable(headers []string, rows [][]string) {
	for _, row := range rows {
		for i := range row {
			row[i] = printable(row[i])
		}
	}
	out, width, ok := p.styled()
	if !ok {
		w := tabwriter.NewWriter(p.stdout, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, strings.Join(headers, "\t"))
		for _, row := range rows {
			fmt.Fprintln(w, strings.Join(row, "\t"))
		}
		w.Flush()
		return
	}
	t := table.New().Headers(headers...).Rows(rows...).Border(lipgloss.HiddenBorder()).
		BorderTop(false).BorderBottom(false).BorderLeft(false).BorderRight(false).BorderColumn(false).BorderHeader(false).
		StyleFunc(func(row, col int) lipgloss.Style {
			s := lipgloss.NewStyle()
			switch {
			case row == table.HeaderRow:
				s = styleFaint
			case headers[col] == "STATE":
				s = wordStyle(rows[row][col])
			}
			return s.PaddingRight(2)
		})
	for line := range strings.Lines(t.String()) {
		fmt.Fprintln(out, ansi.Truncate(strings.TrimRight(line, " \n"), width, "…"))
	}
}

// printable replaces control characters, so that no text of a test or a device can drive the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, ansi.Strip(s))
}

// roughly shows a duration as a person says it: 850 ms, 12 s, 3 min 20 s, 2 h 5 min, 3 d 4 h.
func roughly(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d d %d h", int(d.Hours())/24, int(d.Hours())%24)
}

// clockTime shows a moment in local time, to the second.
func clockTime(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }
