package manifest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
)

const fieldManager = "headwater-sandbox"

// RunApply is the command `apply`: server-side apply of the manifests on
// standard input. It waits for a kind that is about to exist, such as one
// whose definition was among the manifests.
func RunApply(args []string) error {
	fs := flag.NewFlagSet("apply", flag.ContinueOnError)
	kubeconfig := fs.String("kubeconfig", "", "kubeconfig (required)")
	namespace := fs.String("namespace", "default", "of namespaced objects that name none")
	timeout := fs.Duration("timeout", 30*time.Second, "how long to wait for kinds to exist")
	if err := fs.Parse(args); err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 200, 400
	disco, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return err
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	objects, err := Decode(os.Stdin)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	a := applier{client, restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(disco)), *namespace}
	for _, o := range objects {
		if err := a.apply(ctx, o); err != nil {
			return fmt.Errorf("%s %s: %w", o.GetKind(), o.GetName(), err)
		}
	}
	return nil
}

// Decode reads a stream of YAML or JSON documents, with those that others need put first.
func Decode(r io.Reader) ([]*unstructured.Unstructured, error) {
	var out []*unstructured.Unstructured
	for d := yaml.NewYAMLOrJSONDecoder(r, 4096); ; {
		o := &unstructured.Unstructured{}
		err := d.Decode(&o.Object)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("manifest %d: %w", len(out)+1, err)
		}
		if len(o.Object) == 0 {
			continue
		}
		if o.GetKind() == "" || o.GetName() == "" {
			return nil, fmt.Errorf("manifest %d: kind and metadata.name are required", len(out)+1)
		}
		out = append(out, o)
	}
	slices.SortStableFunc(out, func(a, b *unstructured.Unstructured) int { return rank(a.GetKind()) - rank(b.GetKind()) })
	return out, nil
}

// rank: what others refer to comes first, what starts Pods last.
func rank(kind string) int {
	switch kind {
	case "CustomResourceDefinition", "Namespace":
		return 0
	case "ServiceAccount", "Secret", "ConfigMap":
		return 1
	case "ClusterRole", "Role", "ClusterRoleBinding", "RoleBinding":
		return 2
	default:
		return 3
	}
}

type applier struct {
	client    dynamic.Interface
	mapper    *restmapper.DeferredDiscoveryRESTMapper
	namespace string
}

func (a applier) apply(ctx context.Context, o *unstructured.Unstructured) error {
	body, err := o.MarshalJSON()
	if err != nil {
		return err
	}
	for {
		err := a.once(ctx, o, body)
		if err == nil || !passing(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(50 * time.Millisecond):
			a.mapper.Reset()
		}
	}
}

func (a applier) once(ctx context.Context, o *unstructured.Unstructured, body []byte) error {
	gvk := schema.FromAPIVersionAndKind(o.GetAPIVersion(), o.GetKind())
	mapping, err := a.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	if err != nil {
		return err
	}
	var resource dynamic.ResourceInterface = a.client.Resource(mapping.Resource)
	if mapping.Scope.Name() == meta.RESTScopeNameNamespace {
		namespace := o.GetNamespace()
		if namespace == "" {
			namespace = a.namespace
		}
		resource = a.client.Resource(mapping.Resource).Namespace(namespace)
	}
	force := true
	_, err = resource.Patch(ctx, o.GetName(), types.ApplyPatchType, body, metav1.PatchOptions{FieldManager: fieldManager, Force: &force})
	return err
}

// passing errors end by themselves: a kind just defined is not served yet, its
// storage answers 429 at first, a namespace just made is not seen by admission.
func passing(err error) bool {
	if meta.IsNoMatchError(err) || apierrors.IsTooManyRequests(err) || apierrors.IsServiceUnavailable(err) {
		return true
	}
	return apierrors.IsNotFound(err) && (strings.Contains(err.Error(), "the server could not find") || strings.Contains(err.Error(), "namespaces"))
}
