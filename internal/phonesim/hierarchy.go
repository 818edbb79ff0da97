package phonesim

import (
	"crypto/sha256"
	"encoding/xml"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The phone's screen, in pixels.
const (
	screenWidth   = 1080
	screenHeight  = 2340
	screenDensity = 440
	statusBar     = 63
)

const launcherPackage = "com.android.launcher3"

// rect is a place on the screen.
type rect struct{ left, top, right, bottom int }

func (r rect) contains(x, y int) bool {
	return x >= r.left && x < r.right && y >= r.top && y < r.bottom
}

func (r rect) center() (x, y int) { return (r.left + r.right) / 2, (r.top + r.bottom) / 2 }

func (r rect) String() string { return fmt.Sprintf("[%d,%d][%d,%d]", r.left, r.top, r.right, r.bottom) }

// node is one element of what accessibility services see on the screen.
type node struct {
	class, pkg, text, id, desc, hint string

	bounds   rect
	children []*node
	parent   *node

	checkable, checked, clickable, enabled, focusable, focused, password, scrollable bool

	key     string   // the same for the same thing while its screen is shown
	place   string   // what it is in the app's description, over all launches
	element *Element // nil for what the system adds
	item    bool     // a row of a list
	ios     bool     // as XCTest sees it: its class is XCUIElementTypeSomething
}

// tree is the screen at one moment: what is in front of it, as accessibility services see it.
type tree struct {
	root *node
	// content is the height of all of the app's elements, scroll how far they are moved up.
	content, scroll int
	app             *app // nil when the launcher or a helper is in front
}

// uid is the element id that the UiAutomator2 server gives out for n.
func (n *node) uid() string {
	sum := sha256.Sum256([]byte(n.key))
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

func (n *node) add(child *node) {
	child.parent = n
	n.children = append(n.children, child)
}

// each calls f for n and everything below it in document order, until f returns false.
func (n *node) each(f func(*node) bool) bool {
	if !f(n) {
		return false
	}
	for _, c := range n.children {
		if !c.each(f) {
			return false
		}
	}
	return true
}

// index is n's place among its siblings.
func (n *node) index() int {
	if n.parent != nil {
		for i, c := range n.parent.children {
			if c == n {
				return i
			}
		}
	}
	return 0
}

// at returns the innermost node at a place, nil outside the screen.
func (n *node) at(x, y int) *node {
	if !n.bounds.contains(x, y) {
		return nil
	}
	for i := len(n.children) - 1; i >= 0; i-- {
		if hit := n.children[i].at(x, y); hit != nil {
			return hit
		}
	}
	return n
}

// systemTree is the screen while no described app is in front.
func systemTree(pkg, label string) *tree {
	root := frame(pkg, "system")
	root.add(&node{
		class: classNames["text"], pkg: pkg, text: label, enabled: true, key: "system " + pkg + " label",
		bounds: rect{48, 1800, screenWidth - 48, 1920},
	})
	return &tree{root: root}
}

func frame(pkg, key string) *node {
	return &node{
		class: "android.widget.FrameLayout", pkg: pkg, id: "android:id/content", enabled: true, key: key + " root",
		bounds: rect{0, 0, screenWidth, screenHeight},
	}
}

// tree lays the app's present screen out. What lies outside the screen is left out, as on a phone, unless all is asked for.
func (a *app) tree(now time.Time, all bool) *tree {
	a.advance(now)
	top := a.top()
	key := fmt.Sprintf("%s %d %d %s", a.pkg.name, a.pid, top.number, top.screen)
	root := frame(a.pkg.name, key)
	l := layout{app: a, now: now, key: key, place: "screen " + top.screen}
	body := &node{
		class: "android.widget.ScrollView", pkg: a.pkg.name, enabled: true, key: key + " body",
		bounds: rect{0, statusBar, screenWidth, screenHeight},
	}
	root.add(body)
	y := statusBar - top.scroll
	s := a.screen()
	if s.Title != "" {
		y = l.add(body, &node{class: classNames["text"], text: a.expand(s.Title), enabled: true, key: key + " title"}, y, titleHeight)
	}
	y = l.elements(body, s.Elements, "", y)
	t := &tree{root: root, content: y + top.scroll - statusBar, scroll: top.scroll, app: a}
	body.scrollable = t.maxScroll() > 0
	if !all {
		body.clip(body.bounds)
	}
	return t
}

// maxScroll is how far the content can be moved up.
func (t *tree) maxScroll() int { return max(0, t.content-(screenHeight-statusBar)) }

// clip removes what lies outside r and cuts what lies partly outside.
func (n *node) clip(r rect) {
	kept := n.children[:0]
	for _, c := range n.children {
		c.bounds.top, c.bounds.bottom = max(c.bounds.top, r.top), min(c.bounds.bottom, r.bottom)
		if c.bounds.top < c.bounds.bottom {
			c.clip(r)
			kept = append(kept, c)
		}
	}
	n.children = kept
}

// Sizes of what is laid out, in pixels.
const (
	titleHeight = 150
	rowHeight   = 130
	imageHeight = 300
	margin      = 48
	gap         = 24
)

// layout puts elements one below the other.
type layout struct {
	app        *app
	now        time.Time
	key, place string
	indent     int
}

func (l *layout) add(parent, n *node, y, height int) int {
	n.pkg = l.app.pkg.name
	n.bounds = rect{margin + l.indent, y + gap, screenWidth - margin - l.indent, y + gap + height}
	parent.add(n)
	return n.bounds.bottom
}

func (l *layout) elements(parent *node, elements []Element, path string, y int) int {
	since := l.now.Sub(l.app.top().shown)
	for i := range elements {
		e := &elements[i]
		at := func(ms int) bool { return ms > 0 && since >= time.Duration(ms)*time.Millisecond }
		if e.AppearsAfterMS > 0 && !at(e.AppearsAfterMS) || at(e.DisappearsAfterMS) || !l.app.holds(e.When) {
			continue
		}
		y = l.element(parent, e, fmt.Sprintf("%s/%d", path, i), y)
	}
	return y
}

func (l *layout) element(parent *node, e *Element, path string, y int) int {
	a := l.app
	n := &node{
		class: e.className(), id: e.ID, text: a.expand(e.Text), desc: a.expand(e.ContentDesc), hint: a.expand(e.Hint),
		enabled: !e.Disabled, checkable: e.Checkable, password: e.Password, element: e,
		key: l.key + path, place: l.place + path,
	}
	n.clickable = e.Editable || e.Checkable || len(e.Tap) > 0 || n.class == classNames["button"]
	n.focusable = n.clickable
	switch {
	case e.Editable:
		n.focused = a.focus == n.key
		n.text = a.value(e.variable())
		if e.Password {
			n.text = strings.Repeat("•", len([]rune(n.text)))
		}
		if n.text == "" {
			n.text = n.hint // as Android shows it, and UiAutomator tells it
		}
	case e.Checkable:
		n.checked = a.value(e.variable()) == "true"
	}
	height := rowHeight
	if n.class == classNames["image"] {
		height = imageHeight
	}
	bottom := l.add(parent, n, y, height)
	if len(e.Items) == 0 && len(e.Elements) == 0 {
		return bottom
	}
	inner := n.bounds.top
	l.indent += gap
	for i, item := range e.Items {
		row := &node{
			class: classNames["text"], text: a.expand(item), enabled: !e.Disabled, element: e, item: true,
			clickable: len(e.Tap) > 0, key: fmt.Sprintf("%s%s row %d", l.key, path, i), place: n.place,
		}
		inner = l.add(n, row, inner, rowHeight)
	}
	inner = l.elements(n, e.Elements, path, inner)
	l.indent -= gap
	if len(e.Items) > 0 {
		n.clickable, n.focusable = false, false // its rows are
	}
	n.bounds.bottom = inner + gap
	return n.bounds.bottom
}

// source is the page source that the UiAutomator2 server gives: an element is named after its class.
func (t *tree) source() string {
	var b strings.Builder
	fmt.Fprintf(&b, `<?xml version='1.0' encoding='UTF-8' standalone='yes' ?><hierarchy index="0" class="hierarchy" rotation="0" width="%d" height="%d">`,
		screenWidth, screenHeight)
	t.root.source(&b)
	b.WriteString("</hierarchy>")
	return b.String()
}

func (n *node) source(b *strings.Builder) {
	fmt.Fprintf(b, "<%s", n.tag())
	for _, name := range n.attributeNames() {
		value, _ := n.attribute(name)
		fmt.Fprintf(b, ` %s="`, name)
		_ = xml.EscapeText(b, []byte(value)) // a strings.Builder does not fail
		b.WriteByte('"')
	}
	b.WriteByte('>')
	for _, c := range n.children {
		c.source(b)
	}
	fmt.Fprintf(b, "</%s>", n.tag())
}

// tag is the class as an XML name.
func (n *node) tag() string { return strings.ReplaceAll(n.class, "$", "_") }

// attributeNames are the attributes that the page source and XPath see, in the server's order.
func (n *node) attributeNames() []string {
	if n.ios {
		return xcuiAttributes
	}
	names := []string{
		"index", "package", "class", "text", "content-desc", "resource-id", "checkable", "checked", "clickable", "enabled",
		"focusable", "focused", "long-clickable", "password", "scrollable", "selected", "bounds", "displayed",
	}
	if n.hint != "" {
		names = append(names, "hint")
	}
	kept := names[:0]
	for _, name := range names {
		empty := name == "content-desc" && n.desc == "" || name == "resource-id" && n.id == ""
		if !empty {
			kept = append(kept, name)
		}
	}
	return kept
}

// attribute returns an attribute by its name in the page source, false for one that there is not.
func (n *node) attribute(name string) (string, bool) {
	if n.ios {
		return n.xcuiAttribute(name)
	}
	switch name {
	case "index":
		return strconv.Itoa(n.index()), true
	case "package":
		return n.pkg, true
	case "class", "className":
		return n.class, true
	case "text":
		return n.text, true
	case "content-desc", "contentDescription":
		return n.desc, true
	case "name":
		if n.desc != "" {
			return n.desc, true
		}
		return n.text, true
	case "resource-id", "resourceId":
		return n.id, true
	case "hint":
		return n.hint, true
	case "bounds":
		return n.bounds.String(), true
	}
	flag, ok := n.flag(name)
	return strconv.FormatBool(flag), ok
}

func (n *node) flag(name string) (value, ok bool) {
	switch name {
	case "checkable":
		return n.checkable, true
	case "checked":
		return n.checked, true
	case "clickable":
		return n.clickable, true
	case "enabled":
		return n.enabled, true
	case "focusable":
		return n.focusable, true
	case "focused":
		return n.focused, true
	case "long-clickable", "longClickable", "selected":
		return false, true
	case "password":
		return n.password, true
	case "scrollable":
		return n.scrollable, true
	case "displayed":
		return true, true // what is not displayed is not in the tree
	}
	return false, false
}
