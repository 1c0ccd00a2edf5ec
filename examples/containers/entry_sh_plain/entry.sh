#!/bin/sh
# Prepares what the program needs, then starts it as one more line of the script.
printf 'greeting=%s\n' "${GREETING:-hello}" > /etc/main_process.conf
python3 /main_process.py
