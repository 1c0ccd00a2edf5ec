#!/bin/sh
# Config files from environment variables, no shell in the image. Use the command as it is here as ENTRYPOINT.
folder=$(mktemp -d)
printf 'port = $PORT\nprice = 5$$\n' > "$folder/app.conf.in"
exec cleanup-guard exec --env PORT=8000 --template "$folder/app.conf.in:$folder/app.conf" -- cat "$folder/app.conf"
