// Package forward makes the gateways reachable on 127.0.0.1: port i leads to
// the i-th gateway Pod, and follows when a Pod is replaced. A Service cannot do
// it: the sandbox's Pod addresses are loopback ones, which Endpoints refuse.
package forward

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Options say which Pods get which ports.
type Options struct {
	Count               int // number of Pods
	Port                int // first local port; 0: the first free one from DefaultPort on
	TargetPort          int // of the Pods
	Namespace, Selector string
}

// DefaultPort is LiveKit's own, where client examples expect a server.
const DefaultPort = 7880

const (
	maxConnections = 4096 // at a time, per port
	dialTimeout    = 2 * time.Second
)

// Listen claims the ports. An asked-for port that is taken is an error; by
// itself it takes the next free ones.
func Listen(o Options) ([]net.Listener, error) {
	var out []net.Listener
	port := o.Port
	if port == 0 {
		port = DefaultPort
	}
	for ; len(out) < o.Count; port++ {
		if port > 65535 {
			closeAll(out)
			return nil, fmt.Errorf("no %d free ports from %d on; name a lower one with --port", o.Count, max(o.Port, DefaultPort))
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			out = append(out, l)
			continue
		}
		if o.Port != 0 {
			closeAll(out)
			return nil, fmt.Errorf("port %d on 127.0.0.1 cannot be used (%w): free it or choose another with --port", port, reason(err))
		}
	}
	return out, nil
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

// reason shortens "listen tcp 127.0.0.1:7880: bind: address already in use".
func reason(err error) error {
	if op, ok := err.(*net.OpError); ok {
		if sys, ok := op.Err.(interface{ Unwrap() error }); ok && sys.Unwrap() != nil {
			return sys.Unwrap()
		}
	}
	return err
}

// Serve forwards until ctx ends.
func Serve(ctx context.Context, client kubernetes.Interface, o Options, listeners []net.Listener) {
	if len(listeners) == 0 {
		return
	}
	t := &table{slots: make([]Pod, len(listeners))}
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithNamespace(o.Namespace),
		informers.WithTweakListOptions(func(l *metav1.ListOptions) { l.LabelSelector = o.Selector }))
	informer := factory.Core().V1().Pods().Informer()
	refresh := func(any) { t.update(observe(informer.GetStore())) }
	_, _ = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: refresh, DeleteFunc: refresh, UpdateFunc: func(_, now any) { refresh(now) },
	})
	factory.Start(ctx.Done())
	var all sync.WaitGroup
	for i, l := range listeners {
		all.Add(1)
		go func() { defer all.Done(); accept(ctx, l, t, i, o.TargetPort) }()
	}
	<-ctx.Done()
	closeAll(listeners)
	all.Wait()
}

func observe(store cache.Store) []Pod {
	var pods []Pod
	for _, item := range store.List() {
		p, ok := item.(*v1.Pod)
		if !ok || p.Status.PodIP == "" || p.DeletionTimestamp != nil || p.Status.Phase != v1.PodRunning {
			continue
		}
		ready := false
		for _, c := range p.Status.Conditions {
			ready = ready || c.Type == v1.PodReady && c.Status == v1.ConditionTrue
		}
		pods = append(pods, Pod{Name: p.Name, UID: string(p.UID), IP: p.Status.PodIP, Ready: ready})
	}
	return pods
}

type table struct {
	mu    sync.Mutex
	slots []Pod
}

func (t *table) update(pods []Pod) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.slots = Assign(t.slots, pods)
}

func (t *table) target(i, port int) (string, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.slots[i].UID == "" {
		return "", false
	}
	return fmt.Sprintf("%s:%d", t.slots[i].IP, port), true
}

func accept(ctx context.Context, l net.Listener, t *table, slot, port int) {
	places := make(chan struct{}, maxConnections)
	for {
		c, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			time.Sleep(10 * time.Millisecond) // out of descriptors, most likely
			continue
		}
		address, ok := t.target(slot, port)
		select {
		case places <- struct{}{}:
		default:
			ok = false
		}
		if !ok {
			refuse(c)
			continue
		}
		go func() {
			defer func() { <-places }()
			pipe(ctx, c.(*net.TCPConn), address)
		}()
	}
}

// refuse resets the connection, as a port without a listener would.
func refuse(c net.Conn) {
	_ = c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// pipe joins client and Pod. Each side's end of stream is passed on, so half-
// closed connections work; buffers are the kernel's and one of io.Copy's.
func pipe(ctx context.Context, client *net.TCPConn, address string) {
	c, err := net.DialTimeout("tcp", address, dialTimeout)
	if err != nil {
		refuse(client)
		return
	}
	pod := c.(*net.TCPConn)
	stop := context.AfterFunc(ctx, func() { client.Close(); pod.Close() })
	defer stop()
	var both sync.WaitGroup
	both.Add(2)
	go func() { defer both.Done(); relay(pod, client) }()
	go func() { defer both.Done(); relay(client, pod) }()
	both.Wait()
	client.Close()
	pod.Close()
}

func relay(to, from *net.TCPConn) {
	_, err := io.Copy(to, from)
	if err != nil { // reset or gone: the other side learns it as such
		_ = to.SetLinger(0)
		to.Close()
		if err != syscall.EPIPE {
			from.Close()
		}
		return
	}
	_ = to.CloseWrite()
}
