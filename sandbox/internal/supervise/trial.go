package supervise

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"headwater.dev/sandbox/internal/cri/spec"
)

// trial runs an empty container before anything else is started. It finds what
// no capability tells: a kernel too old, or one that grants user namespaces and
// then forbids mounting in them.
func (u *up) trial(ctx context.Context) error {
	root := u.path("trial")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	defer os.Remove(root)
	s := spec.Container{Root: root, WorkingDir: "/", Argv: []string{"true"}}
	for _, w := range strings.Split(u.Writable, ":") {
		if w != "" {
			s.Mounts = append(s.Mounts, spec.Mount{Source: w, Target: w})
		}
	}
	arg, err := json.Marshal(s)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, u.init, string(arg))
	cmd.Env = []string{"PATH=" + u.Path}
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if out, err := cmd.CombinedOutput(); err != nil {
		why := strings.TrimPrefix(strings.TrimSpace(string(out)), "container-init: ")
		if why == "" {
			why = err.Error()
		}
		return fmt.Errorf(noNamespace, why)
	}
	return nil
}
