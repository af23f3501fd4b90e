#!/usr/bin/env bash
# What Chromium's ways from an image file to pixels give, against Pillow. Fails where that has changed: then
# deepfer_yolo/web/page/engine/image.js may become shorter.
# 1. `premultiplyAlpha: "none"` of createImageBitmap is lost on a 2D canvas: colours of transparent pixels come back
#    rounded, or black; a texture of WebGL keeps them to the bit.
# 2. ImageDecoder takes the same option, and VideoFrame.copyTo() in RGBA gives multiplied colours all the same.
# 3. ImageDecoder hands out a JPEG as I420; its RGBA differs from the canvas, which equals Pillow.
# 4. createImageBitmap turns JPEG, PNG and AVIF by their EXIF, WebP not.
# Seen with Chromium 156.0.8078.108 and Pillow 13.0.0: "1. canvas differs in 74 % of pixels, WebGL in 0 %", "2. copyTo
# differs in 74 %", "3. I420, canvas differs in 0 %, copyTo in 98 %", "4. turned: jpeg True, png True, avif True, webp
# False".
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chromium=$(command -v chromium || command -v google-chrome) || exit 69
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet playwright==1.65.2 pillow==13.0.0 numpy==2.4.6 || exit 69
cd "$folder"
"$folder/venv/bin/python" - "$chromium" <<'END'
import base64
import http.server
import io
import sys
import threading

import numpy as np
from PIL import Image
from playwright.sync_api import sync_playwright

LOOK = """async ([text, type]) => {
    const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
    const bitmap = await createImageBitmap(new Blob([bytes]), {colorSpaceConversion: "none", premultiplyAlpha: "none"});
    const {width, height} = bitmap, said = {size: [width, height]};
    const context = new OffscreenCanvas(width, height).getContext("2d", {willReadFrequently: true});
    context.drawImage(bitmap, 0, 0);
    said.canvas = [...context.getImageData(0, 0, width, height).data];
    const gl = new OffscreenCanvas(1, 1).getContext("webgl"), texture = gl.createTexture();
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, bitmap);
    gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
    const pixels = new Uint8Array(width * height * 4);
    gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
    said.webgl = [...pixels];
    const decoder = new ImageDecoder({data: bytes, type, colorSpaceConversion: "none", premultiplyAlpha: "none"});
    const {image} = await decoder.decode();
    const copied = new Uint8Array(image.allocationSize({format: "RGBA"}));
    await image.copyTo(copied, {format: "RGBA"});
    return {...said, copied: [...copied], format: image.format};
}"""


def encoded(pixels, kind, **more):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, kind, **more)
    return content.getvalue()


def look(page, content, kind):
    return page.evaluate(LOOK, [base64.b64encode(content).decode(), f"image/{kind}"])


def differs(page, content, kind):
    said = look(page, content, kind)
    image = np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)
    shares = {}
    for way in ("canvas", "webgl", "copied"):
        found = np.array(said[way]).reshape(*image.shape[:2], 4)[..., :3]
        shares[way] = f"{(found != image).any(2).mean():.0%}"
    return shares, said


def check(what, is_as_expected):
    print(what, "as expected" if is_as_expected else "CHANGED")
    if not is_as_expected:
        raise SystemExit(1)


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
random = np.random.default_rng(0)
with sync_playwright() as playwright:
    browser = playwright.chromium.launch(executable_path=sys.argv[1], args=["--no-sandbox", "--disable-gpu"])
    print("Chromium", browser.version)
    page = browser.new_page()
    page.goto(f"http://127.0.0.1:{server.server_port}/")
    shares, _ = differs(page, encoded(random.integers(0, 256, (40, 50, 4), np.uint8), "PNG"), "png")
    found = f"1. canvas differs in {shares['canvas']} of pixels, WebGL in {shares['webgl']}:"
    check(found, shares["canvas"] != "0%" and shares["webgl"] == "0%")
    check(f"2. copyTo differs in {shares['copied']}:", shares["copied"] != "0%")
    smooth = np.kron(random.integers(0, 256, (5, 6, 3), np.uint8), np.ones((9, 9, 1), np.uint8))
    shares, said = differs(page, encoded(smooth, "JPEG", quality=90), "jpeg")
    found = f"3. {said['format']}, canvas differs in {shares['canvas']}, copyTo in {shares['copied']}:"
    check(found, said["format"] == "I420" and shares["canvas"] == "0%" and shares["copied"] != "0%")
    exif = Image.Exif()
    exif[0x112] = 6
    turned = {}
    for kind in ("jpeg", "png", "avif", "webp"):
        turned[kind] = look(page, encoded(smooth, kind.upper(), exif=exif), kind)["size"] == [45, 54]
    check(f"4. turned {turned}:", turned == {"jpeg": True, "png": True, "avif": True, "webp": False})
    browser.close()
END
