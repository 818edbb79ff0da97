package cli

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/charmbracelet/x/ansi"

	"qgjob"
)

// screen is where a waiting command shows what happens: lines for good on stdout and, on a terminal, one
// live line below them. One goroutine uses it.
type screen struct {
	out   io.Writer
	err   io.Writer
	live  bool
	width int
	shown bool // the live line is on the screen now
	frame int
}

func (p *program) newScreen() *screen {
	if w, width, ok := p.styled(); ok {
		return &screen{out: w, err: p.stderr, live: true, width: width}
	}
	return &screen{out: p.stdout, err: p.stderr}
}

// line prints one line of the command's output.
func (s *screen) line(text string) {
	s.clear()
	fmt.Fprintln(s.out, text)
}

// status prints a job's state as the contract words it.
func (s *screen) status(state qgjob.JobState) {
	s.line("Job status: " + s.word(state))
}

// note says something to the person who waits; scripts do not see it.
func (s *screen) note(format string, args ...any) {
	s.clear()
	fmt.Fprintf(s.err, format+"\n", args...)
}

// spinner is drawn beside the live line, one sign a frame.
var spinner = []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")

// progress redraws the live line.
func (s *screen) progress(state qgjob.JobState, details ...string) {
	if !s.live {
		return
	}
	s.frame++
	text := fmt.Sprintf("%c %s", spinner[s.frame%len(spinner)], wordStyle(string(state)).Render(string(state)))
	if len(details) > 0 {
		text += styleFaint.Render(" · " + strings.Join(details, " · "))
	}
	s.clear()
	fmt.Fprint(s.out, ansi.Truncate(text, s.width-1, "…"))
	s.shown = true
}

// clear takes the live line off the screen.
func (s *screen) clear() {
	if s.shown {
		fmt.Fprint(s.out, "\r\x1b[K")
		s.shown = false
	}
}

// refresh is how often the live line is redrawn; every second where there is none to draw.
func (s *screen) refresh() time.Duration {
	if s.live {
		return 120 * time.Millisecond
	}
	return time.Second
}
