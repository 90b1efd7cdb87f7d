"""The miniature study."""
