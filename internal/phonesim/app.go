package phonesim

import (
	"fmt"
	"strconv"
	"time"
)

// How long the count of successive outcomes is remembered (Branch.Remember).
const (
	rememberLaunch = "launch"
	rememberData   = "data"
	rememberPhone  = "phone"
)

// appData is what an app keeps on the phone between launches.
type appData struct {
	vars   map[string]string
	counts map[string]int
}

func newAppData() *appData { return &appData{vars: map[string]string{}, counts: map[string]int{}} }

// app is a running app. Nothing in it moves by itself: delayed things happen when somebody looks. The phone's lock guards it.
type app struct {
	pkg     *installedPackage
	pid     int
	data    *appData
	backend map[string]int // outcome counts that outlive the app's data
	vars    map[string]string
	counts  map[string]int
	stack   []visit // screens, the one shown last
	visits  int
	pending []delayedEffect
	focus   string // key of the element that typed text goes to
	// finished is set once back was pressed on the first screen, crashed once the app fell over.
	finished, crashed bool
}

// visit is one showing of a screen.
type visit struct {
	screen string
	number int
	shown  time.Time
	scroll int
}

type delayedEffect struct {
	at     time.Time
	effect Effect
}

func newApp(pkg *installedPackage, pid int, backend map[string]int) *app {
	return &app{
		pkg: pkg, pid: pid, data: pkg.data, backend: backend,
		vars: map[string]string{}, counts: map[string]int{},
	}
}

func (a *app) start(now time.Time) { a.show(a.pkg.model.Start, now, 0) }

func (a *app) top() *visit {
	if len(a.stack) == 0 {
		return nil
	}
	return &a.stack[len(a.stack)-1]
}

func (a *app) screen() Screen { return a.pkg.model.Screens[a.top().screen] }

// advance lets everything happen whose time has come.
func (a *app) advance(now time.Time) {
	for i := 0; i < len(a.pending); i++ {
		if d := a.pending[i]; !d.at.After(now) {
			a.pending = append(a.pending[:i:i], a.pending[i+1:]...)
			i--
			d.effect.AfterMS = 0
			a.apply(d.effect, d.at, 0)
		}
	}
}

func (a *app) value(name string) string {
	switch name {
	case "app.package":
		return a.pkg.name
	case "app.version_name":
		return a.pkg.versionName
	case "app.version_code":
		return strconv.FormatInt(a.pkg.versionCode, 10)
	}
	if v, ok := a.data.vars[name]; ok && a.persistent(name) {
		return v
	}
	if v, ok := a.vars[name]; ok {
		return v
	}
	return a.pkg.model.Vars[name]
}

func (a *app) persistent(name string) bool {
	for _, p := range a.pkg.model.Persistent {
		if p == name {
			return true
		}
	}
	return false
}

func (a *app) set(name, value string) {
	if a.persistent(name) {
		a.data.vars[name] = value
		return
	}
	a.vars[name] = value
}

// expand fills in a template of a model that has been validated, so that it cannot fail.
func (a *app) expand(text string) string {
	s, _ := expand(text, func(name string) (string, error) { return a.value(name), nil })
	return s
}

func (a *app) holds(c Conditions) bool {
	for name, m := range c {
		if !m.holds(a.value(name)) {
			return false
		}
	}
	return true
}

// show brings a screen to the front. Hops counts the screens that sent on to this one.
func (a *app) show(screen string, now time.Time, hops int) {
	a.visits++
	a.stack = append(a.stack, visit{screen: screen, number: a.visits, shown: now})
	a.focus = ""
	a.entered(now, hops)
}

func (a *app) entered(now time.Time, hops int) {
	if hops >= maxHops {
		a.crashed = true // the screens send on to each other without end
		return
	}
	a.choose(a.screen().Enter, "screen "+a.top().screen+" enter", now, hops+1)
}

// back leaves the screen, and the app when it was the first.
func (a *app) back(now time.Time, hops int) {
	if len(a.stack) <= 1 {
		a.finished = true
		return
	}
	a.stack = a.stack[:len(a.stack)-1]
	a.visits++
	top := a.top()
	top.number, top.shown = a.visits, now
	a.focus = ""
	a.entered(now, hops)
}

// choose applies the first branch whose conditions hold. Place names the branches among all of the app.
func (a *app) choose(branches []Branch, place string, now time.Time, hops int) {
	for i, b := range branches {
		if !a.holds(b.When) {
			continue
		}
		effect := b.Effect
		if len(b.Outcomes) > 0 {
			counts := a.counter(b.Remember)
			key := fmt.Sprintf("%s %d", place, i)
			effect = b.Outcomes[min(counts[key], len(b.Outcomes)-1)]
			counts[key]++
		}
		a.apply(effect, now, hops)
		return
	}
}

func (a *app) counter(remember string) map[string]int {
	switch remember {
	case rememberData:
		return a.data.counts
	case rememberPhone:
		return a.backend
	}
	return a.counts
}

func (a *app) apply(e Effect, now time.Time, hops int) {
	if e.AfterMS > 0 {
		a.pending = append(a.pending, delayedEffect{now.Add(time.Duration(e.AfterMS) * time.Millisecond), e})
		return
	}
	values := make(map[string]string, len(e.Set))
	for name, text := range e.Set {
		values[name] = a.expand(text) // all from what was before
	}
	for name, value := range values {
		a.set(name, value)
	}
	for name, n := range e.Add {
		before, _ := strconv.Atoi(a.value(name)) // what is no number counts from zero
		a.set(name, strconv.Itoa(before+n))
	}
	if e.Go != "" {
		a.show(e.Go, now, hops)
	}
	if e.Back {
		a.back(now, hops)
	}
	if e.Crash {
		a.crashed = true
	}
}

// tap does what a tap on n does.
func (a *app) tap(n *node, now time.Time) {
	for ; n != nil && !n.clickable; n = n.parent {
		// A tap on a label belongs to the clickable thing that it is in.
	}
	if n == nil || n.element == nil || n.element.Disabled {
		return
	}
	e := n.element
	switch {
	case e.Editable:
		a.focus = n.key
	case e.Checkable:
		a.set(e.variable(), strconv.FormatBool(a.value(e.variable()) != "true"))
	}
	if n.item {
		a.vars["item"] = n.text
	}
	a.choose(e.Tap, n.place+" tap", now, 0)
}

// submit does what Enter does in n.
func (a *app) submit(n *node, now time.Time) {
	if n.element != nil {
		a.choose(n.element.Submit, n.place+" submit", now, 0)
	}
}
