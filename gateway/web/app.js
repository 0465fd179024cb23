// The demo page: joins a room with the token of the URL's fragment (#token=…&region=eu&regions=eu,us,ap)
// and shows, for each participant, where they are and which way their stream takes.
// A fragment never leaves the browser, so the token is in no server's log.

const NODE = "headwater.node";
const REGION = "headwater.region";
const FIGURES_EVERY_MS = 1000;

const $ = (id) => document.getElementById(id);
const fragment = new URLSearchParams(location.hash.slice(1));
const tiles = new Map(); // participant sid → its figure and counters

let lk = null; // the client library
let room = null;
let figuresTimer = 0;

function showError(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
}

// What a join can fail with, in words that say what to do.
function explain(error) {
  const text = String(error?.message ?? error);
  if (error?.status === 401 || /unauthorized|invalid token|expired|401/i.test(text)) {
    return `The token was refused: ${text}. Make a new one with “headwater token”.`;
  }
  if (/NotAllowed|Permission denied/i.test(text)) {
    return "The browser may not use the camera or microphone: allow them for this page, or join without.";
  }
  if (/NotFound|Requested device not found/i.test(text)) {
    return "No camera or microphone was found: untick them and join again.";
  }
  return text;
}

function fillForm() {
  $("token").value = fragment.get("token") ?? "";
  $("token").required = !fragment.get("join");
  $("guest").hidden = !fragment.get("join");
  const regions = new Set((fragment.get("regions") ?? "eu,us,ap").split(","));
  if (fragment.get("region")) regions.add(fragment.get("region"));
  for (const name of regions) {
    if (name) $("region").append(new Option(name, name));
  }
  $("region").value = fragment.get("region") ?? "";
  if (fragment.get("camera") === "0") $("with-camera").checked = false;
  if (fragment.get("microphone") === "0") $("with-microphone").checked = false;
}

function gatewayUrl(region, password) {
  const url = new URL(location.origin.replace(/^http/, "ws"));
  if (region) url.searchParams.set("region", region);
  if (password && !fragment.get("join")) url.searchParams.set("password", password);
  return url.toString();
}

// A meeting's join link (?meeting=…#join=…) is exchanged for a token; in the waiting room we ask again.
async function meetingToken(meeting, link) {
  const mine = (sessionStorage.guest ??= crypto.randomUUID());
  const body = { user_id: mine, name: $("name").value.trim() || "Guest", password: $("password").value };
  for (;;) {
    const answer = await fetch(`/v1/meetings/${encodeURIComponent(meeting)}/join`, {
      method: "POST",
      headers: { Authorization: `Bearer ${link}`, "Content-Type": "application/json" },
      body: JSON.stringify(body),
    });
    const told = await answer.json();
    if (answer.status === 200) return told.token;
    if (answer.status !== 202) throw new Error(told.error?.message ?? `HTTP ${answer.status}`);
    showError("You are in the waiting room: the host will let you in.");
    await new Promise((resolve) => setTimeout(resolve, 1000 * told.retry_after));
  }
}

function makeRoom() {
  const { Room, VideoPresets } = lk;
  return new Room({
    adaptiveStream: true,
    dynacast: false,
    videoCaptureDefaults: { resolution: VideoPresets.h720.resolution },
    publishDefaults: {
      videoCodec: "vp8",
      simulcast: true,
      videoSimulcastLayers: [VideoPresets.h180, VideoPresets.h360],
      videoEncoding: VideoPresets.h720.encoding,
    },
  });
}

async function join(event) {
  event.preventDefault();
  showError("");
  const submit = $("join").querySelector("button");
  submit.disabled = true;
  try {
    // Both builds of the library work here: the UMD one sets a global, the module exports.
    const loaded = await import("/vendor/livekit-client.js");
    lk = globalThis.LivekitClient ?? loaded;
    room = makeRoom();
    globalThis.headwaterRoom = room; // for the browser's console
    listen(room);
    const meeting = new URLSearchParams(location.search).get("meeting");
    const link = fragment.get("join");
    if (meeting && link) $("token").value = await meetingToken(meeting, link);
    showError("");
    await room.connect(gatewayUrl($("region").value, $("password").value), $("token").value.trim());
    entered();
    await publish();
  } catch (error) {
    console.error(error);
    showError(explain(error));
    if (room?.state !== "connected") await room?.disconnect();
  } finally {
    submit.disabled = false;
  }
}

async function publish() {
  try {
    if ($("with-camera").checked) await room.localParticipant.setCameraEnabled(true);
    if ($("with-microphone").checked) await room.localParticipant.setMicrophoneEnabled(true);
  } finally {
    showButtons();
  }
}

function entered() {
  $("join").hidden = true;
  $("controls").hidden = false;
  document.body.dataset.state = "connected";
  for (const participant of [room.localParticipant, ...room.remoteParticipants.values()]) refresh(participant);
  figuresTimer = setInterval(showFigures, FIGURES_EVERY_MS);
}

function left(reason) {
  clearInterval(figuresTimer);
  for (const sid of [...tiles.keys()]) removeTile(sid);
  $("join").hidden = false;
  $("controls").hidden = true;
  $("where").textContent = "";
  const wasIn = ["connected", "reconnecting"].includes(document.body.dataset.state);
  document.body.dataset.state = "left";
  const names = Object.entries(lk.DisconnectReason ?? {}).filter(([, value]) => value === reason);
  const name = names[0]?.[0];
  if (wasIn && name && name !== "CLIENT_INITIATED") {
    showError(`Disconnected: ${name.toLowerCase().replaceAll("_", " ")}.`);
  }
}

function listen(target) {
  const { RoomEvent, Track } = lk;
  const onTrack = (track, _publication, participant) => {
    if (track.kind === Track.Kind.Audio) document.body.append(track.attach());
    refresh(participant);
  };
  target
    .on(RoomEvent.ParticipantConnected, refresh)
    .on(RoomEvent.ParticipantDisconnected, (participant) => removeTile(participant.sid))
    .on(RoomEvent.ParticipantAttributesChanged, (_changed, participant) => refreshAll(participant))
    .on(RoomEvent.TrackSubscribed, onTrack)
    .on(RoomEvent.TrackUnsubscribed, (track, _publication, participant) => {
      track.detach().forEach((element) => element.tagName === "AUDIO" && element.remove());
      refresh(participant);
    })
    .on(RoomEvent.TrackSubscriptionFailed, (sid, participant) =>
      showError(`No stream from ${participant.identity}: the track ${sid} could not be subscribed.`))
    .on(RoomEvent.LocalTrackPublished, () => refresh(target.localParticipant))
    .on(RoomEvent.LocalTrackUnpublished, () => refresh(target.localParticipant))
    .on(RoomEvent.ActiveSpeakersChanged, showSpeakers)
    .on(RoomEvent.Reconnecting, () => { document.body.dataset.state = "reconnecting"; showError("Connection lost, joining again…"); })
    .on(RoomEvent.Reconnected, () => { document.body.dataset.state = "connected"; showError(""); rebuild(); })
    .on(RoomEvent.MediaDevicesError, (error) => showError(explain(error)))
    .on(RoomEvent.Disconnected, left);
}

// A participant that came back has a new sid: forget tiles that belong to nobody.
function rebuild() {
  const known = new Set([room.localParticipant, ...room.remoteParticipants.values()].map((p) => p.sid));
  for (const sid of [...tiles.keys()]) if (!known.has(sid)) removeTile(sid);
  refreshAll(room.localParticipant);
}

// Our own node is the end of every path, so a change of it touches all tiles.
function refreshAll(changed) {
  if (changed !== room.localParticipant) return refresh(changed);
  for (const participant of [room.localParticipant, ...room.remoteParticipants.values()]) refresh(participant);
}

function tileOf(participant) {
  let tile = tiles.get(participant.sid);
  if (!tile) {
    const figure = $("tile").content.firstElementChild.cloneNode(true);
    const local = participant === room.localParticipant;
    figure.dataset.identity = participant.identity;
    figure.classList.toggle("local", local);
    const video = figure.querySelector("video");
    video.muted = true; // sound comes from its own element
    tile = { figure, video, participant, track: null, frames: 0, local };
    tiles.set(participant.sid, tile);
    $("tiles")[local ? "prepend" : "append"](figure);
  }
  return tile;
}

function refresh(participant) {
  if (!participant.sid || room.state === "disconnected") return;
  const tile = tileOf(participant);
  const camera = [...participant.videoTrackPublications.values()].find((p) => p.track)?.track ?? null;
  if (camera !== tile.track) {
    tile.track?.detach(tile.video);
    camera?.attach(tile.video);
    tile.track = camera;
    tile.frames = 0;
  }
  const { figure } = tile;
  const here = room.localParticipant.attributes;
  const there = participant.attributes;
  figure.classList.toggle("silent", !camera);
  figure.dataset.node = there[NODE] ?? "";
  figure.dataset.region = there[REGION] ?? "";
  figure.querySelector(".name").textContent =
    (participant.name || participant.identity) + (tile.local ? " (you)" : "");
  figure.querySelector(".blank").textContent = (participant.identity || "?").slice(0, 2).toUpperCase();
  figure.querySelector(".region").textContent = there[REGION] ?? "";
  const path = tile.local ? [there] : there[NODE] === here[NODE] ? [here] : [there, here];
  figure.querySelector(".path").textContent = path.map((hop) => hop[NODE] ?? "…").join(" → ");
  figure.querySelector(".path").classList.toggle("relayed", path.length > 1);
  if (tile.local) $("where").textContent = `${room.name} · ${there[REGION] ?? "…"} · ${there[NODE] ?? "…"}`;
}

function removeTile(sid) {
  const tile = tiles.get(sid);
  tile?.track?.detach(tile.video);
  tile?.figure.remove();
  tiles.delete(sid);
}

function showSpeakers(speakers) {
  const loud = new Set(speakers.map((participant) => participant.sid));
  for (const [sid, { figure }] of tiles) figure.classList.toggle("speaking", loud.has(sid));
}

function showFigures() {
  for (const tile of tiles.values()) {
    const total = tile.video.getVideoPlaybackQuality?.().totalVideoFrames ?? 0;
    const fps = Math.max(0, total - tile.frames) * 1000 / FIGURES_EVERY_MS;
    tile.frames = total;
    const { videoWidth: width, videoHeight: height } = tile.video;
    tile.figure.querySelector(".figures").textContent =
      tile.track && width ? `${width}×${height}, ${fps.toFixed(0)} fps` : "";
  }
}

function showButtons() {
  const me = room.localParticipant;
  for (const [id, label, on] of [
    ["camera", "Camera", me.isCameraEnabled],
    ["microphone", "Microphone", me.isMicrophoneEnabled],
  ]) {
    $(id).textContent = `${label} ${on ? "on" : "off"}`;
    $(id).setAttribute("aria-pressed", String(on));
  }
}

async function toggle(kind) {
  const me = room.localParticipant;
  try {
    if (kind === "camera") await me.setCameraEnabled(!me.isCameraEnabled);
    else await me.setMicrophoneEnabled(!me.isMicrophoneEnabled);
  } catch (error) {
    showError(explain(error));
  }
  showButtons();
}

fillForm();
$("join").addEventListener("submit", join);
$("camera").addEventListener("click", () => toggle("camera"));
$("microphone").addEventListener("click", () => toggle("microphone"));
$("leave").addEventListener("click", () => room?.disconnect());
// Browsers hold sound back until the first gesture on the page.
document.addEventListener("click", () => room?.startAudio?.().catch(() => {}));
if (fragment.get("join") === "1") $("join").requestSubmit();
