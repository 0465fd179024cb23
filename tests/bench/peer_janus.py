"""Janus for the bench of peers: Debian's packages, unpacked but not installed; its API by a Unix socket."""

import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
PACKAGES: Final = ROOT / ".build" / "janus"
LIBRARIES: Final = PACKAGES / "usr/lib/x86_64-linux-gnu"
ADDRESS: Final = "10.9.0.1"
START_S: Final = 10.0


class Failed(Exception):
    """With a sentence for who ran it."""


CONFIG: Final = """general: {{
  configs_folder = "{folder}"
  plugins_folder = "{lib}/janus/plugins"
  transports_folder = "{lib}/janus/transports"
  events_folder = "{folder}"
  loggers_folder = "{folder}"
  debug_level = 4
}}
certificates: {{ cert_pem = "{folder}/cert.pem", cert_key = "{folder}/key.pem" }}
nat: {{ ice_lite = true, ice_enforce_list = "{address}", ice_ignore_list = "vmnet" }}
plugins: {{ disable = "{other_plugins}" }}
transports: {{ disable = "{other_transports}" }}
"""
API_CONFIG: Final = 'general: {{ enabled = true, path = "{path}", type = "SOCK_SEQPACKET" }}\n'
SDP: Final = """v=0
o=- 1 1 IN IP4 {address}
s=-
t=0 0
a=group:BUNDLE 0
m=video 9 UDP/TLS/RTP/SAVPF 96
c=IN IP4 {address}
a=mid:0
a={direction}
a=rtcp-mux
a=ice-ufrag:client
a=ice-pwd:password-of-a-client-of-the-bench
a=fingerprint:sha-256 {fingerprint}
a=setup:active
a=candidate:1 1 udp 2130706431 {address} 9 typ host
a=end-of-candidates
a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid
a=extmap:3 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01
a=rtpmap:96 VP8/90000
a=rtcp-fb:96 nack
a=rtcp-fb:96 nack pli
a=rtcp-fb:96 transport-cc
"""


def sdp(direction: str, fingerprint: str) -> str:
    """A client's: one stream of VP8, DTLS begun by the client. To ICE-lite any candidate will do."""
    text = SDP.format(address=ADDRESS, fingerprint=fingerprint, direction=direction)
    if direction == "sendonly":
        text += "a=ssrc:1000 cname:bench\n"
    return text.replace("\n", "\r\n")


def before_a_server() -> list[str]:
    """Before a command: it dies with us, and runs on core 0 alone if this machine has two or more."""
    ours = ["setpriv", "--pdeathsig", "KILL"]
    return [*ours, "taskset", "--cpu-list", "0"] if (os.cpu_count() or 1) > 1 else ours


def all_but(wanted: str, kind: str) -> str:
    """The others' files, for a setting `disable`."""
    files = sorted(path.name for path in (LIBRARIES / "janus" / kind).glob("*.so"))
    return ",".join(name for name in files if wanted not in name)


class Janus:
    """A running Janus and a session of its API."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        settings = {
            "folder": folder,
            "lib": LIBRARIES,
            "address": ADDRESS,
            "other_plugins": all_but("videoroom", "plugins"),
            "other_transports": all_but("pfunix", "transports"),
        }
        (folder / "janus.jcfg").write_text(CONFIG.format(**settings))
        (folder / "janus.transport.pfunix.jcfg").write_text(API_CONFIG.format(path=folder / "api"))
        (folder / "janus.plugin.videoroom.jcfg").write_text("general: {}\n")
        self._make_certificate()
        self.log = folder / "janus.log"
        self.process = self._start()
        self._api = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._api.settimeout(START_S)
        self._transactions = 0
        self._session = 0

    def _start(self) -> "subprocess.Popen[bytes]":
        settings = f"--config {self.folder}/janus.jcfg --configs-folder {self.folder}"
        command = f"{PACKAGES}/usr/bin/janus {settings}"
        with self.log.open("wb") as out:
            return subprocess.Popen(
                [*before_a_server(), *command.split()],
                env={**os.environ, "LD_LIBRARY_PATH": str(LIBRARIES)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def _make_certificate(self) -> None:
        """Of the kind that ours is: Janus's own would be RSA, which the bench's clients do not take."""
        key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=janus -days 30"
        files = f"-keyout {self.folder}/key.pem -out {self.folder}/cert.pem"
        command = f"openssl req -x509 {key} {files}"
        subprocess.run(command.split(), check=True, capture_output=True)

    def open(self) -> None:
        """Begins a session. Raises Failed when Janus did not start."""
        until = time.monotonic() + START_S
        while True:
            try:
                self._api.connect(str(self.folder / "api"))
                break
            except OSError as error:
                if self.process.poll() is not None and "No Janus API transport" in self.log.read_text():
                    # A race in its transport's start, which it loses now and then where processors are short.
                    self.process = self._start()
                if time.monotonic() > until or self.process.poll() is not None:
                    raise Failed(f"Janus did not start ({error}):\n{self.log.read_text()[-2000:]}") from None
                time.sleep(0.05)
        self._session = self._request({"janus": "create"})["data"]["id"]

    def attach(self) -> int:
        handle: int = self._request({"janus": "attach", "plugin": "janus.plugin.videoroom"})["data"]["id"]
        return handle

    def keep_alive(self) -> None:
        self._request({"janus": "keepalive"}, until=("ack",))

    def message(self, handle: int, body: dict[str, Any], sdp: str = "", kind: str = "") -> dict[str, Any]:
        """What the plugin says to it: with its SDP where there is one."""
        request: dict[str, Any] = {"janus": "message", "handle_id": handle, "body": body}
        if sdp:
            request["jsep"] = {"type": kind, "sdp": sdp}
        return self._request(request, until=("success", "event"))

    def wait_up(self, handle: int) -> None:
        """Until its media connection stands (ICE and DTLS)."""
        while True:
            event = json.loads(self._api.recv(1 << 20))
            if event["janus"] == "webrtcup" and event["sender"] == handle:
                return
            if event["janus"] == "hangup":
                raise Failed(f"Janus: {event}")

    def _request(self, request: dict[str, Any], until: tuple[str, ...] = ("success",)) -> dict[str, Any]:
        self._transactions += 1
        request["transaction"] = str(self._transactions)
        if self._session:
            request["session_id"] = self._session
        self._api.send(json.dumps(request).encode())
        while True:
            answer: dict[str, Any] = json.loads(self._api.recv(1 << 20))
            if answer.get("transaction") != request["transaction"]:
                continue  # an event of somebody's
            data = answer.get("plugindata", {}).get("data", {})
            if answer["janus"] == "error" or "error" in data:
                raise Failed(f"Janus: {answer}")
            if answer["janus"] in until:
                return answer

    def close(self) -> None:
        self._api.close()
        self.process.terminate()
        try:
            self.process.wait(START_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def ends(sdp: str) -> str:
    """Where its ICE agent is: ADDRESS:PORT UFRAG PASSWORD."""

    def one(pattern: str) -> str:
        found = re.search(pattern, sdp, re.M)
        if found is None:
            raise Failed(f"Janus's SDP has no {pattern}:\n{sdp}")
        return found[1]

    port = one(rf"^a=candidate:\S+ 1 udp \d+ {re.escape(ADDRESS)} (\d+) typ host")
    ufrag, password = one(r"^a=ice-ufrag:(\S+)"), one(r"^a=ice-pwd:(\S+)")
    return f"{ADDRESS}:{port} {ufrag} {password}"


def unpack_janus() -> str:
    """Its version. Downloads Debian's packages of it that are not installed here and unpacks them, once."""
    if not PACKAGES.exists():
        if shutil.which("apt-get") is None:
            raise Failed("Janus is taken from Debian's packages, and there is no apt-get here")
        PACKAGES.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=PACKAGES.parent, prefix="janus-") as folder:
            _download(Path(folder) / "archives")
            for package in sorted(Path(folder).glob("archives/*.deb")):
                subprocess.run(["dpkg-deb", "--extract", package, Path(folder) / "root"], check=True)
            (Path(folder) / "root").rename(PACKAGES)
    env = {**os.environ, "LD_LIBRARY_PATH": str(LIBRARIES)}
    command = [f"{PACKAGES}/usr/bin/janus", "--version"]
    told = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    version = re.search(r"^Janus version: (.+)$", told.stdout, re.M)
    if version is None:  # its exit code is 1 even then
        raise Failed(f"Janus does not run: {told.stderr.strip()}")
    return version[1]


def _download(archives: Path) -> None:
    (archives / "partial").mkdir(parents=True)
    subprocess.run(["apt-get", "-qq", "update"], capture_output=True, check=False)  # else with the old list
    wanted = ["install", "--download-only", "--reinstall", "--yes", "--no-install-recommends", "janus"]
    command = ["apt-get", "-qq", "-o", f"Dir::Cache::archives={archives}", *wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"apt-get could not download Janus: {done.stderr.strip()}")
