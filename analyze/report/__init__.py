"""One HTML file to explore results in: no network, nothing to install, everything it shows is in it."""
