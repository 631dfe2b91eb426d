# SPDX-License-Identifier: GPL-2.0-only
# demo.sh - sourced by the examples' demos, of which each has set $name: what they have in common. Where HERE is not set all
# of it happens in the lab machine: in_lab VARIABLE=VALUE... [KEEL.KO] goes there and does not come back.
# shellcheck shell=bash disable=SC2034
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
here=$top/examples/$name
build=$top/build/examples/$name

in_lab()
{
	local variables=() keel
	while [[ ${1-} = *=* ]]; do variables+=("$1"); shift; done
	[ -z "${HERE-}" ] || return 0
	"$top/selftests/lab/deps" examples && make -s -C "$here" && "$top/selftests/guest/prepare" || exit 1
	keel=${1:-$("$top/selftests/lab/build-module" | tail -n 1)}
	exec "$top/selftests/lab/run" --keel "$keel" --timeout "${TIMEOUT:-900}" --out "$build/lab" -- \
		env HERE=1 KEPT=/lab "${variables[@]}" "$here/demo"
}
kept=${KEPT-$build}	# what is to be looked at afterwards goes there; in build/examples/*/lab when it was in the lab

number=0 failed=0
result() # STATUS WHAT
{
	number=$((number + 1))
	if [ "$1" -eq 0 ]; then echo "ok $number - $name: $2"; return 0; fi
	failed=$((failed + 1))
	echo "not ok $number - $name: $2"
	return 1
}

# The last lines, and the exit status
sum()
{
	echo "1..$number"
	echo "$((number - failed)) passed, $failed failed, 0 skipped"
	[ $failed -eq 0 ]
}

# In $kernel what guests boot; in $work a directory that is in memory in the lab, and gone at the end
prepare()
{
	kernel=$top/build/guest/vmlinuz-cloud
	[ -r "$kernel" ] || "$top/selftests/guest/prepare" || { echo "Bail out! no kernel for guests"; exit 1; }
	[ -n "${TMPDIR-}" ] || [ ! -w /run ] || export TMPDIR=/run
	work=$(mktemp -d)
	cd "$work" || exit 1
	trap 'rm -rf "$work"' EXIT
}
