"""The program, with a tracer whose handlers are there before the guard's."""

import ddtrace  # noqa: F401 - its import takes the signals
import plain

plain.main()
