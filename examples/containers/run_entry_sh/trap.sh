#!/bin/sh
# What people write by hand instead: right for one program, and for one signal.
handler() {
    kill -TERM "$child"
}
trap handler TERM
/main_process.py &
child=$!
wait "$child"
wait "$child"
