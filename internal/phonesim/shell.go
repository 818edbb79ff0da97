package phonesim

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// call is one command being run by the phone's shell.
type call struct {
	phone  *Phone
	ctx    context.Context // ends when nobody reads the command's output any more
	args   []string        // the command's name first
	stdin  io.Reader
	stdout io.Writer
	stderr io.Writer
}

func (c *call) printf(format string, a ...any) { fmt.Fprintf(c.stdout, format, a...) }

// fail reports to standard error and returns the exit code 1.
func (c *call) fail(format string, a ...any) int {
	fmt.Fprintf(c.stderr, format+"\n", a...)
	return 1
}

// arg returns the i-th argument after the command's name, "" when there is none.
func (c *call) arg(i int) string {
	if i+1 < len(c.args) {
		return c.args[i+1]
	}
	return ""
}

func (c *call) last() string { return c.args[len(c.args)-1] }

func (c *call) has(flag string) bool {
	for _, a := range c.args[1:] {
		if a == flag {
			return true
		}
	}
	return false
}

// sub is the call of a command's own command, as `pm` within `cmd package`.
func (c *call) sub(args []string) *call {
	d := *c
	d.args = args
	return &d
}

// exitNotFound and exitSyntax are the exit codes of Android's shell for an unknown command and an unreadable line.
const (
	exitNotFound = 127
	exitSyntax   = 1
)

// runShell runs a command line and returns the exit code of its last command.
func (p *Phone) runShell(ctx context.Context, line string, stdin io.Reader, stdout, stderr io.Writer) int {
	list, err := parseShell(line)
	if err != nil {
		p.log.Debug("shell line not understood", "line", line, "error", err)
		fmt.Fprintf(stderr, "/system/bin/sh: %v\n", err)
		return exitSyntax
	}
	status := 0
	for _, pipeline := range list {
		if pipeline.after == "&&" && status != 0 || pipeline.after == "||" && status == 0 {
			continue
		}
		input := stdin
		for i, command := range pipeline.commands {
			if i == len(pipeline.commands)-1 {
				status = p.runCommand(ctx, command, status, input, stdout, stderr)
				break
			}
			var piped bytes.Buffer
			p.runCommand(ctx, command, status, input, &piped, stderr)
			input = &piped
		}
	}
	return status
}

func (p *Phone) runCommand(ctx context.Context, cmd shellCommand, status int, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &call{phone: p, ctx: ctx, stdin: stdin, stdout: stdout, stderr: stderr}
	for _, w := range cmd.words {
		c.args = append(c.args, strings.ReplaceAll(w, lastStatus, strconv.Itoa(status)))
	}
	if cmd.input != "" {
		content, err := p.readFile(cmd.input)
		if err != nil {
			return c.fail("/system/bin/sh: can't open %s: %v", cmd.input, err)
		}
		c.stdin = bytes.NewReader(content)
	}
	var written bytes.Buffer
	if cmd.output != "" {
		c.stdout = &written
	}
	switch cmd.errors {
	case "":
	case "&1":
		c.stderr = c.stdout
	default: // a file for error messages is always /dev/null in practice
		c.stderr = io.Discard
	}
	code := p.runWords(c)
	if cmd.output != "" {
		p.redirect(cmd, written.Bytes())
	}
	return code
}

// runWords runs the command that a call's words name.
func (p *Phone) runWords(c *call) int {
	if len(c.args) == 0 {
		return 0
	}
	run := p.commands[c.args[0]]
	if run == nil {
		p.log.Debug("unknown shell command", "command", strings.Join(c.args, " "))
		fmt.Fprintf(c.stderr, "/system/bin/sh: %s: inaccessible or not found\n", c.args[0])
		return exitNotFound
	}
	code := run(c)
	p.log.Debug("shell", "command", strings.Join(c.args, " "), "exit", code)
	return code
}

func (p *Phone) redirect(cmd shellCommand, content []byte) {
	if cmd.output == "/dev/null" {
		return
	}
	if cmd.appending {
		before, _ := p.readFile(cmd.output) // a file that is not there yet is an empty one
		content = append(bytes.Clone(before), content...)
	}
	p.writeFile(cmd.output, content)
}

// The packet kinds of adb's shell protocol, version 2: a kind, a length of four bytes, the data.
const (
	shellStdin      byte = 0
	shellStdout     byte = 1
	shellStderr     byte = 2
	shellExit       byte = 3
	shellCloseStdin byte = 4
)

// shellWriter wraps what a command writes into packets of one kind.
type shellWriter struct {
	w    io.Writer
	kind byte
}

func (w shellWriter) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	b := make([]byte, 0, 5+len(p))
	b = binary.LittleEndian.AppendUint32(append(b, w.kind), uint32(len(p)))
	if _, err := w.w.Write(append(b, p...)); err != nil {
		return 0, err
	}
	return len(p), nil
}

// shellReader takes standard input out of the packets of the other side.
type shellReader struct {
	r    io.Reader
	left uint32 // bytes of the present packet that belong to standard input
	done bool
}

func (r *shellReader) Read(p []byte) (int, error) {
	for r.left == 0 {
		if r.done {
			return 0, io.EOF
		}
		var header [5]byte
		if _, err := io.ReadFull(r.r, header[:]); err != nil {
			return 0, io.EOF
		}
		length := binary.LittleEndian.Uint32(header[1:])
		switch header[0] {
		case shellStdin:
			r.left = length
		case shellCloseStdin:
			r.done = true
		default: // window sizes and what later versions may add
			if _, err := io.CopyN(io.Discard, r.r, int64(length)); err != nil {
				return 0, io.EOF
			}
		}
	}
	n, err := r.r.Read(p[:min(len(p), int(r.left))])
	r.left -= uint32(n)
	return n, err
}
