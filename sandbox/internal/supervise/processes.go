package supervise

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// stopTimeout is what a component has between SIGTERM and SIGKILL.
const stopTimeout = 5 * time.Second

// controlNiceness keeps the control plane's bursts (a Pod that is replaced is some hundred requests) out of the way
// of media on a machine of few cores: in a cluster the two do not share one.
const controlNiceness = "5"

// processes are this process's children. They get SIGTERM when it dies.
type processes struct {
	logs   string
	failed chan error // a component that the sandbox cannot do without has ended
	forks  chan func()
	mu     sync.Mutex
	kids   []*child
	lives  map[string]*history
	ending bool
	// again starts a component once more after a wait; nil: none is. It returns soon after the sandbox was told to end.
	again    func(c *child, wait time.Duration)
	restarts sync.WaitGroup
}

type child struct {
	name    string
	command string
	args    []string
	cmd     *exec.Cmd
	began   time.Time
	done    chan struct{}
}

func newProcesses(logs string) *processes {
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) // orphans of dead nodes come here, see stopAll
	p := &processes{logs: logs, failed: make(chan error, 1), forks: make(chan func()), lives: map[string]*history{}}
	go func() {
		runtime.LockOSThread() // a child's Pdeathsig is sent when the forking thread ends
		for f := range p.forks {
			f()
		}
	}()
	return p
}

func (p *processes) start(name, command string, args []string) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	path := filepath.Join(p.logs, name+".log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	c := &child{name, command, args, niced(command, self, args), time.Now(), make(chan struct{})}
	c.cmd.Stdout, c.cmd.Stderr = log, log
	c.cmd.Env = append(os.Environ(), "GOGC=60")
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	started := make(chan error)
	p.forks <- func() { started <- c.cmd.Start() }
	if err := <-started; err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	p.mu.Lock()
	p.kids = append(slices.DeleteFunc(p.kids, func(old *child) bool { return old.name == name }), c)
	if p.lives[name] == nil {
		p.lives[name] = &history{}
	}
	p.lives[name].starts++
	if p.ending { // too late for stopAll, which knows the others
		_ = c.cmd.Process.Kill()
	}
	p.mu.Unlock()
	go p.await(c, path)
	return c.cmd.Process.Pid, nil
}

// niced is by nice(1), since a thread's niceness is its own and a running program has many.
func niced(command, self string, args []string) *exec.Cmd {
	if command == "node" { // its Pods would inherit it
		return exec.Command(self, append([]string{command}, args...)...)
	}
	return exec.Command("nice", append([]string{"-n", controlNiceness, self, command}, args...)...)
}

// fail ends the sandbox.
func (p *processes) fail(err error) {
	select {
	case p.failed <- err:
	default: // one reason is enough
	}
}

func describe(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}

// lastLine is the end of a component's log, for a message of one line.
func lastLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "see " + path
	}
	lines := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	last := string(lines[len(lines)-1])
	if len(last) > 300 {
		last = last[:300]
	}
	return fmt.Sprintf("%s (more in %s)", last, path)
}

// stopAll ends the nodes first, so that containers see a working API server,
// then the rest, etcd last.
func (p *processes) stopAll() {
	p.mu.Lock()
	p.ending = true
	p.mu.Unlock()
	p.restarts.Wait() // what they have started is among the kids
	p.mu.Lock()
	kids := append([]*child{}, p.kids...)
	p.mu.Unlock()
	var nodes, middle, store []*child
	for _, c := range kids {
		switch {
		case strings.HasPrefix(c.name, "node-"):
			nodes = append(nodes, c)
		case c.name == "etcd":
			store = append(store, c)
		default:
			middle = append(middle, c)
		}
	}
	stop(nodes, syscall.SIGTERM)
	stop(middle, syscall.SIGKILL) // they keep nothing, and the API server's own way out takes seconds
	stop(store, syscall.SIGTERM)
	reapOrphans()
}

func stop(group []*child, first syscall.Signal) {
	for _, c := range group {
		_ = c.cmd.Process.Signal(first)
		_ = c.cmd.Process.Signal(syscall.SIGCONT) // a stopped process ends as well
	}
	deadline := time.After(stopTimeout)
	for _, c := range group {
		select {
		case <-c.done:
		case <-deadline:
			for _, c := range group {
				_ = c.cmd.Process.Kill()
			}
			deadline = nil
			<-c.done
		}
	}
}

// reapOrphans kills what containers of killed nodes have left behind.
func reapOrphans() {
	for range 100 {
		files, _ := filepath.Glob("/proc/self/task/*/children")
		found := false
		for _, f := range files {
			b, _ := os.ReadFile(f)
			for _, field := range bytes.Fields(b) {
				if pid, err := strconv.Atoi(string(field)); err == nil {
					found = true
					_ = syscall.Kill(pid, syscall.SIGKILL)
					_, _ = syscall.Wait4(pid, nil, 0, nil)
				}
			}
		}
		if !found {
			return
		}
	}
}
