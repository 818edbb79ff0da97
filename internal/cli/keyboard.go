package cli

import (
	"bufio"
	"io"
	"strings"
	"sync"

	"github.com/muesli/cancelreader"
)

// keyboard reads lines from a terminal, once somebody was asked, until it is closed.
type keyboard struct {
	in     io.Reader
	reader cancelreader.CancelReader // nil before start
	lines  chan string
	closed chan struct{}
}

func newKeyboard(in io.Reader) *keyboard {
	return &keyboard{in: in, lines: make(chan string), closed: make(chan struct{})}
}

// start begins to read. Only the first call does. A stdin that cannot be read gives no answers: the
// question can still be answered by a signal.
func (k *keyboard) start(owner *sync.WaitGroup) {
	if k.reader != nil {
		return
	}
	reader, err := cancelreader.NewReader(k.in)
	if err != nil {
		return
	}
	k.reader = reader
	owner.Go(func() {
		defer reader.Close() // here: closed under a Read, it would never return
		scanner := bufio.NewScanner(reader)
		for scanner.Scan() {
			select {
			case k.lines <- strings.TrimSpace(scanner.Text()):
			case <-k.closed:
				return
			}
		}
	})
}

func (k *keyboard) close() {
	close(k.closed)
	if k.reader != nil {
		k.reader.Cancel()
	}
}
