// Works without a network after the first visit, can be installed, and says when a new version is ready.
import { $ } from "./elements.js";

export async function startOffline() {
  window.addEventListener("beforeinstallprompt", (event) => {
    event.preventDefault();
    $("install").hidden = false;
    $("install").onclick = () => {
      event.prompt();
      $("install").hidden = true;
    };
  });
  if (!navigator.serviceWorker) {
    $("offline").textContent = "Not kept for use without a network: that needs HTTPS or localhost.";
    return;
  }
  try {
    const registration = await navigator.serviceWorker.register("sw.js");
    registration.addEventListener("updatefound", () => watch(registration));
    watch(registration);
    if (!navigator.serviceWorker.controller) await Promise.race([navigator.serviceWorker.ready, refusal(registration.installing)]);
    $("offline").textContent = "Works without a network.";
  } catch (error) {
    $("offline").textContent = `Not kept for use without a network: ${error.message}`;
  }
}

// Fails when the first worker of all gives up, for which `ready` waits for ever.
function refusal(worker) {
  return new Promise((_, refuse) => {
    worker?.addEventListener("statechange", () => worker.state === "redundant" && refuse(new Error("a file cannot be kept, or is not the one that files.json lists.")));
  });
}

function watch(registration) {
  const tell = () => {
    // The first worker of all waits for nobody; a later one waits until no page of the old version is open.
    const { waiting, active } = registration;
    if (waiting === null || active === null) return;
    $("update").hidden = false;
    $("update-now").onclick = () => {
      waiting.addEventListener("statechange", () => waiting.state === "activated" && location.reload());
      waiting.postMessage("take over");
    };
  };
  tell();
  registration.installing?.addEventListener("statechange", tell);
}
