// Keeps the page, its model and its engine for use without a network: all files of one version, or none.
// In front of this text stands `const BUNDLE = {version, files: [{path, bytes, sha256}]}`, so that a new version is a new worker.
/* global BUNDLE */
const SCOPE = new URL(self.registration.scope);
const OURS = `deepfer ${SCOPE.pathname} `;
const CACHE = OURS + BUNDLE.version;
const LARGE = 1e6;
const HASH = "x-deepfer-sha256";
// The source code is for those who ask for it, and need a network then.
const files = new Map(BUNDLE.files.filter((file) => file.path !== "source.zip").map((file) => [file.path, file]));

self.addEventListener("install", (event) => event.waitUntil(keepAll()));
self.addEventListener("activate", (event) => event.waitUntil(forgetOthers()));
self.addEventListener("message", (event) => {
  if (event.data === "take over") self.skipWaiting();
});
self.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  // An address with a query is for the server: it may carry the token that lets a browser in.
  if (event.request.method !== "GET" || url.origin !== SCOPE.origin || !url.pathname.startsWith(SCOPE.pathname) || url.search !== "") return;
  const file = files.get(url.pathname.slice(SCOPE.pathname.length) || "index.html");
  if (file !== undefined) event.respondWith(kept(file));
});

async function keepAll() {
  const cache = await caches.open(CACHE);
  try {
    for (const file of files.values()) await cache.put(addressOf(file), (await copied(file)) ?? (await fetched(file)));
  } catch (error) {
    await caches.delete(CACHE);
    throw error;
  }
}

async function forgetOthers() {
  const names = await caches.keys();
  await Promise.all(names.filter((name) => name.startsWith(OURS) && name !== CACHE).map((name) => caches.delete(name)));
}

async function kept(file) {
  const cache = await caches.open(CACHE);
  return (await cache.match(addressOf(file))) ?? fetched(file);
}

const addressOf = (file) => new URL(file.path, SCOPE).href;

// A large file that has not changed since the version before need not cross the network again.
async function copied(file) {
  if (file.bytes < LARGE) return null;
  for (const name of (await caches.keys()).filter((other) => other.startsWith(OURS))) {
    const found = await (await caches.open(name)).match(addressOf(file));
    if (found?.headers.get(HASH) === file.sha256) return found;
  }
  return null;
}

// Raises where the server has another version of the file by now: half of one and half of another is never kept.
async function fetched(file) {
  const answer = await fetch(addressOf(file), { cache: "no-cache" });
  if (!answer.ok) throw new Error(`${file.path}: ${answer.status}`);
  const content = await answer.arrayBuffer();
  const hash = Array.from(new Uint8Array(await crypto.subtle.digest("SHA-256", content)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hash !== file.sha256) throw new Error(`${file.path} is of another version`);
  const headers = new Headers(answer.headers);
  // What is kept is unpacked, and is no answer of a redirect, which a browser would not open as a page.
  for (const name of ["content-encoding", "content-length"]) headers.delete(name);
  headers.set(HASH, hash);
  return new Response(content, { headers });
}
