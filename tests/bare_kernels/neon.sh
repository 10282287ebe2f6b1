#!/usr/bin/env bash
# The kernel tests on aarch64 in an emulator: tiers neon_i8mm, neon_dot and scalar.
# Needs: rustup target add aarch64-unknown-linux-gnu; apt-get install qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross.
# Arguments go to the test binary.
set -euo pipefail
cd "$(dirname "$0")/../.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/burn-quantized/target}/neon"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu max"
test() {
    cargo test --locked -p bare-kernels --lib --target aarch64-unknown-linux-gnu -- "$@"
}
# An emulated process cannot start another; buffers have their guard pages.
tier=kernels::cpu::tests::a_tier_is_forced_by_the_environment
test --skip guard:: --skip "$tier" "$@"
GUARD_PAGES=start test edges
for name in neon_i8mm neon_dot scalar; do
    BURN_QUANTIZED_CPU_TIER=$name test --exact "$tier"
done
