package phonesim

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// predicate says whether an element fits an NSPredicate: comparisons of an attribute with a constant, joined by AND, OR and NOT.
type predicate func(*node) bool

// parsePredicate reads what people write in selectors: label CONTAINS[c] "sign" AND enabled == 1.
func parsePredicate(text string) (predicate, error) {
	p := &predicateParser{}
	var err error
	if p.tokens, err = predicateTokens(text); err != nil {
		return nil, &selectorError{fmt.Sprintf("predicate %q: %v", text, err)}
	}
	test, err := p.either()
	if err == nil && p.at < len(p.tokens) {
		err = fmt.Errorf("%q is not expected", p.tokens[p.at])
	}
	if err != nil {
		return nil, &selectorError{fmt.Sprintf("predicate %q: %v", text, err)}
	}
	return test, nil
}

var predicateToken = regexp.MustCompile(`^\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|==|!=|<>|>=|<=|=|<|>|\(|\)|&&|\|\||!|[A-Za-z_][A-Za-z0-9_.]*(?:\[[cd]+\])?|-?[0-9.]+)`)

func predicateTokens(text string) ([]string, error) {
	var tokens []string
	for strings.TrimSpace(text) != "" {
		m := predicateToken.FindStringSubmatch(text)
		if m == nil {
			return nil, fmt.Errorf("it cannot be read from %q on", text)
		}
		tokens = append(tokens, m[1])
		text = text[len(m[0]):]
	}
	return tokens, nil
}

type predicateParser struct {
	tokens []string
	at     int
}

func (p *predicateParser) next() string {
	if p.at == len(p.tokens) {
		return ""
	}
	p.at++
	return p.tokens[p.at-1]
}

// take consumes the next token if it is one of these words, in any letter case.
func (p *predicateParser) take(words ...string) bool {
	for _, w := range words {
		if p.at < len(p.tokens) && strings.EqualFold(p.tokens[p.at], w) {
			p.at++
			return true
		}
	}
	return false
}

func (p *predicateParser) either() (predicate, error) {
	left, err := p.both()
	for err == nil && p.take("OR", "||") {
		var right predicate
		if right, err = p.both(); err == nil {
			one := left
			left = func(n *node) bool { return one(n) || right(n) }
		}
	}
	return left, err
}

func (p *predicateParser) both() (predicate, error) {
	left, err := p.term()
	for err == nil && p.take("AND", "&&") {
		var right predicate
		if right, err = p.term(); err == nil {
			one := left
			left = func(n *node) bool { return one(n) && right(n) }
		}
	}
	return left, err
}

func (p *predicateParser) term() (predicate, error) {
	switch {
	case p.take("NOT", "!"):
		inner, err := p.term()
		return func(n *node) bool { return !inner(n) }, err
	case p.take("("):
		inner, err := p.either()
		if err == nil && !p.take(")") {
			err = fmt.Errorf("a ) is missing")
		}
		return inner, err
	}
	return p.comparison()
}

func (p *predicateParser) comparison() (predicate, error) {
	name, op, constant := p.next(), p.next(), p.next()
	if constant == "" {
		return nil, fmt.Errorf("a comparison is not finished")
	}
	if _, ok := (&node{ios: true}).attribute(name); !ok {
		return nil, fmt.Errorf("there is no attribute %q", name)
	}
	want, err := predicateConstant(constant)
	if err != nil {
		return nil, err
	}
	op, options, _ := strings.Cut(strings.TrimSuffix(op, "]"), "[")
	fold := strings.Contains(options, "c")
	if fold {
		want = strings.ToLower(want)
	}
	test, err := predicateOperator(op, want)
	if err != nil {
		return nil, err
	}
	return func(n *node) bool {
		have, _ := n.attribute(name)
		if have == "true" {
			have = "1"
		} else if have == "false" {
			have = "0"
		}
		if fold {
			have = strings.ToLower(have)
		}
		return test(have)
	}, nil
}

func predicateConstant(token string) (string, error) {
	switch {
	case strings.EqualFold(token, "true"), strings.EqualFold(token, "YES"):
		return "1", nil
	case strings.EqualFold(token, "false"), strings.EqualFold(token, "NO"):
		return "0", nil
	case token[0] == '\'':
		token = `"` + strings.ReplaceAll(token[1:len(token)-1], `"`, `\"`) + `"`
	case token[0] != '"':
		_, err := strconv.ParseFloat(token, 64)
		return token, err
	}
	return strconv.Unquote(token)
}

func predicateOperator(op, want string) (func(string) bool, error) {
	switch strings.ToUpper(op) {
	case "==", "=":
		return func(have string) bool { return have == want }, nil
	case "!=", "<>":
		return func(have string) bool { return have != want }, nil
	case "CONTAINS":
		return func(have string) bool { return strings.Contains(have, want) }, nil
	case "BEGINSWITH":
		return func(have string) bool { return strings.HasPrefix(have, want) }, nil
	case "ENDSWITH":
		return func(have string) bool { return strings.HasSuffix(have, want) }, nil
	case "LIKE":
		want = strings.NewReplacer(`\*`, ".*", `\?`, ".").Replace(regexp.QuoteMeta(want))
		fallthrough
	case "MATCHES":
		re, err := regexp.Compile(`^(?s:` + want + `)$`)
		if err != nil {
			return nil, err
		}
		return re.MatchString, nil
	}
	return nil, fmt.Errorf("the operator %q is unknown", op)
}
