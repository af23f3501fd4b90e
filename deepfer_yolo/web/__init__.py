"""The web page that detects and classifies in the visitor's own browser: its files, for one model."""
