// Package tail keeps the end of what is written.
package tail

import (
	"bytes"
	"slices"
)

// Writer keeps the last bytes, Limit of them; it holds up to thrice as many beside the last write. It is for one
// goroutine at a time.
type Writer struct {
	Limit int

	early, late []byte // of which late is the newer, and neither much longer than the limit
	cut         bool   // what came before is gone
}

func (w *Writer) Write(b []byte) (int, error) {
	if len(w.late) >= w.Limit {
		w.cut = w.cut || len(w.early) > 0
		w.early, w.late = w.late, nil
	}
	w.late = append(w.late, b...)
	return len(b), nil
}

// String is what is kept.
func (w *Writer) String() string {
	text := slices.Concat(w.early, w.late)
	return string(text[max(0, len(text)-w.Limit):])
}

// Lines is what is kept in whole lines, where it was cut, and at the end where the writing broke off.
func (w *Writer) Lines(brokeOff bool) []byte {
	text := slices.Concat(w.early, w.late)
	if over := len(text) - w.Limit; over > 0 || w.cut {
		_, text, _ = bytes.Cut(text[max(over, 0):], []byte("\n"))
	}
	if brokeOff {
		text = text[:bytes.LastIndexByte(text, '\n')+1]
	}
	return text
}
