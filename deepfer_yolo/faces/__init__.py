"""From a frame to tracked, smoothed faces."""
