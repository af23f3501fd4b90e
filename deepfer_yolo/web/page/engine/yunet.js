// YuNet's answers to faces, as OpenCV's FaceDetectorYN gives them.

const STRIDES = [8, 16, 32];
const DIVISOR = 32;
const MOST_OVERLAP = 0.3;

/** Faces of a plane image of three channels that score `least` or more: [{box: [left, top, right, bottom], …}]. */
export async function look({ ort, detector }, image, least, most) {
  const width = Math.ceil(image.width / DIVISOR) * DIVISOR;
  const height = Math.ceil(image.height / DIVISOR) * DIVISOR;
  const input = new ort.Tensor("float32", blueFirst(image, width, height), [1, 3, height, width]);
  const said = await detector.run({ [detector.inputNames[0]]: input });
  const faces = [];
  for (const stride of STRIDES) {
    const [cls, obj, bbox, kps] = ["cls", "obj", "bbox", "kps"].map((kind) => said[`${kind}_${stride}`].data);
    const columns = width / stride;
    for (let i = 0; i < cls.length; i += 1) {
      const score = Math.fround(Math.sqrt(Math.fround(inUnit(cls[i]) * inUnit(obj[i]))));
      if (!(score > least)) continue;
      const [column, row] = [i % columns, Math.floor(i / columns)];
      const x = (column + bbox[i * 4]) * stride;
      const y = (row + bbox[i * 4 + 1]) * stride;
      const w = Math.fround(Math.exp(bbox[i * 4 + 2]) * stride);
      const h = Math.fround(Math.exp(bbox[i * 4 + 3]) * stride);
      const [left, top] = [Math.fround(x - w / 2), Math.fround(y - h / 2)];
      const landmarks = Array.from({ length: 10 }, (_, k) =>
        Math.fround((kps[i * 10 + k] + (k % 2 === 0 ? column : row)) * stride),
      );
      faces.push({ box: [left, top, Math.fround(left + w), Math.fround(top + h)], size: [w, h], score, landmarks });
    }
  }
  const kept = withoutOverlaps(faces.sort((a, b) => b.score - a.score).slice(0, most));
  return kept.filter(({ size, box, landmarks }) => size.every((v) => v > 0) && [...box, ...landmarks].every(Number.isFinite));
}

/** Planes blue, green, red as floats, zeros below and to the right. */
function blueFirst(image, width, height) {
  const plane = width * height;
  const out = new Float32Array(3 * plane);
  for (let y = 0, from = 0; y < image.height; y += 1) {
    for (let x = 0, to = y * width; x < image.width; x += 1, from += 3, to += 1) {
      out[to] = image.data[from + 2];
      out[plane + to] = image.data[from + 1];
      out[2 * plane + to] = image.data[from];
    }
  }
  return out;
}

/** Best first, each that overlaps a better one by no more than `MOST_OVERLAP`; boxes are compared in whole pixels. */
function withoutOverlaps(faces) {
  const kept = [];
  for (const face of faces) {
    const [x, y, w, h] = [...face.box.slice(0, 2), ...face.size].map(Math.trunc);
    const isNew = kept.every(({ whole: [u, v, width, height] }) => {
      const across = Math.min(x + w, u + width) - Math.max(x, u);
      const down = Math.min(y + h, v + height) - Math.max(y, v);
      const shared = across > 0 && down > 0 ? across * down : 0;
      const all = w * h + width * height - shared;
      return all <= 0 || Math.fround(shared / all) <= Math.fround(MOST_OVERLAP);
    });
    if (isNew) kept.push({ ...face, whole: [x, y, w, h] });
  }
  return kept;
}

function inUnit(value) {
  return Math.min(Math.max(value, 0), 1);
}
