package sched

import (
	"time"

	"qgjob"
)

// DefaultBound is how long a job waits before nothing that was submitted later starts before it. A job of a
// hosted CI ends after six hours: four leave two to run in.
const DefaultBound = 4 * time.Hour

// mostAged is the level that aging stops at: one short of the most urgent.
const mostAged = qgjob.MostUrgent + 1

// Level is the effective priority of a job that waits: it rises evenly with age, from the job's own priority to
// one level short of the most urgent at the bound. Half-way to the bound it is half-way there.
func Level(priority int, age, bound time.Duration) int {
	climb := priority - mostAged
	if climb <= 0 || age <= 0 {
		return priority
	}
	if age >= bound {
		return mostAged
	}
	return priority - int(int64(climb)*int64(age)/int64(bound))
}

// nextLevel is the age at which the level of a job changes next; ok is false when it does not.
func nextLevel(priority int, age, bound time.Duration) (next time.Duration, ok bool) {
	climb := priority - mostAged
	risen := priority - Level(priority, age, bound)
	if climb <= 0 || risen >= climb {
		return 0, false
	}
	steps := int64(risen+1) * int64(bound)
	return time.Duration((steps + int64(climb) - 1) / int64(climb)), true
}
