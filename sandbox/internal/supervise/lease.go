package supervise

import (
	"context"
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
)

// elected are the components that lead by a Lease, and its name. One that cannot renew it for renewDeadline ends; the
// next one starts with fresh watches once the API server answers, where the old one's would wait up to a minute.
var elected = map[string]string{"controller-manager": "kube-controller-manager", "scheduler": "kube-scheduler"}

const (
	releaseTry   = 5 * time.Second
	releasePause = 250 * time.Millisecond
)

// release gives back the Lease of a component that has ended, and so waits for the API server to answer. There is
// never a second one of it here: without this the next would wait for 15 s to see whether the old one is alive.
// It ends with ctx, the sandbox's own life.
func release(ctx context.Context, leases coordinationv1.LeaseInterface, name string) error {
	for {
		try, cancel := context.WithTimeout(ctx, releaseTry)
		err := leases.Delete(try, name, metav1.DeleteOptions{})
		cancel()
		if err == nil || apierrors.IsNotFound(err) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(releasePause + time.Duration(rand.Int64N(int64(releasePause)))):
		}
	}
}
