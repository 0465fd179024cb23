package cri

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"
)

// maxLine bounds one log record; longer lines are split into partial records, as CRI logs allow.
const maxLine = 16 << 10

// logFile writes a container's output in the CRI's log format.
type logFile struct {
	mu      sync.Mutex
	path    string
	file    *os.File
	readers []*os.File
	writers []*os.File
	pumps   sync.WaitGroup
}

func openLog(path string) (*logFile, error) {
	l := &logFile{path: path}
	return l, l.reopen()
}

func (l *logFile) reopen() error {
	f, err := os.OpenFile(l.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		_ = l.file.Close()
	}
	l.file = f
	return nil
}

// attach gives the command its two pipes and starts reading them.
func (l *logFile) attach(cmd *exec.Cmd) error {
	for _, stream := range []string{"stdout", "stderr"} {
		rd, wr, err := os.Pipe()
		if err != nil {
			l.started()
			return err
		}
		l.readers, l.writers = append(l.readers, rd), append(l.writers, wr)
		if stream == "stdout" {
			cmd.Stdout = wr
		} else {
			cmd.Stderr = wr
		}
		l.pumps.Add(1)
		go l.pump(rd, stream)
	}
	return nil
}

// started closes our copies of the ends that the child holds: its end is our EOF.
func (l *logFile) started() {
	for _, w := range l.writers {
		_ = w.Close()
	}
}

func (l *logFile) pump(rd *os.File, stream string) {
	defer l.pumps.Done()
	defer rd.Close()
	b := bufio.NewReaderSize(rd, maxLine)
	for {
		line, err := b.ReadSlice('\n')
		if len(line) > 0 {
			l.write(stream, line, errors.Is(err, bufio.ErrBufferFull))
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

func (l *logFile) write(stream string, line []byte, partial bool) {
	tag := "F"
	if partial {
		tag = "P"
	}
	if line[len(line)-1] == '\n' {
		line = line[:len(line)-1]
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = fmt.Fprintf(l.file, "%s %s %s %s\n", time.Now().UTC().Format(time.RFC3339Nano), stream, tag, line)
}

// drain waits until the output is written; a process that has inherited the
// pipes may hold it up no longer than a moment.
func (l *logFile) drain() {
	end := time.AfterFunc(time.Second, func() {
		for _, r := range l.readers {
			_ = r.Close()
		}
	})
	l.pumps.Wait()
	end.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	_ = l.file.Close()
}

// ReopenContainerLog follows the kubelet's log rotation.
func (r *Runtime) ReopenContainerLog(_ context.Context, id string) error {
	c, err := r.get(id)
	if err != nil || c.logs == nil {
		return err
	}
	return c.logs.reopen()
}
