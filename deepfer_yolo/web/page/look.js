// The engine looks at images, here in the browser; its answers have the form that the server's have.
import { readImage } from "./engine/index.js";

const FRAME_PX = 320; // the longer side that is searched for faces in a camera's image; of a photo the engine's own limit
const SAME_FACE = 0.3;

const round = (value, digits) => Number(value.toFixed(digits));
const cornersOf = ({ x, y, w, h }) => [x, y, x + w, y + h].map((value) => round(value, 2));

export async function labelFaces(engine, image, faces) {
  if (faces !== null && faces.length === 0) return [];
  const answers = await engine.classify(image, faces);
  const whole = [{ x: 0, y: 0, w: image.width, h: image.height, score: 1 }];
  return (faces ?? whole).map((face, index) => {
    const { label, probs } = answers[index];
    const shares = Array.from(probs);
    return { box: cornersOf(face), score: round(face.score ?? 1, 4), label, confidence: Math.max(...shares), probs: Object.fromEntries(engine.card.labels.map((name, k) => [name, shares[k]])) };
  });
}

// One image file to a row: its size and its labelled faces, or why it cannot be read.
export async function labelFile(engine, file, findFaces) {
  const image = await readImage(file).catch((error) => error);
  if (image instanceof Error) return { name: file.name, error: `Not labelled: ${image.message}` };
  const faces = findFaces && engine.hasDetector ? await engine.faces(image) : null;
  return { name: file.name, width: image.width, height: image.height, faces: await labelFaces(engine, image, faces) };
}

// Who looks at the camera's images: `drawn()` is the box that the user drew, if any, which then stands for all faces.
export function openLooker(engine, drawn) {
  const began = performance.now();
  let known = [];
  let count = 0;

  async function look(canvas) {
    const image = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const box = drawn();
    const faces = box !== null ? [box] : engine.hasDetector ? await engine.faces(image, { size: FRAME_PX }) : null;
    const labelled = await labelFaces(engine, image, faces);
    known = numbered(labelled, known, () => ++count);
    return { time_s: round((performance.now() - began) / 1000, 3), width: image.width, height: image.height, faces: known };
  }

  return { look, close: () => {} };
}

// A face keeps the number of the face whose place it takes; the answers themselves are of this image alone.
function numbered(faces, before, next) {
  const pairs = faces.flatMap((face) => before.map((old) => ({ face, old, share: overlap(face.box, old.box) })));
  const numbers = new Map();
  const taken = new Set();
  for (const { face, old, share } of pairs.sort((a, b) => b.share - a.share)) {
    if (share < SAME_FACE || numbers.has(face) || taken.has(old)) continue;
    numbers.set(face, old.track);
    taken.add(old);
  }
  return faces.map((face) => ({ track: numbers.get(face) ?? next(), ...face }));
}

// Intersection over union of two boxes.
function overlap(a, b) {
  const [w, h] = [Math.min(a[2], b[2]) - Math.max(a[0], b[0]), Math.min(a[3], b[3]) - Math.max(a[1], b[1])];
  if (w <= 0 || h <= 0) return 0;
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return (w * h) / (area(a) + area(b) - w * h);
}
