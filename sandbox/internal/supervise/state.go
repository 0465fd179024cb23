package supervise

import (
	"encoding/json"
	"os"
	"sync"
)

// Phases of a sandbox, in order. The chart may be applied from Serving on.
const (
	Starting = "starting" // components are coming up
	Serving  = "serving"  // the API server answers
	Ready    = "ready"    // every node is registered and its address is known
	Failed   = "failed"   // Error says why; the sandbox ends
)

// State is what state.json in the data directory holds.
type State struct {
	Phase      string         `json:"phase"`
	PID        int            `json:"pid"`
	Server     string         `json:"server,omitempty"`
	Kubeconfig string         `json:"kubeconfig,omitempty"`
	Forwards   []string       `json:"forwards"` // host:port, in the gateways' order
	Index      int            `json:"index"`    // of the loopback address block
	Processes  map[string]int `json:"processes"`
	Error      string         `json:"error,omitempty"`
}

type stateFile struct {
	mu    sync.Mutex
	path  string
	state State
}

// update changes the state and replaces the file at once: readers never see half of it.
func (f *stateFile) update(change func(*State)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	change(&f.state)
	b, err := json.Marshal(f.state)
	if err != nil {
		return err
	}
	tmp := f.path + ".new"
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, f.path)
}
