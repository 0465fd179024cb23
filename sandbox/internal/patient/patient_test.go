package patient

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"headwater.dev/sandbox/internal/backoff"
)

var refused = errors.New("connection refused")

// server fails so many times, then answers.
type server struct{ failures, asked int }

func (s *server) RoundTrip(*http.Request) (*http.Response, error) {
	s.asked++
	if s.asked <= s.failures {
		return nil, refused
	}
	return &http.Response{StatusCode: http.StatusServiceUnavailable}, nil
}

// clock fires what is due after less than it has left, at once.
type clock struct {
	left  time.Duration
	waits []time.Duration
}

func (c *clock) after(d time.Duration) <-chan time.Time {
	fired := make(chan time.Time, 1)
	if len(c.waits) > 0 { // the first is the limit
		c.left -= d
	}
	c.waits = append(c.waits, d)
	if c.left >= 0 && len(c.waits) > 1 {
		fired <- time.Time{}
	}
	return fired
}

func ask(ctx context.Context, method string, s *server, after func(time.Duration) <-chan time.Time) (*http.Response, error) {
	t := &transport{next: s, limit: time.Minute, after: after, chance: func() float64 { return 0 }}
	return t.RoundTrip(httptest.NewRequestWithContext(ctx, method, "/api/v1/pods?watch=true", nil))
}

func TestAReadWaitsForAnAnswerWhateverItSays(t *testing.T) {
	s, c := &server{failures: 7}, &clock{left: time.Hour}
	answer, err := ask(context.Background(), http.MethodGet, s, c.after)
	if err != nil || answer.StatusCode != http.StatusServiceUnavailable || s.asked != 8 {
		t.Fatalf("got %v, %v after %d tries", answer, err, s.asked)
	}
	if last := c.waits[len(c.waits)-1]; last != longestPause {
		t.Fatalf("the last pause was %v", last)
	}
}

func TestAWriteFailsAtOnce(t *testing.T) {
	for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		s := &server{failures: 1}
		if _, err := ask(context.Background(), method, s, time.After); !errors.Is(err, refused) || s.asked != 1 {
			t.Errorf("%s: got %v after %d tries", method, err, s.asked)
		}
	}
}

func TestAReadEndsWithItsLimit(t *testing.T) {
	s, limit := &server{failures: 100}, make(chan time.Time, 1)
	first := true
	after := func(time.Duration) <-chan time.Time {
		if first {
			first = false
			return limit
		}
		limit <- time.Time{} // no pause ends before it
		return nil
	}
	if _, err := ask(context.Background(), http.MethodGet, s, after); !errors.Is(err, refused) || s.asked != 1 {
		t.Fatalf("got %v after %d tries", err, s.asked)
	}
}

func TestAReadEndsWithTheOneWhoAsked(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &server{failures: 100}
	after := func(d time.Duration) <-chan time.Time {
		if d < time.Minute { // a pause, not the limit
			cancel()
		}
		return nil
	}
	if _, err := ask(ctx, http.MethodGet, s, after); !errors.Is(err, refused) || s.asked != 1 {
		t.Fatalf("got %v after %d tries", err, s.asked)
	}
}

func TestPausesGrowToASecondAndChanceShortensThem(t *testing.T) {
	for _, c := range []struct {
		try    int
		chance float64
		want   time.Duration
	}{{0, 0, firstPause}, {1, 0, 2 * firstPause}, {5, 0, longestPause}, {1000, 0, longestPause}, {1000, 1, longestPause / 2}} {
		if got := backoff.Pause(firstPause, longestPause, c.try, c.chance); got != c.want {
			t.Errorf("try %d, chance %v: %v, want %v", c.try, c.chance, got, c.want)
		}
	}
}
