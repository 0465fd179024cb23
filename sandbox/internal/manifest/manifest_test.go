package manifest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWhatOthersNeedComesFirst(t *testing.T) {
	objects, err := Decode(strings.NewReader(`
kind: Deployment
metadata: {name: d}
---
# nothing
---
kind: Role
metadata: {name: r}
---
{"kind": "CustomResourceDefinition", "metadata": {"name": "c"}}
---
kind: Secret
metadata: {name: s}
`))
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, o := range objects {
		kinds = append(kinds, o.GetKind())
	}
	if got := strings.Join(kinds, " "); got != "CustomResourceDefinition Secret Role Deployment" {
		t.Fatalf("got %s", got)
	}
}

func TestAManifestWithoutANameIsRefused(t *testing.T) {
	if _, err := Decode(strings.NewReader("kind: Pod")); err == nil || !strings.Contains(err.Error(), "metadata.name") {
		t.Fatalf("got %v", err)
	}
}

func chartDir(t *testing.T) string {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"Chart.yaml":          "apiVersion: v2\nname: c\nversion: 1.0.0\n",
		"values.yaml":         "word: default\n",
		"values.schema.json":  `{"properties": {"word": {"type": "string"}}}`,
		"templates/a.yaml":    "word: {{ .Values.word }}\nin: {{ .Release.Namespace }}\nkube: {{ .Capabilities.KubeVersion.Version }}\n",
		"templates/NOTES.txt": "not a manifest",
		"templates/none.yaml": "{{ if false }}x{{ end }}",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRender(t *testing.T) {
	out, err := Render(chartDir(t), "r", "ns", []byte("word: given"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out, "word: given\nin: ns\nkube: v1.34.4") || strings.Contains(out, "not a manifest") || strings.Contains(out, "none.yaml") {
		t.Fatalf("got %s", out)
	}
}

func TestValuesAreCheckedAgainstTheSchema(t *testing.T) {
	if _, err := Render(chartDir(t), "r", "ns", []byte("word: 1")); err == nil || !strings.Contains(err.Error(), "word") {
		t.Fatalf("got %v", err)
	}
}
