"""The dense path: whole epochs on samples of any kind."""
