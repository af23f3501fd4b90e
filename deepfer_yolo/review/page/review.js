// One image at a time: shown, decided, saved, and only then the next one. Text from outside enters by textContent alone.
import { $, ask, colourOf, el, knowLabels, percent, startTheme } from "./elements.js";

const THUMB = "?side=256";
const SILENCE_MS = 30_000;
const MAX_OWN_PX = 128;
// A label each, in order; u, x, ? and / mean something else. Labels beyond them are found by name.
const LABEL_KEYS = [..."1234567890abcdefghijklmnopqrstvwyz"];
const WORDS = { "leave-out": "left out", unsure: "unsure" };

let facts = null;
let items = [];
let progress = null;
let isBusy = false;
let shownAt = 0;
let started = false;
let hasFilters = false;
const images = new Map();

const session = sessionStorage.getItem("session") ?? [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
sessionStorage.setItem("session", session);
let reviewer = sessionStorage.getItem("reviewer");

const filters = () => ({ kind: $("filter-kind").value, split: $("filter-split").value, label: $("filter-label").value });
const post = (path, more = {}) =>
  ask(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ session, reviewer: reviewer ?? "", ...filters(), ...more }) });

// An image that is here before it is wanted; the same element is shown later.
function fetched(name, query = "") {
  const key = name + query;
  if (!images.has(key)) {
    const image = new Image();
    image.src = `v1/images/${name}${query}`;
    image.ready = image.decode().catch(() => { image.dataset.broken = "yes"; });
    images.set(key, image);
    while (images.size > 400) images.delete(images.keys().next().value);
  }
  return images.get(key);
}

// One after the other, the next one first: all at once, large ones would keep it waiting.
let isFetching = false;
let isStale = false;

async function prefetch() {
  isStale = true;
  if (isFetching) return;
  isFetching = true;
  while (isStale) {
    isStale = false;
    for (const [place, item] of items.entries()) {
      await fetched(item.id).ready;
      if (place < 4) await Promise.all((item.copies ?? []).map((copy) => fetched(copy.id, THUMB).ready));
      if (isStale) break;
    }
  }
  isFetching = false;
}

function take(answer) {
  items = answer.items;
  progress = answer.progress;
  show();
  painted(prefetch);
}

function show() {
  const item = items[0];
  $("work").hidden = item === undefined;
  $("end").hidden = item !== undefined;
  showProgress();
  if (item === undefined) {
    showEnd();
    return;
  }
  const image = fetched(item.id);
  image.alt = item.path ? `Image ${item.path}` : "The image to label";
  $("stage").replaceChildren(image.dataset.broken ? el("p", { class: "error" }, "This image cannot be shown.") : image);
  image.onerror = () => { image.dataset.broken = "yes"; if (items[0]?.id === item.id) show(); };
  showOwnSize(item, image);
  $("path").textContent = item.path ? `${item.path}` : "";
  $("why").replaceChildren(...(item.why ?? []).map((words) => el("span", { class: "chip" }, words)));
  $("find").value = "";
  showFound();
  showLabels(item);
  showCopies(item);
  shownAt = performance.now();
}

// A small image also stands there as it is; a large one is that already.
function showOwnSize(item, image) {
  $("own").hidden = !image.complete || Math.max(image.naturalWidth, image.naturalHeight) > MAX_OWN_PX;
  $("own").replaceChildren(el("img", { src: image.src, alt: "" }));
  if (!image.complete) image.addEventListener("load", () => { if (items[0]?.id === item.id) showOwnSize(item, image); }, { once: true });
}

function showProgress() {
  const { total, done, left, here } = progress;
  $("going").hidden = false;
  $("bar").max = Math.max(1, total);
  $("bar").value = done;
  $("count").textContent = `${done.toLocaleString("en")} of ${total.toLocaleString("en")}, your answers: ${here.toLocaleString("en")}`;
  $("bar").title = `${left.toLocaleString("en")} left`;
  $("undo").disabled = $("end-undo").disabled = here === 0;
}

// The rows are made once; each image only sets their widths and texts.
const rows = new Map();

function makeLabels() {
  facts.labels.forEach((label, place) => {
    const fill = el("span", { class: "fill" });
    fill.style.background = colourOf(label);
    const share = el("span", { class: "share" });
    const vote = el("span", { class: "vote" });
    const key = el("kbd", place < LABEL_KEYS.length ? {} : { class: "none" }, LABEL_KEYS[place] ?? "");
    const button = el("button", { type: "button", onclick: () => decide(label, button) }, key, el("span", { class: "name" }, label), el("span", { class: "lane", "aria-hidden": "true" }, fill), share, vote);
    button.style.borderLeftColor = colourOf(label);
    rows.set(label, { button, fill, share, vote });
  });
  $("labels").classList.toggle("many", facts.labels.length > 9);
  $("find-line").hidden = facts.labels.length <= LABEL_KEYS.length;
  $("labels").replaceChildren(...[...rows.values()].map((row) => row.button));
}

// Of so many labels those whose name holds what is typed; Enter takes the one that is left, or is called so.
function showFound() {
  const wanted = $("find").value.trim().toLowerCase();
  for (const [label, { button }] of rows) button.hidden = !label.toLowerCase().includes(wanted);
}

function takeFound(event) {
  const wanted = $("find").value.trim().toLowerCase();
  if (event.key === "Escape") {
    $("find").value = "";
    showFound();
    $("find").blur();
  } else if (event.key === "Enter" && wanted && !event.repeat && !event.isComposing) {
    const left = [...rows].filter(([, { button }]) => !button.hidden);
    const [label, row] = left.find(([name]) => name.toLowerCase() === wanted) ?? (left.length === 1 ? left[0] : []);
    if (label === undefined) return;
    $("find").blur(); // the next key is a key again
    decide(label, row.button, event.timeStamp);
  }
}

const votesOf = (n) => `${n}\u00a0${n === 1 ? "vote" : "votes"}`;

function showLabels(item) {
  const hasProbs = item.probs && Object.keys(item.probs).length > 0;
  const votes = item.votes ?? {};
  const hasVotes = Object.keys(votes).length > 0;
  $("labels").classList.toggle("plain", !hasProbs && !hasVotes);
  const most = Math.max(1, ...Object.values(votes));
  for (const [label, { button, fill, share, vote }] of rows) {
    button.classList.remove("chosen");
    button.classList.toggle("is-label", label === item.label);
    const part = hasProbs ? (item.probs[label] ?? 0) : (votes[label] ?? 0) / most;
    fill.style.width = `${100 * part}%`;
    share.textContent = hasProbs ? percent(part) : "";
    vote.textContent = votes[label] ? votesOf(votes[label]) : "";
    button.setAttribute("aria-label", [label, label === item.label ? "its label" : "", hasProbs ? `model ${percent(part)}` : "", hasVotes ? votesOf(votes[label] ?? 0) : ""].filter(Boolean).join(", "));
  }
  for (const id of ["keep", "leave-out", "unsure"]) $(id).classList.remove("chosen");
  const elsewhere = Object.entries(votes).filter(([label]) => !rows.has(label));
  const words = [hasProbs ? `bars: ${facts.model}` : hasVotes ? "bars: votes" : "", elsewhere.length ? `other votes: ${elsewhere.map(([label, n]) => `${label} ${n}`).join(", ")}` : ""];
  $("legend").textContent = words.filter(Boolean).join(" · ");
  $("keep").hidden = item.label === undefined;
  $("keep-label").textContent = item.label === undefined ? "" : ` ${item.label}`;
}

function showCopies(item) {
  const copies = item.copies ?? [];
  $("copies").hidden = copies.length === 0;
  $("copy-list").replaceChildren(...copies.map((copy) => {
    const image = fetched(copy.id, THUMB);
    image.alt = `${copy.exact ? "Exact" : "Near"} copy, labelled ${copy.label}`;
    return el("figure", { class: copy.label === item.label ? "" : "other" }, image, el("figcaption", {}, el("b", {}, copy.label), `${copy.exact ? "exact" : "near"}, ${copy.split}`));
  }));
}

function showLast(item, answer, revealed) {
  const told = revealed ?? item;
  const said = WORDS[answer] ?? answer;
  const lines = [el("b", {}, said)];
  if (told.label !== undefined) lines.push(` · its label ${told.label}`);
  const probs = Object.entries(told.probs ?? {}).sort((a, b) => b[1] - a[1]);
  if (revealed && probs.length) lines.push(` · the model ${probs[0][0]} ${percent(probs[0][1])}`);
  if (revealed && Object.keys(told.votes).length) lines.push(` · votes ${Object.entries(told.votes).map(([label, n]) => `${label} ${n}`).join(", ")}`);
  const image = fetched(item.id).cloneNode();
  image.alt = "The image before";
  $("last").replaceChildren(image, el("p", {}, "Before: ", ...lines));
  $("last").hidden = false;
}

async function showEnd() {
  const isFiltered = Object.values(filters()).some(Boolean);
  $("end-title").textContent = progress.left ? "Nothing more for you here" : "All decided";
  $("end-words").textContent = progress.left
    ? isFiltered ? "No image is left that the filters take." : "Other browsers hold the images that are left; they come back when those close."
    : `Every image of this queue is decided. Ctrl-C in the terminal ends the review.`;
  $("end-more").hidden = !isFiltered || !progress.left;
  const told = await ask("v1/summary").catch(() => null);
  if (told === null) return;
  const pairs = [["Decisions", told.decisions], ["Given another label", told.changed], ["Label kept", told.kept], ["Left out", told.left_out], ["Unsure", told.unsure], ["In conflict", told.conflicts]];
  for (const one of told.consistency) pairs.push([`Consistency of ${one.reviewer || "no name"}`, `${one.same} of ${one.n} shown twice got the same answer`]);
  for (const pair of told.agreement) pairs.push([pair.reviewers.map((name) => name || "no name").join(" and "), `${pair.kappa === null ? "no kappa" : `kappa ${pair.kappa.toFixed(2)}`}, ${percent(pair.agreement)} the same of ${pair.n}`]);
  $("summary").replaceChildren(...pairs.flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, String(value))]));
}

function fail(error) {
  $("error").textContent = error.status === 401 || error.status === 404
    ? "The server was started anew: open the address that it printed. Nothing that was saved is lost."
    : `Not saved: ${error.message}`;
  $("error").hidden = false;
}

// What comes after a frame's callbacks comes after its painting.
const painted = (then) => requestAnimationFrame(() => setTimeout(then));

// The next image shows once the decision is on the disk, so that a crash loses at most the one on screen.
async function decide(answer, button, pressedAt = performance.now()) {
  const item = items[0];
  if (isBusy || item === undefined || $("work").hidden) return;
  isBusy = true;
  button?.classList.add("chosen");
  const seconds = Math.min(86_400, Math.round(pressedAt - shownAt) / 1000);
  try {
    const answered = await post("v1/decisions", { id: item.id, answer, seconds: Math.max(0, seconds) });
    $("error").hidden = true;
    showLast(item, answer, answered.revealed);
    take(answered);
    $("say").textContent = `${WORDS[answer] ?? answer}, saved.`;
    painted(() => performance.measure("decision", { start: pressedAt, end: performance.now() }));
  } catch (error) {
    button?.classList.remove("chosen");
    fail(error);
    if (error.status === 409) {
      $("error").textContent = "Another browser has decided that image; here is the next one.";
      await refresh();
    }
  } finally {
    isBusy = false;
  }
}

async function undo() {
  if (isBusy || !started || !progress?.here) return;
  isBusy = true;
  try {
    take(await post("v1/undo"));
    $("error").hidden = true;
    $("last").hidden = true;
    $("say").textContent = "Undone.";
  } catch (error) {
    fail(error);
  } finally {
    isBusy = false;
  }
}

async function refresh() {
  try {
    const current = items[0]?.id;
    const answer = await post("v1/next");
    items = answer.items;
    progress = answer.progress;
    if (items[0]?.id === current && !$("work").hidden) showProgress();
    else show();
    prefetch();
  } catch (error) {
    fail(error);
  }
}

const ACTS = { " ": "keep", x: "leave-out", "?": "unsure", u: "undo" };

document.addEventListener("keydown", (event) => {
  if (!started || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, select, textarea")) return;
  if (event.key === " " && event.target.closest("button, a")) return; // it presses what is focused
  const key = event.key.toLowerCase();
  const label = facts.labels[LABEL_KEYS.indexOf(key)];
  const act = ACTS[key];
  const isSearch = key === "/" && !$("find-line").hidden;
  if (label === undefined && act === undefined && !isSearch) return;
  event.preventDefault();
  if (isSearch) $("find").focus();
  else if (label !== undefined) decide(label, rows.get(label).button, event.timeStamp);
  else if (act === "undo") undo();
  else if (act !== "keep") decide(act, $(act), event.timeStamp);
  else if (items[0]?.label !== undefined) decide(items[0].label, $("keep"), event.timeStamp);
});

$("keep").addEventListener("click", () => items[0]?.label !== undefined && decide(items[0].label, $("keep")));
$("leave-out").addEventListener("click", () => decide("leave-out", $("leave-out")));
$("unsure").addEventListener("click", () => decide("unsure", $("unsure")));
$("undo").addEventListener("click", undo);
$("find").addEventListener("input", showFound);
$("find").addEventListener("keydown", takeFound);
$("end-undo").addEventListener("click", undo);
// What was pressed by hand does not keep the space bar to itself.
document.addEventListener("pointerup", () => setTimeout(() => document.activeElement?.closest("button")?.blur()));

function fillFilter(id, name, values) {
  const select = $(id);
  select.replaceChildren(el("option", { value: "" }, name), ...values.map((value) => el("option", { value }, value)));
  select.parentElement.hidden = values.length < 2;
  select.addEventListener("change", () => { select.blur(); refresh(); });
  return values.length > 1;
}

$("end-more").addEventListener("click", () => {
  for (const id of ["filter-kind", "filter-split", "filter-label"]) $(id).value = "";
  refresh();
});

startTheme();

async function start() {
  started = true;
  $("hello").hidden = true;
  $("filters").hidden = !hasFilters;
  await refresh();
  // A browser that is looked at keeps its images; a silent one gives them back.
  setInterval(() => { if (!document.hidden && !isBusy) refresh(); }, SILENCE_MS);
  addEventListener("pagehide", () => navigator.sendBeacon("v1/release", new Blob([JSON.stringify({ session, reviewer: reviewer ?? "" })], { type: "application/json" })));
  addEventListener("pageshow", (event) => { if (event.persisted) refresh(); });
  document.addEventListener("visibilitychange", () => { if (!document.hidden && !isBusy) refresh(); });
}

$("hello-form").addEventListener("submit", (event) => {
  event.preventDefault();
  reviewer = $("reviewer").value.trim();
  sessionStorage.setItem("reviewer", reviewer);
  localStorage.setItem("reviewer", reviewer);
  start();
});

try {
  facts = await ask("v1/review");
  knowLabels(facts.labels);
  $("set-name").textContent = facts.name;
  $("set-name").hidden = false;
  $("file").textContent = facts.file;
  $("version").textContent = `version ${facts.version}`;
  const chips = [facts.blind ? "blind" : facts.model ? `with ${facts.model}` : null, facts.held_out ? "held out" : null].filter(Boolean);
  $("chips").replaceChildren(...chips.map((words) => el("span", { class: facts.held_out && words === "held out" ? "chip strong" : "chip" }, words)));
  makeLabels();
  const hidden = facts.blind ? [] : null;
  const some = [fillFilter("filter-kind", "all doubts", hidden ?? facts.kinds), fillFilter("filter-split", "all splits", facts.splits), fillFilter("filter-label", "all labels", hidden ?? facts.labels)];
  hasFilters = some.some(Boolean);
  if (facts.reviewer !== null || reviewer !== null) await start();
  else {
    $("reviewer").value = localStorage.getItem("reviewer") ?? "";
    $("hello").hidden = false;
    $("reviewer").focus();
  }
} catch (error) {
  $("error").textContent = error.message;
  $("error").hidden = false;
}
document.documentElement.dataset.ready = "yes";
