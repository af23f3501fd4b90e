# deepfer serve for edge boxes: the extras live-headless and serve, no torch. Build and run: docs/deploy.md.
FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY configs configs
COPY deepfer_yolo deepfer_yolo
RUN python -m venv /opt/deepfer \
 && /opt/deepfer/bin/pip install --constraint constraints.txt ".[live-headless,serve]"

FROM python:3.11-slim-bookworm
# Nothing from apt: of the system the wheels load only libc, libstdc++, libgcc and zlib, which every Debian has. The ordinary OpenCV wheel
# would need libgl1, libglib2.0-0 and libxcb1 as well.
RUN useradd --system --create-home --uid 10001 deepfer
COPY --from=build /opt/deepfer /opt/deepfer
ENV PATH=/opt/deepfer/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
WORKDIR /home/deepfer
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
# 0.0.0.0 is the container's own network; the server refuses to start there without DEEPFER_TOKEN.
ENTRYPOINT ["deepfer", "serve", "--host", "0.0.0.0"]
