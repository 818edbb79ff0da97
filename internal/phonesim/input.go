package phonesim

import (
	"strconv"
	"strings"
	"time"
)

// The key codes that do something here, from android.view.KeyEvent.
const (
	keyHome  = 3
	keyBack  = 4
	keyEnter = 66
	keyDel   = 67
)

var keyNames = map[string]int{"KEYCODE_HOME": keyHome, "KEYCODE_BACK": keyBack, "KEYCODE_ENTER": keyEnter, "KEYCODE_DEL": keyDel}

// The functions below are what a user's hands do. They are called with the phone's lock held.

func (p *Phone) tap(n *node, now time.Time) {
	if a := p.front(now); a != nil {
		a.tap(n, now)
		p.settle(a, now)
	}
}

func (p *Phone) tapAt(x, y int, now time.Time) {
	if n := p.tree(now, false).root.at(x, y); n != nil {
		p.tap(n, now)
	}
}

// scrollBy moves the content up by some pixels, as far as there is any.
func (p *Phone) scrollBy(pixels int, now time.Time) {
	a := p.front(now)
	if a == nil {
		return
	}
	limit := a.tree(now, true).maxScroll()
	a.top().scroll = max(0, min(a.top().scroll+pixels, limit))
}

// focused is the element that typed text goes to, nil when there is none.
func (p *Phone) focused(now time.Time) *node {
	a := p.front(now)
	if a == nil || a.focus == "" {
		return nil
	}
	var found *node
	a.tree(now, true).root.each(func(n *node) bool {
		if n.focused {
			found = n
		}
		return found == nil
	})
	return found
}

// typeText types into the element that has the focus. A line break is the Enter key.
func (p *Phone) typeText(text string, now time.Time) {
	for i, line := range strings.Split(text, "\n") {
		if i > 0 {
			p.pressKeyCode(keyEnter, now)
		}
		if n := p.focused(now); n != nil && line != "" {
			p.apps[p.foreground.pkg].set(n.element.variable(), p.apps[p.foreground.pkg].value(n.element.variable())+line)
		}
	}
}

// setText gives an editable element a text, after what it holds unless that is replaced.
func (p *Phone) setText(n *node, text string, replace bool, now time.Time) {
	a := p.front(now)
	a.focus = n.key
	if replace {
		a.set(n.element.variable(), "")
	}
	p.typeText(text, now)
}

// pressKey presses a key given by its number or name.
func (p *Phone) pressKey(key string, now time.Time) {
	code, err := strconv.Atoi(key)
	if err != nil {
		code = keyNames[key]
	}
	p.pressKeyCode(code, now)
}

func (p *Phone) pressKeyCode(code int, now time.Time) {
	a := p.front(now)
	switch {
	case code == keyHome:
		p.foreground = launcher
	case a == nil:
	case code == keyBack:
		a.back(now, 0)
		p.settle(a, now)
	case code == keyEnter:
		if n := p.focused(now); n != nil {
			a.submit(n, now)
			p.settle(a, now)
		}
	case code == keyDel:
		if n := p.focused(now); n != nil {
			name := n.element.variable()
			if text := []rune(a.value(name)); len(text) > 0 {
				a.set(name, string(text[:len(text)-1]))
			}
		}
	}
}
