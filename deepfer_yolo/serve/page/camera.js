// The camera: one image on its way at a time, so that latency cannot pile up.
import { $, drawBoxes, el, faceCard, flatFace, saveButtons } from "./elements.js";

const SIDE = 640;
const QUALITY = 0.85;
const PATIENCE_MS = 15000;
const FORGET_MS = 700;

let socket = null;
let stream = null;
let sentAt = 0;
let watchdog = null;
let replies = [];
let latencies = [];
let recorded = [];
let isRecording = false;
const cards = new Map();
const grab = document.createElement("canvas");
const spoken = { text: "", at: -Infinity };

export function startCamera() {
  $("camera-start").addEventListener("click", start);
  $("camera-stop").addEventListener("click", () => stop());
  $("camera-record").addEventListener("click", toggleRecording);
  window.addEventListener("pagehide", () => stop());
}

async function start() {
  $("camera-error").hidden = true;
  $("camera-start").disabled = true;
  try {
    if (!navigator.mediaDevices) throw new Error("The browser gives cameras only to pages from localhost or over HTTPS.");
    stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 }, height: { ideal: 720 }, facingMode: "user" }, audio: false });
    const video = $("camera-video");
    video.srcObject = stream;
    stream.getVideoTracks()[0].addEventListener("ended", () => stop("The camera was disconnected."));
    await video.play();
    $("camera-notice").hidden = true;
    $("camera-on").hidden = false;
    connect();
  } catch (error) {
    const known = { NotAllowedError: "The browser did not allow the camera.", NotFoundError: "There is no camera.", NotReadableError: "The camera is in use by another program." };
    stop(known[error.name] ?? error.message);
  }
}

function connect() {
  const address = new URL("v1/camera", location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  address.hash = address.search = "";
  socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  const mine = socket;
  socket.addEventListener("open", send);
  socket.addEventListener("message", (event) => mine === socket && receive(JSON.parse(event.data)));
  socket.addEventListener("close", (event) => mine === socket && stop(event.reason || "The connection to the server has ended."));
}

function send() {
  const video = $("camera-video");
  if (socket === null || socket.readyState !== WebSocket.OPEN) return;
  if (video.videoWidth === 0) {
    setTimeout(send, 50);
    return;
  }
  const scale = Math.min(1, SIDE / Math.max(video.videoWidth, video.videoHeight));
  grab.width = Math.round(video.videoWidth * scale);
  grab.height = Math.round(video.videoHeight * scale);
  grab.getContext("2d").drawImage(video, 0, 0, grab.width, grab.height);
  sentAt = performance.now();
  grab.toBlob((blob) => {
    if (socket === null || socket.readyState !== WebSocket.OPEN || blob === null) return;
    socket.send(blob);
    clearTimeout(watchdog);
    watchdog = setTimeout(() => stop("The server has not answered for 15 seconds."), PATIENCE_MS);
  }, "image/jpeg", QUALITY);
}

function receive(answer) {
  clearTimeout(watchdog);
  const now = performance.now();
  replies = [...replies.filter((at) => now - at < 4000), now];
  latencies = [...latencies.slice(-19), now - sentAt];
  if (!answer.error) show(answer, now);
  // Hidden pages get no animation frames, and need none.
  if (document.hidden) setTimeout(send, 500);
  else requestAnimationFrame(send);
}

function show(answer, now) {
  drawBoxes($("camera-overlay"), answer.faces, answer.width, answer.height);
  const median = [...latencies].sort((a, b) => a - b)[Math.floor(latencies.length / 2)];
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

function stop(reason = "") {
  clearTimeout(watchdog);
  const old = socket;
  socket = null;
  old?.close();
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
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
