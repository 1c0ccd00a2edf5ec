"""The rehearsal of a stop: start a program, stop it as a platform would, and say who cleaned up and who was killed."""
