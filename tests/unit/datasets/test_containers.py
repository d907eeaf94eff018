"""JSON Lines, arrays, tables and encodings: the same rows, on the lines that the user sees."""
