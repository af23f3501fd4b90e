// The live sources that were named on the command line.
import { $, ask, el, faceCard } from "./elements.js";

const EVERY_MS = 1000;
const SHOWN_FACES = 4;
const cards = new Map();
let isShown = false;

export function startLive() {
  document.addEventListener("tab", (event) => { isShown = event.detail === "live"; });
  refresh();
}

async function refresh() {
  if (isShown && !document.hidden) {
    try {
      const { sources } = await ask("v1/sources");
      $("live-error").hidden = true;
      for (const source of sources) update(source);
    } catch (error) {
      $("live-error").textContent = error.message;
      $("live-error").hidden = false;
    }
  }
  setTimeout(refresh, EVERY_MS);
}

function update(source) {
  if (!cards.has(source.index)) cards.set(source.index, build(source));
  const card = cards.get(source.index);
  card.state.textContent = source.state;
  card.state.className = `chip state-${source.state}`;
  card.figures.age.textContent = source.age_ms === null ? "–" : source.age_ms < 2000 ? `${Math.round(source.age_ms)} ms` : `${Math.round(source.age_ms / 1000)} s`;
  card.figures.faces.textContent = source.faces.length;
  card.figures.processed.textContent = source.processed;
  card.figures.dropped.textContent = source.dropped;
  card.figures.reconnects.textContent = source.reconnects;
  card.reason.textContent = source.reason ?? "";
  card.reason.hidden = !source.reason;
  if (source.processed > 0) {
    card.image.src = `v1/sources/${source.index}/picture?n=${source.processed}`;
    card.image.hidden = false;
  }
  const faces = source.faces.slice(0, SHOWN_FACES).map((face) => {
    const one = faceCard(`face ${face.track}`);
    one.show(face);
    return one;
  });
  const more = source.faces.length - faces.length;
  card.faces.replaceChildren(...faces, ...(more > 0 ? [el("p", { class: "hint" }, `and ${more} more`)] : []));
}

function build(source) {
  const state = el("span", { class: "chip" });
  const image = el("img", { alt: `Latest image of ${source.name}`, hidden: true });
  const reason = el("p", { class: "hint" });
  const faces = el("div", { class: "faces" });
  const figures = {};
  const list = el("dl", { class: "figures" });
  for (const [key, title] of [["age", "Age"], ["faces", "Faces"], ["processed", "Processed"], ["dropped", "Dropped"], ["reconnects", "Reconnects"]]) {
    figures[key] = el("dd", {}, "–");
    list.append(el("div", {}, el("dt", {}, title), figures[key]));
  }
  $("live-sources").append(el("article", { class: "card" }, el("h3", {}, el("span", {}, source.name), state), el("div", { class: "stage" }, image), list, reason, faces));
  return { state, image, reason, faces, figures };
}
