package phonesim

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// The classes that a model may call by a short name.
var classNames = map[string]string{
	"text":     "android.widget.TextView",
	"button":   "android.widget.Button",
	"edit":     "android.widget.EditText",
	"image":    "android.widget.ImageView",
	"checkbox": "android.widget.CheckBox",
	"switch":   "android.widget.Switch",
	"group":    "android.view.ViewGroup",
	"list":     "androidx.recyclerview.widget.RecyclerView",
}

// className is the Android class that an element is shown as.
func (e *Element) className() string {
	class := e.Class
	switch {
	case class != "":
	case e.Editable:
		class = "edit"
	case e.Checkable:
		class = "checkbox"
	case len(e.Items) > 0:
		class = "list"
	case len(e.Elements) > 0:
		class = "group"
	default:
		class = "text"
	}
	if full, ok := classNames[class]; ok {
		return full
	}
	return class
}

// variable is where an editable or checkable element keeps its value.
func (e *Element) variable() string {
	if e.Input != "" {
		return e.Input
	}
	return e.ID
}

// builtIn are the variables that the phone itself gives a value.
var builtIn = []string{"item", "app.package", "app.version_name", "app.version_code"}

const (
	maxNesting = 20
	// maxHops bounds how many screens one event may pass through, each sending on to the next as it comes up.
	maxHops = 10
)

// Validate says what is wrong with the model: every fault that it finds, each with its place.
func (m Model) Validate() error {
	v := validator{model: m, known: map[string]bool{}}
	for _, name := range builtIn {
		v.known[name] = true
	}
	for name := range m.Vars {
		v.known[name] = true
	}
	for _, name := range sortedKeys(m.Screens) {
		s := m.Screens[name]
		v.collectBranches(s.Enter)
		v.collect(s.Elements, 0)
	}
	if len(m.Screens) == 0 {
		v.add("screens", "there are none")
	} else if _, ok := m.Screens[m.Start]; !ok {
		v.add("start", "there is no screen %q", m.Start)
	}
	for _, name := range m.Persistent {
		if !v.known[name] {
			v.add("persistent", "nothing sets a variable %q", name)
		}
	}
	for _, name := range sortedKeys(m.Vars) {
		v.name("vars", name)
	}
	for _, name := range sortedKeys(m.Screens) {
		v.screen(name, m.Screens[name])
	}
	return errors.Join(v.faults...)
}

type validator struct {
	model  Model
	known  map[string]bool // variables that something gives a value
	faults []error
}

func (v *validator) add(place, format string, a ...any) {
	const enough = 20
	if len(v.faults) < enough {
		v.faults = append(v.faults, fmt.Errorf("app model: %s: %s", place, fmt.Sprintf(format, a...)))
	}
}

func (v *validator) collect(elements []Element, depth int) {
	if depth > maxNesting {
		return // reported by elements
	}
	for i := range elements {
		e := &elements[i]
		if e.Editable || e.Checkable {
			v.known[e.variable()] = true
		}
		v.collectBranches(e.Tap)
		v.collectBranches(e.Submit)
		v.collect(e.Elements, depth+1)
	}
}

func (v *validator) collectBranches(branches []Branch) {
	for _, b := range branches {
		for _, effect := range append([]Effect{b.Effect}, b.Outcomes...) {
			for name := range effect.Set {
				v.known[name] = true
			}
			for name := range effect.Add {
				v.known[name] = true
			}
		}
	}
}

func (v *validator) screen(name string, s Screen) {
	place := fmt.Sprintf("screens.%s", name)
	v.template(place+".title", s.Title)
	v.branches(place+".enter", s.Enter)
	v.elements(place, s.Elements, map[string]bool{}, 0)
}

func (v *validator) elements(place string, elements []Element, ids map[string]bool, depth int) {
	if depth > maxNesting {
		v.add(place, "elements are nested more than %d deep", maxNesting)
		return
	}
	for i := range elements {
		e := &elements[i]
		at := fmt.Sprintf("%s.elements[%d]", place, i)
		if e.ID != "" {
			at = fmt.Sprintf("%s.elements[%d, id %q]", place, i, e.ID)
			if ids[e.ID] {
				v.add(at, "the screen has two elements of this id")
			}
			ids[e.ID] = true
		}
		v.element(at, e)
		v.elements(at, e.Elements, ids, depth+1)
	}
}

func (v *validator) element(at string, e *Element) {
	if _, short := classNames[e.Class]; e.Class != "" && !short && !classPattern.MatchString(e.Class) {
		v.add(at+".class", "%q is neither one of %s nor the full name of a class", e.Class, strings.Join(sortedKeys(classNames), ", "))
	}
	for what, text := range map[string]string{"text": e.Text, "content_desc": e.ContentDesc, "hint": e.Hint} {
		v.template(at+"."+what, text)
	}
	for _, item := range e.Items {
		v.template(at+".items", item)
	}
	switch {
	case e.Editable && e.Checkable:
		v.add(at, "an element is editable or checkable, not both")
	case (e.Editable || e.Checkable) && e.variable() == "":
		v.add(at, "an editable or checkable element needs an id or an input to keep its value in")
	case e.Editable || e.Checkable:
		v.name(at+".input", e.variable())
	case e.Password || e.Hint != "" || e.Input != "" || len(e.Submit) > 0:
		v.add(at, "password, hint, input and submit are for editable elements")
	}
	if len(e.Items) > 0 && len(e.Elements) > 0 {
		v.add(at, "an element has items or elements, not both")
	}
	if e.AppearsAfterMS < 0 || e.DisappearsAfterMS < 0 {
		v.add(at, "a time is negative")
	}
	v.conditions(at+".when", e.When)
	v.branches(at+".tap", e.Tap)
	v.branches(at+".submit", e.Submit)
}

var (
	classPattern    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_$]*)+$`)
	variablePattern = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.:/-]*$`)
)

func (v *validator) branches(place string, branches []Branch) {
	for i, b := range branches {
		at := fmt.Sprintf("%s[%d]", place, i)
		v.conditions(at+".when", b.When)
		v.effect(at, b.Effect)
		switch {
		case len(b.Outcomes) == 0 && b.Remember != "":
			v.add(at, "remember is for outcomes")
		case b.Remember != "" && b.Remember != rememberLaunch && b.Remember != rememberData && b.Remember != rememberPhone:
			v.add(at+".remember", "%q is none of launch, data, phone", b.Remember)
		case len(b.Outcomes) > 0 && !b.Effect.empty():
			v.add(at, "has both outcomes and an effect of its own")
		}
		for j, o := range b.Outcomes {
			v.effect(fmt.Sprintf("%s.outcomes[%d]", at, j), o)
		}
	}
}

func (v *validator) effect(at string, e Effect) {
	if e.Go != "" {
		if _, ok := v.model.Screens[e.Go]; !ok {
			v.add(at+".go", "there is no screen %q", e.Go)
		}
	}
	if e.AfterMS < 0 {
		v.add(at+".after_ms", "a time is negative")
	}
	for _, name := range sortedKeys(e.Set) {
		v.settable(at+".set", name)
		v.template(at+".set."+name, e.Set[name])
	}
	for _, name := range sortedKeys(e.Add) {
		v.settable(at+".add", name)
	}
}

func (v *validator) settable(at, name string) {
	v.name(at, name)
	if slices.Contains(builtIn, name) {
		v.add(at, "%q is the phone's own variable", name)
	}
}

func (v *validator) name(at, name string) {
	if !variablePattern.MatchString(name) {
		v.add(at, "%q cannot be a variable's name", name)
	}
}

func (v *validator) conditions(at string, c Conditions) {
	for _, name := range sortedKeys(c) {
		if !v.known[name] {
			v.add(at, "nothing sets a variable %q", name)
		}
		if m := c[name]; m.Equals == nil && m.Not == nil && m.Matches == nil {
			v.add(at, "the condition on %q is empty", name)
		}
	}
}

func (v *validator) template(at, text string) {
	_, err := expand(text, func(name string) (string, error) {
		if !v.known[name] {
			return "", fmt.Errorf("nothing sets a variable %q", name)
		}
		return "", nil
	})
	if err != nil {
		v.add(at, "%v", err)
	}
}

// expand replaces each ${name} in text by its value.
func expand(text string, value func(name string) (string, error)) (string, error) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(text, "${")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			return "", fmt.Errorf("%q has a ${ without a }", text)
		}
		s, err := value(name)
		if err != nil {
			return "", err
		}
		b.WriteString(s)
		text = after
	}
}

func (e Effect) empty() bool {
	return len(e.Set) == 0 && len(e.Add) == 0 && e.Go == "" && !e.Back && !e.Crash && e.AfterMS == 0
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
