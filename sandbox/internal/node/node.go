// Package node is one Kubernetes node: the real kubelet's code on the process
// runtime of package cri, with stub cgroups, a fake mounter (volumes are plain
// directories) and no cadvisor.
package node

import (
	"context"
	"crypto/tls"
	"flag"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	cadvisorapi "github.com/google/cadvisor/info/v1"
	noop "go.opentelemetry.io/otel/trace/noop"
	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/record"
	kubeletapp "k8s.io/kubernetes/cmd/kubelet/app"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	"k8s.io/kubernetes/pkg/kubelet"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
	cadvisortest "k8s.io/kubernetes/pkg/kubelet/cadvisor/testing"
	"k8s.io/kubernetes/pkg/kubelet/cm"
	kubecontainer "k8s.io/kubernetes/pkg/kubelet/container"
	"k8s.io/kubernetes/pkg/kubelet/server"
	kubeletutil "k8s.io/kubernetes/pkg/kubelet/util"
	"k8s.io/kubernetes/pkg/util/oom"
	"k8s.io/kubernetes/pkg/volume"
	"k8s.io/kubernetes/pkg/volume/configmap"
	"k8s.io/kubernetes/pkg/volume/downwardapi"
	"k8s.io/kubernetes/pkg/volume/emptydir"
	"k8s.io/kubernetes/pkg/volume/hostpath"
	"k8s.io/kubernetes/pkg/volume/projected"
	"k8s.io/kubernetes/pkg/volume/secret"
	"k8s.io/kubernetes/pkg/volume/util/hostutil"
	"k8s.io/kubernetes/pkg/volume/util/subpath"
	"k8s.io/mount-utils"

	"headwater.dev/sandbox/internal/cri"
	"headwater.dev/sandbox/internal/patient"
	"headwater.dev/sandbox/internal/pki"
)

// Options are a node's command line.
type Options struct {
	Name, Region, Zone string
	Kubeconfig, CA     string
	Root, Init         string
	IP                 string // the node's own address, where the API server fetches logs
	Block              int    // Pods get 127.Block.x.y
	Server             string // the API server's URL
	Path               string
	Writable           []string
}

// stopGrace is what a container has between SIGTERM and SIGKILL when its node stops.
const stopGrace = 1500 * time.Millisecond

// Run is the command `node`: it returns when the process is told to end, after its containers.
func Run(args []string) error {
	var o Options
	var writable string
	fs := flag.NewFlagSet("node", flag.ContinueOnError)
	fs.StringVar(&o.Name, "name", "", "node name")
	fs.StringVar(&o.Region, "region", "", "label topology.kubernetes.io/region")
	fs.StringVar(&o.Zone, "zone", "", "label topology.kubernetes.io/zone")
	fs.StringVar(&o.Kubeconfig, "kubeconfig", "", "kubeconfig of system:node:NAME")
	fs.StringVar(&o.CA, "ca-file", "", "CA of the API server's client certificate")
	fs.StringVar(&o.Root, "root-dir", "", "state of this node")
	fs.StringVar(&o.Init, "init", "", "the container-init program")
	fs.StringVar(&o.IP, "ip", "127.0.1.1", "address of the node")
	fs.IntVar(&o.Block, "block", 16, "Pods get 127.BLOCK.x.y")
	fs.StringVar(&o.Server, "server", "", "URL of the API server")
	fs.StringVar(&o.Path, "path", os.Getenv("PATH"), "PATH of the containers")
	fs.StringVar(&writable, "writable", "", "host paths that containers may write to, by colons")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if writable != "" {
		o.Writable = strings.Split(writable, ":")
	}
	return o.run()
}

func (o Options) run() error {
	if err := os.MkdirAll(o.Root, 0o700); err != nil {
		return err
	}
	relist := newRelister()
	runtime, err := cri.New(cri.Options{
		Root: filepath.Join(o.Root, "rootfs"), Init: o.Init, APIServer: o.Server, Block: o.Block,
		Path: o.Path, Writable: o.Writable, Changed: relist.request,
	})
	if err != nil {
		return err
	}
	flags, config, err := o.configuration()
	if err != nil {
		return err
	}
	deps, err := o.dependencies(runtime, config)
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	ctx := context.Background()
	k, err := start(ctx, &options.KubeletServer{KubeletFlags: *flags, KubeletConfiguration: *config}, deps, o.Name)
	if err != nil {
		return err
	}
	relist.serve(k)
	<-stop
	runtime.Close(stopGrace)
	return nil
}

type machine struct{ cadvisortest.Fake }

// MachineInfo is what the scheduler takes for the node's capacity. Nothing is enforced.
func (*machine) MachineInfo() (*cadvisorapi.MachineInfo, error) {
	return &cadvisorapi.MachineInfo{NumCores: 64, MemoryCapacity: 256 << 30, MachineID: "sandbox"}, nil
}

// VersionInfo tells `kubectl get nodes -o wide` what machine this is.
func (*machine) VersionInfo() (*cadvisorapi.VersionInfo, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return nil, err
	}
	return &cadvisorapi.VersionInfo{KernelVersion: unix.ByteSliceToString(uts.Release[:]), ContainerOsVersion: "the host's"}, nil
}

// hostUtil leaves out the bind mount of the root directory on itself.
type hostUtil struct{ hostutil.HostUtils }

func (hostUtil) MakeRShared(string) error { return nil }

// hostOS leaves out the kubelet's links under /var/log/containers, for log
// collectors of old: nothing of a sandbox is outside its data directory.
type hostOS struct{ kubecontainer.RealOS }

func (hostOS) Symlink(target, link string) error {
	if filepath.Dir(link) == kubelet.DefaultContainerLogsDir {
		return nil
	}
	return os.Symlink(target, link)
}

func volumePlugins() []volume.VolumePlugin {
	var all []volume.VolumePlugin
	for _, p := range [][]volume.VolumePlugin{
		emptydir.ProbeVolumePlugins(), secret.ProbeVolumePlugins(), configmap.ProbeVolumePlugins(), downwardapi.ProbeVolumePlugins(),
		projected.ProbeVolumePlugins(), hostpath.ProbeVolumePlugins(volume.VolumeConfig{}),
	} {
		all = append(all, p...)
	}
	return all
}

func (o Options) dependencies(runtime *cri.Runtime, config *kubeletconfig.KubeletConfiguration) (*kubelet.Dependencies, error) {
	rest, err := clientcmd.BuildConfigFromFlags("", o.Kubeconfig)
	if err != nil {
		return nil, err
	}
	rest.QPS, rest.Burst = 200, 400
	patient.Wrap(rest)
	client, err := kubernetes.NewForConfig(rest)
	if err != nil {
		return nil, err
	}
	crt, key := filepath.Join(o.Root, "kubelet.crt"), filepath.Join(o.Root, "kubelet.key")
	if err := pki.SelfSigned(o.Name, crt, key); err != nil {
		return nil, err
	}
	auth, reloadCA, err := kubeletapp.BuildAuth(types.NodeName(o.Name), client, *config)
	if err != nil {
		return nil, err
	}
	go reloadCA(context.Background().Done())
	events := record.NewBroadcaster()
	events.StartRecordingToSink(&corev1client.EventSinkImpl{Interface: client.CoreV1().Events("")})
	mounter := mount.NewFakeMounter(nil)
	return &kubelet.Dependencies{
		KubeClient: client, HeartbeatClient: client, EventClient: client.CoreV1(), Auth: auth,
		RemoteRuntimeService: runtime, RemoteImageService: cri.Images{},
		CAdvisorInterface: &machine{}, ContainerManager: cm.NewStubContainerManager(),
		OSInterface: hostOS{}, OOMAdjuster: oom.NewFakeOOMAdjuster(),
		Mounter: mounter, Subpather: subpath.New(mounter), HostUtil: hostUtil{hostutil.NewHostUtil()},
		VolumePlugins:             volumePlugins(),
		TLSOptions:                &server.TLSOptions{Config: &tls.Config{ClientAuth: tls.RequestClientCert, MinVersion: tls.VersionTLS12}, CertFile: crt, KeyFile: key},
		PodStartupLatencyTracker:  kubeletutil.NewPodStartupLatencyTracker(),
		NodeStartupLatencyTracker: kubeletutil.NewNodeStartupLatencyTracker(),
		TracerProvider:            noop.NewTracerProvider(),
		Recorder:                  events.NewRecorder(scheme.Scheme, v1.EventSource{Component: "kubelet", Host: o.Name}),
	}, nil
}
