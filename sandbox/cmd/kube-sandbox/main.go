// kube-sandbox is a whole local Kubernetes in one multi-call binary: etcd, API
// server, controller manager, scheduler, kubelets that run processes, `up`,
// which makes the identities and runs all of them as its children, and
// `render` and `apply`, which install a chart.
package main

import (
	"fmt"
	"os"

	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllers "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"

	"headwater.dev/sandbox/internal/manifest"
	"headwater.dev/sandbox/internal/node"
	"headwater.dev/sandbox/internal/supervise"
)

const usage = "usage: kube-sandbox up|etcd|apiserver|controller-manager|scheduler|node|render|apply [options]"

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, usage)
		os.Exit(2)
	}
	name, args := os.Args[1], os.Args[2:]
	os.Args = append([]string{name}, args...)
	var err error
	switch name {
	case "apiserver":
		os.Exit(cli.Run(apiserver.NewAPIServerCommand()))
	case "controller-manager":
		os.Exit(cli.Run(controllers.NewControllerManagerCommand()))
	case "scheduler":
		os.Exit(cli.Run(scheduler.NewSchedulerCommand()))
	case "etcd":
		err = supervise.RunEtcd(args)
	case "up":
		err = supervise.Up(args)
	case "render":
		err = manifest.RunRender(args)
	case "apply":
		err = manifest.RunApply(args)
	case "node":
		err = node.Run(args)
	default:
		err = fmt.Errorf("unknown command %q; %s", name, usage)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "kube-sandbox:", err)
		os.Exit(1)
	}
}
