"""The sparse path: whole epochs on samples whose values are mostly zero."""
