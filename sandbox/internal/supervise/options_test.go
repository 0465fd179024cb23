package supervise

import (
	"strings"
	"testing"
)

func TestNodesAreParsed(t *testing.T) {
	nodes, err := parseNodes("eu-1=eu/eu-a,us-1=us")
	if err != nil {
		t.Fatal(err)
	}
	want := []Node{{"eu-1", "eu", "eu-a"}, {"us-1", "us", "us"}}
	if len(nodes) != 2 || nodes[0] != want[0] || nodes[1] != want[1] {
		t.Fatalf("got %v", nodes)
	}
}

func TestBadOptionsAreNamed(t *testing.T) {
	cases := map[string][]string{
		"--data-dir":   {"--components="},
		"--components": {"--data-dir=/x", "--components=kubelet"},
		"--nodes":      {"--data-dir=/x", "--nodes=Eu=eu/a"},
		"at most 16":   {"--data-dir=/x", "--nodes=" + strings.Repeat("a=b,", 16) + "a=b"},
	}
	for word, args := range cases {
		if _, err := parse(args); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%v: got %v", args, err)
		}
	}
}

func TestOnlyAddressBlocksOfOneSandboxAreUsed(t *testing.T) {
	seen := map[int]bool{}
	for index := range maxBlocks {
		u := &up{index: index}
		for i := range maxNodes {
			b := u.nodeBlock(i)
			if b < 16 || b > 255 || seen[b] {
				t.Fatalf("sandbox %d node %d: block %d", index, i, b)
			}
			seen[b] = true
		}
	}
}
