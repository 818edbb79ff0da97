package phonesim

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// xpathExpr is a node of a parsed XPath 1.0 expression.
type xpathExpr interface {
	eval(c xpathContext) (xpathValue, error)
}

type (
	xpathLiteral struct{ value xpathValue }
	// xpathBinary is an operator between two expressions.
	xpathBinary struct {
		op          string
		left, right xpathExpr
	}
	xpathNegative struct{ of xpathExpr }
	xpathCall     struct {
		name string
		args []xpathExpr
	}
	// xpathPath is a location path. Without a start it begins at the context, or at the document when absolute.
	xpathPath struct {
		start    xpathExpr
		filters  []xpathExpr // predicates on the start
		absolute bool
		steps    []xpathStep
	}
	xpathStep struct {
		axis       string
		name       string // "*" for any, "node()" and "text()" for these tests
		predicates []xpathExpr
	}
)

// xpath is an expression that selects elements.
type xpath struct{ expr xpathExpr }

// parseXPath reads an expression of XPath 1.0, with some functions of 2.0 that the UiAutomator2 server has, too. Its error is a *selectorError.
func parseXPath(text string) (*xpath, error) {
	p := xpathParser{}
	err := p.lex(text)
	if err == nil {
		var e xpathExpr
		if e, err = p.expression(0); err == nil {
			if p.at == len(p.tokens) {
				return &xpath{e}, nil
			}
			err = fmt.Errorf("unexpected %q", p.tokens[p.at].text)
		}
	}
	return nil, &selectorError{fmt.Sprintf("cannot parse XPath %q: %v", text, err)}
}

type xpathToken struct {
	kind byte // n name, s string, d number, o operator or punctuation
	text string
}

type xpathParser struct {
	tokens []xpathToken
	at     int
}

// xpathSigns are tried in order, so that a longer one comes before its beginning.
var xpathSigns = []string{"::", "//", "..", "!=", "<=", ">=", "(", ")", "[", "]", ".", "@", ",", "/", "|", "+", "-", "=", "<", ">", "*"}

func (p *xpathParser) lex(s string) error {
	for i := 0; i < len(s); {
		c := s[i]
		switch {
		case strings.IndexByte(" \t\r\n", c) >= 0:
			i++
		case c == '"' || c == '\'':
			end := strings.IndexByte(s[i+1:], c)
			if end < 0 {
				return errors.New("a string has no end")
			}
			p.tokens = append(p.tokens, xpathToken{'s', s[i+1 : i+1+end]})
			i += end + 2
		case c >= '0' && c <= '9':
			n := i
			for n < len(s) && (s[n] >= '0' && s[n] <= '9' || s[n] == '.') {
				n++
			}
			p.tokens = append(p.tokens, xpathToken{'d', s[i:n]})
			i = n
		case xpathNameByte(c) && c != '-' && c != '.':
			n := i
			for n < len(s) && xpathNameByte(s[n]) {
				n++
			}
			p.tokens = append(p.tokens, xpathToken{'n', s[i:n]})
			i = n
		default:
			sign := ""
			for _, t := range xpathSigns {
				if strings.HasPrefix(s[i:], t) {
					sign = t
					break
				}
			}
			if sign == "" {
				return fmt.Errorf("unexpected %q", c)
			}
			p.tokens = append(p.tokens, xpathToken{'o', sign})
			i += len(sign)
		}
	}
	return nil
}

func xpathNameByte(c byte) bool {
	return c == '_' || c == '-' || c == '.' || c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c >= 0x80
}

func (p *xpathParser) peek(kind byte, text string) bool {
	return p.at < len(p.tokens) && p.tokens[p.at].kind == kind && p.tokens[p.at].text == text
}

func (p *xpathParser) sign(text string) bool {
	if p.peek('o', text) {
		p.at++
		return true
	}
	return false
}

func (p *xpathParser) expect(text string) error {
	if p.sign(text) {
		return nil
	}
	return fmt.Errorf("expected %q", text)
}

// xpathOperators are the binary operators from the loosest to the tightest.
var xpathOperators = [][]string{{"or"}, {"and"}, {"=", "!="}, {"<=", ">=", "<", ">"}, {"+", "-"}, {"*", "div", "mod"}}

// expression parses the operators of one level and all that bind tighter.
func (p *xpathParser) expression(depth int) (xpathExpr, error) { return p.binary(0, depth) }

func (p *xpathParser) binary(level, depth int) (xpathExpr, error) {
	if depth > maxSelectorNesting {
		return nil, fmt.Errorf("nested more than %d deep", maxSelectorNesting)
	}
	if level == len(xpathOperators) {
		return p.unary(depth)
	}
	left, err := p.binary(level+1, depth)
	for err == nil {
		op := p.operator(xpathOperators[level])
		if op == "" {
			return left, nil
		}
		var right xpathExpr
		if right, err = p.binary(level+1, depth); err == nil {
			left = &xpathBinary{op, left, right}
		}
	}
	return nil, err
}

func (p *xpathParser) operator(ops []string) string {
	for _, op := range ops {
		if p.sign(op) {
			return op
		}
		if p.peek('n', op) {
			p.at++
			return op
		}
	}
	return ""
}

func (p *xpathParser) unary(depth int) (xpathExpr, error) {
	if p.sign("-") {
		of, err := p.unary(depth + 1)
		if depth > maxSelectorNesting {
			return nil, fmt.Errorf("nested more than %d deep", maxSelectorNesting)
		}
		return &xpathNegative{of}, err
	}
	left, err := p.path(depth)
	for err == nil && p.sign("|") {
		var right xpathExpr
		if right, err = p.path(depth); err == nil {
			left = &xpathBinary{"|", left, right}
		}
	}
	return left, err
}

func (p *xpathParser) path(depth int) (xpathExpr, error) {
	e := &xpathPath{}
	var err error
	switch {
	case p.startsPrimary():
		if e.start, err = p.primary(depth); err != nil {
			return nil, err
		}
		if e.filters, err = p.predicates(depth); err != nil {
			return nil, err
		}
		switch {
		case p.sign("//"):
			e.steps = append(e.steps, xpathStep{axis: "descendant-or-self", name: "node()"})
		case p.sign("/"):
		case len(e.filters) == 0:
			return e.start, nil
		default:
			return e, nil
		}
	case p.sign("//"):
		e.absolute = true
		e.steps = append(e.steps, xpathStep{axis: "descendant-or-self", name: "node()"})
	case p.sign("/"):
		e.absolute = true
		if p.at == len(p.tokens) {
			return e, nil
		}
	}
	for {
		step, err := p.step(depth)
		if err != nil {
			return nil, err
		}
		e.steps = append(e.steps, step)
		switch {
		case p.sign("//"):
			e.steps = append(e.steps, xpathStep{axis: "descendant-or-self", name: "node()"})
		case p.sign("/"):
		default:
			return e, nil
		}
	}
}

// startsPrimary tells what is a literal, a call or in parentheses from the beginning of a step.
func (p *xpathParser) startsPrimary() bool {
	if p.at == len(p.tokens) {
		return false
	}
	switch t := p.tokens[p.at]; t.kind {
	case 's', 'd':
		return true
	case 'o':
		return t.text == "("
	default:
		call := p.at+1 < len(p.tokens) && p.tokens[p.at+1] == xpathToken{'o', "("}
		return call && t.text != "node" && t.text != "text"
	}
}

func (p *xpathParser) primary(depth int) (xpathExpr, error) {
	t := p.tokens[p.at]
	p.at++
	switch t.kind {
	case 's':
		return &xpathLiteral{xpathValue{kind: 's', text: t.text}}, nil
	case 'd':
		f, err := strconv.ParseFloat(t.text, 64)
		return &xpathLiteral{xpathValue{kind: 'n', number: f}}, err
	case 'o': // an opening parenthesis
		e, err := p.expression(depth + 1)
		if err != nil {
			return nil, err
		}
		return e, p.expect(")")
	}
	c := &xpathCall{name: t.text}
	arity, known := xpathFunctions[t.text]
	if !known {
		return nil, fmt.Errorf("unsupported function %s()", t.text)
	}
	p.at++ // the parenthesis that startsPrimary saw
	for !p.sign(")") {
		if len(c.args) > 0 {
			if err := p.expect(","); err != nil {
				return nil, err
			}
		}
		arg, err := p.expression(depth + 1)
		if err != nil {
			return nil, err
		}
		c.args = append(c.args, arg)
	}
	if len(c.args) < arity.least || len(c.args) > arity.most {
		return nil, fmt.Errorf("%s() does not take %d arguments", c.name, len(c.args))
	}
	return c, nil
}

func (p *xpathParser) step(depth int) (xpathStep, error) {
	s := xpathStep{axis: "child"}
	switch {
	case p.sign(".."):
		return xpathStep{axis: "parent", name: "node()"}, nil
	case p.sign("."):
		return xpathStep{axis: "self", name: "node()"}, nil
	case p.sign("@"):
		s.axis = "attribute"
	case p.at+1 < len(p.tokens) && p.tokens[p.at].kind == 'n' && p.tokens[p.at+1] == xpathToken{'o', "::"}:
		s.axis = p.tokens[p.at].text
		if !xpathAxes[s.axis] {
			return s, fmt.Errorf("unsupported axis %s", s.axis)
		}
		p.at += 2
	}
	if err := p.nodeTest(&s); err != nil {
		return s, err
	}
	var err error
	s.predicates, err = p.predicates(depth)
	return s, err
}

func (p *xpathParser) nodeTest(s *xpathStep) error {
	switch {
	case p.sign("*"):
		s.name = "*"
	case p.at < len(p.tokens) && p.tokens[p.at].kind == 'n':
		s.name = p.tokens[p.at].text
		p.at++
		if p.sign("(") {
			s.name += "()"
			return p.expect(")")
		}
	case p.at < len(p.tokens):
		return fmt.Errorf("unexpected %q", p.tokens[p.at].text)
	default:
		return errors.New("unexpected end")
	}
	return nil
}

func (p *xpathParser) predicates(depth int) ([]xpathExpr, error) {
	var list []xpathExpr
	for p.sign("[") {
		e, err := p.expression(depth + 1)
		if err == nil {
			err = p.expect("]")
		}
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, nil
}
