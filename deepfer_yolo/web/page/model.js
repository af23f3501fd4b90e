// The model card: what it is, how well it was measured, what it may be used for.
import { $, el, percent } from "./elements.js";

const NAMES = {
  top1: "Top-1 accuracy", top2: "Top-2 accuracy", balanced_accuracy: "Balanced accuracy", macro_f1: "Macro F1", weighted_f1: "Weighted F1",
  ece: "Calibration error (ECE)", nll: "Log loss (nats)", brier: "Brier score",
};
const PLAIN = new Set(["nll", "brier"]);

export function showModel(facts) {
  const { card } = facts;
  const parts = [el("h2", {}, card.name), factList(card, facts), el("h3", {}, "Measured")];
  const groups = groupsOf(card.metrics);
  if (groups.length === 0) parts.push(el("p", { class: "hint" }, "This model's card holds no measurement: nothing is known about how often it is right."));
  for (const [name, metrics] of groups) parts.push(...metricParts(name, metrics, card));
  parts.push(el("h3", {}, "Allowed use"), el("p", {}, card.intended_use), el("h3", {}, "Limits"), limits(card, groups));
  $("model").replaceChildren(el("div", { class: "panel" }, ...parts));
}

function factList(card, facts) {
  const { input } = card;
  const trained = card.trained_on ? `${card.trained_on.name}${card.trained_on.fingerprint ? ` (fingerprint ${card.trained_on.fingerprint.slice(0, 12)})` : ""}` : "not stated";
  const rows = {
    Labels: card.labels.join(", "),
    Input: `${input.size}×${input.size} pixels, ${input.colour === "grey" ? "grey" : "colour"}${input.native_px ? `, learned from faces of ${input.native_px} pixels` : ""}`,
    "Trained on": trained,
    Precision: `${card.precision}, on ${facts.provider}`,
    "Face detector": facts.detector,
    Licence: card.license,
    "Made with": Object.entries(card.producer).map(([name, version]) => `${name} ${version}`).join(", ") || "not stated",
  };
  return el("dl", { class: "facts" }, ...Object.entries(rows).flatMap(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
}

// Metrics lie at the top of the card, or one level down by split.
function groupsOf(metrics) {
  const groups = [];
  if (Object.keys(NAMES).some((key) => typeof metrics[key] === "number")) groups.push([metrics.split ?? "", metrics]);
  for (const [name, value] of Object.entries(metrics)) {
    if (value !== null && typeof value === "object" && typeof value.top1 === "number") groups.push([name, value]);
  }
  return groups;
}

function metricParts(name, metrics, card) {
  const split = metrics.split ?? name;
  const conditions = [metrics.dataset?.name ?? metrics.dataset, split && `split ${split}`, metrics.n && `n = ${metrics.n.toLocaleString("en")}`].filter(Boolean).join(", ");
  const rows = Object.entries(NAMES).filter(([key]) => typeof metrics[key] === "number").map(([key, title]) => {
    const plain = (value) => (PLAIN.has(key) ? value.toFixed(3) : (100 * value).toFixed(1));
    const show = (value) => (PLAIN.has(key) ? plain(value) : percent(value, 1));
    const span = metrics.intervals?.[key] ?? (key === "top1" && metrics.n ? wilson(metrics.top1, metrics.n) : null);
    const floor = key === "ece" && typeof metrics.ece_noise_floor === "number" ? `perfect: ${show(metrics.ece_noise_floor)}` : "";
    return el("tr", {}, el("th", { scope: "row" }, title), el("td", { class: "number" }, show(metrics[key])), el("td", { class: "number" }, span ? `${plain(span[0])}–${show(span[1])}` : floor));
  });
  const head = el("tr", {}, el("th", { scope: "col" }, conditions), el("th", { scope: "col", class: "number" }, "value"), el("th", { scope: "col", class: "number" }, "95 % interval"));
  const parts = [el("div", { class: "scroll" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows)))];
  if (split === "val") parts.push(el("p", { class: "hint" }, "The val split also chose when training stopped, which flatters a little."));
  if (Array.isArray(metrics.confusion)) parts.push(...confusion(metrics.confusion, metrics.labels ?? card.labels));
  return parts;
}

// Wilson's score interval of a share (1927), z = 1.96.
function wilson(share, n) {
  const z2 = 1.96 ** 2;
  const middle = (share + z2 / (2 * n)) / (1 + z2 / n);
  const half = (1.96 * Math.sqrt((share * (1 - share)) / n + z2 / (4 * n * n))) / (1 + z2 / n);
  return [middle - half, middle + half];
}

// A matrix of many labels cannot be read: the commonest mistakes stand for it.
const MAX_MATRIX = 20;

function mistakes(counts, labels) {
  const found = counts.flatMap((row, i) => row.map((count, j) => [labels[i], labels[j], count, count / (row.reduce((sum, n) => sum + n, 0) || 1)]).filter(([, , count], j) => j !== i && count));
  const rows = found.sort((a, b) => b[2] - a[2]).slice(0, MAX_MATRIX).map(([label, said, count, share]) => el("tr", {}, el("th", { scope: "row" }, label), el("td", {}, said), el("td", { class: "number" }, count.toLocaleString("en")), el("td", { class: "number" }, percent(share))));
  const head = el("tr", {}, ...["labelled", "said", "images", "of the label"].map((title, i) => el("th", { scope: "col", class: i > 1 ? "number" : "" }, title)));
  return [el("h3", {}, "Commonest mistakes"), el("div", { class: "scroll" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows)))];
}

function confusion(counts, labels) {
  if (labels.length > MAX_MATRIX) return mistakes(counts, labels);
  const head = el("tr", {}, el("th", {}, "labelled ↓ said →"), ...labels.map((label) => el("th", { scope: "col" }, label)), el("th", { scope: "col" }, "images"));
  const rows = counts.map((row, index) => {
    const total = row.reduce((sum, count) => sum + count, 0);
    const cells = row.map((count) => {
      const share = count / (total || 1);
      const cell = el("td", { title: `${count} of ${total} labelled ${labels[index]}` }, (100 * share).toFixed(0));
      cell.style.background = `color-mix(in srgb, #0072b2 ${Math.round(85 * share)}%, var(--panel))`;
      return cell;
    });
    return el("tr", {}, el("th", { scope: "row" }, labels[index]), ...cells, el("td", {}, total.toLocaleString("en")));
  });
  return [
    el("h3", {}, "Confusion matrix"), el("p", { class: "hint" }, "Per cent of the images with the label at the left. The diagonal is what is named right."),
    el("div", { class: "scroll" }, el("table", { class: "confusion" }, el("thead", {}, head), el("tbody", {}, ...rows))),
  ];
}

// Labels of which more than half are missed, by the first confusion matrix of the card.
function missed(groups, card) {
  const metrics = groups.map(([, found]) => found).find((found) => Array.isArray(found.confusion));
  if (metrics === undefined) return null;
  const shares = metrics.confusion.map((row, index) => [(metrics.labels ?? card.labels)[index], row[index] / row.reduce((sum, count) => sum + count, 0)]);
  const weak = shares.filter(([, share]) => share < 0.5).sort((a, b) => a[1] - b[1]).map(([label, share]) => `${label} (${percent(share)} found)`);
  const more = weak.length > MAX_MATRIX ? `, and ${weak.length - MAX_MATRIX} more` : "";
  return weak.length === 0 ? null : `More often missed than found: ${weak.slice(0, MAX_MATRIX).join(", ")}${more}.`;
}

function limits(card, groups) {
  const items = [
    "It labels the apparent expression in one image. Context, culture and intent are not in the image.",
    missed(groups, card),
    "The figures hold for images like those they were measured on. Other cameras, light, poses, masks and glasses may do worse.",
    "Nothing is known about error rates by age, skin colour or sex unless the card says so. Expect them to be uneven, and measure them before any use.",
    card.trained_on?.name.startsWith("FER2013") ? "FER2013 holds grey faces of 48 pixels from the web; ten later annotators agree with its labels on 62 % of the images." : null,
    card.input.native_px ? `Faces smaller than about ${card.input.native_px} pixels are smaller than what it has learned from.` : null,
  ].filter(Boolean);
  return el("ul", {}, ...items.map((text) => el("li", {}, text)));
}
