"""The sparse path: whole epochs on uint8 images whose pixels are mostly zero."""
