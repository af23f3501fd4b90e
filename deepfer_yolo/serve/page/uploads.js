// Images and videos: chosen, dropped or pasted.
import { $, ask, drawBoxes, el, faceCard, flatFace, saveButtons } from "./elements.js";
import { videoCard } from "./video.js";

const GROUP = 8;
const SHOWN_FACES = 6;
let results = [];
let queue = Promise.resolve();

export function startUploads() {
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
  for (let start = 0; start < images.length; start += GROUP) {
    say(`Looking at image ${start + 1} to ${Math.min(start + GROUP, images.length)} of ${images.length} …`);
    await labelImages(images.slice(start, start + GROUP));
  }
  for (const [index, file] of videos.entries()) {
    say(`Watching video ${index + 1} of ${videos.length}: ${file.name} …`);
    await labelVideo(file);
  }
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

async function labelImages(files) {
  const form = new FormData();
  for (const file of files) form.append("files", file, file.name);
  const rows = await post(`v1/predict?faces=${$("find-faces").checked}`, form).then(
    (answer) => answer.pictures,
    (error) => error.body?.pictures ?? files.map((file) => ({ name: file.name, error: error.message })),
  );
  for (const [index, row] of rows.entries()) await addImage(files[index], row);
}

async function labelVideo(file) {
  const form = new FormData();
  form.append("files", file, file.name);
  const began = Date.now();
  const timer = setInterval(() => say(`Watching ${file.name} … ${Math.round((Date.now() - began) / 1000)} s`), 1000);
  try {
    const answer = await post("v1/video", form);
    results.push(answer);
    put(videoCard(file, answer));
  } catch (error) {
    results.push({ name: file.name, error: error.message });
    put(el("article", { class: "card" }, el("h3", {}, file.name), el("p", { class: "error" }, error.message)));
  } finally {
    clearInterval(timer);
  }
  offer();
}

async function post(path, body, tries = 4) {
  try {
    return await ask(path, { method: "POST", body });
  } catch (error) {
    if (error.status !== 429 || tries === 0) throw error;
    await new Promise((resolve) => setTimeout(resolve, 1000 * error.retryAfter));
    return post(path, body, tries - 1);
  }
}

async function addImage(file, row) {
  results.push(row);
  const card = el("article", { class: "card" }, el("h3", {}, row.name));
  put(card);
  offer();
  const bitmap = await createImageBitmap(file, { imageOrientation: "from-image" }).catch(() => null);
  if (row.error) {
    card.append(el("p", { class: "error" }, row.error));
    return;
  }
  card.append(bitmap === null ? el("p", { class: "hint" }, "This browser cannot show the image.") : stillStage(bitmap, row));
  if (row.faces.length === 0) card.append(el("p", { class: "hint" }, "No face was found. If the image is a face already, switch “Find the faces first” off."));
  const list = el("div", { class: "faces" });
  for (const [index, face] of row.faces.slice(0, SHOWN_FACES).entries()) {
    const one = faceCard(`face ${index + 1}`);
    one.show(face);
    list.append(one);
  }
  card.append(list);
  if (row.faces.length > SHOWN_FACES) card.append(el("p", { class: "hint" }, `${row.faces.length - SHOWN_FACES} more faces are in the download.`));
}

function stillStage(bitmap, row) {
  const scale = Math.min(1, 960 / Math.max(bitmap.width, bitmap.height));
  const image = el("canvas", { width: Math.round(bitmap.width * scale), height: Math.round(bitmap.height * scale), role: "img" });
  image.setAttribute("aria-label", `${row.name}: ${row.faces.map((face) => face.label).join(", ") || "no face"}`);
  image.getContext("2d").drawImage(bitmap, 0, 0, image.width, image.height);
  bitmap.close();
  const overlay = el("canvas", { "aria-hidden": "true" });
  const stage = el("div", { class: "stage still" }, image, overlay);
  const isWhole = row.faces.length === 1 && row.faces[0].box[2] - row.faces[0].box[0] === row.width;
  new ResizeObserver(() => drawBoxes(overlay, isWhole ? [] : row.faces, row.width, row.height)).observe(stage);
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
