"""A rotation of the TURN nodes' shared secret, with a new certificate, each step seen from outside."""

import ssl
import time
from dataclasses import dataclass, field
from typing import Final

from cryptography import x509
from headwater_api import wellknown as wk
from headwater_api.ids import ParticipantSid
from headwater_planner.turn_servers import rest_credentials
from support.deadline import until
from support.protocol_client import ProtocolClient
from support.turn_probe import Refused, TurnProbe
from support.turn_world import NEW, OLD, TURN, TurnWorld

# What the gateway of that world puts first.
ORDER: Final = (NEW, OLD)
NOTICED_S: Final = 10.0


@dataclass
class Rotation:
    """From the secret of one reference to a fresh one of the other; the certificate gets that serial."""

    world: TurnWorld
    from_: str
    to: str
    serial: int
    old_secret: str = field(init=False, repr=False)
    new_secret: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.old_secret = (self.world.secrets / self.from_).read_text()
        self.new_secret = f"{self.serial:032d}"

    async def overlap(self) -> None:
        """Until both secrets are accepted, the new certificate is shown, and the first one signs."""
        world, both = self.world, [self.to, self.from_]
        (world.secrets / self.to).write_text(self.new_secret)
        world.renew_certificate(self.serial)
        for ip in TURN:

            async def has_both(ip: str = ip) -> bool:
                return bool((await world.desire(ip, secrets=both))["accepted"] == both)

            await until(has_both, NOTICED_S, "both secrets are accepted")
            await until(lambda ip=ip: serial_of(ip) == self.serial, NOTICED_S, "the certificate is shown")
        assert await can_allocate(TURN[0], self.old_secret)
        assert await can_allocate(TURN[0], self.new_secret)
        first = self.new_secret if self.to == ORDER[0] else self.old_secret
        await until(lambda: signs_with(world, first), NOTICED_S, "the first reference signs")

    async def end(self) -> None:
        """The old secret is taken away: refused from now on, for what is new."""
        for ip in TURN:
            answer = await self.world.desire(ip, secrets=[self.to])
            assert answer["accepted"] == [self.to]
            assert not await can_allocate(ip, self.old_secret)
            assert await can_allocate(ip, self.new_secret)


async def signs_with(world: TurnWorld, secret: str) -> bool:
    """Whether a new participant's credentials are of that secret."""
    async with ProtocolClient(world.url, world.token("probes", "dan"), region="eu") as dan:
        assert dan.join is not None
        shown = dan.join.ice_servers[0]
        expiry, _, sid = shown.username.partition(":")
        return shown.credential == rest_credentials(secret, ParticipantSid(sid), int(expiry))[1]


async def can_allocate(ip: str, secret: str) -> bool:
    """Whether credentials of that secret are good for an allocation; its end frees it."""
    username, password = rest_credentials(secret, ParticipantSid("PA_probe"), int(time.time()) + 60)
    try:
        async with TurnProbe((ip, wk.PORT_TURN), username, password) as probe:
            await probe.release()
    except Refused as refused:
        assert refused.code == 401, refused
        return False
    return True


def serial_of(ip: str) -> int:
    """Of the certificate that a new connection is shown."""
    pem = ssl.get_server_certificate((ip, wk.PORT_TURN_TLS), timeout=5)
    return x509.load_pem_x509_certificate(pem.encode()).serial_number
