"""One reader a layout: each recognises its layout and turns it into items."""
