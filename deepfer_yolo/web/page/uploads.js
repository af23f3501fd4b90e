// Images and videos: chosen, dropped or pasted. Who labels them is for the page to say.
import { $, drawBoxes, el, faceCard, flatFace, saveButtons } from "./elements.js";

const SHOWN_FACES = 6;
let labeller = null;
let results = [];
let queue = Promise.resolve();

// `by.label(files, findFaces)` promises a row for each of at most `by.group` images, `by.watch(file)` what was seen in a video and
// its card; `by.tools(file, row, show)` gives more for an image's card.
export function startUploads(by) {
  labeller = by;
  $("files").addEventListener("change", () => {
    take([...$("files").files]);
    $("files").value = "";
  });
  const drop = $("drop");
  for (const name of ["dragenter", "dragover"]) drop.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  for (const name of ["dragleave", "drop"]) drop.addEventListener(name, () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => { event.preventDefault(); take([...event.dataTransfer.files]); });
  // A file dropped beside the field must not make the browser leave the page.
  for (const name of ["dragover", "drop"]) window.addEventListener(name, (event) => event.preventDefault());
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (files.length > 0) {
      $("tab-uploads").click();
      take(files);
    }
  });
  $("upload-clear").addEventListener("click", clear);
}

function take(files) {
  queue = queue.then(() => work(files)).catch((error) => say(error.message));
}

// What comes in is shown above what was there, in its own order.
let below = null;

function put(card) {
  $("results").insertBefore(card, below?.isConnected ? below : null);
}

async function work(files) {
  below = $("results").firstChild;
  const moves = await Promise.all(files.map(isVideo));
  const images = files.filter((_, index) => !moves[index]);
  const videos = files.filter((_, index) => moves[index]);
  for (let start = 0; start < images.length; start += labeller.group) {
    const end = Math.min(start + labeller.group, images.length);
    say(`Looking at image ${start + 1}${end > start + 1 ? ` to ${end}` : ""} of ${images.length} …`);
    const group = images.slice(start, end);
    const rows = await labeller.label(group, $("find-faces").checked);
    for (const [index, row] of rows.entries()) await addImage(group[index], row);
  }
  for (const [index, file] of videos.entries()) {
    say(`Watching video ${index + 1} of ${videos.length}: ${file.name} …`);
    await addVideo(file);
  }
  sayDone();
}

function sayDone() {
  const [read, watched] = [results.filter((result) => result.faces), results.filter((result) => result.frames)];
  const n = read.reduce((sum, result) => sum + result.faces.length, 0);
  const broken = results.length - read.length - watched.length;
  const parts = [
    read.length && `${count(n, "face")} in ${count(read.length, "image")}`, watched.length && count(watched.length, "video"),
    broken && `${count(broken, "file")} could not be read`,
  ];
  say(`Done: ${parts.filter(Boolean).join(", ")}.`);
}

const VIDEOS = /\.(mp4|m4v|mov|webm|mkv|avi|ogv|ts|mts|m2ts|h264|264|flv|wmv|mpe?g|3gp|y4m|mjpeg)$/i;

// An animation is a video. GIF and WebP say so within their first bytes: by how often it is shown, or by a flag.
async function isVideo(file) {
  if (file.type.startsWith("video/") || VIDEOS.test(file.name)) return true;
  const head = new TextDecoder("latin1").decode(await file.slice(0, 2000).arrayBuffer());
  return head.startsWith("GIF8") ? head.includes("NETSCAPE2.0") : head.startsWith("RIFF") && head.slice(8, 12) === "WEBP" && head.includes("ANIM");
}

const count = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

async function addVideo(file) {
  try {
    const [watched, card] = await labeller.watch(file);
    results.push(watched);
    put(card);
  } catch (error) {
    results.push({ name: file.name, error: error.message });
    put(el("article", { class: "card" }, el("h3", {}, file.name), el("p", { class: "error" }, error.message)));
  }
  offer();
}

async function addImage(file, row) {
  results.push(row);
  const card = el("article", { class: "card" }, el("h3", {}, row.name));
  put(card);
  offer();
  if (row.error) {
    card.append(el("p", { class: "error" }, row.error));
    return;
  }
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => null);
  const stage = bitmap === null ? el("p", { class: "hint" }, "This browser cannot show the image.") : stillStage(bitmap);
  const none = el("p", { class: "hint" }, "No face was found. If the image is a face already, switch “Find the faces first” off.");
  const list = el("div", { class: "faces" });
  const more = el("p", { class: "hint" });
  const show = () => {
    stage.show?.(row);
    none.hidden = row.faces.length > 0;
    list.replaceChildren(...row.faces.slice(0, SHOWN_FACES).map((face, index) => {
      const one = faceCard(`face ${index + 1}`);
      one.show(face);
      return one;
    }));
    more.textContent = `${row.faces.length - SHOWN_FACES} more faces are in the download.`;
    more.hidden = row.faces.length <= SHOWN_FACES;
  };
  const changed = () => {
    show();
    sayDone();
  };
  card.append(stage, ...(labeller.tools?.(file, row, stage, changed) ?? []), none, list, more);
  show();
}

function stillStage(bitmap) {
  const scale = Math.min(1, 960 / Math.max(bitmap.width, bitmap.height));
  const image = el("canvas", { width: Math.round(bitmap.width * scale), height: Math.round(bitmap.height * scale), role: "img" });
  image.getContext("2d").drawImage(bitmap, 0, 0, image.width, image.height);
  bitmap.close();
  const overlay = el("canvas", { "aria-hidden": "true" });
  const stage = el("div", { class: "stage still" }, image, overlay);
  let shown = null;
  const draw = () => {
    if (shown === null) return;
    const isWhole = shown.faces.length === 1 && shown.faces[0].box[2] - shown.faces[0].box[0] === shown.width;
    drawBoxes(overlay, isWhole ? [] : shown.faces, shown.width, shown.height);
  };
  new ResizeObserver(draw).observe(stage);
  stage.show = (row) => {
    shown = row;
    image.setAttribute("aria-label", `${row.name}: ${row.faces.map((face) => face.label).join(", ") || "no face"}`);
    draw();
  };
  return stage;
}

function offer() {
  $("upload-clear").hidden = false;
  if ($("upload-saves").childElementCount === 0) saveButtons($("upload-saves"), "deepfer-results", () => results, () => results.flatMap(flatRows));
}

function flatRows(result) {
  if (result.error) return [{ name: result.name, error: result.error }];
  if (result.frames) {
    return result.frames.flatMap(({ time_s, faces }) => faces.map((face) => ({ name: result.name, time_s, track: face.track, ...flatFace(face) })));
  }
  return result.faces.map((face, index) => ({ name: result.name, face: index + 1, ...flatFace(face) }));
}

function clear() {
  results = [];
  for (const video of $("results").querySelectorAll("video")) URL.revokeObjectURL(video.src);
  $("results").replaceChildren();
  $("upload-saves").replaceChildren();
  $("upload-clear").hidden = true;
  say("");
}

function say(text) {
  $("upload-state").textContent = text;
}
