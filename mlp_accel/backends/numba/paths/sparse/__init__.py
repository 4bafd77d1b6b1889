"""Whole epochs on images whose pixels are mostly zero."""
