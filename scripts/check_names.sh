#!/usr/bin/env bash
# Fails when a lock names an address, or a tracked file names a folder of somebody's machine.
set -euo pipefail
cd "$(dirname "$0")/.."

# Without git, or outside a clone, the look-ups below would find nothing and pass.
command -v git >/dev/null || { echo "make check needs git: apt-get install -y git" >&2; exit 1; }
git rev-parse --git-dir >/dev/null

found=$(
    git ls-files | grep -E '(^|/)uv\.lock$' | sed 's/$/: uv.lock names the registry it came from/' || true
    git grep -nIE 'https?://|--(extra-)?index-url' -- 'requirements*.lock' || true
    git grep -nIE '"resolved":' -- '*package-lock.json' || true
    git grep -nIF -e "$PWD/" -e "${HOME%/}/" || true
    git grep -nIE '(^|[^[:alnum:]_.$}-])/(home|Users)/[[:alnum:]_]+/' -- ':!deploy/Dockerfile' || true
)
if [ -n "$found" ]; then
    printf 'registry addresses and folders of one machine do not belong into the repository:\n%s\n' "$found" >&2
    exit 1
fi
