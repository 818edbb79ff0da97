package phonesim

import (
	"errors"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// xpathNode is what XPath sees: the document, the elements below it, and attributes.
type xpathNode struct {
	name     string
	node     *node // of an element on the screen
	parent   *xpathNode
	children []*xpathNode
	order    int
	// attribute is the value of an attribute, whose name is name.
	attribute   string
	isAttribute bool
}

// xpathValue is a value of one of XPath's four types.
type xpathValue struct {
	kind   byte // s string, n number, b boolean, N nodes
	text   string
	number float64
	flag   bool
	nodes  []*xpathNode
}

type xpathContext struct {
	node           *xpathNode
	position, size int
	document       *xpathNode
	work           *int // how many more nodes may be looked at
}

// maxXPathWork bounds an evaluation: predicates within predicates multiply.
const maxXPathWork = 1 << 20

var xpathAxes = map[string]bool{
	"child": true, "descendant": true, "descendant-or-self": true, "parent": true, "self": true, "ancestor": true, "ancestor-or-self": true,
	"following-sibling": true, "preceding-sibling": true, "following": true, "preceding": true, "attribute": true,
}

// find returns the elements that x selects. Below an element of the screen it sees only what is in it.
func (x *xpath) find(from *node) ([]*node, error) {
	document := &xpathNode{}
	order := 0
	var grow func(parent *xpathNode, n *node)
	grow = func(parent *xpathNode, n *node) {
		order++
		e := &xpathNode{name: n.tag(), node: n, parent: parent, order: order}
		parent.children = append(parent.children, e)
		for _, c := range n.children {
			grow(e, c)
		}
	}
	start := document
	if from.parent == nil {
		order++
		hierarchy := &xpathNode{name: "hierarchy", parent: document, order: order}
		document.children = []*xpathNode{hierarchy}
		grow(hierarchy, from)
	} else {
		grow(document, from)
		start = document.children[0]
	}
	work := maxXPathWork
	v, err := x.expr.eval(xpathContext{node: start, position: 1, size: 1, document: document, work: &work})
	if err != nil {
		return nil, &selectorError{"cannot evaluate XPath: " + err.Error()}
	}
	if v.kind != 'N' {
		return nil, &selectorError{"the XPath does not select elements"}
	}
	var found []*node
	for _, n := range v.nodes {
		if n.isAttribute {
			return nil, &selectorError{"the XPath selects attributes, not elements"}
		}
		if n.node != nil {
			found = append(found, n.node)
		}
	}
	return found, nil
}

func (n *xpathNode) axis(axis string) []*xpathNode {
	var list []*xpathNode
	siblings := func() ([]*xpathNode, int) {
		if n.parent == nil || n.isAttribute {
			return nil, 0
		}
		return n.parent.children, slices.Index(n.parent.children, n)
	}
	switch axis {
	case "child":
		return n.children
	case "self":
		return []*xpathNode{n}
	case "parent":
		if n.parent != nil {
			list = append(list, n.parent)
		}
	case "descendant":
		return n.descendants(nil)
	case "descendant-or-self":
		return n.descendants([]*xpathNode{n})
	case "ancestor-or-self", "ancestor":
		if axis == "ancestor-or-self" {
			list = append(list, n)
		}
		for a := n.parent; a != nil; a = a.parent {
			list = append(list, a)
		}
	case "following-sibling":
		if all, i := siblings(); len(all) > 0 {
			return all[i+1:]
		}
	case "preceding-sibling":
		all, i := siblings()
		for i--; i >= 0; i-- {
			list = append(list, all[i])
		}
	case "following":
		for a := n; a != nil; a = a.parent {
			for _, s := range a.axis("following-sibling") {
				list = s.descendants(append(list, s))
			}
		}
	case "preceding":
		for a := n; a != nil; a = a.parent {
			for _, s := range a.axis("preceding-sibling") {
				list = s.descendants(append(list, s))
			}
		}
		slices.SortFunc(list, func(a, b *xpathNode) int { return b.order - a.order })
	case "attribute":
		return n.attributes()
	}
	return list
}

func (n *xpathNode) descendants(list []*xpathNode) []*xpathNode {
	for _, c := range n.children {
		list = c.descendants(append(list, c))
	}
	return list
}

func (n *xpathNode) attributes() []*xpathNode {
	if n.node == nil || n.isAttribute {
		return nil
	}
	var list []*xpathNode
	for _, name := range n.node.attributeNames() {
		value, _ := n.node.attribute(name)
		list = append(list, &xpathNode{name: name, parent: n, attribute: value, isAttribute: true, order: n.order})
	}
	return list
}

func (s *xpathStep) matches(n *xpathNode) bool {
	switch s.name {
	case "node()":
		return true
	case "text()":
		return false // the page source has no text outside of attributes
	case "*":
		return n.name != ""
	}
	return n.name == s.name
}

func (p *xpathPath) eval(c xpathContext) (xpathValue, error) {
	current := []*xpathNode{c.node}
	if p.absolute {
		current = []*xpathNode{c.document}
	}
	if p.start != nil {
		v, err := p.start.eval(c)
		if err != nil {
			return v, err
		}
		if v.kind != 'N' {
			return v, errors.New("a path begins with what are no elements")
		}
		if current, err = xpathFilter(v.nodes, p.filters, c); err != nil {
			return v, err
		}
	}
	for i := range p.steps {
		var next []*xpathNode
		for _, n := range current {
			var hits []*xpathNode
			candidates := n.axis(p.steps[i].axis)
			if *c.work -= len(candidates) + 1; *c.work < 0 {
				return xpathValue{}, errors.New("it looks at too many elements")
			}
			for _, candidate := range candidates {
				if p.steps[i].matches(candidate) {
					hits = append(hits, candidate)
				}
			}
			hits, err := xpathFilter(hits, p.steps[i].predicates, c)
			if err != nil {
				return xpathValue{}, err
			}
			next = append(next, hits...)
		}
		current = inDocumentOrder(next)
	}
	return xpathValue{kind: 'N', nodes: current}, nil
}

func inDocumentOrder(nodes []*xpathNode) []*xpathNode {
	slices.SortStableFunc(nodes, func(a, b *xpathNode) int { return a.order - b.order })
	return slices.CompactFunc(nodes, func(a, b *xpathNode) bool { return a == b })
}

// xpathFilter keeps the nodes for which every predicate holds. A number is a position.
func xpathFilter(nodes []*xpathNode, predicates []xpathExpr, c xpathContext) ([]*xpathNode, error) {
	for _, predicate := range predicates {
		var kept []*xpathNode
		for i, n := range nodes {
			v, err := predicate.eval(xpathContext{n, i + 1, len(nodes), c.document, c.work})
			if err != nil {
				return nil, err
			}
			if v.kind == 'n' && v.number == float64(i+1) || v.kind != 'n' && v.boolean() {
				kept = append(kept, n)
			}
		}
		nodes = kept
	}
	return nodes, nil
}

func (l *xpathLiteral) eval(xpathContext) (xpathValue, error) { return l.value, nil }

func (n *xpathNegative) eval(c xpathContext) (xpathValue, error) {
	v, err := n.of.eval(c)
	return xpathValue{kind: 'n', number: -v.asNumber()}, err
}

func (b *xpathBinary) eval(c xpathContext) (xpathValue, error) {
	left, err := b.left.eval(c)
	if err != nil {
		return left, err
	}
	if b.op == "or" && left.boolean() || b.op == "and" && !left.boolean() {
		return xpathBool(b.op == "or"), nil
	}
	right, err := b.right.eval(c)
	if err != nil {
		return right, err
	}
	x, y := left.asNumber(), right.asNumber()
	number := func(f float64) (xpathValue, error) { return xpathValue{kind: 'n', number: f}, nil }
	switch b.op {
	case "or", "and":
		return xpathBool(right.boolean()), nil
	case "|":
		if left.kind != 'N' || right.kind != 'N' {
			return left, errors.New("| joins what are no elements")
		}
		return xpathValue{kind: 'N', nodes: inDocumentOrder(append(slices.Clone(left.nodes), right.nodes...))}, nil
	case "+":
		return number(x + y)
	case "-":
		return number(x - y)
	case "*":
		return number(x * y)
	case "div":
		return number(x / y)
	case "mod":
		return number(math.Mod(x, y))
	}
	return xpathBool(xpathCompare(b.op, left, right)), nil
}

func xpathBool(b bool) xpathValue { return xpathValue{kind: 'b', flag: b} }

// xpathCompare compares as XPath 1.0 says: nodes match when one of them does.
func xpathCompare(op string, left, right xpathValue) bool {
	if left.kind == 'N' && right.kind != 'b' {
		for _, n := range left.nodes {
			if xpathCompare(op, xpathValue{kind: 's', text: n.text()}, right) {
				return true
			}
		}
		return false
	}
	if right.kind == 'N' && left.kind != 'b' {
		for _, n := range right.nodes {
			if xpathCompare(op, left, xpathValue{kind: 's', text: n.text()}) {
				return true
			}
		}
		return false
	}
	if op == "=" || op == "!=" {
		var equal bool
		switch {
		case left.kind == 'b' || right.kind == 'b':
			equal = left.boolean() == right.boolean()
		case left.kind == 'n' || right.kind == 'n':
			equal = left.asNumber() == right.asNumber()
		default:
			equal = left.text == right.text
		}
		return equal == (op == "=")
	}
	x, y := left.asNumber(), right.asNumber()
	switch op {
	case "<":
		return x < y
	case ">":
		return x > y
	case "<=":
		return x <= y
	}
	return x >= y
}

// text is the string value of a node. Elements have none: what they show is in attributes.
func (n *xpathNode) text() string { return n.attribute }

func (v xpathValue) asString() string {
	switch v.kind {
	case 's':
		return v.text
	case 'n':
		return strconv.FormatFloat(v.number, 'f', -1, 64)
	case 'b':
		return strconv.FormatBool(v.flag)
	}
	if len(v.nodes) == 0 {
		return ""
	}
	return v.nodes[0].text()
}

func (v xpathValue) asNumber() float64 {
	switch v.kind {
	case 'n':
		return v.number
	case 'b':
		if v.flag {
			return 1
		}
		return 0
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(v.asString()), 64)
	if err != nil {
		return math.NaN()
	}
	return f
}

func (v xpathValue) boolean() bool {
	switch v.kind {
	case 's':
		return v.text != ""
	case 'n':
		return v.number != 0 && !math.IsNaN(v.number)
	case 'b':
		return v.flag
	}
	return len(v.nodes) > 0
}

type xpathArity struct{ least, most int }

// xpathFunctions are the functions that are supported, with how many arguments they take.
var xpathFunctions = map[string]xpathArity{
	"last": {0, 0}, "position": {0, 0}, "count": {1, 1}, "name": {0, 1}, "local-name": {0, 1},
	"string": {0, 1}, "concat": {2, 100}, "starts-with": {2, 2}, "ends-with": {2, 2}, "contains": {2, 2}, "matches": {2, 2},
	"substring-before": {2, 2}, "substring-after": {2, 2}, "string-length": {0, 1}, "normalize-space": {0, 1}, "translate": {3, 3},
	"lower-case": {1, 1}, "upper-case": {1, 1}, "boolean": {1, 1}, "not": {1, 1}, "true": {0, 0}, "false": {0, 0}, "number": {0, 1},
}

func (f *xpathCall) eval(c xpathContext) (xpathValue, error) {
	args := make([]xpathValue, len(f.args))
	for i, a := range f.args {
		v, err := a.eval(c)
		if err != nil {
			return v, err
		}
		args[i] = v
	}
	if len(args) == 0 {
		args = []xpathValue{{kind: 'N', nodes: []*xpathNode{c.node}}} // what most functions take when given nothing
	}
	number := func(n int) (xpathValue, error) { return xpathValue{kind: 'n', number: float64(n)}, nil }
	switch f.name {
	case "last":
		return number(c.size)
	case "position":
		return number(c.position)
	case "count", "name", "local-name":
		if args[0].kind != 'N' {
			return xpathValue{}, errors.New(f.name + "() takes elements")
		}
		if f.name == "count" {
			return number(len(args[0].nodes))
		}
		if len(args[0].nodes) == 0 {
			return xpathValue{kind: 's'}, nil
		}
		return xpathValue{kind: 's', text: args[0].nodes[0].name}, nil
	case "boolean":
		return xpathBool(args[0].boolean()), nil
	case "not":
		return xpathBool(!args[0].boolean()), nil
	case "true", "false":
		return xpathBool(f.name == "true"), nil
	case "number":
		return xpathValue{kind: 'n', number: args[0].asNumber()}, nil
	}
	texts := make([]string, len(args))
	for i, a := range args {
		texts[i] = a.asString()
	}
	return xpathText(f.name, texts)
}

// xpathText calls a function on strings.
func xpathText(name string, a []string) (xpathValue, error) {
	text := func(s string) (xpathValue, error) { return xpathValue{kind: 's', text: s}, nil }
	switch name {
	case "concat":
		return text(strings.Join(a, ""))
	case "starts-with":
		return xpathBool(strings.HasPrefix(a[0], a[1])), nil
	case "ends-with":
		return xpathBool(strings.HasSuffix(a[0], a[1])), nil
	case "contains":
		return xpathBool(strings.Contains(a[0], a[1])), nil
	case "matches":
		re, err := regexp.Compile(a[1])
		if err != nil {
			return xpathValue{}, err
		}
		return xpathBool(re.MatchString(a[0])), nil
	case "substring-before":
		before, _, found := strings.Cut(a[0], a[1])
		if !found {
			before = ""
		}
		return text(before)
	case "substring-after":
		_, after, _ := strings.Cut(a[0], a[1])
		return text(after)
	case "string-length":
		return xpathValue{kind: 'n', number: float64(utf8.RuneCountInString(a[0]))}, nil
	case "normalize-space":
		return text(strings.Join(strings.Fields(a[0]), " "))
	case "translate":
		to := []rune(a[2])
		return text(strings.Map(func(r rune) rune {
			i := slices.Index([]rune(a[1]), r)
			switch {
			case i < 0:
				return r
			case i < len(to):
				return to[i]
			}
			return -1
		}, a[0]))
	case "lower-case":
		return text(strings.ToLower(a[0]))
	case "upper-case":
		return text(strings.ToUpper(a[0]))
	}
	return text(a[0]) // string()
}
