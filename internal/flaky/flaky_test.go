package flaky_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"qgjob"
	"qgjob/internal/flaky"
)

// history makes executions of one test: a letter a code state, capital when it failed.
func history(letters string) (list []flaky.Execution) {
	for i, l := range letters {
		failed := l >= 'A' && l <= 'Z'
		if failed {
			l += 'a' - 'A'
		}
		list = append(list, flaky.Execution{Spec: "a.spec.ts", Title: "t", CodeState: string(l), Passed: !failed, At: time.Unix(int64(i), 0)})
	}
	return list
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		history    string
		kind       qgjob.TestKind
		quarantine bool
		streak     int
	}{
		{"aaabbb", qgjob.Stable, false, 6},
		{"aAaabb", qgjob.FlakyTest, false, 4},                      // flaky on one code state only: an accident
		{"aAabBbcc", qgjob.FlakyTest, true, 3},                     // on two
		{"AAABBBCCC", qgjob.Broken, false, 0},                      // always fails
		{"aAabBbCCC", qgjob.Broken, false, 0},                      // was flaky, and is broken now
		{"aaaBBBccc", qgjob.Stable, false, 3},                      // was broken once, and mended
		{"aaaB", qgjob.Stable, false, 0},                           // one failure on new code says nothing yet
		{"aAabBb" + repeat("c", 500), qgjob.FlakyTest, false, 501}, // so rare that it is not worth it
	} {
		got := flaky.Judge(history(c.history))[0]
		if got.Kind != c.kind || flaky.ShouldQuarantine(got) != c.quarantine || got.Streak != c.streak {
			t.Errorf("%.20s: %s, quarantine %v, streak %d; want %s, %v, %d (%+v)", c.history, got.Kind, flaky.ShouldQuarantine(got), got.Streak, c.kind, c.quarantine, c.streak, got)
		}
	}
	half := flaky.Judge(history("aAaAaAaAaA"))[0]
	if math.Abs(half.Probability-0.5) > 1e-9 || math.Abs(half.Low-0.2366) > 1e-3 || math.Abs(half.High-0.7634) > 1e-3 {
		t.Errorf("5 of 10: %.4f in [%.4f, %.4f], want 0.5 in [0.2366, 0.7634]", half.Probability, half.Low, half.High)
	}
}

func repeat(s string, n int) string {
	var b []byte
	for range n {
		b = append(b, s...)
	}
	return string(b)
}

// TestStableAgain: a test returns after twenty passes in a row, counted from its quarantine.
func TestStableAgain(t *testing.T) {
	q := qgjob.Quarantine{TestPath: "a.spec.ts", Title: "t", Since: time.Unix(9, 0)}
	for history10, want := range map[string]bool{
		repeat("a", 30):                         true,
		repeat("a", 29):                         false, // nineteen since then
		repeat("a", 15) + "A" + repeat("a", 19): false,
		repeat("a", 15) + "A" + repeat("a", 20): true,
	} {
		if got := flaky.StableAgain(history(history10), q); got != want {
			t.Errorf("%s: %v, want %v", history10, got, want)
		}
	}
}

// TestAnyHistory: a test that never passed is never flaky nor quarantined, the interval holds the
// probability, and the order in which executions are told does not matter.
func TestAnyHistory(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		list := history(rapid.StringOfN(rapid.RuneFrom([]rune("aAbBcC")), 1, 40, -1).Draw(rt, "history"))
		got := flaky.Judge(list)[0]
		passed := slices.ContainsFunc(list, func(e flaky.Execution) bool { return e.Passed })
		if !passed && (got.Kind == qgjob.FlakyTest || flaky.ShouldQuarantine(got)) {
			rt.Fatalf("it never passed and is %+v", got)
		}
		if got.Low > got.Probability+1e-9 && passed || got.High < got.Probability-1e-9 || got.Low < 0 || got.High > 1 {
			rt.Fatalf("%f is not in [%f, %f]", got.Probability, got.Low, got.High)
		}
		slices.Reverse(list)
		if again := flaky.Judge(list)[0]; !cmp.Equal(again, got) {
			rt.Fatalf("%+v, told backwards %+v", got, again)
		}
	})
}
