package cri

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"headwater.dev/sandbox/internal/cri/spec"
)

type container struct {
	status  *rt.ContainerStatus
	config  *rt.ContainerConfig
	sandbox string
	cmd     *exec.Cmd // nil until started
	logs    *logFile
	done    chan struct{} // closed when the process is gone
}

func (c *container) running() bool {
	return c.cmd != nil && c.status.State == rt.ContainerState_CONTAINER_RUNNING
}

// signal reaches the container's whole process group. The caller holds the
// runtime's lock or knows that the process has not been waited for.
func (c *container) signal(s syscall.Signal) { _ = syscall.Kill(-c.cmd.Process.Pid, s) }

// CreateContainer implements the CRI.
func (r *Runtime) CreateContainer(_ context.Context, sandbox string, c *rt.ContainerConfig, pc *rt.PodSandboxConfig) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(c.Command)+len(c.Args) == 0 {
		return "", fmt.Errorf("container %s has no command: the sandbox runs no images, set command", c.Metadata.Name)
	}
	id := uuid.NewString()
	r.cons[id] = &container{config: c, sandbox: sandbox, done: make(chan struct{}), status: &rt.ContainerStatus{
		Id: id, Metadata: c.Metadata, CreatedAt: time.Now().UnixNano(), Image: c.Image, ImageRef: c.Image.Image, ImageId: c.Image.Image,
		Labels: c.Labels, Annotations: c.Annotations, Mounts: c.Mounts, LogPath: filepath.Join(pc.LogDirectory, c.LogPath),
	}}
	return id, nil
}

// StartContainer forks the process; it answers once container-init runs.
func (r *Runtime) StartContainer(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.opt.Changed()
	c := r.cons[id]
	if c == nil || r.pods[c.sandbox] == nil {
		return fmt.Errorf("no container %s", id)
	}
	cmd, err := r.command(id, c)
	if err != nil {
		return err
	}
	logs, err := openLog(c.status.LogPath)
	if err != nil {
		return err
	}
	if err := logs.attach(cmd); err != nil {
		return err
	}
	started := make(chan error)
	r.forks <- func() { started <- cmd.Start() }
	err = <-started
	logs.started()
	if err != nil {
		return err
	}
	c.cmd, c.logs, r.live[cmd.Process.Pid] = cmd, logs, true
	c.status.State, c.status.StartedAt = rt.ContainerState_CONTAINER_RUNNING, time.Now().UnixNano()
	go r.await(c)
	return nil
}

func (r *Runtime) command(id string, c *container) (*exec.Cmd, error) {
	s := spec.Container{Root: r.rootfs(id), WorkingDir: c.config.WorkingDir, Argv: append(append([]string{}, c.config.Command...), c.config.Args...),
		Niceness: niceness(c.config.GetLinux().GetResources().GetCpuShares())}
	if s.WorkingDir == "" {
		s.WorkingDir = "/"
	}
	for _, w := range r.opt.Writable {
		s.Mounts = append(s.Mounts, spec.Mount{Source: w, Target: w})
	}
	for _, m := range c.config.Mounts {
		s.Mounts = append(s.Mounts, spec.Mount{Source: m.HostPath, Target: m.ContainerPath, ReadOnly: m.Readonly})
	}
	if err := os.MkdirAll(s.Root, 0o700); err != nil {
		return nil, err
	}
	arg, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(r.opt.Init, string(arg))
	if cmd.Env, err = r.environment(c); err != nil {
		return nil, err
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	return cmd, nil
}

// Shares of a core (1024 of them) and of a container that requests no CPU, as the kubelet gives them.
const coreShares, noShares = 1024, 2

// niceness stands for the control group that a container has elsewhere: its CPU request decides who waits where
// processors are short. Each step is a factor of 1.25 (sched(7)). Nobody can be put above the others without
// privileges: a core and more is 0, and so is a Pod that requests nothing, which gets what is left in a real cluster.
func niceness(shares int64) int {
	if shares <= noShares || shares >= coreShares {
		return 0
	}
	return min(19, int(math.Round(math.Log(coreShares/float64(shares))/math.Log(1.25))))
}

// environment is the Pod's, with the API server where it can be reached: the
// kubelet's own KUBERNETES_SERVICE_* name a cluster IP that nobody routes.
func (r *Runtime) environment(c *container) ([]string, error) {
	u, err := url.Parse(r.opt.APIServer)
	if err != nil {
		return nil, err
	}
	env := []string{"PATH=" + r.opt.Path, "HOSTNAME=" + r.pods[c.sandbox].config.Metadata.Name, "HOME=/tmp"}
	for _, e := range c.config.Envs {
		if e.Key != "KUBERNETES_SERVICE_HOST" && e.Key != "KUBERNETES_SERVICE_PORT" {
			env = append(env, e.Key+"="+e.Value)
		}
	}
	return append(env, "KUBERNETES_SERVICE_HOST="+u.Hostname(), "KUBERNETES_SERVICE_PORT="+u.Port()), nil
}

// await owns the process until it is gone and its output is written.
func (r *Runtime) await(c *container) {
	_ = c.cmd.Wait()
	state := c.cmd.ProcessState.Sys().(syscall.WaitStatus)
	code := state.ExitStatus()
	if state.Signaled() {
		code = 128 + int(state.Signal())
	}
	r.mu.Lock()
	delete(r.live, c.cmd.Process.Pid)
	c.signal(unix.SIGKILL) // what is left of the process group
	c.status.State, c.status.FinishedAt, c.status.ExitCode = rt.ContainerState_CONTAINER_EXITED, time.Now().UnixNano(), int32(code)
	if c.status.Reason = "Completed"; code != 0 {
		c.status.Reason = "Error"
	}
	r.sweep()
	r.mu.Unlock()
	r.opt.Changed()
	c.logs.drain()
	close(c.done)
}

// sweep kills and reaps what dead containers left behind in other process
// groups: such orphans have become children of this process. Lock held.
func (r *Runtime) sweep() {
	if r.execs > 0 {
		return
	}
	for _, pid := range children() {
		if !r.live[pid] {
			_ = syscall.Kill(pid, syscall.SIGKILL)
			_, _ = syscall.Wait4(pid, nil, 0, nil)
		}
	}
}

// children lists this process's children, of all its threads.
func children() []int {
	files, _ := filepath.Glob("/proc/self/task/*/children")
	var pids []int
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		for _, field := range bytes.Fields(b) {
			if pid, err := strconv.Atoi(string(field)); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func (r *Runtime) get(id string) (*container, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.cons[id]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("no container %s", id)
}

// StopContainer sends SIGTERM and after timeout seconds SIGKILL.
func (r *Runtime) StopContainer(_ context.Context, id string, timeout int64) error {
	c, err := r.get(id)
	if err != nil {
		return nil // gone already
	}
	if !r.signal(c, unix.SIGTERM) {
		return nil
	}
	select {
	case <-c.done:
	case <-time.After(time.Duration(timeout) * time.Second):
		r.signal(c, unix.SIGKILL)
		<-c.done
	}
	return nil
}

func (r *Runtime) signal(c *container, s syscall.Signal) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !c.running() {
		return false
	}
	c.signal(s)
	return true
}

// RemoveContainer implements the CRI.
func (r *Runtime) RemoveContainer(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.opt.Changed()
	delete(r.cons, id)
	return os.RemoveAll(r.rootfs(id))
}

// ListContainers implements the CRI.
func (r *Runtime) ListContainers(_ context.Context, f *rt.ContainerFilter) ([]*rt.Container, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*rt.Container
	for id, c := range r.cons {
		s := c.status
		if f != nil && (f.Id != "" && f.Id != id || f.PodSandboxId != "" && f.PodSandboxId != c.sandbox ||
			f.State != nil && f.State.State != s.State || !matches(f.LabelSelector, s.Labels)) {
			continue
		}
		out = append(out, &rt.Container{
			Id: id, PodSandboxId: c.sandbox, Metadata: s.Metadata, Image: s.Image, ImageRef: s.ImageRef, ImageId: s.ImageId,
			State: s.State, CreatedAt: s.CreatedAt, Labels: s.Labels, Annotations: s.Annotations,
		})
	}
	return out, nil
}

// ContainerStatus implements the CRI.
func (r *Runtime) ContainerStatus(_ context.Context, id string, _ bool) (*rt.ContainerStatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.cons[id]
	if c == nil {
		return nil, fmt.Errorf("no container %s", id)
	}
	s := c.status
	return &rt.ContainerStatusResponse{Status: &rt.ContainerStatus{
		Id: id, Metadata: s.Metadata, State: s.State, CreatedAt: s.CreatedAt, StartedAt: s.StartedAt, FinishedAt: s.FinishedAt,
		ExitCode: s.ExitCode, Image: s.Image, ImageRef: s.ImageRef, ImageId: s.ImageId, Reason: s.Reason,
		Labels: s.Labels, Annotations: s.Annotations, Mounts: s.Mounts, LogPath: s.LogPath,
	}}, nil
}

// ExecSync serves exec probes and lifecycle hooks, in the container's own mount namespace and root.
func (r *Runtime) ExecSync(ctx context.Context, id string, argv []string, timeout time.Duration) ([]byte, []byte, error) {
	c, err := r.get(id)
	if err != nil {
		return nil, nil, err
	}
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	r.mu.Lock()
	if !c.running() {
		r.mu.Unlock()
		return nil, nil, fmt.Errorf("container %s is not running", id)
	}
	r.execs++ // its processes are no orphans
	pid := strconv.Itoa(c.cmd.Process.Pid)
	r.mu.Unlock()
	defer func() { r.mu.Lock(); r.execs--; r.mu.Unlock() }()
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"-t", pid, "-m", "-r", "-w", "--"}, argv...)...)
	var stdout, stderr bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = c.cmd.Env, &stdout, &stderr
	err = cmd.Run()
	return stdout.Bytes(), stderr.Bytes(), err
}
