// One watched video: the player with boxes, and a timeline with one lane a face.
import { colourOf, drawBoxes, el, faceCard, percent } from "./elements.js";

const LANE = 26;
const AXIS = 20;
const GUTTER = 56;

export function videoCard(file, watched) {
  const tracks = tracksOf(watched);
  const video = el("video", { controls: true, muted: true, playsInline: true, src: URL.createObjectURL(file), "aria-label": watched.name });
  const overlay = el("canvas", { "aria-hidden": "true" });
  const stage = el("div", { class: "stage" }, video, overlay);
  const timeline = el("canvas", { class: "timeline", role: "img" });
  timeline.setAttribute("aria-label", summaryOf(watched));
  const length = Math.max(watched.duration_s, 0.001);
  const scrubber = el("input", { type: "range", class: "scrubber", min: 0, max: length, step: 0.05, value: 0, "aria-label": "Time in the video" });
  const now = el("div", { class: "faces" });
  let unplayedAt = null;
  const update = () => {
    const time = unplayedAt ?? video.currentTime;
    scrubber.value = time;
    scrubber.setAttribute("aria-valuetext", `${time.toFixed(1)} of ${length.toFixed(1)} seconds`);
    drawTimeline(timeline, watched, tracks, time);
    const faces = frameAt(watched.frames, time)?.faces ?? [];
    drawBoxes(overlay, faces, watched.width, watched.height);
    showFaces(now, faces);
  };
  const seek = (time) => {
    const wanted = Math.max(0, Math.min(length, time));
    if (unplayedAt === null) video.currentTime = wanted;
    else {
      unplayedAt = wanted;
      update();
    }
  };
  const point = (event) => { const box = timeline.getBoundingClientRect(); seek(((event.clientX - box.left - GUTTER) / (box.width - GUTTER)) * length); };
  timeline.addEventListener("pointerdown", (event) => { timeline.setPointerCapture(event.pointerId); point(event); });
  timeline.addEventListener("pointermove", (event) => event.buttons && point(event));
  scrubber.addEventListener("input", () => seek(Number(scrubber.value)));
  const unplayable = el("p", { class: "hint", hidden: true }, "This browser cannot play the file; the timeline shows what the server saw in it.");
  video.addEventListener("error", () => {
    // The server reads more formats than a browser plays.
    unplayedAt = 0;
    unplayable.hidden = false;
    stage.hidden = true;
    update();
  });
  for (const name of ["timeupdate", "seeking", "seeked", "loadeddata"]) video.addEventListener(name, update);
  video.addEventListener("play", () => follow(video, update));
  const sizes = new ResizeObserver(update);
  for (const part of [stage, timeline]) sizes.observe(part);
  const labels = [...new Set(watched.frames.flatMap((frame) => frame.faces.map((face) => face.label)))].sort();
  const shape = `${watched.duration_s.toFixed(1)} s, ${tracks.size} face${tracks.size === 1 ? "" : "s"} over time`;
  const side = el("div", { class: "faces-now" }, now, eventTable(watched.events));
  return el("article", { class: "card wide" },
    el("h3", {}, el("span", {}, watched.name), el("span", { class: "chip" }, shape)),
    el("div", { class: "columns" }, el("div", {}, stage, unplayable, timeline, scrubber, legend(labels)), side));
}

function tracksOf(watched) {
  const tracks = new Map();
  for (const frame of watched.frames) {
    for (const face of frame.faces) {
      if (!tracks.has(face.track)) tracks.set(face.track, []);
      tracks.get(face.track).push({ time: frame.time_s, label: face.label });
    }
  }
  return tracks;
}

function frameAt(frames, time) {
  let found = null;
  for (const frame of frames) {
    if (frame.time_s > time + 0.02) break;
    found = frame;
  }
  return found;
}

function follow(video, update) {
  if (video.paused || video.ended) return;
  update();
  requestAnimationFrame(() => follow(video, update));
}

function drawTimeline(canvas, watched, tracks, time) {
  const density = window.devicePixelRatio || 1;
  const width = canvas.clientWidth || 300;
  const height = LANE * Math.max(1, tracks.size) + AXIS;
  canvas.width = width * density;
  canvas.height = height * density;
  canvas.style.height = `${height}px`;
  const context = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  context.scale(density, density);
  context.font = "12px system-ui, sans-serif";
  context.textBaseline = "middle";
  const length = Math.max(watched.duration_s, 0.001);
  const step = watched.frames.length > 1 ? length / (watched.frames.length - 1) : length;
  const at = (seconds) => GUTTER + (seconds / length) * (width - GUTTER);
  context.fillStyle = style.getPropertyValue("--soft");
  [...tracks.keys()].forEach((track, lane) => context.fillText(`face ${track}`, 6, lane * LANE + LANE / 2 + 1));
  [...tracks.values()].forEach((points, lane) => drawLane(context, points, lane * LANE, at, step));
  context.fillStyle = style.getPropertyValue("--soft");
  for (let tick = 0, every = tickOf(length); tick <= length + 1e-6; tick += every) {
    const x = at(tick);
    context.textAlign = x > width - 24 ? "right" : "center";
    context.fillText(`${+tick.toFixed(1)} s`, Math.min(x, width - 3), height - AXIS / 2 + 1);
  }
  context.fillStyle = style.getPropertyValue("--ink");
  context.fillRect(Math.min(width - 2, at(time) - 1), 0, 2, height);
}

function drawLane(context, points, top, at, step) {
  let start = points[0];
  let last = points[0];
  const flush = () => {
    const [x, w] = [at(start.time), Math.max(2, at(last.time + step) - at(start.time))];
    context.fillStyle = colourOf(start.label);
    context.fillRect(x, top + 2, w - 1, LANE - 4);
    context.textAlign = "left";
    if (context.measureText(start.label).width + 10 < w) {
      context.fillStyle = "#000";
      context.globalAlpha = 0.55;
      context.fillRect(x, top + 2, context.measureText(start.label).width + 10, LANE - 4);
      context.globalAlpha = 1;
      context.fillStyle = "#fff";
      context.fillText(start.label, x + 5, top + LANE / 2 + 1);
    }
  };
  for (const point of points.slice(1)) {
    if (point.label !== start.label || point.time - last.time > 2.5 * step) {
      flush();
      start = point;
    }
    last = point;
  }
  flush();
}

const tickOf = (length) => [0.5, 1, 2, 5, 10, 20, 30, 60].find((every) => length / every <= 8) ?? 120;

function showFaces(place, faces) {
  place.known ??= new Map();
  if (!place.firstChild) place.append(el("p", { class: "hint" }, "No face at this moment."));
  place.firstChild.hidden = faces.length > 0;
  const seen = new Set(faces.map((face) => face.track));
  for (const [track, card] of place.known) if (!seen.has(track)) { card.remove(); place.known.delete(track); }
  for (const face of faces) {
    if (!place.known.has(face.track)) {
      place.known.set(face.track, faceCard(`face ${face.track}`));
      place.append(place.known.get(face.track));
    }
    place.known.get(face.track).show(face);
  }
}

function legend(labels) {
  const items = labels.map((label) => {
    const mark = el("i");
    mark.style.background = colourOf(label);
    return el("li", {}, mark, label);
  });
  return el("ul", { class: "legend" }, ...items);
}

function eventTable(events) {
  if (events.length === 0) return el("p", { class: "hint" }, "No expression lasted long enough to be called an event.");
  const rows = [...events].sort((a, b) => a.start_s - b.start_s).map((event) =>
    el("tr", {}, el("td", {}, `face ${event.track}`), el("td", {}, event.label), el("td", { class: "number" }, `${event.start_s.toFixed(1)}–${event.end_s.toFixed(1)} s`),
      el("td", { class: "number" }, percent(event.mean_confidence))));
  const head = el("tr", {}, ...["face", "expression", "from–to", "mean"].map((name) => el("th", { scope: "col" }, name)));
  return el("div", { class: "scroll" }, el("h3", {}, "Events"), el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows)));
}

function summaryOf(watched) {
  const events = watched.events.map((event) => `face ${event.track} ${event.label} from ${event.start_s.toFixed(1)} to ${event.end_s.toFixed(1)} seconds`);
  return `Timeline of ${watched.name}. ${events.join("; ") || "No events"}.`;
}
