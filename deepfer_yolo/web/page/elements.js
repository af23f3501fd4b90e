// Building blocks: elements, colours, bars, boxes, downloads. Text from outside enters by textContent alone.

// The Okabe–Ito colours, which people with any kind of colour vision can tell apart; every use also bears the label as text.
const COLOURS = {
  angry: "#d55e00", disgust: "#009e73", fear: "#cc79a7", happy: "#e69f00", neutral: "#8a9099", sad: "#0072b2", surprise: "#56b4e9",
  contempt: "#b8a800", uncertain: "#6b7280",
};
const OTHERS = ["#d55e00", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#b8a800", "#8a9099"];

export const $ = (id) => document.getElementById(id);

const others = new Map();

// Labels without a colour of their own get one by their place; first come colours that no emotion among the labels has.
export function knowLabels(labels) {
  const taken = new Set(labels.map((label) => COLOURS[label]));
  const order = [...OTHERS.filter((colour) => !taken.has(colour)), ...OTHERS.filter((colour) => taken.has(colour))];
  labels.filter((label) => !COLOURS[label]).forEach((label, place) => others.set(label, order[place % order.length]));
}

export const colourOf = (label) => COLOURS[label] ?? others.get(label) ?? OTHERS.at(-1);

// A face shows a bar for each label, of many those that are most probable.
const MAX_BARS = 10;

export function el(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name === "class") element.className = value;
    else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name.includes("-") || name === "role" || name === "scope" || name === "for") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const percent = (share, digits = 0) => `${(100 * share).toFixed(digits)}\u00a0%`;

// A label that is held through a short doubt may not be the most probable one: what stands beside it is its own share.
export const caption = (face) => (face.label === "uncertain" ? `uncertain${face.reason ? ` (${face.reason})` : ""}` : `${face.label} ${percent(face.probs[face.label] ?? face.confidence)}`);

// One face: label, confidence, and a bar for each class.
export function faceCard(title) {
  const head = el("h4", {}, el("span", {}, "…"), el("span", {}, title));
  const grid = el("div", { class: "probs" });
  const card = el("article", { class: "face" }, head, grid);
  const rows = new Map();
  card.show = (face) => {
    head.firstChild.textContent = caption(face);
    card.style.borderLeftColor = colourOf(face.label);
    const shares = Object.entries(face.probs);
    const shown = shares.length <= MAX_BARS ? shares : shares.toSorted((a, b) => b[1] - a[1]).slice(0, MAX_BARS);
    if (shown !== shares) {
      grid.replaceChildren();
      rows.clear();
    }
    for (const [label, share] of shown) {
      if (!rows.has(label)) {
        const fill = el("span", { class: "fill" });
        const value = el("span", { class: "share" });
        fill.style.background = colourOf(label);
        grid.append(el("span", {}, label), el("span", { class: "lane", "aria-hidden": "true" }, fill), value);
        rows.set(label, { fill, value });
      }
      const row = rows.get(label);
      row.fill.style.width = `${100 * share}%`;
      row.value.textContent = percent(share);
    }
  };
  return card;
}

// Boxes with labels on a canvas that lies over an image of `width` × `height`. A face's number is the one on its card.
export function drawBoxes(canvas, faces, width, height) {
  const shown = canvas.getBoundingClientRect();
  const density = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(shown.width * density));
  canvas.height = Math.max(1, Math.round(shown.height * density));
  const context = canvas.getContext("2d");
  const scale = Math.min(canvas.width / width, canvas.height / height);
  context.translate((canvas.width - width * scale) / 2, (canvas.height - height * scale) / 2);
  const unit = density * Math.max(0.85, Math.min(1.3, shown.width / 520));
  const boxes = faces.map((face) => { const [x1, y1, x2, y2] = face.box.map((value) => value * scale); return { x: x1, y: y1, w: x2 - x1, h: y2 - y1 }; });
  for (const [index, face] of faces.entries()) drawBox(context, face, boxes[index], unit);
  const taken = [];
  for (const [index, face] of faces.entries()) {
    const words = `${face.track ?? index + 1}  ${caption(face)}`;
    context.font = `600 ${14 * unit}px system-ui, sans-serif`;
    const size = { w: context.measureText(words).width + 12 * unit, h: 22 * unit };
    const place = freePlace(boxes[index], size, taken, boxes, width * scale, height * scale);
    taken.push(place);
    drawLabel(context, face, words, place, unit);
  }
}

function drawBox(context, face, { x, y, w, h }, unit) {
  context.lineWidth = 5 * unit;
  context.strokeStyle = "rgba(0,0,0,.65)";
  context.strokeRect(x, y, w, h);
  context.lineWidth = 2.5 * unit;
  context.strokeStyle = colourOf(face.label);
  context.setLineDash(face.label === "uncertain" ? [6 * unit, 5 * unit] : []);
  context.strokeRect(x, y, w, h);
  context.setLineDash([]);
}

// Above the box, below it, or level with its edges: where the label covers least of other labels and of other faces.
function freePlace(box, size, taken, boxes, width, height) {
  const tops = [box.y - size.h, box.y + box.h, box.y, box.y - 2 * size.h, box.y + box.h + size.h];
  const lefts = [box.x, box.x + box.w - size.w];
  const inside = (value, limit) => Math.max(0, Math.min(value, limit));
  const places = tops.flatMap((top) => lefts.map((left) => ({ x: inside(left, width - size.w), y: inside(top, height - size.h), ...size })));
  const others = boxes.filter((other) => other !== box);
  const cost = (place) => 4 * sum(taken.map((other) => overlap(place, other))) + sum(others.map((other) => overlap(place, other)));
  return places.reduce((best, place) => (cost(place) < cost(best) ? place : best));
}

const sum = (values) => values.reduce((total, value) => total + value, 0);
const overlap = (a, b) => Math.max(0, Math.min(a.x + a.w, b.x + b.w) - Math.max(a.x, b.x)) * Math.max(0, Math.min(a.y + a.h, b.y + b.h) - Math.max(a.y, b.y));

function drawLabel(context, face, words, { x, y, w, h }, unit) {
  context.fillStyle = "rgba(10,12,15,.88)";
  context.fillRect(x, y, w, h);
  context.fillStyle = colourOf(face.label);
  context.fillRect(x, y, 4 * unit, h);
  context.fillStyle = "#fff";
  context.textBaseline = "middle";
  context.fillText(words, x + 8 * unit, y + h / 2 + unit);
}

export function save(name, type, text) {
  const link = el("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

export function csv(rows) {
  const keys = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  // A leading = + - @ would be a formula to a spreadsheet.
  const cell = (value) => {
    const text = String(value ?? "");
    const safe = typeof value === "string" && /^[=+\-@\t]/.test(text) ? `'${text}` : text;
    return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  return [keys, ...rows.map((row) => keys.map((key) => row[key]))].map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
}

export function flatFace(face) {
  const [x1, y1, x2, y2] = face.box;
  const probs = Object.fromEntries(Object.entries(face.probs).map(([label, share]) => [`p_${label}`, share]));
  return { label: face.label, confidence: face.confidence, x1, y1, x2, y2, score: face.score, ...probs };
}

// Two buttons that save `rows()` as CSV and `all()` as JSON.
export function saveButtons(place, name, all, rows) {
  place.replaceChildren(
    el("button", { type: "button", onclick: () => save(`${name}.json`, "application/json", JSON.stringify(all(), null, 1)) }, "Download JSON"),
    el("button", { type: "button", onclick: () => save(`${name}.csv`, "text/csv", csv(rows())) }, "Download CSV"),
  );
}

export async function ask(path, options) {
  const answer = await fetch(path, options).catch(() => null);
  if (answer === null) throw new Error("The server does not answer. Is it still running?");
  const body = await answer.json().catch(() => ({ detail: `${answer.status} ${answer.statusText}` }));
  if (!answer.ok) {
    const error = new Error(body.detail ?? answer.statusText);
    error.status = answer.status;
    error.body = body;
    error.retryAfter = Number(answer.headers.get("retry-after")) || 1;
    throw error;
  }
  return body;
}

// The colours of the system, until the button says otherwise.
export function startTheme() {
  const set = (dark) => {
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    $("theme").textContent = dark ? "Light" : "Dark";
    $("theme").setAttribute("aria-label", dark ? "Use light colours" : "Use dark colours");
  };
  const wanted = window.matchMedia("(prefers-color-scheme: dark)");
  set(wanted.matches);
  wanted.addEventListener("change", () => set(wanted.matches));
  $("theme").addEventListener("click", () => set(document.documentElement.dataset.theme !== "dark"));
}

// The tabs, by click and arrow keys; the address says which one is open, and so does an event `tab` of the document.
export function startTabs() {
  const tabs = [...document.querySelectorAll('[role="tab"]')];
  const select = (tab, focus = false) => {
    for (const other of tabs) {
      const chosen = other === tab;
      other.setAttribute("aria-selected", chosen);
      other.tabIndex = chosen ? 0 : -1;
      $(other.getAttribute("aria-controls")).hidden = !chosen;
    }
    if (focus) tab.focus();
    history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`);
    document.dispatchEvent(new CustomEvent("tab", { detail: tab.getAttribute("aria-controls") }));
  };
  for (const tab of tabs) {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", (event) => {
      const shown = tabs.filter((other) => !other.hidden);
      const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -shown.indexOf(tab), End: shown.length - 1 - shown.indexOf(tab) };
      if (!(event.key in steps)) return;
      event.preventDefault();
      select(shown[(shown.indexOf(tab) + steps[event.key] + shown.length) % shown.length], true);
    });
  }
  // The tab that the address asks for, once it is known which ones there are.
  return () => {
    const asked = tabs.find((tab) => `#${tab.getAttribute("aria-controls")}` === location.hash && !tab.hidden);
    if (asked) select(asked);
  };
}
