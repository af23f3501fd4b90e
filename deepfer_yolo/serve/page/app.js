// The page: tabs, theme, and what the server says about itself.
import { $, ask, knowLabels, startTabs, startTheme } from "./elements.js";
import { startCamera } from "./camera.js";
import { startUploads } from "./uploads.js";
import { openSocket } from "./socket.js";
import { label, watch } from "./post.js";
import { startLive } from "./live.js";
import { showModel } from "./model.js";

const openAsked = startTabs();
startTheme();
$("server-name").textContent = location.host;

startCamera(openSocket);
startUploads({ group: 8, label, watch });
try {
  const facts = await ask("v1/model");
  knowLabels(facts.card.labels);
  $("model-name").textContent = facts.card.name;
  $("model-name").hidden = false;
  $("version").textContent = `version ${facts.version}`;
  const { pictures: images, body_mb: size, megapixels, video_s: seconds } = facts.limits;
  $("upload-limits").textContent =
    `Up to ${images} images of ${megapixels} megapixels, videos up to ${seconds} seconds, ${size} MB at a time. The server keeps them in memory while it looks at them, no longer.`;
  showModel(facts);
  if (!facts.has_live) withoutLive();
  if (facts.sources > 0) {
    $("tab-live").hidden = false;
    startLive();
  }
} catch (error) {
  $("model").replaceChildren(Object.assign(document.createElement("p"), { className: "error", textContent: error.message }));
}
openAsked();
document.documentElement.dataset.ready = "yes";

// What the server cannot do is not offered, and the page says why.
function withoutLive() {
  const why = "This server was installed without the extra [live], which finds faces and reads cameras and videos: each image is taken as one face.";
  for (const id of ["find-faces", "camera-start"]) $(id).disabled = true;
  $("find-faces").checked = false;
  $("find-faces-hint").textContent = why;
  $("camera-error").textContent = why;
  $("camera-error").hidden = false;
}
