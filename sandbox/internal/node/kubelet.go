package node

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	utilfeature "k8s.io/apiserver/pkg/util/feature"
	"k8s.io/kubernetes/cmd/kubelet/app/options"
	"k8s.io/kubernetes/pkg/capabilities"
	"k8s.io/kubernetes/pkg/kubelet"
	kubeletconfig "k8s.io/kubernetes/pkg/kubelet/apis/config"
)

// configuration leaves out all that needs cgroups, iptables or a cloud.
func (o Options) configuration() (*options.KubeletFlags, *kubeletconfig.KubeletConfiguration, error) {
	f := options.NewKubeletFlags()
	f.RootDirectory, f.CertDirectory, f.HostnameOverride = o.Root, o.Root, o.Name
	f.CloudProvider = "external" // else a loopback node address is refused
	f.NodeLabels = map[string]string{v1.LabelTopologyRegion: o.Region, v1.LabelTopologyZone: o.Zone}
	c, err := options.NewKubeletConfiguration()
	if err != nil {
		return nil, nil, err
	}
	c.Address, c.Port, c.ReadOnlyPort, c.HealthzPort = o.IP, 10250, 0, 0
	c.ContainerRuntimeEndpoint = "unix:///dev/null"
	c.CgroupsPerQOS, c.EnforceNodeAllocatable, c.CgroupRoot = false, nil, ""
	c.MakeIPTablesUtilChains, c.FailSwapOn, c.LocalStorageCapacityIsolation = false, false, false
	c.EnableControllerAttachDetach = false
	c.EvictionHard = map[string]string{}
	c.PodLogsDir = filepath.Join(o.Root, "logs")
	c.ResolverConfig, c.ClusterDNS = "", []string{"10.96.0.10"} // named in no container, but asked for
	c.NodeStatusUpdateFrequency.Duration = 2 * time.Second
	c.NodeLeaseDurationSeconds = 8
	c.SyncFrequency.Duration = 5 * time.Second
	c.SerializeImagePulls, c.RegistryPullQPS = false, 0 // else 5 "pulls" a second, then ErrImagePull
	c.EventRecordQPS = 0
	c.ShutdownGracePeriod.Duration = 0
	c.KubeAPIQPS, c.KubeAPIBurst = 200, 400
	c.Authentication.X509.ClientCAFile = o.CA
	c.Authentication.Anonymous.Enabled, c.Authentication.Webhook.Enabled = false, false
	c.Authorization.Mode = kubeletconfig.KubeletAuthorizationModeAlwaysAllow // of those with a certificate of our CA
	return f, c, utilfeature.DefaultMutableFeatureGate.Set("KubeletInUserNamespace=true")
}

// start makes the kubelet and runs it: what the kubelet's own main does, short
// of leaving us without the Kubelet value that the relister needs.
func start(ctx context.Context, s *options.KubeletServer, deps *kubelet.Dependencies, name string) (*kubelet.Kubelet, error) {
	kubelet.ContainerLogsDir = filepath.Join(s.RootDirectory, "containers")
	capabilities.Initialize(capabilities.Capabilities{AllowPrivileged: true})
	k, err := kubelet.NewMainKubelet(
		ctx, &s.KubeletConfiguration, deps, &s.ContainerRuntimeOptions, name, types.NodeName(name), nil,
		s.ProviderID, s.CloudProvider, s.CertDirectory, s.RootDirectory, s.PodLogsDir,
		s.ImageCredentialProviderConfigPath, s.ImageCredentialProviderBinDir,
		s.RegisterNode, s.RegisterWithTaints, s.AllowedUnsafeSysctls, s.ExperimentalMounterPath, s.KernelMemcgNotification,
		s.ExperimentalNodeAllocatableIgnoreEvictionThreshold, s.MinimumGCAge, s.MaxPerPodContainerCount, s.MaxContainerCount,
		s.NodeLabels, s.NodeStatusMaxImages, s.KubeletConfiguration.SeccompDefault)
	if err != nil {
		return nil, fmt.Errorf("kubelet: %w", err)
	}
	k.BirthCry()
	k.StartGarbageCollection()
	go k.Run(deps.PodConfig.Updates())
	go k.ListenAndServe(&s.KubeletConfiguration, deps.TLSOptions, deps.Auth, deps.TracerProvider)
	return k, nil
}
