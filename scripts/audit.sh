#!/usr/bin/env bash
# Exits 0 when every lock was compared with the known advisories and none concerns it, 1 when one does, and 3, saying
# 'not audited', when the advisories could not be reached. The lists of what is inside are written in any case.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=.venv/bin
mkdir -p out
exit_code=0
for lock in requirements*.lock; do
    name=$(basename "$lock" .lock)
    "$bin/cyclonedx-py" requirements "$lock" --output-reproducible --of JSON -o "out/$name.cdx.json"
    # The locks name every dependency with its hashes, so nothing is resolved or installed to look at them.
    if "$bin/pip-audit" --strict --disable-pip --require-hashes --progress-spinner off \
        -f json -o "out/$name.audit.json" -r "$lock" 2>"out/$name.audit.log"; then
        echo "$lock: audited, no known advisory"
    elif [ -s "out/$name.audit.json" ] && "$bin/python" - "out/$name.audit.json" <<'PY'; then
import json, sys

found = [package for package in json.load(open(sys.argv[1]))["dependencies"] if package.get("vulns")]
for package in found:
    print(f"  {package['name']} {package['version']}: {', '.join(vuln['id'] for vuln in package['vulns'])}")
sys.exit(not found)
PY
        echo "$lock: advisories concern the packages above"
        exit_code=1
    else
        echo "$lock: not audited: $(tail -n 1 "out/$name.audit.log")" >&2
        [ "$exit_code" = 1 ] || exit_code=3
    fi
    rm -f "out/$name.audit.log"
done
echo "bills of materials: out/*.cdx.json"
exit "$exit_code"
