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
  const context = new OffscreenCanvas(width, rows).getContext("2d", { willReadFrequently: true });
  for (let top = 0; top < height; top += rows) {
    context.clearRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, -top);
    data.set(context.getImageData(0, 0, width, Math.min(rows, height - top)).data, top * width * 4);
  }
  for (let at = 3; at < data.length; at += 4) if (data[at] !== 255) return { width, height, data: stored(bitmap, data) };
  return { width, height, data };
}

/**
 * The same with the colours of transparent pixels as the file has them: a canvas keeps them multiplied by alpha, the
 * textures of WebGL do not.
 */
function stored(bitmap, data) {
  const { width, height } = bitmap;
  const gl = new OffscreenCanvas(1, 1).getContext("webgl");
  if (gl === null || Math.max(width, height) > gl.getParameter(gl.MAX_TEXTURE_SIZE)) {
    throw new EngineError(`this browser cannot read ${width}×${height} pixels with transparency; save them without it`);
  }
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, gl.getParameter(gl.TEXTURE_BINDING_2D), 0);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(data.buffer));
  const error = gl.getError();
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  if (error !== gl.NO_ERROR) throw new EngineError(`WebGL cannot read the image's transparency (error ${error})`);
  return data;
}
