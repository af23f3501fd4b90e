// From a file to pixels, as deepfer_yolo/data/images.py reads it: upright, no colour management, alpha dropped.
import { EngineError } from "./errors.js";

export const MAX_PIXELS = 50_000_000;
const MAX_BYTES = 200_000_000;
const STRIP_PX = 1 << 20;

/** An image file (Blob), or what createImageBitmap takes else, as {width, height, data}: RGBA, each pixel as stored. */
export async function readImage(source) {
  if (source instanceof Blob && source.size > MAX_BYTES) throw new EngineError("the image is larger than 200 MB");
  let bitmap;
  try {
    // Drawn without colour management, and never scaled: browsers scale each in their own way.
    bitmap = await createImageBitmap(source, { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch (error) {
    throw new EngineError(`the image cannot be read: ${error.message}`);
  }
  try {
    return pixelsOf(bitmap);
  } finally {
    bitmap.close();
  }
}

/** The pixels, drawn one to one strip by strip: canvases have limits that images of phones reach. */
function pixelsOf(bitmap) {
  const { width, height } = bitmap;
  if (width * height > MAX_PIXELS) {
    throw new EngineError(`${width}×${height} pixels are more than the limit of ${MAX_PIXELS}`);
  }
  const data = new Uint8ClampedArray(width * height * 4);
  const rows = Math.max(1, Math.min(height, Math.floor(STRIP_PX / width)));
  const canvas = new OffscreenCanvas(width, rows);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let top = 0; top < height; top += rows) {
    context.clearRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, -top);
    const count = Math.min(rows, height - top);
    data.set(context.getImageData(0, 0, width, count).data, top * width * 4);
  }
  return { width, height, data };
}
