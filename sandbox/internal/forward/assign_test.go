package forward

import (
	"slices"
	"testing"
)

func names(slots []Pod) []string {
	var out []string
	for _, s := range slots {
		out = append(out, s.Name)
	}
	return out
}

func pod(name string, ready bool) Pod {
	return Pod{Name: name, UID: "uid-" + name, IP: "127.16.0.1", Ready: ready}
}

func TestAssign(t *testing.T) {
	empty := make([]Pod, 2)
	cases := map[string]struct {
		slots, pods []Pod
		want        []string
	}{
		"in the order of names":                   {empty, []Pod{pod("b", true), pod("a", true)}, []string{"a", "b"}},
		"ready ones first":                        {empty, []Pod{pod("a", false), pod("b", true), pod("c", true)}, []string{"b", "c"}},
		"a starting one rather than none":         {empty, []Pod{pod("a", false)}, []string{"a", ""}},
		"a Pod keeps its port":                    {[]Pod{pod("b", true), {}}, []Pod{pod("a", true), pod("b", true)}, []string{"b", "a"}},
		"also when it is not ready for a moment":  {[]Pod{pod("a", true), {}}, []Pod{pod("a", false), pod("b", true), pod("c", true)}, []string{"a", "b"}},
		"a replacement gets the dead one's port":  {[]Pod{pod("a", true), pod("b", true)}, []Pod{pod("b", true), pod("z", true)}, []string{"z", "b"}},
		"who never was ready gives way":           {[]Pod{pod("a", false), {}}, []Pod{pod("a", false), pod("b", true), pod("c", true)}, []string{"b", "c"}},
		"more Pods than ports":                    {empty, []Pod{pod("a", true), pod("b", true), pod("c", true)}, []string{"a", "b"}},
		"nobody left":                             {[]Pod{pod("a", true), pod("b", true)}, nil, []string{"", ""}},
		"a namesake of a dead Pod is another Pod": {[]Pod{{Name: "a", UID: "old", Ready: true}, {}}, []Pod{pod("a", true)}, []string{"a", ""}},
		"ports never share a Pod":                 {[]Pod{pod("a", true), {}}, []Pod{pod("a", true)}, []string{"a", ""}},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			if got := names(Assign(c.slots, c.pods)); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}
