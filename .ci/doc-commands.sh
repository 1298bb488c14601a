#!/usr/bin/env bash
# doc-commands.sh CHECKOUT DIR: runs the commands that README.md and docs/GUIDE/*.md of a checkout show.
#
# A fenced block marked ```sh is run as a reader would: all blocks of a page in one shell, in order,
# starting in an empty directory (below DIR) with a freshly built onmart on PATH. `go ...` runs in the
# checkout. After the mark may stand:
#     no-run   shown only
#     kafka    needs a Kafka broker at $BROKER and Kafka's scripts on PATH
#     data     needs the shared data; a block that says $ONMART_DATA needs it by that
# Where ../shared/data is absent beside the checkout, blocks that need it are skipped, saying so. A page
# stops at its first failing block. The last line counts the blocks. Pages may be named behind DIR.
set -euo pipefail
checkout=$(cd "$1" && pwd)
mkdir -p "$2"
dir=$(cd "$2" && pwd)

mkdir -p "$dir/bin"
(cd "$checkout" && CGO_ENABLED=0 go build -o "$dir/bin/onmart" ./cmd/onmart)
cat >"$dir/bin/go" <<END
#!/bin/sh
cd "$checkout" && exec "$(command -v go)" "\$@"
END
chmod +x "$dir/bin/go"

unset "${!ONMART_@}"
if [[ -d $checkout/../shared/data ]]; then
	ONMART_DATA=$(cd "$checkout/../shared/data" && pwd)
	export ONMART_DATA
else
	echo "no shared data beside the checkout: blocks that need it are skipped"
fi

# blocks PAGE SCRIPT: writes the page's blocks to one script that announces each before and after.
blocks() {
	awk -v page="$1" -v data="${ONMART_DATA:-}" -v broker="${BROKER:-}" '
		function flush() {
			if (attributes ~ /(^| )no-run( |$)/) { return }
			needs = attributes ~ /(^| )data( |$)/ || body ~ /ONMART_DATA/
			where = page ":" first
			if (needs && data == "") { printf "echo \"@@ skip %s (needs the shared data)\"\n", where; return }
			if (attributes ~ /(^| )kafka( |$)/ && broker == "") {
				printf "echo \"@@ skip %s (needs a Kafka broker)\"\n", where; return
			}
			printf "echo \"@@ run %s\"\n%secho \"@@ ok %s\"\n", where, body, where
		}
		!inside && /^```sh( |$)/ { inside = 1; attributes = substr($0, 6); body = ""; first = NR + 1; next }
		inside && /^```/ { inside = 0; flush(); next }
		inside { body = body $0 "\n" }
		END { if (inside) { printf "echo \"@@ run %s:%d\"; echo \"the block does not end\"; exit 1\n", page, first } }
	' "$checkout/$1" >"$2"
}

passed=0 failed=0 skipped=0
cd "$checkout"
pages=("${@:3}")
if ((${#pages[@]} == 0)); then pages=(README.md docs/GUIDE/*.md); fi
for page in "${pages[@]}"; do
	[[ -f $page ]] || continue
	name=${page//\//-}
	blocks "$page" "$dir/$name.sh"
	mkdir "$dir/$name"
	set +e
	# A session of its own, so that servers which a page leaves running end with it; a page that waits for ever fails.
	(cd "$dir/$name" && PATH=$dir/bin:$PATH exec setsid timeout --foreground 20m bash -euo pipefail -x "$dir/$name.sh") </dev/null >"$dir/$name.log" 2>&1 &
	pid=$!
	wait "$pid"
	rc=$?
	kill -TERM -- "-$pid" 2>/dev/null
	set -e
	oks=$(grep -c '^@@ ok ' "$dir/$name.log" || true)
	skips=$(grep -c '^@@ skip ' "$dir/$name.log" || true)
	grep -E '^@@ (ok|skip) ' "$dir/$name.log" | sed 's/^@@ /  /' || true
	passed=$((passed + oks)) skipped=$((skipped + skips))
	if ((rc != 0)); then
		failed=$((failed + 1))
		at=$(grep '^@@ run ' "$dir/$name.log" | tail -1 | sed 's/^@@ run //')
		echo "  FAILED ${at:-$page} (exit $rc); its output:"
		tac "$dir/$name.log" | sed '/^@@ run /q' | tac | tail -60 | sed 's/^/    /'
	fi
done
echo "documented blocks: $passed passed, $failed failed, $skipped skipped"
((failed == 0))
