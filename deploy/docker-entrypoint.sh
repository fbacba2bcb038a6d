#!/bin/sh
# Gives a container its number (QUORATE_ID), and a configuration from QUORATE_SERVERS ("server.1=… server.2=…") where none is mounted.
set -eu
data=/var/lib/quorate
config=/etc/quorate/zoo.cfg
if [ -n "${QUORATE_ID:-}" ] && [ ! -f "$data/myid" ]; then echo "$QUORATE_ID" > "$data/myid"; fi
if [ ! -f "$config" ]; then
  {
    echo "tickTime=2000"
    echo "initLimit=10"
    echo "syncLimit=5"
    echo "dataDir=$data"
    echo "clientPort=2181"
    for line in ${QUORATE_SERVERS:-}; do echo "$line"; done
  } > "$config"
fi
exec "$@"
