package phonesim

import (
	"strconv"
	"strings"
)

// xcuiClasses are XCTest's names for what an app shows.
var xcuiClasses = map[string]string{
	classNames["text"]: "StaticText", classNames["button"]: "Button", classNames["edit"]: "TextField", classNames["image"]: "Image",
	classNames["checkbox"]: "Switch", classNames["switch"]: "Switch", classNames["group"]: "Other", classNames["list"]: "Table",
	"android.widget.ScrollView": "ScrollView",
}

const xcuiPrefix = "XCUIElementType"

// asXCUI makes the tree what XCTest sees of an app: the same elements with its names.
func (t *tree) asXCUI() {
	t.root.each(func(n *node) bool {
		class := xcuiClasses[n.class]
		switch {
		case n.parent == nil:
			class = "Application"
		case strings.HasPrefix(n.class, xcuiPrefix):
			class = strings.TrimPrefix(n.class, xcuiPrefix)
		case n.password:
			class = "SecureTextField"
		case n.item:
			class = "Cell"
		case class == "":
			class = "Other"
		}
		n.class, n.ios = xcuiPrefix+class, true
		return true
	})
}

// xcuiAttributes are the attributes that WebDriverAgent's source shows, in its order.
var xcuiAttributes = []string{"type", "value", "name", "label", "enabled", "visible", "accessible", "x", "y", "width", "height", "index"}

func (n *node) isField() bool {
	return n.class == xcuiPrefix+"TextField" || n.class == xcuiPrefix+"SecureTextField"
}

// label is what VoiceOver reads; a field's text is its value.
func (n *node) label() string {
	switch {
	case n.desc != "":
		return n.desc
	case n.isField():
		return ""
	}
	return n.text
}

func (n *node) xcuiAttribute(name string) (string, bool) {
	switch name {
	case "type":
		return n.class, true
	case "label":
		return n.label(), true
	case "name", "identifier":
		if n.id != "" {
			return n.id, true
		}
		return n.label(), true
	case "value":
		switch {
		case n.isField():
			return n.text, true
		case n.checkable && n.checked:
			return "1", true
		case n.checkable:
			return "0", true
		}
		return n.label(), true
	case "placeholderValue":
		return n.hint, true
	case "visible", "accessible", "isVisible", "isAccessible":
		return "true", true
	case "enabled", "isEnabled":
		return strconv.FormatBool(n.enabled), true
	case "hasKeyboardFocus", "focused":
		return strconv.FormatBool(n.focused), true
	case "selected":
		return strconv.FormatBool(n.checked), true
	case "x":
		return strconv.Itoa(n.bounds.left), true
	case "y":
		return strconv.Itoa(n.bounds.top), true
	case "width":
		return strconv.Itoa(n.bounds.right - n.bounds.left), true
	case "height":
		return strconv.Itoa(n.bounds.bottom - n.bounds.top), true
	case "index":
		return strconv.Itoa(n.index()), true
	}
	return "", false
}

// findXCUI finds elements as WebDriverAgent does.
func (s *screenSearch) findXCUI(strategy, selector string) ([]*node, error) {
	switch strategy {
	case "predicate string":
		test, err := parsePredicate(selector)
		if err != nil {
			return nil, err
		}
		return s.matching(test), nil
	case "id", "name", "accessibility id":
		return s.matching(func(n *node) bool {
			name, _ := n.xcuiAttribute("name")
			return name == selector
		}), nil
	case "class name":
		return s.matching(func(n *node) bool { return n.class == selector }), nil
	}
	return nil, &selectorError{"unsupported locator strategy " + strategy}
}

// xcuiSource is the page source that WebDriverAgent gives.
func (t *tree) xcuiSource() string {
	var b strings.Builder
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>` + "\n")
	t.root.source(&b)
	return b.String()
}
