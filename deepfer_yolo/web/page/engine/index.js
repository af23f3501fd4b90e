// The engine of the page: a model and a face detector that run in the visitor's browser. No image leaves the device.
// All work is done in a worker, so that the page stays awake; calls wait for each other there.
import { EngineError } from "./errors.js";
import { MAX_PIXELS, readImage } from "./image.js";

export { EngineError, readImage };

/**
 * Fetch and open the model beside the page. `base` is the folder of `model.json`; `progress` is called with a stage
 * ("model", "detector", "runtime", "session"), what is done of it and all of it. More than one of `threads` needs a page
 * that is isolated from other origins; two took half as much processor time again, and on busy cores no less time.
 */
export async function openEngine({ base = new URL("../", import.meta.url).href, progress = () => {}, threads = 1 } = {}) {
  const worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module", name: "deepfer" });
  const calls = new Calls(worker, progress);
  try {
    return new Engine(calls, await calls.call("open", new URL(base, import.meta.url).href, threads));
  } catch (error) {
    calls.close();
    throw error;
  }
}

class Engine {
  #calls;

  constructor(calls, { card, threads, seconds }) {
    this.#calls = calls;
    this.card = card;
    this.labels = card.labels;
    this.hasDetector = card.detector !== null;
    this.threads = threads;
    this.runtime = `${card.runtime.name} ${card.runtime.version}`;
    /** Seconds that creating the sessions took. */
    this.seconds = seconds;
  }

  /** The golden answers that the model's card holds, worked out again here: {passed, worst, tolerance, n}. */
  selfTest() {
    return this.#calls.call("selfTest");
  }

  /**
   * Faces of an image, best first, as {x, y, w, h, score, landmarks}; null where the bundle has no detector. `size` is
   * the largest longer side that is searched.
   */
  async faces(image, { size = this.card.detector?.image_px } = {}) {
    if (!this.hasDetector) return null;
    return this.#calls.call("faces", checked(image), Number(size));
  }

  /** Label and probabilities of each box of an image, or of all of it: [{label, probs, box}]. */
  classify(image, boxes = null) {
    try {
      return this.#calls.call("classify", checked(image), boxes === null ? null : Array.from(boxes, plainBox));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** End the worker; what is still asked of it fails. */
  close() {
    this.#calls.close();
  }
}

/** Questions to the worker, each with its promise. */
class Calls {
  #worker;
  #waiting = new Map();
  #last = 0;

  constructor(worker, progress) {
    this.#worker = worker;
    worker.onmessage = ({ data }) => {
      if (data.progress) return progress(...data.progress);
      const { resolve, reject } = this.#waiting.get(data.id);
      this.#waiting.delete(data.id);
      return data.error === undefined ? resolve(data.value) : reject(new EngineError(data.error));
    };
    worker.onerror = (event) => {
      event.preventDefault?.();
      this.close(`the engine's worker stopped: ${event.message || "its script cannot be loaded"}`);
    };
  }

  call(name, ...given) {
    if (this.#worker === null) return Promise.reject(new EngineError("the engine is closed"));
    return new Promise((resolve, reject) => {
      this.#last += 1;
      this.#waiting.set(this.#last, { resolve, reject });
      this.#worker.postMessage({ id: this.#last, name, given });
    });
  }

  close(reason = "the engine is closed") {
    this.#worker?.terminate();
    this.#worker = null;
    for (const { reject } of this.#waiting.values()) reject(new EngineError(reason));
    this.#waiting.clear();
  }
}

function checked(image) {
  const { width, height, data } = image ?? {};
  const isWhole = Number.isInteger(width) && Number.isInteger(height) && width > 0 && height > 0;
  if (!isWhole || !ArrayBuffer.isView(data) || data.BYTES_PER_ELEMENT !== 1 || data.length !== width * height * 4) {
    throw new EngineError("an image is {width, height, data} with four bytes a pixel, as readImage gives it");
  }
  if (width * height > MAX_PIXELS) {
    throw new EngineError(`${width}×${height} pixels are more than the limit of ${MAX_PIXELS}`);
  }
  return { width, height, data };
}

function plainBox(box) {
  const { x, y, w, h, score, landmarks } = box ?? {};
  return { x: Number(x), y: Number(y), w: Number(w), h: Number(h), score, landmarks };
}
