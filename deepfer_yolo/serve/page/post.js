// The server labels images and watches videos, by REST.
import { $, ask } from "./elements.js";
import { videoCard } from "./video.js";

// A row for each image; what cannot be read has an `error`.
export function label(files, findFaces) {
  const form = new FormData();
  for (const file of files) form.append("files", file, file.name);
  return post(`v1/predict?faces=${findFaces}`, form).then(
    (answer) => answer.pictures,
    (error) => error.body?.pictures ?? files.map((file) => ({ name: file.name, error: error.message })),
  );
}

// What was seen in a video, and its card.
export async function watch(file) {
  const form = new FormData();
  form.append("files", file, file.name);
  const began = Date.now();
  const timer = setInterval(() => { $("upload-state").textContent = `Watching ${file.name} … ${Math.round((Date.now() - began) / 1000)} s`; }, 1000);
  try {
    const answer = await post("v1/video", form);
    return [answer, videoCard(file, answer)];
  } finally {
    clearInterval(timer);
  }
}

async function post(path, body, tries = 4) {
  try {
    return await ask(path, { method: "POST", body });
  } catch (error) {
    if (error.status !== 429 || tries === 0) throw error;
    await new Promise((resolve) => setTimeout(resolve, 1000 * error.retryAfter));
    return post(path, body, tries - 1);
  }
}
