"""Numbers that compiled and other code share."""

# A sum of magnitudes is made of rows, each of which is added in so many lanes: in the same order on every machine.
ROW, LANES = 1 << 14, 64
# Random decisions have so many levels: see `masks.py`.
LEVELS = 1 << 15
# A magnitude is a float32's bit pattern without the sign: so many bits. No number has the largest one.
PATTERN_BITS, NOT_REACHED = 31, 0x7FFFFFFF
