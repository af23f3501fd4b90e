// The page: the engine is loaded and tests itself; camera and images go to one that passes. Nothing goes to a server.
import { openEngine, readImage } from "./engine/index.js";
import { startCamera, stopCamera } from "./camera.js";
import { $, el, knowLabels, startTabs, startTheme } from "./elements.js";
import { labelFaces, labelFile, openLooker } from "./look.js";
import { markFace } from "./marker.js";
import { showModel } from "./model.js";
import { startOffline } from "./offline.js";
import { startUploads } from "./uploads.js";

const STAGES = {
  runtime: "Loading the inference engine", model: "Loading the model", detector: "Loading the face detector", session: "Preparing the model; this takes seconds the first time",
};
const figure = (value) => (value === 0 || value >= 1e-3 ? String(Number(value.toPrecision(2))) : value.toExponential(1));

const openAsked = startTabs();
startTheme();
const engine = openProven();
engine.catch(() => {}); // said below, and by whoever waits for it

let drawnBox = null;
startCamera(async () => openLooker(await engine, () => drawnBox));
document.addEventListener("visibilitychange", () => document.hidden && stopCamera("The camera stopped because the page was hidden."));
startUploads({ group: 1, label: async ([file], findFaces) => [await labelFile(await engine, file, findFaces)], watch: refuseVideo, tools: markTools });
openAsked();

try {
  await engine;
} catch (error) {
  $("broken").textContent = error.message;
  $("broken").hidden = false;
  if ($("model-loading")) $("model-loading").textContent = error.message;
  $("camera-start").disabled = true; // nobody is asked for a camera that nothing looks through
} finally {
  $("loading").hidden = true;
  document.documentElement.dataset.ready = "yes";
}
await startOffline();

// The engine, once it has passed its self-test: one that fails labels nothing. The card is shown of both.
async function openProven() {
  try {
    const opened = await openEngine({ base: new URL("./", location.href).href, progress: showProgress });
    showCard(opened);
    const failure = showTest(await opened.selfTest());
    if (failure === null) return opened;
    opened.close();
    throw new Error(failure);
  } catch (error) {
    throw new Error(`This page labels no images: ${error.message}`);
  }
}

function showCard(opened) {
  const { card } = opened;
  knowLabels(card.labels);
  $("model-name").textContent = card.name;
  $("model-name").hidden = false;
  $("find-faces-row").hidden = !opened.hasDetector;
  $("camera-whole").hidden = opened.hasDetector;
  $("camera-tools").append(...cameraTools());
  const provider = `${opened.runtime} in this browser, ${opened.threads > 1 ? `${opened.threads} threads` : "one thread"}`;
  showModel({ card, provider, detector: opened.hasDetector ? "YuNet, in this browser" : "none: the whole image, or a box drawn by hand" });
  $("version").textContent = `version ${card.deepfer}`;
}

function showProgress(stage, done, total) {
  const words = STAGES[stage] ?? stage;
  const size = total > 1e5 ? ` (${(done / 1e6).toFixed(1)} of ${(total / 1e6).toFixed(1)} MB)` : "";
  $("loading-words").textContent = `${words}${size} …`;
  if (total > 1) $("loading-bar").value = done / total;
  else $("loading-bar").removeAttribute("value"); // nobody knows how long it takes: the bar moves by itself
}

// What `deepfer verify` checks, in this browser: the card's own answers to inputs painted from a seed. The failure, or null.
function showTest({ passed, worst, tolerance, n }) {
  const figures = `largest difference ${figure(worst)} of ${figure(tolerance)} allowed, ${n} inputs`;
  $("self-test").textContent = `Self-test ${passed ? "passed" : "FAILED"}: ${figures}.`;
  $("self-test").className = passed ? "passed" : "error";
  const words = `The model ${passed ? "answers" : "does not answer"} here as it did where it was made: ${figures}.`;
  $("model").firstElementChild.append(el("h3", {}, "Self-test in this browser"), el("p", { class: passed ? "" : "error" }, words));
  return passed ? null : words.replace("The", "the");
}

function refuseVideo() {
  throw new Error("This page labels images. Videos are for deepfer serve and deepfer stream.");
}

// A button with which a face is marked by hand on an image's card, where no face was found or one is missing.
function markTools(file, row, stage, changed) {
  if (stage.show === undefined) return [];
  const bar = el("div", { class: "bar" });
  const button = el("button", { type: "button", onclick: mark }, "Mark a face by hand");
  bar.append(button);
  let isWhole = row.faces.length === 1 && row.faces[0].box[2] - row.faces[0].box[0] === row.width;

  async function mark() {
    button.hidden = true;
    const box = await markFace(stage, { width: row.width, height: row.height, buttons: bar });
    button.hidden = false;
    if (box !== null) {
      const [face] = await labelFaces(await engine, await readImage(file), [box]);
      row.faces = isWhole ? [face] : [...row.faces, face];
      isWhole = false;
      changed();
    }
    button.focus();
  }
  return [bar];
}

// The same for the camera: the box stays where it was drawn, and stands for all faces until it is taken back.
function cameraTools() {
  const draw = el("button", { type: "button", onclick: mark }, "Mark a face by hand");
  const forget = el("button", { type: "button", hidden: true, onclick: () => use(null) }, "Forget the box");
  const buttons = el("span", { class: "group" });

  function use(box) {
    drawnBox = box;
    forget.hidden = box === null;
  }
  async function mark() {
    const video = $("camera-video");
    draw.hidden = true;
    const box = await markFace($("camera-stage"), { width: video.videoWidth, height: video.videoHeight, isMirrored: video.classList.contains("mirrored"), buttons });
    draw.hidden = false;
    if (box !== null) use(box);
    draw.focus();
  }
  return [draw, buttons, forget];
}
