"""One HTML file to explore results in: no network, nothing to install, everything it shows is in it.

Imports results, trends and the figures' style; ``analyze report`` alone imports it.
"""
