// The server looks at the camera's images, over a WebSocket.
const QUALITY = 0.85;
const PATIENCE_MS = 15000;

export function openSocket() {
  const address = new URL("v1/camera", location.href);
  address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
  address.hash = address.search = "";
  const socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  const gone = new Promise((_, refuse) => {
    socket.addEventListener("close", (event) => refuse(new Error(event.reason || "The connection to the server has ended.")));
  });
  gone.catch(() => {}); // whoever waits hears of it
  const opened = new Promise((resolve) => socket.addEventListener("open", () => resolve({ side: 640, look, close: () => socket.close() })));

  async function look(canvas) {
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", QUALITY));
    if (blob === null) return { error: "no image" };
    let watchdog = null;
    const late = new Promise((_, refuse) => { watchdog = setTimeout(() => refuse(new Error("The server has not answered for 15 seconds.")), PATIENCE_MS); });
    const answered = new Promise((resolve) => socket.addEventListener("message", (event) => resolve(JSON.parse(event.data)), { once: true }));
    if (socket.readyState === WebSocket.OPEN) socket.send(blob);
    try {
      return await Promise.race([answered, gone, late]);
    } finally {
      clearTimeout(watchdog);
    }
  }

  return Promise.race([opened, gone]);
}
