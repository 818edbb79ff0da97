package adb

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strings"
)

// Output is what a shell command on a device left.
type Output struct {
	Stdout, Stderr string
	Code           int // exit code
}

// maxOutput bounds what one command may print; the rest is dropped.
const maxOutput = 8 << 20

// ErrCut is wrapped when the connection to the device broke while a command ran.
var ErrCut = errors.New("the connection to the device was cut")

// Shell runs a command line in the device's shell and waits for its end. A command that ran is no error,
// whatever its exit code. It needs Android 7 or newer (shell protocol v2).
func (c Client) Shell(ctx context.Context, serial, command string) (Output, error) {
	conn, err := c.service(ctx, serial, "shell,v2,raw:"+command)
	if err != nil {
		return Output{}, err
	}
	defer conn.Close()
	return readShell(conn)
}

// The packet ids of shell protocol v2 (shell_protocol.h of adb): one byte, then a little-endian length.
const (
	packetStdout = 1
	packetStderr = 2
	packetExit   = 3
)

func readShell(r io.Reader) (Output, error) {
	var stdout, stderr bytes.Buffer
	for {
		var header [5]byte
		if _, err := io.ReadFull(r, header[:]); err != nil {
			if err == io.EOF || errors.Is(err, io.ErrUnexpectedEOF) {
				return Output{}, ErrCut
			}
			return Output{}, err
		}
		size := int64(binary.LittleEndian.Uint32(header[1:]))
		data := io.LimitReader(r, size)
		var err error
		switch header[0] {
		case packetStdout:
			err = keep(&stdout, data)
		case packetStderr:
			err = keep(&stderr, data)
		case packetExit:
			var code [1]byte
			if _, err := io.ReadFull(data, code[:]); err != nil {
				return Output{}, ErrCut
			}
			return Output{stdout.String(), stderr.String(), int(code[0])}, nil
		default:
			err = keep(io.Discard, data)
		}
		if err != nil {
			return Output{}, err
		}
	}
}

func keep(w io.Writer, data io.Reader) error {
	if b, ok := w.(*bytes.Buffer); ok {
		if _, err := io.CopyN(b, data, int64(maxOutput-b.Len())); err != nil && err != io.EOF {
			return err
		}
	}
	_, err := io.Copy(io.Discard, data)
	return err
}

// Quote makes a string one word of a shell command line.
func Quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// Text is everything that the command printed, trimmed.
func (o Output) Text() string { return strings.TrimSpace(o.Stdout + o.Stderr) }
