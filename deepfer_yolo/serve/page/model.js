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
  parts.push(el("h3", {}, "Intended use"), el("p", {}, card.intended_use), el("h3", {}, "Limits"), limits(card));
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
  const conditions = [metrics.dataset?.name ?? metrics.dataset, name && `split ${name}`, metrics.n && `n = ${metrics.n}`].filter(Boolean).join(", ");
  const rows = Object.entries(NAMES).filter(([key]) => typeof metrics[key] === "number").map(([key, title]) => {
    const show = (value) => (PLAIN.has(key) ? value.toFixed(3) : percent(value, 1));
    const span = metrics.intervals?.[key] ?? (key === "top1" && metrics.n ? wilson(metrics.top1, metrics.n) : null);
    return el("tr", {}, el("th", { scope: "row" }, title), el("td", { class: "number" }, show(metrics[key])), el("td", { class: "number" }, span ? `${show(span[0])} to ${show(span[1])}` : ""));
  });
  const head = el("tr", {}, el("th", { scope: "col" }, conditions), el("th", { scope: "col", class: "number" }, "value"), el("th", { scope: "col", class: "number" }, "95 % interval"));
  const parts = [el("div", { class: "scroll" }, el("table", {}, el("thead", {}, head), el("tbody", {}, ...rows)))];
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

function confusion(counts, labels) {
  const head = el("tr", {}, el("th", {}, "labelled ↓ said →"), ...labels.map((label) => el("th", { scope: "col" }, label)));
  const rows = counts.map((row, index) => {
    const total = row.reduce((sum, count) => sum + count, 0) || 1;
    return el("tr", {}, el("th", { scope: "row" }, labels[index]), ...row.map((count) => {
      const cell = el("td", { title: `${count} of ${total}` }, (100 * (count / total)).toFixed(0));
      cell.style.background = `color-mix(in srgb, #0072b2 ${Math.round(85 * (count / total))}%, var(--panel))`;
      if (count / total > 0.45) cell.style.color = "#fff";
      return cell;
    }));
  });
  return [
    el("h3", {}, "Confusion matrix"), el("p", { class: "hint" }, "Per cent of the pictures with the label at the left."),
    el("div", { class: "scroll" }, el("table", { class: "confusion" }, el("thead", {}, head), el("tbody", {}, ...rows))),
  ];
}

function limits(card) {
  const items = [
    "It labels the apparent expression in one picture. Context, culture and intent are not in the picture.",
    "Posed, frontal, well-lit faces are labelled best; profiles, masks, strong shadow and very small faces worst.",
    "Public data sets are unbalanced in age, skin colour and sex; expect uneven error rates, and measure them before any use.",
    card.labels.length === 7 ? "Rare expressions, disgust and fear above all, are often taken for others." : null,
  ].filter(Boolean);
  return el("ul", {}, ...items.map((text) => el("li", {}, text)));
}
