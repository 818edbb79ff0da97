//go:build !linux

package appwright

import "syscall"

// family is a process group: only Linux shows what belongs to a process outside it.
type family struct{ group int }

func newFamily(group int, _ string) *family { return &family{group} }

func (f *family) look() {}

// living returns the group itself while anything of it lives.
func (f *family) living() []int {
	if syscall.Kill(-f.group, 0) != nil {
		return nil
	}
	return []int{-f.group}
}
