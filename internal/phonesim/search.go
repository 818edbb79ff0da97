package phonesim

import (
	"strings"
	"time"
)

// screenSearch finds elements on a phone's screen. The phone's lock is held while it lives.
type screenSearch struct {
	phone *Phone
	now   time.Time
	from  *node // where the search starts
}

// find returns the elements that a selector finds, in document order.
func (s *screenSearch) find(strategy, selector string) ([]*node, error) {
	if strategy == "-android uiautomator" {
		return s.findUI(selector)
	}
	if strategy == "xpath" {
		x, err := parseXPath(selector)
		if err != nil {
			return nil, err
		}
		return x.find(s.from)
	}
	if s.phone.ios {
		return s.findXCUI(strategy, selector)
	}
	var test func(*node) bool
	switch strategy {
	case "id":
		// A name without a package belongs to the app, unless that is how the app itself calls it.
		test = func(n *node) bool { return n.id == selector || n.id == n.pkg+":id/"+selector }
	case "accessibility id":
		test = func(n *node) bool { return n.desc == selector }
	case "class name":
		test = func(n *node) bool {
			return n.class == selector || !strings.Contains(selector, ".") && n.class == "android.widget."+selector
		}
	default:
		return nil, &selectorError{"unsupported locator strategy " + strategy}
	}
	return s.matching(test), nil
}

func (s *screenSearch) matching(test func(*node) bool) []*node {
	var found []*node
	s.from.each(func(n *node) bool {
		if test(n) && n.key != "" {
			found = append(found, n)
		}
		return true
	})
	return found
}

// scroll moves the screen's content up by some pixels, as far as there is any.
func (s *screenSearch) scroll(by int) {
	s.phone.scrollBy(by, s.now)
	s.from = s.phone.tree(s.now, false).root
}

// scrollTo brings the first match of a selector onto the screen and returns it.
func (s *screenSearch) scrollTo(selector *uiSelector) []*node {
	whole := s.phone.tree(s.now, true).root
	found := selector.find(whole)
	if len(found) == 0 {
		return nil
	}
	switch at := found[0].bounds; {
	case at.bottom > screenHeight:
		s.scroll(at.bottom - screenHeight)
	case at.top < statusBar:
		s.scroll(at.top - statusBar)
	}
	s.from = s.phone.tree(s.now, false).root
	return selector.find(s.from)
}

// byUID returns the element with an id that the UiAutomator2 server gave out, nil when it is gone.
func (t *tree) byUID(uid string) *node {
	var found *node
	t.root.each(func(n *node) bool {
		if n.uid() == uid {
			found = n
		}
		return found == nil
	})
	return found
}
