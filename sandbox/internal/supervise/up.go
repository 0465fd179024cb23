package supervise

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"headwater.dev/sandbox/internal/forward"
	"headwater.dev/sandbox/internal/patient"
	"headwater.dev/sandbox/internal/pki"
)

// startTimeout bounds the start of the control plane and the nodes on a busy machine.
const startTimeout = 2 * time.Minute

// Up is the command `up`: it returns when the sandbox has ended.
func Up(args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.has("nodes") && !mayMount() && os.Getenv(inNamespace) == "" {
		return reexec(args)
	}
	if err := os.MkdirAll(o.path("logs"), 0o700); err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	if o.DieWith != 0 {
		gone, err := watchProcess(o.DieWith)
		if err != nil {
			return err
		}
		go func() { <-gone; cancel() }()
	}
	yield()
	u := &up{Options: o, state: &stateFile{path: o.path("state.json")}, procs: newProcesses(o.path("logs"))}
	u.procs.again = func(c *child, wait time.Duration) { u.startAgain(ctx, c, wait) }
	err = u.run(ctx)
	if ctx.Err() != nil {
		err = nil // told to end, at whatever point
	}
	cancel()
	if err != nil {
		_ = u.state.update(func(s *State) { s.Phase, s.Error = Failed, err.Error() })
	}
	u.procs.stopAll()
	return err
}

// yield lets other sessions go first, bots and browsers among them, where the kernel shares processors by session
// (sched(7), "The autogroup feature"): a whole cluster in one session must not starve its clients. Only in a session
// of our own; without the feature there is nothing to write.
func yield() {
	if sid, err := unix.Getsid(0); err == nil && sid == os.Getpid() {
		_ = os.WriteFile("/proc/self/autogroup", []byte(controlNiceness), 0o600)
	}
}

type up struct {
	Options
	state  *stateFile
	procs  *processes
	client kubernetes.Interface // once the API server has a port
	server string
	index  int
	init   string
}

func (u *up) run(ctx context.Context) error {
	block, err := claimBlock()
	if err != nil {
		return err
	}
	defer block.Close()
	u.index = block.index
	listeners, err := forward.Listen(u.Forward)
	if err != nil {
		return err
	}
	if err := u.prepare(listeners); err != nil {
		return err
	}
	if u.has("nodes") {
		if err := u.trial(ctx); err != nil {
			return err
		}
	}
	if err := u.startServer(ctx); err != nil {
		return err
	}
	if u.client, err = u.administrator(); err != nil {
		return err
	}
	if err := u.startRest(ctx); err != nil {
		return err
	}
	if err := u.serve(ctx, listeners); err != nil {
		return err
	}
	fmt.Printf("READY server=%s kubeconfig=%s\n", u.server, u.path("admin.kubeconfig"))
	select {
	case <-ctx.Done():
		return nil
	case err := <-u.procs.failed:
		return err
	}
}

// serve opens the gateways' ports and completes the nodes, once the API server answers.
func (u *up) serve(ctx context.Context, listeners []net.Listener) error {
	if err := u.state.update(func(s *State) { s.Phase = Serving }); err != nil {
		return err
	}
	go forward.Serve(ctx, u.client, u.Forward, listeners)
	if u.has("nodes") {
		if err := u.adopt(ctx, u.client); err != nil {
			return err
		}
	}
	return u.state.update(func(s *State) { s.Phase = Ready })
}

func (u *up) administrator() (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", u.path("admin.kubeconfig"))
	if err != nil {
		return nil, err
	}
	config.QPS, config.Burst = 100, 200
	patient.Wrap(config)
	return kubernetes.NewForConfig(config)
}

// prepare picks the port, writes the identities and the first state.
func (u *up) prepare(listeners []net.Listener) error {
	portFile := u.path("port")
	if b, err := os.ReadFile(portFile); err == nil { // a restart keeps the port: the kubeconfigs name it
		_, _ = fmt.Sscan(string(b), &u.Port)
	}
	if u.Port == 0 {
		port, err := freePort()
		if err != nil {
			return err
		}
		u.Port = port
	}
	if err := os.WriteFile(portFile, []byte(fmt.Sprint(u.Port)), 0o600); err != nil {
		return err
	}
	u.server = fmt.Sprintf("https://127.0.0.1:%d", u.Port)
	var names []string
	for _, n := range u.Nodes {
		names = append(names, n.Name)
	}
	if err := pki.Ensure(u.Dir, u.server, names); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	u.init = filepath.Join(filepath.Dir(self), "container-init")
	forwards := []string{}
	for _, l := range listeners {
		forwards = append(forwards, l.Addr().String())
	}
	return u.state.update(func(s *State) {
		*s = State{Phase: Starting, PID: os.Getpid(), Server: u.server, Kubeconfig: u.path("admin.kubeconfig"), Forwards: forwards, Index: u.index}
	})
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// block is this sandbox's share of 127.0.0.0/8: nodes are 127.0.(1+index).n,
// Pods 127.(16+16*index+node).x.y. A socket held open claims it machine-wide.
type block struct {
	net.Listener
	index int
}

const maxBlocks = 14

func claimBlock() (*block, error) {
	for i := range maxBlocks {
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.%d.254:10249", 1+i)); err == nil {
			return &block{l, i}, nil
		}
	}
	return nil, fmt.Errorf("all %d loopback address blocks are taken: end a sandbox with `headwater sandbox down`", maxBlocks)
}

func (u *up) nodeIP(i int) string { return fmt.Sprintf("127.0.%d.%d", 1+u.index, 1+i) }
func (u *up) nodeBlock(i int) int { return 16 + maxNodes*u.index + i }
