// Package backoff has the one way in which pauses grow.
package backoff

import "time"

// growing is how often a pause doubles at most, which keeps it from overflowing.
const growing = 10

// Pause is the first one doubled so often, but never more than the longest. Chance, of [0, 1), takes up to half of it
// away, so that those who fail together do not come back together.
func Pause(first, longest time.Duration, doublings int, chance float64) time.Duration {
	whole := longest
	if doublings < growing {
		whole = min(first<<doublings, longest)
	}
	return time.Duration(float64(whole) * (1 - chance/2))
}
