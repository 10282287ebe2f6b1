#!/usr/bin/env bash
# The kernel tests on aarch64 in an emulator: tiers neon_i8mm, neon_dot and scalar.
# Needs: rustup target add aarch64-unknown-linux-gnu; apt-get install qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross.
# Arguments go to the test binary.
set -euo pipefail
cd "$(dirname "$0")/../.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$HOME/.cache/burn-quantized/target}/neon"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu -cpu max"
# Off: an emulator of user processes does not keep to inaccessible pages as the kernel does, and cannot start children of the test binary.
export GUARD_PAGES=off
test() {
    cargo test --locked -p bare-kernels --lib --target aarch64-unknown-linux-gnu -- "$@"
}
tier=kernels::cpu::tests::a_tier_is_forced_by_the_environment
test --skip "$tier" "$@"
for name in neon_i8mm neon_dot scalar; do
    BURN_QUANTIZED_CPU_TIER=$name test --exact "$tier"
done
