"""Fine-tuning and training from scratch inside Ultralytics' own loop."""

import os

# Before torch loads its thread pool, which reads this once: spinning threads made training many times slower on shared
# cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
