// Package manifest renders charts with Helm's own engine and applies what
// comes out, so that the sandbox installs just what a user's Helm would.
package manifest

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path"
	"sort"
	"strings"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
)

// KubernetesVersion is what charts see as .Capabilities.KubeVersion.
const KubernetesVersion = "v1.34.4"

// RunRender is the command `render CHART`: manifests on standard output. Values
// come from standard input with `--values -`, so that secrets are in no file.
func RunRender(args []string) error {
	fs := flag.NewFlagSet("render", flag.ContinueOnError)
	name := fs.String("name", "headwater", "release name")
	namespace := fs.String("namespace", "headwater", "release namespace")
	values := fs.String("values", "", "YAML file of values; - is standard input")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() != 1 {
		return fmt.Errorf("usage: kube-sandbox render [--name N] [--namespace NS] [--values FILE] CHART")
	}
	var given []byte
	var err error
	switch *values {
	case "":
	case "-":
		given, err = io.ReadAll(os.Stdin)
	default:
		given, err = os.ReadFile(*values)
	}
	if err != nil {
		return err
	}
	out, err := Render(fs.Arg(0), *name, *namespace, given)
	if err != nil {
		return err
	}
	_, err = io.WriteString(os.Stdout, out)
	return err
}

// Render is `helm template`, with the chart's schema checked.
func Render(dir, name, namespace string, values []byte) (string, error) {
	c, err := loader.Load(dir)
	if err != nil {
		return "", fmt.Errorf("chart %s: %w", dir, err)
	}
	vals, err := chartutil.ReadValues(values)
	if err != nil {
		return "", fmt.Errorf("values: %w", err)
	}
	caps := chartutil.DefaultCapabilities.Copy()
	caps.KubeVersion = chartutil.KubeVersion{Version: KubernetesVersion, Major: "1", Minor: "34"}
	release := chartutil.ReleaseOptions{Name: name, Namespace: namespace, Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(c, vals, release, caps)
	if err != nil {
		return "", err
	}
	files, err := engine.Render(c, all)
	if err != nil {
		return "", err
	}
	return join(c, files), nil
}

func join(c *chart.Chart, files map[string]string) string {
	var names []string
	for name := range files {
		if ext := path.Ext(name); ext == ".yaml" || ext == ".yml" {
			names = append(names, name)
		}
	}
	sort.Strings(names)
	var out strings.Builder
	for _, crd := range c.CRDObjects() {
		fmt.Fprintf(&out, "---\n%s\n", crd.File.Data)
	}
	for _, name := range names {
		if body := strings.TrimSpace(files[name]); body != "" {
			fmt.Fprintf(&out, "---\n# Source: %s\n%s\n", name, body)
		}
	}
	return out.String()
}
