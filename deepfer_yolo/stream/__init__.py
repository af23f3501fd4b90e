"""From cameras, streams and files to events, tables and video."""
