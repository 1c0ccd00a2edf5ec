#!/bin/sh
# Prepares what the program needs, then becomes it.
printf 'greeting=%s\n' "${GREETING:-hello}" > /etc/main_process.conf
exec python3 /main_process.py
