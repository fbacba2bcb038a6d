#!/bin/sh
# Writes myid and zoo.cfg from the container's environment, unless a configuration is mounted, then runs the server in the foreground.
#   QUORATE_ID       this server's number, 1..255
#   QUORATE_SERVERS  the server lines, blanks between them: "server.1=one:2888:3888 server.2=two:2888:3888"; none: standalone
set -eu
config=/etc/quorate/zoo.cfg
data=/var/lib/quorate
if [ ! -f "$config" ]; then
  {
    echo "tickTime=${QUORATE_TICK_TIME:-2000}"
    echo "initLimit=10"
    echo "syncLimit=5"
    echo "dataDir=$data"
    echo "clientPort=2181"
    for line in ${QUORATE_SERVERS:-}; do echo "$line"; done
  } > "$config"
fi
if [ ! -f "$data/myid" ]; then echo "${QUORATE_ID:-1}" > "$data/myid"; fi
exec node /opt/quorate/packages/cli/bin/quorate.mjs server "$config"
