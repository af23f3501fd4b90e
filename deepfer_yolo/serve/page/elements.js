// Building blocks: elements, colours, bars, boxes, downloads. Text from outside enters by textContent alone.

// The Okabe–Ito colours, which people with any kind of colour vision can tell apart; every use also bears the label as text.
const COLOURS = {
  angry: "#d55e00", disgust: "#009e73", fear: "#cc79a7", happy: "#e69f00", neutral: "#8a9099", sad: "#0072b2", surprise: "#56b4e9",
  contempt: "#b8a800", uncertain: "#6b7280",
};
const OTHERS = ["#d55e00", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#b8a800", "#8a9099"];

export const $ = (id) => document.getElementById(id);

export function colourOf(label) {
  if (COLOURS[label]) return COLOURS[label];
  let sum = 0;
  for (const letter of label) sum += letter.codePointAt(0);
  return OTHERS[sum % OTHERS.length];
}

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
export const caption = (face) => (face.label === "uncertain" ? "uncertain" : `${face.label} ${percent(face.probs[face.label] ?? face.confidence)}`);

// One face: label, confidence, and a bar for each class.
export function faceCard(title) {
  const head = el("h4", {}, el("span", {}, "…"), el("span", {}, title));
  const grid = el("div", { class: "probs" });
  const card = el("article", { class: "face" }, head, grid);
  const rows = new Map();
  card.show = (face) => {
    head.firstChild.textContent = caption(face);
    card.style.borderLeftColor = colourOf(face.label);
    for (const [label, share] of Object.entries(face.probs)) {
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

// Boxes with labels on a canvas that lies over a picture of `width` × `height`.
export function drawBoxes(canvas, faces, width, height) {
  const shown = canvas.getBoundingClientRect();
  const density = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(shown.width * density));
  canvas.height = Math.max(1, Math.round(shown.height * density));
  const context = canvas.getContext("2d");
  const scale = Math.min(canvas.width / width, canvas.height / height);
  context.translate((canvas.width - width * scale) / 2, (canvas.height - height * scale) / 2);
  const unit = density * Math.max(1, Math.min(1.4, shown.width / 480));
  for (const face of faces) {
    const [x1, y1, x2, y2] = face.box.map((value) => value * scale);
    drawBox(context, face, [x1, y1, x2 - x1, y2 - y1], unit, width * scale);
  }
}

function drawBox(context, face, [x, y, w, h], unit, right) {
  context.lineWidth = 5 * unit;
  context.strokeStyle = "rgba(0,0,0,.65)";
  context.strokeRect(x, y, w, h);
  context.lineWidth = 2.5 * unit;
  context.strokeStyle = colourOf(face.label);
  context.setLineDash(face.label === "uncertain" ? [6 * unit, 5 * unit] : []);
  context.strokeRect(x, y, w, h);
  context.setLineDash([]);
  const words = caption(face);
  context.font = `600 ${14 * unit}px system-ui, sans-serif`;
  const [wide, high] = [context.measureText(words).width + 12 * unit, 22 * unit];
  const left = Math.max(0, Math.min(x - 2.5 * unit, right - wide));
  const top = y >= high ? y - high : y;
  context.fillStyle = "rgba(10,12,15,.88)";
  context.fillRect(left, top, wide, high);
  context.fillStyle = colourOf(face.label);
  context.fillRect(left, top, 4 * unit, high);
  context.fillStyle = "#fff";
  context.textBaseline = "middle";
  context.fillText(words, left + 8 * unit, top + high / 2 + unit);
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
  return { label: face.label, confidence: face.confidence, x1, y1, x2, y2, ...probs };
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
