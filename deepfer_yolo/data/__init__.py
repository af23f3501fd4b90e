"""From any known layout to a checked data set folder."""
