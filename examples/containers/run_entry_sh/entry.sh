#!/bin/sh
# Prepares what the program needs, then starts it as one more line of the script.
greeting=${GREETING:-hello}
echo "prepared: $greeting"
/main_process.py
