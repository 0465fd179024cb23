package supervise

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

const uninitialized = "node.cloudprovider.kubernetes.io/uninitialized"

// adopt does what a cloud's node controller would: each node's address, which
// the kubelet refuses to claim itself since it is a loopback one, and off with
// the taint that awaits it.
func (u *up) adopt(ctx context.Context, client kubernetes.Interface) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for i, n := range u.Nodes {
		for {
			err := adoptNode(ctx, client, n.Name, u.nodeIP(i))
			if err == nil {
				break
			}
			select {
			case failure := <-u.procs.failed:
				return failure
			case <-ctx.Done():
				return fmt.Errorf("node %s did not register in %v (%w); see %s", n.Name, startTimeout, err, u.path("logs", "node-"+n.Name+".log"))
			case <-time.After(25 * time.Millisecond):
			}
		}
	}
	return nil
}

func adoptNode(ctx context.Context, client kubernetes.Interface, name, ip string) error {
	nodes := client.CoreV1().Nodes()
	status, err := json.Marshal(map[string]any{"status": map[string]any{"addresses": []v1.NodeAddress{
		{Type: v1.NodeInternalIP, Address: ip}, {Type: v1.NodeHostName, Address: name},
	}}})
	if err != nil {
		return err
	}
	n, err := nodes.Patch(ctx, name, types.StrategicMergePatchType, status, metav1.PatchOptions{}, "status")
	if err != nil {
		return err // not registered yet, most likely
	}
	keep := []v1.Taint{}
	for _, t := range n.Spec.Taints {
		if t.Key != uninitialized {
			keep = append(keep, t)
		}
	}
	if len(keep) == len(n.Spec.Taints) {
		return nil
	}
	// With the version just seen: a taint set meanwhile is not lost.
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": n.ResourceVersion}, "spec": map[string]any{"taints": keep},
	})
	if err != nil {
		return err
	}
	_, err = nodes.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}
