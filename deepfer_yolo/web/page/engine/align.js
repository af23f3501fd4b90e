// How a face becomes the crop that a model looks at, as deepfer_yolo/faces/align.py and OpenCV 4 do it.
import { EngineError } from "./errors.js";
import { roundHalfEven } from "./preprocess.js";

const MIN_SIDE_PX = 8;
const MAX_SHARE = 1.5;

/**
 * The square around a face, four bytes a pixel, at its native scale, upright by the eyes where `spec` says so and the
 * box tells where they are. What lies outside the image repeats its border.
 */
export function cutFace(image, box, spec) {
  check(box, image);
  const right = box.x + box.w;
  const bottom = box.y + box.h;
  const length = spec.reference === "width" ? right - box.x : Math.max(right - box.x, bottom - box.y);
  const x = (box.x + right) / 2 + spec.shift_x * length;
  const y = (box.y + bottom) / 2 + spec.shift_y * length;
  const size = Math.max(MIN_SIDE_PX, roundHalfEven(length * (1 + 2 * spec.margin)));
  const angle = spec.alignment === "eyes" ? eyeAngle(box.landmarks) : 0;
  if (Math.abs(angle) >= 1) return turned(image, x, y, size, angle);
  return slice(image, roundHalfEven(x - size / 2), roundHalfEven(y - size / 2), size);
}

function check({ x, y, w, h, landmarks }, image) {
  const words = `${[x, y, w, h].map((value) => Math.round(value * 10) / 10).join(", ")}`;
  if (![x, y, w, h].every(Number.isFinite) || w <= 0 || h <= 0) throw new EngineError(`no box of a face: ${words}`);
  if (x >= image.width || y >= image.height || x + w <= 0 || y + h <= 0) {
    throw new EngineError(`the box lies outside the image: ${words} in ${image.width}×${image.height}`);
  }
  if (Math.max(w, h) > MAX_SHARE * Math.max(image.width, image.height)) {
    throw new EngineError(`the box is larger than the image: ${words} in ${image.width}×${image.height}`);
  }
  const isKnown = landmarks === undefined || landmarks === null;
  if (!isKnown && !(landmarks.length === 10 && Array.from(landmarks).every(Number.isFinite))) {
    throw new EngineError("landmarks are ten numbers: x and y of eyes, nose and corners of the mouth");
  }
}

/** The tilt of the eye line in degrees, clockwise positive; 0 without landmarks or with one eye above the other. */
function eyeAngle(landmarks) {
  if (!landmarks) return 0;
  const [ax, ay, bx, by] = landmarks;
  const angle = ax <= bx ? Math.atan2(by - ay, bx - ax) : Math.atan2(ay - by, ax - bx);
  const degrees = (angle * 180) / Math.PI;
  return Math.abs(degrees) <= 60 ? degrees : 0;
}

function slice(image, left, top, size) {
  const data = new Uint8ClampedArray(size * size * 4);
  for (let y = 0, to = 0; y < size; y += 1) {
    const row = clamp(top + y, image.height) * image.width;
    for (let x = 0; x < size; x += 1, to += 4) {
      const from = (row + clamp(left + x, image.width)) * 4;
      for (let i = 0; i < 4; i += 1) data[to + i] = image.data[from + i];
    }
  }
  return { width: size, height: size, data };
}

/**
 * OpenCV's getRotationMatrix2D and warpAffine, linear, to the bit: positions in whole 1/32 of a pixel, which come from
 * sums of whole 1/1024; the centre passes through a float of 32 bits.
 */
function turned(image, centreX, centreY, size, degrees) {
  const cos = Math.cos((degrees * Math.PI) / 180);
  const sin = Math.sin((degrees * Math.PI) / 180);
  const [x32, y32] = [Math.fround(centreX), Math.fround(centreY)];
  const shiftX = (1 - cos) * x32 - sin * y32 + (size / 2 - centreX);
  const shiftY = sin * x32 + (1 - cos) * y32 + (size / 2 - centreY);
  const scale = 1 / (cos * cos + sin * sin);
  const [a, b, c, d] = [cos * scale, -sin * scale, sin * scale, cos * scale];
  const backX = -a * shiftX - b * shiftY;
  const backY = -c * shiftX - d * shiftY;
  const { width, height, data } = image;
  const out = new Uint8ClampedArray(size * size * 4);
  for (let y = 0, to = 0; y < size; y += 1) {
    const startX = roundHalfEven((b * y + backX) * 1024) + 16;
    const startY = roundHalfEven((d * y + backY) * 1024) + 16;
    for (let x = 0; x < size; x += 1, to += 4) {
      const fineX = (startX + roundHalfEven(a * x * 1024)) >> 5;
      const fineY = (startY + roundHalfEven(c * x * 1024)) >> 5;
      const [left, top, right, low] = [fineX >> 5, fineY >> 5, fineX & 31, fineY & 31];
      const above = clamp(top, height) * width;
      const below = clamp(top + 1, height) * width;
      const [x0, x1] = [clamp(left, width), clamp(left + 1, width)];
      const [p, q, r, s] = [(above + x0) * 4, (above + x1) * 4, (below + x0) * 4, (below + x1) * 4];
      for (let i = 0; i < 3; i += 1) {
        const upper = (32 - right) * data[p + i] + right * data[q + i];
        const lower = (32 - right) * data[r + i] + right * data[s + i];
        out[to + i] = ((32 - low) * upper + low * lower + 512) >> 10;
      }
      out[to + 3] = 255;
    }
  }
  return { width: size, height: size, data: out };
}

function clamp(at, size) {
  return at < 0 ? 0 : at >= size ? size - 1 : at;
}
