package forward

import (
	"cmp"
	"slices"
)

// Pod is what matters of a gateway Pod. The zero Pod is an empty slot.
type Pod struct {
	Name, UID, IP string
	Ready         bool
}

// Assign decides which Pod each port leads to. A Pod keeps its port for as
// long as it runs; a free port takes a ready Pod that has none, in the order of
// their names, and failing that one that is not ready yet.
func Assign(slots, pods []Pod) []Pod {
	waiting := slices.Clone(pods)
	slices.SortFunc(waiting, func(a, b Pod) int {
		if a.Ready != b.Ready {
			if a.Ready {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Name, b.Name)
	})
	next := make([]Pod, len(slots))
	for i, s := range slots {
		at := slices.IndexFunc(waiting, func(p Pod) bool { return s.UID != "" && p.UID == s.UID })
		// One that never was ready gives way to one that is.
		if at >= 0 && (s.Ready || waiting[at].Ready) {
			next[i] = waiting[at]
			next[i].Ready = true
			waiting = slices.Delete(waiting, at, at+1)
		}
	}
	for i := range next {
		if next[i].UID == "" && len(waiting) > 0 {
			next[i], waiting = waiting[0], waiting[1:]
		}
	}
	return next
}
