package phonesim

import (
	"strings"
	"testing"
)

func TestSelectors(t *testing.T) {
	p := startPhone(t, Options{})
	r := openApp(t, p, parseApp(t, shopJSON))
	const ui = "-android uiautomator"
	for _, tt := range []struct {
		strategy, selector string
		want               []string
	}{
		// What AppWright's getByText, getById and getByXpath send.
		{ui, `textContains("log")`, []string{"Log in"}},
		{ui, `text("Log in")`, []string{"Log in"}},
		{ui, `text("log in")`, nil},
		{ui, `resourceIdMatches("login")`, []string{"Log in"}},
		{ui, `resourceIdMatches("log")`, nil},
		{ui, `resourceId("login")`, []string{"Log in"}},
		{"xpath", `//android.widget.Button[@text="Log in"]`, []string{"Log in"}},

		{ui, `new UiSelector().textStartsWith("l")`, []string{"Log in", "Launch"}},
		{ui, `new UiSelector().textMatches("L.*n")`, []string{"Log in"}},
		{ui, `new UiSelector().textMatches("(?i)l\\w+")`, []string{"Launch"}},
		{ui, `new UiSelector().description("log in now")`, []string{"Log in"}},
		{ui, `new UiSelector().descriptionContains("NOW")`, []string{"Log in"}},
		{ui, `new UiSelector().className("android.widget.Button").instance(1)`, []string{"Launch"}},
		{ui, `new UiSelector().className("android.widget.Button").instance(9)`, nil},
		{ui, `new UiSelector().classNameMatches(".*EditText").password(true)`, []string{"Password"}},
		{ui, `new UiSelector().enabled(false)`, []string{"Off"}},
		{ui, `new UiSelector().packageName("com.example.shop").checkable(true)`, []string{"I agree"}},
		{ui, `new UiSelector().className("android.widget.ScrollView").childSelector(new UiSelector().text("Data"))`, []string{"Data"}},
		{ui, `new UiSelector().text("Data").fromParent(new UiSelector().text("Phone"))`, []string{"Phone"}},
		{ui, `new UiSelector().text("no"); new UiSelector().text("Data")`, []string{"Data"}},
		{ui, `new UiSelector().text("say \"x\"")`, nil},
		{ui, `new UiScrollable(new UiSelector().scrollable(true).instance(0)).setMaxSearchSwipes(5).scrollIntoView(new UiSelector().text("Phone").instance(0))`, []string{"Phone"}},
		{ui, `new UiScrollable(new UiSelector()).scrollTextIntoView("Phone")`, []string{"Phone"}},

		{"xpath", `//*[@resource-id="login"]`, []string{"Log in"}},
		{"xpath", `//*[contains(@text, 'og i')]`, []string{"Log in"}},
		{"xpath", `//*[@text="Data" or @text="Phone"]`, []string{"Data", "Phone"}},
		{"xpath", `//*[@clickable="true" and starts-with(@text, "L")]`, []string{"Log in", "Launch"}},
		{"xpath", `(//android.widget.Button)[2]`, []string{"Launch"}},
		{"xpath", `(//android.widget.Button)[last()]`, []string{"Off"}},
		{"xpath", `//android.widget.Button[@enabled='false']`, []string{"Off"}},
		{"xpath", `//*[@text="Data"]/following-sibling::*[1]`, []string{"Phone"}},
		{"xpath", `//*[@text="Data"]/preceding-sibling::android.widget.Button[1]`, []string{"Launch"}},
		{"xpath", `//*[@text="Data"]/../*[@text="Phone"]`, []string{"Phone"}},
		{"xpath", `//*[@text="Data"]|//*[@text="Log in"]`, []string{"Log in", "Data"}},
		{"xpath", `//*[not(@enabled="true")]`, []string{"Off"}},
		{"xpath", `//*[@index=4]`, []string{"Log in"}},
		{"xpath", `//*[matches(@text, "^D.ta$")]`, []string{"Data"}},
		{"xpath", `//*[lower-case(@text)="data"]`, []string{"Data"}},
		{"xpath", `//*[translate(@text, "DATA", "data")="data"]`, []string{"Data"}},
		{"xpath", `//*[normalize-space(@text)="Data"]`, []string{"Data"}},
		{"xpath", `/hierarchy/android.widget.FrameLayout/android.widget.ScrollView/android.widget.TextView[1]`, []string{"Sign in"}},
		{"xpath", `//android.widget.ScrollView[count(./*) > 3]/android.widget.CheckBox`, []string{"I agree"}},
		{"xpath", `//*[@nothing]`, nil},

		{"id", "login", []string{"Log in"}},
		{"id", "nope", nil},
		{"accessibility id", "log in now", []string{"Log in"}},
		{"class name", "android.widget.CheckBox", []string{"I agree"}},
	} {
		if tt.want == nil {
			tt.want = []string{}
		}
		equal(t, tt.strategy+" "+tt.selector, r.texts(tt.strategy, tt.selector), tt.want)
	}
	equal(t, "missing element", r.fails("POST", "/element", locator("id", "nope")), "no such element")
	for _, tt := range [][2]string{
		{ui, `new UiSelector().nothing("x")`},
		{ui, `new UiSelector().text("x"`},
		{ui, `new UiSelector().text(x)`},
		{ui, `new UiSelector().textMatches("(")`},
		{ui, `new Exploit().text("x")`},
		{ui, ``},
		{"xpath", `//*[`},
		{"xpath", `//*[frobnicate(@text)]`},
		{"xpath", `//*[@text="x]`},
		{"xpath", `count(//*)`},
		{"xpath", `//*/@text`},
		{"xpath", strings.Repeat(`//*[`, 20) + `@text` + strings.Repeat(`]`, 20)}, // would take for ever
		{"xpath", ``},
		{"css selector", `a`},
	} {
		equal(t, tt[0]+" "+tt[1], r.fails("POST", "/elements", locator(tt[0], tt[1])), "invalid selector")
	}
}

func TestFindWithinAnElement(t *testing.T) {
	p := startPhone(t, Options{})
	r := openApp(t, p, parseApp(t, `{"package": "com.example.nest", "model": {"start": "a", "screens": {"a": {"elements": [
		{"id": "one", "elements": [{"text": "x"}]}, {"id": "two", "elements": [{"text": "x", "id": "second"}]}]}}}}`))
	for _, l := range []map[string]any{locator("xpath", `.//*[@text="x"]`), locator("xpath", `//*[@text="x"]`), locator("-android uiautomator", `text("x")`)} {
		l["context"] = r.find("id", "two")
		found := r.ok("POST", "/elements", l).([]any)
		equal(t, "found", len(found), 1)
		id := found[0].(map[string]any)[elementKey].(string)
		equal(t, "id", r.ok("GET", "/element/"+id+"/attribute/resource-id", nil), any("second"))
	}
}

func TestSource(t *testing.T) {
	p := startPhone(t, Options{})
	r := openApp(t, p, parseApp(t, `{"package": "com.example.q", "label": "a < \"b\" & c"}`))
	source := r.ok("GET", "/source", nil).(string)
	for _, want := range []string{`<android.widget.TextView index="0" package="com.example.q"`, `text="a &lt; &#34;b&#34; &amp; c"`, `bounds="[48,87][1032,217]"`} {
		if !strings.Contains(source, want) {
			t.Errorf("source lacks %s:\n%s", want, source)
		}
	}
}

func FuzzUISelector(f *testing.F) {
	f.Add(`new UiSelector().text("a\u0041\n").instance(1)`)
	f.Add(`new UiScrollable(new UiSelector().scrollable(true)).scrollIntoView(new UiSelector().textContains("x"))`)
	f.Add(`.text("a");resourceIdMatches(".*x")`)
	f.Fuzz(func(t *testing.T, selector string) {
		list, err := parseUI(selector)
		if err != nil {
			return
		}
		if len(list) == 0 {
			t.Fatal("understood, but empty")
		}
		root := systemTree("p", "label").root
		for _, e := range list {
			if s, err := compileSelector(e); err == nil {
				s.find(root)
			}
		}
	})
}

func FuzzXPath(f *testing.F) {
	f.Add(`//*[@text="x" and not(contains(@a,'b'))]/../following-sibling::a[last()-1]|(//b)[2]`)
	f.Add(`/hierarchy/*[position() mod 2 = 1][translate(@text,"ab","c")!=concat("x",1 div 0)]`)
	f.Fuzz(func(_ *testing.T, text string) {
		if x, err := parseXPath(text); err == nil {
			_, _ = x.find(systemTree("p", "label").root) // whatever it finds, it must end
		}
	})
}
