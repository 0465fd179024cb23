// Package cri is a container runtime that lives in the kubelet's own process:
// a Pod sandbox is a loopback address, a container a process group in its own
// mount namespace (built by container-init). Images are ignored, users and
// resource limits are not applied, exec and attach are not offered.
package cri

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"
	internalapi "k8s.io/cri-api/pkg/apis"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Options are what a node's runtime needs to know.
type Options struct {
	Root      string   // for the containers' file systems
	Init      string   // path of the container-init program
	APIServer string   // https://host:port, told to containers as KUBERNETES_SERVICE_*
	Block     int      // Pods get 127.Block.x.y
	Path      string   // PATH of every container
	Writable  []string // host paths that containers may write to
	Changed   func()   // called after each change of a container's or sandbox's state; must not block
}

// Runtime implements the CRI's runtime service. What the kubelet never calls
// with our options is left to the nil embedded interface.
type Runtime struct {
	internalapi.RuntimeService
	opt    Options
	forks  chan func() // run by one locked OS thread, see forkLoop
	mu     sync.Mutex
	nextIP int
	pods   map[string]*pod
	cons   map[string]*container
	live   map[int]bool // process ids of containers that have not been waited for
	execs  int          // commands of ExecSync now running
}

type pod struct {
	status *rt.PodSandboxStatus
	config *rt.PodSandboxConfig
}

// New makes the runtime and makes this process the reaper of what its containers leave behind.
func New(opt Options) (*Runtime, error) {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("child subreaper: %w", err)
	}
	r := &Runtime{opt: opt, forks: make(chan func()), pods: map[string]*pod{}, cons: map[string]*container{}, live: map[int]bool{}}
	go r.forkLoop()
	return r, nil
}

// forkLoop starts every child on one OS thread that never ends: the kernel
// sends a child's Pdeathsig when the *thread* that forked it ends.
func (r *Runtime) forkLoop() {
	runtime.LockOSThread()
	for f := range r.forks {
		f()
	}
}

// Close ends every container: SIGTERM, then after grace SIGKILL.
func (r *Runtime) Close(grace time.Duration) {
	r.mu.Lock()
	var live []*container
	for _, c := range r.cons {
		if c.running() {
			c.signal(unix.SIGTERM)
			live = append(live, c)
		}
	}
	r.mu.Unlock()
	end := time.After(grace)
	for _, c := range live {
		select {
		case <-c.done:
		case <-end:
			for _, c := range live {
				r.signal(c, unix.SIGKILL)
			}
			end = nil
			<-c.done
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sweep()
}

// Version implements the CRI.
func (r *Runtime) Version(context.Context, string) (*rt.VersionResponse, error) {
	return &rt.VersionResponse{Version: "0.1.0", RuntimeName: "process", RuntimeVersion: "1.0.0", RuntimeApiVersion: "v1"}, nil
}

// Status implements the CRI.
func (r *Runtime) Status(context.Context, bool) (*rt.StatusResponse, error) {
	return &rt.StatusResponse{Status: &rt.RuntimeStatus{Conditions: []*rt.RuntimeCondition{
		{Type: rt.RuntimeReady, Status: true}, {Type: rt.NetworkReady, Status: true},
	}}}, nil
}

// RuntimeConfig implements the CRI.
func (r *Runtime) RuntimeConfig(context.Context) (*rt.RuntimeConfigResponse, error) {
	return &rt.RuntimeConfigResponse{}, nil
}

// UpdateRuntimeConfig implements the CRI.
func (r *Runtime) UpdateRuntimeConfig(context.Context, *rt.RuntimeConfig) error { return nil }

// UpdateContainerResources implements the CRI; there are no limits.
func (r *Runtime) UpdateContainerResources(context.Context, string, *rt.ContainerResources) error {
	return nil
}

// ListPodSandboxStats implements the CRI; there are no figures.
func (r *Runtime) ListPodSandboxStats(context.Context, *rt.PodSandboxStatsFilter) ([]*rt.PodSandboxStats, error) {
	return nil, nil
}

// ListContainerStats implements the CRI; there are no figures.
func (r *Runtime) ListContainerStats(context.Context, *rt.ContainerStatsFilter) ([]*rt.ContainerStats, error) {
	return nil, nil
}

// RunPodSandbox gives the Pod an address of its own.
func (r *Runtime) RunPodSandbox(_ context.Context, c *rt.PodSandboxConfig, _ string) (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.opt.Changed()
	r.nextIP++
	id := uuid.NewString()
	ip := fmt.Sprintf("127.%d.%d.%d", r.opt.Block, r.nextIP/250%250, r.nextIP%250+1)
	r.pods[id] = &pod{config: c, status: &rt.PodSandboxStatus{
		Id: id, Metadata: c.Metadata, State: rt.PodSandboxState_SANDBOX_READY, CreatedAt: time.Now().UnixNano(),
		Labels: c.Labels, Annotations: c.Annotations, Network: &rt.PodSandboxNetworkStatus{Ip: ip},
		Linux: &rt.LinuxPodSandboxStatus{Namespaces: &rt.Namespace{Options: &rt.NamespaceOption{}}},
	}}
	return id, os.MkdirAll(c.LogDirectory, 0o700)
}

// StopPodSandbox kills what still runs in the Pod.
func (r *Runtime) StopPodSandbox(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.opt.Changed()
	if p := r.pods[id]; p != nil {
		p.status.State = rt.PodSandboxState_SANDBOX_NOTREADY
	}
	for _, c := range r.cons {
		if c.sandbox == id && c.running() {
			c.signal(unix.SIGKILL)
		}
	}
	return nil
}

// RemovePodSandbox forgets the Pod.
func (r *Runtime) RemovePodSandbox(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.opt.Changed()
	delete(r.pods, id)
	for k, c := range r.cons {
		if c.sandbox == id {
			delete(r.cons, k)
			_ = os.RemoveAll(r.rootfs(k))
		}
	}
	return nil
}

// PodSandboxStatus implements the CRI.
func (r *Runtime) PodSandboxStatus(_ context.Context, id string, _ bool) (*rt.PodSandboxStatusResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.pods[id]
	if p == nil {
		return nil, fmt.Errorf("no sandbox %s", id)
	}
	s := p.status
	return &rt.PodSandboxStatusResponse{Status: &rt.PodSandboxStatus{
		Id: id, Metadata: s.Metadata, State: s.State, CreatedAt: s.CreatedAt,
		Network: s.Network, Linux: s.Linux, Labels: s.Labels, Annotations: s.Annotations,
	}}, nil
}

// ListPodSandbox implements the CRI.
func (r *Runtime) ListPodSandbox(_ context.Context, f *rt.PodSandboxFilter) ([]*rt.PodSandbox, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*rt.PodSandbox
	for id, p := range r.pods {
		s := p.status
		if f != nil && (f.Id != "" && f.Id != id || f.State != nil && f.State.State != s.State || !matches(f.LabelSelector, s.Labels)) {
			continue
		}
		out = append(out, &rt.PodSandbox{
			Id: id, Metadata: s.Metadata, State: s.State, CreatedAt: s.CreatedAt, Labels: s.Labels, Annotations: s.Annotations,
		})
	}
	return out, nil
}

func matches(want, have map[string]string) bool {
	for k, v := range want {
		if have[k] != v {
			return false
		}
	}
	return true
}

func (r *Runtime) rootfs(id string) string { return filepath.Join(r.opt.Root, id) }
