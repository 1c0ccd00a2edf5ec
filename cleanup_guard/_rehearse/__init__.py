"""The rehearsal of a stop: start a program as a container would, stop it, watch everybody, say who cleaned up and who was killed."""
