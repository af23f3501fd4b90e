// A box that the user draws around a face: with a mouse, a finger or the keyboard.
import { el } from "./elements.js";

const LEAST = 16;
const HELP = "Box around a face. Arrow keys move it, with Shift they size it, Enter takes it, Escape leaves it.";

// Lets the user draw on `stage`, which shows an image of `width` × `height` pixels; promises the box {x, y, w, h} in these, or null.
export function markFace(stage, { width, height, isMirrored = false, buttons }) {
  const side = Math.min(width, height) / 2;
  let box = { x: (width - side) / 2, y: (height - side) / 2, w: side, h: side };
  let drag = null;
  const marker = el("div", { class: "marker", role: "application", tabIndex: 0, "aria-label": HELP, "aria-roledescription": "box" });
  const words = el("span", { class: "hidden", "aria-live": "polite" });
  const take = el("button", { type: "button", class: "primary" }, "Label this box");
  const leave = el("button", { type: "button" }, "Cancel");

  const place = () => {
    const shown = shownArea(stage, width, height);
    const left = isMirrored ? width - box.x - box.w : box.x;
    Object.assign(marker.style, { left: `${shown.x + left * shown.scale}px`, top: `${shown.y + box.y * shown.scale}px`, width: `${box.w * shown.scale}px`, height: `${box.h * shown.scale}px` });
  };
  const set = (wanted) => {
    const w = Math.max(LEAST, Math.min(wanted.w, width));
    const h = Math.max(LEAST, Math.min(wanted.h, height));
    box = { x: Math.max(0, Math.min(wanted.x, width - w)), y: Math.max(0, Math.min(wanted.y, height - h)), w, h };
    place();
  };
  const pointOf = (event) => {
    const shown = shownArea(stage, width, height);
    const frame = stage.getBoundingClientRect();
    const x = Math.max(0, Math.min(width, (event.clientX - frame.left - shown.x) / shown.scale));
    return { x: isMirrored ? width - x : x, y: Math.max(0, Math.min(height, (event.clientY - frame.top - shown.y) / shown.scale)) };
  };

  const down = (event) => {
    event.preventDefault();
    stage.setPointerCapture(event.pointerId);
    const at = pointOf(event);
    const frame = marker.getBoundingClientRect();
    const isCorner = Math.hypot(event.clientX - frame.right, event.clientY - frame.bottom) < 24;
    const isInside = event.target === marker && !isCorner;
    // By its corner a box is sized, by its middle moved; anywhere else a new one begins.
    const fixed = isCorner ? { x: isMirrored ? box.x + box.w : box.x, y: box.y } : at;
    drag = isInside ? { dx: at.x - box.x, dy: at.y - box.y } : { fixed };
    marker.focus();
  };
  const move = (event) => {
    if (drag === null) return;
    const at = pointOf(event);
    if (drag.fixed === undefined) set({ ...box, x: at.x - drag.dx, y: at.y - drag.dy });
    else set({ x: Math.min(at.x, drag.fixed.x), y: Math.min(at.y, drag.fixed.y), w: Math.abs(at.x - drag.fixed.x), h: Math.abs(at.y - drag.fixed.y) });
  };
  const up = () => { drag = null; };

  return new Promise((resolve) => {
    const end = (answer) => {
      for (const [name, listener] of Object.entries({ pointerdown: down, pointermove: move, pointerup: up, pointercancel: up })) stage.removeEventListener(name, listener);
      sizes.disconnect();
      stage.classList.remove("marking");
      for (const part of [marker, words, take, leave]) part.remove();
      resolve(answer);
    };
    const press = (event) => {
      const step = Math.max(1, Math.round(Math.min(width, height) / 50)) * (event.ctrlKey ? 5 : 1);
      const across = ((event.key === "ArrowRight") - (event.key === "ArrowLeft")) * step;
      const along = ((event.key === "ArrowDown") - (event.key === "ArrowUp")) * step;
      if (event.key === "Enter") end(box);
      else if (event.key === "Escape") end(null);
      else if (across === 0 && along === 0) return;
      else if (event.shiftKey) set({ ...box, w: box.w + across, h: box.h + along });
      else set({ ...box, x: box.x + (isMirrored ? -across : across), y: box.y + along });
      event.preventDefault();
      words.textContent = `${Math.round(box.w)} by ${Math.round(box.h)} pixels at ${Math.round(box.x)}, ${Math.round(box.y)}`;
    };
    take.addEventListener("click", () => end(box));
    leave.addEventListener("click", () => end(null));
    marker.addEventListener("keydown", press);
    for (const [name, listener] of Object.entries({ pointerdown: down, pointermove: move, pointerup: up, pointercancel: up })) stage.addEventListener(name, listener);
    const sizes = new ResizeObserver(place);
    sizes.observe(stage);
    stage.classList.add("marking");
    stage.append(marker);
    buttons.append(take, leave, words);
    place();
    marker.focus();
  });
}

// Where an image lies in its stage, which may leave bars at two sides of it.
function shownArea(stage, width, height) {
  const frame = stage.getBoundingClientRect();
  const scale = Math.min(frame.width / width, frame.height / height);
  return { x: (frame.width - width * scale) / 2, y: (frame.height - height * scale) / 2, scale };
}
