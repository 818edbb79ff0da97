package phonesim

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// selectorError is a selector that cannot be understood.
type selectorError struct{ message string }

func (e *selectorError) Error() string { return e.message }

// uiExpression is an expression of UiAutomator's Java interface, as `new UiSelector().text("a").instance(1)`.
type uiExpression struct {
	class string // UiSelector or UiScrollable
	base  *uiExpression
	calls []uiCall
}

type uiCall struct {
	name string
	args []uiValue
}

// uiValue is an argument: one of a string, a number, a boolean and an expression.
type uiValue struct {
	kind       byte // s, n, b, e
	text       string
	number     int
	flag       bool
	expression *uiExpression
}

// parseUI reads what the strategy "-android uiautomator" takes: expressions separated by semicolons, of which the first that
// finds something counts. One that does not begin with "new" is a call on a UiSelector, as the UiAutomator2 server has it.
func parseUI(selector string) ([]*uiExpression, error) {
	p := uiParser{text: strings.TrimSpace(selector)}
	var list []*uiExpression
	for {
		if !strings.HasPrefix(p.rest(), "new ") {
			p.text = p.text[:p.at] + "new UiSelector()." + strings.TrimPrefix(p.rest(), ".")
		}
		e, err := p.expression(0)
		if err != nil {
			return nil, &selectorError{fmt.Sprintf("cannot parse UiAutomator expression %q at %d: %v", selector, p.at, err)}
		}
		list = append(list, e)
		p.space()
		for p.take(";") {
			p.space()
		}
		if p.rest() == "" {
			return list, nil
		}
		if p.text[p.at-1] != ';' && !strings.HasSuffix(strings.TrimSpace(p.text[:p.at]), ";") {
			return nil, &selectorError{fmt.Sprintf("cannot parse UiAutomator expression %q: unexpected %q", selector, p.rest())}
		}
	}
}

type uiParser struct {
	text string
	at   int
}

func (p *uiParser) rest() string { return p.text[p.at:] }

func (p *uiParser) space() {
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n", p.text[p.at]) >= 0 {
		p.at++
	}
}

func (p *uiParser) take(s string) bool {
	p.space()
	if strings.HasPrefix(p.rest(), s) {
		p.at += len(s)
		return true
	}
	return false
}

func (p *uiParser) name() string {
	p.space()
	from := p.at
	for p.at < len(p.text) && (p.text[p.at] == '_' || p.text[p.at] >= '0' && p.text[p.at] <= '9' || p.text[p.at]|0x20 >= 'a' && p.text[p.at]|0x20 <= 'z') {
		p.at++
	}
	return p.text[from:p.at]
}

const maxSelectorNesting = 30

func (p *uiParser) expression(depth int) (*uiExpression, error) {
	if depth > maxSelectorNesting {
		return nil, fmt.Errorf("nested more than %d deep", maxSelectorNesting)
	}
	if !p.take("new ") {
		return nil, fmt.Errorf("expected new UiSelector or new UiScrollable")
	}
	e := &uiExpression{class: p.name()}
	if e.class != "UiSelector" && e.class != "UiScrollable" {
		return nil, fmt.Errorf("unsupported class %q", e.class)
	}
	args, err := p.arguments(depth)
	if err != nil {
		return nil, err
	}
	switch {
	case e.class == "UiSelector" && len(args) == 0:
	case e.class == "UiScrollable" && len(args) == 1 && args[0].kind == 'e' && args[0].expression.class == "UiSelector":
		e.base = args[0].expression
	default:
		return nil, fmt.Errorf("wrong arguments of new %s", e.class)
	}
	for p.take(".") {
		c := uiCall{name: p.name()}
		if c.name == "" {
			return nil, fmt.Errorf("expected a method's name")
		}
		if c.args, err = p.arguments(depth); err != nil {
			return nil, err
		}
		e.calls = append(e.calls, c)
	}
	return e, nil
}

func (p *uiParser) arguments(depth int) ([]uiValue, error) {
	if !p.take("(") {
		return nil, fmt.Errorf("expected (")
	}
	var args []uiValue
	if p.take(")") {
		return nil, nil
	}
	for {
		v, err := p.value(depth)
		if err != nil {
			return nil, err
		}
		args = append(args, v)
		if p.take(")") {
			return args, nil
		}
		if !p.take(",") {
			return nil, fmt.Errorf("expected , or )")
		}
	}
}

func (p *uiParser) value(depth int) (uiValue, error) {
	p.space()
	switch rest := p.rest(); {
	case strings.HasPrefix(rest, `"`):
		text, err := p.quoted()
		return uiValue{kind: 's', text: text}, err
	case strings.HasPrefix(rest, "new "):
		e, err := p.expression(depth + 1)
		return uiValue{kind: 'e', expression: e}, err
	case strings.HasPrefix(rest, "-") || rest != "" && rest[0] >= '0' && rest[0] <= '9':
		from := p.at
		p.at++
		for p.at < len(p.text) && (p.text[p.at] >= '0' && p.text[p.at] <= '9' || p.text[p.at] == '.') {
			p.at++
		}
		f, err := strconv.ParseFloat(p.text[from:p.at], 64)
		return uiValue{kind: 'n', number: int(f)}, err
	}
	switch word := p.name(); word {
	case "true", "false":
		return uiValue{kind: 'b', flag: word == "true"}, nil
	default:
		return uiValue{}, fmt.Errorf("unsupported argument %q", word)
	}
}

// quoted reads a Java string.
func (p *uiParser) quoted() (string, error) {
	var b strings.Builder
	for p.at++; p.at < len(p.text); p.at++ {
		switch c := p.text[p.at]; c {
		case '"':
			p.at++
			return b.String(), nil
		case '\\':
			p.at++
			if p.at == len(p.text) {
				return "", fmt.Errorf("string without an end")
			}
			switch e := p.text[p.at]; e {
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			case 'u':
				if p.at+5 > len(p.text) {
					return "", fmt.Errorf("bad escape in string")
				}
				r, err := strconv.ParseUint(p.text[p.at+1:p.at+5], 16, 16)
				if err != nil {
					return "", fmt.Errorf("bad escape in string")
				}
				b.WriteRune(rune(r))
				p.at += 4
			case '"', '\'', '\\':
				b.WriteByte(e)
			default: // as the server does: an unknown escape stays as it is, so that "\d" in a pattern works
				b.WriteByte('\\')
				b.WriteByte(e)
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", fmt.Errorf("string without an end")
}

// uiSelector is a UiSelector ready to be matched.
type uiSelector struct {
	tests      []func(*node) bool
	instance   int // which of the matches, -1 for all
	child      *uiSelector
	fromParent *uiSelector
}

// compileSelector turns an expression of UiSelector into what matches nodes.
func compileSelector(e *uiExpression) (*uiSelector, error) {
	if e.class != "UiSelector" {
		return nil, &selectorError{"expected a UiSelector, not a " + e.class}
	}
	s := &uiSelector{instance: -1}
	for _, c := range e.calls {
		if err := s.call(c); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// textOf are the properties that a UiSelector tests as text, by the beginning of the method's name.
var textOf = []struct {
	prefix string
	value  func(*node) string
}{
	{"text", func(n *node) string { return n.text }},
	{"description", func(n *node) string { return n.desc }},
	{"resourceId", func(n *node) string { return n.id }},
	{"className", func(n *node) string { return n.class }},
	{"packageName", func(n *node) string { return n.pkg }},
}

func (s *uiSelector) call(c uiCall) error {
	bad := &selectorError{fmt.Sprintf("UiSelector has no method %s with these arguments", c.name)}
	if len(c.args) != 1 {
		return bad
	}
	arg := c.args[0]
	switch arg.kind {
	case 's':
		for _, property := range textOf {
			if how, ok := strings.CutPrefix(c.name, property.prefix); ok {
				return s.textTest(how, arg.text, property.value, bad)
			}
		}
	case 'b':
		if _, ok := new(node).flag(c.name); ok {
			s.tests = append(s.tests, func(n *node) bool {
				value, _ := n.flag(c.name)
				return value == arg.flag
			})
			return nil
		}
	case 'n':
		switch c.name {
		case "instance":
			s.instance = max(arg.number, 0)
			return nil
		case "index":
			s.tests = append(s.tests, func(n *node) bool { return n.index() == arg.number })
			return nil
		}
	case 'e':
		inner, err := compileSelector(arg.expression)
		if err != nil {
			return err
		}
		switch c.name {
		case "childSelector":
			s.child = inner
			return nil
		case "fromParent":
			s.fromParent = inner
			return nil
		}
	}
	return bad
}

// textTest adds a test of a text. As in UiAutomator, contains and startsWith do not tell capitals from small letters.
func (s *uiSelector) textTest(how, want string, value func(*node) string, bad error) error {
	var test func(string) bool
	lower := strings.ToLower(want)
	switch how {
	case "":
		test = func(s string) bool { return s == want }
	case "Contains":
		test = func(s string) bool { return strings.Contains(strings.ToLower(s), lower) }
	case "StartsWith":
		test = func(s string) bool { return strings.HasPrefix(strings.ToLower(s), lower) }
	case "Matches":
		re, err := regexp.Compile(`^(?:` + want + `)$`)
		if err != nil {
			return &selectorError{fmt.Sprintf("pattern %q: %v", want, err)}
		}
		test = re.MatchString
	default:
		return bad
	}
	s.tests = append(s.tests, func(n *node) bool { return test(value(n)) })
	return nil
}

func (s *uiSelector) matches(n *node) bool {
	for _, test := range s.tests {
		if !test(n) {
			return false
		}
	}
	return true
}

// find returns the matches below root, root included, in document order.
func (s *uiSelector) find(root *node) []*node {
	var found []*node
	root.each(func(n *node) bool {
		if s.matches(n) {
			found = append(found, n)
		}
		return s.instance < 0 || len(found) <= s.instance
	})
	if s.instance >= 0 {
		if len(found) <= s.instance {
			return nil
		}
		found = found[s.instance : s.instance+1]
	}
	if s.child == nil && s.fromParent == nil {
		return found
	}
	inner, from := s.child, func(n *node) *node { return n }
	if inner == nil {
		inner, from = s.fromParent, func(n *node) *node { return n.parent }
	}
	var all []*node
	for _, n := range found {
		start := from(n)
		if start == nil {
			continue
		}
		for _, hit := range inner.find(start) {
			if hit != start {
				all = append(all, hit)
			}
		}
	}
	return unique(all)
}

func unique(nodes []*node) []*node {
	seen := map[*node]bool{}
	kept := nodes[:0]
	for _, n := range nodes {
		if !seen[n] {
			seen[n] = true
			kept = append(kept, n)
		}
	}
	return kept
}

// findUI runs a UiAutomator expression on the screen. A UiScrollable scrolls it. It is called with the phone's lock held.
func (s *screenSearch) findUI(selector string) ([]*node, error) {
	list, err := parseUI(selector)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		found, err := s.runUI(e)
		if err != nil || len(found) > 0 {
			return found, err
		}
	}
	return nil, nil
}

func (s *screenSearch) runUI(e *uiExpression) ([]*node, error) {
	if e.class == "UiScrollable" {
		return s.runScrollable(e)
	}
	selector, err := compileSelector(e)
	if err != nil {
		return nil, err
	}
	return selector.find(s.from), nil
}

func (s *screenSearch) runScrollable(e *uiExpression) ([]*node, error) {
	if _, err := compileSelector(e.base); err != nil {
		return nil, err
	}
	var found []*node
	for _, c := range e.calls {
		text := func(i int) string {
			if i < len(c.args) {
				return c.args[i].text
			}
			return ""
		}
		quote := func(method string, i int) *uiExpression {
			return &uiExpression{class: "UiSelector", calls: []uiCall{{method, []uiValue{{kind: 's', text: text(i)}}}}}
		}
		var target *uiExpression
		switch c.name {
		case "setAsVerticalList", "setAsHorizontalList", "setMaxSearchSwipes", "setSwipeDeadZonePercentage":
			continue
		case "scrollForward", "flingForward":
			s.scroll(screenHeight / 2)
			continue
		case "scrollBackward", "flingBackward":
			s.scroll(-screenHeight / 2)
			continue
		case "scrollToEnd", "flingToEnd":
			s.scroll(1 << 20)
			continue
		case "scrollToBeginning", "flingToBeginning":
			s.scroll(-1 << 20)
			continue
		case "scrollIntoView":
			if len(c.args) == 1 && c.args[0].kind == 'e' {
				target = c.args[0].expression
			}
		case "scrollTextIntoView":
			target = quote("text", 0)
		case "scrollDescriptionIntoView":
			target = quote("description", 0)
		case "getChildByText":
			target = quote("text", 1)
		case "getChildByDescription":
			target = quote("description", 1)
		}
		if target == nil {
			return nil, &selectorError{"UiScrollable has no method " + c.name + " with these arguments"}
		}
		selector, err := compileSelector(target)
		if err != nil {
			return nil, err
		}
		found = s.scrollTo(selector)
	}
	return found, nil
}
