#!/bin/sh
# The same with one word more: the program takes the shell's place, is PID 1 itself, and so gets the stop.
export GREETING="${GREETING:-hello}"
exec "${PYTHON:-python3}" "$(dirname "$0")/../02_main_process.py"
