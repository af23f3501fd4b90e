// How a face becomes the crop that a model looks at, as deepfer_yolo/faces/align.py and OpenCV do it.
import { EngineError } from "./errors.js";

export function cutFace() {
  throw new EngineError("boxes are not classified yet");
}
