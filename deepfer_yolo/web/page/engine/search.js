// The one rule by which an image is searched for faces, as deepfer_yolo/faces/search.py: at which sizes, in which
// tiles, and what is a duplicate. Its numbers (`rule`) come from there with the bundle's model.json.
import { planesOf, roundHalfEven } from "./preprocess.js";
import { resized } from "./scale.js";

/** Faces of an image with four bytes a pixel, best first; `look` finds those of a plane image of a tile's size. */
export async function searchFaces(image, size, least, rule, look) {
  const planes = planesOf(image, "rgb");
  const sizes = sizesOf(image.height, image.width, size, rule);
  let found = [];
  for (const [height, width] of sizes) found.push(...(await lookAtSize(planes, height, width, rule, look)));
  if (sizes[0][0] >= image.height) {
    const weak = found.filter(({ box, score }) => score < least && box[2] - box[0] < rule.small_face_px);
    found.push(...(await lookAgain(planes, weak, rule, look)));
  }
  found = found.filter(({ score }) => score >= least).sort((a, b) => b.score - a.score);
  return withoutDuplicates(found).slice(0, rule.max_faces);
}

/** The [height, width] that an image is searched in, largest first. */
function sizesOf(height, width, size, rule) {
  const [longer, shorter] = [Math.max(height, width), Math.min(height, width)];
  const enlarged = Math.max(1, Math.min(rule.small_px / shorter, rule.base_px / longer));
  const largest = Math.min(size, longer * enlarged);
  const steps = Math.log(largest / rule.base_px) / Math.log(rule.step);
  const n = largest <= rule.one_size_px ? 0 : Math.max(1, Math.ceil(steps - 1e-9));
  return Array.from({ length: n + 1 }, (_, i) => {
    const scale = (n === 0 ? largest : largest * (rule.base_px / largest) ** (i / n)) / longer;
    return [Math.max(1, roundHalfEven(height * scale)), Math.max(1, roundHalfEven(width * scale))];
  });
}

/** Start and end of the tiles along one side. */
function tilesOf(length, { tile_px: tile, overlap_px: overlap }) {
  const n = length > tile ? Math.max(1, Math.ceil((length - overlap) / (tile - overlap))) : 1;
  const size = Math.ceil((length + (n - 1) * overlap) / n);
  return Array.from({ length: n }, (_, i) => {
    const start = roundHalfEven((i * (length - size)) / Math.max(1, n - 1));
    return [start, start + size];
  });
}

async function lookAtSize(image, height, width, rule, look) {
  const scaled = resized(image, width, height);
  const ratio = [Math.fround(image.width / width), Math.fround(image.height / height)];
  const found = [];
  for (const [top, bottom] of tilesOf(height, rule)) {
    for (const [left, right] of tilesOf(width, rule)) {
      const faces = await look(part(scaled, left, top, right, bottom));
      const whole = wholeOf(faces, [left, top, right, bottom], [width, height]);
      found.push(...whole.map((face) => placed(face, [left, top], ratio)));
    }
  }
  return found;
}

/** Faces of the enlarged windows around the weak ones; one that lies well inside an earlier window needs none. */
async function lookAgain(image, weak, rule, look) {
  const window = rule.window_px;
  const seen = [];
  const found = [];
  for (const { box } of weak.sort((a, b) => b.score - a.score).slice(0, rule.max_faces)) {
    const centre = [Math.fround(box[0] + box[2]) / 2, Math.fround(box[1] + box[3]) / 2];
    const isNear = ([x, y]) =>
      Math.max(Math.abs(centre[0] - x), Math.abs(centre[1] - y)) < window / 2 - rule.small_face_px;
    if (seen.some(isNear)) continue;
    seen.push(centre);
    const [left, top] = centre.map((value) => Math.max(0, roundHalfEven(value) - window / 2));
    const [right, bottom] = [Math.min(left + window, image.width), Math.min(top + window, image.height)];
    if (right <= left || bottom <= top) continue;
    const [width, height] = [right - left, bottom - top];
    const faces = await look(resized(part(image, left, top, right, bottom), 2 * width, 2 * height));
    const small = faces.map((face) => placed(face, [0, 0], [0.5, 0.5]));
    const whole = wholeOf(small, [left, top, right, bottom], [image.width, image.height]);
    found.push(...whole.map((face) => placed(face, [left, top], [1, 1])));
  }
  return found;
}

/** The faces of a part of an image that its inner edges do not cut: the next tile or size shows those whole. */
function wholeOf(faces, [left, top, right, bottom], [width, height]) {
  const low = [left > 0 ? 1 : -Infinity, top > 0 ? 1 : -Infinity];
  const high = [
    right < width ? right - left - 1 : Infinity,
    bottom < height ? bottom - top - 1 : Infinity,
  ];
  return faces.filter(({ box: [x1, y1, x2, y2] }) => x1 > low[0] && y1 > low[1] && x2 < high[0] && y2 < high[1]);
}

function placed(face, offset, ratio) {
  const move = (value, i) => Math.fround(Math.fround(value + offset[i % 2]) * ratio[i % 2]);
  return { box: face.box.map(move), score: face.score, landmarks: face.landmarks.map(move) };
}

/**
 * The faces, best first, without those that a better one overlaps by 0.3, or that lie in one or around it by 0.7 of the
 * smaller area.
 */
function withoutDuplicates(faces) {
  const areaOf = ([x1, y1, x2, y2]) => (x2 - x1) * (y2 - y1);
  const kept = [];
  for (const face of faces) {
    const area = areaOf(face.box);
    const isNew = kept.every(({ box }) => {
      const across = Math.min(face.box[2], box[2]) - Math.max(face.box[0], box[0]);
      const down = Math.min(face.box[3], box[3]) - Math.max(face.box[1], box[1]);
      const shared = Math.max(0, across) * Math.max(0, down);
      const other = areaOf(box);
      return shared / (area + other - shared) <= 0.3 && shared <= 0.7 * Math.min(area, other);
    });
    if (isNew) kept.push(face);
  }
  return kept;
}

function part(image, left, top, right, bottom) {
  const [width, height] = [right - left, bottom - top];
  if (width === image.width && height === image.height) return image;
  const { channels } = image;
  const data = new Uint8Array(width * height * channels);
  for (let y = 0; y < height; y += 1) {
    const start = ((top + y) * image.width + left) * channels;
    data.set(image.data.subarray(start, start + width * channels), y * width * channels);
  }
  return { width, height, channels, data };
}
