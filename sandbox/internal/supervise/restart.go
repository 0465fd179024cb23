package supervise

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"syscall"
	"time"

	"headwater.dev/sandbox/internal/backoff"
)

// fate is what follows the end of a component.
type fate int

const (
	fail  fate = iota // the sandbox ends with it
	leave             // the cluster goes on without it, and sees that it is gone
	again             // it is started once more, as a kubelet does with a static Pod's
)

// renewDeadline is the time after which a leader that cannot renew its Lease ends: the default of both that have one.
const renewDeadline = 10 * time.Second

// calm is the life after which a component's earlier ends no longer delay its next start.
const calm = 30 * time.Second

// Pauses before a component is started again that ends once more before it was calm: the first, and the longest.
const (
	firstPause   = 500 * time.Millisecond
	longestPause = 5 * time.Second
)

// after is the fate of a component that was started so many times, lived so long and was killed or ended by itself.
// What ends by itself soon after its first start has a mistake in its configuration.
func after(name string, starts int, life time.Duration, killed bool) fate {
	switch {
	case strings.HasPrefix(name, "node-") && killed:
		return leave // machines die
	case name == "apiserver" && killed:
		return again
	case elected[name] != "" && (killed || starts > 1 || life >= renewDeadline):
		return again
	}
	return fail
}

// pause is the wait before the next start after so many ends in a row without calm. Chance, of [0, 1), takes up to
// half of it away.
func pause(ends int, chance float64) time.Duration {
	if ends < 2 {
		return 0
	}
	return backoff.Pause(firstPause, longestPause, ends-2, chance)
}

// history is what is remembered of a component's earlier lives.
type history struct {
	starts int
	ends   int // in a row, none after a calm life
}

func (h *history) ended(life time.Duration) {
	if life >= calm {
		h.ends = 0
	}
	h.ends++
}

func (c *child) killed() bool {
	return c.cmd.ProcessState != nil && c.cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled()
}

// startAgain owns the time between two lives of a component.
func (u *up) startAgain(ctx context.Context, c *child, wait time.Duration) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(wait):
	}
	if err := u.start(ctx, c.name, c.command, c.args...); err != nil && ctx.Err() == nil {
		u.procs.fail(err)
	}
}

// await owns one child, from its start to what follows its end.
func (p *processes) await(c *child, log string) {
	err := c.cmd.Wait()
	life := time.Since(c.began)
	close(c.done)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ending {
		return
	}
	message := fmt.Errorf("%s ended (%v): %s", c.name, describe(err), lastLine(log))
	h := p.lives[c.name]
	h.ended(life)
	next := after(c.name, h.starts, life, c.killed())
	if next == fail || next == again && p.again == nil {
		p.fail(message)
		return
	}
	fmt.Fprintln(os.Stderr, "kube-sandbox:", message)
	if next == again {
		wait := pause(h.ends, rand.Float64())
		p.restarts.Add(1)
		go func() { defer p.restarts.Done(); p.again(c, wait) }()
	}
}
