"""Fine-tuning and training from scratch inside Ultralytics' own loop."""
