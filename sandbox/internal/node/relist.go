package node

import (
	"reflect"
	"time"
	"unsafe"

	"k8s.io/kubernetes/pkg/kubelet"
	"k8s.io/kubernetes/pkg/kubelet/pleg"
)

// relister makes the kubelet look at its containers as soon as one has
// changed. By itself it looks once a second, which would add up to a second to
// each start and to the report of each death.
type relister struct{ wanted chan struct{} }

// relistPause bounds relisting to 50 a second.
const relistPause = 20 * time.Millisecond

func newRelister() *relister { return &relister{make(chan struct{}, 1)} }

func (r *relister) request() {
	select {
	case r.wanted <- struct{}{}:
	default: // one is due already, and will see this change
	}
}

// serve relists on request. The kubelet does not publish its generator of pod
// lifecycle events, so it is taken by its field name; where a later kubelet
// calls it otherwise, the sandbox works on at the kubelet's own pace.
func (r *relister) serve(k *kubelet.Kubelet) {
	field := reflect.ValueOf(k).Elem().FieldByName("pleg")
	if !field.IsValid() || field.Type() != reflect.TypeFor[pleg.PodLifecycleEventGenerator]() {
		return
	}
	generator := *(*pleg.PodLifecycleEventGenerator)(unsafe.Pointer(field.UnsafeAddr()))
	generic, ok := generator.(interface{ Relist() })
	if !ok {
		return
	}
	go func() {
		for range r.wanted {
			generic.Relist()
			time.Sleep(relistPause)
		}
	}()
}
