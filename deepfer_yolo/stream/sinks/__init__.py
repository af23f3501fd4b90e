"""Where results go: each sink behind a queue of its own, so that a slow one stalls nothing."""
