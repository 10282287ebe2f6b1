#!/usr/bin/env bash
# The kernel tests under AddressSanitizer, on every tier that this machine has (Linux, x86-64; no component beside the stable toolchain).
# Arguments go to the test binary.
set -euo pipefail
cd "$(dirname "$0")/../.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/burn-quantized/target}/asan"
# The sanitizer is an option of unstable compilers; the runtime comes with the stable one.
export RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address"
# The sanitizer watches the system's allocator. Rayon's threads live as long as the process, which is no leak.
export GUARD_PAGES=off ASAN_OPTIONS="detect_leaks=0:${ASAN_OPTIONS:-}"
test() {
    cargo test --locked -p bare-kernels --lib --target x86_64-unknown-linux-gnu -- "$@"
}
# First that it sees anything: a test that reads one value too many.
if out=$(GUARD_TEST_INDEX=1024 test --exact guard::the_guard_pages_are_there 2>&1) || ! grep -q "AddressSanitizer: heap-buffer-overflow" <<<"$out"; then
    echo "asan: a read outside a buffer went unseen: $out" >&2
    exit 1
fi
test "$@"
