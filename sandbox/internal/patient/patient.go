// Package patient keeps reads of the API server waiting while nobody answers, instead of failing them.
//
// A reflector of client-go that has failed often asks again only after 30 to 60 s, which cannot be set; a server that
// is back would be asked for nothing for as long. One whose request waits is answered as soon as there is a server.
package patient

import (
	"math/rand/v2"
	"net/http"
	"time"

	"k8s.io/client-go/rest"

	"headwater.dev/sandbox/internal/backoff"
)

// limit is how long a read may wait. A reflector forgets its earlier failures when the last one is two minutes old
// (client-go, tools/cache/reflector.go): with more than that between two, its pauses never grow.
const limit = 3 * time.Minute

// Pauses between two tries: the first, and the longest.
const (
	firstPause   = 50 * time.Millisecond
	longestPause = time.Second
)

// Wrap makes the reads of clients with this configuration patient.
func Wrap(c *rest.Config) {
	c.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return &transport{next: next, limit: limit, after: time.After, chance: rand.Float64}
	})
}

type transport struct {
	next   http.RoundTripper
	limit  time.Duration
	after  func(time.Duration) <-chan time.Time
	chance func() float64 // of [0, 1)
}

// RoundTrip asks until there is an answer, whatever it says. Writes fail as ever: what they would do may have been
// done, and those who ask for them ask again by themselves.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method != http.MethodGet || r.Body != nil && r.Body != http.NoBody {
		return t.next.RoundTrip(r)
	}
	var late <-chan time.Time
	for try := 0; ; try++ {
		answer, err := t.next.RoundTrip(r)
		if err == nil || r.Context().Err() != nil {
			return answer, err
		}
		if late == nil {
			late = t.after(t.limit)
		}
		select {
		case <-r.Context().Done():
			return nil, err
		case <-late:
			return nil, err
		case <-t.after(backoff.Pause(firstPause, longestPause, try, t.chance())):
		}
	}
}

// WrappedRoundTripper lets client-go find what is below.
func (t *transport) WrappedRoundTripper() http.RoundTripper { return t.next }
