// container-init becomes the container: started by the process runtime in a
// new mount namespace, it builds the container's file system, enters it and
// executes the container's command under the same process id.
//
// The container sees the host's file system, read-only save for /dev, /proc,
// /sys, /tmp and the paths in Writable, with each volume bound at its true
// mount path. Where a mount path does not exist on the host, its nearest
// existing parent is replaced by a tmpfs that shows the same entries, so that
// nothing is ever written to the host. No overlay is needed: a user namespace
// may do all of it.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"headwater.dev/sandbox/internal/cri/spec"
)

func main() {
	if len(os.Args) != 2 {
		fatal(fmt.Errorf("usage: container-init SPEC (JSON)"))
	}
	var s spec.Container
	if err := json.Unmarshal([]byte(os.Args[1]), &s); err != nil {
		fatal(fmt.Errorf("spec: %w", err))
	}
	r := &root{dir: s.Root, mirrored: map[string]bool{}}
	if err := r.build(s); err != nil {
		fatal(err)
	}
	if err := unix.Chroot(s.Root); err != nil {
		fatal(fmt.Errorf("chroot: %w", err))
	}
	if err := os.Chdir(s.WorkingDir); err != nil {
		fatal(fmt.Errorf("workingDir: %w", err))
	}
	program, err := exec.LookPath(s.Argv[0])
	if err != nil {
		fatal(err)
	}
	if err := benice(s.Niceness); err != nil {
		fatal(fmt.Errorf("niceness: %w", err))
	}
	fatal(fmt.Errorf("exec %s: %w", program, syscall.Exec(program, s.Argv, os.Environ())))
}

// benice changes the thread that becomes the container: a thread's niceness is its own, and exec keeps the caller's.
func benice(more int) error {
	runtime.LockOSThread()
	now, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		return err
	}
	return unix.Setpriority(unix.PRIO_PROCESS, 0, min(19, 20-now+more)) // the kernel tells it as 20 - niceness
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "container-init:", err)
	os.Exit(127)
}

// root is the file system under construction at dir.
type root struct {
	dir      string
	mirrored map[string]bool // host directories that are a tmpfs with the same entries
}

func (r *root) build(s spec.Container) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("mount propagation: %w", err)
	}
	if err := r.mirror("/"); err != nil {
		return err
	}
	for _, m := range s.Mounts {
		if err := r.bind(m); err != nil {
			return fmt.Errorf("mount %s: %w", m.Target, err)
		}
	}
	return nil
}

// mirror puts a tmpfs at the host directory's place and binds each entry into it.
func (r *root) mirror(host string) error {
	if r.mirrored[host] {
		return nil
	}
	entries, err := os.ReadDir(host)
	if err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", r.at(host), "tmpfs", unix.MS_NOSUID, "mode=755,size=16m"); err != nil {
		return fmt.Errorf("tmpfs on %s: %w", host, err)
	}
	r.mirrored[host] = true
	for _, e := range entries {
		path := filepath.Join(host, e.Name())
		if skip(path, e) {
			continue
		}
		if err := r.copyEntry(path, e); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
	return nil
}

// skip leaves out disks and consoles: hundreds of mounts that nobody opens.
func skip(path string, e os.DirEntry) bool {
	if filepath.Dir(path) != "/dev" {
		return false
	}
	block := e.Type()&os.ModeDevice != 0 && e.Type()&os.ModeCharDevice == 0
	name := e.Name()
	console := len(name) > 3 && (strings.HasPrefix(name, "tty") || strings.HasPrefix(name, "vcs"))
	return block || console
}

func (r *root) copyEntry(path string, e os.DirEntry) error {
	to := r.at(path)
	switch {
	case e.Type()&os.ModeSymlink != 0:
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	case e.IsDir():
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
	default:
		if err := touch(to); err != nil {
			return err
		}
	}
	if err := unix.Mount(path, to, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		if os.IsPermission(err) || os.IsNotExist(err) || err == unix.EINVAL {
			return nil // what this user may not see stays an empty place
		}
		return err
	}
	if writableRoot[path] {
		return nil
	}
	return readOnly(to)
}

var writableRoot = map[string]bool{"/dev": true, "/proc": true, "/sys": true, "/tmp": true}

func readOnly(path string) error {
	attr := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, path, unix.AT_RECURSIVE, attr); err != nil {
		return fmt.Errorf("read-only: %w", err)
	}
	return nil
}

// bind puts one volume at its place, making the place where the host has none.
func (r *root) bind(m spec.Mount) error {
	info, err := os.Stat(m.Source)
	if err != nil {
		return err
	}
	target, missing, err := resolve(m.Target)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		if err := r.mirror(target); err != nil {
			return err
		}
		target = filepath.Join(append([]string{target}, missing...)...)
		if err := r.makePlace(target, info.IsDir()); err != nil {
			return err
		}
	}
	if err := unix.Mount(m.Source, r.at(target), "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if m.ReadOnly {
		return readOnly(r.at(target))
	}
	return nil
}

func (r *root) makePlace(target string, dir bool) error {
	if dir {
		return os.MkdirAll(r.at(target), 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(r.at(target)), 0o755); err != nil {
		return err
	}
	return touch(r.at(target))
}

func (r *root) at(host string) string { return filepath.Join(r.dir, host) }

// resolve follows the host's symlinks in an absolute path as far as it exists
// and returns that part and the components that do not exist.
func resolve(path string) (existing string, missing []string, err error) {
	for p := filepath.Clean("/" + path); ; {
		real, err := filepath.EvalSymlinks(p)
		if err == nil {
			return real, missing, nil
		}
		if !os.IsNotExist(err) && !os.IsPermission(err) {
			return "", nil, err
		}
		missing = append([]string{filepath.Base(p)}, missing...)
		p = filepath.Dir(p)
	}
}

func touch(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		if _, e := os.Lstat(path); e == nil {
			return nil
		}
		return err
	}
	return f.Close()
}
