package supervise

import (
	"context"
	"errors"
	"testing"
	"time"

	v1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

func TestWhatFollowsAnEnd(t *testing.T) {
	long := renewDeadline + time.Second
	for _, c := range []struct {
		name   string
		starts int
		life   time.Duration
		killed bool
		want   fate
	}{
		{"etcd", 1, long, true, fail},
		{"apiserver", 1, long, true, again},
		{"apiserver", 1, long, false, fail},
		{"node-eu-1", 1, long, true, leave},
		{"node-eu-1", 1, 0, false, fail},
		{"scheduler", 1, long, true, again},
		{"scheduler", 1, long, false, again},        // its Lease is lost
		{"scheduler", 1, time.Second, false, fail},  // a mistake in its configuration
		{"scheduler", 2, time.Second, false, again}, // that one worked once
		{"controller-manager", 1, long, false, again},
		{"controller-manager", 1, time.Second, false, fail},
	} {
		if got := after(c.name, c.starts, c.life, c.killed); got != c.want {
			t.Errorf("%+v: got %v", c, got)
		}
	}
}

func TestTheFirstStartAgainIsAtOnceAndLaterOnesWaitLongerUpToABound(t *testing.T) {
	h, last := history{}, time.Duration(-1)
	for range 5 {
		h.ended(time.Second)
		if got := pause(h.ends, 0); got <= last {
			t.Fatalf("%d ends: %v after %v", h.ends, got, last)
		} else {
			last = got
		}
	}
	if first := pause(1, 0); first != 0 {
		t.Errorf("first: %v", first)
	}
	if got := pause(1000, 0); got != longestPause {
		t.Errorf("longest: %v", got)
	}
	if got := pause(1000, 1); got != longestPause/2 {
		t.Errorf("with chance: %v", got)
	}
	if h.ended(calm); pause(h.ends, 0) != 0 {
		t.Errorf("after a calm life: %v", pause(h.ends, 0))
	}
}

func TestALeaseIsReleasedOnceTheServerAnswers(t *testing.T) {
	held := &v1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "kube-scheduler"}}
	client, asked := fake.NewClientset(held), 0
	client.PrependReactor("delete", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
		asked++
		return asked == 1, nil, errors.New("connection refused") // the first only
	})
	leases := client.CoordinationV1().Leases("kube-system")
	for range 2 { // the second time there is none
		if err := release(context.Background(), leases, "kube-scheduler"); err != nil {
			t.Fatal(err)
		}
	}
	left, err := leases.List(context.Background(), metav1.ListOptions{})
	if err != nil || len(left.Items) != 0 || asked != 3 {
		t.Fatalf("left %v (%v) after %d tries", left, err, asked)
	}
}

func TestAReleaseEndsWithTheSandbox(t *testing.T) {
	client := fake.NewClientset()
	ctx, cancel := context.WithCancel(context.Background())
	client.PrependReactor("delete", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
		cancel()
		return true, nil, errors.New("connection refused")
	})
	if err := release(ctx, client.CoordinationV1().Leases("kube-system"), "kube-scheduler"); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
