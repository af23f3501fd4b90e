"""The one adapter to Ray: `predict`, `audit` and `evaluate` over many machines, or over the cores of one."""
