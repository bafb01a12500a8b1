"""Task vectors compared: norms, cosines, what one says of another."""
