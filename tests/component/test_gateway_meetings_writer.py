"""The gateway's one writer and its reader of Secrets, against a real API server."""

import json
import random

import pytest
from headwater_api.ids import RoomId
from headwater_dial.api_server import credentials, open_api
from headwater_gateway.kube.meeting_secrets import MeetingSecrets, secret_reader
from headwater_gateway.kube.meetings_writer import KubernetesMeetings
from headwater_gateway.meetings import WriteRefused
from headwater_gateway.passwords import PASSWORD, UNREADABLE, Passwords, hash_password
from support.deadline import until
from support.kube import ApiServer

MEETING = {
    "apiVersion": "headwater.dev/v1alpha1",
    "kind": "Meeting",
    "metadata": {"name": "m-1"},
    "spec": {
        "clusterRef": {"name": "demo"},
        "access": {"passwordSecretRef": {"name": "m-1", "key": "password"}, "hosts": ["ann"]},
    },
}


@pytest.mark.timeout(120)
async def test_a_meeting_comes_with_its_secret_and_goes(api_server: ApiServer, namespace: str) -> None:
    api = open_api(await credentials({"KUBECONFIG": str(api_server.kubeconfig)}))
    passwords = Passwords()
    changed: list[RoomId] = []
    secrets = MeetingSecrets(passwords, random.Random(1))
    secrets.on_changed = changed.append
    room = RoomId("m-1")
    try:
        secrets.start(secret_reader(api, namespace))
        secrets.want(room, {PASSWORD: ("m-1", "password")})
        assert secrets.fingerprint(room) == UNREADABLE, "closed until its Secret can be read"
        writer = KubernetesMeetings(api, namespace)
        made = await writer.create(MEETING, {"password": await hash_password("sesame"), "host-key": "x"})
        shown = json.loads(api_server.run("-n", namespace, "get", "secret", "m-1", "-o", "json").stdout)
        (owner,) = shown["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("Meeting", made["metadata"]["uid"])
        await until(lambda: changed == [room], 15, "the Secret is read")
        assert await passwords.prove(room, "wrong", "10.0.0.1") == ""
        assert await passwords.prove(room, "sesame", "10.0.0.1") == secrets.fingerprint(room)
        with pytest.raises(WriteRefused) as taken:
            await writer.create(MEETING, {})
        assert taken.value.status == 409
        with pytest.raises(WriteRefused) as wrong:
            await writer.create({**MEETING, "metadata": {"name": "m-2"}, "spec": {}}, {})
        assert wrong.value.status == 422
        for _ in range(2):  # gone already is fine
            await writer.delete("m-1")
        assert api_server.run("-n", namespace, "get", "meeting", "m-1").returncode != 0
        secrets.want(room, {})
        assert secrets.fingerprint(room) == ""
    finally:
        await secrets.aclose()
        await api.close()  # type: ignore[no-untyped-call]
