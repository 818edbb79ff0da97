package tail

import (
	"io"
	"slices"
	"strings"
	"testing"
)

func TestEndIsKept(t *testing.T) {
	for _, c := range []struct {
		writes   []string
		brokeOff bool
		lines    string
	}{
		{[]string{"a\nb\n"}, false, "a\nb\n"},
		{[]string{"a\n", "half"}, false, "a\nhalf"},
		{[]string{"a\n", "half"}, true, "a\n"},
		{[]string{"half"}, true, ""},
		{[]string{"1234567890123456\n", "second\n"}, false, "second\n"},
		{[]string{"first\n", "1234567890123456789012345\nlast\n"}, false, "last\n"},
		{slices.Repeat([]string{"seven7\n"}, 100), false, "seven7\nseven7\n"},
		{slices.Repeat([]string{"7"}, 1000), false, ""}, // no line is whole
	} {
		w := Writer{Limit: 20}
		most := 0
		for _, text := range c.writes {
			io.WriteString(&w, text)
			most = max(most, len(w.early)+len(w.late)-len(text))
		}
		if got := string(w.Lines(c.brokeOff)); got != c.lines {
			t.Errorf("of %.40q, which broke off %v, it keeps the lines %q, want %q", c.writes, c.brokeOff, got, c.lines)
		}
		all := strings.Join(c.writes, "")
		if got, want := w.String(), all[max(0, len(all)-w.Limit):]; got != want {
			t.Errorf("of %.40q it keeps %q, want %q", c.writes, got, want)
		}
		if most > 3*w.Limit {
			t.Errorf("of %.40q it held %d bytes", c.writes, most)
		}
	}
}
