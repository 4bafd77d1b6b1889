"""What LLVM does not bring to full speed by itself, written on vectors."""
