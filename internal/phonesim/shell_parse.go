package phonesim

import (
	"errors"
	"fmt"
	"strings"
)

// lastStatus stands in a parsed word for $?, which is known only when the command runs.
const lastStatus = "\x00?"

// shellList is a parsed command line: pipelines, each run or not by how the one before ended.
type shellList []shellPipeline

type shellPipeline struct {
	after    string // "&&" or "||": on what condition it runs; "" always
	commands []shellCommand
}

type shellCommand struct {
	words     []string
	input     string // file to read from
	output    string // file to write to
	appending bool
	errors    string // where standard error goes: a file, "&1" with standard output, "" with the shell's
}

// parseShell reads the part of the shell's language that tools use over adb: quotes, $?, pipes, && || ;
// and redirections. Other variables expand to nothing, as they would on a phone that does not set them.
func parseShell(line string) (shellList, error) {
	tokens, err := shellTokens(line)
	if err != nil {
		return nil, err
	}
	var list shellList
	pipeline := shellPipeline{}
	command := shellCommand{}
	endCommand := func(operator string) error {
		if len(command.words) == 0 {
			return fmt.Errorf("syntax error: unexpected '%s'", operator)
		}
		pipeline.commands = append(pipeline.commands, command)
		command = shellCommand{}
		return nil
	}
	for i := 0; i < len(tokens); i++ {
		t := tokens[i]
		switch {
		case !t.operator:
			command.words = append(command.words, t.text)
		case t.text == "2>&1":
			command.errors = "&1"
		case strings.ContainsAny(t.text, "<>"):
			i++
			if i == len(tokens) || tokens[i].operator {
				return nil, fmt.Errorf("syntax error: '%s' without a file", t.text)
			}
			command.redirect(t.text, tokens[i].text)
		case t.text == "|":
			if err := endCommand("|"); err != nil {
				return nil, err
			}
		default: // ; && ||
			if len(command.words) == 0 && len(pipeline.commands) == 0 && t.text == ";" {
				continue
			}
			if err := endCommand(t.text); err != nil {
				return nil, err
			}
			list = append(list, pipeline)
			pipeline = shellPipeline{}
			if t.text != ";" {
				pipeline.after = t.text
			}
		}
	}
	if len(command.words) > 0 {
		pipeline.commands = append(pipeline.commands, command)
		return append(list, pipeline), nil
	}
	if len(pipeline.commands) > 0 || pipeline.after != "" {
		return nil, errors.New("syntax error: unexpected end of the line")
	}
	return list, nil
}

func (c *shellCommand) redirect(operator, name string) {
	switch operator {
	case "<":
		c.input = name
	case "2>":
		c.errors = name
	default:
		c.output, c.appending = name, operator == ">>"
	}
}

type shellToken struct {
	text     string
	operator bool
}

// shellOperators are tried in order, so that a longer one comes before its beginning.
var shellOperators = [...]string{"2>&1", "2>", "&&", "||", ">>", ">", "<", "|", ";", "\n", "&"}

func shellTokens(line string) ([]shellToken, error) {
	var tokens []shellToken
	var word strings.Builder
	started := false
	endWord := func() {
		if started {
			tokens = append(tokens, shellToken{text: word.String()})
			word.Reset()
			started = false
		}
	}
	for i := 0; i < len(line); {
		c := line[i]
		if c == ' ' || c == '\t' || c == '\r' {
			endWord()
			i++
			continue
		}
		if op := shellOperatorAt(line[i:], started); op != "" {
			endWord()
			i += len(op)
			if op == "\n" || op == "&" {
				op = ";"
			}
			tokens = append(tokens, shellToken{text: op, operator: true})
			continue
		}
		if c == '(' || c == ')' || c == '`' {
			return nil, fmt.Errorf("syntax error: unexpected '%c'", c)
		}
		started = true
		n, err := shellWordPart(line[i:], &word)
		if err != nil {
			return nil, err
		}
		i += n
	}
	endWord()
	return tokens, nil
}

func shellOperatorAt(s string, inWord bool) string {
	for _, op := range shellOperators {
		if strings.HasPrefix(s, op) && (!inWord || op[0] != '2') {
			return op
		}
	}
	return ""
}

// shellWordPart adds the quoted text, escape, variable or character at the start of s to word, and returns its length.
func shellWordPart(s string, word *strings.Builder) (int, error) {
	switch s[0] {
	case '\'':
		end := strings.IndexByte(s[1:], '\'')
		if end < 0 {
			return 0, errors.New("syntax error: no closing quote")
		}
		word.WriteString(s[1 : 1+end])
		return end + 2, nil
	case '"':
		for i := 1; i < len(s); {
			switch {
			case s[i] == '"':
				return i + 1, nil
			case s[i] == '\\' && i+1 < len(s) && strings.IndexByte("\"\\$`", s[i+1]) >= 0:
				word.WriteByte(s[i+1])
				i += 2
			case s[i] == '$':
				i += shellVariable(s[i:], word)
			default:
				word.WriteByte(s[i])
				i++
			}
		}
		return 0, errors.New("syntax error: no closing quote")
	case '\\':
		if len(s) > 1 {
			word.WriteByte(s[1])
			return 2, nil
		}
		return 1, nil
	case '$':
		return shellVariable(s, word), nil
	}
	word.WriteByte(s[0])
	return 1, nil
}

func shellVariable(s string, word *strings.Builder) int {
	if strings.HasPrefix(s, "$?") {
		word.WriteString(lastStatus)
		return 2
	}
	n := 1
	for n < len(s) && (s[n] == '_' || s[n] >= '0' && s[n] <= '9' || s[n]|0x20 >= 'a' && s[n]|0x20 <= 'z') {
		n++
	}
	if n == 1 {
		word.WriteByte('$')
	}
	return n
}
