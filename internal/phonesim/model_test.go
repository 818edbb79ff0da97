package phonesim

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestModelErrorsNameThePlace(t *testing.T) {
	screen := func(elements string) string {
		return `{"start": "a", "screens": {"a": {"elements": [` + elements + `]}}}`
	}
	for _, tt := range []struct{ model, want string }{
		{`{`, "unexpected EOF"},
		{`{} {}`, "more than one JSON value"},
		{`{"start": "a", "screens": {}}`, "screens: there are none"},
		{`{"start": "b", "screens": {"a": {"elements": []}}}`, `start: there is no screen "b"`},
		{`{"start": "a", "screens": {"a": {"elements": []}}, "color": 1}`, `unknown field "color"`},
		{`{"start": "a", "persistent": ["x"], "screens": {"a": {"elements": []}}}`, `persistent: nothing sets a variable "x"`},
		{screen(`{"tap": [{"go": "nowhere"}]}`), `screens.a.elements[0].tap[0].go: there is no screen "nowhere"`},
		{screen(`{"id": "x", "text": "${y}"}`), `screens.a.elements[0, id "x"].text: nothing sets a variable "y"`},
		{screen(`{"text": "${y"}`), `has a ${ without a }`},
		{screen(`{"id": "x"}, {"id": "x"}`), "two elements of this id"},
		{screen(`{"editable": true}`), "needs an id or an input"},
		{screen(`{"hint": "h"}`), "are for editable elements"},
		{screen(`{"class": "buton"}`), `"buton" is neither one of button, checkbox`},
		{screen(`{"items": ["a"], "elements": [{"text": "b"}]}`), "items or elements"},
		{screen(`{"when": {"x": "1"}}`), `when: nothing sets a variable "x"`},
		{screen(`{"tap": [{"when": {"item": {"matches": "("}}}]}`), "missing closing"},
		{screen(`{"tap": [{"when": {"item": {}}}]}`), "a condition is"},
		{screen(`{"tap": [{"when": {"item": {"equals": "x"}}}]}`), "unknown field"},
		{screen(`{"tap": [{"go": "a", "outcomes": [{"back": true}]}]}`), "both outcomes and an effect"},
		{screen(`{"tap": [{"outcomes": [{"go": "b"}]}]}`), `tap[0].outcomes[0].go: there is no screen "b"`},
		{screen(`{"tap": [{"outcomes": [{}], "remember": "week"}]}`), `"week" is none of launch, data, phone`},
		{screen(`{"tap": [{"remember": "data"}]}`), "remember is for outcomes"},
		{screen(`{"tap": [{"set": {"item": "x"}}]}`), "the phone's own variable"},
		{screen(`{"appears_after_ms": -1}`), "negative"},
		{screen(strings.Repeat(`{"elements": [`, 25) + strings.Repeat(`]}`, 25)), "nested more than 20 deep"},
	} {
		_, err := ParseModel([]byte(tt.model))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s:\n got %v\nwant %s", tt.model, err, tt.want)
		}
	}
}

func TestAppErrors(t *testing.T) {
	for description, want := range map[string]string{
		`{"package": "nodots"}`:                                   `"nodots" is not a name like com.example.app`,
		`{"package": "com.example.a", "version": 1}`:              "unknown field",
		`{"package": "com.example.a", "version_code": -1}`:        "cannot be negative",
		`{"package": "com.example.a", "version_code": 1.5}`:       "version_code",
		`{"package": "com.example.a", "activity": "a b"}`:         "is not a class name",
		`{"package": "com.example.a", "label": "a\u0000"}`:        "control characters",
		`{"package": "com.example.a", "model": {"screens": {}}}`:  "screens: there are none",
		`{"package": "com.example.a", "model": {"screens": [1]}}`: "cannot unmarshal",
	} {
		if _, err := ParseApp([]byte(description)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s:\n got %v\nwant %s", description, err, want)
		}
	}
}

func FuzzParseModel(f *testing.F) {
	model, err := json.Marshal(parseApp(f, shopJSON).Model)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(model)
	f.Add([]byte(`{"start":"a","screens":{"a":{"enter":[{"when":{"item":{"matches":".*"}},"outcomes":[{"crash":true}]}],"elements":[{"items":["${item}"]}]}}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := ParseModel(b)
		if err != nil {
			return
		}
		written, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseModel(written)
		if err != nil {
			t.Fatalf("%s was written as %s, which is refused: %v", b, written, err)
		}
		if twice, err := json.Marshal(again); err != nil || string(twice) != string(written) {
			t.Fatalf("%s became %s, %v", written, twice, err)
		}
		tapEverything(m)
	})
}

// tapEverything runs an app and taps all that there is on its first screens, which must not fail whatever its description says.
func tapEverything(m Model) {
	a := newApp(&installedPackage{apkInfo: apkInfo{model: m}, name: "com.example.fuzz", data: newAppData()}, 1, map[string]int{})
	now := newLedger("", fixedTime).StartedAt
	a.start(now)
	for range 5 {
		a.tree(now, true).root.each(func(n *node) bool {
			a.tap(n, now)
			a.submit(n, now)
			return !a.crashed && !a.finished
		})
		if a.crashed || a.finished {
			return
		}
	}
}
