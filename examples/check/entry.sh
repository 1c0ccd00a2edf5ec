#!/bin/sh
# The entry script of very many images: it prepares what the program needs, then starts it as one more line.
export GREETING="${GREETING:-hello}"
"${PYTHON:-python3}" "$(dirname "$0")/../02_main_process.py"
