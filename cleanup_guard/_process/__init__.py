"""One process: its signals, its threads, its ways out."""
