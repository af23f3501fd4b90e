// The worker behind index.js: it holds onnxruntime and the sessions, and answers one call after the other.
import { cutFace } from "./align.js";
import { EngineError } from "./errors.js";
import { toInput } from "./preprocess.js";
import { searchFaces } from "./search.js";
import { look } from "./yunet.js";

const MOST_AT_ONCE = 64;

let engine = null;
let queue = Promise.resolve();

self.onmessage = ({ data: { id, name, given } }) => {
  queue = queue.then(async () => {
    try {
      self.postMessage({ id, value: await CALLS[name](...given) });
    } catch (error) {
      self.postMessage({ id, error: error instanceof EngineError ? error.message : `${name} failed: ${error.message}` });
    }
  });
};

const CALLS = {
  async open(base, threads) {
    const card = JSON.parse(new TextDecoder().decode(await fetched(new URL("model.json", base))));
    const model = await fetched(new URL(card.model.file, base), "model", card.model.bytes);
    const golden = await fetched(new URL(card.golden.inputs, base));
    const finder = card.detector && (await fetched(new URL(card.detector.file, base), "detector", card.detector.bytes));
    const ort = await runtimeAt(base, card.runtime.bytes, threads);
    const count = finder ? 2 : 1;
    tell("session", 0, count);
    const started = performance.now();
    const session = await sessionOf(ort, model, "model");
    tell("session", 1, count);
    const detector = finder && (await sessionOf(ort, finder, "face detector"));
    tell("session", count, count);
    engine = { ort, card, session, detector, golden };
    return { card, threads: ort.env.wasm.numThreads, seconds: (performance.now() - started) / 1000 };
  },

  async selfTest() {
    const { golden, labels, input } = engine.card;
    const bytes = input.size * input.size * 3;
    if (engine.golden.length !== golden.n * bytes) throw new EngineError("the golden inputs are not whole");
    const rows = await answers(engine.golden, golden.n);
    let worst = 0;
    let changed = 0;
    rows.forEach((probs, row) => {
      const expected = golden.probs[row];
      for (let i = 0; i < labels.length; i += 1) {
        const difference = Math.abs(probs[i] - expected[i]);
        if (!(difference <= worst)) worst = difference; // NaN is the worst
      }
      const [first, second] = [...expected].sort((a, b) => b - a);
      if (first - second > golden.tolerance && topOf(probs) !== topOf(expected)) changed += 1;
    });
    const passed = worst <= golden.tolerance && !(golden.same_label && changed > 0);
    return { passed, worst, tolerance: golden.tolerance, n: golden.n };
  },

  async faces(image, size) {
    const { search, min_score: least, max_candidates: most } = engine.card.detector;
    if (!(size >= 32)) throw new EngineError("the size that is searched is 32 pixels or more");
    const found = await searchFaces(image, size, least, search, (part) => look(engine, part, search.weak_score, most));
    return found.map(({ box, score, landmarks }) => {
      const [left, top, right, bottom] = box;
      return { x: left, y: top, w: right - left, h: bottom - top, score, landmarks };
    });
  },

  async classify(image, boxes) {
    const { input, crop, labels } = engine.card;
    const bytes = input.size * input.size * 3;
    const wanted = boxes ?? [null];
    const inputs = new Uint8Array(wanted.length * bytes);
    wanted.forEach((box, i) => {
      const part = box === null ? image : cutFace(image, box, crop);
      toInput(part, input, inputs.subarray(i * bytes, (i + 1) * bytes));
    });
    const rows = await answers(inputs, wanted.length);
    return rows.map((probs, i) => ({ label: labels[topOf(probs)], probs, box: wanted[i] }));
  },
};

/** Probabilities, one Float32Array each, for `n` inputs. */
async function answers(inputs, n) {
  const { card, ort, session } = engine;
  const { size } = card.input;
  const bytes = size * size * 3;
  const together = card.model.batch ?? MOST_AT_ONCE;
  const rows = [];
  for (let start = 0; start < n; start += together) {
    const count = Math.min(together, n - start);
    const batch = new Uint8Array((card.model.batch ?? count) * bytes);
    batch.set(inputs.subarray(start * bytes, (start + count) * bytes));
    const tensor = new ort.Tensor("uint8", batch, [batch.length / bytes, size, size, 3]);
    const said = (await session.run({ [card.model.input]: tensor }))[card.model.output].data;
    const width = card.labels.length;
    for (let i = 0; i < count; i += 1) rows.push(Float32Array.from(said.subarray(i * width, (i + 1) * width)));
  }
  if (rows.some((probs) => !probs.every(Number.isFinite))) {
    throw new EngineError("the model answers with no numbers: its file is damaged");
  }
  return rows;
}

function topOf(probs) {
  let top = 0;
  for (let i = 1; i < probs.length; i += 1) if (probs[i] > probs[top]) top = i;
  return top;
}

async function sessionOf(ort, bytes, what) {
  try {
    return await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"], logSeverityLevel: 3 });
  } catch (error) {
    throw new EngineError(`the ${what} cannot be opened: ${String(error.message ?? error).split("\n")[0]}`);
  }
}

/** onnxruntime with its WebAssembly; one thread where the page is not isolated from other origins. */
async function runtimeAt(base, total, threads) {
  const packed = await fetched(new URL("onnxruntime/ort-wasm-simd-threaded.wasm.gz", base), "runtime", total);
  let ort;
  try {
    ort = await import(new URL("onnxruntime/ort.wasm.min.js", base).href);
  } catch (error) {
    throw new EngineError(`onnxruntime cannot be loaded: ${error.message}`);
  }
  ort.env.wasm.wasmBinary = await unpacked(packed);
  ort.env.wasm.wasmPaths = { mjs: new URL("onnxruntime/ort-wasm-simd-threaded.js", base).href };
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(threads, navigator.hardwareConcurrency) : 1;
  ort.env.logLevel = "error";
  return ort;
}

/** The bytes themselves; a host that declares the file as compressed has had the browser unpack it already. */
async function unpacked(bytes) {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes.buffer;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

/** The bytes of a file; with a stage told as they come. */
async function fetched(url, stage = null, total = 0) {
  const name = url.pathname.split("/").pop();
  let response;
  try {
    response = await fetch(url);
  } catch (error) {
    throw new EngineError(`${name} cannot be fetched: ${error.message}`);
  }
  if (!response.ok) throw new EngineError(`${name} cannot be fetched: the server answers ${response.status}`);
  if (stage === null) return new Uint8Array(await response.arrayBuffer());
  const parts = [];
  let done = 0;
  tell(stage, 0, total);
  const reader = response.body.getReader();
  for (let next = await reader.read(); !next.done; next = await reader.read()) {
    parts.push(next.value);
    done += next.value.length;
    tell(stage, Math.min(done, total), total);
  }
  tell(stage, total, total);
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

function tell(...progress) {
  self.postMessage({ progress });
}
