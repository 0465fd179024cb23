package supervise

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"headwater.dev/sandbox/internal/pki"
)

// startServer starts etcd and the API server and waits until it is ready.
func (u *up) startServer(ctx context.Context) error {
	client, err := freePort()
	if err != nil {
		return err
	}
	peer, err := freePort()
	if err != nil {
		return err
	}
	etcd := fmt.Sprintf("http://127.0.0.1:%d", client)
	if err := u.start(ctx, "etcd", "etcd", "--data-dir="+u.path("etcd"), "--client-url="+etcd, fmt.Sprintf("--peer-url=http://127.0.0.1:%d", peer)); err != nil {
		return err
	}
	if err := u.start(ctx, "apiserver", "apiserver", u.serverFlags(etcd)...); err != nil {
		return err
	}
	return u.waitReady(ctx)
}

func (u *up) serverFlags(etcd string) []string {
	return []string{
		"--etcd-servers=" + etcd,
		"--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", u.Port),
		"--advertise-address=192.0.2.1",   // never served: a loopback one is refused
		"--endpoint-reconciler-type=none", // ... since no endpoints are published
		"--cert-dir=" + u.path("pki"),
		"--tls-cert-file=" + u.path("pki/apiserver.crt"), "--tls-private-key-file=" + u.path("pki/apiserver.key"),
		"--client-ca-file=" + u.path("pki/ca.crt"),
		"--kubelet-client-certificate=" + u.path("pki/kubelet-client.crt"), "--kubelet-client-key=" + u.path("pki/kubelet-client.key"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file=" + u.path("pki/sa.key"), "--service-account-signing-key-file=" + u.path("pki/sa.key"),
		"--service-cluster-ip-range=10.96.0.0/16",
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--kubelet-preferred-address-types=InternalIP", "--profiling=false",
	}
}

// controllers leaves out those that would only complain of loopback Pod addresses.
const controllers = "*,-endpoints-controller,-endpointslice-controller,-endpointslice-mirroring-controller,-node-ipam-controller,-node-route-controller,-cloud-node-lifecycle-controller"

// schedulerConfig reads its caches only once it leads: where the API server goes away before that, a scheduler that
// reads first would wait for them for good, in pauses that grow, and never end for want of its Lease.
const schedulerConfig = `apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
clientConnection: {kubeconfig: %q, qps: 200, burst: 400}
delayCacheUntilActive: true
enableProfiling: false
`

// startRest starts what needs the API server.
func (u *up) startRest(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	if u.has("controller-manager") {
		err := u.start(ctx, "controller-manager", "controller-manager", "--kubeconfig="+u.path("controller-manager.kubeconfig"),
			"--secure-port=0", "--controllers="+controllers,
			"--use-service-account-credentials=true", "--root-ca-file="+u.path("pki/ca.crt"),
			"--service-account-private-key-file="+u.path("pki/sa.key"),
			"--kube-api-qps=500", "--kube-api-burst=1000",
			"--node-monitor-period=1s", "--node-monitor-grace-period=12s", "--profiling=false")
		if err != nil {
			return err
		}
	}
	if u.has("scheduler") {
		config := u.path("scheduler.yaml")
		if err := os.WriteFile(config, fmt.Appendf(nil, schedulerConfig, u.path("scheduler.kubeconfig")), 0o600); err != nil {
			return err
		}
		if err := u.start(ctx, "scheduler", "scheduler", "--config="+config, "--secure-port=0"); err != nil {
			return err
		}
	}
	if !u.has("nodes") {
		return nil
	}
	for i, n := range u.Nodes {
		err := u.start(ctx, "node-"+n.Name, "node", "--name="+n.Name, "--region="+n.Region, "--zone="+n.Zone,
			"--kubeconfig="+u.path("node-"+n.Name+".kubeconfig"), "--ca-file="+u.path("pki/ca.crt"),
			"--root-dir="+u.path("nodes", n.Name), "--init="+u.init, "--ip="+u.nodeIP(i), fmt.Sprintf("--block=%d", u.nodeBlock(i)),
			"--server="+u.server, "--path="+u.Path, "--writable="+u.Writable)
		if err != nil {
			return err
		}
	}
	return nil
}

func (u *up) start(ctx context.Context, name, command string, args ...string) error {
	if lease := elected[name]; lease != "" {
		if err := release(ctx, u.client.CoordinationV1().Leases(metav1.NamespaceSystem), lease); err != nil {
			return fmt.Errorf("%s: lease %s: %w", name, lease, err)
		}
	}
	pid, err := u.procs.start(name, command, args)
	if err != nil {
		return err
	}
	return u.state.update(func(s *State) {
		if s.Processes == nil {
			s.Processes = map[string]int{}
		}
		s.Processes[name] = pid
	})
}

func (u *up) waitReady(ctx context.Context) error {
	tls, err := pki.ServerTLS(u.Dir)
	if err != nil {
		return err
	}
	transport := &http.Transport{TLSClientConfig: tls}
	defer transport.CloseIdleConnections()
	client := &http.Client{Timeout: 2 * time.Second, Transport: transport}
	deadline := time.After(startTimeout)
	for {
		if answers(client, u.server+"/readyz") {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-u.procs.failed:
			return err
		case <-deadline:
			return fmt.Errorf("the API server was not ready in %v; see %s", startTimeout, u.path("logs", "apiserver.log"))
		case <-time.After(25 * time.Millisecond):
		}
	}
}

func answers(client *http.Client, url string) bool {
	r, err := client.Get(url)
	if err != nil {
		return false
	}
	defer r.Body.Close()
	_, _ = io.Copy(io.Discard, r.Body)
	return r.StatusCode == http.StatusOK
}
