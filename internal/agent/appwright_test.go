package agent

import (
	"testing"

	"qgjob/internal/appwright"
)

// What a config made of one run's variables says nothing of another run's.
func TestInspectionsAreOfTheirVariables(t *testing.T) {
	task := Task{Dir: t.TempDir(), BundleSHA256: "aa", Env: []string{"STAGE=beta", "USER=a"}}
	w := NewAppWright()
	w.known = append(w.known, inspection{task.inspected(), appwright.Project{AppWright: "0.1.1"}})
	if p, ok := w.recall(task.inspected(), task.Dir); !ok || p.AppWright != "0.1.1" {
		t.Errorf("the same again: %+v, %v", p, ok)
	}
	for _, env := range [][]string{nil, {"STAGE=beta"}, {"STAGE=live", "USER=a"}, {"STAGE=beta USER=a"}} {
		task.Env = env
		if _, ok := w.recall(task.inspected(), task.Dir); ok {
			t.Errorf("%q: takes what was found with other variables", env)
		}
	}
}
