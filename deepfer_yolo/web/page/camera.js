// The camera: one image on its way at a time, so that latency cannot pile up. Who looks at the images is for the page to say.
import { $, drawBoxes, faceCard, flatFace, saveButtons } from "./elements.js";

const FORGET_MS = 700;
const PATIENCE_MS = 500;
const SLOW_MS = 300;
const AGAIN = ", then start again.";
const REASONS = {
  NotAllowedError: `The browser did not allow the camera. Allow it at the camera sign beside the address, or in the settings of the browser${AGAIN}`,
  NotFoundError: `There is no camera. Connect one${AGAIN} Images can be uploaded without one.`,
  NotReadableError: `The camera does not answer; another program may be using it. Close that${AGAIN}`,
  AbortError: `The camera did not start. Unplug and connect it${AGAIN}`,
};
const INSECURE = "The browser gives cameras only to pages from localhost or over HTTPS. Open this page under such an address; images can be uploaded under any.";

let openLooker = null;
let session = null;
let replies = [];
let latencies = [];
let recorded = [];
let isRecording = false;
const cards = new Map();
const grab = document.createElement("canvas");
const spoken = { text: "", at: -Infinity };

// `open()` gives who looks: `look(canvas)` promises the answer to one image of at most `side` pixels; `close()` ends it.
export function startCamera(open) {
  openLooker = open;
  $("camera-start").addEventListener("click", start);
  $("camera-stop").addEventListener("click", () => stopCamera());
  $("camera-record").addEventListener("click", toggleRecording);
  window.addEventListener("pagehide", () => stopCamera());
}

async function start() {
  const mine = (session = { stream: null, looker: null });
  $("camera-error").hidden = true;
  $("camera-start").disabled = true;
  try {
    if (!navigator.mediaDevices) throw new Error(INSECURE);
    mine.stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 }, height: { ideal: 720 }, facingMode: "user" }, audio: false });
    if (mine !== session) return end(mine);
    const [track] = mine.stream.getVideoTracks();
    const video = $("camera-video");
    video.srcObject = mine.stream;
    // People know their mirror image; a camera that looks away from them shows what they see themselves.
    video.classList.toggle("mirrored", track.getSettings().facingMode !== "environment");
    track.addEventListener("ended", () => mine === session && stopCamera("The camera was disconnected."));
    await video.play();
    if (mine !== session) return end(mine);
    $("camera-notice").hidden = true;
    $("camera-on").hidden = false;
    mine.looker = await openLooker();
    await run(mine, video);
  } catch (error) {
    if (mine === session) stopCamera(REASONS[error.name] ?? error.message);
  }
  return end(mine);
}

async function run(mine, video) {
  while (mine === session) {
    if (video.videoWidth > 0) {
      drawFrame(video, mine.looker.side ?? Infinity);
      const began = performance.now();
      const answer = await mine.looker.look(grab);
      if (mine !== session) return;
      const now = performance.now();
      replies = [...replies.filter((at) => now - at < 4000), now];
      latencies = [...latencies.slice(-19), now - began];
      if (!answer.error) show(answer, now);
    }
    await nextFrame(video);
  }
}

function drawFrame(video, side) {
  const scale = Math.min(1, side / Math.max(video.videoWidth, video.videoHeight));
  grab.width = Math.round(video.videoWidth * scale);
  grab.height = Math.round(video.videoHeight * scale);
  grab.getContext("2d", { willReadFrequently: true }).drawImage(video, 0, 0, grab.width, grab.height);
}

// Hidden pages get no frames; an image now and then keeps what looks at them awake.
function nextFrame(video) {
  return new Promise((resolve) => {
    setTimeout(resolve, PATIENCE_MS);
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(resolve);
    else requestAnimationFrame(resolve);
  });
}

function show(answer, now) {
  const isMirrored = $("camera-video").classList.contains("mirrored");
  const seen = isMirrored ? answer.faces.map((face) => ({ ...face, box: mirrored(face.box, answer.width) })) : answer.faces;
  drawBoxes($("camera-overlay"), seen, answer.width, answer.height);
  const median = [...latencies].sort((a, b) => a - b)[Math.floor(latencies.length / 2)];
  if (median > SLOW_MS) drawBehind($("camera-overlay"), isMirrored);
  const span = Math.max(1, now - replies[0]) / 1000;
  $("camera-fps").textContent = replies.length > 1 ? ((replies.length - 1) / span).toFixed(1) : "–";
  $("camera-latency").textContent = `${Math.round(median)} ms`;
  $("camera-count").textContent = answer.faces.length;
  // As many cards as faces are counted; the card of a face that is gone waits, unseen, in case it comes back.
  for (const face of answer.faces) {
    if (!cards.has(face.track)) cards.set(face.track, faceCard(`face ${face.track}`));
    const card = cards.get(face.track);
    card.show(face);
    card.seenAt = now;
    if (!card.isConnected) $("camera-faces").append(card);
  }
  for (const [track, card] of cards) {
    if (card.seenAt !== now) card.remove();
    if (now - card.seenAt > FORGET_MS) cards.delete(track);
  }
  const hint = $("camera-faces").querySelector(".hint");
  if (hint) hint.hidden = answer.faces.length > 0;
  if (isRecording) record(answer);
  speak(answer.faces, now);
}

// Where answers come late the camera has moved on: the image that was looked at lies over it, so that boxes and faces agree.
function drawBehind(canvas, isMirrored) {
  const context = canvas.getContext("2d");
  const scale = Math.min(canvas.width / grab.width, canvas.height / grab.height);
  context.resetTransform();
  context.globalCompositeOperation = "destination-over";
  context.translate(canvas.width / 2, canvas.height / 2);
  context.scale(isMirrored ? -scale : scale, scale);
  context.drawImage(grab, -grab.width / 2, -grab.height / 2);
}

const mirrored = ([x1, y1, x2, y2], width) => [width - x2, y1, width - x1, y2];

function speak(faces, now) {
  const text = faces.map((face) => `face ${face.track}: ${face.label}`).join(", ") || "no face";
  if (text === spoken.text || now - spoken.at < 3000) return;
  Object.assign(spoken, { text, at: now });
  $("camera-say").textContent = text;
}

function record(answer) {
  recorded.push({ time_s: answer.time_s, faces: answer.faces });
  $("camera-recorded").textContent = recorded.length;
  if (recorded.length === 1) {
    const rows = () => recorded.flatMap(({ time_s, faces }) => faces.map((face) => ({ time_s, track: face.track, ...flatFace(face) })));
    saveButtons($("camera-saves"), "deepfer-camera", () => recorded, rows);
  }
}

function toggleRecording() {
  isRecording = !isRecording;
  $("camera-record").setAttribute("aria-pressed", isRecording);
  $("camera-record").textContent = isRecording ? "Stop recording" : "Record results";
}

function end(ended) {
  ended.looker?.close();
  ended.stream?.getTracks().forEach((track) => track.stop());
}

export function stopCamera(reason = "") {
  if (session === null) return;
  end(session);
  session = null;
  $("camera-video").srcObject = null;
  if (isRecording) toggleRecording();
  for (const card of cards.values()) card.remove();
  cards.clear();
  [replies, latencies] = [[], []];
  $("camera-on").hidden = true;
  $("camera-notice").hidden = false;
  $("camera-start").disabled = false;
  $("camera-error").textContent = reason;
  $("camera-error").hidden = reason === "";
}
