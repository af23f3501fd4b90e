// OpenCV's resize of 8-bit images by area and linear, to the bit; a plane image as in preprocess.js.
// The detector looks at images that are made so; what the model looks at is resized as Pillow does.
import { roundHalfEven } from "./preprocess.js";

const { fround } = Math;

/** Smaller by area, larger by linear interpolation, as deepfer_yolo/faces/search.py asks OpenCV for. */
export function resized(image, width, height) {
  if (width === image.width && height === image.height) return image;
  if (width > image.width || height > image.height) return linear(image, width, height);
  const isWhole = image.width % width === 0 && image.height % height === 0;
  return isWhole ? means(image, width, height) : areas(image, width, height);
}

/** Means of whole blocks. */
function means(image, width, height) {
  const { channels, data } = image;
  const length = image.width * channels;
  const [across, down] = [image.width / width, image.height / height];
  const out = new Uint8Array(width * height * channels);
  const share = fround(1 / (across * down));
  for (let y = 0, to = 0; y < height; y += 1) {
    for (let x = 0; x < width; x += 1) {
      for (let c = 0; c < channels; c += 1, to += 1) {
        let sum = 0;
        for (let v = 0; v < down; v += 1) {
          let from = (y * down + v) * length + x * across * channels + c;
          for (let u = 0; u < across; u += 1, from += channels) sum += data[from];
        }
        out[to] = across === 2 && down === 2 ? (sum + 2) >> 2 : roundHalfEven(fround(sum * share));
      }
    }
  }
  return { width, height, channels, data: out };
}

/** Means of areas with parts of pixels at their edges; all sums are 32-bit floats, as OpenCV's are. */
function areas(image, width, height) {
  const { channels, data } = image;
  const length = width * channels;
  const { firsts, places, shares } = sharesOf(image.width, width);
  const rows = sharesOf(image.height, height);
  const out = new Uint8Array(length * height);
  const row = new Float32Array(length);
  const sums = new Float32Array(length);
  for (let y = 0; y < height; y += 1) {
    sums.fill(0);
    for (let j = rows.firsts[y]; j < rows.firsts[y + 1]; j += 1) {
      const start = rows.places[j] * image.width * channels;
      const weight = rows.shares[j];
      row.fill(0);
      for (let x = 0; x < width; x += 1) {
        for (let i = firsts[x]; i < firsts[x + 1]; i += 1) {
          const from = start + places[i] * channels;
          for (let c = 0; c < channels; c += 1) row[x * channels + c] += fround(data[from + c] * shares[i]);
        }
      }
      for (let i = 0; i < length; i += 1) sums[i] += fround(row[i] * weight);
    }
    for (let i = 0, to = y * length; i < length; i += 1, to += 1) out[to] = roundHalfEven(sums[i]);
  }
  return { width, height, channels, data: out };
}

/** Which positions each new one covers, and by what share: those of new position i from firsts[i] to firsts[i + 1]. */
function sharesOf(size, newSize) {
  const scale = 1 / (newSize / size);
  const firsts = new Int32Array(newSize + 1);
  const [places, shares] = [[], []];
  for (let i = 0; i < newSize; i += 1) {
    const start = i * scale;
    const end = start + scale;
    const cell = Math.min(scale, size - start);
    const lastWhole = Math.min(Math.floor(end), size - 1);
    const firstWhole = Math.min(Math.ceil(start), lastWhole);
    if (firstWhole - start > 1e-3) {
      places.push(firstWhole - 1);
      shares.push((firstWhole - start) / cell);
    }
    for (let at = firstWhole; at < lastWhole; at += 1) {
      places.push(at);
      shares.push(1 / cell);
    }
    if (end - lastWhole > 1e-3) {
      places.push(lastWhole);
      shares.push(Math.min(end - lastWhole, 1, cell) / cell);
    }
    firsts[i + 1] = places.length;
  }
  return { firsts, places: Int32Array.from(places), shares: Float32Array.from(shares) };
}

/** Linear interpolation with weights of 11 bits; columns stop at the edge, rows repeat it. */
function linear(image, width, height) {
  const { channels, data } = image;
  const length = width * channels;
  const across = stepsOf(image.width, width, true);
  const down = stepsOf(image.height, height, false);
  const out = new Uint8Array(length * height);
  const pair = [new Int32Array(length), new Int32Array(length)];
  const inside = (at, size) => Math.min(Math.max(at, 0), size - 1);
  for (let y = 0; y < height; y += 1) {
    for (let k = 0; k < 2; k += 1) {
      const start = inside(down.places[y] + k, image.height) * image.width * channels;
      for (let x = 0, to = 0; x < width; x += 1) {
        const left = start + across.places[x] * channels;
        const right = start + inside(across.places[x] + 1, image.width) * channels;
        for (let c = 0; c < channels; c += 1, to += 1) {
          pair[k][to] = data[left + c] * across.near[x] + data[right + c] * across.far[x];
        }
      }
    }
    for (let i = 0, to = y * length; i < length; i += 1, to += 1) {
      const upper = ((pair[0][i] >> 4) * down.near[y]) >> 16;
      const lower = ((pair[1][i] >> 4) * down.far[y]) >> 16;
      out[to] = Math.min(255, (upper + lower + 2) >> 2);
    }
  }
  return { width, height, channels, data: out };
}

function stepsOf(size, newSize, stops) {
  const scale = 1 / (newSize / size);
  const [places, near, far] = [new Int32Array(newSize), new Int32Array(newSize), new Int32Array(newSize)];
  for (let i = 0; i < newSize; i += 1) {
    const at = fround((i + 0.5) * scale - 0.5);
    let place = Math.floor(at);
    let rest = fround(at - place);
    if (stops && (place < 0 || place >= size - 1)) {
      place = Math.min(Math.max(place, 0), size - 1);
      rest = 0;
    }
    places[i] = place;
    near[i] = roundHalfEven(fround(1 - rest) * 2048);
    far[i] = roundHalfEven(rest * 2048);
  }
  return { places, near, far };
}
