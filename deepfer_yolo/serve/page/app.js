// The page: tabs, theme, and what the server says about itself.
import { $, ask, knowLabels, startTheme } from "./elements.js";
import { startCamera } from "./camera.js";
import { startUploads } from "./uploads.js";
import { startLive } from "./live.js";
import { showModel } from "./model.js";

const tabs = [...document.querySelectorAll('[role="tab"]')];

function select(tab, focus = false) {
  for (const other of tabs) {
    const chosen = other === tab;
    other.setAttribute("aria-selected", chosen);
    other.tabIndex = chosen ? 0 : -1;
    $(other.getAttribute("aria-controls")).hidden = !chosen;
  }
  if (focus) tab.focus();
  history.replaceState(null, "", `#${tab.getAttribute("aria-controls")}`);
  document.dispatchEvent(new CustomEvent("tab", { detail: tab.getAttribute("aria-controls") }));
}

for (const tab of tabs) {
  tab.addEventListener("click", () => select(tab));
  tab.addEventListener("keydown", (event) => {
    const shown = tabs.filter((other) => !other.hidden);
    const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -shown.indexOf(tab), End: shown.length - 1 - shown.indexOf(tab) };
    if (!(event.key in steps)) return;
    event.preventDefault();
    select(shown[(shown.indexOf(tab) + steps[event.key] + shown.length) % shown.length], true);
  });
}

startTheme();
$("server-name").textContent = location.host;

startCamera();
startUploads();
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
  if (facts.sources > 0) {
    $("tab-live").hidden = false;
    startLive();
  }
} catch (error) {
  $("model").replaceChildren(Object.assign(document.createElement("p"), { className: "error", textContent: error.message }));
}
const asked = tabs.find((tab) => `#${tab.getAttribute("aria-controls")}` === location.hash && !tab.hidden);
if (asked) select(asked);
document.documentElement.dataset.ready = "yes";
