// Package supervise runs a sandbox: it makes the identities, starts the
// components as child processes, reports its progress in a state file and ends
// everything when it is told to, when a component fails, or when the process it
// was bound to dies.
package supervise

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"headwater.dev/sandbox/internal/forward"
)

// Options are the command line of `up`.
type Options struct {
	Dir        string
	Port       int // of the API server; 0: any free one
	Components []string
	Nodes      []Node
	DieWith    int // process id; 0: none
	Path       string
	Writable   string
	Forward    forward.Options
}

// Node is one Kubernetes node of the sandbox.
type Node struct{ Name, Region, Zone string }

// maxNodes is the number of /16 address blocks that one sandbox owns.
const maxNodes = 16

var dnsLabel = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

func parse(args []string) (Options, error) {
	var o Options
	var components, nodes string
	fs := flag.NewFlagSet("up", flag.ContinueOnError)
	fs.StringVar(&o.Dir, "data-dir", "", "data directory (required)")
	fs.IntVar(&o.Port, "port", 0, "port of the API server on 127.0.0.1; 0 picks a free one")
	fs.StringVar(&components, "components", "controller-manager,scheduler,nodes", "what to run beside etcd and the API server; empty: nothing")
	fs.StringVar(&nodes, "nodes", "eu-1=eu/eu-a,us-1=us/us-a", "NAME=REGION/ZONE,...")
	fs.IntVar(&o.DieWith, "die-with", 0, "end when the process with this id ends")
	fs.StringVar(&o.Path, "path", os.Getenv("PATH"), "PATH of the containers")
	fs.StringVar(&o.Writable, "writable", "", "host paths that containers may write to, by colons")
	fs.IntVar(&o.Forward.Count, "forward-count", 0, "how many gateway Pods get a port on 127.0.0.1")
	fs.IntVar(&o.Forward.Port, "forward-port", 0, "first of these ports; 0: the first free one from 7880 on")
	fs.IntVar(&o.Forward.TargetPort, "forward-target", 7880, "port of the Pods")
	fs.StringVar(&o.Forward.Namespace, "forward-namespace", "headwater", "namespace of the Pods")
	fs.StringVar(&o.Forward.Selector, "forward-selector", "app.kubernetes.io/component=gateway", "label selector of the Pods")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if o.Dir == "" {
		return o, fmt.Errorf("--data-dir is required")
	}
	var err error
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return o, err
	}
	if o.Components, err = parseComponents(components); err != nil {
		return o, err
	}
	o.Nodes, err = parseNodes(nodes)
	return o, err
}

func parseComponents(list string) ([]string, error) {
	var out []string
	for _, c := range strings.Split(list, ",") {
		switch c {
		case "":
		case "controller-manager", "scheduler", "nodes":
			out = append(out, c)
		default:
			return nil, fmt.Errorf("--components: unknown %q, take some of controller-manager,scheduler,nodes", c)
		}
	}
	return out, nil
}

func parseNodes(list string) ([]Node, error) {
	var out []Node
	for _, item := range strings.Split(list, ",") {
		name, place, _ := strings.Cut(item, "=")
		region, zone, _ := strings.Cut(place, "/")
		if zone == "" {
			zone = region
		}
		if !dnsLabel.MatchString(name) || !dnsLabel.MatchString(region) || !dnsLabel.MatchString(zone) {
			return nil, fmt.Errorf("--nodes: %q is not NAME=REGION/ZONE in lower-case letters, digits and dashes", item)
		}
		out = append(out, Node{name, region, zone})
	}
	if len(out) > maxNodes {
		return nil, fmt.Errorf("--nodes: %d nodes, a sandbox has at most %d", len(out), maxNodes)
	}
	return out, nil
}

func (o Options) has(component string) bool {
	for _, c := range o.Components {
		if c == component {
			return true
		}
	}
	return false
}

func (o Options) path(parts ...string) string {
	return filepath.Join(append([]string{o.Dir}, parts...)...)
}
