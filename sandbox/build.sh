#!/bin/sh
# Builds sandbox/.build/kube-sandbox and container-init, unless they are already
# there for exactly these sources, lock file and Go version. The first build
# compiles Kubernetes: about 10 minutes on two cores. Prints the binary's path.
set -eu
cd "$(dirname "$0")"
out=.build
if ! command -v go >/dev/null 2>&1; then
    echo "sandbox/build.sh: Go is missing: install Go 1.24 or later and put it in PATH" >&2
    exit 1
fi
key=$({ go version; cat go.mod go.sum build.sh; find cmd internal -name '*.go' ! -name '*_test.go' | LC_ALL=C sort | xargs cat; } | sha256sum | cut -d' ' -f1)
mkdir -p "$out"
# One build at a time: a second caller waits and then finds the work done.
exec 9>"$out/lock"
flock 9
if [ ! -x "$out/kube-sandbox" ] || [ ! -x "$out/container-init" ] || [ "$(cat "$out/key" 2>/dev/null)" != "$key" ]; then
    v=v1.34.4
    x="-X k8s.io/component-base/version.gitVersion=$v -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=34"
    echo "sandbox/build.sh: building (the first time takes about 10 minutes)" >&2
    mkdir -p "$out/new"
    CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false" nice -n 10 go build -ldflags "-s -w $x" -o "$out/new/" ./cmd/kube-sandbox ./cmd/container-init >&2
    # By rename: a running sandbox keeps its own copy.
    mv -f "$out/new/kube-sandbox" "$out/new/container-init" "$out/"
    echo "$key" >"$out/key"
fi
echo "$PWD/$out/kube-sandbox"
