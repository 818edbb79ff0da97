package phonesim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
)

// Model describes what an app shows and does. It is the asset assets/phonesim.json of an APK.
//
// Texts are templates: ${name} is replaced by the value of a variable. Variables are those listed in Vars, those that
// effects set, what is typed into editable elements (under the element's Input, else its ID), ${item} (the list row last tapped),
// and ${app.package}, ${app.version_name} and ${app.version_code}.
type Model struct {
	// Start names the screen that a launch of the app shows.
	Start string `json:"start"`
	// Vars are the variables' first values.
	Vars map[string]string `json:"vars,omitempty"`
	// Persistent names the variables that are kept in the app's data: they outlive the app's process and its update,
	// not `pm clear` or its removal. All others begin anew with each launch.
	Persistent []string          `json:"persistent,omitempty"`
	Screens    map[string]Screen `json:"screens"`
}

// Screen is one page of the app.
type Screen struct {
	Title string `json:"title,omitempty"`
	// Enter happens whenever the screen comes up.
	Enter    []Branch  `json:"enter,omitempty"`
	Elements []Element `json:"elements"`
}

// Element is one widget on a screen. Elements are laid out from top to bottom in their order.
type Element struct {
	// ID is the resource-id, exactly as selectors see it: "login" as React Native and Compose have it, "com.example:id/login" as older views do.
	ID string `json:"id,omitempty"`
	// Class is text, button, edit, image, checkbox, switch, group or list, or the full name of an Android class. Default: edit
	// when editable, list when there are items, group when there are elements, else text.
	Class       string `json:"class,omitempty"`
	Text        string `json:"text,omitempty"`
	ContentDesc string `json:"content_desc,omitempty"`
	// Hint is shown by an editable element while it is empty.
	Hint     string `json:"hint,omitempty"`
	Editable bool   `json:"editable,omitempty"`
	// Password makes an editable element show dots.
	Password bool `json:"password,omitempty"`
	// Checkable elements turn their variable between "true" and "false" when tapped.
	Checkable bool `json:"checkable,omitempty"`
	// Input names the variable that an editable or checkable element keeps its value in. Default: ID.
	Input    string     `json:"input,omitempty"`
	Disabled bool       `json:"disabled,omitempty"`
	When     Conditions `json:"when,omitempty"` // the element is there only while these hold
	// AppearsAfterMS and DisappearsAfterMS count from when the screen came up; 0: at once, and never.
	AppearsAfterMS    int      `json:"appears_after_ms,omitempty"`
	DisappearsAfterMS int      `json:"disappears_after_ms,omitempty"`
	Tap               []Branch `json:"tap,omitempty"`
	// Submit happens when Enter is pressed in an editable element.
	Submit []Branch `json:"submit,omitempty"`
	// Items are the rows of a list. A tap on a row sets ${item} to its text, then does what Tap says.
	Items    []string  `json:"items,omitempty"`
	Elements []Element `json:"elements,omitempty"`
}

// Branch is one thing that may happen; of several, the first whose conditions hold.
type Branch struct {
	When Conditions `json:"when,omitempty"`
	Effect
	// Outcomes replace the effect by successive ones: the first time the first, the second time the second, the last for ever.
	Outcomes []Effect `json:"outcomes,omitempty"`
	// Remember says how long the count of Outcomes lives: "launch" until the app's process ends (default), "data" until the app's data are
	// cleared or it is removed, "phone" as long as the phone, as if a server counted.
	Remember string `json:"remember,omitempty"`
}

// Effect is what a tap does, in the order of the fields.
type Effect struct {
	Set map[string]string `json:"set,omitempty"`
	Add map[string]int    `json:"add,omitempty"`
	// Go shows another screen.
	Go string `json:"go,omitempty"`
	// Back does what the back key does.
	Back bool `json:"back,omitempty"`
	// Crash ends the app's process.
	Crash bool `json:"crash,omitempty"`
	// AfterMS delays the effect.
	AfterMS int `json:"after_ms,omitempty"`
}

// Conditions hold when every variable named matches.
type Conditions map[string]Match

// Match is a test of a variable's value. In JSON it is the text that the value must equal, or an object with one of not and matches.
type Match struct {
	Equals  *string
	Not     *string
	Matches *regexp.Regexp
}

// matchForm is Match's object form in JSON.
type matchForm struct {
	Not     *string `json:"not,omitempty"`
	Matches *string `json:"matches,omitempty"`
}

func (m *Match) UnmarshalJSON(b []byte) error {
	var text string
	if json.Unmarshal(b, &text) == nil {
		*m = Match{Equals: &text}
		return nil
	}
	var form matchForm
	if err := decodeStrict(b, &form); err != nil {
		return fmt.Errorf(`a condition is a text, {"not": text} or {"matches": regular expression}: %w`, err)
	}
	if (form.Not == nil) == (form.Matches == nil) {
		return errors.New(`a condition is a text, {"not": text} or {"matches": regular expression}`)
	}
	*m = Match{Not: form.Not}
	if form.Matches != nil {
		re, err := regexp.Compile(`^(?:` + *form.Matches + `)$`)
		if err != nil {
			return fmt.Errorf("condition: %w", err)
		}
		m.Matches = re
	}
	return nil
}

func (m Match) MarshalJSON() ([]byte, error) {
	switch {
	case m.Equals != nil:
		return json.Marshal(*m.Equals)
	case m.Matches != nil:
		whole := m.Matches.String()
		inner := whole[len(`^(?:`) : len(whole)-len(`)$`)]
		return json.Marshal(matchForm{Matches: &inner})
	}
	return json.Marshal(matchForm{Not: m.Not})
}

func (m Match) holds(value string) bool {
	switch {
	case m.Equals != nil:
		return value == *m.Equals
	case m.Not != nil:
		return value != *m.Not
	}
	return m.Matches.MatchString(value)
}

// maxModelBytes bounds a description: it is text written by people.
const maxModelBytes = 4 << 20

// ParseModel reads and checks a model. Unknown fields are refused; the error names the place.
func ParseModel(b []byte) (Model, error) {
	if len(b) > maxModelBytes {
		return Model{}, fmt.Errorf("app model of %d bytes, more than %d", len(b), maxModelBytes)
	}
	var m Model
	if err := decodeStrict(b, &m); err != nil {
		return Model{}, fmt.Errorf("app model: %w", err)
	}
	if err := m.Validate(); err != nil {
		return Model{}, err
	}
	return m, nil
}

// decodeStrict decodes exactly one JSON value and refuses unknown fields.
func decodeStrict(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("more than one JSON value")
	}
	return nil
}

// defaultModel is the app in an APK that carries no description: one screen with one text.
func defaultModel(label string) Model {
	return Model{Start: "main", Vars: map[string]string{"label": label}, Screens: map[string]Screen{
		"main": {Elements: []Element{{Text: "${label}"}}},
	}}
}
