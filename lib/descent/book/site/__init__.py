"""From staged pages to a checked site, and the server that shows it."""
