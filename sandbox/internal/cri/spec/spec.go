// Package spec is what the process runtime tells container-init.
package spec

// Container is one container as a process.
type Container struct {
	Root       string   // an empty directory; the container's file system is built there
	Mounts     []Mount  // in order; later ones may lie inside earlier ones
	WorkingDir string   // inside the container
	Argv       []string // looked up in the container's PATH
	Niceness   int      // added to the kubelet's, 0 to 19
}

// Mount binds Source (host path, file or directory) at Target (container path).
type Mount struct {
	Source, Target string
	ReadOnly       bool
}
