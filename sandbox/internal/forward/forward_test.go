package forward

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// server answers on a free port with what it has read, once the client has
// closed its side: an answer proves that half-closed connections pass.
func server(t *testing.T) (ip string, port int) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				all, _ := io.ReadAll(c)
				_, _ = c.Write([]byte(strings.ToUpper(string(all))))
			}()
		}
	}()
	return "127.0.0.1", l.Addr().(*net.TCPAddr).Port
}

func start(t *testing.T, pods []Pod, port int) string {
	listeners, err := Listen(Options{Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	table := &table{slots: make([]Pod, 1)}
	table.update(pods)
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Add(1)
	go func() { defer done.Done(); accept(ctx, listeners[0], table, 0, port) }()
	t.Cleanup(func() { cancel(); closeAll(listeners); done.Wait() })
	return listeners[0].Addr().String()
}

func exchange(address, text string) (string, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return "", err // a reset may come as early as here
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, text); err != nil {
		return "", err
	}
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		return "", err
	}
	answer, err := io.ReadAll(c)
	return string(answer), err
}

func TestHalfClosedConnectionsPass(t *testing.T) {
	ip, port := server(t)
	address := start(t, []Pod{{Name: "a", UID: "1", IP: ip, Ready: true}}, port)
	for _, text := range []string{"hello", strings.Repeat("long ", 1<<18)} {
		answer, err := exchange(address, text)
		if err != nil || answer != strings.ToUpper(text) {
			t.Fatalf("got %d bytes and %v, want %d", len(answer), err, len(text))
		}
	}
}

func TestWithoutAPodTheConnectionIsReset(t *testing.T) {
	address := start(t, nil, 1)
	if answer, err := exchange(address, "hello"); err == nil {
		t.Fatalf("got %q and no error", answer)
	}
}

func TestAnAskedForPortThatIsTakenIsAnError(t *testing.T) {
	_, port := server(t)
	_, err := Listen(Options{Count: 1, Port: port})
	if err == nil || !strings.Contains(err.Error(), "--port") || !strings.Contains(err.Error(), "address already in use") {
		t.Fatalf("got %v", err)
	}
}

func TestByItselfItTakesTheNextFreePorts(t *testing.T) {
	first, err := Listen(Options{Count: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(first)
	second, err := Listen(Options{Count: 2})
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(second)
	seen := map[string]bool{}
	for _, l := range append(first, second...) {
		seen[l.Addr().String()] = true
	}
	if len(seen) != 4 {
		t.Fatalf("got %v", seen)
	}
}
