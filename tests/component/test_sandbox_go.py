"""The Go packages' own tests: address blocks, port assignment and forwarding, charts and manifests."""

import os
import subprocess

import pytest
from support.sandboxes import ROOT

PACKAGES = ("./internal/forward", "./internal/manifest", "./internal/patient", "./internal/supervise")


@pytest.mark.timeout(600)  # the first time, test binaries are linked against Kubernetes
def test_go_packages() -> None:
    done = subprocess.run(
        # -vet=off: `make check` vets, and for tests alone it would compile everything a second time.
        ["go", "test", "-vet=off", *PACKAGES],
        cwd=ROOT / "sandbox",
        # As build.sh: other flags would compile Kubernetes once more.
        env={**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-trimpath -buildvcs=false"},
        capture_output=True,
        text=True,
        timeout=590,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
