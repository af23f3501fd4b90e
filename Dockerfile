# deepfer serve for edge boxes: base and serve extra only, no torch. Build and run: docs/deploy.md.
FROM python:3.13-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY configs configs
COPY deepfer_yolo deepfer_yolo
# The headless OpenCV wheel has the same functions without a window system; both wheels write into one folder, so only one may stay.
RUN python -m venv /opt/deepfer \
 && /opt/deepfer/bin/pip install --constraint constraints.txt ".[serve]" \
 && /opt/deepfer/bin/pip uninstall --yes opencv-python \
 && /opt/deepfer/bin/pip install "opencv-python-headless>=4.10,<5" \
 && find /opt/deepfer -name __pycache__ -prune -exec rm -r {} +

FROM python:3.13-slim-bookworm
# OpenCV's wheel needs GLib at run time, also in its headless form.
RUN apt-get update \
 && apt-get install -y --no-install-recommends libglib2.0-0 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --create-home --uid 10001 deepfer
COPY --from=build /opt/deepfer /opt/deepfer
ENV PATH=/opt/deepfer/bin:$PATH PYTHONUNBUFFERED=1
USER deepfer
WORKDIR /home/deepfer
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
# 0.0.0.0 is the container's own network; the server refuses to start there without DEEPFER_TOKEN.
ENTRYPOINT ["deepfer", "serve", "--host", "0.0.0.0"]
