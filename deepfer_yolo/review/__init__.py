"""The local page on which people correct labels: what is doubtful, who decides it, and the file of decisions."""
