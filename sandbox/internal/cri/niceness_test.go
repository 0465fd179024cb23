package cri

import "testing"

func TestNicenessFollowsTheCPURequest(t *testing.T) {
	for shares, want := range map[int64]int{0: 0, 2: 0, 10: 19, 102: 10, 512: 3, 1024: 0, 4096: 0} {
		if got := niceness(shares); got != want {
			t.Errorf("%d shares: %d, want %d", shares, got, want)
		}
	}
}
